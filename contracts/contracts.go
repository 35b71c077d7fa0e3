// Package contracts defines what Waybill's services share: the events they exchange, the topics that carry the events, and the names
// of the Dapr components. It owns names and payloads. It does no I/O and has no rules of a single service.
//
// A payload may get an optional field within its version. Any other change needs a new version beside the old one.
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

// Topics. Only the owner of a topic publishes to it, with one exception: TopicNotifications is an inbox. Every service that has a
// message for a customer may publish to it, and so may the system that manages customers. Bus returns the component of a topic.
const (
	TopicOrders               = "orders"
	TopicFulfillment          = "fulfillment"
	TopicInventory            = "inventory"
	TopicNotifications        = "notifications"
	TopicNotificationOutcomes = "notification-outcomes"
	TopicAnalyticsEvents      = "analytics-events"
	TopicAlerts               = "alerts"
)

// Bus returns the pub/sub component that carries a topic.
func Bus(topic string) string {
	switch topic {
	case TopicAnalyticsEvents, TopicAlerts:
		return TelemetryBus
	default:
		return OrderBus
	}
}

// Subscription is an app that reads a topic.
type Subscription struct {
	App   string
	Topic string
}

// DeadLetter returns the topic of the events that this subscription could not process: <topic>.<app-id>.dead.
func (s Subscription) DeadLetter() string { return s.Topic + "." + s.App + ".dead" }

// The subscriptions of the system. Services subscribe with these values, so that their dead-letter topics exist.
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

// EventTopics lists the topics of every bus, without the dead-letter topics.
func EventTopics() []string {
	return []string{
		TopicOrders, TopicFulfillment, TopicInventory, TopicNotifications, TopicNotificationOutcomes,
		TopicAnalyticsEvents, TopicAlerts,
	}
}

// Buses lists the pub/sub components.
func Buses() []string { return []string{OrderBus, TelemetryBus} }

// Topics lists the topics of every bus with the dead-letter topics, sorted. All of them must exist before a service starts.
func Topics() []string {
	topics := slices.Concat(TopicsOf(OrderBus), TopicsOf(TelemetryBus))
	slices.Sort(topics)
	return topics
}

// TopicsOf lists the topics of one bus with the dead-letter topics, sorted.
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
