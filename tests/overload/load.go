package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"waybill/contracts"
	"waybill/tests/internal/bus"
	"waybill/tests/internal/client"
	"waybill/tests/internal/process"
	"waybill/tests/internal/system"
)

// shop offers orders and records the outcome of each.
type shop struct {
	shape  shape
	system *system.System
	orders string // where orders are placed
	run    string // makes the ids of this run unique
	begun  time.Time
	last   atomic.Int64

	mu      sync.Mutex
	known   map[string]*order
	refused map[string]int // by status and code
	// unhinted are refusals without Retry-After.
	unhinted int
	// unanswered are requests that ended without an answer, by reason.
	unanswered map[string]int
	memory     map[string]int64 // most that a process held in this run
	now        map[string]int64 // what it held last
	restarts   map[string]int

	follower *bus.Follower
	producer *kgo.Client
	tasks    sync.WaitGroup
	stop     context.CancelFunc
}

// order is an offered order. Times are relative to the start of the run.
type order struct {
	offered  time.Duration
	accepted bool
	ended    time.Duration
	end      string // the event that it ended with, empty as long as it has not
	code     string // why it failed
	done     chan struct{}
}

const (
	// answerWithin is how long a client waits for an answer.
	answerWithin = 10 * time.Second
	// clients bounds the requests at a time.
	clients = 256
)

func newShop(ctx context.Context, kind shape, s *system.System) (*shop, error) {
	status, err := s.Status()
	if err != nil {
		return nil, err
	}
	for n := range max(kind.products, 2) {
		if err := client.SetStock(ctx, s, product(n), plenty); err != nil {
			return nil, err
		}
	}
	h := &shop{
		shape: kind, system: s, orders: status.Apps[contracts.AppOrders].URL + "/v1/orders", run: fmt.Sprintf("LOAD-%d", time.Now().Unix()), begun: time.Now(),
		known: map[string]*order{}, refused: map[string]int{}, unanswered: map[string]int{},
		memory: map[string]int64{}, now: map[string]int64{}, restarts: map[string]int{},
	}
	if h.follower, err = bus.Follow(ctx, s, h.seen, contracts.TopicOrders); err != nil {
		return nil, err
	}
	if h.producer, err = kgo.NewClient(kgo.SeedBrokers(status.Broker)); err != nil {
		h.follower.Close()
		return nil, err
	}
	sampling, stop := context.WithCancel(context.WithoutCancel(ctx))
	h.stop = stop
	h.tasks.Go(func() { h.sample(sampling) })
	return h, nil
}

func (h *shop) close() {
	h.stop()
	h.tasks.Wait()
	h.follower.Close()
	h.producer.Close()
}

// since is the time since the run began.
func (h *shop) since() time.Duration { return time.Since(h.begun) }

func (h *shop) seen(e bus.Event) {
	if !e.Ends() {
		return
	}
	at := h.since()
	h.mu.Lock()
	defer h.mu.Unlock()
	if o := h.known[e.Order]; o != nil && o.end == "" {
		o.end, o.code, o.ended = e.Type, e.Code, at
		close(o.done)
	}
}

// sample reads the memory and the restarts of every process once a second.
func (h *shop) sample(ctx context.Context) {
	for client.Wait(ctx, time.Second) {
		status, err := h.system.Status()
		if err != nil {
			continue // it is just being written
		}
		h.mu.Lock()
		for _, p := range status.Processes {
			h.restarts[p.Name] = p.Restarts
			if rss, err := process.RSS(p.PID); err == nil {
				h.now[p.Name], h.memory[p.Name] = rss, max(h.memory[p.Name], rss)
			}
		}
		h.mu.Unlock()
	}
}

// Other processes that use the machine.
const (
	self           = "this program"
	everythingElse = "everything else"
)

// processor is the processor time that every process has used since it started.
func (h *shop) processor() map[string]time.Duration {
	used := map[string]time.Duration{}
	rest, err := process.Busy()
	if err != nil {
		return used // not on Linux
	}
	if status, err := h.system.Status(); err == nil {
		for _, p := range append(status.Processes, system.Process{Name: self, PID: os.Getpid()}) {
			if cpu, err := process.CPU(p.PID); err == nil {
				used[p.Name] = cpu
				rest -= cpu
			}
		}
	}
	used[everythingElse] = rest
	return used
}

// add registers the next order.
func (h *shop) add() (string, map[string]any, *order) {
	n := int(h.last.Add(1))
	id, o := fmt.Sprintf("%s-%d", h.run, n), &order{offered: h.since(), done: make(chan struct{})}
	h.mu.Lock()
	h.known[id] = o
	h.mu.Unlock()
	return id, h.shape.order(id, n), o
}

// offer sends an order once and reports whether it was accepted. It counts every other answer.
func (h *shop) offer(ctx context.Context, id string, body map[string]any, o *order) bool {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	ok, refused, hinted, err := h.send(ctx, id, body)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		h.unanswered[fmt.Sprintf("no answer within %s", answerWithin)]++
	case err != nil:
		h.unanswered[err.Error()]++
	case ok:
		o.accepted = true
	default:
		h.refused[refused]++
		if !hinted {
			h.unhinted++
		}
	}
	return o.accepted
}

func (h *shop) send(ctx context.Context, id string, body map[string]any) (ok bool, refused string, hinted bool, err error) {
	if h.shape.bus {
		event, err := json.Marshal(map[string]any{
			"specversion": "1.0", "id": id, "type": contracts.TypeOrderCreated, "source": "/another/system", "subject": "orders/" + id,
			"datacontenttype": "application/json", "data": body,
		})
		if err != nil {
			return false, "", false, err
		}
		key, _ := body["customer_id"].(string)
		err = h.producer.ProduceSync(ctx, &kgo.Record{Topic: contracts.TopicOrders, Key: []byte(key), Value: event}).FirstErr()
		return err == nil, "", false, err
	}
	status, header, answer, err := client.Call(ctx, http.MethodPost, h.orders, body, "Idempotency-Key", id)
	if err != nil || status == http.StatusAccepted {
		return err == nil, "", false, err
	}
	var problem struct {
		Code string `json:"code"`
	}
	_ = json.Unmarshal(answer, &problem) // an answer that is no problem has no code
	return false, fmt.Sprintf("%d %s", status, problem.Code), header.Get("Retry-After") != "", nil
}

// pause is the time after which a client retries a refused order.
const pause = 100 * time.Millisecond

// place offers a new order until it is accepted, and waits until it has ended. It returns the time from the first offer to the end.
func (h *shop) place(ctx context.Context) (time.Duration, error) {
	id, body, o := h.add()
	for !h.offer(ctx, id, body, o) {
		if !client.Wait(ctx, pause) {
			return 0, ctx.Err()
		}
	}
	select {
	case <-o.done:
	case <-ctx.Done():
		return 0, fmt.Errorf("order %s has not ended: %w", id, ctx.Err())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if o.end != contracts.TypeOrderFulfilled {
		return 0, fmt.Errorf("order %s ended with %s %s", id, o.end, o.code)
	}
	return o.ended - o.offered, nil
}

// orderNowAndThen places an order of another customer every second for the time d. When all of them have ended it returns how
// many were refused and how long the others took.
func (h *shop) orderNowAndThen(ctx context.Context, d time.Duration) (refused int, took []time.Duration) {
	var mu sync.Mutex
	var orders sync.WaitGroup
	for from := time.Now(); time.Since(from) < d; {
		orders.Go(func() {
			bounded, cancel := context.WithTimeout(ctx, orderTimeout)
			defer cancel()
			id, body, o := h.add()
			body["customer_id"] = otherCustomer
			if !h.offer(bounded, id, body, o) {
				mu.Lock()
				defer mu.Unlock()
				refused++
				return
			}
			select {
			case <-bounded.Done(): // judged with all orders that have not ended
			case <-o.done:
				mu.Lock()
				defer mu.Unlock()
				took = append(took, o.ended-o.offered)
			}
		})
		if !client.Wait(ctx, time.Second) {
			break
		}
	}
	orders.Wait()
	return refused, took
}

// keep keeps inFlight orders in flight until over is closed, and returns when the last of them has ended.
func (h *shop) keep(ctx context.Context, inFlight int, over <-chan struct{}) error {
	var loops sync.WaitGroup
	errs := make(chan error, inFlight)
	for range inFlight {
		loops.Go(func() {
			for {
				select {
				case <-over:
					return
				case <-ctx.Done():
					return
				default:
				}
				if _, err := h.place(ctx); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	loops.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// pour offers orders at a rate for the time d, without waiting for earlier ones, and at most limit of them if that is not 0. It
// returns how many it offered, and how many more were due while every client was busy.
func (h *shop) pour(ctx context.Context, rate float64, d time.Duration, most int) (offered, held int) {
	places := make(chan struct{}, clients)
	var requests sync.WaitGroup
	defer requests.Wait()
	from := time.Now()
	for n := 0; most == 0 || offered < most; n++ {
		due := time.Duration(float64(n) / rate * float64(time.Second))
		if due >= d || !client.Wait(ctx, time.Until(from.Add(due))) {
			break
		}
		select {
		case places <- struct{}{}:
		default:
			held++
			continue
		}
		offered++
		id, body, o := h.add()
		requests.Go(func() {
			defer func() { <-places }()
			h.offer(ctx, id, body, o)
		})
	}
	if most == 0 {
		client.Wait(ctx, time.Until(from.Add(d)))
	}
	return offered, held
}

// fulfilled counts the orders that were fulfilled in a span of time.
func (h *shop) fulfilled(from, to time.Duration) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.known {
		if o.end == contracts.TypeOrderFulfilled && o.ended >= from && o.ended < to {
			n++
		}
	}
	return n
}

// counts are the outcomes of the accepted orders.
type counts struct {
	accepted, open, fulfilled int
	failed                    map[string]int
	lastEnd                   time.Duration
}

// count counts all orders. An order that ended was accepted, even if its client got another answer.
func (h *shop) count() counts {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := counts{failed: map[string]int{}}
	for _, o := range h.known {
		switch {
		case o.end == contracts.TypeOrderFulfilled:
			c.fulfilled++
		case o.end != "":
			c.failed[o.end+" "+o.code]++
		case o.accepted:
			c.open++
		default:
			continue
		}
		c.accepted++
		c.lastEnd = max(c.lastEnd, o.ended)
	}
	return c
}

func (h *shop) answers() (refused, unanswered map[string]int, unhinted int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.refused), maps.Clone(h.unanswered), h.unhinted
}
