package saga

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dapr/durabletask-go/task"
	"github.com/dapr/durabletask-go/workflow"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/partner"
	"waybill/services/fulfillment/internal/record"
)

// Input is what FulfillOrder starts with.
type Input struct {
	contracts.Order
	Limits Limits `json:"limits"`
	// Decided says that somebody decided about the order before its saga began.
	Decided bool `json:"decided,omitempty"`
	// Restart is how often the saga was run before and lost by the engine. Partners answer what was done as they did then, and
	// refuse what was undone.
	Restart int `json:"restart,omitempty"`
	// OneByOne says that the saga announces its outcome first and then asks for the messages, one after the other: results of
	// activities that arrive together make Dapr's engine wait for a second (ADR 27). A saga that was started without it does
	// all of that at once, as its history says.
	OneByOne bool `json:"one_by_one,omitempty"`
	// Cancellable says that the saga retries its forward steps itself, so that a cancellation ends a step between two attempts
	// (ADR 21), and takes no payment step for a free order. A saga that was started without it has the engine retry. The field
	// stands here because ctx.IsPatched decides by whether the engine has more events at hand when it is asked, and a cancellation
	// that arrives with the start is one.
	Cancellable bool `json:"cancellable,omitempty"`
	// KnowsBusy says that the saga understands the answer that this service is busy (ADR 28): it then runs the step again later,
	// which is no attempt, and the time for a reservation begins with the first attempt that fails. For a saga that was started
	// without it, busy is an error.
	KnowsBusy bool `json:"knows_busy,omitempty"`
	// NotifyWithOutcome says that the activity that announces the outcome requests the customer's messages as well: that saves
	// three turns of the engine (ADR 34). A saga that was started without it requests them in activities of their own.
	NotifyWithOutcome bool `json:"notify_with_outcome,omitempty"`
	// Failure is why a restarted saga was undoing what it had done, where that is known.
	Failure *partner.Reason `json:"failure,omitempty"`
}

// Result is what FulfillOrder ends with.
type Result struct {
	Outcome        record.Outcome `json:"outcome"`
	OrderID        string         `json:"order_id"`
	TrackingNumber string         `json:"tracking_number,omitempty"`
	Code           string         `json:"code,omitempty"`
	Error          string         `json:"error,omitempty"`
	CompletedAt    time.Time      `json:"completed_at"`
}

// fulfillOrder is the way of an order through fulfilment. Like every workflow function it is replayed from its first line,
// so it only computes and schedules.
func fulfillOrder(ctx *workflow.WorkflowContext) (any, error) {
	var in Input
	if err := ctx.GetInput(&in); err != nil {
		return nil, fmt.Errorf("read the order: %w", err)
	}
	r := run{
		ctx: ctx, order: in.Order, limits: in.Limits, restart: in.Restart, failure: in.Failure,
		oneByOne: in.OneByOne, cancellable: in.Cancellable, knowsBusy: in.KnowsBusy, notifyWithOutcome: in.NotifyWithOutcome,
	}
	if r.restart > 0 {
		// Nobody knows how far it came. An undo of what was never done does nothing.
		r.undos = []string{activityRefundPayment, activityReleaseInventory, activityCancelShipment}
	}
	free := r.cancellable && r.order.TotalAmount == 0
	if free && r.restart > 0 {
		r.undos = r.undos[1:] // nothing is charged, so there is nothing to refund
	}

	r.look(in.Decided)
	if !free {
		r.step(activityValidatePayment, activityRefundPayment, r.limits.step())
		r.look(false)
	}
	r.step(activityReserveInventory, activityReleaseInventory, r.limits.reservation())
	r.look(false)
	r.approval()
	shipment := r.step(activityProcessShipment, activityCancelShipment, r.limits.step()).Shipment

	if r.failure != nil {
		return r.fail()
	}
	return r.complete(shipment)
}

// run is one order's way through the workflow function. It is built anew on every replay.
type run struct {
	ctx    *workflow.WorkflowContext
	order  contracts.Order
	limits Limits
	// undos are the activities that undo what was done so far, oldest first.
	undos   []string
	failure *partner.Reason
	restart int
	// These are those of the Input.
	oneByOne, cancellable, knowsBusy, notifyWithOutcome bool
}

const (
	// codeTechnical says that a step went on failing for technical reasons until its retries were used up.
	codeTechnical = "technical_failure"
	// codeReservationTimeout says that the stock could not be asked for as long as a reservation may take.
	codeReservationTimeout = "reservation_timeout"
	// codeInterrupted says that a restarted saga found that it had been undoing what it did, and no longer knows why.
	codeInterrupted = "interrupted"
)

// step runs an activity unless the saga has failed already. Its undo is recorded before it runs, for a lost answer may
// hide an effect; a refusal is an answer, and says that there was none. A cancellation is no such answer: it says nothing of
// the attempts before.
func (r *run) step(activity, undo string, policy *workflow.RetryPolicy) StepResult {
	var result StepResult
	if r.failure != nil {
		return result
	}
	if r.restart == 0 {
		r.undos = append(r.undos, undo)
	}
	err := r.attempt(activity, policy, &result)
	switch {
	case r.failure != nil: // cancelled between two attempts
	case err != nil && activity == activityReserveInventory:
		r.failure = &partner.Reason{Code: codeReservationTimeout, Message: fmt.Sprintf("The stock could not be reserved within %s.", r.limits.Reservation)}
	case err != nil:
		r.technical(activity)
	case result.Refused != nil && result.Refused.Undone:
		r.failure = &partner.Reason{Code: codeInterrupted, Message: "The order could not be fulfilled; undoing it was interrupted, and is now completed."}
	case result.Refused != nil && result.Refused.Code == record.CodeCancelled:
		r.failure = result.Refused
	case result.Refused != nil:
		r.failure = result.Refused
		if r.restart == 0 {
			r.undos = r.undos[:len(r.undos)-1]
		}
	}
	return result
}

// attempt runs a forward step's activity as often as the policy says, until it answers or the saga has failed. Between two
// attempts it listens for a cancellation, which the engine's own retries would not. As long as the service is busy, it runs the
// activity again; neither the run nor the time of it counts.
func (r *run) attempt(activity string, policy *workflow.RetryPolicy, result *StepResult) error {
	input := StepInput{Order: r.order, KnowsBusy: r.knowsBusy}
	if !r.cancellable {
		return r.call(activity, input, policy, result)
	}
	began := r.ctx.CurrentTimeUTC()
	for failed, busy := 0, 0; ; {
		called := r.ctx.CurrentTimeUTC()
		*result = StepResult{}
		err := r.ctx.CallActivity(activity, workflow.WithActivityInput(input)).Await(result)
		if err == nil && !result.Busy {
			return nil
		}
		if err == nil {
			busy++
			r.rest(r.limits.busy(busy))
			began = began.Add(r.ctx.CurrentTimeUTC().Sub(called))
		} else {
			if failed++; failed == 1 && r.knowsBusy {
				began = r.ctx.CurrentTimeUTC()
			}
			rest, again := pause(policy, failed, began, r.ctx.CurrentTimeUTC())
			if !again {
				return err
			}
			r.rest(rest)
		}
		if r.failure != nil {
			return nil //nolint:nilerr // the saga ends for another reason than this attempt
		}
	}
}

// rest lets a time pass, unless a cancellation ends the saga before.
func (r *run) rest(pause time.Duration) {
	until := r.ctx.CurrentTimeUTC().Add(pause)
	for r.failure == nil && !r.wait(max(0, until.Sub(r.ctx.CurrentTimeUTC()))) {
		r.readDecisions()
	}
}

func (r *run) technical(activity string) {
	r.failure = &partner.Reason{Code: codeTechnical, Message: activity + " did not succeed in spite of its retries."}
}

func (r *run) call(activity string, input any, policy *workflow.RetryPolicy, result any) error {
	return r.schedule(activity, input, policy).Await(result)
}

func (r *run) schedule(activity string, input any, policy *workflow.RetryPolicy) workflow.Task {
	return r.ctx.CallActivity(activity, workflow.WithActivityInput(input), workflow.WithActivityRetryPolicy(policy))
}

// look ends the saga if its customer cancelled the order. It asks the journal only when a signal says that there is news.
func (r *run) look(news bool) {
	for r.ctx.WaitForExternalEvent(signal, 0).Await(nil) == nil {
		news = true
	}
	if news && r.failure == nil {
		r.readDecisions()
	}
}

// readDecisions ends the saga if the journal says that its customer cancelled the order.
func (r *run) readDecisions() {
	var d Decisions
	if err := r.call(activityReadDecisions, StepInput{Order: r.order}, r.limits.lasting(), &d); err != nil {
		r.technical(activityReadDecisions)
		return
	}
	r.failure = d.Refused
}

// approval has a person decide about an order that is large, and waits for that as long as the limits say.
func (r *run) approval() {
	if r.failure != nil || !r.limits.needsApproval(r.order) {
		return
	}
	now := r.ctx.CurrentTimeUTC()
	asked := ApprovalInput{Order: r.order, RequestedAt: now, ExpiresAt: now.Add(r.limits.Approval)}
	var first Asked // a restarted saga asked before
	if r.call(activityRequestApproval, asked, r.limits.lasting(), &first) != nil {
		r.technical(activityRequestApproval)
		return
	}
	until := asked.ExpiresAt
	if !first.ExpiresAt.IsZero() {
		until = first.ExpiresAt
	}
	// After a restart the signal of a decision may be gone.
	for news := r.restart > 0; ; news = false {
		expired := !news && r.wait(max(0, until.Sub(r.ctx.CurrentTimeUTC()))) // a negative wait would never end
		var d Decisions
		if r.call(activitySettleApproval, ApprovalInput{Order: r.order, Expired: expired}, r.limits.lasting(), &d) != nil {
			r.technical(activitySettleApproval)
			return
		}
		if r.failure = d.Refused; d.Approved || d.Refused != nil {
			return
		}
		// A signal that nothing stands behind in the journal approves nothing.
	}
}

// wait returns at the next signal, or, with true, when the time is up; a negative time never is.
func (r *run) wait(timeout time.Duration) (expired bool) {
	return errors.Is(r.ctx.WaitForExternalEvent(signal, timeout).Await(nil), task.ErrTaskCanceled)
}

func (r *run) complete(shipment partner.Shipment) (any, error) {
	report := Report{Order: r.order, Outcome: record.Completed, Shipment: shipment}
	if err := r.report(&report, false); err != nil {
		return nil, err
	}
	return Result{
		Outcome: record.Completed, OrderID: r.order.OrderID, TrackingNumber: shipment.TrackingNumber, CompletedAt: r.ctx.CurrentTimeUTC(),
	}, nil
}

// fail undoes what was done and reports why.
func (r *run) fail() (any, error) {
	undone, refunded, err := r.undo()
	if err != nil {
		return nil, err
	}
	report := Report{Order: r.order, Outcome: record.Failed, Failure: r.failure, Undone: undone}
	if r.failure.Code == record.CodeCancelled {
		report.Outcome = record.Cancelled
	}
	if err := r.report(&report, refunded); err != nil {
		return nil, err
	}
	return Result{
		Outcome: report.Outcome, OrderID: r.order.OrderID, Code: report.Failure.Code, Error: report.Failure.Message, CompletedAt: r.ctx.CurrentTimeUTC(),
	}, nil
}

// report announces the outcome and requests the customer's messages. The report is changed to what was recorded, from which the
// message follows: a cancellation can still arrive before it. A message that cannot be requested changes nothing about the
// order.
func (r *run) report(report *Report, refunded bool) error {
	if !r.oneByOne {
		return r.reportAtOnce(report, refunded)
	}
	if r.notifyWithOutcome {
		report.Notify, report.Refunded = true, refunded
	}
	var recorded Reported
	if err := r.call(activityUpdateOrderStatus, *report, r.limits.lasting(), &recorded); err != nil {
		return fmt.Errorf("report the outcome: %w", err)
	}
	*report = report.recorded(recorded)
	if recorded.Notified {
		return nil
	}
	for _, m := range messages {
		_ = r.call(m.activity, report.message(refunded), r.limits.lasting(), nil) // the activity logs it
	}
	return nil
}

// reportAtOnce is the report of a saga that was started by the first release.
func (r *run) reportAtOnce(report *Report, refunded bool) error {
	announced := r.schedule(activityUpdateOrderStatus, *report, r.limits.lasting())
	sent := make([]workflow.Task, len(messages))
	for i := range messages {
		sent[i] = r.schedule(messages[i].activity, report.message(refunded), r.limits.lasting())
	}
	err := announced.Await(nil)
	for _, s := range sent {
		_ = s.Await(nil) // the activity logs it
	}
	if err != nil {
		return fmt.Errorf("report the outcome: %w", err)
	}
	return nil
}

// undo undoes what was done, in a workflow of its own, newest first. What cannot be undone stands until a person has it
// repaired.
func (r *run) undo() (undone []string, refunded bool, err error) {
	left := slices.Clone(r.undos)
	slices.Reverse(left)
	for round := 1; len(left) > 0; round++ {
		var c Compensation
		if r.ctx.CallChildWorkflow(workflowCompensateOrder,
			workflow.WithChildWorkflowInput(CompensationInput{Order: r.order, Undos: left, Limits: r.limits}),
			workflow.WithChildWorkflowInstanceID(compensationID(r.order.OrderID, round, r.restart))).Await(&c) != nil {
			c = Compensation{NotUndone: left}
		}
		undone, left, refunded = append(undone, c.Undone...), c.NotUndone, refunded || c.Refunded
		if len(left) == 0 {
			break
		}
		halt := HaltInput{Order: r.order, Round: round, Failure: *r.failure, Undone: undone, NotUndone: left}
		if err := r.call(activityAskForRepair, halt, r.limits.lasting(), nil); err != nil {
			return nil, false, fmt.Errorf("ask for a repair: %w", err)
		}
		for repaired, news := false, r.restart > 0; !repaired; news = false {
			if !news {
				r.wait(-1)
			}
			if err := r.call(activityTakeRepair, halt, r.limits.lasting(), &repaired); err != nil {
				return nil, false, fmt.Errorf("take the repair: %w", err)
			}
		}
	}
	return undone, refunded, nil
}

// CompensationInput is what CompensateOrder undoes: the activities to call, newest step first.
type CompensationInput struct {
	Order  contracts.Order `json:"order"`
	Undos  []string        `json:"undos"`
	Limits Limits          `json:"limits"`
}

// Compensation is what became of the undos. NotUndone is the one that failed and those behind it.
type Compensation struct {
	Undone    []string `json:"undone,omitempty"`
	NotUndone []string `json:"not_undone,omitempty"`
	// Refunded says that money was given back.
	Refunded bool `json:"refunded,omitempty"`
}

// compensateOrder undoes an order's steps one after the other and stops at the first undo that cannot be done: the money
// is not given back for a parcel that could not be called back.
func compensateOrder(ctx *workflow.WorkflowContext) (any, error) {
	var in CompensationInput
	if err := ctx.GetInput(&in); err != nil {
		return nil, fmt.Errorf("read what to undo: %w", err)
	}
	r := run{ctx: ctx, order: in.Order, limits: in.Limits}
	var c Compensation
	for i, undo := range in.Undos {
		var result StepResult
		if err := r.call(undo, StepInput{Order: in.Order}, in.Limits.lasting(), &result); err != nil {
			c.NotUndone = in.Undos[i:]
			return c, nil //nolint:nilerr // what is left is the result
		}
		c.Undone, c.Refunded = append(c.Undone, undo), c.Refunded || result.Refunded
	}
	return c, nil
}
