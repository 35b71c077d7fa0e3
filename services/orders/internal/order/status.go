package order

import "slices"

// Status is the state of an order.
type Status string

const (
	// Received orders were accepted over REST. Their event has not come back from the bus yet.
	Received Status = "received"
	// Confirmed orders are stored for good and wait for fulfilment.
	Confirmed Status = "confirmed"
	// Fulfilling orders have a saga that runs.
	Fulfilling Status = "fulfilling"
	// AwaitingApproval orders wait for a person's decision.
	AwaitingApproval Status = "awaiting_approval"
	// Fulfilled orders were paid and shipped.
	Fulfilled Status = "fulfilled"
	// FulfillmentFailed orders could not be fulfilled. Every completed step was compensated.
	FulfillmentFailed Status = "fulfillment_failed"
	// Cancelled orders were stopped by the customer before shipment.
	Cancelled Status = "cancelled"
	// NeedsAttention orders have a step that could not be compensated. They wait until a person orders a repair.
	NeedsAttention Status = "needs_attention"
)

// transitions are the statuses that each status can change to. A status without an entry is final. An order may skip statuses:
// an event can be dead-lettered, and a later one still counts. It never goes back, except from waiting for an approval to
// the steps after it. An order that needs attention was not shipped, so its saga can end in two ways only.
var transitions = map[Status][]Status{
	Received:         {Confirmed, Fulfilling, AwaitingApproval, NeedsAttention, Fulfilled, FulfillmentFailed, Cancelled},
	Confirmed:        {Fulfilling, AwaitingApproval, NeedsAttention, Fulfilled, FulfillmentFailed, Cancelled},
	Fulfilling:       {AwaitingApproval, NeedsAttention, Fulfilled, FulfillmentFailed, Cancelled},
	AwaitingApproval: {Fulfilling, NeedsAttention, Fulfilled, FulfillmentFailed, Cancelled},
	NeedsAttention:   {FulfillmentFailed, Cancelled},
}

// Statuses returns every status, roughly in the order of an order's life.
func Statuses() []Status {
	return []Status{Received, Confirmed, Fulfilling, AwaitingApproval, Fulfilled, FulfillmentFailed, Cancelled, NeedsAttention}
}

// CanBecome reports whether a status s can change to next.
func (s Status) CanBecome(next Status) bool { return slices.Contains(transitions[s], next) }

// Final reports whether the status can never change.
func (s Status) Final() bool { return len(transitions[s]) == 0 }
