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
	// NeedsAttention orders have a step that could not be undone. They stand still until a person has it repaired.
	NeedsAttention Status = "needs_attention"
)

// transitions says what each status may become. A status without an entry is final. An order may skip ahead, for events
// can be lost on the way to a dead-letter topic and the last one still counts; it never goes back, save from waiting for
// an approval to the work that goes on after it. What needs attention was not shipped, so its saga can end in two ways.
var transitions = map[Status][]Status{
	Received:         {Confirmed, Fulfilling, AwaitingApproval, NeedsAttention, Fulfilled, FulfillmentFailed, Cancelled},
	Confirmed:        {Fulfilling, AwaitingApproval, NeedsAttention, Fulfilled, FulfillmentFailed, Cancelled},
	Fulfilling:       {AwaitingApproval, NeedsAttention, Fulfilled, FulfillmentFailed, Cancelled},
	AwaitingApproval: {Fulfilling, NeedsAttention, Fulfilled, FulfillmentFailed, Cancelled},
	NeedsAttention:   {FulfillmentFailed, Cancelled},
}

// Statuses lists every status, in the order in which an order can meet them.
func Statuses() []Status {
	return []Status{Received, Confirmed, Fulfilling, AwaitingApproval, Fulfilled, FulfillmentFailed, Cancelled, NeedsAttention}
}

// CanBecome reports whether the transition table leads from s to next.
func (s Status) CanBecome(next Status) bool { return slices.Contains(transitions[s], next) }

// Final reports whether nothing can change the status any more.
func (s Status) Final() bool { return len(transitions[s]) == 0 }
