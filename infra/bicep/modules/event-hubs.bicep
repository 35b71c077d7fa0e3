// The telemetry bus: an event hub for each topic of analytics, used through its Kafka endpoint (docs/adr/0015). Dapr's Kafka
// component knows no identity of Azure there, so this is the one place with a key. It goes from the namespace into Key Vault
// within the deployment and is seen by nobody.

@description('Last part of the names.')
param suffix string

@description('Where the namespace stands.')
param location string

@description('Put on every resource.')
param tags object

@description('Throughput units to begin with: each takes 1 MB or 1,000 events a second.')
@minValue(1)
@maxValue(40)
param throughputUnits int

@description('Throughput units at most; the namespace grows by itself.')
@minValue(1)
@maxValue(40)
param maxThroughputUnits int

@description('Name of the vault that takes the connection string.')
param vaultName string

// A test compares the hubs with contracts. alerts is read by nobody here: it is for whoever wants to know.
var hubs = [
  'analytics-events'
  'alerts'
  'analytics-events.analytics.dead'
]

resource namespace 'Microsoft.EventHub/namespaces@2024-01-01' = {
  name: 'evhns-waybill-${suffix}'
  location: location
  tags: tags
  sku: {
    name: 'Standard'
    tier: 'Standard'
    capacity: throughputUnits
  }
  properties: {
    // The Kafka endpoint logs in with a connection string.
    disableLocalAuth: false
    kafkaEnabled: true
    minimumTlsVersion: '1.2'
    isAutoInflateEnabled: true
    maximumThroughputUnits: maxThroughputUnits
  }
}

// Four partitions, which is how many replicas of analytics can share the reading; seven days, which is the longest that
// Standard keeps, and what the lookback of the views in Azure Data Explorer is made for.
resource hub 'Microsoft.EventHub/namespaces/eventhubs@2024-01-01' = [for name in hubs: {
  parent: namespace
  name: name
  properties: {
    partitionCount: 4
    retentionDescription: {
      cleanupPolicy: 'Delete'
      retentionTimeInHours: 168
    }
  }
}]

resource rule 'Microsoft.EventHub/namespaces/authorizationRules@2024-01-01' = {
  parent: namespace
  name: 'analytics'
  properties: {
    rights: [
      'Listen'
      'Send'
    ]
  }
}

resource vault 'Microsoft.KeyVault/vaults@2024-11-01' existing = {
  name: vaultName
}

resource connectionString 'Microsoft.KeyVault/vaults/secrets@2024-11-01' = {
  parent: vault
  name: 'eventhubs-connection-string'
  properties: {
    contentType: 'written by infra/bicep/modules/event-hubs.bicep at every deployment'
    value: rule.listKeys().primaryConnectionString
  }
}

output id string = namespace.id
output name string = namespace.name
output broker string = '${namespace.name}.servicebus.windows.net:9093'
output secretUri string = connectionString.properties.secretUri
