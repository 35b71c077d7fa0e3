package doctor

import "time"

// Fact is something that may not be known.
type Fact int

// Facts.
const (
	Unknown Fact = iota
	Yes
	No
)

func fact(yes bool) Fact {
	if yes {
		return Yes
	}
	return No
}

// facts is all that is held about one order.
type facts struct {
	id          string
	order       *orderDoc
	saga        *sagaDoc
	payment     *paymentDoc
	reservation *reservationDoc
	shipment    *shipmentDoc
	messages    *messagesDoc
	// unreadable are documents of the order that cannot be decoded; nothing follows from what they would have said.
	unreadable []unreadable
	// changed is when the newest of the documents was written, version what tells that one of them has changed.
	changed time.Time
	version string
	// expires says that the order, or what fulfilment holds of it, vanishes after its retention, so others may be gone before it.
	expires bool

	listed         Fact // in the customer's list
	orderPending   Fact // in the backlogs
	sagaPending    Fact
	approvalListed Fact
	inEngine       Fact
	// unqueued are the messages without an outcome that no backlog has.
	unqueued []string
}

type unreadable struct {
	app, key string
	err      error
}

// known says which stores were seen. What is missing from one that was not is no difference.
type known struct {
	orders, fulfillment, notifications bool
	// vanish says that orders vanish some time after their end (ORDER_RETENTION), maybe before their messages.
	vanish bool
}
