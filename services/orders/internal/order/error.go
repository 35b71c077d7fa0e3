package order

import "strings"

// Kind says what sort of thing went wrong, so that an edge can answer accordingly.
type Kind int

const (
	// Invalid says that what was asked for can never be an order.
	Invalid Kind = iota + 1
	// NotFound says that there is no such order.
	NotFound
	// Taken says that another order has the id already.
	Taken
	// TooLate says that the order has come too far for what was asked.
	TooLate
)

// Error is what this package refuses with. Its code is stable, its text safe to show.
type Error struct {
	Kind   Kind
	Code   string
	Text   string
	Faults []Fault
}

// Fault is one faulty field: its JSON path within the order, and what was expected there.
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
