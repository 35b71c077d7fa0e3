// Package order is the domain of this service: the rules of a valid order, its statuses, its timeline, and the events that it
// causes. It does no I/O and uses neither a clock nor randomness: times and ids are arguments. It imports contracts only.
package order

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"waybill/contracts"
)

// Source is the CloudEvents source of the events that this service publishes.
const Source = "/waybill/orders"

// Order is one order with its timeline. New checked its content, which never changes. Its status follows the transition table.
// It is not safe for concurrent use.
type Order struct{ s Snapshot }

// Snapshot is the whole state of an order, to show or store it. It shares its slices with the order: do not write to them.
type Snapshot struct {
	Content     contracts.Order
	Status      Status
	CreatedAt   time.Time
	ProcessedAt time.Time
	UpdatedAt   time.Time
	Shipment    Shipment
	Failure     Failure
	Timeline    []Entry
}

// Shipment is the shipment of an order; zero before there is one.
type Shipment struct {
	TrackingNumber    string
	Carrier           string
	EstimatedDelivery time.Time
}

// Failure is the reason why an order was not fulfilled; zero if there is none.
type Failure struct{ Code, Message string }

// Entry is one event of an order's timeline. The timeline is in the order in which this service processed the events, which is
// not always the order of their times. The event ids deduplicate events.
type Entry struct {
	EventID string
	Type    string
	Time    time.Time
	Source  string
	// Status is the order's status after the event. Previous is the status before, if the event says that it changed.
	Status   Status
	Previous Status
	// CausedBy is the id of the event that caused this one.
	CausedBy string

	Step              string
	Outcome           string
	Code              string
	Message           string
	Amount            contracts.Amount
	Currency          string
	TransactionID     string
	Carrier           string
	TrackingNumber    string
	EstimatedDelivery time.Time
	Undone            []string
	NotUndone         []string
	// Actor is the person who decided, Reason is the customer's reason for a cancellation, ExpiresAt is the end of a wait.
	Actor     string
	Reason    string
	ExpiresAt time.Time
}

// Cause is the event that causes a change.
type Cause struct {
	EventID string
	Source  string
	Time    time.Time
}

// Restore makes an order from a snapshot of an order.
func Restore(s Snapshot) *Order { return &Order{s} }

// Snapshot returns the order's state.
func (o *Order) Snapshot() Snapshot { return o.s }

// ID returns the order's id.
func (o *Order) ID() ID { return ID(o.s.Content.OrderID) }

// CustomerID returns the id of the customer who placed it.
func (o *Order) CustomerID() string { return o.s.Content.CustomerID }

// Status returns the order's status.
func (o *Order) Status() Status { return o.s.Status }

// FromBus reports whether the order came from another system over the bus, not from a customer over REST.
func (o *Order) FromBus() bool { return len(o.s.Timeline) > 0 && o.s.Timeline[0].Source != Source }

// WaitsForPerson reports whether the order waits for a person to act.
func (o *Order) WaitsForPerson() bool {
	return o.s.Status == NeedsAttention || o.s.Status == AwaitingApproval && !o.CancellationPending()
}

// WorkedOnSince returns since when the system has been working on the order: since it was confirmed or placed or, if it waited for
// a person, since its last change.
func (o *Order) WorkedOnSince() time.Time {
	waited := slices.ContainsFunc(o.s.Timeline, func(e Entry) bool { return e.Status == AwaitingApproval || e.Status == NeedsAttention })
	switch {
	case waited:
		return o.s.UpdatedAt
	case !o.s.ProcessedAt.IsZero():
		return o.s.ProcessedAt
	default:
		return o.s.CreatedAt
	}
}

// SameContent reports whether both orders have the same content, regardless of status and timeline.
func (o *Order) SameContent(other *Order) bool {
	a, b := o.s.Content, other.s.Content
	if !slices.Equal(a.Items, b.Items) {
		return false
	}
	a.Items, b.Items = nil, nil
	return a.OrderID == b.OrderID && a.CustomerID == b.CustomerID && a.TotalAmount == b.TotalAmount &&
		a.Currency == b.Currency && a.ShipTo == b.ShipTo && a.PaymentToken == b.PaymentToken
}

// Place starts the timeline of an order that was placed over REST. It returns the entry to publish.
func (o *Order) Place() Entry {
	id := string(o.ID()) + ":" + contracts.TypeOrderCreated
	o.note(Entry{EventID: id, Type: contracts.TypeOrderCreated, Time: o.s.CreatedAt, Source: Source})
	return o.s.Timeline[0]
}

// Confirm applies the order's Order.Created. It returns false and changes nothing if the order was confirmed or cancelled before.
func (o *Order) Confirm(cause Cause, now time.Time) bool {
	if !o.s.Status.CanBecome(Confirmed) {
		return false
	}
	if !o.knows(cause.Source, cause.EventID) {
		o.note(Entry{EventID: cause.EventID, Type: contracts.TypeOrderCreated, Time: cause.Time, Source: cause.Source})
	}
	previous := o.s.Status
	o.s.Status, o.s.ProcessedAt, o.s.UpdatedAt = Confirmed, now.UTC(), now.UTC()
	o.note(Entry{
		EventID: string(o.ID()) + ":" + contracts.TypeOrderConfirmed, Type: contracts.TypeOrderConfirmed, Time: now,
		Source: Source, Previous: previous, CausedBy: cause.EventID,
	})
	return true
}

// Step applies a step of the order's saga. Like the methods for the saga's other events, it returns false and changes nothing if the
// timeline already has the event.
func (o *Order) Step(cause Cause, e contracts.StepCompleted, now time.Time) bool {
	if o.knows(cause.Source, cause.EventID) {
		return false
	}
	if !o.s.Status.Final() && e.Outcome == contracts.OutcomeDone {
		switch e.Step {
		case contracts.StepProcessShipment:
			if !o.did(contracts.StepCancelShipment, contracts.OutcomeDone) {
				o.s.Shipment = Shipment{e.TrackingNumber, e.Carrier, e.EstimatedDelivery}
			}
		case contracts.StepCancelShipment:
			o.s.Shipment = Shipment{}
		}
	}
	to := Fulfilling
	if o.s.Status == AwaitingApproval && beforeApproval(e.Step) {
		to = AwaitingApproval // a late event of an earlier step does not end the wait
	}
	if recordsCancellation(e.Step, e.Outcome) {
		to = o.s.Status // the saga's next events say what follows
	}
	o.learn(cause, to, contracts.TypeOrderUpdated, now, Entry{
		Type: contracts.TypeStepCompleted, Time: e.CompletedAt,
		Step: e.Step, Outcome: e.Outcome, Code: e.Code, Message: e.Message, Amount: e.Amount, Currency: e.Currency,
		TransactionID: e.TransactionID, Carrier: e.Carrier, TrackingNumber: e.TrackingNumber, EstimatedDelivery: e.EstimatedDelivery,
		Actor: e.Actor,
	})
	return true
}

// AwaitApproval applies the saga's request for an approval. A request that arrives after an event of a later step does not change
// the status.
func (o *Order) AwaitApproval(cause Cause, e contracts.ApprovalRequested, now time.Time) bool {
	if o.knows(cause.Source, cause.EventID) {
		return false
	}
	to := AwaitingApproval
	if slices.ContainsFunc(o.s.Timeline, func(e Entry) bool {
		return e.Step != "" && !beforeApproval(e.Step) && !recordsCancellation(e.Step, e.Outcome)
	}) {
		to = Fulfilling
	}
	o.learn(cause, to, contracts.TypeOrderUpdated, now, Entry{
		Type: contracts.TypeApprovalRequested, Time: e.RequestedAt, Amount: e.TotalAmount, Currency: e.Currency, ExpiresAt: e.ExpiresAt,
	})
	return true
}

// beforeApproval reports whether a saga does the step before it waits for an approval. Every other step shows that the wait is
// over: the decision, the steps after it, and the compensations, also those of a cancellation during the wait.
func beforeApproval(step string) bool {
	return step == contracts.StepValidatePayment || step == contracts.StepReserveInventory
}

// recordsCancellation reports whether fulfilment answers by this step that it recorded a cancellation.
func recordsCancellation(step, outcome string) bool {
	return step == contracts.StepCancel && outcome == contracts.OutcomeDone
}

// Complete applies the end of a saga that shipped the order.
func (o *Order) Complete(cause Cause, e contracts.FulfillmentCompleted, now time.Time) bool {
	if o.knows(cause.Source, cause.EventID) {
		return false
	}
	if o.s.Status.CanBecome(Fulfilled) {
		o.s.Shipment = Shipment{e.TrackingNumber, e.Carrier, e.EstimatedDelivery}
	}
	o.learn(cause, Fulfilled, contracts.TypeOrderFulfilled, now, Entry{
		Type: contracts.TypeFulfillmentCompleted, Time: e.CompletedAt, Amount: e.ShipmentCost, Currency: e.Currency,
		Carrier: e.Carrier, TrackingNumber: e.TrackingNumber, EstimatedDelivery: e.EstimatedDelivery,
	})
	return true
}

// Fail applies the end of a saga that did not ship the order. If a step could not be compensated, the saga has not ended and the
// order needs attention. That is published as a change of status, because Order.FulfillmentFailed says that every step was
// compensated.
func (o *Order) Fail(cause Cause, e contracts.FulfillmentFailed, now time.Time) bool {
	if o.knows(cause.Source, cause.EventID) {
		return false
	}
	to, announced := FulfillmentFailed, contracts.TypeOrderFulfillmentFailed
	if len(e.NotUndone) > 0 {
		to, announced = NeedsAttention, contracts.TypeOrderUpdated
	}
	if o.s.Status.CanBecome(to) {
		o.s.Failure = Failure{e.Code, e.Error}
		if to.Final() {
			o.s.Shipment = Shipment{}
		}
	}
	o.learn(cause, to, announced, now, Entry{
		Type: contracts.TypeFulfillmentFailed, Time: e.FailedAt, Code: e.Code, Message: e.Error,
		Undone: e.Undone, NotUndone: e.NotUndone,
	})
	return true
}

// Cancel applies the end of a saga that the customer cancelled.
func (o *Order) Cancel(cause Cause, e contracts.FulfillmentCancelled, now time.Time) bool {
	if o.knows(cause.Source, cause.EventID) {
		return false
	}
	if o.s.Status.CanBecome(Cancelled) {
		o.s.Failure, o.s.Shipment = Failure{}, Shipment{}
	}
	o.learn(cause, Cancelled, contracts.TypeOrderCancelled, now, Entry{
		Type: contracts.TypeFulfillmentCancelled, Time: e.CancelledAt, Undone: e.Undone, Reason: e.Reason,
	})
	return true
}

// learn adds an event of the saga to the timeline, and changes the status if the transition table allows it. A late event does not
// change the status.
func (o *Order) learn(cause Cause, to Status, announced string, now time.Time, e Entry) {
	e.EventID, e.Source = cause.EventID, cause.Source
	if e.Time.IsZero() {
		e.Time = cause.Time
	}
	previous := o.s.Status
	o.s.UpdatedAt = now.UTC()
	if !previous.CanBecome(to) {
		o.note(e)
		return
	}
	o.s.Status = to
	o.note(e)
	about := string(o.ID())
	if announced == contracts.TypeOrderUpdated {
		// An order can be updated more than once, so its own id does not distinguish the updates.
		about = cause.EventID
	}
	id := about + ":" + announced
	if o.knows(Source, id) {
		// An event of another source with the same id already caused this one.
		sum := sha256.Sum256([]byte(cause.Source))
		id = about + ":" + hex.EncodeToString(sum[:8]) + ":" + announced
	}
	o.note(Entry{
		EventID: id, Type: announced, Time: now, Source: Source, Previous: previous, CausedBy: cause.EventID,
		Reason: e.Reason,
	})
}

func (o *Order) note(e Entry) {
	e.Time, e.Status = e.Time.UTC(), o.s.Status
	// Clip, because a snapshot may share the array.
	o.s.Timeline = append(slices.Clip(o.s.Timeline), e)
}

// knows reports whether the timeline has the event. Event ids are unique only within their source.
func (o *Order) knows(source, eventID string) bool {
	return slices.ContainsFunc(o.s.Timeline, func(e Entry) bool { return e.Source == source && e.EventID == eventID })
}

func (o *Order) did(step, outcome string) bool {
	return slices.ContainsFunc(o.s.Timeline, func(e Entry) bool { return e.Step == step && e.Outcome == outcome })
}

// Unsettled returns the entries to publish after this event, also after it was delivered again: those that the event caused,
// the confirmation of an order whose saga has not started, and the end of an order that was cancelled before its
// confirmation.
func (o *Order) Unsettled(cause Cause) []Entry {
	var entries []Entry
	for _, e := range o.s.Timeline {
		if e.CausedBy != "" && (e.CausedBy == cause.EventID || e.Type == contracts.TypeOrderConfirmed && o.s.Status == Confirmed) || e.cancelledUnconfirmed() {
			entries = append(entries, e)
		}
	}
	return entries
}

// Outstanding returns the entries that have no answer yet, oldest first: Order.Created until the order is confirmed,
// Order.Confirmed until its saga has ended, and Order.CancellationRequested until fulfilment has answered. The end of an
// order that was cancelled before its confirmation is always among them, because no event will cause it again.
func (o *Order) Outstanding() []Entry {
	var entries []Entry
	for _, e := range o.s.Timeline {
		var outstanding bool
		switch {
		case e.Source != Source:
		case e.Type == contracts.TypeOrderCreated:
			outstanding = o.s.Status == Received
		case e.Type == contracts.TypeOrderConfirmed:
			outstanding = !o.s.Status.Final()
		case e.Type == contracts.TypeOrderCancellationRequested:
			outstanding = o.CancellationPending()
		default:
			outstanding = e.cancelledUnconfirmed()
		}
		if outstanding {
			entries = append(entries, e)
		}
	}
	return entries
}

// Announcement returns the payload of an entry that is this service's own event, the same one every time; nil for another
// service's event.
func (o *Order) Announcement(e Entry) contracts.Payload {
	if e.Source != Source {
		return nil
	}
	switch e.Type {
	case contracts.TypeOrderCreated:
		return contracts.OrderCreated{Order: o.s.Content, CreatedAt: o.s.CreatedAt}
	case contracts.TypeOrderConfirmed:
		return contracts.OrderConfirmed{Order: o.s.Content, CreatedAt: o.s.CreatedAt, ProcessedAt: o.s.ProcessedAt}
	case contracts.TypeOrderUpdated:
		return contracts.OrderUpdated{
			OrderID: o.s.Content.OrderID, CustomerID: o.s.Content.CustomerID,
			Status: string(e.Status), PreviousStatus: string(e.Previous), UpdatedAt: e.Time,
		}
	case contracts.TypeOrderFulfilled:
		return contracts.OrderFulfilled{
			OrderID: o.s.Content.OrderID, CustomerID: o.s.Content.CustomerID, Items: o.s.Content.Items,
			TotalAmount: o.s.Content.TotalAmount, Currency: o.s.Content.Currency,
			TrackingNumber: o.s.Shipment.TrackingNumber, Carrier: o.s.Shipment.Carrier,
			EstimatedDelivery: o.s.Shipment.EstimatedDelivery, FulfilledAt: e.Time,
		}
	case contracts.TypeOrderFulfillmentFailed:
		return contracts.OrderFulfillmentFailed{
			OrderID: o.s.Content.OrderID, CustomerID: o.s.Content.CustomerID,
			Code: o.s.Failure.Code, Error: o.s.Failure.Message, FailedAt: e.Time,
		}
	case contracts.TypeOrderCancellationRequested:
		return contracts.OrderCancellationRequested{
			OrderID: o.s.Content.OrderID, CustomerID: o.s.Content.CustomerID, Reason: e.Reason, RequestedAt: e.Time,
		}
	case contracts.TypeOrderCancelled:
		return contracts.OrderCancelled{
			OrderID: o.s.Content.OrderID, CustomerID: o.s.Content.CustomerID, Reason: e.Reason, CancelledAt: e.Time,
		}
	default:
		return nil
	}
}
