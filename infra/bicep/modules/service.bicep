// One service on managed Dapr: the container app of orders, analytics or notifications in one region.

@description('The Dapr app id, and the name of the image.')
@allowed([
  'orders'
  'analytics'
  'notifications'
])
param app string

@description('The region of the app.')
param location string

@description('Tags for every resource.')
param tags object

@description('The environment of that region, with its components.')
param environmentId string

@description('Host name of the registry.')
param registryServer string

@description('The version of the image.')
param imageTag string

@description('The last part of the revision\'s name.')
param release string

@description('Where the service listens.')
@minValue(8001)
@maxValue(8004)
param port int

@description('Origins whose pages may use the service in a browser, separated by commas.')
param corsOrigins string

@description('Settings in addition to those that every service gets.')
param settings array

@description('The identities that the service and its sidecar use, by resource id.')
param identityIds string[]

@description('The identity that pulls images, reads the scale rules\' secrets and counts messages. No container can use it.')
param platformIdentityId string

@description('Secrets of the scale rules: name and keyVaultUrl, or name and value.')
param secrets array

@description('Address ranges that may call the service. All others are refused, because the service does not authenticate its callers.')
@minLength(1)
param clientAddresses string[]

@description('Replicas that always run.')
@minValue(1)
@maxValue(30)
param minReplicas int

@description('The most replicas.')
@minValue(1)
@maxValue(30)
param maxReplicas int

@description('The rules that decide when to run more replicas.')
param scaleRules array

var ownIdentities = toObject(identityIds, id => id, id => {})
var platformIdentity = {
  '${platformIdentityId}': {}
}

resource service 'Microsoft.App/containerApps@2025-07-01' = {
  name: '${app}-${location}'
  location: location
  tags: tags
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: union(ownIdentities, platformIdentity)
  }
  properties: {
    environmentId: environmentId
    workloadProfileName: 'Consumption'
    configuration: {
      activeRevisionsMode: 'Single'
      maxInactiveRevisions: 5
      dapr: {
        enabled: true
        appId: app
        appPort: port
        appProtocol: 'http'
        logLevel: 'info'
      }
      identitySettings: [
        {
          identity: platformIdentityId
          lifecycle: 'None'
        }
      ]
      ingress: {
        external: true
        targetPort: port
        transport: 'auto'
        allowInsecure: false
        ipSecurityRestrictions: [for (range, i) in clientAddresses: {
          name: 'client-${i}'
          action: 'Allow'
          ipAddressRange: range
        }]
      }
      registries: [
        {
          server: registryServer
          identity: platformIdentityId
        }
      ]
      secrets: secrets
    }
    template: {
      revisionSuffix: release
      terminationGracePeriodSeconds: 60
      containers: [
        {
          name: app
          image: '${registryServer}/${app}:${imageTag}'
          resources: {
            cpu: json('0.5')
            memory: '1Gi'
          }
          // Managed Dapr sets APP_API_TOKEN, and its ports are those that the service expects.
          env: concat([
            {
              name: 'APP_HOST'
              value: '0.0.0.0'
            }
            {
              name: 'APP_PORT'
              value: string(port)
            }
            {
              name: 'EVENT_RETRIES'
              value: 'broker'
            }
            {
              name: 'CORS_ORIGINS'
              value: corsOrigins
            }
          ], settings)
          probes: [
            {
              type: 'Startup'
              httpGet: {
                path: '/healthz'
                port: port
              }
              periodSeconds: 1
              failureThreshold: 60
            }
            {
              type: 'Liveness'
              httpGet: {
                path: '/healthz'
                port: port
              }
              periodSeconds: 10
              timeoutSeconds: 5
              failureThreshold: 3
            }
            {
              type: 'Readiness'
              httpGet: {
                path: '/readyz'
                port: port
              }
              periodSeconds: 5
              timeoutSeconds: 4
              failureThreshold: 3
            }
          ]
        }
      ]
      scale: {
        minReplicas: minReplicas
        maxReplicas: maxReplicas
        rules: scaleRules
      }
    }
  }
}

output id string = service.id
output name string = service.name
output url string = 'https://${service.properties.configuration.ingress.fqdn}'
