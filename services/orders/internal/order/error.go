package order

import "strings"

// Kind is the kind of an Error. An adapter chooses its answer by it.
type Kind int

const (
	// Invalid means that the request can never become an order.
	Invalid Kind = iota + 1
	// NotFound means that the order does not exist.
	NotFound
	// Taken means that another order has the id.
	Taken
	// TooLate means that the status of the order no longer allows the request.
	TooLate
)

// Error is a refusal of this package. Its code is stable, and its text is safe to show.
type Error struct {
	Kind   Kind
	Code   string
	Text   string
	Faults []Fault
}

// Fault is one invalid field: its JSON path in the order, and the rule that it breaks.
type Fault struct{ Path, Expectation string }

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Text)
	for i, fault := range e.Faults {
		b.WriteString([]string{" ", "; "}[min(i, 1)])
		b.WriteString(fault.Path + " " + fault.Expectation)
	}
	return b.String()
}

// ErrNotFound is the refusal for an order that does not exist.
func ErrNotFound(id string) error {
	return &Error{Kind: NotFound, Code: "order_not_found", Text: "There is no order " + id + "."}
}

// ErrTaken is the refusal for an order whose id names another order.
func ErrTaken(id ID) error {
	return &Error{Kind: Taken, Code: "order_id_taken", Text: "The id " + string(id) + " belongs to an order with other content."}
}
