// Command overload offers the whole system ten times the orders that it can fulfil, in five shapes, and judges how it bends and
// comes back: the goodput during the burst, what becomes of accepted orders, how long a new order takes afterwards, the memory of
// each process, and the books.
//
//	go run ./overload [-quick] [-only shape] [-seconds 60] [-times 10] [-write docs/benchmarks.md]
//
// With -orders it measures no capacity and judges no goodput: it offers a number of orders at a rate and shows every ten seconds
// what became of them.
//
//	go run ./overload -only "one product" -orders 4000 -rate 200 -watch 150s
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"waybill/tests/internal/figures"
	"waybill/tests/internal/program"
	"waybill/tests/internal/system"
)

func main() { program.Main("overload", run) }

// plan is the duration and the load of a run.
type plan struct {
	shapes  []shape
	times   float64       // the offered rate as a multiple of the capacity
	burst   time.Duration // in which orders are offered
	measure time.Duration // in which the capacity is measured
	least   float64       // the share of the capacity under which goodput must not fall

	// A fixed burst is shown and not compared with a capacity.
	orders int
	rate   float64
	watch  time.Duration
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("overload", flag.ContinueOnError)
	quick := flags.Bool("quick", false, "bursts of 15 seconds in which half of the capacity is enough, and of the shapes only: "+names(quickShapes()))
	only := flags.String("only", "", "one `shape` only: "+names(allShapes()))
	seconds := flags.Float64("seconds", 60, "how long a burst lasts")
	times := flags.Float64("times", 10, "the offered rate as a multiple of the capacity")
	orders := flags.Int("orders", 0, "offer this many orders and watch what becomes of them; needs -only")
	rate := flags.Float64("rate", 200, "orders a second, with -orders")
	watch := flags.Duration("watch", 150*time.Second, "how long to watch from the first order on, with -orders")
	keep := flags.Bool("keep", false, "keep the logs and the data")
	write := flags.String("write", "", "replace the measured part of this Markdown `file` by what was measured")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	if *seconds < 11 || *times < 1 || *times > 100 || *orders < 0 || *rate <= 0 || *rate > 10_000 || *watch <= 0 {
		return fmt.Errorf("-seconds must be at least 11, -times 1 to 100, -orders not negative, -rate above 0 and at most 10000, -watch above 0; got %v, %v, %d, %v, %v",
			*seconds, *times, *orders, *rate, *watch)
	}
	p := plan{
		shapes: allShapes(), times: *times, burst: time.Duration(*seconds * float64(time.Second)), measure: 15 * time.Second, least: least,
		orders: *orders, rate: *rate, watch: *watch,
	}
	if *quick {
		p.shapes, p.burst, p.measure, p.least = quickShapes(), 15*time.Second, 8*time.Second, leastQuick
	}
	if *only != "" {
		p.shapes = slices.DeleteFunc(allShapes(), func(s shape) bool { return s.name != *only })
		if len(p.shapes) == 0 {
			return fmt.Errorf("-only %q: the shapes are %s", *only, names(allShapes()))
		}
	}
	if p.orders > 0 && len(p.shapes) != 1 {
		return errors.New("-orders needs one shape: add -only")
	}
	return program.InFolder(ctx, "overload", *keep, progress, func(work string) error {
		runner, err := system.Build(ctx, work)
		if err != nil {
			return err
		}
		var all []result
		var errs []error
		for n, s := range p.shapes {
			_, _ = fmt.Fprintf(progress, "%s: starting the system\n", s.name)
			r, err := p.on(ctx, s, runner, filepath.Join(work, fmt.Sprint(n)), out, progress)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
				break
			}
			if p.orders > 0 {
				return nil
			}
			all = append(all, r)
			for _, fault := range judge(r) {
				errs = append(errs, fmt.Errorf("%s: %s", s.name, fault))
			}
		}
		text := figures.Machine(ctx, time.Now()) + "\n" + show(all)
		if _, err := io.WriteString(out, "\n"+text); err != nil {
			return err
		}
		if *write != "" && ctx.Err() == nil {
			errs = append(errs, figures.Replace(*write, "overload", "test-overload", text))
		}
		return errors.Join(errs...)
	})
}

func names(shapes []shape) string {
	all := make([]string, 0, len(shapes))
	for _, s := range shapes {
		all = append(all, fmt.Sprintf("%q", s.name))
	}
	return strings.Join(all, ", ")
}

// on runs one shape on a system of its own and leaves nothing running.
func (p plan) on(ctx context.Context, s shape, runner, work string, out, progress io.Writer) (r result, err error) {
	if err := os.MkdirAll(work, 0o750); err != nil {
		return r, err
	}
	log, err := os.Create(filepath.Join(work, "runner.log")) //nolint:gosec // in the folder of this run
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	running, err := system.Start(ctx, runner, filepath.Join(work, "data"), log, "DEBUG_PORT=0")
	if err != nil {
		return r, fmt.Errorf("%w\nrunner.log in %s says more", err, work)
	}
	defer func() { err = errors.Join(err, running.Stop()) }()
	shop, err := newShop(ctx, s, running)
	if err != nil {
		return r, err
	}
	defer shop.close()
	say := func(format string, args ...any) {
		_, _ = fmt.Fprintf(progress, s.name+": "+format+"\n", args...)
	}
	if p.orders > 0 {
		return r, shop.watch(ctx, p, out)
	}
	return shop.measure(ctx, p, say)
}
