// Command bench measures the whole system on this machine: how many orders a second it fulfils, how long one takes, and
// what each process spends on it. In the same run, turn by turn, it measures a bare Dapr workflow of the same shape on the
// same components, which is the most that any saga could reach here.
//
//	go run ./bench [-quick] [-write docs/benchmarks.md]
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"waybill/tests/internal/system"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// plan is how long and how hard a run measures.
type plan struct {
	alone    int           // orders, one after the other
	rates    []int         // orders a second, rising
	step     time.Duration // of one rate
	inFlight int           // orders at once, when measuring the most
	warm     time.Duration // before each measurement of the most
	window   time.Duration // of each measurement of the most
	rounds   int           // how often ours and bare take turns
}

var (
	full = plan{
		alone: 50, rates: []int{5, 10, 20, 30, 40, 50, 60, 80}, step: 12 * time.Second,
		inFlight: 64, warm: 4 * time.Second, window: 15 * time.Second, rounds: 3,
	}
	quick = plan{
		alone: 10, rates: []int{5, 20, 40}, step: 4 * time.Second,
		inFlight: 64, warm: 2 * time.Second, window: 5 * time.Second, rounds: 1,
	}
)

func run(ctx context.Context, args []string, out, progress io.Writer) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	short := flags.Bool("quick", false, "measure for a minute instead of five: good for a look, not for a comparison")
	write := flags.String("write", "", "replace the measured part of this Markdown `file` by what was measured")
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
	if p.rates, err = chosen(*rates, p.rates); err != nil {
		return err
	}
	if *inFlight > 0 {
		p.inFlight = *inFlight
	}
	if *rounds > 0 {
		p.rounds = *rounds
	}

	work, err := os.MkdirTemp("", "waybill-bench-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w\nlogs and state are kept in %s", err, work)
			return
		}
		err = errors.Join(err, os.RemoveAll(work))
	}()
	r, err := measure(ctx, p, work, progress)
	if err != nil {
		if ctx.Err() != nil {
			return errors.New("interrupted; everything was stopped")
		}
		return err
	}
	text := r.markdown()
	if *write != "" {
		return errors.Join(replaceMeasured(*write, text), say(out, text))
	}
	return say(out, text)
}

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
	said := &output{}
	waybill, err := system.Start(ctx, binary, filepath.Join(work, "data"), said)
	if err != nil {
		return nil, fmt.Errorf("%w\nthe runner said:\n%s", err, said)
	}
	defer func() { err = errors.Join(err, waybill.Stop()) }()
	ours, err := newOurs(ctx, waybill)
	if err != nil {
		return nil, err
	}
	defer ours.close()

	note("starting the bare workflow")
	bare, err := newBare(ctx, filepath.Join(work, "bare"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bare.close()) }()

	r = &report{plan: p, machine: thisMachine(ctx), at: time.Now().UTC()}
	for _, s := range []subject{ours, bare} {
		note("%s: %d one after the other", s.name(), p.alone)
		a, err := closed(ctx, s, 1, load{count: p.alone, warmCount: 5})
		if err != nil {
			return nil, err
		}
		r.alone = append(r.alone, a)
	}
	for _, rate := range p.rates {
		note("orders: %d a second for %s", rate, p.step)
		a, err := open(ctx, ours, rate, p.step)
		if err != nil {
			return nil, err
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
				return nil, err
			}
			r.most = append(r.most, a)
		}
	}
	note("orders: as many as it can, all for one product")
	ours.oneProduct = true
	if r.hot, err = closed(ctx, ours, p.inFlight, load{warm: p.warm, window: p.window}); err != nil {
		return nil, err
	}
	note("stopping")
	return r, nil
}

const (
	measuredBegin = "<!-- measured: begin (make bench writes this part) -->\n"
	measuredEnd   = "<!-- measured: end -->\n"
)

// replaceMeasured puts text between the marks of a page whose other parts are written by hand.
func replaceMeasured(path, text string) error {
	page, err := os.ReadFile(path) //nolint:gosec // the page that the caller named
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(page, []byte(measuredBegin))
	_, after, ok2 := bytes.Cut(rest, []byte(measuredEnd))
	if !ok || !ok2 {
		return fmt.Errorf("%s lacks the lines %q and %q", path, strings.TrimSpace(measuredBegin), strings.TrimSpace(measuredEnd))
	}
	return os.WriteFile(path, bytes.Join([][]byte{before, []byte(measuredBegin + "\n" + text + "\n" + measuredEnd), after}, nil), 0o644) //nolint:gosec // a page for everybody
}

// output keeps the end of what the runner prints, to be shown when it did not start.
type output struct {
	mu   sync.Mutex
	tail bytes.Buffer
}

const keptOutput = 16 << 10

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tail.Write(p)
	if over := o.tail.Len() - keptOutput; over > 0 {
		o.tail.Next(over)
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tail.String()
}
