package ledger

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

// Changes of one product's stock are written in groups (ADR 28). A group is what queued while the group before was written, so
// no change waits for a timer. It costs one read of the stock, one of reservations, and one guarded write, however many changes it
// holds. The changes are applied one after the other, each to what the one before left, and each has its own answer.
const (
	// maxGroup is how many changes one write takes.
	maxGroup = 80
	// startsInGroup is how many places of a group are left to reservations, where many changes finish or undo orders.
	startsInGroup = 20
	// maxStarts is how many reservations wait for one product. What finishes or undoes an order is never turned away.
	maxStarts = 2000
	// turnPatience is how long a step waits for its turns, all its products together. An activity has half a minute.
	turnPatience = 15 * time.Second
	// groupTimeout bounds reading and writing a group, and announcing it, whatever the callers' deadlines are.
	groupTimeout = 10 * time.Second
	// maxGroupConflicts is how often a group is begun again because another replica wrote the stock. It made progress each time.
	maxGroupConflicts = 100
	// minMarks is how many marks a group compares with their reservations at least. It compares twice as many as it can add.
	minMarks = 64
)

// effect is what a change did to the stock.
type effect struct {
	// fence says that the stock must be written also if nothing changed: a replica that read it before cannot write it any more.
	fence bool
	// announce says that the answer waits for the announcement of the stock's latest change, also if this is none: an earlier run
	// may have ended between its write and its announcement. Consumers tell repetitions by the event's id, which follows from the
	// revision.
	announce bool
}

// change is one change of a product's stock that waits for its turn.
type change struct {
	// order is whose reservation apply needs, empty if none.
	order string
	// starts says that the change starts an order's fulfilment, and waits behind those that finish or undo one.
	starts bool
	// apply changes s. It may run several times, each time on a stock and a reservation that were just read in this order.
	// An error leaves s as it was, and is the answer. r is nil if the order has no reservation.
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
	left                 // its caller has gone
)

// queues is a queue for each product whose stock is being changed.
type queues struct {
	// store serves groups before single calls: a whole group waits for each.
	store    state.Store
	announce func(context.Context, inventory.Stock) error
	now      func() time.Time

	mu      sync.Mutex
	queue   map[string]*queue
	running sync.WaitGroup
}

// queue is the changes that wait for the next group, the oldest first.
type queue struct{ finishing, starting []*change }

// do applies the change to the product's stock in its turn. It returns partner.ErrBusy, and the stock is not changed, if ctx ended
// before the group was written or too many wait. After that it waits for what came of the write. Any other error of the store leaves
// that open.
func (q *queues) do(ctx context.Context, product string, c *change) error {
	c.done, c.span = make(chan struct{}), trace.SpanContextFromContext(ctx)
	if !q.enter(ctx, product, c) {
		return fmt.Errorf("change stock of %s: %d reservations wait: %w", product, maxStarts, partner.ErrBusy)
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
	}
	if q.leave(product, c) {
		return fmt.Errorf("change stock of %s: wait for a turn: %w: %w", product, partner.ErrBusy, ctx.Err())
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
	waits, busy := q.queue[product]
	if !busy {
		waits = &queue{}
		q.queue[product] = waits
		q.running.Go(func() { q.work(context.WithoutCancel(ctx), product) })
	}
	switch {
	case !c.starts:
		waits.finishing = append(waits.finishing, c)
	case len(waits.starting) < maxStarts:
		waits.starting = append(waits.starting, c)
	default:
		return false
	}
	return true
}

// leave reports whether the change left before its write.
func (q *queues) leave(product string, c *change) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c.stage != waiting {
		return false
	}
	c.stage = left
	if waits := q.queue[product]; waits != nil {
		is := func(other *change) bool { return other == c }
		waits.finishing, waits.starting = slices.DeleteFunc(waits.finishing, is), slices.DeleteFunc(waits.starting, is)
	}
	return true
}

// next takes the next group off the queue. Without one the queue is forgotten.
func (q *queues) next(product string) []*change {
	q.mu.Lock()
	defer q.mu.Unlock()
	waits := q.queue[product]
	finishing := min(len(waits.finishing), max(maxGroup-startsInGroup, maxGroup-len(waits.starting)))
	starting := min(len(waits.starting), maxGroup-finishing)
	group := slices.Concat(waits.finishing[:finishing], waits.starting[:starting])
	waits.finishing, waits.starting = slices.Delete(waits.finishing, 0, finishing), slices.Delete(waits.starting, 0, starting)
	if len(group) == 0 {
		delete(q.queue, product)
	}
	return group
}

// waiting counts the changes that are in no group yet.
func (q *queues) waiting() (starting, finishing int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, waits := range q.queue {
		starting, finishing = starting+len(waits.starting), finishing+len(waits.finishing)
	}
	return starting, finishing
}

// begin returns the changes that the write takes: those whose callers have not left.
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

// again lets the members of a group leave that was not written.
func (q *queues) again(group []*change) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range group {
		c.stage = waiting
	}
}

// written is what became of a group.
type written struct {
	stock inventory.Stock
	// group is who was in it to the end, each with its effect and its own error.
	group []*change
	// announce says that the stock's latest change is to be announced.
	announce bool
	// err says that it is unknown what was written.
	err error
}

// answer ends the wait of those in the group who wait for the announcement, or of those who do not.
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

// work writes group after group. While one is written, the one before is announced, so that announcements keep their order and
// groups grow instead of announcements piling up.
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
		q.again(group)
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
	// After the stock: what a reservation says then holds for this version of the stock.
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
		s.Last.Previous = available // several changes become one
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

// window is at most n of the marks. Which ones is chance, so that all of them have their turn.
func window(marks []string, n int) []string {
	if len(marks) <= n {
		return marks
	}
	from := rand.N(len(marks)) //nolint:gosec // it protects nothing
	return slices.Concat(marks, marks)[from : from+n]
}

// found is what was read of an order's reservation.
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
