package record

import "errors"

// ErrUnreadable says that entries cannot be decoded. What else was asked for was done.
var ErrUnreadable = errors.New("an entry of the journal cannot be decoded")

// Kind says what sort of refusal an Error is.
type Kind int

const (
	// NotFound says that there is nothing of that order to decide about.
	NotFound Kind = iota + 1
	// Conflict says that it was decided otherwise before, or that there is nothing left to decide.
	Conflict
)

// Error is a refusal. Its code is stable, its text safe to show.
type Error struct {
	Kind Kind
	Code string
	Text string
	// Decision is the first one, where that is why another is refused.
	Decision *Decision
}

func (e *Error) Error() string { return e.Text }

// ErrUnknown is the refusal for an order of which fulfilment knows nothing.
func ErrUnknown(orderID string) error {
	return &Error{Kind: NotFound, Code: "unknown_order", Text: "Fulfilment knows no order " + orderID + "."}
}
