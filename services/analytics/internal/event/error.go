package event

import "strings"

// CodeInvalid is the code of every Error: what came can never be an event.
const CodeInvalid = "invalid_event"

// Error is what this package refuses with. Its code is stable, its text safe to show.
type Error struct {
	Code   string
	Text   string
	Faults []Fault
}

// Fault is one faulty field: its JSON path within the event, and what was expected there.
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
