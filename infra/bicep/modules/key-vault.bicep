// The secrets of the channels that reach customers. Bicep creates the vault and grants read access. A person stores the secrets
// (docs/operations.md), so no secret is ever a parameter, an output or a line of a deployment's history.

var roles = loadJsonContent('../roles.json')

@description('The last part of the names.')
@minLength(3)
@maxLength(15)
param suffix string

@description('The region of the vault.')
param location string

@description('Tags for every resource.')
param tags object

@description('The identities that read secrets.')
param readerPrincipalIds string[]

@description('Whether a deleted vault can be purged before its ninety days have ended. It cannot be switched off again.')
param purgeProtection bool

resource vault 'Microsoft.KeyVault/vaults@2024-11-01' = {
  name: 'kv-waybill-${suffix}'
  location: location
  tags: tags
  properties: {
    tenantId: subscription().tenantId
    sku: {
      family: 'A'
      name: 'standard'
    }
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: 90
    // The resource provider refuses false, so false is left out.
    enablePurgeProtection: purgeProtection ? true : null
  }
}

resource readers 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for principalId in readerPrincipalIds: {
  name: guid(vault.id, principalId, roles.keyVaultSecretsUser.id)
  scope: vault
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.keyVaultSecretsUser.id)
  }
}]

output id string = vault.id
output name string = vault.name
output uri string = vault.properties.vaultUri
