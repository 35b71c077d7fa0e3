package main

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"

	"waybill/tests/internal/figures"
)

// report is everything one run measured.
type report struct {
	machine string
	plan    plan
	alone   []result // ours, bare
	rates   []result
	most    []result // ours, bare, ours, bare, ...
	hot     result
	events  []result // analytics, bare subscriber, analytics, ...
}

// part is what one part of a run measured, as Markdown.
type part struct{ name, text string }

func (r *report) parts() []part {
	var all []part
	if len(r.most) > 0 {
		all = append(all, part{partOrders, r.orders()})
	}
	if len(r.events) > 0 {
		all = append(all, part{partAnalytics, r.analytics()})
	}
	return all
}

// disturbed warns if other processes used much of the machine.
func disturbed(b *strings.Builder, of ...result) {
	taken := 0.0
	for _, one := range of {
		taken = max(taken, one.others())
	}
	if taken > 0.1 {
		fmt.Fprintf(b, "\n**Something else ran on this machine** and took up to %.0f %% of it: these figures compare with each other, not with those of another run.\n", 100*taken)
	}
}

// analytics is the result for events.
func (r *report) analytics() string {
	var b strings.Builder
	b.WriteString(r.machine)
	ours, bare := total(r.events, "analytics"), total(r.events, "bare subscriber")
	fmt.Fprintf(&b, "\n**As many events as it can** (%d clients, %d events a request; handed in for %s, measured %d times in turns):\n\n",
		clients, together, r.plan.eventsWindow, r.plan.eventsRounds)
	t := figures.NewTable("", "events a second", "events", "last one after the last answer", "each round, a second")
	for _, one := range []result{ours, bare} {
		var rounds []string
		for _, round := range r.events {
			if round.subject == one.subject {
				rounds = append(rounds, fmt.Sprintf("%.0f", round.rate()))
			}
		}
		t.Row(one.subject, fmt.Sprintf("%.0f", one.rate()), strconv.Itoa(one.done), figures.MS(figures.Quantile(one.took, 1)), strings.Join(rounds, ", "))
	}
	b.WriteString(t.String())
	if bare.rate() > 0 {
		fmt.Fprintf(&b, "\nAnalytics reaches **%.0f %%** of the bare subscriber.\n", 100*ours.rate()/bare.rate())
	}
	disturbed(&b, ours, bare)
	for _, one := range []result{ours, bare} {
		if len(one.usage.of) == 0 {
			fmt.Fprintf(&b, "\nProcessor time and memory are measured on Linux only, not on %s.\n", runtime.GOOS)
			break
		}
		fmt.Fprintf(&b, "\n**What %s cost** (100 %% is one processor of %d):\n\n", article(one.subject), runtime.NumCPU())
		t = figures.NewTable("process", "at the most", "ms per 1,000 events", "peak memory, MiB")
		var sum time.Duration
		for _, p := range one.usage.of {
			if p.name == everythingElse {
				t.Row(p.name, share(p.cpu, one.span), "", "")
				continue
			}
			sum += p.cpu
			t.Row(p.name, share(p.cpu, one.span), each(1000*p.cpu, one.done), mebibytes(p.peak))
		}
		t.Row("together, without everything else", share(sum, one.span), each(1000*sum, one.done), "")
		b.WriteString(t.String())
	}
	return b.String()
}

// total adds up the rounds of one subject.
func total(rounds []result, subject string) result {
	t := result{subject: subject}
	for _, one := range rounds {
		if one.subject == subject {
			t.window += one.window
			t.done += one.done
			t.took = append(t.took, one.took...)
			t.span += one.span
			t.usage = t.usage.and(one.usage)
		}
	}
	return t
}

// others is the share of the machine that processes used which are not measured.
func (r result) others() float64 {
	for _, p := range r.usage.of {
		if p.name == everythingElse && r.span > 0 {
			return float64(p.cpu) / float64(r.span) / float64(runtime.NumCPU())
		}
	}
	return 0
}

// and adds up two measurements of the same processes.
func (u usage) and(v usage) usage {
	if u.of == nil {
		return v
	}
	sum := usage{busy: u.busy + v.busy}
	for i, p := range u.of {
		p.cpu += v.of[i].cpu
		p.peak = max(p.peak, v.of[i].peak)
		sum.of = append(sum.of, p)
	}
	return sum
}

// orders is the result for orders.
func (r *report) orders() string {
	var b strings.Builder
	b.WriteString(r.machine)

	ours, bare := total(r.most, "orders"), total(r.most, "bare workflow")
	fmt.Fprintf(&b, "\n**As many as it can** (%d in flight; %s, measured %d times in turns):\n\n", r.plan.inFlight, r.plan.window, r.plan.rounds)
	t := figures.NewTable("", "a second", "a minute", "p50", "p95", "p99", "each round, a second")
	for _, one := range []result{ours, bare} {
		var rounds []string
		for _, round := range r.most {
			if round.subject == one.subject {
				rounds = append(rounds, fmt.Sprintf("%.1f", round.rate()))
			}
		}
		t.Row(append([]string{one.subject, fmt.Sprintf("%.1f", one.rate()), fmt.Sprintf("%.0f", 60*one.rate())},
			append(quantiles(one), strings.Join(rounds, ", "))...)...)
	}
	t.Row("orders, one product", fmt.Sprintf("%.1f", r.hot.rate()), fmt.Sprintf("%.0f", 60*r.hot.rate()), figures.MS(figures.Quantile(r.hot.took, 0.5)), figures.MS(figures.Quantile(r.hot.took, 0.95)), figures.MS(figures.Quantile(r.hot.took, 0.99)), "")
	b.WriteString(t.String())
	if bare.rate() > 0 {
		fmt.Fprintf(&b, "\nOrders reach **%.0f %%** of the bare workflow.\n", 100*ours.rate()/bare.rate())
	}
	disturbed(&b, ours, bare)

	if len(r.rates) > 0 {
		fmt.Fprintf(&b, "\n**Rising rates** (%s each; a time counts from when the order was due):\n\n", r.plan.step)
		t = figures.NewTable("offered a second", "fulfilled a second", "p50", "p95", "p99", "in flight at the end", "kept up", "processors busy")
		for _, one := range r.rates {
			t.Row(append(append([]string{strconv.Itoa(one.offered), fmt.Sprintf("%.1f", one.rate())}, quantiles(one)...),
				strconv.Itoa(one.behind), map[bool]string{true: "yes", false: "no"}[one.keptUp()], share(one.usage.busy, one.span*time.Duration(runtime.NumCPU())))...)
		}
		b.WriteString(t.String())
	}

	fmt.Fprintf(&b, "\n**Alone** (%d one after the other):\n\n", r.plan.alone)
	t = figures.NewTable("", "p50", "p95", "p99")
	for _, one := range r.alone {
		t.Row(append([]string{one.subject}, quantiles(one)...)...)
	}
	b.WriteString(t.String())

	for _, one := range []result{ours, bare} {
		if len(one.usage.of) == 0 {
			fmt.Fprintf(&b, "\nProcessor time and memory are measured on Linux only, not on %s.\n", runtime.GOOS)
			break
		}
		fmt.Fprintf(&b, "\n**What %s cost, as many as it can** (100 %% is one processor of %d):\n\n", article(one.subject), runtime.NumCPU())
		head, steps := []string{"process"}, []result{}
		if one.subject == "orders" {
			steps = r.rates
			for _, step := range steps {
				head = append(head, fmt.Sprintf("at %d a second", step.offered))
			}
		}
		t = figures.NewTable(append(head, "at the most", "ms each", "peak memory, MiB")...)
		sum := make([]time.Duration, len(steps)+1)
		costs := func(name string, at []time.Duration, peak string) {
			cells := append(make([]string, 0, len(head)), name)
			for j, step := range steps {
				cells = append(cells, share(at[j], step.span))
			}
			most := at[len(steps)]
			perPiece := each(most, one.done)
			if name == everythingElse {
				perPiece = ""
			}
			t.Row(append(cells, share(most, one.span), perPiece, peak)...)
		}
		for i, p := range one.usage.of {
			at := make([]time.Duration, 0, len(sum))
			for _, step := range steps {
				at = append(at, step.usage.of[i].cpu)
			}
			at = append(at, p.cpu)
			if p.name != everythingElse {
				for j := range at {
					sum[j] += at[j]
				}
			}
			costs(p.name, at, mebibytes(p.peak))
		}
		costs("together, without everything else", sum, "")
		b.WriteString(t.String())
	}
	return b.String()
}

// each is the processor time for one piece.
func each(cpu time.Duration, pieces int) string {
	return fmt.Sprintf("%.1f", float64(cpu.Microseconds())/1000/float64(max(pieces, 1)))
}

func mebibytes(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n>>20, 10)
}

func article(subject string) string {
	if subject == "orders" || subject == "analytics" {
		return subject
	}
	return "the " + subject
}

func quantiles(r result) []string {
	return []string{figures.MS(figures.Quantile(r.took, 0.5)), figures.MS(figures.Quantile(r.took, 0.95)), figures.MS(figures.Quantile(r.took, 0.99))}
}

func share(part, whole time.Duration) string {
	if whole <= 0 || part <= 0 {
		return "0 %"
	}
	return fmt.Sprintf("%.0f %%", 100*float64(part)/float64(whole))
}
