// The order bus: all its topics and subscriptions, and who may send and receive where. Dapr creates none of them
// (disableEntityManagement), so sessions, lifetimes and duplicate detection are as defined here.

var roles = loadJsonContent('../roles.json')

@description('The last part of the names.')
param suffix string

@description('The regions, home first. The namespace is in the first one.')
@minLength(1)
param locations string[]

@description('Tags for every resource.')
param tags object

@description('Standard is enough for one region. Premium has dedicated memory, and copies in further regions.')
@allowed([
  'Standard'
  'Premium'
])
param sku string

@description('Object id of the identity that each sidecar uses, by app id.')
param principalIds object

@description('The identity that counts messages to decide how many replicas are needed.')
param scalerPrincipalId string

// Each topic and the apps that send to it. A test compares both lists with contracts and with the scopes of the component.
var topics = [
  {
    name: 'orders'
    senders: ['orders']
  }
  {
    name: 'fulfillment'
    senders: ['fulfillment']
  }
  {
    name: 'inventory'
    senders: ['fulfillment']
  }
  {
    name: 'notifications'
    senders: ['fulfillment']
  }
  {
    name: 'notification-outcomes'
    senders: ['notifications']
  }
]

// The apps that read each topic. An app dead-letters to <topic>.<app>.dead, and is the only one that sends to it and reads it.
var subscriptions = [
  {
    topic: 'orders'
    app: 'orders'
  }
  {
    topic: 'fulfillment'
    app: 'orders'
  }
  {
    topic: 'orders'
    app: 'fulfillment'
  }
  {
    topic: 'notifications'
    app: 'notifications'
  }
  {
    topic: 'fulfillment'
    app: 'notifications'
  }
  {
    topic: 'inventory'
    app: 'notifications'
  }
  {
    topic: 'orders'
    app: 'analytics'
  }
]

var deadLetters = map(subscriptions, s => {
  name: '${s.topic}.${s.app}.dead'
  senders: [s.app]
})
var allTopics = concat(topics, deadLetters)
var topicNames = map(allTopics, t => t.name)
var sendings = flatten(map(allTopics, t => map(t.senders, app => {
  topic: t.name
  app: app
})))

// A message waits as long as its app is away, so its lifetime bounds an outage. A message that the app returns is delivered
// again at once, and counted: docs/adr/0016 says why 100,000. The component renews a lock three times a minute.
var lifetime = 'P7D'
var lock = 'PT1M'
var maxDeliveries = 100000

// A publish is repeated for ten seconds. A longer window would drop the repeated announcements of docs/adr/0009.
var duplicateWindow = 'PT1M'

var replicated = sku == 'Premium' && length(locations) > 1

resource namespace 'Microsoft.ServiceBus/namespaces@2024-01-01' = {
  name: 'sb-waybill-${suffix}'
  location: locations[0]
  tags: tags
  sku: {
    name: sku
    tier: sku
    capacity: sku == 'Premium' ? 1 : null
  }
  properties: {
    disableLocalAuth: true
    minimumTlsVersion: '1.2'
    premiumMessagingPartitions: sku == 'Premium' ? 1 : null
    // One copy, in the second region. With more than one location every message is in both before it counts as sent.
    geoDataReplication: replicated ? {
      maxReplicationLagDurationInSeconds: 0
      locations: [
        {
          locationName: locations[0]
          roleType: 'Primary'
        }
        {
          locationName: locations[1]
          roleType: 'Secondary'
        }
      ]
    } : null
  }
}

resource topic 'Microsoft.ServiceBus/namespaces/topics@2024-01-01' = [for t in allTopics: {
  parent: namespace
  name: t.name
  properties: {
    defaultMessageTimeToLive: endsWith(t.name, '.dead') ? 'P90D' : lifetime
    // An event may be dead-lettered twice.
    requiresDuplicateDetection: !endsWith(t.name, '.dead')
    duplicateDetectionHistoryTimeWindow: endsWith(t.name, '.dead') ? null : duplicateWindow
    supportOrdering: true
    maxSizeInMegabytes: 5120
  }
}]

resource subscription 'Microsoft.ServiceBus/namespaces/topics/subscriptions@2024-01-01' = [for s in subscriptions: {
  parent: topic[indexOf(topicNames, s.topic)]
  name: s.app
  properties: {
    requiresSession: true
    defaultMessageTimeToLive: lifetime
    deadLetteringOnMessageExpiration: true
    deadLetteringOnFilterEvaluationExceptions: true
    lockDuration: lock
    maxDeliveryCount: maxDeliveries
    // Messages that Service Bus gives up go to the topic from which the app reads its dead letters, and not into a queue without a reader.
    forwardDeadLetteredMessagesTo: topic[indexOf(topicNames, '${s.topic}.${s.app}.dead')].name
  }
}]

resource deadSubscription 'Microsoft.ServiceBus/namespaces/topics/subscriptions@2024-01-01' = [for s in subscriptions: {
  parent: topic[indexOf(topicNames, '${s.topic}.${s.app}.dead')]
  name: s.app
  properties: {
    // Messages that Dapr itself dead-letters have no session.
    requiresSession: false
    defaultMessageTimeToLive: 'P90D'
    deadLetteringOnMessageExpiration: true
    lockDuration: lock
    maxDeliveryCount: maxDeliveries
  }
}]

resource sender 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for s in sendings: {
  name: guid(topic[indexOf(topicNames, s.topic)].id, principalIds[s.app], roles.serviceBusSender.id)
  scope: topic[indexOf(topicNames, s.topic)]
  properties: {
    principalId: principalIds[s.app]
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.serviceBusSender.id)
  }
}]

resource receiver 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for (s, i) in subscriptions: {
  name: guid(subscription[i].id, principalIds[s.app], roles.serviceBusReceiver.id)
  scope: subscription[i]
  properties: {
    principalId: principalIds[s.app]
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.serviceBusReceiver.id)
  }
}]

resource deadReceiver 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for (s, i) in subscriptions: {
  name: guid(deadSubscription[i].id, principalIds[s.app], roles.serviceBusReceiver.id)
  scope: deadSubscription[i]
  properties: {
    principalId: principalIds[s.app]
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.serviceBusReceiver.id)
  }
}]

// Counting a subscription's messages needs the right to manage, which no narrower role has (kedacore/keda issue 806). No
// container can use this identity (lifecycle None in the apps).
resource scaler 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(namespace.id, scalerPrincipalId, roles.serviceBusOwner.id)
  scope: namespace
  properties: {
    principalId: scalerPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.serviceBusOwner.id)
  }
}

output id string = namespace.id
output name string = namespace.name
output hostName string = '${namespace.name}.servicebus.windows.net'
output subscriptions array = subscriptions
