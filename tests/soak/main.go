// Command soak runs the whole system on this machine for twelve minutes under a steady load and reports, minute by minute, what every
// process holds: memory, processor time, disk, rows, and how long an order takes. Retentions are short, so that within a run every
// kind of record comes to its end. It fails when memory, or what is stored for a while, still grows at the end, when something is
// left that should have gone, when an order is lost, or when orders take much longer at the end than at the beginning.
//
//	go run ./soak [-quick] [-minutes 12] [-rate 9] [-in-flight 90] [-kill-every 20s]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"waybill/tests/internal/program"
	"waybill/tests/internal/system"
)

func main() { program.Main("soak", run) }

// plan is the duration and the load of a run.
type plan struct {
	rate     float64       // orders a second
	inFlight int           // orders at once, at most
	length   time.Duration // in which orders are placed
	window   time.Duration // whose memory and latency are compared
	interval time.Duration // of a report
	// killEvery is how often fulfillment's sidecar is killed, 0 for never.
	killEvery time.Duration
	retentions
}

// windows is how many windows a run needs before its memory is judged: in the first ones caches, pools and heaps fill.
const windows = 4

func planFor(length time.Duration, rate float64, inFlight int) plan {
	p := plan{rate: rate, inFlight: inFlight, length: length, window: 5 * time.Minute, interval: time.Minute}
	if length < windows*p.window {
		p.window = length / windows
		p.interval = min(p.interval, p.window)
	}
	p.retentions = retentionsFor(p.window)
	return p
}

// judgesStores reports whether the run is long enough to judge stored records: a window is then longer than the retention.
func (p plan) judgesStores() bool { return p.window >= time.Minute }

// judgesMemory reports whether the run is long enough to judge memory. In the first minutes every process grows to its working
// size.
func (p plan) judgesMemory() bool { return p.window >= 3*time.Minute && p.killEvery == 0 }

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	quick := flags.Bool("quick", false, "run for a minute: judges what is left of orders, and neither memory nor growth")
	minutes := flags.Float64("minutes", 12, "how long orders are placed; memory is judged from 12 minutes on")
	rate := flags.Float64("rate", 9, "orders a second")
	inFlight := flags.Int("in-flight", 0, "orders in flight at most; an order that is due waits for a place (default ten seconds' orders)")
	killEvery := flags.Duration("kill-every", 0, "kill fulfillment's sidecar again and again after this `time`; memory and latency are not judged then")
	keep := flags.Bool("keep", false, "keep the logs and the data")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	if *quick {
		*minutes = 1
	}
	if *rate <= 0 || *rate > 1000 || *minutes < 0.5 || *inFlight < 0 {
		return fmt.Errorf("-rate must be above 0 and at most 1000, -minutes at least 0.5, -in-flight not negative, got %v, %v, %d", *rate, *minutes, *inFlight)
	}
	if *inFlight == 0 {
		*inFlight = max(10, int(10**rate))
	}
	p := planFor(time.Duration(*minutes*float64(time.Minute)), *rate, *inFlight)
	p.killEvery = *killEvery

	return program.InFolder(ctx, "soak", *keep, progress, func(work string) error {
		r, err := soak(ctx, p, work, out, progress)
		if err != nil {
			return err
		}
		if err := r.summary(out); err != nil {
			return err
		}
		return r.verdict()
	})
}

// soak starts the system, loads it, and leaves nothing running.
func soak(ctx context.Context, p plan, work string, out, progress io.Writer) (r *report, err error) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(progress, format+"\n", args...) }
	say("starting the system")
	runner, err := system.Build(ctx, work)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(work, "runner.log")) //nolint:gosec // in the folder of this run
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	s, err := system.Start(ctx, runner, filepath.Join(work, "data"), log, append(p.environment(), "DEBUG_PORT=0")...)
	if err != nil {
		return nil, fmt.Errorf("%w\nrunner.log in %s says more", err, work)
	}
	defer func() { err = errors.Join(err, s.Stop()) }()

	shop, err := newShop(ctx, s)
	if err != nil {
		return nil, err
	}
	defer shop.close()
	say("%v orders a second for %s, at most %d in flight; what has ended is kept for %s", p.rate, p.length, p.inFlight, p.ended)
	return watch(ctx, p, s, shop, out)
}
