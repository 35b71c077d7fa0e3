// The alerts. docs/operations.md has a row for each, by its name; a test compares the two.

@description('The region of the rules.')
param location string

@description('Tags for every resource.')
param tags object

@description('The regions in which orders, analytics and notifications run.')
@minLength(1)
param locations string[]

@description('The region in which fulfillment runs.')
param fulfillmentLocation string

@description('The email address that gets the alerts.')
@minLength(6)
param operatorsEmail string

@description('The workspace with the logs.')
param workspaceId string

@description('The Service Bus namespace.')
param serviceBusId string

@description('The Event Hubs namespace.')
param eventHubsId string

@description('The Cosmos DB account.')
param cosmosId string

@description('The PostgreSQL server.')
param postgresId string

@description('The Azure Data Explorer cluster.')
param kustoId string

@description('This number of messages in one topic, at every check within a quarter of an hour, is too many.')
@minValue(1)
@maxValue(1000000)
param waitingMessages int

resource operators 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: 'operators'
  location: 'global'
  tags: tags
  properties: {
    groupShortName: 'operators'
    enabled: true
    emailReceivers: [
      {
        name: 'operators'
        emailAddress: operatorsEmail
        useCommonAlertSchema: true
      }
    ]
  }
}

// Severity: 1 wakes the person on call, 2 waits for the morning, 3 is information.
var queries = [
  {
    name: 'events-parked'
    severity: 2
    threshold: 0
    text: loadTextContent('../queries/events-parked.kql')
  }
  {
    name: 'saga-stuck'
    severity: 1
    threshold: 0
    text: loadTextContent('../queries/saga-stuck.kql')
  }
  {
    name: 'saga-restarted'
    severity: 3
    threshold: 0
    text: loadTextContent('../queries/saga-restarted.kql')
  }
  {
    name: 'engine-restarted'
    severity: 3
    threshold: 0
    text: loadTextContent('../queries/engine-restarted.kql')
  }
  {
    name: 'admission-closed'
    severity: 2
    threshold: 0
    text: loadTextContent('../queries/admission-closed.kql')
  }
  {
    name: 'channel-refuses'
    severity: 2
    threshold: 20
    text: loadTextContent('../queries/channel-refuses.kql')
  }
  {
    name: 'probes-failing'
    severity: 2
    threshold: 10
    text: loadTextContent('../queries/probes-failing.kql')
  }
]

resource query 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [for q in queries: {
  name: q.name
  location: location
  tags: union(tags, {
    alert: q.name
  })
  kind: 'LogAlert'
  properties: {
    displayName: q.name
    description: 'docs/operations.md, ${q.name}'
    severity: q.severity
    enabled: true
    scopes: [
      workspaceId
    ]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT15M'
    // A new workspace does not know a table before its first row.
    skipQueryValidation: true
    criteria: {
      allOf: [
        {
          query: q.text
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: q.threshold
          failingPeriods: {
            numberOfEvaluationPeriods: 1
            minFailingPeriodsToAlert: 1
          }
        }
      ]
    }
    autoMitigate: true
    actions: {
      actionGroups: [
        operators.id
      ]
    }
  }
}]

var deadLetterTopics = [
  'orders.orders.dead'
  'fulfillment.orders.dead'
  'orders.fulfillment.dead'
  'notifications.notifications.dead'
  'fulfillment.notifications.dead'
  'inventory.notifications.dead'
  'orders.analytics.dead'
]

// There is no metric of a message's age. A topic that never has few messages for a quarter of an hour has old ones.
var resourceAlerts = [
  {
    name: 'dead-letters-unread'
    severity: 2
    scope: serviceBusId
    namespace: 'Microsoft.ServiceBus/namespaces'
    metric: 'ActiveMessages'
    aggregation: 'Minimum'
    operator: 'GreaterThan'
    threshold: 0
    dimension: 'EntityName'
    values: deadLetterTopics
  }
  {
    name: 'messages-given-up'
    severity: 1
    scope: serviceBusId
    namespace: 'Microsoft.ServiceBus/namespaces'
    metric: 'DeadletteredMessages'
    aggregation: 'Maximum'
    operator: 'GreaterThan'
    threshold: 0
    dimension: 'EntityName'
    values: [
      '*'
    ]
  }
  {
    name: 'messages-waiting'
    severity: 1
    scope: serviceBusId
    namespace: 'Microsoft.ServiceBus/namespaces'
    metric: 'ActiveMessages'
    aggregation: 'Minimum'
    operator: 'GreaterThan'
    threshold: waitingMessages
    dimension: 'EntityName'
    values: [
      'orders'
      'fulfillment'
      'inventory'
      'notifications'
    ]
  }
  {
    name: 'bus-throttled'
    severity: 2
    scope: serviceBusId
    namespace: 'Microsoft.ServiceBus/namespaces'
    metric: 'ThrottledRequests'
    aggregation: 'Total'
    operator: 'GreaterThan'
    threshold: 0
    dimension: ''
    values: []
  }
  {
    name: 'event-hubs-throttled'
    severity: 2
    scope: eventHubsId
    namespace: 'Microsoft.EventHub/namespaces'
    metric: 'ThrottledRequests'
    aggregation: 'Total'
    operator: 'GreaterThan'
    threshold: 0
    dimension: ''
    values: []
  }
  {
    name: 'cosmos-throttled'
    severity: 2
    scope: cosmosId
    namespace: 'Microsoft.DocumentDB/databaseAccounts'
    metric: 'TotalRequests'
    aggregation: 'Count'
    operator: 'GreaterThan'
    threshold: 100
    dimension: 'StatusCode'
    values: [
      '429'
    ]
  }
  {
    name: 'postgres-down'
    severity: 1
    scope: postgresId
    namespace: 'Microsoft.DBforPostgreSQL/flexibleServers'
    metric: 'is_db_alive'
    aggregation: 'Maximum'
    operator: 'LessThan'
    threshold: 1
    dimension: ''
    values: []
  }
  {
    name: 'postgres-full'
    severity: 2
    scope: postgresId
    namespace: 'Microsoft.DBforPostgreSQL/flexibleServers'
    metric: 'storage_percent'
    aggregation: 'Maximum'
    operator: 'GreaterThan'
    threshold: 80
    dimension: ''
    values: []
  }
  {
    name: 'kusto-down'
    severity: 2
    scope: kustoId
    namespace: 'Microsoft.Kusto/clusters'
    metric: 'KeepAlive'
    aggregation: 'Average'
    operator: 'LessThan'
    threshold: 1
    dimension: ''
    values: []
  }
  {
    name: 'fulfillment-down'
    severity: 1
    scope: resourceId('Microsoft.App/containerApps', 'fulfillment-${fulfillmentLocation}')
    namespace: 'Microsoft.App/containerApps'
    metric: 'Replicas'
    aggregation: 'Maximum'
    operator: 'LessThan'
    threshold: 1
    dimension: ''
    values: []
  }
]

var apps = concat(flatten(map([
  'orders'
  'analytics'
  'notifications'
], app => map(locations, l => '${app}-${l}'))), [
  'fulfillment-${fulfillmentLocation}'
])

var appAlerts = flatten(map(apps, app => [
  {
    name: 'replica-restarts'
    app: app
    severity: 2
    metric: 'RestartCount'
    threshold: 3
    dimension: ''
    values: []
  }
  {
    name: 'http-5xx'
    app: app
    severity: 1
    metric: 'Requests'
    threshold: 20
    dimension: 'statusCodeCategory'
    values: [
      '5xx'
    ]
  }
]))

resource resourceAlert 'Microsoft.Insights/metricAlerts@2018-03-01' = [for a in resourceAlerts: {
  name: a.name
  location: 'global'
  tags: union(tags, {
    alert: a.name
  })
  properties: {
    description: 'docs/operations.md, ${a.name}'
    severity: a.severity
    enabled: true
    scopes: [
      a.scope
    ]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT15M'
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          criterionType: 'StaticThresholdCriterion'
          name: a.name
          metricNamespace: a.namespace
          metricName: a.metric
          timeAggregation: a.aggregation
          operator: a.operator
          threshold: a.threshold
          dimensions: empty(a.dimension) ? [] : [
            {
              name: a.dimension
              operator: 'Include'
              values: a.values
            }
          ]
        }
      ]
    }
    autoMitigate: true
    actions: [
      {
        actionGroupId: operators.id
      }
    ]
  }
}]

resource appAlert 'Microsoft.Insights/metricAlerts@2018-03-01' = [for a in appAlerts: {
  name: '${a.name}-${a.app}'
  location: 'global'
  tags: union(tags, {
    alert: a.name
  })
  properties: {
    description: 'docs/operations.md, ${a.name}'
    severity: a.severity
    enabled: true
    scopes: [
      resourceId('Microsoft.App/containerApps', a.app)
    ]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT15M'
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          criterionType: 'StaticThresholdCriterion'
          name: a.name
          metricNamespace: 'Microsoft.App/containerApps'
          metricName: a.metric
          timeAggregation: 'Total'
          operator: 'GreaterThan'
          threshold: a.threshold
          dimensions: empty(a.dimension) ? [] : [
            {
              name: a.dimension
              operator: 'Include'
              values: a.values
            }
          ]
        }
      ]
    }
    autoMitigate: true
    actions: [
      {
        actionGroupId: operators.id
      }
    ]
  }
}]
