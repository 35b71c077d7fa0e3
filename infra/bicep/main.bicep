// Waybill on Azure: everything except the registry, which registry.bicep creates first. infra/deploy.sh runs both, in that order, with
// the parameters that change from one deployment to the next.
targetScope = 'resourceGroup'

@description('A part of every name.')
@minLength(2)
@maxLength(6)
param environmentName string

@description('The regions, home first. Service Bus, Event Hubs, Azure Data Explorer and the vault are in the home region; Cosmos DB, orders, analytics and notifications are in all regions.')
@minLength(1)
@maxLength(5)
param locations string[] = [
  resourceGroup().location
]

@description('The one region that runs fulfillment, beside the workflow engine\'s database. Choose another one only when home is lost.')
param fulfillmentLocation string = locations[0]

@description('Tags for every resource.')
param tags object = {
  application: 'waybill'
  environment: environmentName
}

@description('The name of the registry that registry.bicep created.')
@minLength(5)
@maxLength(50)
param registryName string

@description('The version of the images.')
@minLength(1)
@maxLength(128)
param imageTag string

@description('The name of this deployment. It differs each time, so that every deployment starts new revisions.')
@minLength(1)
@maxLength(20)
param release string

@description('Address ranges, such as 203.0.113.0/24, that may call the services. All others are refused, because the services do not authenticate their callers.')
@minLength(1)
param clientAddresses string[]

@description('Origins whose pages may use the services in a browser, separated by commas, such as https://shop.example.com. None by default.')
param corsOrigins string = ''

@description('The email address of the operators. They get alerts, approvals, and sagas that need attention.')
@minLength(6)
param operatorsEmail string

@description('The largest total in each currency that needs no approval, such as 5000.00 USD,4600.00 EUR. An order in any other currency always needs approval.')
@minLength(1)
param approvalThreshold string = '5000.00 USD'

@description('How long an order is kept after it has ended, such as 17520h. 0 is for ever.')
param orderRetention string = '0'

@description('How long a saga record is kept after the saga has ended. Reservation, payment and shipment of the order are kept 30 days longer. At least as long as an event can be delivered again: 0, which is for ever, or more than the 7 days of the bus and the retention of dead letters.')
param sagaRetention string = '0'

@description('How long messages to customers are kept after their outcome. 0 is for ever.')
param messageRetention string = '2160h'

@description('How long a dead letter is kept after it was redriven or dismissed. 0 is for ever.')
param deadLetterRetention string = '2160h'

@description('How many orders may be in fulfilment at the same time before new ones are refused. Measure how many orders fulfillment finishes in half a minute.')
@minValue(0)
@maxValue(100000)
param admissionOpen int = 200

@description('How many calls to each partner (payment provider, carrier) may run at the same time. The same number again is for compensations.')
@minValue(1)
@maxValue(10000)
param partnerCalls int = 100

@description('The SMTP server.')
@minLength(1)
param emailHost string

@description('Its port.')
@allowed([
  465
  587
])
param emailPort int = 587

@description('The sender of mail.')
@minLength(6)
param emailFrom string

@description('The phone number that sends text messages.')
@minLength(8)
@maxLength(16)
param smsFrom string

@description('The token that fulfillment\'s sidecar sends to the service. It may be new for every deployment, because both get it together.')
@secure()
@minLength(20)
param appApiToken string = newGuid()

@description('Service Bus: Standard, or Premium, which keeps a copy in the second region.')
@allowed([
  'Standard'
  'Premium'
])
param serviceBusSku string

@description('Event Hubs: throughput units at the start.')
@minValue(1)
@maxValue(40)
param eventHubsUnits int = 1

@description('Event Hubs: the most throughput units.')
@minValue(1)
@maxValue(40)
param eventHubsMaxUnits int = 4

@description('Cosmos DB: the most request units a second, with several regions.')
@minValue(1000)
@maxValue(1000000)
param cosmosMaxThroughput int = 4000

@description('Whether Cosmos DB uses several zones of each region.')
param zoneRedundant bool

@description('PostgreSQL: size of the server.')
@allowed([
  'Standard_B1ms'
  'Standard_B2s'
  'Standard_D2ds_v5'
  'Standard_D4ds_v5'
])
param postgresSize string

@description('PostgreSQL: whether a second server takes over.')
param postgresHighAvailability bool

@description('PostgreSQL: days that backups are kept.')
@minValue(7)
@maxValue(35)
param postgresBackupDays int = 7

@description('Azure Data Explorer: size of the cluster.')
@allowed([
  'Dev(No SLA)_Standard_E2a_v4'
  'Standard_E2ads_v5'
  'Standard_E4ads_v5'
])
param kustoSize string

@description('Azure Data Explorer: machines.')
@minValue(1)
@maxValue(10)
param kustoMachines int

@description('Replicas of orders, analytics and notifications that always run, in each region.')
@minValue(1)
@maxValue(10)
param minReplicas int

@description('The most replicas of orders, analytics and notifications, in each region.')
@minValue(1)
@maxValue(30)
param maxReplicas int

@description('For how many days logs are kept.')
@minValue(30)
@maxValue(730)
param logRetentionDays int = 30

@description('Whether a deleted vault cannot be purged.')
param purgeProtection bool

@description('This number of messages in one topic, for a quarter of an hour, raises an alert.')
@minValue(1)
@maxValue(1000000)
param waitingMessages int = 100

var home = locations[0]
var suffix = '${environmentName}${take(uniqueString(resourceGroup().id, environmentName), 6)}'

// Four identities that containers use, and one that only the platform uses. Managed Dapr has one identity for a component of
// several apps, so orders, analytics and notifications share one. What only some of them may do has a separate identity.
module componentsIdentity 'modules/identity.bicep' = {
  name: 'identity-components'
  params: {
    name: 'id-components-${suffix}'
    location: home
    tags: tags
  }
}

module secretsIdentity 'modules/identity.bicep' = {
  name: 'identity-secrets'
  params: {
    name: 'id-secrets-${suffix}'
    location: home
    tags: tags
  }
}

module fulfillmentIdentity 'modules/identity.bicep' = {
  name: 'identity-fulfillment'
  params: {
    name: 'id-fulfillment-${suffix}'
    location: home
    tags: tags
  }
}

module analyticsIdentity 'modules/identity.bicep' = {
  name: 'identity-analytics'
  params: {
    name: 'id-analytics-${suffix}'
    location: home
    tags: tags
  }
}

module platformIdentity 'modules/identity.bicep' = {
  name: 'identity-platform'
  params: {
    name: 'id-platform-${suffix}'
    location: home
    tags: tags
  }
}

module registry 'modules/registry-access.bicep' = {
  name: 'registry-access'
  params: {
    registryName: registryName
    principalId: platformIdentity.outputs.principalId
  }
}

module observability 'modules/observability.bicep' = {
  name: 'observability'
  params: {
    suffix: suffix
    location: home
    tags: tags
    retentionDays: logRetentionDays
  }
}

module serviceBus 'modules/service-bus.bicep' = {
  name: 'service-bus'
  params: {
    suffix: suffix
    locations: locations
    tags: tags
    sku: serviceBusSku
    principalIds: {
      orders: componentsIdentity.outputs.principalId
      fulfillment: fulfillmentIdentity.outputs.principalId
      analytics: componentsIdentity.outputs.principalId
      notifications: componentsIdentity.outputs.principalId
    }
    scalerPrincipalId: platformIdentity.outputs.principalId
  }
}

module vault 'modules/key-vault.bicep' = {
  name: 'key-vault'
  params: {
    suffix: suffix
    location: home
    tags: tags
    readerPrincipalIds: [
      secretsIdentity.outputs.principalId
      platformIdentity.outputs.principalId
    ]
    purgeProtection: purgeProtection
  }
}

module eventHubs 'modules/event-hubs.bicep' = {
  name: 'event-hubs'
  params: {
    suffix: suffix
    location: home
    tags: tags
    throughputUnits: eventHubsUnits
    maxThroughputUnits: eventHubsMaxUnits
    vaultName: vault.outputs.name
  }
}

module cosmos 'modules/cosmos.bicep' = {
  name: 'cosmos'
  params: {
    suffix: suffix
    locations: locations
    tags: tags
    zoneRedundant: zoneRedundant
    maxThroughput: cosmosMaxThroughput
    principalIds: [
      componentsIdentity.outputs.principalId
      fulfillmentIdentity.outputs.principalId
    ]
  }
}

module postgres 'modules/postgres.bicep' = {
  name: 'postgres'
  params: {
    // The server is in the region of fulfillment, so it has another name if fulfillment runs elsewhere.
    suffix: fulfillmentLocation == home ? suffix : '${suffix}-${fulfillmentLocation}'
    location: fulfillmentLocation
    tags: tags
    size: postgresSize
    highAvailability: postgresHighAvailability
    backupDays: postgresBackupDays
    principalId: fulfillmentIdentity.outputs.principalId
    principalName: fulfillmentIdentity.outputs.name
  }
}

module kusto 'modules/kusto.bicep' = {
  name: 'kusto'
  params: {
    suffix: suffix
    location: home
    tags: tags
    size: kustoSize
    machines: kustoMachines
    clientId: analyticsIdentity.outputs.clientId
  }
}

module environment 'modules/environment.bicep' = [for location in locations: {
  name: 'environment-${location}'
  params: {
    suffix: suffix
    location: location
    tags: tags
    workspaceId: observability.outputs.workspaceId
    insightsName: observability.outputs.insightsName
    settings: {
      SERVICEBUS_NAMESPACE: serviceBus.outputs.hostName
      EVENTHUBS_BROKER: eventHubs.outputs.broker
      COSMOS_URL: cosmos.outputs.endpoint
      COSMOS_DATABASE: cosmos.outputs.databaseName
      COSMOS_CONTAINER: cosmos.outputs.containerName
      KEYVAULT_NAME: vault.outputs.name
      EMAIL_HOST: emailHost
      EMAIL_PORT: string(emailPort)
      EMAIL_FROM: emailFrom
      SMS_FROM: smsFrom
    }
    componentsClientId: componentsIdentity.outputs.clientId
    secretsClientId: secretsIdentity.outputs.clientId
  }
}]

module orders 'modules/service.bicep' = [for (location, i) in locations: {
  name: 'orders-${location}'
  params: {
    app: 'orders'
    location: location
    tags: tags
    environmentId: environment[i].outputs.id
    registryServer: registry.outputs.server
    imageTag: imageTag
    release: release
    corsOrigins: corsOrigins
    port: 8001
    settings: [
      {
        name: 'ORDER_RETENTION'
        value: orderRetention
      }
      {
        name: 'DEAD_LETTER_RETENTION'
        value: deadLetterRetention
      }
      {
        name: 'ADMISSION_OPEN'
        value: string(admissionOpen)
      }
    ]
    identityIds: [
      componentsIdentity.outputs.id
    ]
    platformIdentityId: platformIdentity.outputs.id
    secrets: []
    clientAddresses: clientAddresses
    minReplicas: minReplicas
    maxReplicas: maxReplicas
    scaleRules: [
      {
        name: 'requests'
        http: {
          metadata: {
            concurrentRequests: '50'
          }
        }
      }
      {
        name: 'orders'
        custom: {
          type: 'azure-servicebus'
          identity: platformIdentity.outputs.id
          metadata: {
            namespace: serviceBus.outputs.name
            topicName: 'orders'
            subscriptionName: 'orders'
            messageCount: '200'
          }
        }
      }
      {
        name: 'fulfillment'
        custom: {
          type: 'azure-servicebus'
          identity: platformIdentity.outputs.id
          metadata: {
            namespace: serviceBus.outputs.name
            topicName: 'fulfillment'
            subscriptionName: 'orders'
            messageCount: '200'
          }
        }
      }
    ]
  }
}]

module notifications 'modules/service.bicep' = [for (location, i) in locations: {
  name: 'notifications-${location}'
  params: {
    app: 'notifications'
    location: location
    tags: tags
    environmentId: environment[i].outputs.id
    registryServer: registry.outputs.server
    imageTag: imageTag
    release: release
    corsOrigins: corsOrigins
    port: 8004
    settings: [
      {
        name: 'OPERATORS_EMAIL'
        value: operatorsEmail
      }
      {
        name: 'VAPID_SUBJECT'
        value: 'mailto:${operatorsEmail}'
      }
      {
        name: 'MESSAGE_RETENTION'
        value: messageRetention
      }
      {
        name: 'DEAD_LETTER_RETENTION'
        value: deadLetterRetention
      }
    ]
    identityIds: [
      componentsIdentity.outputs.id
      secretsIdentity.outputs.id
    ]
    platformIdentityId: platformIdentity.outputs.id
    secrets: []
    clientAddresses: clientAddresses
    minReplicas: minReplicas
    maxReplicas: maxReplicas
    scaleRules: [
      {
        name: 'notifications'
        custom: {
          type: 'azure-servicebus'
          identity: platformIdentity.outputs.id
          metadata: {
            namespace: serviceBus.outputs.name
            topicName: 'notifications'
            subscriptionName: 'notifications'
            messageCount: '100'
          }
        }
      }
    ]
  }
}]

module analytics 'modules/service.bicep' = [for (location, i) in locations: {
  name: 'analytics-${location}'
  params: {
    app: 'analytics'
    location: location
    tags: tags
    environmentId: environment[i].outputs.id
    registryServer: registry.outputs.server
    imageTag: imageTag
    release: release
    corsOrigins: corsOrigins
    port: 8003
    settings: [
      {
        name: 'ANALYTICS_STORE'
        value: 'kusto'
      }
      {
        name: 'KUSTO_ENDPOINT'
        value: kusto.outputs.endpoint
      }
      {
        name: 'KUSTO_DATABASE'
        value: kusto.outputs.databaseName
      }
      {
        name: 'AZURE_CLIENT_ID'
        value: analyticsIdentity.outputs.clientId
      }
      {
        // Every replica also counts what the others stored (docs/adr/0014).
        name: 'FOLLOW_INTERVAL'
        value: '5s'
      }
      {
        name: 'DEAD_LETTER_RETENTION'
        value: deadLetterRetention
      }
    ]
    identityIds: [
      componentsIdentity.outputs.id
      secretsIdentity.outputs.id
      analyticsIdentity.outputs.id
    ]
    platformIdentityId: platformIdentity.outputs.id
    secrets: [
      {
        name: 'eventhubs-connection-string'
        keyVaultUrl: eventHubs.outputs.secretUri
        identity: platformIdentity.outputs.id
      }
      {
        // The user name that Event Hubs expects with a connection string.
        name: 'eventhubs-user'
        value: '$ConnectionString'
      }
    ]
    clientAddresses: clientAddresses
    minReplicas: minReplicas
    // The event hub has four partitions: in all regions together, a fifth reader would have nothing to read.
    maxReplicas: max(minReplicas, min(maxReplicas, 4 / length(locations)))
    scaleRules: [
      {
        name: 'requests'
        http: {
          metadata: {
            concurrentRequests: '100'
          }
        }
      }
      {
        name: 'events'
        custom: {
          type: 'kafka'
          metadata: {
            bootstrapServers: eventHubs.outputs.broker
            topic: 'analytics-events'
            consumerGroup: 'analytics'
            offsetResetPolicy: 'earliest'
            lagThreshold: '2000'
            sasl: 'plaintext'
            tls: 'enable'
          }
          auth: [
            {
              triggerParameter: 'username'
              secretRef: 'eventhubs-user'
            }
            {
              triggerParameter: 'password'
              secretRef: 'eventhubs-connection-string'
            }
          ]
        }
      }
      {
        name: 'orders'
        custom: {
          type: 'azure-servicebus'
          identity: platformIdentity.outputs.id
          metadata: {
            namespace: serviceBus.outputs.name
            topicName: 'orders'
            subscriptionName: 'analytics'
            messageCount: '500'
          }
        }
      }
    ]
  }
}]

module fulfillment 'modules/fulfillment.bicep' = {
  name: 'fulfillment-${fulfillmentLocation}'
  params: {
    location: fulfillmentLocation
    tags: tags
    environmentId: environment[indexOf(locations, fulfillmentLocation)].outputs.id
    registryServer: registry.outputs.server
    imageTag: imageTag
    release: release
    identityId: fulfillmentIdentity.outputs.id
    platformIdentityId: platformIdentity.outputs.id
    settings: {
      IDENTITY_CLIENT_ID: fulfillmentIdentity.outputs.clientId
      SERVICEBUS_NAMESPACE: serviceBus.outputs.hostName
      COSMOS_URL: cosmos.outputs.endpoint
      COSMOS_DATABASE: cosmos.outputs.databaseName
      COSMOS_CONTAINER: cosmos.outputs.containerName
      POSTGRES_CONNECTION_STRING: 'host=${postgres.outputs.host} user=${fulfillmentIdentity.outputs.name} port=5432 dbname=${postgres.outputs.databaseName} sslmode=verify-full'
    }
    serviceSettings: [
      {
        name: 'APPROVAL_THRESHOLD'
        value: approvalThreshold
      }
      {
        name: 'PARTNER_CALLS'
        value: string(partnerCalls)
      }
      {
        name: 'SAGA_RETENTION'
        value: sagaRetention
      }
      {
        name: 'DEAD_LETTER_RETENTION'
        value: deadLetterRetention
      }
    ]
    corsOrigins: corsOrigins
    appApiToken: appApiToken
    clientAddresses: clientAddresses
  }
}

module alerts 'modules/alerts.bicep' = {
  name: 'alerts'
  params: {
    location: home
    tags: tags
    locations: locations
    fulfillmentLocation: fulfillmentLocation
    operatorsEmail: operatorsEmail
    workspaceId: observability.outputs.workspaceId
    serviceBusId: serviceBus.outputs.id
    eventHubsId: eventHubs.outputs.id
    cosmosId: cosmos.outputs.id
    postgresId: postgres.outputs.id
    kustoId: kusto.outputs.id
    waitingMessages: waitingMessages
  }
  dependsOn: [
    orders
    notifications
    analytics
    fulfillment
  ]
}

module workbook 'modules/workbook.bicep' = {
  name: 'workbook'
  params: {
    location: home
    tags: tags
    workspaceId: observability.outputs.workspaceId
    serviceBusId: serviceBus.outputs.id
    cosmosId: cosmos.outputs.id
  }
}

output ordersUrls array = [for (location, i) in locations: orders[i].outputs.url]
output notificationsUrls array = [for (location, i) in locations: notifications[i].outputs.url]
output analyticsUrls array = [for (location, i) in locations: analytics[i].outputs.url]
output fulfillmentName string = fulfillment.outputs.name
output fulfillmentUrl string = fulfillment.outputs.url
output vaultName string = vault.outputs.name
output serviceBusName string = serviceBus.outputs.name
