package contracts

import (
	"embed"
	"slices"
	"time"
)

//go:generate go run ./internal/generate

// Event describes one event type: its topic, its ordering key and a sample.
type Event struct {
	Type string
	// Topic carries the event. Only the topic's owner publishes it, unless Doc says otherwise.
	Topic string
	// Doc says in one sentence what happened.
	Doc string
	// KeyField is the JSON field that Key returns.
	KeyField string
	// Enums lists the allowed values of each field that has a fixed set of them.
	Enums map[string][]string
	// Sample is a payload with every field set.
	Sample Payload
}

// Owner returns the app that publishes to a topic. It is empty for an unknown topic.
func Owner(topic string) string {
	switch topic {
	case TopicOrders:
		return AppOrders
	case TopicFulfillment, TopicInventory:
		return AppFulfillment
	case TopicNotifications, TopicNotificationOutcomes:
		return AppNotifications
	case TopicAnalyticsEvents, TopicAlerts:
		return AppAnalytics
	default:
		return ""
	}
}

// Catalogue lists every event type of the system by topic, and within a topic in the order of an order's life. Schemas, samples and
// the page docs/events.md are generated from it.
func Catalogue() []Event {
	at := time.Date(2026, time.March, 14, 9, 26, 53, 0, time.UTC)
	order := Order{
		OrderID: "ORD-1001", CustomerID: "CUST-123",
		Items:       []Line{{ProductID: "PROD-001", Name: "Wireless Headphones", Quantity: 2, Price: 49_9900}},
		TotalAmount: 99_9800, Currency: DefaultCurrency,
		ShipTo:       Address{Street: "123 Main St", City: "Seattle", State: "WA", Zip: "98101", Country: "US"},
		PaymentToken: "tok_visa",
	}
	delivery := at.Add(72 * time.Hour)
	steps := Steps()
	channelled := map[string][]string{"channel": Channels()}
	contact := Contact{
		Name: "Test Customer", Email: "cust-123@example.com", Phone: "+12065550123",
		Push: &PushAddress{
			Endpoint: "https://push.example.com/send/f1LsxkKphfQ",
			P256DH:   "BNcRdreALRFXTkOOUHK1EtK2wtaz5Ry4YfYCA_0QTpQtUbVlUls0VJXg7A8u-Ts1XbjhazAkj7I99e8QcYP7DkM", Auth: "tBHItJI5svbpez7KI4CCXg",
		},
		Preferences: &Preferences{Email: true, SMS: true, Push: true},
	}
	return []Event{
		{
			Type: TypeOrderCreated, Topic: TopicOrders, KeyField: "customer_id",
			Doc:    "A customer placed an order. Other systems may publish this event too.",
			Sample: OrderCreated{Order: order, CreatedAt: at},
		}, {
			Type: TypeOrderConfirmed, Topic: TopicOrders, KeyField: "customer_id",
			Doc:    "An order was checked and stored; its fulfilment starts.",
			Sample: OrderConfirmed{Order: order, CreatedAt: at, ProcessedAt: at.Add(time.Second)},
		}, {
			Type: TypeOrderUpdated, Topic: TopicOrders, KeyField: "customer_id",
			Doc: "The status of an order changed.",
			Sample: OrderUpdated{
				OrderID: order.OrderID, CustomerID: order.CustomerID, Status: "fulfilling", PreviousStatus: "confirmed",
				UpdatedAt: at.Add(2 * time.Second),
			},
		}, {
			Type: TypeOrderCancellationRequested, Topic: TopicOrders, KeyField: "customer_id",
			Doc: "A customer wants an order cancelled.",
			Sample: OrderCancellationRequested{
				OrderID: order.OrderID, CustomerID: order.CustomerID, Reason: "Ordered twice.", RequestedAt: at.Add(2 * time.Second),
			},
		}, {
			Type: TypeOrderFulfilled, Topic: TopicOrders, KeyField: "customer_id",
			Doc: "An order was paid and shipped.",
			Sample: OrderFulfilled{
				OrderID: order.OrderID, CustomerID: order.CustomerID, Items: order.Items, TotalAmount: order.TotalAmount,
				Currency: order.Currency, TrackingNumber: "TRK-1001", Carrier: "FedEx", EstimatedDelivery: delivery,
				FulfilledAt: at.Add(4 * time.Second),
			},
		}, {
			Type: TypeOrderFulfillmentFailed, Topic: TopicOrders, KeyField: "customer_id",
			Doc: "An order could not be fulfilled. All completed steps were compensated.",
			Sample: OrderFulfillmentFailed{
				OrderID: order.OrderID, CustomerID: order.CustomerID, Code: "out_of_stock",
				Error: "There is not enough of PROD-001 in stock.", FailedAt: at.Add(4 * time.Second),
			},
		}, {
			Type: TypeOrderCancelled, Topic: TopicOrders, KeyField: "customer_id",
			Doc: "An order was cancelled before it shipped. All completed steps were compensated.",
			Sample: OrderCancelled{
				OrderID: order.OrderID, CustomerID: order.CustomerID, Reason: "Ordered twice.", CancelledAt: at.Add(4 * time.Second),
			},
		}, {
			Type: TypeSystemError, Topic: TopicOrders, KeyField: "service",
			Doc: "A service dead-lettered an event because it can never process it.",
			Sample: SystemError{
				Service: AppOrders, Topic: TopicOrders, EventID: "0197-example", Type: TypeOrderCreated, About: orderSubject(order.OrderID),
				Error: "the order has no items", OccurredAt: at,
			},
		}, {
			Type: TypeStepCompleted, Topic: TopicFulfillment, KeyField: "customer_id",
			Doc:   "A step of an order's saga, or its compensation, ended.",
			Enums: map[string][]string{"step": steps, "outcome": {OutcomeDone, OutcomeRefused}},
			Sample: StepCompleted{
				OrderID: order.OrderID, CustomerID: order.CustomerID, Step: StepProcessShipment, Outcome: OutcomeDone,
				Code: "booked", Message: "FedEx takes the parcel.", Amount: 12_5000, Currency: DefaultCurrency,
				TransactionID: "TXN-1001", Carrier: "FedEx", TrackingNumber: "TRK-1001", EstimatedDelivery: delivery,
				Actor: "approver@example.com", CompletedAt: at.Add(3 * time.Second),
			},
		}, {
			Type: TypeApprovalRequested, Topic: TopicFulfillment, KeyField: "customer_id",
			Doc: "An order waits for a person to approve it.",
			Sample: ApprovalRequested{
				OrderID: order.OrderID, CustomerID: order.CustomerID, TotalAmount: 6000_0000, Currency: DefaultCurrency,
				RequestedAt: at.Add(2 * time.Second), ExpiresAt: at.Add(24 * time.Hour),
			},
		}, {
			Type: TypeFulfillmentCompleted, Topic: TopicFulfillment, KeyField: "customer_id",
			Doc: "An order's saga ended with a shipment.",
			Sample: FulfillmentCompleted{
				OrderID: order.OrderID, CustomerID: order.CustomerID, TrackingNumber: "TRK-1001", Carrier: "FedEx",
				ShipmentCost: 12_5000, Currency: DefaultCurrency, EstimatedDelivery: delivery, CompletedAt: at.Add(3 * time.Second),
			},
		}, {
			Type: TypeFulfillmentFailed, Topic: TopicFulfillment, KeyField: "customer_id",
			Doc:   "An order's saga ended without a shipment. If not_undone is set, the saga needs attention and waits for a person's repair.",
			Enums: map[string][]string{"undone": steps, "not_undone": steps},
			Sample: FulfillmentFailed{
				OrderID: order.OrderID, CustomerID: order.CustomerID, Code: "carrier_unavailable",
				Error: "No carrier took the parcel.", Undone: []string{StepReserveInventory},
				NotUndone: []string{StepValidatePayment}, FailedAt: at.Add(3 * time.Second),
			},
		}, {
			Type: TypeFulfillmentCancelled, Topic: TopicFulfillment, KeyField: "customer_id",
			Doc:   "The customer cancelled an order before its shipment.",
			Enums: map[string][]string{"undone": steps},
			Sample: FulfillmentCancelled{
				OrderID: order.OrderID, CustomerID: order.CustomerID, Reason: "Ordered twice.",
				Undone: []string{StepReleaseInventory, StepRefundPayment}, CancelledAt: at.Add(3 * time.Second),
			},
		}, {
			Type: TypeInventoryUpdated, Topic: TopicInventory, KeyField: "product_id",
			Doc:    "The available stock of a product changed.",
			Sample: stockSample(at, 98),
		}, {
			Type: TypeInventoryLowStock, Topic: TopicInventory, KeyField: "product_id",
			Doc:    "The stock of a product changed and is now below 10.",
			Sample: stockSample(at, LowStock-1),
		}, {
			Type: TypeInventoryDepleted, Topic: TopicInventory, KeyField: "product_id",
			Doc:    "The stock of a product changed and nothing is left.",
			Sample: stockSample(at, 0),
		}, {
			Type: TypeNotificationRequested, Topic: TopicNotifications, KeyField: "customer_id",
			Doc:   "A service requests one message to a customer over one channel. Every service may publish this event.",
			Enums: map[string][]string{"channel": Channels(), "template": Templates()},
			Sample: NotificationRequested{
				NotificationID: "ORD-1001:order_shipped:email", OrderID: order.OrderID, CustomerID: order.CustomerID,
				Channel: ChannelEmail, Template: TemplateOrderShipped, TotalAmount: order.TotalAmount, Currency: order.Currency,
				Carrier: "FedEx", TrackingNumber: "TRK-1001", EstimatedDelivery: delivery, Reason: "There is not enough of PROD-001 in stock.",
				Refunded: true, RequestedAt: at.Add(3 * time.Second),
			},
		}, {
			Type: TypeCustomerRegistered, Topic: TopicNotifications, KeyField: "customer_id",
			Doc:    "A customer exists and can be contacted. The system that manages customers publishes this event.",
			Sample: CustomerRegistered{CustomerID: order.CustomerID, Contact: contact, RegisteredAt: at},
		}, {
			Type: TypeCustomerUpdated, Topic: TopicNotifications, KeyField: "customer_id",
			Doc:    "The contact of a customer changed. The system that manages customers publishes this event.",
			Sample: CustomerUpdated{CustomerID: order.CustomerID, Contact: contact, UpdatedAt: at},
		}, {
			Type: TypeNotificationDelivered, Topic: TopicNotificationOutcomes, KeyField: "notification_id",
			Doc: "A channel accepted a message.", Enums: channelled,
			Sample: NotificationDelivered{
				NotificationID: "ORD-1001:order_shipped:email", OrderID: order.OrderID, CustomerID: order.CustomerID,
				Channel: ChannelEmail, Template: TemplateOrderShipped, Attempts: 1, DeliveredAt: at.Add(4 * time.Second),
			},
		}, {
			Type: TypeNotificationFailed, Topic: TopicNotificationOutcomes, KeyField: "notification_id",
			Doc: "A message failed permanently.", Enums: channelled,
			Sample: NotificationFailed{
				NotificationID: "ORD-1001:order_shipped:sms", OrderID: order.OrderID, CustomerID: order.CustomerID,
				Channel: ChannelSMS, Template: TemplateOrderShipped, Code: "no_address", Error: "The customer has no phone number.",
				Attempts: 1, FailedAt: at.Add(4 * time.Second),
			},
		}, {
			Type: TypeProductViewed, Topic: TopicAnalyticsEvents, KeyField: "session_id",
			Doc: "A customer or visitor viewed a product.",
			Sample: ProductViewed{
				EventID: "EVT-1001", UserID: order.CustomerID, SessionID: "SESSION-1", ProductID: "PROD-001", Value: 49_9900, Timestamp: at,
				Properties: map[string]any{"device": "desktop", "source": "search"},
			},
		}, {
			Type: TypeProductPurchased, Topic: TopicAnalyticsEvents, KeyField: "session_id",
			Doc: "A customer bought a product.",
			Sample: ProductPurchased{
				EventID: "EVT-1002", UserID: order.CustomerID, SessionID: "SESSION-1", ProductID: "PROD-001", Value: 99_9800,
				Currency: DefaultCurrency, Quantity: 2, OrderID: order.OrderID, Timestamp: at.Add(time.Minute),
				Properties: map[string]any{"device": "desktop"},
			},
		}, {
			Type: TypeRecommendationGenerated, Topic: TopicAnalyticsEvents, KeyField: "session_id",
			Doc: "An algorithm recommended products to a customer or visitor.",
			Sample: RecommendationGenerated{
				EventID: "EVT-1003", UserID: order.CustomerID, SessionID: "SESSION-1", ProductID: "PROD-001", Algorithm: "collaborative",
				ConfidenceScores: []float64{0.92, 0.875}, Timestamp: at, Properties: map[string]any{"placement": "basket"},
			},
		}, {
			Type: TypeAnomalyDetected, Topic: TopicAlerts, KeyField: "product_id",
			Doc:   "The views or purchases of a product deviate from its history.",
			Enums: map[string][]string{"kind": Anomalies()},
			Sample: AnomalyDetected{
				AnomalyID: "unusual_purchase_amount:EVT-1002", Kind: AnomalyUnusualPurchase, ProductID: "PROD-001",
				Expected: 49.99, Observed: 999.99, Deviation: 5.25, Score: 180.95,
				Message: "A purchase of PROD-001 came to 999.99 where 49.99 is usual, from 24 purchases that differ by 5.25.",
				EventID: "EVT-1002", OccurredAt: at.Add(time.Minute),
			},
		},
	}
}

func stockSample(at time.Time, stock int) StockChanged {
	return StockChanged{
		ProductID: "PROD-001", CurrentStock: stock, PreviousStock: stock + 2, Change: -2, WarehouseID: "WH-001", Timestamp: at,
	}
}

// Lookup returns an event type of the catalogue.
func Lookup(eventType string) (Event, bool) {
	catalogue := Catalogue()
	i := slices.IndexFunc(catalogue, func(e Event) bool { return e.Type == eventType })
	if i < 0 {
		return Event{}, false
	}
	return catalogue[i], true
}

//go:embed schemas/*.json samples/*.json
var generated embed.FS

// Schema returns the JSON Schema (2020-12) of an event type's data, or nil for an unknown type.
func Schema(eventType string) []byte { return read("schemas/" + eventType + ".json") }

// Sample returns a complete CloudEvent of the type in structured JSON, or nil for an unknown type.
func Sample(eventType string) []byte { return read("samples/" + eventType + ".json") }

func read(name string) []byte {
	content, err := generated.ReadFile(name)
	if err != nil {
		return nil // the file does not exist; no other error is possible
	}
	return content
}
