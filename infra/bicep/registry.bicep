// The registry. infra/deploy.sh deploys it separately and first, because no app can start before its image exists.
targetScope = 'resourceGroup'

@description('The region of the registry.')
param location string = resourceGroup().location

@description('Basic is enough for one region; Premium can replicate images to several.')
@allowed([
  'Basic'
  'Standard'
  'Premium'
])
param sku string = 'Basic'

@description('Tags for every resource.')
param tags object = {
  application: 'waybill'
}

resource registry 'Microsoft.ContainerRegistry/registries@2025-04-01' = {
  name: 'waybill${uniqueString(resourceGroup().id)}'
  location: location
  tags: tags
  sku: {
    name: sku
  }
  properties: {
    adminUserEnabled: false
    anonymousPullEnabled: false
  }
}

output registryName string = registry.name
output registryServer string = registry.properties.loginServer
