// fulfillment with its own sidecar, because managed Dapr has no workflows. One replica with four containers that reach each other on
// the loopback interface. docs/adr/0017 says why, and what is lost with the replica.

@description('The region of the app.')
param location string

@description('Tags for every resource.')
param tags object

@description('The environment of that region.')
param environmentId string

@description('Host name of the registry.')
param registryServer string

@description('The version of the images.')
param imageTag string

@description('The last part of the revision\'s name.')
param release string

@description('fulfillment\'s identity, by resource id.')
param identityId string

@description('The identity that pulls images. No container can use it.')
param platformIdentityId string

@description('The value of each envRef of the components that fulfillment uses.')
param settings object

@description('Settings of the service beside those that it always gets.')
param serviceSettings array

@description('Origins whose pages may use the service in a browser, separated by commas.')
param corsOrigins string

@description('The token that the sidecar sends to the service when it delivers events.')
@secure()
@minLength(20)
param appApiToken string

@description('Address ranges that may call the service. All others are refused, because the service does not authenticate its callers.')
@minLength(1)
param clientAddresses string[]

var app = 'fulfillment'
var port = 8002

// Every process has separate ports. Only the health ports answer beyond the loopback interface, for the platform's probes.
var daprHttpPort = 3500
var daprGrpcPort = 50001
var daprHealthPort = 3510
var placementPort = 50005
var placementHealthPort = 3520
var schedulerPort = 50006
var schedulerHealthPort = 3530

// The files are unchanged: the sidecar reads each envRef from its own environment.
var files = [
  {
    secret: 'orderbus'
    path: 'orderbus.yaml'
    text: loadTextContent('../../../components/azure/orderbus.yaml')
  }
  {
    secret: 'statestore'
    path: 'statestore.yaml'
    text: loadTextContent('../../../components/azure/statestore.yaml')
  }
  {
    secret: 'workflowstore'
    path: 'workflowstore.yaml'
    text: loadTextContent('../../../components/azure/workflowstore.yaml')
  }
]

resource fulfillment 'Microsoft.App/containerApps@2025-07-01' = {
  name: '${app}-${location}'
  location: location
  tags: tags
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
      '${platformIdentityId}': {}
    }
  }
  properties: {
    environmentId: environmentId
    workloadProfileName: 'Consumption'
    configuration: {
      activeRevisionsMode: 'Single'
      maxInactiveRevisions: 5
      dapr: {
        enabled: false
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
      secrets: concat(map(files, f => {
        name: f.secret
        value: f.text
      }), [
        {
          name: 'configuration'
          value: loadTextContent('../../../components/azure/config.yaml')
        }
        {
          name: 'app-api-token'
          value: appApiToken
        }
      ])
    }
    template: {
      revisionSuffix: release
      terminationGracePeriodSeconds: 60
      volumes: [
        {
          name: 'components'
          storageType: 'Secret'
          secrets: map(files, f => {
            secretRef: f.secret
            path: f.path
          })
        }
        {
          name: 'configuration'
          storageType: 'Secret'
          secrets: [
            {
              secretRef: 'configuration'
              path: 'config.yaml'
            }
          ]
        }
        {
          // This survives a container, but not the replica.
          name: 'reminders'
          storageType: 'EmptyDir'
        }
      ]
      containers: [
        {
          name: app
          image: '${registryServer}/${app}:${imageTag}'
          resources: {
            cpu: json('0.5')
            memory: '1Gi'
          }
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
              name: 'APP_API_TOKEN'
              secretRef: 'app-api-token'
            }
            {
              name: 'DAPR_HTTP_PORT'
              value: string(daprHttpPort)
            }
            {
              name: 'DAPR_GRPC_PORT'
              value: string(daprGrpcPort)
            }
            {
              name: 'EVENT_RETRIES'
              value: 'broker'
            }
            {
              name: 'CORS_ORIGINS'
              value: corsOrigins
            }
          ], serviceSettings)
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
        {
          name: 'daprd'
          image: '${registryServer}/daprd:${imageTag}'
          resources: {
            cpu: json('0.5')
            memory: '1Gi'
          }
          args: [
            '--app-id'
            app
            '--app-port'
            string(port)
            '--app-protocol'
            'http'
            '--dapr-http-port'
            string(daprHttpPort)
            '--dapr-grpc-port'
            string(daprGrpcPort)
            '--dapr-listen-addresses'
            '127.0.0.1'
            '--dapr-public-port'
            string(daprHealthPort)
            '--dapr-internal-grpc-listen-address'
            '127.0.0.1'
            '--placement-host-address'
            '127.0.0.1:${placementPort}'
            '--scheduler-host-address'
            '127.0.0.1:${schedulerPort}'
            '--resources-path'
            '/components'
            '--config'
            '/configuration/config.yaml'
            '--enable-metrics=false'
            '--log-as-json'
          ]
          env: concat([
            {
              name: 'DAPR_HOST_IP'
              value: '127.0.0.1'
            }
            {
              name: 'APP_API_TOKEN'
              secretRef: 'app-api-token'
            }
          ], map(items(settings), s => {
            name: s.key
            value: s.value
          }))
          volumeMounts: [
            {
              volumeName: 'components'
              mountPath: '/components'
            }
            {
              volumeName: 'configuration'
              mountPath: '/configuration'
            }
          ]
          probes: [
            {
              // Outbound health: whether the sidecar's APIs can be used. Its other health check waits for the service, which waits for the sidecar.
              type: 'Liveness'
              httpGet: {
                path: '/v1.0/healthz/outbound'
                port: daprHealthPort
              }
              initialDelaySeconds: 60
              periodSeconds: 10
              timeoutSeconds: 5
              failureThreshold: 6
            }
          ]
        }
        {
          name: 'placement'
          image: '${registryServer}/placement:${imageTag}'
          resources: {
            cpu: json('0.25')
            memory: '0.5Gi'
          }
          args: [
            '--port'
            string(placementPort)
            '--listen-address'
            '127.0.0.1'
            '--healthz-port'
            string(placementHealthPort)
            '--enable-metrics=false'
            '--log-as-json'
          ]
          probes: [
            {
              type: 'Liveness'
              httpGet: {
                path: '/healthz'
                port: placementHealthPort
              }
              initialDelaySeconds: 20
              periodSeconds: 10
              timeoutSeconds: 5
              failureThreshold: 3
            }
          ]
        }
        {
          name: 'scheduler'
          image: '${registryServer}/scheduler:${imageTag}'
          resources: {
            cpu: json('0.75')
            memory: '1.5Gi'
          }
          args: [
            '--port'
            string(schedulerPort)
            '--listen-address'
            '127.0.0.1'
            '--override-broadcast-host-port'
            '127.0.0.1:${schedulerPort}'
            '--healthz-port'
            string(schedulerHealthPort)
            '--etcd-data-dir'
            '/reminders/etcd'
            // The history that etcd keeps is bounded: ADR 27.
            '--etcd-compaction-mode'
            'periodic'
            '--etcd-compaction-retention'
            '1m'
            '--etcd-snapshot-count'
            '5000'
            '--etcd-max-wals'
            '3'
            '--etcd-max-snapshots'
            '3'
            '--enable-metrics=false'
            '--log-as-json'
          ]
          volumeMounts: [
            {
              volumeName: 'reminders'
              mountPath: '/reminders'
            }
          ]
          probes: [
            {
              type: 'Liveness'
              httpGet: {
                path: '/healthz'
                port: schedulerHealthPort
              }
              initialDelaySeconds: 60
              periodSeconds: 10
              timeoutSeconds: 5
              failureThreshold: 6
            }
          ]
        }
      ]
      // Exactly one: a second replica would be a second workflow engine on the same state.
      scale: {
        minReplicas: 1
        maxReplicas: 1
      }
    }
  }
}

output id string = fulfillment.id
output name string = fulfillment.name
output url string = 'https://${fulfillment.properties.configuration.ingress.fqdn}'
