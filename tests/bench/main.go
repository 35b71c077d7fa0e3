// Command bench measures the whole system on this machine: how many orders a second it fulfils, how long one takes, and
// what each process spends on it. In the same run, turn by turn, it measures a bare Dapr workflow of the same shape on the
// same components, which is the most that any saga could reach here.
//
// Then it measures how many analytics events a second are stored, beside a bare Dapr subscription that only acknowledges them.
//
//	go run ./bench [-quick] [-only orders|analytics] [-write docs/benchmarks.md]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"waybill/tests/internal/figures"
	"waybill/tests/internal/program"
	"waybill/tests/internal/system"
)

func main() { program.Main("bench", run) }

// plan is the duration and the load of a run.
type plan struct {
	alone    int           // orders, one after the other
	rates    []int         // orders a second, rising
	step     time.Duration // of one rate
	inFlight int           // orders at once, when measuring the most
	warm     time.Duration // before each measurement of the most
	window   time.Duration // of each measurement of the most
	rounds   int           // how often ours and bare take turns
	only     string        // the one part to measure, empty for both

	eventsWarm   time.Duration // of events, before each measurement of them
	eventsWindow time.Duration // in which events are handed in
	eventsRounds int           // how often analytics and the bare subscriber take turns
}

var (
	full = plan{
		alone: 50, rates: []int{5, 10, 20, 30, 40, 50, 60, 80}, step: 12 * time.Second,
		inFlight: 64, warm: 4 * time.Second, window: 15 * time.Second, rounds: 3,
		eventsWarm: 2 * time.Second, eventsWindow: 10 * time.Second, eventsRounds: 3,
	}
	quick = plan{
		alone: 10, rates: []int{5, 20, 40}, step: 4 * time.Second,
		inFlight: 64, warm: 2 * time.Second, window: 5 * time.Second, rounds: 1,
		eventsWarm: time.Second, eventsWindow: 4 * time.Second, eventsRounds: 1,
	}
)

func run(ctx context.Context, args []string, out, progress io.Writer) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	short := flags.Bool("quick", false, "measure for a minute and a half instead of seven: good for a look, not for a comparison")
	write := flags.String("write", "", "replace the measured parts of this Markdown `file` by what was measured")
	only := flags.String("only", "", "measure one `part` only: "+partOrders+" or "+partAnalytics)
	rates := flags.String("rates", "", "orders a second, rising, separated by commas (\"none\" for no rates)")
	inFlight := flags.Int("in-flight", 0, "orders at once when measuring the most")
	rounds := flags.Int("rounds", 0, "how often ours and bare take turns when measuring the most")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	p := full
	if *short {
		p = quick
	}
	if p.only = *only; p.only != "" && p.only != partOrders && p.only != partAnalytics {
		return fmt.Errorf("-only %s: there are the parts %s and %s", p.only, partOrders, partAnalytics)
	}
	if p.rates, err = chosen(*rates, p.rates); err != nil {
		return err
	}
	if *inFlight > 0 {
		p.inFlight = *inFlight
	}
	if *rounds > 0 {
		p.rounds, p.eventsRounds = *rounds, *rounds
	}

	return program.InFolder(ctx, "bench", false, progress, func(work string) error {
		r, err := measure(ctx, p, work, progress)
		if err != nil {
			return err
		}
		var errs []error
		for _, part := range r.parts() {
			if *write != "" {
				errs = append(errs, figures.Replace(*write, part.name, "bench", part.text))
			}
			errs = append(errs, say(out, part.text))
		}
		return errors.Join(errs...)
	})
}

// The parts of a run and of the page.
const (
	partOrders    = "orders"
	partAnalytics = "analytics"
)

func say(out io.Writer, text string) error {
	_, err := io.WriteString(out, text)
	return err
}

func chosen(list string, usual []int) ([]int, error) {
	switch list {
	case "":
		return usual, nil
	case "none":
		return nil, nil
	}
	var rates []int
	for word := range strings.SplitSeq(list, ",") {
		rate, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || rate < 1 {
			return nil, fmt.Errorf("%q is no rate: orders a second, as in -rates 10,20,40", word)
		}
		rates = append(rates, rate)
	}
	return rates, nil
}

// measure starts both systems, measures them in turns, and leaves nothing running.
func measure(ctx context.Context, p plan, work string, progress io.Writer) (r *report, err error) {
	note := func(format string, args ...any) { _ = say(progress, fmt.Sprintf(format+"\n", args...)) }

	note("starting the system")
	binary, err := system.Build(ctx, work)
	if err != nil {
		return nil, err
	}
	said := &program.Tail{}
	// Without a limit of open orders: the run measures what the system can do, not what it accepts.
	waybill, err := system.Start(ctx, binary, filepath.Join(work, "data"), said, "ADMISSION_OPEN=0")
	if err != nil {
		return nil, fmt.Errorf("%w\nthe runner said:\n%s", err, said)
	}
	defer func() { err = errors.Join(err, waybill.Stop()) }()

	r = &report{plan: p, machine: figures.Machine(ctx, time.Now())}
	if p.only != partAnalytics {
		if err := r.measureOrders(ctx, waybill, filepath.Join(work, "bare"), note); err != nil {
			return nil, err
		}
	}
	if p.only != partOrders {
		if err := r.measureEvents(ctx, waybill, filepath.Join(work, "bare-events"), note); err != nil {
			return nil, err
		}
	}
	note("stopping")
	return r, nil
}

// measureEvents runs after the orders, because what it stores keeps analytics busy for a while.
func (r *report) measureEvents(ctx context.Context, waybill *system.System, folder string, note func(string, ...any)) (err error) {
	ours, err := newCounting(waybill)
	if err != nil {
		return err
	}
	note("starting the bare subscriber")
	bare, err := newBareFeed(ctx, waybill, folder)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.close()) }()
	for round := range r.plan.eventsRounds {
		for _, f := range []feed{ours, bare} {
			note("%s: as many events as it can, round %d of %d", f.name(), round+1, r.plan.eventsRounds)
			if _, err := flow(ctx, f, r.plan.eventsWarm); err != nil {
				return err
			}
			a, err := flow(ctx, f, r.plan.eventsWindow)
			if err != nil {
				return err
			}
			r.events = append(r.events, a)
		}
	}
	return nil
}

func (r *report) measureOrders(ctx context.Context, waybill *system.System, folder string, note func(string, ...any)) (err error) {
	p := r.plan
	ours, err := newOurs(ctx, waybill)
	if err != nil {
		return err
	}
	defer ours.close()

	note("starting the bare workflow")
	bare, err := newBare(ctx, folder)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.close()) }()

	for _, s := range []subject{ours, bare} {
		note("%s: %d one after the other", s.name(), p.alone)
		a, err := closed(ctx, s, 1, load{count: p.alone, warmCount: 5})
		if err != nil {
			return err
		}
		r.alone = append(r.alone, a)
	}
	for _, rate := range p.rates {
		note("orders: %d a second for %s", rate, p.step)
		a, err := open(ctx, ours, rate, p.step)
		if err != nil {
			return err
		}
		r.rates = append(r.rates, a)
		if !a.keptUp() {
			break
		}
	}
	for round := range p.rounds {
		for _, s := range []subject{ours, bare} {
			note("%s: as many as it can, round %d of %d", s.name(), round+1, p.rounds)
			a, err := closed(ctx, s, p.inFlight, load{warm: p.warm, window: p.window})
			if err != nil {
				return err
			}
			r.most = append(r.most, a)
		}
	}
	note("orders: as many as it can, all for one product")
	ours.oneProduct = true
	r.hot, err = closed(ctx, ours, p.inFlight, load{warm: p.warm, window: p.window})
	return err
}
