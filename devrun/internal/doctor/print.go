package doctor

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Print writes the report for people, a block for each difference.
func (r *Report) Print(out io.Writer) error {
	var b strings.Builder
	state := "stopped"
	if r.Running {
		state = "running"
	}
	fmt.Fprintf(&b, "%s, %s: compared %d orders, %d sagas, %d payments, %d reservations, %d shipments, the messages of %d orders, and %d products.\n",
		r.Source, state, r.Counts["orders"], r.Counts["sagas"], r.Counts["payments"], r.Counts["reservations"], r.Counts["shipments"],
		r.Counts["orders_with_messages"], r.Counts["products"])
	for i, f := range r.Differences {
		about := f.Code
		switch {
		case f.Order != "":
			about += "  order " + f.Order
		case f.Product != "":
			about += "  product " + f.Product
		}
		fmt.Fprintf(&b, "\n%d. %s\n   %s\n   where: %s\n   why:   %s\n   mend:  %s\n", i+1, about, f.What, strings.Join(f.Where, ", "), f.Why, f.Mend)
		if !f.Since.IsZero() {
			fmt.Fprintf(&b, "   since: %s\n", f.Since.UTC().Format(time.RFC3339))
		}
	}
	b.WriteString("\n")
	for _, code := range slices.Sorted(maps.Keys(r.NotKept)) {
		fmt.Fprintf(&b, "There are %d more of the kind %s.\n", r.NotKept[code], code)
	}
	if r.InFlight > 0 {
		fmt.Fprintf(&b, "%d orders were on the move and were not judged; ask again.\n", r.InFlight)
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "%s\n", note)
	}
	for _, unseen := range r.Unseen {
		fmt.Fprintf(&b, "Not seen: %s\n", unseen)
	}
	switch n := len(r.Differences); n {
	case 0:
		b.WriteString("No difference was found.\n")
	case 1:
		b.WriteString("1 difference was found.\n")
	default:
		fmt.Fprintf(&b, "%d differences were found.\n", n)
	}
	_, err := io.WriteString(out, b.String())
	return err
}
