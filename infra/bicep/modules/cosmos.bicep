// Business state: the orders, sagas, stock, notifications and dead letters of every service, one document each.

@description('The last part of the names.')
param suffix string

@description('The regions. The first one accepts writes; the others hold copies and can take over.')
@minLength(1)
@maxLength(5)
param locations string[]

@description('Tags for every resource.')
param tags object

@description('Whether the copies of a region are in several zones.')
param zoneRedundant bool

@description('The most request units a second, with several regions. One region is serverless and has no such limit.')
@minValue(1000)
@maxValue(1000000)
param maxThroughput int

@description('The identities that read and write documents.')
param principalIds string[]

var serverless = length(locations) == 1

resource account 'Microsoft.DocumentDB/databaseAccounts@2025-04-15' = {
  name: 'cosmos-waybill-${suffix}'
  location: locations[0]
  tags: tags
  kind: 'GlobalDocumentDB'
  properties: {
    databaseAccountOfferType: 'Standard'
    capabilities: serverless ? [
      {
        name: 'EnableServerless'
      }
    ] : []
    // The sidecars send no session token, so with session consistency a read could be older than a write before it. Fulfillment
    // relies on newer reads (docs/adr/0028). Several regions cannot have strong reads without waiting for each other. With bounded
    // staleness, reads in the region that accepts writes are as new.
    consistencyPolicy: serverless ? {
      defaultConsistencyLevel: 'Strong'
    } : {
      defaultConsistencyLevel: 'BoundedStaleness'
      maxStalenessPrefix: 100000
      maxIntervalInSeconds: 300
    }
    locations: [for (location, i) in locations: {
      locationName: location
      failoverPriority: i
      isZoneRedundant: zoneRedundant
    }]
    enableAutomaticFailover: !serverless
    enableMultipleWriteLocations: false
    disableLocalAuth: true
    disableKeyBasedMetadataWriteAccess: true
    minimalTlsVersion: 'Tls12'
    // The data of any moment of the last seven days can be restored into a new account.
    backupPolicy: {
      type: 'Continuous'
      continuousModeProperties: {
        tier: 'Continuous7Days'
      }
    }
  }
}

resource database 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases@2025-04-15' = {
  parent: account
  name: 'OrdersDB'
  properties: {
    resource: {
      id: 'OrdersDB'
    }
  }
}

// Dapr writes each key into a separate partition. A TTL of -1 keeps a document for ever unless the document says otherwise.
// Only what Cosmos DB itself needs is indexed: documents are read by their id.
resource container 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers@2025-04-15' = {
  parent: database
  name: 'state'
  properties: {
    options: serverless ? {} : {
      autoscaleSettings: {
        maxThroughput: maxThroughput
      }
    }
    resource: {
      id: 'state'
      partitionKey: {
        kind: 'Hash'
        version: 2
        paths: [
          '/partitionKey'
        ]
      }
      defaultTtl: -1
      indexingPolicy: {
        indexingMode: 'consistent'
        automatic: true
        includedPaths: []
        excludedPaths: [
          {
            path: '/*'
          }
        ]
      }
    }
  }
}

// Cosmos DB Built-in Data Contributor, one of the account's own roles.
resource writer 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2024-11-15' = [for principalId in principalIds: {
  parent: account
  name: guid(account.id, principalId, container.id)
  properties: {
    principalId: principalId
    roleDefinitionId: '${account.id}/sqlRoleDefinitions/00000000-0000-0000-0000-000000000002'
    scope: '${account.id}/dbs/${database.name}/colls/${container.name}'
  }
}]

output id string = account.id
output name string = account.name
output endpoint string = account.properties.documentEndpoint
output databaseName string = database.name
output containerName string = container.name
