// Package contracts is what Waybill's services agree on: the events they exchange, the topics that carry them, and the
// names of the Dapr components they talk through. It owns names and payloads and nothing else: no I/O, no rules of any
// one service, and only the standard library.
//
// An optional field may be added to a payload within its version; any other change is a new version beside the old one.
package contracts

import "slices"

// Dapr app ids. They are also the consumer groups on Kafka and the subscription names on Service Bus.
const (
	AppOrders        = "orders"
	AppFulfillment   = "fulfillment"
	AppAnalytics     = "analytics"
	AppNotifications = "notifications"
)

// Dapr component names, the same on a laptop and on Azure.
const (
	// OrderBus is the pub/sub component for business events: Kafka protocol locally, Service Bus topics on Azure.
	OrderBus = "orderbus"
	// TelemetryBus is the pub/sub component for analytics: Kafka protocol locally, Event Hubs on Azure.
	TelemetryBus = "telemetrybus"
	// StateStore holds business documents: SQLite locally, Cosmos DB on Azure.
	StateStore = "statestore"
	// WorkflowStore holds the workflow engine's own state: SQLite locally, PostgreSQL on Azure.
	WorkflowStore = "workflowstore"
	// Email is the output binding that sends mail: SMTP.
	Email = "email"
	// SMS is the output binding that sends text messages: Twilio on Azure, the local inbox on a laptop.
	SMS = "sms"
)

// Topics. Only a topic's owner publishes to it, TopicNotifications aside: that is an inbox, to which whoever has something
// to tell a customer publishes, and whoever keeps the customers. Bus names the component that carries each.
const (
	TopicOrders               = "orders"
	TopicFulfillment          = "fulfillment"
	TopicInventory            = "inventory"
	TopicNotifications        = "notifications"
	TopicNotificationOutcomes = "notification-outcomes"
	TopicAnalyticsEvents      = "analytics-events"
	TopicAlerts               = "alerts"
)

// Bus is the pub/sub component that carries a topic.
func Bus(topic string) string {
	switch topic {
	case TopicAnalyticsEvents, TopicAlerts:
		return TelemetryBus
	default:
		return OrderBus
	}
}

// Subscription is one app's reading of one topic.
type Subscription struct {
	App   string
	Topic string
}

// DeadLetter is the topic that takes the events this subscription could not process: <topic>.<app-id>.dead.
func (s Subscription) DeadLetter() string { return s.Topic + "." + s.App + ".dead" }

// The subscriptions of the system. A service names its own from here, so that its dead-letter topic exists.
var (
	OrdersReadsOrders               = Subscription{App: AppOrders, Topic: TopicOrders}
	OrdersReadsFulfillment          = Subscription{App: AppOrders, Topic: TopicFulfillment}
	FulfillmentReadsOrders          = Subscription{App: AppFulfillment, Topic: TopicOrders}
	NotificationsReadsNotifications = Subscription{App: AppNotifications, Topic: TopicNotifications}
	NotificationsReadsFulfillment   = Subscription{App: AppNotifications, Topic: TopicFulfillment}
	NotificationsReadsInventory     = Subscription{App: AppNotifications, Topic: TopicInventory}
	AnalyticsReadsEvents            = Subscription{App: AppAnalytics, Topic: TopicAnalyticsEvents}
	AnalyticsReadsOrders            = Subscription{App: AppAnalytics, Topic: TopicOrders}
)

// Subscriptions lists every subscription of the system.
func Subscriptions() []Subscription {
	return []Subscription{
		OrdersReadsOrders, OrdersReadsFulfillment,
		FulfillmentReadsOrders,
		NotificationsReadsNotifications, NotificationsReadsFulfillment, NotificationsReadsInventory,
		AnalyticsReadsEvents, AnalyticsReadsOrders,
	}
}

// EventTopics lists the topics of every bus that events are published to, the dead-letter topics left out.
func EventTopics() []string {
	return []string{
		TopicOrders, TopicFulfillment, TopicInventory, TopicNotifications, TopicNotificationOutcomes,
		TopicAnalyticsEvents, TopicAlerts,
	}
}

// Buses lists the pub/sub components.
func Buses() []string { return []string{OrderBus, TelemetryBus} }

// Topics lists every topic of every bus, the dead-letter topics included, sorted. All of them must exist before any service
// starts.
func Topics() []string {
	topics := slices.Concat(TopicsOf(OrderBus), TopicsOf(TelemetryBus))
	slices.Sort(topics)
	return topics
}

// TopicsOf lists every topic of a bus, the dead-letter topics included, sorted.
func TopicsOf(bus string) []string {
	var topics []string
	for _, topic := range EventTopics() {
		if Bus(topic) == bus {
			topics = append(topics, topic)
		}
	}
	for _, s := range Subscriptions() {
		if Bus(s.Topic) == bus {
			topics = append(topics, s.DeadLetter())
		}
	}
	slices.Sort(topics)
	return topics
}
