package record

import "errors"

// ErrUnreadable says that some saga records cannot be decoded. Everything else that was requested is done.
var ErrUnreadable = errors.New("a saga record cannot be decoded")

// Kind is the kind of a refusal.
type Kind int

const (
	// NotFound says that there is nothing of that order to decide about.
	NotFound Kind = iota + 1
	// Conflict says that another decision was made before, or that there is nothing left to decide.
	Conflict
)

// Error is a refusal. Its code is stable, its text safe to show.
type Error struct {
	Kind Kind
	Code string
	Text string
	// Decision is the first decision, if that is why a second one is refused.
	Decision *Decision
}

func (e *Error) Error() string { return e.Text }

// ErrUnknown returns the refusal for an order that fulfilment does not know.
func ErrUnknown(orderID string) error {
	return &Error{Kind: NotFound, Code: "unknown_order", Text: "Fulfilment knows no order " + orderID + "."}
}
