package doctor

import "time"

// Fact is a yes or no that may be unknown.
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

// facts is everything that is stored about one order.
type facts struct {
	id          string
	order       *orderDoc
	saga        *sagaDoc
	payment     *paymentDoc
	reservation *reservationDoc
	shipment    *shipmentDoc
	messages    *messagesDoc
	// unreadable are documents of the order that cannot be decoded; the doctor draws no conclusion from them.
	unreadable []unreadable
	// changed is when the newest of the documents was written; version changes when one of them does.
	changed time.Time
	version string
	// expires: the order, or fulfillment's documents of it, expire after their retention, so others may be missing earlier.
	expires bool

	listed         Fact // in the customer's list
	orderPending   Fact // in the backlogs
	sagaPending    Fact
	approvalListed Fact
	inEngine       Fact
	// unqueued are the messages without an outcome that are in no pending set.
	unqueued []string
}

type unreadable struct {
	app, key string
	err      error
}

// known are the stores that were read. A document that is missing from another store is not a difference.
type known struct {
	orders, fulfillment, notifications bool
	// vanish: orders expire some time after their end (ORDER_RETENTION), perhaps before their messages.
	vanish bool
}
