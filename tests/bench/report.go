package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"waybill/tests/internal/system"
)

// report is everything one run measured.
type report struct {
	at      time.Time
	machine []string
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

func (r *report) head(b *strings.Builder) {
	fmt.Fprintf(b, "Measured on %s. %s.\n", r.at.Format("2 January 2006, 15:04 MST"), strings.Join(r.machine, "; "))
}

// disturbed says so when others took much of the machine.
func disturbed(b *strings.Builder, of ...result) {
	taken := 0.0
	for _, one := range of {
		taken = max(taken, one.others())
	}
	if taken > 0.1 {
		fmt.Fprintf(b, "\n**Something else ran on this machine** and took up to %.0f %% of it: these figures compare with each other, not with those of another run.\n", 100*taken)
	}
}

// analytics is what was measured of events.
func (r *report) analytics() string {
	var b strings.Builder
	r.head(&b)
	ours, bare := total(r.events, "analytics"), total(r.events, "bare subscriber")
	fmt.Fprintf(&b, "\n**As many events as it can** (%d clients, %d events a request; handed in for %s, measured %d times in turns):\n\n",
		clients, together, r.plan.eventsWindow, r.plan.eventsRounds)
	t := table{"", "events a second", "events", "last one after the last answer", "each round, a second"}.begin()
	for _, one := range []result{ours, bare} {
		var rounds []string
		for _, round := range r.events {
			if round.subject == one.subject {
				rounds = append(rounds, fmt.Sprintf("%.0f", round.rate()))
			}
		}
		t.row(one.subject, fmt.Sprintf("%.0f", one.rate()), strconv.Itoa(one.done), ms(one.took.quantile(1)), strings.Join(rounds, ", "))
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
		t = table{"process", "at the most", "ms per 1,000 events", "peak memory, MiB"}.begin()
		var sum time.Duration
		for _, p := range one.usage.of {
			if p.name == everythingElse {
				t.row(p.name, share(p.cpu, one.span), "", "")
				continue
			}
			sum += p.cpu
			t.row(p.name, share(p.cpu, one.span), each(1000*p.cpu, one.done), mebibytes(p.peak))
		}
		t.row("together, without everything else", share(sum, one.span), each(1000*sum, one.done), "")
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

// others is the share of the machine that went to processes which are not measured.
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

// orders is what was measured of orders.
func (r *report) orders() string {
	var b strings.Builder
	r.head(&b)

	ours, bare := total(r.most, "orders"), total(r.most, "bare workflow")
	fmt.Fprintf(&b, "\n**As many as it can** (%d in flight; %s, measured %d times in turns):\n\n", r.plan.inFlight, r.plan.window, r.plan.rounds)
	t := table{"", "a second", "a minute", "p50", "p95", "p99", "each round, a second"}.begin()
	for _, one := range []result{ours, bare} {
		var rounds []string
		for _, round := range r.most {
			if round.subject == one.subject {
				rounds = append(rounds, fmt.Sprintf("%.1f", round.rate()))
			}
		}
		t.row(append([]string{one.subject, fmt.Sprintf("%.1f", one.rate()), fmt.Sprintf("%.0f", 60*one.rate())},
			append(quantiles(one), strings.Join(rounds, ", "))...)...)
	}
	t.row("orders, one product", fmt.Sprintf("%.1f", r.hot.rate()), fmt.Sprintf("%.0f", 60*r.hot.rate()), ms(r.hot.took.quantile(0.5)), ms(r.hot.took.quantile(0.95)), ms(r.hot.took.quantile(0.99)), "")
	b.WriteString(t.String())
	if bare.rate() > 0 {
		fmt.Fprintf(&b, "\nOrders reach **%.0f %%** of the bare workflow.\n", 100*ours.rate()/bare.rate())
	}
	disturbed(&b, ours, bare)

	if len(r.rates) > 0 {
		fmt.Fprintf(&b, "\n**Rising rates** (%s each; a time counts from when the order was due):\n\n", r.plan.step)
		t = table{"offered a second", "fulfilled a second", "p50", "p95", "p99", "in flight at the end", "kept up", "processors busy"}.begin()
		for _, one := range r.rates {
			t.row(append(append([]string{strconv.Itoa(one.offered), fmt.Sprintf("%.1f", one.rate())}, quantiles(one)...),
				strconv.Itoa(one.behind), map[bool]string{true: "yes", false: "no"}[one.keptUp()], share(one.usage.busy, one.span*time.Duration(runtime.NumCPU())))...)
		}
		b.WriteString(t.String())
	}

	fmt.Fprintf(&b, "\n**Alone** (%d one after the other):\n\n", r.plan.alone)
	t = table{"", "p50", "p95", "p99"}.begin()
	for _, one := range r.alone {
		t.row(append([]string{one.subject}, quantiles(one)...)...)
	}
	b.WriteString(t.String())

	for _, one := range []result{ours, bare} {
		if len(one.usage.of) == 0 {
			fmt.Fprintf(&b, "\nProcessor time and memory are measured on Linux only, not on %s.\n", runtime.GOOS)
			break
		}
		fmt.Fprintf(&b, "\n**What %s cost, as many as it can** (100 %% is one processor of %d):\n\n", article(one.subject), runtime.NumCPU())
		head, steps := table{"process"}, []result{}
		if one.subject == "orders" {
			steps = r.rates
			for _, step := range steps {
				head = append(head, fmt.Sprintf("at %d a second", step.offered))
			}
		}
		t = append(head, "at the most", "ms each", "peak memory, MiB").begin()
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
			t.row(append(cells, share(most, one.span), perPiece, peak)...)
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

// each is the processor time of one piece.
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
	return []string{ms(r.took.quantile(0.5)), ms(r.took.quantile(0.95)), ms(r.took.quantile(0.99))}
}

func ms(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

func share(part, whole time.Duration) string {
	if whole <= 0 || part <= 0 {
		return "0 %"
	}
	return fmt.Sprintf("%.0f %%", 100*float64(part)/float64(whole))
}

// table is a Markdown table whose columns line up, so that it reads well in a terminal too.
type table []string

type rows struct{ lines [][]string }

func (t table) begin() *rows { return &rows{[][]string{t}} }

func (r *rows) row(cells ...string) { r.lines = append(r.lines, cells) }

func (r *rows) String() string {
	width := make([]int, len(r.lines[0]))
	for _, line := range r.lines {
		for i, cell := range line {
			width[i] = max(width[i], len(cell))
		}
	}
	var b strings.Builder
	write := func(cells []string) {
		for i, cell := range cells {
			if i == 0 {
				fmt.Fprintf(&b, "| %-*s ", width[i], cell)
			} else {
				fmt.Fprintf(&b, "| %*s ", width[i], cell)
			}
		}
		b.WriteString("|\n")
	}
	write(r.lines[0])
	for i, w := range width {
		if i == 0 {
			b.WriteString("| " + strings.Repeat("-", max(w, 1)) + " ")
		} else {
			b.WriteString("| " + strings.Repeat("-", max(w-1, 1)) + ": ")
		}
	}
	b.WriteString("|\n")
	for _, line := range r.lines[1:] {
		write(line)
	}
	return b.String()
}

// thisMachine says what was measured on and of what.
func thisMachine(ctx context.Context) []string {
	found := []string{fmt.Sprintf("%d processors%s", runtime.NumCPU(), of("/proc/cpuinfo", "model name"))}
	if memory := of("/proc/meminfo", "MemTotal"); memory != "" {
		if kB, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(memory, " of "), " kB")); err == nil {
			found = append(found, fmt.Sprintf("%.0f GiB of memory", float64(kB)/(1<<20)))
		}
	}
	kernel := answer(ctx, "uname", "-sr")
	found = append(found, strings.TrimSpace(runtime.GOOS+"/"+runtime.GOARCH+" "+kernel), runtime.Version())
	if top, err := system.Root(); err == nil {
		if version := answer(ctx, filepath.Join(top, ".waybill", "bin", "daprd"), "--version"); version != "" {
			found = append(found, "Dapr "+version)
		}
		if commit := answer(ctx, "git", "-C", top, "describe", "--always", "--dirty", "--tags"); commit != "" {
			found = append(found, "revision "+commit)
		}
	}
	return found
}

// of reads " of <value>" from a file of "key: value" lines, "" when it is not there.
func of(file, key string) string {
	text, err := os.ReadFile(file) //nolint:gosec // a file of the kernel
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return " of " + strings.TrimSpace(value)
		}
	}
	return ""
}

func answer(ctx context.Context, name string, args ...string) string {
	text, err := exec.CommandContext(ctx, name, args...).Output() //nolint:gosec // programs of this function's own choice
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
