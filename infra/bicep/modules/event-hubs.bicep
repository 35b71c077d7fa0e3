// The telemetry bus: an event hub for each topic of analytics, used through its Kafka endpoint (docs/adr/0015). Dapr's Kafka
// component supports no identity of Azure there, so this is the only place with a key. The deployment copies it from the namespace
// into Key Vault, and no person sees it.

@description('The last part of the names.')
param suffix string

@description('The region of the namespace.')
param location string

@description('Tags for every resource.')
param tags object

@description('Throughput units at the start: each accepts 1 MB or 1,000 events a second.')
@minValue(1)
@maxValue(40)
param throughputUnits int

@description('The most throughput units; the namespace grows by itself.')
@minValue(1)
@maxValue(40)
param maxThroughputUnits int

@description('The name of the vault that gets the connection string.')
param vaultName string

// A test compares the hubs with contracts. No service reads alerts: it is for other systems.
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

// Four partitions: at most four replicas of analytics can share the reading. Seven days is the longest that Standard keeps
// events; the lookback of the views in Azure Data Explorer fits it.
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
