package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"waybill/contracts"
	"waybill/tests/internal/client"
)

const (
	// warmUp is how many orders are fulfilled before anything is measured.
	warmUp = 5
	// probes is the number of new orders whose time is compared, one every probeEvery.
	probes     = 10
	probeEvery = 500 * time.Millisecond
	// orderTimeout is how long a new order may take before it counts as lost.
	orderTimeout = time.Minute
	// recoverWithin is how long after the burst a new order may take longer than before it; watched is how long new orders are
	// placed.
	recoverWithin = 30 * time.Second
	watched       = 60 * time.Second
	// window is the time over which goodput is an average.
	window = 10 * time.Second
	// backlog is the number of orders offered on the bus, where no order is refused, as a multiple of what the system can fulfil
	// during the burst.
	backlog = 1.5
)

// measure runs one shape, from the first order to the comparison of the ledgers.
func (h *shop) measure(ctx context.Context, p plan, say func(string, ...any)) (result, error) {
	r := result{shape: h.shape, burst: p.burst, least: p.least}
	say("warming up, and %d orders on the idle system", probes)
	if err := h.warm(ctx); err != nil {
		return r, err
	}
	for _, t := range h.probe(ctx, func(all []*trial) bool { return len(all) >= probes }) {
		if t.err != nil {
			return r, t.err
		}
		r.before = append(r.before, t.took)
	}

	say("capacity: %d orders in flight for %s", h.shape.inFlight, p.measure)
	over, kept := make(chan struct{}), make(chan error, 1)
	var keeping sync.WaitGroup
	keeping.Go(func() { kept <- h.keep(ctx, h.shape.inFlight, over) })
	defer keeping.Wait()
	stop := sync.OnceFunc(func() { close(over) })
	defer stop()
	client.Wait(ctx, 4*time.Second+2*h.shape.takes)
	from, idle := h.since(), h.processor()
	client.Wait(ctx, p.measure)
	r.leftBefore = left(shares(idle, h.processor(), h.since()-from))
	r.capacity = float64(h.fulfilled(from, h.since())) / (h.since() - from).Seconds()
	if ctx.Err() != nil || r.capacity == 0 {
		return r, errors.Join(errors.New("no order was fulfilled while the capacity was measured"), ctx.Err())
	}

	// The orders in flight are the beginning of the burst, so the system is never idle.
	r.rate = p.times * r.capacity
	most := 0
	if h.shape.bus {
		most = int(backlog * r.capacity * p.burst.Seconds())
	}
	h.forget()
	say("capacity %.1f orders a second; burst: %.0f a second for %s", r.capacity, r.rate, p.burst)
	stop()
	began, before := h.since(), h.processor()
	var others sync.WaitGroup
	defer others.Wait()
	if h.shape.other {
		others.Go(func() { r.otherRefused, r.other = h.orderNowAndThen(ctx, p.burst) })
	}
	r.offered, r.held = h.pour(ctx, r.rate, p.burst, most)
	client.Wait(ctx, p.burst-(h.since()-began))
	ended := h.since()
	r.processor = shares(before, h.processor(), ended-began)
	r.left = left(r.processor)
	r.goodput = goodput(h.ends(), began, ended)
	r.accepted = h.acceptedSince(began)
	r.refused, r.unanswered, r.unhinted = h.answers()
	if err := ctx.Err(); err != nil {
		return r, err
	}

	say("the burst is over: goodput %.1f a second; new orders", mean(r.goodput))
	bound := endWithin + 2*h.shape.takes
	if h.shape.bus {
		bound += time.Duration(2 * float64(h.count().open) / r.capacity * float64(time.Second))
		if err := h.drain(ctx, bound); err != nil {
			return r, err
		}
	}
	calm := h.since()
	limit := allowed(r.before)
	after := h.probe(ctx, func(all []*trial) bool { return recovered(all, limit) >= 0 || h.since()-calm > watched })
	if at := recovered(after, limit); at >= 0 {
		r.recovered, r.recoveredAfter = true, after[at].at-calm
		after = after[at:]
	}
	for _, t := range after {
		if t.err == nil {
			r.after = append(r.after, t.took)
		}
	}
	say("waiting for every accepted order to end")
	if err := h.findUnanswered(ctx); err != nil {
		return r, err
	}
	if err := h.drain(ctx, max(bound-(h.since()-ended), time.Second)); err != nil {
		return r, err
	}
	others.Wait()
	keeping.Wait()
	if err := <-kept; err != nil {
		say("while the capacity was measured: %v", err)
	}
	r.ends = h.count()
	r.drained = max(0, h.lastEndOf(began, ended)-ended)
	// The ledgers of an order in flight add up later.
	if r.ends.open == 0 {
		say("comparing the books")
		var err error
		if r.books, err = h.compareBooks(ctx); err != nil {
			return r, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r.memory, r.restarts = maps.Clone(h.memory), maps.Clone(h.restarts)
	return r, ctx.Err()
}

// shares is what each process used of one processor between two readings.
func shares(before, after map[string]time.Duration, span time.Duration) map[string]float64 {
	all := map[string]float64{}
	for name, used := range after {
		all[name] = (used - before[name]).Seconds() / span.Seconds()
	}
	return all
}

// left is the share of the machine that other processes left to the system and this program.
func left(of map[string]float64) float64 {
	return 1 - min(0.9, of[everythingElse]/float64(runtime.NumCPU()))
}

// warm fulfils some orders, a few at a time.
func (h *shop) warm(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	orders, ctx := errgroup.WithContext(ctx)
	for range warmUp {
		orders.Go(func() error {
			_, err := h.place(ctx)
			return err
		})
	}
	return orders.Wait()
}

// trial is one new order.
type trial struct {
	at, took time.Duration
	done     bool
	err      error
}

// probe places a new order every half second until enough accepts them, and waits for all of them.
func (h *shop) probe(ctx context.Context, enough func([]*trial) bool) []*trial {
	var mu sync.Mutex
	var all []*trial
	var orders sync.WaitGroup
	for {
		mu.Lock()
		stop := enough(all)
		if !stop {
			t := &trial{at: h.since()}
			all = append(all, t)
			orders.Go(func() {
				bounded, cancel := context.WithTimeout(ctx, orderTimeout)
				defer cancel()
				took, err := h.place(bounded)
				mu.Lock()
				defer mu.Unlock()
				t.took, t.err, t.done = took, err, true
			})
		}
		mu.Unlock()
		if stop || !client.Wait(ctx, probeEvery) {
			break
		}
	}
	orders.Wait()
	return all
}

// forget drops the counts so far, so that only the answers during the burst count.
func (h *shop) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.refused)
	clear(h.unanswered)
	h.unhinted = 0
}

func (h *shop) ends() (all []time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.known {
		if o.end == contracts.TypeOrderFulfilled {
			all = append(all, o.ended)
		}
	}
	return all
}

func (h *shop) acceptedSince(from time.Duration) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.known {
		if o.accepted && o.offered >= from {
			n++
		}
	}
	return n
}

// lastEndOf is the end of the last order that was offered in a span of time.
func (h *shop) lastEndOf(from, to time.Duration) (last time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.known {
		if o.offered >= from && o.offered < to {
			last = max(last, o.ended)
		}
	}
	return last
}

// drain waits until every accepted order has ended, or the time is up.
func (h *shop) drain(ctx context.Context, within time.Duration) error {
	for from := time.Now(); h.count().open > 0 && time.Since(from) < within; {
		if !client.Wait(ctx, 200*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}

// findUnanswered looks up the orders whose client got no answer; they may have been accepted.
func (h *shop) findUnanswered(ctx context.Context) error {
	if _, unanswered, _ := h.answers(); len(unanswered) == 0 || h.shape.bus {
		return nil
	}
	h.mu.Lock()
	var ids []string
	for id, o := range h.known {
		if !o.accepted && o.end == "" {
			ids = append(ids, id)
		}
	}
	h.mu.Unlock()
	return each(ctx, ids, func(ctx context.Context, id string) error {
		_, status, err := client.Read(ctx, h.system, id)
		if err == nil && status == http.StatusOK {
			h.mu.Lock()
			h.known[id].accepted = true
			h.mu.Unlock()
		}
		return err
	})
}

// each calls do for every id, some at a time.
func each(ctx context.Context, ids []string, do func(ctx context.Context, id string) error) error {
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.SetLimit(16)
	for _, id := range ids {
		tasks.Go(func() error { return do(ctx, id) })
	}
	return tasks.Wait()
}

// compareBooks compares the records of payment provider, warehouse and carrier with the outcome of every order, and returns the
// differences.
func (h *shop) compareBooks(ctx context.Context) (differences []string, err error) {
	if err := h.settled(ctx); err != nil {
		differences = append(differences, err.Error())
	}
	pieces, fulfilled := map[string]int{}, []string{}
	h.mu.Lock()
	for id, o := range h.known {
		if o.end != contracts.TypeOrderFulfilled {
			continue
		}
		fulfilled = append(fulfilled, id)
		var n int
		if _, err := fmt.Sscanf(id, h.run+"-%d", &n); err != nil {
			h.mu.Unlock()
			return nil, err
		}
		pieces[product(n%h.shape.products)] += quantity
	}
	h.mu.Unlock()
	for n := range h.shape.products {
		got, err := client.StockOf(ctx, h.system, product(n))
		if err != nil {
			return nil, err
		}
		if want := (client.Stock{OnHand: plenty - pieces[product(n)], Shipped: pieces[product(n)]}); got != want {
			differences = append(differences, fmt.Sprintf("the stock of %s is %+v, want %+v", product(n), got, want))
		}
	}
	var mu sync.Mutex
	wrong := 0
	err = each(ctx, fulfilled, func(ctx context.Context, id string) error {
		got, err := client.BooksOf(ctx, h.system, id)
		if err != nil || got == client.Fulfilled {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if wrong++; wrong <= 3 {
			differences = append(differences, fmt.Sprintf("the books of %s are %+v, want %+v", id, got, client.Fulfilled))
		}
		return nil
	})
	if wrong > 3 {
		differences = append(differences, fmt.Sprintf("the books of %d orders are wrong", wrong))
	}
	return differences, err
}

// settled waits until fulfillment has no open saga.
func (h *shop) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		code, _, answer, err := client.Call(ctx, http.MethodGet, h.system.App(contracts.AppFulfillment).URL+"/v1/fulfillments?limit=1", nil)
		if err == nil && code == http.StatusOK && strings.Contains(strings.ReplaceAll(string(answer), " ", ""), `"items":[]`) {
			return nil
		}
		if !client.Wait(ctx, 200*time.Millisecond) {
			return fmt.Errorf("a saga has not ended: %d %.300s", code, answer)
		}
	}
}

// watch offers a fixed number of orders and shows their outcomes every ten seconds.
func (h *shop) watch(ctx context.Context, p plan, out io.Writer) error {
	if err := h.warm(ctx); err != nil {
		return err
	}
	h.forget()
	began, before := h.since(), h.count().fulfilled
	_, _ = fmt.Fprintf(out, "%d orders, %v a second (%s)\n", p.orders, p.rate, h.shape.name)
	var offering sync.WaitGroup
	offering.Go(func() { h.pour(ctx, p.rate, p.watch, p.orders) })
	defer offering.Wait()
	for n := 1; ; n++ {
		if !client.Wait(ctx, time.Until(h.begun.Add(began+time.Duration(n)*10*time.Second))) {
			return ctx.Err()
		}
		now := h.since()
		c := h.count()
		refused, unanswered, _ := h.answers()
		h.mu.Lock()
		sidecar, peak, service := h.now["fulfillment-sidecar"], h.memory["fulfillment-sidecar"], h.now["fulfillment"]
		h.mu.Unlock()
		_, _ = fmt.Fprintf(out, "%4.0f s: %d accepted, %d refused (%s), %d unanswered; %d fulfilled, %.1f a second in the last 10 s; failed: %s; %d open; fulfillment-sidecar %d MiB (peak %d), fulfillment %d MiB\n",
			(now - began).Seconds(), c.accepted-before, sum(refused), list(refused), sum(unanswered), c.fulfilled-before,
			float64(h.fulfilled(now-10*time.Second, now))/10, list(c.failed), c.open, sidecar>>20, peak>>20, service>>20)
		if now-began >= p.watch || c.open == 0 && now-began > time.Duration(float64(p.orders)/p.rate*float64(time.Second)) {
			break
		}
	}
	offering.Wait()
	c := h.count()
	if c.open > 0 || len(c.failed) > 0 {
		return fmt.Errorf("%d of %d accepted orders are open and %d have failed (%s)", c.open, c.accepted-before, sum(c.failed), list(c.failed))
	}
	return nil
}

func sum(of map[string]int) (n int) {
	for _, one := range of {
		n += one
	}
	return n
}

// list formats counts in a stable order.
func list(of map[string]int) string {
	if len(of) == 0 {
		return "none"
	}
	all := make([]string, 0, len(of))
	for _, name := range slices.Sorted(maps.Keys(of)) {
		all = append(all, fmt.Sprintf("%d %s", of[name], name))
	}
	return strings.Join(all, ", ")
}
