package contracts

import (
	"encoding/json"
	"time"
)

// Version is the data version of every payload in this package.
const Version = "1.0"

// Payload is the data of an event. The type says what happened, and the subject says to what. Events with the same key arrive in the
// order in which they were published.
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
	// Price is the price of one unit.
	Price Amount `json:"price"`
}

// Address is the shipping address of an order.
type Address struct {
	Street  string `json:"street"`
	City    string `json:"city"`
	State   string `json:"state,omitempty"`
	Zip     string `json:"zip"`
	Country string `json:"country,omitempty"`
}

// Order is the whole order, as in OrderCreated and OrderConfirmed.
type Order struct {
	OrderID     string  `json:"order_id"`
	CustomerID  string  `json:"customer_id"`
	Items       []Line  `json:"items"`
	TotalAmount Amount  `json:"total_amount"`
	Currency    string  `json:"currency,omitempty"`
	ShipTo      Address `json:"shipping_address"`
	// PaymentToken identifies the customer's payment method at the payment provider.
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

// OrderCreated says that a customer placed an order. Other systems may publish it too.
type OrderCreated struct {
	Order
	CreatedAt time.Time `json:"created_at,omitzero"`
}

// EventType is Order.Created.
func (OrderCreated) EventType() string { return TypeOrderCreated }

// OrderConfirmed says that an order was checked and stored. It starts fulfilment.
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

// OrderFulfilled says that an order was paid and shipped. It has the lines because analytics counts purchases with it.
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

// OrderFulfillmentFailed says that an order could not be fulfilled. All completed steps were compensated.
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

// OrderCancelled says that an order was cancelled before it shipped. All completed steps were compensated.
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

// SystemError says that a service dead-lettered an event because it can never process it.
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

// Key is the service that dead-lettered the event.
func (e SystemError) Key() string { return e.Service }

// Event types of the fulfillment topic.
const (
	TypeStepCompleted        = "Fulfillment.StepCompleted"
	TypeApprovalRequested    = "Fulfillment.ApprovalRequested"
	TypeFulfillmentCompleted = "Fulfillment.Completed"
	TypeFulfillmentFailed    = "Fulfillment.Failed"
	TypeFulfillmentCancelled = "Fulfillment.Cancelled"
)

// Steps of the saga and their compensations, as in StepCompleted.Step.
const (
	StepValidatePayment  = "ValidatePayment"
	StepReserveInventory = "ReserveInventory"
	// StepApproval is a person's decision on an order, or its expiry. Actor is the person.
	StepApproval         = "Approval"
	StepProcessShipment  = "ProcessShipment"
	StepRefundPayment    = "RefundPayment"
	StepReleaseInventory = "ReleaseInventory"
	StepCancelShipment   = "CancelShipment"
	// StepCancel is fulfilment's answer to a cancellation. OutcomeDone means that it is recorded: the order ends as cancelled, and
	// all steps are compensated. OutcomeRefused means that the parcel was booked before.
	StepCancel = "Cancel"
	// StepRepair is a person's request to retry failed compensations. Actor is the person.
	StepRepair = "Repair"
)

// Steps lists the values of StepCompleted.Step.
func Steps() []string {
	return []string{
		StepValidatePayment, StepReserveInventory, StepApproval, StepProcessShipment,
		StepRefundPayment, StepReleaseInventory, StepCancelShipment, StepCancel, StepRepair,
	}
}

// Outcomes of a step.
const (
	// OutcomeDone means that the step succeeded.
	OutcomeDone = "done"
	// OutcomeRefused means that the step was refused for a business reason. Code and Message say which.
	OutcomeRefused = "refused"
)

// StepCompleted says that a step of an order's saga, or its compensation, ended. A step sets only the optional fields that apply to
// it.
type StepCompleted struct {
	OrderID    string `json:"order_id"`
	CustomerID string `json:"customer_id"`
	Step       string `json:"step"`
	Outcome    string `json:"outcome"`
	// Code is stable and meant for programs, Message is a sentence for people. Both are set if the step was refused.
	Code              string    `json:"code,omitempty"`
	Message           string    `json:"message,omitempty"`
	Amount            Amount    `json:"amount,omitempty"`
	Currency          string    `json:"currency,omitempty"`
	TransactionID     string    `json:"transaction_id,omitempty"`
	Carrier           string    `json:"carrier,omitempty"`
	TrackingNumber    string    `json:"tracking_number,omitempty"`
	EstimatedDelivery time.Time `json:"estimated_delivery,omitzero"`
	// Actor is the person who decided, if there was one.
	Actor       string    `json:"actor,omitempty"`
	CompletedAt time.Time `json:"completed_at"`
}

// EventType is Fulfillment.StepCompleted.
func (StepCompleted) EventType() string { return TypeStepCompleted }

// Subject is orders/<order id>.
func (e StepCompleted) Subject() string { return orderSubject(e.OrderID) }

// Key is the customer, whose events stay in order.
func (e StepCompleted) Key() string { return e.CustomerID }

// ApprovalRequested says that an order waits until ExpiresAt for a person to approve it.
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
	// Currency is the currency of ShipmentCost and of the order. Older events do not have it.
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

// FulfillmentFailed says that an order's saga ended without a shipment. If NotUndone is not empty, the saga needs attention: it waits
// for a person's repair, and then another FulfillmentFailed or FulfillmentCancelled ends it.
type FulfillmentFailed struct {
	OrderID    string `json:"order_id"`
	CustomerID string `json:"customer_id"`
	Code       string `json:"code"`
	Error      string `json:"error"`
	// Undone lists the compensated steps in the order of their compensation: newest first.
	Undone []string `json:"undone"`
	// NotUndone lists the steps whose compensation failed. A person must resolve them.
	NotUndone []string  `json:"not_undone,omitempty"`
	FailedAt  time.Time `json:"failed_at"`
}

// MarshalJSON writes Undone as an array even if it is empty, because the schema requires an array.
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

// FulfillmentCancelled says that the customer cancelled an order before its shipment. All completed steps were compensated.
type FulfillmentCancelled struct {
	OrderID    string `json:"order_id"`
	CustomerID string `json:"customer_id"`
	Reason     string `json:"reason,omitempty"`
	// Undone lists the compensated steps in the order of their compensation: newest first.
	Undone      []string  `json:"undone"`
	CancelledAt time.Time `json:"cancelled_at"`
}

// MarshalJSON writes Undone as an array even if it is empty, because the schema requires an array.
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

// LowStock is the limit below which a change of the stock is published as Inventory.LowStock.
const LowStock = 10

// StockChanged says that the available stock of a product changed. Its event type depends on the new stock.
type StockChanged struct {
	ProductID     string `json:"product_id"`
	CurrentStock  int    `json:"current_stock"`
	PreviousStock int    `json:"previous_stock"`
	Change        int    `json:"change"`
	WarehouseID   string `json:"warehouse_id"`
	// Revision grows with every change of the product: of two events, the one with the larger revision is newer.
	Revision  int       `json:"revision,omitempty"`
	Timestamp time.Time `json:"timestamp"`
}

// EventType returns Inventory.Depleted if nothing is left, Inventory.LowStock below LowStock, and Inventory.Updated otherwise.
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

// Key is the product, whose events stay in order.
func (e StockChanged) Key() string { return e.ProductID }
