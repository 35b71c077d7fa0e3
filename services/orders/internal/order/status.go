package order

import "slices"

// Status is how far an order has come.
type Status string

const (
	// Received orders were accepted over REST; their event has not come back from the bus yet.
	Received Status = "received"
	// Confirmed orders are stored for good and wait for fulfilment.
	Confirmed Status = "confirmed"
	// Fulfilling orders have a saga at work.
	Fulfilling Status = "fulfilling"
	// AwaitingApproval orders wait for a person to decide.
	AwaitingApproval Status = "awaiting_approval"
	// Fulfilled orders were paid and shipped.
	Fulfilled Status = "fulfilled"
	// FulfillmentFailed orders could not be fulfilled; whatever had been done was undone.
	FulfillmentFailed Status = "fulfillment_failed"
	// Cancelled orders were stopped by the customer before shipment.
	Cancelled Status = "cancelled"
	// NeedsAttention orders have a step that could not be undone and that a person must settle.
	NeedsAttention Status = "needs_attention"
)

// transitions says what each status may become. A status without an entry is final. An order may skip ahead, for events
// can be lost on the way to a dead-letter topic and the last one still counts; it never goes back, save from waiting for
// an approval to the work that goes on after it.
var transitions = map[Status][]Status{
	Received:         {Confirmed, Fulfilling, AwaitingApproval, Fulfilled, FulfillmentFailed, Cancelled, NeedsAttention},
	Confirmed:        {Fulfilling, AwaitingApproval, Fulfilled, FulfillmentFailed, Cancelled, NeedsAttention},
	Fulfilling:       {AwaitingApproval, Fulfilled, FulfillmentFailed, Cancelled, NeedsAttention},
	AwaitingApproval: {Fulfilling, Fulfilled, FulfillmentFailed, Cancelled, NeedsAttention},
}

// Statuses lists every status, in the order in which an order can meet them.
func Statuses() []Status {
	return []Status{Received, Confirmed, Fulfilling, AwaitingApproval, Fulfilled, FulfillmentFailed, Cancelled, NeedsAttention}
}

// CanBecome reports whether the transition table leads from s to next.
func (s Status) CanBecome(next Status) bool { return slices.Contains(transitions[s], next) }

// Final reports whether nothing can change the status any more.
func (s Status) Final() bool { return len(transitions[s]) == 0 }
