// One region's Container Apps environment, and the Dapr components of the apps in it that use managed Dapr.

@description('The last part of the names.')
param suffix string

@description('The region of the environment.')
param location string

@description('Tags for every resource.')
param tags object

@description('The workspace that gets the logs.')
param workspaceId string

@description('The name of the Application Insights that gets the sidecars\' traces.')
param insightsName string

@description('The value of each envRef of components/azure.')
param settings object

@description('Client id of the identity by which the sidecars reach Service Bus and Cosmos DB.')
param componentsClientId string

@description('Client id of the identity by which the sidecars read Key Vault.')
param secretsClientId string

// The components as the self-hosted sidecar reads them. The secret store is first, because others need it. Only fulfillment uses
// workflowstore, and fulfillment brings its own sidecar. any() because not every file has every member.
var files = [
  any(loadYamlContent('../../../components/azure/secretstore.yaml'))
  any(loadYamlContent('../../../components/azure/orderbus.yaml'))
  any(loadYamlContent('../../../components/azure/telemetrybus.yaml'))
  any(loadYamlContent('../../../components/azure/statestore.yaml'))
  any(loadYamlContent('../../../components/azure/email.yaml'))
  any(loadYamlContent('../../../components/azure/sms.yaml'))
]
var managedApps = [
  'orders'
  'analytics'
  'notifications'
]

// A component is one resource for all its apps, so it has one identity. The vault has another one, which orders does not get.
var forComponents = union(settings, {
  IDENTITY_CLIENT_ID: componentsClientId
})
var forSecrets = union(settings, {
  IDENTITY_CLIENT_ID: secretsClientId
})

resource insights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: insightsName
}

resource environment 'Microsoft.App/managedEnvironments@2025-07-01' = {
  name: 'cae-waybill-${location}-${suffix}'
  location: location
  tags: tags
  properties: {
    daprAIConnectionString: insights.properties.ConnectionString
    appLogsConfiguration: {
      destination: 'azure-monitor'
    }
    workloadProfiles: [
      {
        name: 'Consumption'
        workloadProfileType: 'Consumption'
      }
    ]
    peerTrafficConfiguration: {
      encryption: {
        enabled: true
      }
    }
  }
}

resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'logs'
  scope: environment
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        category: 'ContainerAppConsoleLogs'
        enabled: true
      }
      {
        category: 'ContainerAppSystemLogs'
        enabled: true
      }
    ]
  }
}

@batchSize(1)
resource component 'Microsoft.App/managedEnvironments/daprComponents@2025-07-01' = [for file in files: {
  parent: environment
  name: file.metadata.name
  properties: {
    componentType: file.spec.type
    version: file.spec.version
    initTimeout: file.spec.initTimeout
    ignoreErrors: false
    secretStoreComponent: contains(file, 'auth') ? file.auth.secretStore : null
    metadata: map(file.spec.metadata, entry => union(
      {
        name: entry.name
      },
      contains(entry, 'value') ? {
        value: entry.value
      } : {},
      contains(entry, 'envRef') ? {
        value: file.metadata.name == 'secretstore' ? forSecrets[entry.envRef] : forComponents[entry.envRef]
      } : {},
      contains(entry, 'secretKeyRef') ? {
        secretRef: entry.secretKeyRef.name
      } : {}
    ))
    scopes: intersection(file.scopes, managedApps)
  }
}]

output id string = environment.id
output name string = environment.name
