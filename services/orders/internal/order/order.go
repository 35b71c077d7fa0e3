// Package order is the domain of this service: what makes an order valid, how it moves from status to status, what is
// remembered of it, and what it has to announce. It does no I/O and knows neither clock nor randomness: times and ids
// are arguments. Of the other packages it knows contracts only.
package order

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"waybill/contracts"
)

// Source is the CloudEvents source of what this service announces.
const Source = "/waybill/orders"

// Order is one order with its history. Its content was checked by New and never changes; its status follows the
// transition table. It is not safe for concurrent use.
type Order struct{ s Snapshot }

// Snapshot is an order's whole state, to be shown or stored. Its slices are shared with the order: do not write to them.
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

// Shipment is what is known of an order's way to the customer.
type Shipment struct {
	TrackingNumber    string
	Carrier           string
	EstimatedDelivery time.Time
}

// Failure is why an order was not fulfilled; zero unless it was not.
type Failure struct{ Code, Message string }

// Entry is one event of an order's timeline. The timeline stands in the order in which this service learned of the
// events, which is not always that of their times. Its event ids are how a repeated event is told from a new one.
type Entry struct {
	EventID string
	Type    string
	Time    time.Time
	Source  string
	// Status is the order's status after the event, Previous the one before when the event announces a change of it.
	Status   Status
	Previous Status
	// CausedBy is the id of the event that this service answered with this one.
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
	// Actor is the person who decided, Reason the customer's for a cancellation, ExpiresAt the end of a wait.
	Actor     string
	Reason    string
	ExpiresAt time.Time
}

// Cause is the event that brought something about.
type Cause struct {
	EventID string
	Source  string
	Time    time.Time
}

// Restore makes an order from a snapshot that an order once gave.
func Restore(s Snapshot) *Order { return &Order{s} }

// Snapshot returns the order's state.
func (o *Order) Snapshot() Snapshot { return o.s }

// ID names the order.
func (o *Order) ID() ID { return ID(o.s.Content.OrderID) }

// CustomerID names the customer who placed it.
func (o *Order) CustomerID() string { return o.s.Content.CustomerID }

// Status is how far the order has come.
func (o *Order) Status() Status { return o.s.Status }

// FromBus reports whether the order came from another system, by the bus, and not from a customer over this service's API.
func (o *Order) FromBus() bool { return len(o.s.Timeline) > 0 && o.s.Timeline[0].Source != Source }

// WaitsForPerson reports whether the order stands still because a person has to do something.
func (o *Order) WaitsForPerson() bool {
	return o.s.Status == NeedsAttention || o.s.Status == AwaitingApproval && !o.CancellationPending()
}

// WorkedOnSince is since when the system has been working on the order: since it was confirmed, or placed; since its last change
// if it waited for a person in between.
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

// SameContent reports whether both ask for the same; their status and history do not matter.
func (o *Order) SameContent(other *Order) bool {
	a, b := o.s.Content, other.s.Content
	if !slices.Equal(a.Items, b.Items) {
		return false
	}
	a.Items, b.Items = nil, nil
	return a.OrderID == b.OrderID && a.CustomerID == b.CustomerID && a.TotalAmount == b.TotalAmount &&
		a.Currency == b.Currency && a.ShipTo == b.ShipTo && a.PaymentToken == b.PaymentToken
}

// Place begins the timeline of an order that a customer placed with this service, and returns what is to be announced.
func (o *Order) Place() Entry {
	id := string(o.ID()) + ":" + contracts.TypeOrderCreated
	o.note(Entry{EventID: id, Type: contracts.TypeOrderCreated, Time: o.s.CreatedAt, Source: Source})
	return o.s.Timeline[0]
}

// Confirm takes the order's Order.Created. It reports false, and changes nothing, when the order was confirmed before.
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

// Step takes a step of the order's saga. Like the other events of the saga it reports false, and changes nothing, for an
// event that the timeline holds already.
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
		to = AwaitingApproval // a late event of what came before the wait does not end it
	}
	if recordsCancellation(e.Step, e.Outcome) {
		to = o.s.Status // what is done about it, the saga's next events say
	}
	o.learn(cause, to, contracts.TypeOrderUpdated, now, Entry{
		Type: contracts.TypeStepCompleted, Time: e.CompletedAt,
		Step: e.Step, Outcome: e.Outcome, Code: e.Code, Message: e.Message, Amount: e.Amount, Currency: e.Currency,
		TransactionID: e.TransactionID, Carrier: e.Carrier, TrackingNumber: e.TrackingNumber, EstimatedDelivery: e.EstimatedDelivery,
		Actor: e.Actor,
	})
	return true
}

// AwaitApproval takes the saga's request that a person approve the order. A request that arrives behind an event of what
// came after the wait is noted only.
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

// beforeApproval tells the steps that a saga takes before it waits for an approval. Every other one shows that the wait is
// over: the decision, the step after it, and the undos, which are also what is seen of a cancellation during the wait.
func beforeApproval(step string) bool {
	return step == contracts.StepValidatePayment || step == contracts.StepReserveInventory
}

// recordsCancellation tells fulfilment's answer that it recorded a cancellation.
func recordsCancellation(step, outcome string) bool {
	return step == contracts.StepCancel && outcome == contracts.OutcomeDone
}

// Complete takes the end of a saga that shipped the order.
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

// Fail takes the end of a saga that did not ship the order, or its standstill when something could not be undone. Then the
// order needs attention, which is announced as a change of status: Order.FulfillmentFailed would say that everything was
// undone.
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

// Cancel takes the end of a saga that its customer had cancelled.
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

// learn notes an event of the saga and moves the order if the table allows it; a late event is noted and moves nothing.
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
		// An order can be updated more than once, so its own id does not tell the updates apart.
		about = cause.EventID
	}
	id := about + ":" + announced
	if o.knows(Source, id) {
		// An event of another source, with the same id, was announced under this one.
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
	// Clipped, for a snapshot may share the array.
	o.s.Timeline = append(slices.Clip(o.s.Timeline), e)
}

// knows reports whether the timeline holds the event. Ids are unique for one source only.
func (o *Order) knows(source, eventID string) bool {
	return slices.ContainsFunc(o.s.Timeline, func(e Entry) bool { return e.Source == source && e.EventID == eventID })
}

func (o *Order) did(step, outcome string) bool {
	return slices.ContainsFunc(o.s.Timeline, func(e Entry) bool { return e.Step == step && e.Outcome == outcome })
}

// Unsettled returns the announcements that the event brought about, or that may still be unpublished when it comes again:
// the confirmation of an order that nobody has begun to fulfil, the end of one that was cancelled before its confirmation,
// and everything the event itself caused.
func (o *Order) Unsettled(cause Cause) []Entry {
	var entries []Entry
	for _, e := range o.s.Timeline {
		if e.CausedBy != "" && (e.CausedBy == cause.EventID || e.Type == contracts.TypeOrderConfirmed && o.s.Status == Confirmed) || e.cancelledUnconfirmed() {
			entries = append(entries, e)
		}
	}
	return entries
}

// Outstanding returns the announcements that wait for an answer, in the order in which they were made: that the order was
// placed, as long as it is not confirmed; that it was confirmed, as long as its saga has not ended; that its customer wants
// it cancelled, as long as nobody said what became of that. The end of an order that was cancelled before its confirmation
// is always among them, for no event brought it about that would come again.
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

// Announcement is the payload of an event of this service's own on the timeline, the same every time it is asked for; nil
// for another's event.
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
