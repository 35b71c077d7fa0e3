package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/dapr/durabletask-go/api"
	"github.com/dapr/durabletask-go/workflow"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waybill/contracts"
	"waybill/platform/clock"
	"waybill/platform/retryable"
	"waybill/services/fulfillment/internal/record"
)

// Control starts sagas, and takes what people decide about those that run. A decision counts once it stands in the journal;
// the saga is then told to look, again by the watchdog if need be. It may be used by many goroutines.
type Control struct {
	engine  Engine
	records AllRecords
	events  Events
	limits  Limits
	// stuckAfter is how long a saga may run without waiting for anybody.
	stuckAfter time.Duration
	logger     *slog.Logger
	now        func() time.Time
	// moved has when each saga was last seen to have moved.
	moved *clock.Tracker[string]
}

// Engine is the part of the workflow client that is needed to start sagas, to wake them, and to end what cannot go on.
type Engine interface {
	ScheduleWorkflow(ctx context.Context, name string, options ...workflow.NewWorkflowOptions) (string, error)
	FetchWorkflowMetadata(ctx context.Context, id string, options ...workflow.FetchWorkflowMetadataOptions) (*workflow.WorkflowMetadata, error)
	RaiseEvent(ctx context.Context, id, name string, options ...workflow.RaiseEventOptions) error
	TerminateWorkflow(ctx context.Context, id string, options ...workflow.TerminateOptions) error
	GetInstanceHistory(ctx context.Context, id string, options ...workflow.GetInstanceHistoryOptions) (*workflow.GetInstanceHistoryResponse, error)
}

// AllRecords is what Control needs of the saga records.
type AllRecords interface {
	Records
	// Begin records that a saga is to run. Of many at once exactly one is the first.
	Begin(ctx context.Context, order contracts.Order) (e record.Saga, first bool, err error)
	// Open and Approvals show visit the sagas that are not known to have ended, or that asked for an approval, in batches, and
	// forget those whose order ids visit returns.
	Open(ctx context.Context, visit func(context.Context, []record.Saga) (forget []string, err error)) error
	Approvals(ctx context.Context, visit func(context.Context, []record.Saga) (forget []string, err error)) error
}

// ControlOptions is what a Control stands on.
type ControlOptions struct {
	Engine  Engine
	Records AllRecords
	Events  Events
	// Limits go with every saga that starts from now on.
	Limits Limits
	// StuckAfter is how long a saga may run without waiting for anybody until it counts as stuck.
	StuckAfter time.Duration
	Logger     *slog.Logger
	Now        func() time.Time
}

// NewControl returns a Control.
func NewControl(o ControlOptions) *Control {
	return &Control{
		engine: o.Engine, records: o.Records, events: o.Events, limits: o.Limits, stuckAfter: o.StuckAfter, logger: o.Logger, now: o.Now,
		moved: clock.NewTracker[string](o.Now),
	}
}

// engineTimeout bounds a call to the workflow engine, which blocks while no worker is connected or its scheduler is down.
const engineTimeout = 10 * time.Second

// ErrEngine says that the workflow engine could not be asked. What was asked of it may have happened all the same; ask
// again.
var ErrEngine = retryable.New("the workflow engine is unavailable")

// engineFailed marks a failed call of the engine with ErrEngine, unless the engine never takes such a call.
func engineFailed(err error) error {
	if retryable.IsPermanent(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrEngine, err)
}

// Start starts the order's saga unless it was started before. It may be called any number of times, at the same time too;
// whoever calls it again has missed something, so what the saga last had to say is announced again. The journal comes first
// because the engine runs a finished workflow again when it is asked to.
func (c *Control) Start(ctx context.Context, order contracts.Order) error {
	e, first, err := c.records.Begin(ctx, order)
	if err != nil {
		return fmt.Errorf("start the saga of %s: %w", order.OrderID, err)
	}
	if first {
		runs, err := c.schedule(ctx, &e)
		if err != nil || !runs {
			return err
		}
		// The engine has the saga and the journal did not: its store was lost. What the saga waits for it records again when it looks.
		c.logger.WarnContext(ctx, "the journal lost the entry of a saga that is at work; it is recorded again", slog.String("order_id", order.OrderID))
		return c.wake(ctx, order.OrderID)
	}
	if !e.Ended() {
		if _, err := c.revive(ctx, &e); err != nil {
			return err
		}
	}
	return c.repeat(ctx, &e)
}

// repeat announces what the saga last had to say.
func (c *Control) repeat(ctx context.Context, e *record.Saga) error {
	switch {
	case e.Ended():
		payload, err := announced(e)
		if err != nil {
			return err
		}
		if err := c.events.Publish(ctx, e.Announced.ID, payload); err != nil {
			return fmt.Errorf("repeat the outcome of %s: %w", e.Order.OrderID, err)
		}
		return answerCancellation(ctx, c.events, e, c.now().UTC())
	case e.AwaitsRepair():
		return tellOfHalt(ctx, c.events, e)
	case e.AwaitsApproval():
		return askForApproval(ctx, c.events, e.Order, e.Approval)
	default:
		return nil
	}
}

// announced is the event that told the saga's outcome.
func announced(e *record.Saga) (contracts.Payload, error) {
	var payload contracts.Payload
	var err error
	switch e.Announced.Type {
	case contracts.TypeFulfillmentCompleted:
		payload, err = decoded[contracts.FulfillmentCompleted](e.Announced.Data)
	case contracts.TypeFulfillmentFailed:
		payload, err = decoded[contracts.FulfillmentFailed](e.Announced.Data)
	case contracts.TypeFulfillmentCancelled:
		payload, err = decoded[contracts.FulfillmentCancelled](e.Announced.Data)
	default:
		err = errors.New("it is of the type " + e.Announced.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("read the outcome of %s: %w", e.Order.OrderID, err)
	}
	return payload, nil
}

func decoded[T contracts.Payload](data []byte) (payload T, err error) {
	return payload, json.Unmarshal(data, &payload)
}

// atOnce is the time at which a saga starts: one that is past on every clock. Without a start time the engine's answer waits until
// the saga has begun, which takes as long as the engine is busy. The time of this process's own clock would delay the saga by as
// much as that clock is ahead of the engine's.
var atOnce = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)

// schedule has the engine run the saga, and reports whether it ran already.
func (c *Control) schedule(ctx context.Context, e *record.Saga) (runs bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	in := Input{
		Order: e.Order, Limits: c.limits, Decided: e.Cancelled(), Restart: e.Restarts,
		OneByOne: true, Cancellable: true, KnowsBusy: true, NotifyWithOutcome: true,
	}
	if e.Blocked != nil {
		in.Failure = &e.Blocked.Failure
	}
	_, err = c.engine.ScheduleWorkflow(ctx, workflowFulfillOrder, workflow.WithInstanceID(e.Order.OrderID),
		workflow.WithInput(in), workflow.WithStartTime(atOnce))
	switch {
	case err == nil:
		return false, nil
	case alreadyRuns(err):
		return true, nil
	default:
		return false, fmt.Errorf("start the saga of %s: %w", e.Order.OrderID, engineFailed(err))
	}
}

// revive runs a saga anew that the engine does not know, because the process that began it died before it got there or because
// the engine's own state is gone, and one that ended without an outcome; every step finds what it did before. It reports
// whether there was something to do.
func (c *Control) revive(ctx context.Context, e *record.Saga) (bool, error) {
	if runs, err := c.runs(ctx, e.Order.OrderID); err != nil || runs {
		return false, err
	}
	restarted := false
	now, err := c.records.Change(ctx, e.Order.OrderID, func(e *record.Saga) (bool, error) {
		restarted = e.Restart(c.now()) // false when it has ended properly since the entry was read
		return restarted, nil
	})
	if err != nil || !restarted {
		return false, err
	}
	_, err = c.schedule(ctx, &now)
	return true, err
}

// runs reports whether the engine has the saga at work.
func (c *Control) runs(ctx context.Context, orderID string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	metadata, err := c.engine.FetchWorkflowMetadata(ctx, orderID)
	switch {
	case err != nil && notFound(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for the saga of %s: %w", orderID, engineFailed(err))
	}
	switch metadata.RuntimeStatus {
	case workflow.StatusCompleted, workflow.StatusFailed, workflow.StatusTerminated, workflow.StatusCanceled:
		return false, nil
	default:
		return true, nil
	}
}

// wake tells a saga to look into the journal.
func (c *Control) wake(ctx context.Context, orderID string) error {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	if err := c.engine.RaiseEvent(ctx, orderID, signal); err != nil {
		return fmt.Errorf("wake the saga of %s: %w", orderID, engineFailed(err))
	}
	return nil
}

// Cancel records a customer's wish to cancel, and answers it with an event: recorded, after which the order is not shipped, or
// too late. The wish may arrive before the order, and any number of times. The saga follows it as soon as it can; if it cannot
// be woken now, the error has the event come again.
func (c *Control) Cancel(ctx context.Context, request contracts.OrderCancellationRequested) error {
	e, err := c.records.Change(ctx, request.OrderID, func(e *record.Saga) (bool, error) {
		return e.Cancel(request.Reason, request.RequestedAt), nil
	})
	if err != nil {
		return fmt.Errorf("cancel %s: %w", request.OrderID, err)
	}
	if e.Ended() {
		return c.repeat(ctx, &e)
	}
	answered := e
	if !e.Started() {
		answered.Order.CustomerID = request.CustomerID // the saga begins with the cancellation
	}
	err = answerCancellation(ctx, c.events, &answered, c.now().UTC())
	if e.Started() && e.Cancelled() {
		err = errors.Join(err, c.wake(ctx, request.OrderID))
	}
	return err
}

// Decide takes a person's decision on an order that waits for approval. A *record.Error is the refusal of a second, other
// decision, and of one that nobody asked for.
func (c *Control) Decide(ctx context.Context, orderID string, approved bool, approver, reason string) (record.Saga, error) {
	return c.decide(ctx, orderID, func(e *record.Saga) (bool, error) { return e.Decide(approved, approver, reason, c.now()) })
}

// Repair has a saga that stands still try again what could not be undone. A *record.Error is a refusal.
func (c *Control) Repair(ctx context.Context, orderID, actor, reason string) (record.Saga, error) {
	return c.decide(ctx, orderID, func(e *record.Saga) (bool, error) { return e.Repair(actor, reason, c.now()) })
}

func (c *Control) decide(ctx context.Context, orderID string, decide func(e *record.Saga) (bool, error)) (record.Saga, error) {
	e, err := c.records.Change(ctx, orderID, func(e *record.Saga) (bool, error) {
		if !e.Started() {
			return false, record.ErrUnknown(orderID)
		}
		return decide(e)
	})
	if err != nil {
		return e, err
	}
	// The decision stands. If the saga cannot be told now, the watchdog tells it.
	if err := c.wake(ctx, orderID); err != nil {
		c.logger.WarnContext(ctx, "a decision stands and its saga was not woken; the watchdog will", slog.Any("error", err))
	}
	return e, nil
}

func notFound(err error) bool {
	return errors.Is(err, api.ErrInstanceNotFound) || status.Code(err) == codes.NotFound || strings.Contains(err.Error(), "no such instance")
}

func alreadyRuns(err error) bool {
	return errors.Is(err, api.ErrDuplicateInstance) || status.Code(err) == codes.AlreadyExists || strings.Contains(err.Error(), "already exists")
}
