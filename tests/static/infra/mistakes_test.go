package infra

import "strings"

type mistake struct {
	check, file, old, new, want string
}

func (m mistake) name() string {
	return strings.Join(strings.Fields(m.file+" "+m.old+" → "+m.new), " ")
}

var mistakes = []mistake{
	{"resource types and versions", "infra/bicep/modules/workbook.bicep", "workbooks@2023-06-01", "workbooks@2023-06-02", "infra/bicep/modules/workbook.bicep:20"},
	{"names", "infra/bicep/modules/service.bicep", "name: '${app}-${location}'", "name: 'service-${app}-${location}'", "longer than"},
	{"names", "infra/bicep/modules/key-vault.bicep", "name: guid(vault.id, principalId,", "name: guid(vault.id,", "is made twice"},
	{"parameters", "infra/bicep/main.bicep", "    retentionDays: logRetentionDays\n", "    // logRetentionDays\n", "nothing uses param logRetentionDays"},
	{"parameters", "infra/bicep/main.bicep", "    release: release\n", "", "the parameter release of"},
	{"parameters", "infra/bicep/main.bicep", "    sku: serviceBusSku\n", "    sku: serviceBusSku\n    skew: 1\n", "has no parameter skew"},
	{"parameters", "infra/bicep/main.bicep", "cosmos.outputs.endpoint", "cosmos.outputs.endPoint", "there is no endPoint"},
	{"parameters", "infra/bicep/dev.parameters.json", `"minReplicas"`, `"minReplica"`, "has no parameter minReplica"},
	{"parameters", "infra/bicep/dev.parameters.json", `"Standard"`, `"Basic"`, "allows [Standard Premium]"},
	{"parameters", "infra/bicep/main.bicep", "@description('Its port.')\n", "", "emailPort has no description"},
	{"parameters", "infra/bicep/main.bicep", "@minValue(1)\n@maxValue(10)\nparam minReplicas", "param minReplicas", "minReplicas has no bounds"},
	{"parameters", "infra/bicep/main.bicep", "var home = locations[0]", "var home = locations[0]\nvar other = locations[0]", "nothing uses var other"},
	{"secrets", "infra/bicep/main.bicep", "@secure()\n", "", "appApiToken is not @secure()"},
	{"secrets", "infra/bicep/modules/fulfillment.bicep", "value: appApiToken", "value: '${take(appApiToken, 0)}waybill-waybill-waybill'", "a literal secret"},
	{"secrets", "infra/bicep/modules/cosmos.bicep", "output name string = account.name", "output name string = account.listKeys().primaryMasterKey", "listKeys"},
	{"secrets", "infra/bicep/modules/cosmos.bicep", "disableLocalAuth: true", "disableLocalAuth: false", "keys"},
	{"roles", "infra/bicep/modules/key-vault.bicep", "'Microsoft.Authorization/roleDefinitions', roles.keyVaultSecretsUser.id)", "'Microsoft.Authorization/roleDefinitions', '4633458b-17de-408a-b874-0445c86b69e6')", "infra/bicep/modules/key-vault.bicep:47"},
	{"roles", "infra/bicep/roles.json", `"acrPull"`, `"acrPush"`, "there is no acrPull"},
	{"who may do what", "infra/bicep/modules/service-bus.bicep", "senders: ['notifications']", "senders: ['fulfillment', 'notifications']", "may send"},
	{"who may do what", "infra/bicep/main.bicep", "      fulfillment: fulfillmentIdentity.outputs.principalId", "      fulfillment: componentsIdentity.outputs.principalId", "may"},
	{"Service Bus", "infra/bicep/modules/service-bus.bicep", "name: 'inventory'", "name: 'inventry'", "infra/bicep/modules/service-bus.bicep"},
	{"Service Bus", "infra/bicep/modules/service-bus.bicep", "    topic: 'inventory'\n    app: 'notifications'", "    topic: 'inventory'\n    app: 'orders'", "inventory.notifications"},
	{"Service Bus", "infra/bicep/modules/service-bus.bicep", "requiresSession: true", "requiresSession: false", "requiresSession"},
	{"Service Bus", "infra/bicep/modules/service-bus.bicep", "var lifetime = 'P7D'", "var lifetime = 'P6D'", "P7D"},
	{"Event Hubs", "infra/bicep/modules/event-hubs.bicep", "  'alerts'", "  'alarms'", "infra/bicep/modules/event-hubs.bicep:30"},
	{"Event Hubs", "infra/bicep/modules/event-hubs.bicep", "partitionCount: 4", "partitionCount: 2", "partitionCount"},
	{"Cosmos DB", "infra/bicep/modules/cosmos.bicep", "'/partitionKey'", "'/customerId'", "/partitionKey"},
	{"Cosmos DB", "infra/bicep/modules/cosmos.bicep", "defaultTtl: -1", "defaultTtl: 1", "defaultTtl"},
	{"Cosmos DB", "infra/bicep/modules/cosmos.bicep", "enableAutomaticFailover: !serverless", "enableAutomaticFailover: serverless", "enableAutomaticFailover"},
	{"Azure Data Explorer", "infra/bicep/modules/kusto.bicep", "loadTextContent('../../kusto/06-policies.kql')", "loadTextContent('../../kusto/05-functions.kql')", "06-policies.kql"},
	{"managed components", "components/azure/orderbus.yaml", "name: orderbus", "name: ordersbus", "components/azure/orderbus.yaml"},
	{"managed components", "components/azure/orderbus.yaml", "envRef: SERVICEBUS_NAMESPACE", "envRef: SERVICEBUS_NAME", "there is no SERVICEBUS_NAME (from components/azure/orderbus.yaml"},
	{"managed components", "infra/bicep/main.bicep", "      SMS_FROM: smsFrom\n", "      SMS_FROM: smsFrom\n      SMS_TO: smsFrom\n", "SMS_TO"},
	{"managed components", "infra/bicep/modules/environment.bicep", "  any(loadYamlContent('../../../components/azure/sms.yaml'))\n", "", "components/azure/sms.yaml"},
	{"managed components", "infra/bicep/main.bicep", "      secretsIdentity.outputs.id\n", "", "which its secretstore uses"},
	{"apps", "infra/bicep/main.bicep", "    port: 8004\n", "    port: 8001\n", "8004"},
	{"apps", "infra/bicep/modules/fulfillment.bicep", "var app = 'fulfillment'", "var app = 'fulfilment'", "fulfilment"},
	{"fulfillment's sidecar", "infra/bicep/modules/fulfillment.bicep", "maxReplicas: 1", "maxReplicas: 2", "maxReplicas"},
	{"fulfillment's sidecar", "infra/bicep/modules/fulfillment.bicep", "var schedulerHealthPort = 3530", "var schedulerHealthPort = 3520", "3520"},
	{"fulfillment's sidecar", "infra/bicep/main.bicep", "      IDENTITY_CLIENT_ID: fulfillmentIdentity.outputs.clientId\n", "", "IDENTITY_CLIENT_ID"},
	{"fulfillment's sidecar", "infra/bicep/modules/fulfillment.bicep", "              name: 'DAPR_HOST_IP'\n              value: '127.0.0.1'", "              name: 'DAPR_HOST_IP'\n              value: '0.0.0.0'", "DAPR_HOST_IP"},
	{"fulfillment's sidecar", "components/azure/workflowstore.yaml", "  - fulfillment\n", "  - fulfilment\n", "workflowstore"},
	{"fulfillment's sidecar", "infra/bicep/modules/fulfillment.bicep", "cpu: json('0.75')", "cpu: json('1')", "memory"},
	{"environment variables", "infra/bicep/main.bicep", "name: 'KUSTO_ENDPOINT'", "name: 'KUSTO_CLUSTER_URL'", "KUSTO_CLUSTER_URL"},
	{"environment variables", "services/analytics/config.go", `env:"KUSTO_DATABASE"`, `env:"KUSTO_DB"`, "KUSTO_DATABASE"},
	{"environment variables", "infra/bicep/modules/service.bicep", "name: 'APP_PORT'", "name: 'LOG_LEVEL'", "APP_PORT"},
	{"environment variables", "infra/bicep/modules/service.bicep", "value: 'broker'", "value: 'sidecar'", "EVENT_RETRIES"},
	{"scale rules", "infra/bicep/main.bicep", "subscriptionName: 'analytics'", "subscriptionName: 'analytic'", "analytic"},
	{"scale rules", "infra/bicep/main.bicep", "topic: 'analytics-events'", "topic: 'analytics-event'", "analytics-event"},
	{"alerts", "infra/bicep/modules/alerts.bicep", "name: 'saga-stuck'", "name: 'stuck-saga'", "stuck-saga"},
	{"alerts", "docs/operations.md", "| `kusto-down` |", "| `kusto-away` |", "kusto-away"},
	{"alerts", "services/fulfillment/internal/operations/reconcile.go", `"saga is stuck; waking it"`, `"saga is stuck; not waking it"`, "infra/bicep/queries/saga-stuck.kql"},
	{"alerts", "infra/bicep/modules/alerts.bicep", "  'orders.analytics.dead'\n", "", "orders.analytics.dead"},
	{"images", "Dockerfile", "FROM base-daprd AS daprd", "FROM base-daprd AS dapr", "no target daprd"},
	{"images", "infra/deploy.sh", "notifications", "notification", "notifications"},
}
