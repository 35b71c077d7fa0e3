// One identity. Every service has its own, so that it gets only the rights that it needs.

@description('Name of the identity.')
@minLength(3)
@maxLength(128)
param name string

@description('The region of the identity. It can be used in every region.')
param location string

@description('Tags for every resource.')
param tags object

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: name
  location: location
  tags: tags
}

output id string = identity.id
output name string = identity.name
output principalId string = identity.properties.principalId
output clientId string = identity.properties.clientId
