// Package sweep asks again where an answer is overdue: about every order that has not ended and has not moved for a while
// (docs/adr/0009). It knows neither store nor bus.
package sweep

import (
	"context"
	"log/slog"
	"time"

	"waybill/services/orders/internal/order"
)

const (
	// longestPause is how rarely an order is asked about in the end, and from the beginning when it waits for a person.
	longestPause = 5 * time.Minute
	// grace is how long an id must be missing from the store before it is forgotten: an order that is new is put into the
	// backlog before it is saved, and whoever does so has given up by then.
	grace = 2 * time.Minute
	// maxFailures is after how many failed announcements a sweep gives up: the bus is away, the rest would fail too.
	maxFailures = 3
)

// Orders is the backlog of orders that have not ended.
type Orders interface {
	// Sweep shows visit every order of the backlog, and takes out those that visit returns as done.
	Sweep(ctx context.Context, visit func(ctx context.Context, ids []order.ID, found map[order.ID]*order.Order) (done []order.ID, err error)) error
}

// Counter counts the orders that have not ended: those observed between Begin and End.
type Counter interface {
	Begin()
	Observe(o *order.Order)
	End()
	// Failed says that the first pass broke off. Counted reports whether there must be one again.
	Failed(err error)
	Counted() bool
}

// Sweeper sweeps the backlog at every interval. What it remembers is only how often it asked; that is lost with the process,
// which makes the next one ask a little earlier.
type Sweeper struct {
	Orders Orders
	// Remind announces again what of the order waits for an answer. It must be idempotent.
	Remind func(ctx context.Context, o *order.Order) error
	// Interval is the time between two sweeps, Patience how long an order may stand still before it is first asked about.
	Interval, Patience time.Duration
	// Counter is told of each pass over the backlog, the first of which is at once and asks about no order.
	Counter Counter
	Logger  *slog.Logger

	waits map[order.ID]wait
}

// wait is how an order of the backlog was last seen, and when it is next asked about.
type wait struct {
	updated time.Time // zero when the order was missing
	pause   time.Duration
	due     time.Time
}

// Run sweeps until ctx ends. It may be called once.
func (s *Sweeper) Run(ctx context.Context) {
	s.waits = map[order.ID]wait{}
	s.count(ctx)
	ticker := time.NewTicker(s.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			s.Logger.WarnContext(ctx, "the sweep of orders that have not ended broke off and will be repeated", slog.Any("error", err))
		}
	}
}

// countPause is the pause between two attempts to count the backlog when the process starts.
const countPause = time.Second

// count goes through the backlog for the first time.
func (s *Sweeper) count(ctx context.Context) {
	for {
		s.Counter.Begin()
		err := s.Orders.Sweep(ctx, func(_ context.Context, _ []order.ID, found map[order.ID]*order.Order) ([]order.ID, error) {
			for _, o := range found {
				s.Counter.Observe(o)
			}
			return nil, nil
		})
		if err == nil {
			s.Counter.End()
			return
		}
		if ctx.Err() != nil {
			return
		}
		s.Logger.WarnContext(ctx, "the open orders could not be counted", slog.Any("error", err))
		if s.Counter.Failed(err); s.Counter.Counted() {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(countPause, s.Interval)):
		}
	}
}

// sweep goes once through the backlog.
func (s *Sweeper) sweep(ctx context.Context) error {
	seen := map[order.ID]bool{}
	failures := 0
	s.Counter.Begin()
	err := s.Orders.Sweep(ctx, func(ctx context.Context, ids []order.ID, found map[order.ID]*order.Order) (done []order.ID, err error) {
		for _, o := range found {
			s.Counter.Observe(o)
		}
		for _, id := range ids {
			seen[id] = true
			ended, err := s.visit(ctx, id, found[id])
			if ended {
				done = append(done, id)
			}
			if err == nil {
				continue
			}
			if failures++; failures == maxFailures || ctx.Err() != nil {
				return done, err
			}
			s.Logger.WarnContext(ctx, "an order was not asked about and will be later", slog.String("order_id", string(id)), slog.Any("error", err))
		}
		return done, nil
	})
	if err != nil {
		return err
	}
	s.Counter.End()
	for id := range s.waits {
		if !seen[id] {
			delete(s.waits, id) // another process found it done
		}
	}
	return nil
}

// visit asks about an order if that is due, and reports whether there is nothing to ask about any more. The order is nil when
// it is missing.
func (s *Sweeper) visit(ctx context.Context, id order.ID, o *order.Order) (done bool, err error) {
	if o != nil && o.Status().Final() {
		// What ended without an event has announced its end to nobody if the process died in between.
		if err := s.Remind(ctx, o); err != nil {
			return false, err
		}
		delete(s.waits, id)
		return true, nil
	}
	now := time.Now()
	w := s.wait(id, o, now)
	switch {
	case now.Before(w.due):
	case o == nil:
		delete(s.waits, id)
		return true, nil
	default:
		w.pause = min(2*w.pause, max(longestPause, s.Patience))
		w.due = now.Add(w.pause)
		level := slog.LevelWarn
		if o.WaitsForPerson() {
			level = slog.LevelDebug
		}
		if err = s.Remind(ctx, o); err == nil {
			s.Logger.Log(ctx, level, "no answer yet, asked again",
				slog.String("order_id", string(id)), slog.String("status", string(o.Status())), slog.Duration("next", w.pause))
		}
	}
	s.waits[id] = w
	return false, err
}

// wait is what is remembered of the order, unless it has moved since.
func (s *Sweeper) wait(id order.ID, o *order.Order, now time.Time) wait {
	w, known := s.waits[id]
	if o == nil {
		if !known || !w.updated.IsZero() {
			w = wait{due: now.Add(grace)}
		}
		return w
	}
	updated := o.Snapshot().UpdatedAt
	if known && w.updated.Equal(updated) {
		return w
	}
	w = wait{updated: updated, pause: s.Patience}
	if o.WaitsForPerson() {
		w.pause = max(longestPause, s.Patience)
	}
	// Another process may have written that time, or this one before its clock was set. So it shortens the pause and never makes it
	// longer, and from now on this process's monotonic clock counts.
	w.due = now.Add(min(max(0, updated.Add(w.pause).Sub(now)), w.pause))
	return w
}
