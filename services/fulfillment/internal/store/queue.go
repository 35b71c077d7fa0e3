package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"waybill/platform/state"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/partner"
)

// Changes of one product's stock are written in groups (ADR 28). A group is what was queued while the previous group was written, so
// no change waits for a timer. However many changes it holds, a group costs one read of the stock, one read of reservations, and one
// conditional write. The changes are applied one after the other, each to the result of the one before, and each has its own answer.
const (
	// maxGroup is how many changes one write contains at most.
	maxGroup = 80
	// startsInGroup is how many places of a group are kept for reservations when many changes finish or compensate orders.
	startsInGroup = 20
	// maxStarts is how many reservations may wait for one product. A change that finishes or compensates an order is never rejected.
	maxStarts = 2000
	// queueTimeout is how long a step waits in queues, for all its products together. An activity has 30 seconds.
	queueTimeout = 15 * time.Second
	// groupTimeout bounds reading and writing a group, and announcing it. The callers' deadlines do not count.
	groupTimeout = 10 * time.Second
	// maxGroupConflicts is how often a group is started again because another replica wrote the stock. The other replica makes progress
	// each time.
	maxGroupConflicts = 100
	// minMarks is how many marks a group compares with their reservations at least. It compares twice as many as it can add.
	minMarks = 64
)

// effect is what a change did to the stock.
type effect struct {
	// fence says that the stock must be written even if nothing changed: the write of a replica that read it before then fails.
	fence bool
	// announce says that the answer waits until the stock's latest change is announced, even if another change made it: an earlier run
	// may have ended between its write and its announcement. Consumers deduplicate by the event's id, which contains the revision.
	announce bool
}

// change is one queued change of a product's stock.
type change struct {
	// order is the order whose reservation apply needs; empty if it needs none.
	order string
	// starts says that the change starts an order's fulfilment. It waits behind changes that finish or compensate one.
	starts bool
	// apply changes s. It may run several times, each time with a stock and a reservation that were just read in this order.
	// An error leaves s unchanged, and is the answer. r is nil if the order has no reservation.
	apply func(s *inventory.Stock, r *inventory.Reservation) (effect, error)

	span   trace.SpanContext // the caller's
	stage  stage             // guarded by queues.mu
	effect effect
	err    error
	done   chan struct{} // closed once err is the answer
}

type stage int

const (
	waiting stage = iota // its caller may leave
	writing              // the write decides
	left                 // its caller left
)

// queues is a queue for each product whose stock is being changed.
type queues struct {
	// store gives groups priority over single calls, because a whole group waits for each of its calls.
	store    state.Store
	announce func(context.Context, inventory.Stock) error
	now      func() time.Time

	mu      sync.Mutex
	queue   map[string]*queue
	running sync.WaitGroup
}

// queue holds the changes that wait for the next group, oldest first.
type queue struct{ finishing, starting []*change }

// do queues the change and returns when it was applied. It returns partner.ErrBusy, and the stock is unchanged, if ctx ends before the
// write starts or too many changes wait. Once the write has started, it waits for the result. After any other error of the store it is
// unknown whether the stock was changed.
func (q *queues) do(ctx context.Context, product string, c *change) error {
	c.done, c.span = make(chan struct{}), trace.SpanContextFromContext(ctx)
	if !q.enter(ctx, product, c) {
		return fmt.Errorf("change stock of %s: %d reservations are queued: %w", product, maxStarts, partner.ErrBusy)
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
	}
	if q.leave(product, c) {
		return fmt.Errorf("change stock of %s: wait in the queue: %w: %w", product, partner.ErrBusy, ctx.Err())
	}
	<-c.done
	return c.err
}

func (q *queues) enter(ctx context.Context, product string, c *change) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.queue == nil {
		q.queue = map[string]*queue{}
	}
	queued, busy := q.queue[product]
	if !busy {
		queued = &queue{}
		q.queue[product] = queued
		q.running.Go(func() { q.work(context.WithoutCancel(ctx), product) })
	}
	switch {
	case !c.starts:
		queued.finishing = append(queued.finishing, c)
	case len(queued.starting) < maxStarts:
		queued.starting = append(queued.starting, c)
	default:
		return false
	}
	return true
}

// leave takes the change off the queue, and reports whether that was before its write.
func (q *queues) leave(product string, c *change) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c.stage != waiting {
		return false
	}
	c.stage = left
	if queued := q.queue[product]; queued != nil {
		is := func(other *change) bool { return other == c }
		queued.finishing, queued.starting = slices.DeleteFunc(queued.finishing, is), slices.DeleteFunc(queued.starting, is)
	}
	return true
}

// next takes the next group off the queue, and deletes the queue if it is empty.
func (q *queues) next(product string) []*change {
	q.mu.Lock()
	defer q.mu.Unlock()
	queued := q.queue[product]
	finishing := min(len(queued.finishing), max(maxGroup-startsInGroup, maxGroup-len(queued.starting)))
	starting := min(len(queued.starting), maxGroup-finishing)
	group := slices.Concat(queued.finishing[:finishing], queued.starting[:starting])
	queued.finishing, queued.starting = slices.Delete(queued.finishing, 0, finishing), slices.Delete(queued.starting, 0, starting)
	if len(group) == 0 {
		delete(q.queue, product)
	}
	return group
}

// lengths counts the changes that are in no group yet.
func (q *queues) lengths() (starting, finishing int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, queued := range q.queue {
		starting, finishing = starting+len(queued.starting), finishing+len(queued.finishing)
	}
	return starting, finishing
}

// begin marks the changes of a group as being written, and returns those whose callers have not left.
func (q *queues) begin(group []*change) []*change {
	q.mu.Lock()
	defer q.mu.Unlock()
	var still []*change
	for _, c := range group {
		if c.stage == waiting {
			c.stage = writing
			still = append(still, c)
		}
	}
	return still
}

// unbegin lets the callers of a group leave again, because the group was not written.
func (q *queues) unbegin(group []*change) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range group {
		c.stage = waiting
	}
}

// written is the result of writing a group.
type written struct {
	stock inventory.Stock
	// group is the changes whose callers did not leave, each with its effect and its own error.
	group []*change
	// announce says that the stock's latest change must be announced.
	announce bool
	// err says that it is unknown what was written.
	err error
}

// answer answers the changes that wait for the announcement, or those that do not.
func (w written) answer(announced bool, err error) {
	for _, c := range w.group {
		if c.effect.announce != announced {
			continue
		}
		if err != nil {
			c.err = err
		}
		close(c.done)
	}
}

// work writes group after group. While one group is written, the previous one is announced. So announcements keep their order, and a
// slow bus makes groups larger instead of queueing announcements.
func (q *queues) work(ctx context.Context, product string) {
	announced := make(chan struct{})
	close(announced)
	for group := q.next(product); len(group) > 0; group = q.next(product) {
		ctx := trace.ContextWithSpanContext(ctx, group[0].span)
		w := q.write(ctx, product, group)
		w.answer(false, w.err)
		<-announced
		if !w.announce {
			continue
		}
		announced = make(chan struct{})
		q.running.Go(func() {
			defer close(announced)
			ctx, cancel := context.WithTimeout(ctx, groupTimeout)
			defer cancel()
			err := q.announce(ctx, w.stock)
			if err != nil {
				err = fmt.Errorf("announce stock: %w", err)
			}
			w.answer(true, err)
		})
	}
	<-announced
}

// write applies a group to the product's stock.
func (q *queues) write(ctx context.Context, product string, group []*change) written {
	ctx, cancel := context.WithTimeout(ctx, groupTimeout)
	defer cancel()
	for attempt := 0; ; attempt++ {
		w := q.try(ctx, product, group)
		if w.err == nil {
			return w
		}
		if !errors.Is(w.err, state.ErrConflict) || attempt == maxGroupConflicts {
			w.err, w.announce = fmt.Errorf("change stock of %s: %w", product, w.err), false
			for _, c := range w.group {
				c.effect = effect{}
			}
			return w
		}
		group = w.group
		q.unbegin(group)
		select {
		case <-ctx.Done():
		case <-time.After(rand.N(time.Millisecond * time.Duration(1+min(attempt, 20)))): //nolint:gosec // jitter; it protects nothing
		}
	}
}

func (q *queues) try(ctx context.Context, product string, group []*change) written {
	var s inventory.Stock
	etag, err := q.store.Get(ctx, stockKey(product), &s)
	exists := !errors.Is(err, state.ErrNotFound)
	if err != nil && exists {
		return written{group: q.begin(group), err: err}
	}
	// Reservations are read after the stock, so they are true for this version of the stock.
	marks := window(s.Marks(), max(minMarks, 2*len(group)))
	reservations, err := q.reservations(ctx, group, marks)
	w := written{group: q.begin(group), err: err}
	if err != nil || len(w.group) == 0 {
		return w
	}
	now, version, last, available, fence := q.now(), s.Version, s.Last.Revision, s.Available(), false
	for _, order := range marks {
		if r := reservations[order]; r.err == nil {
			s.Settle(order, r.doc, now)
		}
	}
	for _, c := range w.group {
		c.effect = effect{}
		r, before := reservations[c.order], s.Last.Revision
		if c.err = r.err; c.err != nil {
			continue
		}
		c.effect, c.err = c.apply(&s, r.doc)
		c.effect.announce = c.effect.announce || s.Last.Revision != before
		fence = fence || c.effect.fence
		w.announce = w.announce || c.effect.announce
	}
	if s.Last.Revision > last+1 {
		s.Last.Previous = available // several changes are announced as one
	}
	w.stock, w.announce = s, w.announce || s.Last.Revision != last
	switch {
	case !fence && s.Version == version:
	case exists:
		w.err = q.store.Replace(ctx, stockKey(product), s, etag)
	default:
		w.err = q.store.Create(ctx, stockKey(product), s)
	}
	return w
}

// window returns at most n of the marks. It starts at a random one, so that each is compared sooner or later.
func window(marks []string, n int) []string {
	if len(marks) <= n {
		return marks
	}
	from := rand.N(len(marks)) //nolint:gosec // it protects nothing
	return slices.Concat(marks, marks)[from : from+n]
}

// found is an order's reservation as it was read; doc is nil if there is none.
type found struct {
	doc *inventory.Reservation
	err error
}

func (q *queues) reservations(ctx context.Context, group []*change, marks []string) (map[string]found, error) {
	orders := slices.Clone(marks)
	for _, c := range group {
		if c.order != "" {
			orders = append(orders, c.order)
		}
	}
	slices.Sort(orders)
	orders = slices.Compact(orders)
	all := make(map[string]found, len(orders))
	if len(orders) == 0 {
		return all, nil
	}
	keys := make([]string, len(orders))
	for i, order := range orders {
		keys[i] = reservationKey(order)
	}
	docs, err := q.store.GetMany(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("read reservations: %w", err)
	}
	for _, order := range orders {
		var f found
		if doc, ok := docs[reservationKey(order)]; ok {
			f.doc = &inventory.Reservation{}
			if err := json.Unmarshal(doc, f.doc); err != nil {
				f = found{err: fmt.Errorf("read the reservation of %s: %w", order, err)}
			}
		}
		all[order] = f
	}
	return all, nil
}
