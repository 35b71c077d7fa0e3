package saga

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"waybill/platform/clock"
	"waybill/platform/retryable"
	"waybill/services/fulfillment/internal/record"
)

// Watchdog finds sagas that the engine has lost, or that ended without an outcome, and runs them anew; wakes those that
// somebody decided about, or whose time is up; and reports those that should have ended. All of it is safe at any time, for
// every activity is idempotent and refuses what was undone.
type Watchdog struct {
	control *Control
	// grace is how long a saga is left alone after its start.
	grace time.Duration
	// lostAfter is how long something that a saga waits for may be overdue until it counts as lost.
	lostAfter time.Duration
	// started, approvals and promises have what this process saw of each saga: its last start, the end of its approval, and what
	// the engine promised it. All these times were written by other processes.
	started, approvals *clock.Tracker[string]
	promises           *clock.Tracker[promiseKey]
	// woken has, for each saga whose approval is overdue, the age of that at which it is woken again.
	woken map[string]time.Duration
}

// NewWatchdog returns a Watchdog over all sagas of control that were started longer ago than grace. What a saga waits for
// counts as lost when it is overdue by lostAfter, which is to be some times as long as an activity may take.
func NewWatchdog(control *Control, grace, lostAfter time.Duration) *Watchdog {
	return &Watchdog{
		control: control, grace: grace, lostAfter: lostAfter,
		started: clock.NewTracker[string](control.now), approvals: clock.NewTracker[string](control.now),
		promises: clock.NewTracker[promiseKey](control.now), woken: map[string]time.Duration{},
	}
}

// Run looks at every open saga now and at every interval, until ctx ends.
func (w *Watchdog) Run(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if err := w.Look(ctx); err != nil && ctx.Err() == nil {
			w.control.logger.WarnContext(ctx, "the watchdog did not see every saga and will look again", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// approvalsKept is how long an approval stays on the list after its saga has ended.
const approvalsKept = 30 * 24 * time.Hour

// Look looks at every open saga once, and takes old approvals off their list.
func (w *Watchdog) Look(ctx context.Context) error {
	c := w.control
	approvals := c.records.Approvals(ctx, func(_ context.Context, entries []record.Saga) (old []string, err error) {
		for i := range entries {
			if e := &entries[i]; e.Ended() && c.now().Sub(e.EndedAt) > approvalsKept {
				old = append(old, e.Order.OrderID)
			}
		}
		return old, nil
	})
	if approvals != nil {
		approvals = fmt.Errorf("tidy the approvals: %w", approvals)
	}
	ending := 0
	open := c.records.Open(ctx, func(ctx context.Context, entries []record.Saga) (ended []string, err error) {
		for i := range entries {
			e := &entries[i]
			if e.Ended() {
				delete(w.woken, e.Order.OrderID)
				ended = append(ended, e.Order.OrderID)
				continue
			}
			err := w.see(ctx, e, &ending)
			switch {
			case retryable.Is(err):
				return ended, fmt.Errorf("watch %s: %w", e.Order.OrderID, err)
			case err != nil:
				// It would fail at every look; the sagas behind it must not wait for it.
				c.logger.ErrorContext(ctx, "saga could not be watched; the others are", slog.String("order_id", e.Order.OrderID), slog.Any("error", err))
			}
		}
		return ended, nil
	})
	if open == nil { // else it did not see every saga
		w.started.Prune()
		w.approvals.Prune()
		w.promises.Prune()
		c.moved.Prune()
	}
	return errors.Join(approvals, open)
}

// maxEnding bounds how many lost sagas one look ends: where a busy engine is taken for one that lost them, they must not become
// its load.
const maxEnding = 100

func (w *Watchdog) see(ctx context.Context, e *record.Saga, ending *int) error {
	c := w.control
	idle, age := c.idle(e), w.started.Age(e.Order.OrderID, e.LastStarted())
	if !e.Started() || age < w.grace {
		return nil
	}
	id := slog.String("order_id", e.Order.OrderID)
	started, err := c.revive(ctx, e)
	if err != nil {
		return err
	}
	if started {
		c.logger.WarnContext(ctx, "a saga that had not ended was not at work and was started again", id)
		return nil
	}
	overdue := w.overdue(e)
	// Whoever waits for a person may do so for long, and is looked at when that person has decided, or the time is up.
	waiting := e.AwaitsApproval() && !overdue || e.AwaitsRepair()
	if !waiting && age > w.lostAfter && *ending < maxEnding {
		lost, err := w.lost(ctx, e.Order.OrderID, e.LastStarted())
		if err != nil {
			return err
		}
		if lost != "" {
			*ending++
			// Once it has ended, which takes the engine a moment, a later look starts it again.
			c.logger.WarnContext(ctx, "the engine has lost what a saga waits for; it is ended, and will be started again", id, slog.String("lost", lost))
			return c.end(ctx, e.Order.OrderID)
		}
	}
	stuck := e.State(idle, c.stuckAfter) == record.Stuck
	if stuck {
		c.logger.ErrorContext(ctx, "a saga should have ended by now", id, slog.Time("since", e.LastMoved()))
	}
	if stuck || overdue && w.wakeAgain(e) || decided(e) {
		return c.wake(ctx, e.Order.OrderID)
	}
	return nil
}

// overdue reports whether an approval should have run out by now. Both its times are the engine's, so it lasts no longer than
// their difference from when it was first seen.
func (w *Watchdog) overdue(e *record.Saga) bool {
	if !e.AwaitsApproval() {
		delete(w.woken, e.Order.OrderID)
		return false
	}
	a := e.Approval
	return -w.approvals.Remaining(e.Order.OrderID, a.ExpiresAt, a.ExpiresAt.Sub(a.RequestedAt)) > w.grace
}

// wakeAgain reports whether a saga whose approval is overdue is to be woken now. It is woken less and less often: where this
// clock is ahead of the engine's, the approval is not overdue for the engine, and each call makes the saga's history longer.
func (w *Watchdog) wakeAgain(e *record.Saga) bool {
	a := e.Approval
	late := -w.approvals.Remaining(e.Order.OrderID, a.ExpiresAt, a.ExpiresAt.Sub(a.RequestedAt))
	if late < w.woken[e.Order.OrderID] {
		return false
	}
	w.woken[e.Order.OrderID] = 2 * late
	return true
}

// decided reports whether the journal holds a decision that the saga may not have heard of.
func decided(e *record.Saga) bool {
	return e.Cancelled() || e.Approval != nil && e.Approval.Decision != nil || e.Blocked != nil && len(e.Repairs) >= e.Blocked.Round
}
