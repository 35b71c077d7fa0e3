package contracts

import (
	"encoding/json"
	"time"
)

// Version is the data version that every payload below carries.
const Version = "1.0"

// Payload is the data of an event. The type names what happened, the subject what it happened to, and the key orders
// events among each other: those of one key arrive in the order in which they were published.
type Payload interface {
	EventType() string
	Subject() string
	Key() string
}

// Line is one product of an order.
type Line struct {
	ProductID string `json:"product_id"`
	Name      string `json:"name,omitempty"`
	Quantity  int    `json:"quantity"`
	// Price is the price of one piece.
	Price Amount `json:"price"`
}

// Address is where an order is shipped to.
type Address struct {
	Street  string `json:"street"`
	City    string `json:"city"`
	State   string `json:"state,omitempty"`
	Zip     string `json:"zip"`
	Country string `json:"country,omitempty"`
}

// Order is the content that the events which start something carry whole.
type Order struct {
	OrderID     string  `json:"order_id"`
	CustomerID  string  `json:"customer_id"`
	Items       []Line  `json:"items"`
	TotalAmount Amount  `json:"total_amount"`
	Currency    string  `json:"currency,omitempty"`
	ShipTo      Address `json:"shipping_address"`
	// PaymentToken stands for the customer's means of payment at the payment provider.
	PaymentToken string `json:"payment_token,omitempty"`
}

// Subject is orders/<order id>.
func (o Order) Subject() string { return orderSubject(o.OrderID) }

// Key is the customer, whose events stay in order.
func (o Order) Key() string { return o.CustomerID }

func orderSubject(id string) string { return "orders/" + id }

// Event types of the orders topic.
const (
	TypeOrderCreated               = "Order.Created"
	TypeOrderConfirmed             = "Order.Confirmed"
	TypeOrderUpdated               = "Order.Updated"
	TypeOrderCancellationRequested = "Order.CancellationRequested"
	TypeOrderFulfilled             = "Order.Fulfilled"
	TypeOrderFulfillmentFailed     = "Order.FulfillmentFailed"
	TypeOrderCancelled             = "Order.Cancelled"
	TypeSystemError                = "System.Error"
)

// OrderCreated says that a customer placed an order. It is the one event that other systems may publish too.
type OrderCreated struct {
	Order
	CreatedAt time.Time `json:"created_at,omitzero"`
}

// EventType is Order.Created.
func (OrderCreated) EventType() string { return TypeOrderCreated }

// OrderConfirmed says that an order was checked and stored; fulfilment starts from it.
type OrderConfirmed struct {
	Order
	CreatedAt   time.Time `json:"created_at"`
	ProcessedAt time.Time `json:"processed_at"`
}

// EventType is Order.Confirmed.
func (OrderConfirmed) EventType() string { return TypeOrderConfirmed }

// OrderUpdated says that an order's status changed.
type OrderUpdated struct {
	OrderID        string    `json:"order_id"`
	CustomerID     string    `json:"customer_id"`
	Status         string    `json:"status"`
	PreviousStatus string    `json:"previous_status"`
	UpdatedAt      time.Time `json:"updated_at"`
}

// EventType is Order.Updated.
func (OrderUpdated) EventType() string { return TypeOrderUpdated }

// Subject is orders/<order id>.
func (e OrderUpdated) Subject() string { return orderSubject(e.OrderID) }

// Key is the customer, whose events stay in order.
func (e OrderUpdated) Key() string { return e.CustomerID }

// OrderFulfilled says that an order was paid and shipped. It carries the lines, for analytics counts purchases from it.
type OrderFulfilled struct {
	OrderID           string    `json:"order_id"`
	CustomerID        string    `json:"customer_id"`
	Items             []Line    `json:"items"`
	TotalAmount       Amount    `json:"total_amount"`
	Currency          string    `json:"currency"`
	TrackingNumber    string    `json:"tracking_number"`
	Carrier           string    `json:"carrier"`
	EstimatedDelivery time.Time `json:"estimated_delivery"`
	FulfilledAt       time.Time `json:"fulfilled_at"`
}

// EventType is Order.Fulfilled.
func (OrderFulfilled) EventType() string { return TypeOrderFulfilled }

// Subject is orders/<order id>.
func (e OrderFulfilled) Subject() string { return orderSubject(e.OrderID) }

// Key is the customer, whose events stay in order.
func (e OrderFulfilled) Key() string { return e.CustomerID }

// OrderFulfillmentFailed says that an order could not be fulfilled and that what had been done was undone.
type OrderFulfillmentFailed struct {
	OrderID    string    `json:"order_id"`
	CustomerID string    `json:"customer_id"`
	Code       string    `json:"code"`
	Error      string    `json:"error"`
	FailedAt   time.Time `json:"failed_at"`
}

// EventType is Order.FulfillmentFailed.
func (OrderFulfillmentFailed) EventType() string { return TypeOrderFulfillmentFailed }

// Subject is orders/<order id>.
func (e OrderFulfillmentFailed) Subject() string { return orderSubject(e.OrderID) }

// Key is the customer, whose events stay in order.
func (e OrderFulfillmentFailed) Key() string { return e.CustomerID }

// OrderCancellationRequested says that a customer wants an order cancelled. Fulfilment cancels it unless it has shipped.
type OrderCancellationRequested struct {
	OrderID     string    `json:"order_id"`
	CustomerID  string    `json:"customer_id"`
	Reason      string    `json:"reason,omitempty"`
	RequestedAt time.Time `json:"requested_at"`
}

// EventType is Order.CancellationRequested.
func (OrderCancellationRequested) EventType() string { return TypeOrderCancellationRequested }

// Subject is orders/<order id>.
func (e OrderCancellationRequested) Subject() string { return orderSubject(e.OrderID) }

// Key is the customer, whose events stay in order.
func (e OrderCancellationRequested) Key() string { return e.CustomerID }

// OrderCancelled says that an order was cancelled before it shipped and that what had been done was undone.
type OrderCancelled struct {
	OrderID     string    `json:"order_id"`
	CustomerID  string    `json:"customer_id"`
	Reason      string    `json:"reason,omitempty"`
	CancelledAt time.Time `json:"cancelled_at"`
}

// EventType is Order.Cancelled.
func (OrderCancelled) EventType() string { return TypeOrderCancelled }

// Subject is orders/<order id>.
func (e OrderCancelled) Subject() string { return orderSubject(e.OrderID) }

// Key is the customer, whose events stay in order.
func (e OrderCancelled) Key() string { return e.CustomerID }

// SystemError says that a service set an event aside because it can never be processed.
type SystemError struct {
	Service    string    `json:"service"`
	Topic      string    `json:"topic"`
	EventID    string    `json:"event_id"`
	Type       string    `json:"event_type"`
	About      string    `json:"event_subject,omitempty"`
	Error      string    `json:"error"`
	OccurredAt time.Time `json:"occurred_at"`
}

// EventType is System.Error.
func (SystemError) EventType() string { return TypeSystemError }

// Subject is services/<service>.
func (e SystemError) Subject() string { return "services/" + e.Service }

// Key is the service that set the event aside.
func (e SystemError) Key() string { return e.Service }

// Event types of the fulfillment topic.
const (
	TypeStepCompleted        = "Fulfillment.StepCompleted"
	TypeApprovalRequested    = "Fulfillment.ApprovalRequested"
	TypeFulfillmentCompleted = "Fulfillment.Completed"
	TypeFulfillmentFailed    = "Fulfillment.Failed"
	TypeFulfillmentCancelled = "Fulfillment.Cancelled"
)

// Steps of the saga and their undos, as StepCompleted names them.
const (
	StepValidatePayment  = "ValidatePayment"
	StepReserveInventory = "ReserveInventory"
	// StepApproval is a person's decision on an order, or its absence; Actor made it.
	StepApproval         = "Approval"
	StepProcessShipment  = "ProcessShipment"
	StepRefundPayment    = "RefundPayment"
	StepReleaseInventory = "ReleaseInventory"
	StepCancelShipment   = "CancelShipment"
	// StepCancel is fulfilment's answer to a cancellation. Done says that it is recorded: the order ends cancelled, and nothing
	// stays booked or charged. Refused says that the parcel was booked before.
	StepCancel = "Cancel"
	// StepRepair is a person's order to try again what could not be undone; Actor gave it.
	StepRepair = "Repair"
)

// Steps lists every step that StepCompleted can name.
func Steps() []string {
	return []string{
		StepValidatePayment, StepReserveInventory, StepApproval, StepProcessShipment,
		StepRefundPayment, StepReleaseInventory, StepCancelShipment, StepCancel, StepRepair,
	}
}

// Outcomes of a step.
const (
	// OutcomeDone says that the step had its effect.
	OutcomeDone = "done"
	// OutcomeRefused says that the step was refused for a business reason, which Code and Message name.
	OutcomeRefused = "refused"
)

// StepCompleted says that a step of an order's saga, or the undo of one, came to its end. The optional fields are those
// the step has something to say about.
type StepCompleted struct {
	OrderID    string `json:"order_id"`
	CustomerID string `json:"customer_id"`
	Step       string `json:"step"`
	Outcome    string `json:"outcome"`
	// Code is stable and meant for programs, Message is a sentence for people. Both are set when refused.
	Code              string    `json:"code,omitempty"`
	Message           string    `json:"message,omitempty"`
	Amount            Amount    `json:"amount,omitempty"`
	Currency          string    `json:"currency,omitempty"`
	TransactionID     string    `json:"transaction_id,omitempty"`
	Carrier           string    `json:"carrier,omitempty"`
	TrackingNumber    string    `json:"tracking_number,omitempty"`
	EstimatedDelivery time.Time `json:"estimated_delivery,omitzero"`
	// Actor is the person who decided, where a person did.
	Actor       string    `json:"actor,omitempty"`
	CompletedAt time.Time `json:"completed_at"`
}

// EventType is Fulfillment.StepCompleted.
func (StepCompleted) EventType() string { return TypeStepCompleted }

// Subject is orders/<order id>.
func (e StepCompleted) Subject() string { return orderSubject(e.OrderID) }

// Key is the customer, whose events stay in order.
func (e StepCompleted) Key() string { return e.CustomerID }

// ApprovalRequested says that an order waits for a person to approve it, until ExpiresAt.
type ApprovalRequested struct {
	OrderID     string    `json:"order_id"`
	CustomerID  string    `json:"customer_id"`
	TotalAmount Amount    `json:"total_amount"`
	Currency    string    `json:"currency"`
	RequestedAt time.Time `json:"requested_at"`
	ExpiresAt   time.Time `json:"expires_at"`
}

// EventType is Fulfillment.ApprovalRequested.
func (ApprovalRequested) EventType() string { return TypeApprovalRequested }

// Subject is orders/<order id>.
func (e ApprovalRequested) Subject() string { return orderSubject(e.OrderID) }

// Key is the customer, whose events stay in order.
func (e ApprovalRequested) Key() string { return e.CustomerID }

// FulfillmentCompleted says that an order's saga ended with a shipment.
type FulfillmentCompleted struct {
	OrderID        string `json:"order_id"`
	CustomerID     string `json:"customer_id"`
	TrackingNumber string `json:"tracking_number"`
	Carrier        string `json:"carrier"`
	ShipmentCost   Amount `json:"shipment_cost"`
	// Currency is that of ShipmentCost, the order's; missing in older events.
	Currency          string    `json:"currency,omitempty"`
	EstimatedDelivery time.Time `json:"estimated_delivery"`
	CompletedAt       time.Time `json:"completed_at"`
}

// EventType is Fulfillment.Completed.
func (FulfillmentCompleted) EventType() string { return TypeFulfillmentCompleted }

// Subject is orders/<order id>.
func (e FulfillmentCompleted) Subject() string { return orderSubject(e.OrderID) }

// Key is the customer, whose events stay in order.
func (e FulfillmentCompleted) Key() string { return e.CustomerID }

// FulfillmentFailed says that an order's saga ended without a shipment; or, when NotUndone names something, that it stands
// still until a person has it repaired, after which a further FulfillmentFailed or FulfillmentCancelled ends it.
type FulfillmentFailed struct {
	OrderID    string `json:"order_id"`
	CustomerID string `json:"customer_id"`
	Code       string `json:"code"`
	Error      string `json:"error"`
	// Undone names the steps that were undone, in the order in which they were: newest first.
	Undone []string `json:"undone"`
	// NotUndone names the steps whose undo failed and which a person must settle.
	NotUndone []string  `json:"not_undone,omitempty"`
	FailedAt  time.Time `json:"failed_at"`
}

// MarshalJSON writes Undone as an array also when nothing was undone, as the schema promises.
func (e FulfillmentFailed) MarshalJSON() ([]byte, error) {
	type plain FulfillmentFailed
	if e.Undone == nil {
		e.Undone = []string{}
	}
	return json.Marshal(plain(e))
}

// EventType is Fulfillment.Failed.
func (FulfillmentFailed) EventType() string { return TypeFulfillmentFailed }

// Subject is orders/<order id>.
func (e FulfillmentFailed) Subject() string { return orderSubject(e.OrderID) }

// Key is the customer, whose events stay in order.
func (e FulfillmentFailed) Key() string { return e.CustomerID }

// FulfillmentCancelled says that an order's saga was ended by its customer, before shipment, and that what had been done was
// undone.
type FulfillmentCancelled struct {
	OrderID    string `json:"order_id"`
	CustomerID string `json:"customer_id"`
	Reason     string `json:"reason,omitempty"`
	// Undone names the steps that were undone, in the order in which they were: newest first.
	Undone      []string  `json:"undone"`
	CancelledAt time.Time `json:"cancelled_at"`
}

// MarshalJSON writes Undone as an array also when nothing was undone, as the schema promises.
func (e FulfillmentCancelled) MarshalJSON() ([]byte, error) {
	type plain FulfillmentCancelled
	if e.Undone == nil {
		e.Undone = []string{}
	}
	return json.Marshal(plain(e))
}

// EventType is Fulfillment.Cancelled.
func (FulfillmentCancelled) EventType() string { return TypeFulfillmentCancelled }

// Subject is orders/<order id>.
func (e FulfillmentCancelled) Subject() string { return orderSubject(e.OrderID) }

// Key is the customer, whose events stay in order.
func (e FulfillmentCancelled) Key() string { return e.CustomerID }

// Event types of the inventory topic.
const (
	TypeInventoryUpdated  = "Inventory.Updated"
	TypeInventoryLowStock = "Inventory.LowStock"
	TypeInventoryDepleted = "Inventory.Depleted"
)

// LowStock is the stock below which a change is announced as Inventory.LowStock.
const LowStock = 10

// StockChanged says that the stock of a product that can still be sold changed. Its type follows from the new stock.
type StockChanged struct {
	ProductID     string `json:"product_id"`
	CurrentStock  int    `json:"current_stock"`
	PreviousStock int    `json:"previous_stock"`
	Change        int    `json:"change"`
	WarehouseID   string `json:"warehouse_id"`
	// Revision grows with every change of the product: of two events the one with the larger revision is the newer.
	Revision  int       `json:"revision,omitempty"`
	Timestamp time.Time `json:"timestamp"`
}

// EventType is Inventory.Depleted when nothing is left, Inventory.LowStock below LowStock, else Inventory.Updated.
func (e StockChanged) EventType() string {
	switch {
	case e.CurrentStock <= 0:
		return TypeInventoryDepleted
	case e.CurrentStock < LowStock:
		return TypeInventoryLowStock
	default:
		return TypeInventoryUpdated
	}
}

// Subject is inventory/<product id>.
func (e StockChanged) Subject() string { return "inventory/" + e.ProductID }

// Key is the product, whose changes of stock stay in order.
func (e StockChanged) Key() string { return e.ProductID }
