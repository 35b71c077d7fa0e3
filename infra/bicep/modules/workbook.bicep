// One page that shows the state of the system: orders, sagas, waiting messages, dead letters, failures.

@description('The region of the workbook.')
param location string

@description('Tags for every resource.')
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
