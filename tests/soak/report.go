package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"waybill/tests/internal/client"
	"waybill/tests/internal/figures"
	"waybill/tests/internal/process"
	"waybill/tests/internal/stored"
	"waybill/tests/internal/system"
)

// report collects the results of a run.
type report struct {
	plan plan

	mu      sync.Mutex
	ends    []ended
	faults  []error // orders that were lost or ended in another way
	samples map[string][]sample

	placed, held int // orders that were placed, and those of them that were due and had to wait for a place
	restarts     map[string]int
	order        []string // processes as the runner started them
	cpu          [2]map[string]time.Duration
	disk         [2]map[string]int64
	records      [2]map[string]stored.Records
	looks        []look // what was stored, several times a window
	drained      time.Duration
	heap         [2]map[string]int64
	retries      int
}

type ended struct {
	at, took time.Duration
	kind     string
}

// maxFaults is the number of lost orders after which a run stops.
const maxFaults = 20

// watch loads the system and measures it until every order has ended.
func watch(ctx context.Context, p plan, s *system.System, shop *shop, out io.Writer) (*report, error) {
	r := &report{plan: p, samples: map[string][]sample{}, restarts: map[string]int{}}
	begun := time.Now()
	if err := r.first(ctx, s); err != nil {
		return nil, err
	}
	loading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var flight atomic.Int64
	var tasks sync.WaitGroup
	tasks.Go(func() { r.sample(loading, s, begun) })
	tasks.Go(func() { r.watchStores(loading, s, begun) })
	if p.killEvery > 0 {
		tasks.Go(func() { r.kill(loading, s) })
	}
	var load sync.WaitGroup
	load.Go(func() { r.load(loading, shop, begun, &flight, stop) })
	defer tasks.Wait()
	defer stop(nil)

	for n := 1; time.Duration(n)*p.interval <= p.length; n++ {
		if !client.Wait(loading, time.Until(begun.Add(time.Duration(n)*p.interval))) {
			break
		}
		if err := r.show(ctx, s, time.Duration(n)*p.interval, int(flight.Load()), out); err != nil {
			return nil, err
		}
	}
	load.Wait()
	if err := context.Cause(loading); err != nil {
		return nil, errors.Join(append([]error{err}, r.faults...)...)
	}
	if err := r.settled(ctx, s); err != nil {
		r.faults = append(r.faults, err)
	}
	if err := r.drain(ctx, s); err != nil {
		return nil, err
	}
	return r, r.last(ctx, s)
}

// load places orders at the plan's rate. When no place in flight is free, the next order waits: the load is bounded and does not
// pile up.
func (r *report) load(ctx context.Context, shop *shop, begun time.Time, flight *atomic.Int64, stop context.CancelCauseFunc) {
	places := make(chan struct{}, r.plan.inFlight)
	kinds := mix()
	var orders sync.WaitGroup
	defer orders.Wait()
	for due := begun; due.Sub(begun) < r.plan.length; due = due.Add(time.Duration(float64(time.Second) / r.plan.rate)) {
		if wait := time.Until(due); wait > 0 && !client.Wait(ctx, wait) || ctx.Err() != nil {
			return
		}
		held := false
		select {
		case places <- struct{}{}:
		default:
			held = true
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
		if late := time.Since(due); held || late > time.Second {
			due = due.Add(late) // it was due then; those behind it are not placed in a rush
		}
		n := r.placed
		r.mu.Lock()
		r.placed++
		if held {
			r.held++
		}
		r.mu.Unlock()
		orders.Go(func() {
			defer func() { <-places }()
			flight.Add(1)
			defer flight.Add(-1)
			k, from := kinds[n%len(kinds)], time.Now()
			err := shop.sell(ctx, n, k)
			r.mu.Lock()
			defer r.mu.Unlock()
			if err == nil {
				r.ends = append(r.ends, ended{at: time.Since(begun), took: time.Since(from), kind: k.name})
				return
			}
			if r.faults = append(r.faults, err); len(r.faults) == maxFaults {
				stop(fmt.Errorf("%d orders were lost or ended in another way than they must", maxFaults))
			}
		})
	}
}

// sample reads the memory of every process once a second.
func (r *report) sample(ctx context.Context, s *system.System, begun time.Time) {
	for client.Wait(ctx, time.Second) {
		status, err := s.Status()
		if err != nil {
			continue // it is just being written
		}
		at := time.Since(begun)
		for _, p := range status.Processes {
			rss, err := process.RSS(p.PID)
			if err != nil {
				continue // it ended just now
			}
			r.mu.Lock()
			r.samples[p.Name] = append(r.samples[p.Name], sample{at, rss})
			r.restarts[p.Name] = p.Restarts
			r.mu.Unlock()
		}
	}
}

// watchStores counts the stored records ten times a window.
func (r *report) watchStores(ctx context.Context, s *system.System, begun time.Time) {
	for client.Wait(ctx, r.plan.window/10) {
		at := time.Since(begun)
		found, err := stored.Count(ctx, s)
		if err != nil {
			continue // a process was just restarted; where none of the looks succeeds, that is a fault
		}
		space, err := disk(s.Data)
		if err != nil {
			continue
		}
		r.mu.Lock()
		r.looks = append(r.looks, look{at, found, space})
		r.mu.Unlock()
	}
}

// killed is the process that a run kills repeatedly if asked to: fulfillment's sidecar, which runs the workflows.
const killed = "fulfillment-sidecar"

func (r *report) kill(ctx context.Context, s *system.System) {
	for client.Wait(ctx, r.plan.killEvery) {
		if err := s.Kill(ctx, killed); err != nil && ctx.Err() == nil {
			r.mu.Lock()
			r.faults = append(r.faults, err)
			r.mu.Unlock()
		}
	}
}

// drain waits until only records without a retention are left of the orders, and then checks that the scheduler has nothing to
// do: reminders of removed workflows must not be triggered.
func (r *report) drain(ctx context.Context, s *system.System) error {
	for begun := time.Now(); ; {
		found, err := stored.Count(ctx, s)
		if err != nil {
			return err
		}
		r.drained = time.Since(begun)
		if !lasts(found) || r.drained > r.plan.gone() {
			r.faults = append(r.faults, left(r.records[0], found, int64(len(r.ends)))...)
			break
		}
		if !client.Wait(ctx, time.Second) {
			return ctx.Err()
		}
	}
	before, err := stored.Triggered(ctx, s)
	if err != nil {
		return err
	}
	if !client.Wait(ctx, 5*time.Second) {
		return ctx.Err()
	}
	after, err := stored.Triggered(ctx, s)
	if err == nil && after > before {
		r.faults = append(r.faults, fmt.Errorf("the scheduler triggered %d jobs in 5 s although no workflow is left", after-before))
	}
	return err
}

// settled waits until fulfillment has no open saga.
func (r *report) settled(ctx context.Context, s *system.System) error {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	for {
		code, _, answer, err := client.Call(ctx, "GET", s.App("fulfillment").URL+"/v1/fulfillments?limit=1", nil)
		if err == nil && code == 200 && strings.Contains(strings.ReplaceAll(string(answer), " ", ""), `"items":[]`) {
			return nil
		}
		if !client.Wait(ctx, 200*time.Millisecond) {
			return fmt.Errorf("a saga has not ended: %d %.500s %w", code, answer, errors.Join(err, ctx.Err()))
		}
	}
}

func (r *report) first(ctx context.Context, s *system.System) error { return r.look(ctx, s, 0) }

func (r *report) last(ctx context.Context, s *system.System) (err error) {
	if err := r.look(ctx, s, 1); err != nil {
		return err
	}
	r.retries, err = retriesAtEndedActors(s.Data)
	return err
}

// look records processor time, disk, rows and heaps as the first or latest values of the run.
func (r *report) look(ctx context.Context, s *system.System, at int) (err error) {
	status, err := s.Status()
	if err != nil {
		return err
	}
	r.cpu[at], r.order = map[string]time.Duration{}, nil
	for _, p := range status.Processes {
		r.order = append(r.order, p.Name)
		if r.cpu[at][p.Name], err = process.CPU(p.PID); err != nil {
			return fmt.Errorf("look at %s: %w", p.Name, err)
		}
	}
	if r.disk[at], err = disk(s.Data); err != nil {
		return err
	}
	if r.records[at], err = stored.Count(ctx, s); err != nil {
		return err
	}
	r.heap[at] = liveHeaps(ctx, s, status.Processes)
	return nil
}

// show prints the interval that ends at to.
func (r *report) show(ctx context.Context, s *system.System, to time.Duration, flight int, out io.Writer) error {
	cpuBefore, diskBefore, before := r.cpu[1], r.disk[1], r.records[1]
	if cpuBefore == nil {
		cpuBefore, diskBefore, before = r.cpu[0], r.disk[0], r.records[0]
	}
	if err := r.look(ctx, s, 1); err != nil {
		return err
	}
	from := to - r.plan.interval
	r.mu.Lock()
	defer r.mu.Unlock()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	took := r.took(from, to)
	_, _ = fmt.Fprintf(out, "\n== %s: %d orders ended (%s), %d in flight, %d held back so far, %d faults; fulfilled took p50 %s, p95 %s\n",
		to.Round(time.Second), r.count(from, to), r.kinds(from, to), flight, r.held, len(r.faults), figures.MS(figures.Quantile(took, 0.5)), figures.MS(figures.Quantile(took, 0.95)))
	_, _ = fmt.Fprintln(w, "process\tRSS now, MB\tRSS least, MB\tGo heap, MB\tprocessor, s\trestarts\t")
	for _, name := range r.order {
		all := r.samples[name]
		now := int64(0)
		if len(all) > 0 {
			now = all[len(all)-1].rss
		}
		heap := "-"
		if h, ok := r.heap[1][name]; ok {
			heap = mb(h)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.1f\t%d\t\n", name, mb(now), mb(leanest(all, from, to)), heap,
			(r.cpu[1][name] - cpuBefore[name]).Seconds(), r.restarts[name])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "disk, MB (grown by): %s\nrows (grown by): %s\n", changes(diskBefore, r.disk[1], mb), changes(rows(before), rows(r.records[1]), whole))
	return err
}

func rows(all map[string]stored.Records) map[string]int64 {
	rows := make(map[string]int64, len(all))
	for kind, r := range all {
		rows[kind] = r.Rows
	}
	return rows
}

func whole(n int64) string { return fmt.Sprint(n) }

func changes(before, now map[string]int64, show func(int64) string) string {
	all := make([]string, 0, len(now))
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if now[name] != before[name] {
			all = append(all, fmt.Sprintf("%s %s (%s)", name, show(now[name]), show(now[name]-before[name])))
		}
	}
	return strings.Join(all, ", ")
}

// took is the duration of the plain orders that ended in a span of time.
func (r *report) took(from, to time.Duration) (all []time.Duration) {
	for _, e := range r.ends {
		if e.kind == plain && e.at >= from && e.at < to {
			all = append(all, e.took)
		}
	}
	return all
}

func (r *report) count(from, to time.Duration) (n int) {
	for _, e := range r.ends {
		if e.at >= from && e.at < to {
			n++
		}
	}
	return n
}

func (r *report) kinds(from, to time.Duration) string {
	counts := map[string]int64{}
	for _, e := range r.ends {
		if e.at >= from && e.at < to {
			counts[e.kind]++
		}
	}
	all := make([]string, 0, len(counts))
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, fmt.Sprintf("%d %s", counts[name], name))
	}
	return strings.Join(all, ", ")
}

func (r *report) memoryOf(name string) memory {
	return compare(r.samples[name], r.plan.length, r.plan.window)
}

// summary prints the whole run.
func (r *report) summary(out io.Writer) error {
	p, orders := r.plan, int64(max(1, len(r.ends)))
	_, _ = fmt.Fprintf(out, "\n== summary: %d orders placed, %d ended as they must (%s), %d faults; %.1f orders a second of %v\n",
		r.placed, len(r.ends), r.kinds(0, 1<<62), len(r.faults), float64(r.placed)/p.length.Seconds(), p.rate)
	if !r.keptUp() {
		_, _ = fmt.Fprintf(out, "THIS MACHINE DID NOT KEEP UP: %d orders were held back by the bound of %d in flight; the figures are of %.1f orders a second. Try a lower -rate.\n",
			r.held, p.inFlight, float64(r.placed)/p.length.Seconds())
	}
	_, _ = fmt.Fprintf(out, "fulfilled orders took p50 %s, p95 %s in the first %s and p50 %s, p95 %s in the last; %d retries of calls to workflows that had ended\n\n",
		figures.MS(figures.Quantile(r.took(0, p.window), 0.5)), figures.MS(r.firstP95()), p.window,
		figures.MS(figures.Quantile(r.took(p.length-p.window, p.length), 0.5)), figures.MS(r.lastP95()), r.retries)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintf(w, "process\tleast RSS, MB: first %s\tlast but one\tlast\tallowed\tgrown, B/order\tGo heap, MB: begin\tend\tprocessor, ms/order\t\n", p.window)
	for _, name := range r.order {
		m, heapFirst, heapLast := r.memoryOf(name), "-", "-"
		if h, ok := r.heap[0][name]; ok {
			heapFirst = mb(h)
		}
		if h, ok := r.heap[1][name]; ok {
			heapLast = mb(h)
		}
		verdict := ""
		if m.grows() && p.judgesMemory() {
			verdict = "GROWS"
		}
		inWindow := int64(max(1, r.count(p.length-p.window, p.length)))
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%.1f\t%s\n", name, mb(m.first), mb(m.before), mb(m.last), mb(m.allowed),
			(m.last-m.before)/inWindow, heapFirst, heapLast,
			float64((r.cpu[1][name]-r.cpu[0][name]).Microseconds())/1000/float64(orders), verdict)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, _ = fmt.Fprint(w, "\ndisk\tMB: begin\tend\tbytes per order\t\n")
	for _, name := range slices.Sorted(maps.Keys(r.disk[1])) {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%d\t\n", name, mb(r.disk[0][name]), mb(r.disk[1][name]), (r.disk[1][name]-r.disk[0][name])/orders)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	r.storedSummary(w)
	if err := w.Flush(); err != nil || p.judgesMemory() {
		return err
	}
	_, err := fmt.Fprintf(out, "\nMemory is not judged: windows of %s are too short. In the first minutes every process grows to its working size.\n", p.window)
	return err
}

// storedSummary prints the stored records: the maximum in each of the last two windows, and what is left when every retention is
// over.
func (r *report) storedSummary(w io.Writer) {
	p, orders := r.plan, float64(max(1, len(r.ends)))
	_, _ = fmt.Fprintf(w, "\nstored\trows: begin\tmost in the last window but one\tmost in the last\t%s after the last order\trows left per order\tbytes left per order\t\n", r.drained.Round(time.Second))
	before, last := between(r.looks, p.length-2*p.window, p.length-p.window), between(r.looks, p.length-p.window, p.length)
	all := maps.Clone(r.records[1])
	for _, l := range last {
		maps.Copy(all, l.records)
	}
	for _, kind := range slices.Sorted(maps.Keys(all)) {
		of := func(l look) int64 { return l.records[kind].Rows }
		begin, end := r.records[0][kind], r.records[1][kind]
		_, _ = fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%.2f\t%.0f\t\n", kind, begin.Rows, most(before, of), most(last, of), end.Rows,
			float64(end.Rows-begin.Rows)/orders, float64(end.Bytes-begin.Bytes)/orders)
	}
}

// keptUp reports whether the machine did nearly all of the requested work.
func (r *report) keptUp() bool {
	return float64(r.placed) >= 0.95*r.plan.rate*r.plan.length.Seconds()
}

func (r *report) firstP95() time.Duration { return figures.Quantile(r.took(0, r.plan.window), 0.95) }

func (r *report) lastP95() time.Duration {
	return figures.Quantile(r.took(r.plan.length-r.plan.window, r.plan.length), 0.95)
}

// verdict returns an error for each thing that a run must not show.
func (r *report) verdict() error {
	errs := slices.Clone(r.faults)
	if len(r.ends)+len(r.faults) < r.placed {
		errs = append(errs, fmt.Errorf("%d orders were placed and only %d ended", r.placed, len(r.ends)))
	}
	for _, name := range r.order {
		if n := r.restarts[name]; n > 0 && (r.plan.killEvery == 0 || name != killed) {
			errs = append(errs, fmt.Errorf("%s was restarted %d times", name, n))
		}
		if m := r.memoryOf(name); r.plan.judgesMemory() && m.grows() {
			errs = append(errs, fmt.Errorf("%s grows: %s MB in the last %s, %s MB in the %s before, allowed are %s MB",
				name, mb(m.last), r.plan.window, mb(m.before), r.plan.window, mb(m.allowed)))
		}
	}
	if r.plan.judgesStores() {
		errs = append(errs, plateau(r.looks, r.plan.length, r.plan.window)...)
	}
	if r.plan.killEvery > 0 {
		return errors.Join(errs...) // orders wait while the sidecar is away
	}
	// A signal that arrives together with the result of an activity causes one; other events do not.
	if r.retries > r.placed/100 {
		errs = append(errs, fmt.Errorf("the sidecars retried %d calls to workflows that had been put away, in %d orders (docs/adr/0027)", r.retries, r.placed))
	}
	if first, last := r.firstP95(), r.lastP95(); tooSlow(first, last) {
		errs = append(errs, fmt.Errorf("orders slow down: p95 was %s in the first %s and %s in the last", figures.MS(first), r.plan.window, figures.MS(last)))
	}
	return errors.Join(errs...)
}
