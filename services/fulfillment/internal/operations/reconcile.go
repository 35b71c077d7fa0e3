package operations

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

// Reconciler moves sagas on that do not move by themselves. It starts a saga again if the engine lost it or ended it without an outcome,
// wakes a saga whose decision or expiry it may have missed, and reports a saga that should have ended. All of this is safe at any time,
// because every activity is idempotent and partners refuse what was compensated.
//
// One goroutine at a time may use a Reconciler.
type Reconciler struct {
	sagas *Sagas
	// grace is how long a saga is left alone after its start.
	grace time.Duration
	// lostAfter is how long a pending task may be overdue before it counts as lost.
	lostAfter time.Duration
	// started, approvals and tasks have when this process first saw each saga's last start, the end of its approval, and its pending
	// tasks. Other processes wrote all these times.
	started, approvals *clock.Tracker[string]
	tasks              *clock.Tracker[taskKey]
	// wakeAt is, for each saga whose approval is overdue, how overdue it must be to be woken again.
	wakeAt map[string]time.Duration
	// terminated counts the sagas that this pass terminated.
	terminated int
}

// Result says what happens next to a saga that was reconciled.
type Result struct {
	// Done: the saga has ended, and leaves the pending set.
	Done bool
}

// maxTerminated bounds how many sagas one pass terminates. If a busy engine only looks as if it lost them, starting them again must not
// become its load.
const maxTerminated = 100

// NewReconciler returns a Reconciler of all sagas that were started longer ago than grace. A pending task counts as lost when it is
// overdue by more than lostAfter, which must be several times as long as an activity may run.
func NewReconciler(sagas *Sagas, grace, lostAfter time.Duration) *Reconciler {
	return &Reconciler{
		sagas: sagas, grace: grace, lostAfter: lostAfter,
		started: clock.NewTracker[string](sagas.now), approvals: clock.NewTracker[string](sagas.now),
		tasks: clock.NewTracker[taskKey](sagas.now), wakeAt: map[string]time.Duration{},
	}
}

// Run makes a pass now and at every interval, until ctx ends.
func (r *Reconciler) Run(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if err := r.Pass(ctx); err != nil && ctx.Err() == nil {
			r.sagas.logger.WarnContext(ctx, "reconcile pass failed; will retry", slog.String("reconciler", "sagas"), slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Pass reconciles every pending saga once, and removes old approvals from their list.
func (r *Reconciler) Pass(ctx context.Context) error {
	tidied := r.tidyApprovals(ctx)
	r.terminated = 0
	reconciled := r.sagas.records.Open(ctx, r.reconcileAll)
	if reconciled == nil { // otherwise it did not see every saga
		r.started.Prune()
		r.approvals.Prune()
		r.tasks.Prune()
		r.sagas.moved.Prune()
	}
	return errors.Join(tidied, reconciled)
}

func (r *Reconciler) reconcileAll(ctx context.Context, sagas []record.Saga) (done []string, err error) {
	for i := range sagas {
		id := sagas[i].Order.OrderID
		result, err := r.Reconcile(ctx, &sagas[i])
		switch {
		case result.Done:
			done = append(done, id)
		case retryable.Is(err):
			return done, fmt.Errorf("reconcile %s: %w", id, err)
		case err != nil:
			// It would fail in every pass, and must not delay the sagas behind it.
			r.sagas.logger.ErrorContext(ctx, "saga could not be reconciled; will retry", slog.String("order_id", id), slog.Any("error", err))
		}
	}
	return done, nil
}

// Reconcile moves one saga on if it needs that.
func (r *Reconciler) Reconcile(ctx context.Context, s *record.Saga) (Result, error) {
	id := slog.String("order_id", s.Order.OrderID)
	logger := r.sagas.logger
	if s.Ended() {
		delete(r.wakeAt, s.Order.OrderID)
		return Result{Done: true}, nil
	}
	idle, age := r.sagas.idle(s), r.started.Age(s.Order.OrderID, s.LastStarted())
	if !s.Started() || age < r.grace {
		return Result{}, nil
	}
	restarted, err := r.sagas.restart(ctx, s)
	if err != nil {
		return Result{}, err
	}
	if restarted {
		logger.WarnContext(ctx, "saga was not running in the workflow engine; started it again", id)
		return Result{}, nil
	}
	expired := r.approvalExpired(s)
	if age > r.lostAfter && !waitsForPerson(s, expired) && r.terminated < maxTerminated {
		task, err := r.lostTask(ctx, s.Order.OrderID, s.LastStarted())
		if err != nil {
			return Result{}, err
		}
		if task != "" {
			r.terminated++
			// Ending it takes the engine a moment. A later pass starts it again.
			logger.WarnContext(ctx, "saga lost in the workflow engine; terminating it, the next pass starts it again", id, slog.String("pending_task", task))
			return Result{}, r.sagas.engine.terminate(ctx, s.Order.OrderID)
		}
	}
	stuck := s.State(idle, r.sagas.stuckAfter) == record.Stuck
	if stuck {
		logger.ErrorContext(ctx, "saga is stuck; waking it", id, slog.Time("since", s.LastMoved()))
	}
	if stuck || expired && r.shouldWakeAgain(s) || decided(s) {
		return Result{}, r.sagas.engine.wake(ctx, s.Order.OrderID)
	}
	return Result{}, nil
}

// waitsForPerson reports whether a saga may wait for long because a person has yet to decide.
func waitsForPerson(s *record.Saga, expired bool) bool {
	return s.AwaitsApproval() && !expired || s.AwaitsRepair()
}

// approvalExpired reports whether the saga should have ended its approval by now. Both times of the approval are the engine's, so it
// lasts no longer than their difference from when this process first saw it.
func (r *Reconciler) approvalExpired(s *record.Saga) bool {
	if !s.AwaitsApproval() {
		delete(r.wakeAt, s.Order.OrderID)
		return false
	}
	return r.approvalOverdue(s) > r.grace
}

// approvalOverdue is how long ago the approval expired.
func (r *Reconciler) approvalOverdue(s *record.Saga) time.Duration {
	a := s.Approval
	return -r.approvals.Remaining(s.Order.OrderID, a.ExpiresAt, a.ExpiresAt.Sub(a.RequestedAt))
}

// shouldWakeAgain reports whether a saga whose approval expired must be woken now. It is woken less and less often: if this clock is
// ahead of the engine's, the approval has not expired for the engine, and each signal makes the saga's history longer.
func (r *Reconciler) shouldWakeAgain(s *record.Saga) bool {
	overdue := r.approvalOverdue(s)
	if overdue < r.wakeAt[s.Order.OrderID] {
		return false
	}
	r.wakeAt[s.Order.OrderID] = 2 * overdue
	return true
}

// decided reports whether the record holds a decision that the saga may have missed.
func decided(s *record.Saga) bool {
	return s.Cancelled() || s.Approval != nil && s.Approval.Decision != nil || s.Blocked != nil && len(s.Repairs) >= s.Blocked.Round
}

// approvalRetention is how long an approval stays on the list after its saga has ended.
const approvalRetention = 30 * 24 * time.Hour

// tidyApprovals removes approvals from the list whose retention is over.
func (r *Reconciler) tidyApprovals(ctx context.Context) error {
	err := r.sagas.records.Approvals(ctx, func(_ context.Context, sagas []record.Saga) (done []string, err error) {
		for i := range sagas {
			if s := &sagas[i]; s.Ended() && r.sagas.now().Sub(s.EndedAt) > approvalRetention {
				done = append(done, s.Order.OrderID)
			}
		}
		return done, nil
	})
	if err != nil {
		return fmt.Errorf("remove old approvals: %w", err)
	}
	return nil
}
