// Package operations is everything that happens to sagas from outside their workflow: it starts them, records what people decide, shows
// them, reconciles their records with the workflow engine, and purges old workflows. Package saga defines what a saga does.
package operations

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"waybill/contracts"
	"waybill/platform/clock"
	"waybill/platform/reconcile"
	"waybill/services/fulfillment/internal/record"
	"waybill/services/fulfillment/internal/saga"
)

// Records stores the saga records and their two pending sets.
type Records interface {
	saga.Records
	// Begin records that a saga starts. Of many concurrent calls exactly one is the first.
	Begin(ctx context.Context, order contracts.Order) (s record.Saga, first bool, err error)
	// Open calls visit with the sagas that may not have ended, Approvals with those that requested an approval, in batches.
	Open(ctx context.Context, visit func([]record.Saga) error) error
	Approvals(ctx context.Context, visit func([]record.Saga) error) error
	// PendingSagas and PendingApprovals are the sets that Open and Approvals read.
	PendingSagas() reconcile.Set
	PendingApprovals() reconcile.Set
	// GetMany reads records. One that is stored and cannot be read is in unreadable, with the error.
	GetMany(ctx context.Context, orderIDs []string) (sagas map[string]record.Saga, unreadable map[string]error, err error)
}

// Options are what Sagas needs.
type Options struct {
	Engine  Engine
	Records Records
	Events  saga.Events
	// Limits are the limits of every saga that starts from now on.
	Limits saga.Limits
	// StuckAfter is how long a saga may run, without waiting for a person, before it counts as stuck.
	StuckAfter time.Duration
	Logger     *slog.Logger
	Now        func() time.Time
}

// Sagas starts sagas, shows them, and records decisions about them. A decision counts once the saga record holds it; the saga is woken
// then, and the reconciler wakes it later if that failed. Sagas is safe for concurrent use.
type Sagas struct {
	engine     engine
	records    Records
	events     saga.Events
	limits     saga.Limits
	stuckAfter time.Duration
	logger     *slog.Logger
	now        func() time.Time
	// moved has when this process first saw the last change of each saga.
	moved *clock.Tracker[string]
}

// New returns Sagas.
func New(o Options) *Sagas {
	return &Sagas{
		engine: engine{o.Engine}, records: o.Records, events: o.Events, limits: o.Limits, stuckAfter: o.StuckAfter, logger: o.Logger, now: o.Now,
		moved: clock.NewTracker[string](o.Now),
	}
}

// Start starts the order's saga unless it was started before. It may be called any number of times, also concurrently. A caller that
// calls again has missed something, so Start repeats the saga's last announcement. The record is written first, because the engine would
// run a finished workflow again.
func (s *Sagas) Start(ctx context.Context, order contracts.Order) error {
	sr, first, err := s.records.Begin(ctx, order)
	if err != nil {
		return fmt.Errorf("start the saga of %s: %w", order.OrderID, err)
	}
	if first {
		running, err := s.engine.start(ctx, s.input(&sr))
		if err != nil || !running {
			return err
		}
		// The engine has the saga, but the record was lost with its store. The saga records again what it waits for when it is woken.
		s.logger.WarnContext(ctx, "running saga has lost its record; recording it again", slog.String("order_id", order.OrderID))
		return s.engine.wake(ctx, order.OrderID)
	}
	if !sr.Ended() {
		if _, err := s.restart(ctx, &sr); err != nil {
			return err
		}
	}
	return saga.AnnounceAgain(ctx, s.events, &sr, s.now().UTC())
}

// input is the workflow's input for a saga record.
func (s *Sagas) input(sr *record.Saga) saga.Input {
	in := saga.CurrentInput(sr.Order, s.limits)
	in.Decided, in.Restart = sr.Cancelled(), sr.Restarts
	if sr.Blocked != nil {
		in.Failure = &sr.Blocked.Failure
	}
	return in
}

// restart starts a saga again that the engine is not running: the process that recorded it died before it started the workflow, the
// engine's state was lost, or the workflow ended without an outcome. Every step finds what it did before. It reports whether it started
// the saga.
func (s *Sagas) restart(ctx context.Context, sr *record.Saga) (bool, error) {
	if running, err := s.engine.running(ctx, sr.Order.OrderID); err != nil || running {
		return false, err
	}
	restarted := false
	now, err := s.records.Change(ctx, sr.Order.OrderID, func(sr *record.Saga) (bool, error) {
		restarted = sr.Restart(s.now()) // false if it ended since the record was read
		return restarted, nil
	})
	if err != nil || !restarted {
		return false, err
	}
	_, err = s.engine.start(ctx, s.input(&now))
	return true, err
}

// Cancel records a customer's cancellation and answers it with an event: it was recorded, after which the order does not ship, or it was
// too late. The request may arrive before the order, and any number of times. If the saga cannot be woken now, the error makes the event
// come again.
func (s *Sagas) Cancel(ctx context.Context, request contracts.OrderCancellationRequested) error {
	sr, err := s.records.Change(ctx, request.OrderID, func(sr *record.Saga) (bool, error) {
		return sr.Cancel(request.Reason, request.RequestedAt), nil
	})
	if err != nil {
		return fmt.Errorf("cancel %s: %w", request.OrderID, err)
	}
	if sr.Ended() {
		return saga.AnnounceAgain(ctx, s.events, &sr, s.now().UTC())
	}
	answered := sr
	if !sr.Started() {
		answered.Order.CustomerID = request.CustomerID // the record does not hold the order yet
	}
	err = saga.AnswerCancellation(ctx, s.events, &answered, s.now().UTC())
	if sr.Started() && sr.Cancelled() {
		err = errors.Join(err, s.engine.wake(ctx, request.OrderID))
	}
	return err
}

// Decide records a person's decision on an order that waits for approval. The error is a *record.Error if the decision is refused: a
// different one was made before, or no approval was requested.
func (s *Sagas) Decide(ctx context.Context, orderID string, approved bool, approver, reason string) (record.Saga, error) {
	return s.decide(ctx, orderID, func(sr *record.Saga) (bool, error) { return sr.Decide(approved, approver, reason, s.now()) })
}

// Repair records a person's order to try failed compensations again. The error is a *record.Error if it is refused.
func (s *Sagas) Repair(ctx context.Context, orderID, actor, reason string) (record.Saga, error) {
	return s.decide(ctx, orderID, func(sr *record.Saga) (bool, error) { return sr.Repair(actor, reason, s.now()) })
}

func (s *Sagas) decide(ctx context.Context, orderID string, decide func(*record.Saga) (bool, error)) (record.Saga, error) {
	sr, err := s.records.Change(ctx, orderID, func(sr *record.Saga) (bool, error) {
		if !sr.Started() {
			return false, record.ErrUnknown(orderID)
		}
		return decide(sr)
	})
	if err != nil {
		return sr, err
	}
	if err := s.engine.wake(ctx, orderID); err != nil {
		s.logger.WarnContext(ctx, "decision recorded but the saga could not be woken; the reconciler will wake it",
			slog.String("order_id", orderID), slog.Any("error", err))
	}
	return sr, nil
}
