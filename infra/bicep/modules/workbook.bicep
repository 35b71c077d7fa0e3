// One page that shows how the system is: orders, sagas, what waits, what was set aside, what failed.

@description('Where the workbook stands.')
param location string

@description('Put on every resource.')
param tags object

@description('The workspace with the logs.')
param workspaceId string

@description('The Service Bus namespace.')
param serviceBusId string

@description('The Cosmos DB account.')
param cosmosId string

var content = loadTextContent('../workbook.json')

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(resourceGroup().id, 'waybill')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: 'Waybill'
    category: 'workbook'
    sourceId: workspaceId
    serializedData: replace(replace(replace(content, 'WORKSPACE_ID', workspaceId), 'SERVICE_BUS_ID', serviceBusId), 'COSMOS_ID', cosmosId)
  }
}

output id string = workbook.id
