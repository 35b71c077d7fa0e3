// The history of analytics: a cluster, its database, the tables and functions of infra/kusto, and who may use them.

@description('The last part of the names.')
@minLength(3)
@maxLength(14)
param suffix string

@description('The region of the cluster.')
param location string

@description('Tags for every resource.')
param tags object

@description('Size of the cluster. The first is for development: one machine, with no guaranteed availability.')
@allowed([
  'Dev(No SLA)_Standard_E2a_v4'
  'Standard_E2ads_v5'
  'Standard_E4ads_v5'
])
param size string

@description('The number of machines of the cluster.')
@minValue(1)
@maxValue(10)
param machines int

@description('Client id of the identity of analytics.')
param clientId string

var development = startsWith(size, 'Dev')

resource cluster 'Microsoft.Kusto/clusters@2024-04-13' = {
  name: 'adx${suffix}'
  location: location
  tags: tags
  sku: {
    name: size
    tier: development ? 'Basic' : 'Standard'
    capacity: machines
  }
  properties: {
    enableStreamingIngest: true
    enableDiskEncryption: true
    enableAutoStop: development
    engineType: 'V3'
  }
}

resource database 'Microsoft.Kusto/clusters/databases@2024-04-13' = {
  parent: cluster
  name: 'analytics'
  location: location
  kind: 'ReadWrite'
  properties: {
    hotCachePeriod: 'P31D'
    softDeletePeriod: 'P365D'
  }
}

// In the order of their names: each needs what earlier ones created. A script runs again when its text changes.
var scripts = [
  {
    name: '01-tables'
    text: loadTextContent('../../kusto/01-tables.kql')
  }
  {
    name: '02-mappings'
    text: loadTextContent('../../kusto/02-mappings.kql')
  }
  {
    name: '03-update-policies'
    text: loadTextContent('../../kusto/03-update-policies.kql')
  }
  {
    name: '04-views'
    text: loadTextContent('../../kusto/04-views.kql')
  }
  {
    name: '05-functions'
    text: loadTextContent('../../kusto/05-functions.kql')
  }
  {
    name: '06-policies'
    text: loadTextContent('../../kusto/06-policies.kql')
  }
]

@batchSize(1)
resource script 'Microsoft.Kusto/clusters/databases/scripts@2024-04-13' = [for s in scripts: {
  parent: database
  name: s.name
  properties: {
    scriptContent: s.text
    continueOnErrors: false
    forceUpdateTag: uniqueString(s.text)
  }
}]

resource user 'Microsoft.Kusto/clusters/databases/principalAssignments@2024-04-13' = [for role in [
  'Ingestor'
  'Viewer'
]: {
  parent: database
  name: 'analytics-${toLower(role)}'
  properties: {
    principalId: clientId
    principalType: 'App'
    role: role
    tenantId: subscription().tenantId
  }
}]

output id string = cluster.id
output endpoint string = cluster.properties.uri
output databaseName string = database.name
