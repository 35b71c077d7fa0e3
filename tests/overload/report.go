package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"waybill/tests/internal/figures"
)

// show formats the results as Markdown.
func show(all []result) string {
	if len(all) == 0 {
		return ""
	}
	var b strings.Builder
	t := figures.NewTable("orders a second", "capacity", "possible", "offered", "goodput, mean", "lowest 10 s", "of what is possible", "accepted", "refused", "other answers, or none")
	for _, r := range all {
		lowest := 0.0
		if len(r.goodput) > 0 {
			lowest = slices.Min(r.goodput)
		}
		refused, other := 0, sum(r.unanswered)
		for answer, n := range r.refused {
			if refusal(answer) {
				refused += n
			} else {
				other += n
			}
		}
		t.Row(r.shape.name, fmt.Sprintf("%.1f", r.capacity), fmt.Sprintf("%.1f", r.possible()), fmt.Sprintf("%.0f", r.rate), fmt.Sprintf("%.1f", mean(r.goodput)), fmt.Sprintf("%.1f", lowest),
			fmt.Sprintf("%.0f %%", 100*lowest/r.possible()), fmt.Sprint(r.accepted), fmt.Sprint(refused), fmt.Sprint(other))
	}
	b.WriteString(t.String() + "\n")
	t = figures.NewTable("orders", "ended", "not fulfilled", "open", "last end after the burst", "a new order before: p50", "p95", "after: p50", "p95", "as before after")
	for _, r := range all {
		again := "never"
		if r.recovered {
			again = fmt.Sprintf("%.0f s", r.recoveredAfter.Seconds())
		}
		t.Row(r.shape.name, fmt.Sprint(r.ends.accepted-r.ends.open), fmt.Sprint(sum(r.ends.failed)), fmt.Sprint(r.ends.open), fmt.Sprintf("%.0f s", r.drained.Seconds()),
			figures.MS(figures.Quantile(r.before, 0.5)), figures.MS(figures.Quantile(r.before, 0.95)),
			figures.MS(figures.Quantile(r.after, 0.5)), figures.MS(figures.Quantile(r.after, 0.95)), again)
	}
	b.WriteString(t.String() + "\n")
	b.WriteString(byProcess(all, slices.Sorted(maps.Keys(all[0].memory)), "peak memory, MiB", func(r result, name string) string { return fmt.Sprint(r.memory[name] >> 20) },
		"allowed", func(name string) string { return fmt.Sprint(memoryBound(name) >> 20) }) + "\n")
	b.WriteString(byProcess(all, slices.Sorted(maps.Keys(all[0].processor)), "processor during the burst", func(r result, name string) string { return fmt.Sprintf("%.0f %%", 100*r.processor[name]) }, "", nil))
	for _, r := range all {
		if r.shape.other {
			fmt.Fprintf(&b, "\n%s: of another customer's orders, one a second during the burst, %d were refused, and the others took p50 %s, p95 %s.\n",
				r.shape.name, r.otherRefused, figures.MS(figures.Quantile(r.other, 0.5)), figures.MS(figures.Quantile(r.other, 0.95)))
		}
		if len(r.refused)+len(r.unanswered)+r.held > 0 {
			fmt.Fprintf(&b, "\n%s: refused: %s; unanswered: %s; %d more were due while all %d clients waited for an answer.\n",
				r.shape.name, list(r.refused), list(r.unanswered), r.held, clients)
		}
	}
	return b.String()
}

// byProcess is a table with a line for each process, a column for each shape, and a last column if it has a name.
func byProcess(all []result, processes []string, head string, cell func(r result, process string) string, last string, lastCell func(process string) string) string {
	heads := []string{head}
	for _, r := range all {
		heads = append(heads, r.shape.name)
	}
	if last != "" {
		heads = append(heads, last)
	}
	t := figures.NewTable(heads...)
	for _, name := range processes {
		row := []string{name}
		for _, r := range all {
			row = append(row, cell(r, name))
		}
		if last != "" {
			row = append(row, lastCell(name))
		}
		t.Row(row...)
	}
	return t.String()
}
