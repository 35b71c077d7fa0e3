package operations

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"waybill/platform/clock"
	"waybill/platform/reconcile"
	"waybill/services/fulfillment/internal/record"
)

// Reconciler moves sagas on that do not move by themselves. It starts a saga again if the engine lost it or ended it without an outcome,
// wakes a saga whose decision or expiry it may have missed, and reports a saga that should have ended. All of this is safe at any time,
// because every activity is idempotent and partners refuse what was compensated. It also removes old approvals from their list.
type Reconciler struct {
	ReconcilerOptions

	sagas            *Sagas
	open, approvals  *reconcile.Loop
	records          map[string]record.Saga // of the current batch of pending sagas
	approvalRecords  map[string]record.Saga // of the current batch of approvals
	terminated       int                    // by this pass
	started, expires *clock.Tracker[string] // when this process first saw each saga's last start, and the end of its approval
	tasks            *clock.Tracker[taskKey]
	// wakeAt is, for each saga whose approval is overdue, how overdue it must be to be woken again.
	wakeAt map[string]time.Duration
}

// ReconcilerOptions are the times of a Reconciler.
type ReconcilerOptions struct {
	// Interval is the pause between two passes.
	Interval time.Duration
	// Grace is how long a saga is left alone after its start.
	Grace time.Duration
	// LostAfter is how long a pending task may be overdue before it counts as lost; several times as long as an activity may run.
	LostAfter time.Duration
}

const (
	// maxTerminated bounds how many sagas one pass terminates. If a busy engine only looks as if it lost them, starting them again must
	// not become its load.
	maxTerminated = 100
	// maxBatch is how many records are read at once.
	maxBatch = 25
	// approvalRetention is how long an approval stays on the list after its saga has ended.
	approvalRetention = 30 * 24 * time.Hour
)

// NewReconciler returns a Reconciler that does nothing until Run.
func NewReconciler(sagas *Sagas, o ReconcilerOptions) (*Reconciler, error) {
	r := &Reconciler{
		ReconcilerOptions: o, sagas: sagas, wakeAt: map[string]time.Duration{},
		started: clock.NewTracker[string](sagas.now), expires: clock.NewTracker[string](sagas.now), tasks: clock.NewTracker[taskKey](sagas.now),
	}
	// A saga is looked at in every pass, so an error has no longer backoff.
	shared := reconcile.Options{Interval: o.Interval, Backoff: o.Interval, MaxBackoff: o.Interval, Batch: maxBatch, IDKey: "order_id", Logger: sagas.logger}
	open, approvals := shared, shared
	open.Name, open.Pending, open.Prefetch, open.Reconcile = "sagas", sagas.records.PendingSagas(), r.prefetch, r.Reconcile
	open.PassBegins, open.PassEnds = func() { r.terminated = 0 }, r.prune
	approvals.Name, approvals.Pending, approvals.Prefetch, approvals.Reconcile = "approvals", sagas.records.PendingApprovals(), r.prefetchApprovals, r.reconcileApproval
	var err, approvalsErr error
	r.open, err = reconcile.New(open)
	r.approvals, approvalsErr = reconcile.New(approvals)
	return r, errors.Join(err, approvalsErr)
}

// Run reconciles until ctx ends.
func (r *Reconciler) Run(ctx context.Context) {
	var loops sync.WaitGroup
	loops.Go(func() { r.open.Run(ctx) })
	loops.Go(func() { r.approvals.Run(ctx) })
	loops.Wait()
}

// Pass reconciles every pending saga and every listed approval once.
func (r *Reconciler) Pass(ctx context.Context) error {
	return errors.Join(r.approvals.Pass(ctx), r.open.Pass(ctx))
}

// prune forgets the sagas that a complete pass did not see.
func (r *Reconciler) prune() {
	r.started.Prune()
	r.expires.Prune()
	r.tasks.Prune()
	r.sagas.moved.Prune()
}

func (r *Reconciler) prefetch(ctx context.Context, ids []string) (known map[string]reconcile.Record, err error) {
	r.records, known, err = r.read(ctx, ids)
	return known, err
}

func (r *Reconciler) prefetchApprovals(ctx context.Context, ids []string) (known map[string]reconcile.Record, err error) {
	r.approvalRecords, known, err = r.read(ctx, ids)
	return known, err
}

func (r *Reconciler) read(ctx context.Context, ids []string) (map[string]record.Saga, map[string]reconcile.Record, error) {
	sagas, unreadable, err := r.sagas.records.GetMany(ctx, ids)
	if err != nil {
		return nil, nil, err
	}
	known := make(map[string]reconcile.Record, len(ids))
	for id := range sagas {
		known[id] = reconcile.Record{Created: sagas[id].StartedAt}
	}
	for id, err := range unreadable {
		known[id] = reconcile.Record{Unreadable: err}
	}
	return sagas, known, nil
}

// Reconcile moves one saga on if it needs that.
func (r *Reconciler) Reconcile(ctx context.Context, orderID string) (reconcile.Result, error) {
	again := reconcile.Result{RequeueAfter: reconcile.NextPass}
	saga, exists := r.records[orderID]
	s, id, logger := &saga, slog.String("order_id", orderID), r.sagas.logger
	if s.Ended() {
		delete(r.wakeAt, orderID)
		return reconcile.Result{Done: true}, nil
	}
	age := r.started.Age(orderID, s.LastStarted())
	if !exists || !s.Started() || age < r.Grace { // its record may be written only now
		return again, nil
	}
	restarted, err := r.sagas.restart(ctx, s)
	if err != nil {
		return again, err
	}
	if restarted {
		logger.WarnContext(ctx, "saga was not running in the workflow engine; started it again", id)
		return again, nil
	}
	expired := r.approvalExpired(s)
	if age > r.LostAfter && !waitsForPerson(s, expired) && r.terminated < maxTerminated {
		task, err := r.lostTask(ctx, orderID, s.LastStarted())
		if err != nil {
			return again, err
		}
		if task != "" {
			r.terminated++
			// Ending it takes the engine a moment. A later pass starts it again.
			logger.WarnContext(ctx, "saga lost in the workflow engine; terminating it, the next pass starts it again", id, slog.String("pending_task", task))
			return again, r.sagas.engine.terminate(ctx, orderID)
		}
	}
	stuck := s.State(r.sagas.idle(s), r.sagas.stuckAfter) == record.Stuck
	if stuck {
		logger.ErrorContext(ctx, "saga is stuck; waking it", id, slog.Time("since", s.LastMoved()))
	}
	if stuck || expired && r.shouldWakeAgain(s) || decided(s) {
		return again, r.sagas.engine.wake(ctx, orderID)
	}
	return again, nil
}

// reconcileApproval removes an approval from the list when its retention is over, or its record was removed.
func (r *Reconciler) reconcileApproval(_ context.Context, orderID string) (reconcile.Result, error) {
	s, exists := r.approvalRecords[orderID]
	if !exists || s.Ended() && r.sagas.now().Sub(s.EndedAt) > approvalRetention {
		return reconcile.Result{Done: true}, nil
	}
	return reconcile.Result{RequeueAfter: reconcile.NextPass}, nil
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
	return r.approvalOverdue(s) > r.Grace
}

// approvalOverdue is how long ago the approval expired.
func (r *Reconciler) approvalOverdue(s *record.Saga) time.Duration {
	a := s.Approval
	return -r.expires.Remaining(s.Order.OrderID, a.ExpiresAt, a.ExpiresAt.Sub(a.RequestedAt))
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
