// The workspaces for logs and traces.

@description('The last part of the names.')
param suffix string

@description('The region of the workspace.')
param location string

@description('Tags for every resource.')
param tags object

@description('For how many days logs are kept.')
@minValue(30)
@maxValue(730)
param retentionDays int

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-07-01' = {
  name: 'log-waybill-${suffix}'
  location: location
  tags: tags
  properties: {
    sku: {
      name: 'PerGB2018'
    }
    retentionInDays: retentionDays
    features: {
      // No shared key: the environments write through their diagnostic settings.
      disableLocalAuth: true
      enableLogAccessUsingOnlyResourcePermissions: true
    }
  }
}

// Dapr on Container Apps sends its traces with the instrumentation key alone, so local authentication stays on here. The key
// can write telemetry and cannot read anything.
resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: 'appi-waybill-${suffix}'
  location: location
  tags: tags
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: workspace.id
    IngestionMode: 'LogAnalytics'
  }
}

output workspaceId string = workspace.id
output insightsId string = insights.id
output insightsName string = insights.name
