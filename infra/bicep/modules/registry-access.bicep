// Lets the platform pull images: AcrPull for one identity on the registry that registry.bicep made.

var roles = loadJsonContent('../roles.json')

@description('Name of the registry.')
param registryName string

@description('The identity that pulls.')
param principalId string

resource registry 'Microsoft.ContainerRegistry/registries@2025-04-01' existing = {
  name: registryName
}

resource pull 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(registry.id, principalId, roles.acrPull.id)
  scope: registry
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.acrPull.id)
  }
}

output server string = registry.properties.loginServer
