package event

import "strings"

// CodeInvalid is the code of every Error: the input can never be an event.
const CodeInvalid = "invalid_event"

// Error is the error of this package. Its code is stable, its text is safe to show.
type Error struct {
	Code   string
	Text   string
	Faults []Fault
}

// Fault is one invalid field: its JSON path in the event, and the rule that it breaks.
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
