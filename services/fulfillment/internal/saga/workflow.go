package saga

import (
	"errors"
	"fmt"
	"time"

	"github.com/dapr/durabletask-go/task"
	"github.com/dapr/durabletask-go/workflow"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/partner"
	"waybill/services/fulfillment/internal/record"
)

// Input is the input of the workflow. A recorded history has the fields of its release, so a field that is missing selects the behaviour
// of that release.
type Input struct {
	contracts.Order
	Limits Limits `json:"limits"`
	// Decided says that the order was cancelled before its saga started.
	Decided bool `json:"decided,omitempty"`
	// Restart is how often the saga was started before and lost by the engine. Partners answer a repeated step as they did then, and
	// refuse a step that was compensated.
	Restart int `json:"restart,omitempty"`
	// OneByOne: the saga announces its outcome first and then requests the messages, one after the other. Activity results that arrive
	// together make Dapr's engine wait for a second (ADR 27). Without it, the saga schedules all of them at once.
	OneByOne bool `json:"one_by_one,omitempty"`
	// Cancellable: the saga retries its forward steps itself, so that a cancellation ends a step between two attempts (ADR 21), and a
	// free order has no payment step. Without it, the engine retries. This is a field because ctx.IsPatched decides by whether the
	// engine has more events when it is called, and a cancellation that arrives with the start is such an event.
	Cancellable bool `json:"cancellable,omitempty"`
	// KnowsBusy: the saga understands the result busy (ADR 28). It then runs the step again later without counting an attempt, and the
	// time for a reservation begins with the first failed attempt. Without it, busy is an error.
	KnowsBusy bool `json:"knows_busy,omitempty"`
	// NotifyWithOutcome: the activity that announces the outcome also requests the customer's messages. That saves three activities
	// (ADR 34). Without it, each message has an activity of its own.
	NotifyWithOutcome bool `json:"notify_with_outcome,omitempty"`
	// Failure is why a restarted saga was compensating, if that is known.
	Failure *partner.Reason `json:"failure,omitempty"`
}

// CurrentInput returns an Input that selects the behaviour of this release.
func CurrentInput(order contracts.Order, limits Limits) Input {
	return Input{Order: order, Limits: limits, OneByOne: true, Cancellable: true, KnowsBusy: true, NotifyWithOutcome: true}
}

// Result is the result of the workflow.
type Result struct {
	Outcome        record.Outcome `json:"outcome"`
	OrderID        string         `json:"order_id"`
	TrackingNumber string         `json:"tracking_number,omitempty"`
	Code           string         `json:"code,omitempty"`
	Error          string         `json:"error,omitempty"`
	CompletedAt    time.Time      `json:"completed_at"`
}

// fulfillOrder is the workflow: the whole way of an order through fulfilment. The engine replays it from its first line, so it only
// computes and schedules.
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
		// It is unknown which steps were completed. The compensation of a step that never ran does nothing.
		r.compensations = []string{activityRefundPayment, activityReleaseInventory, activityCancelShipment}
	}
	free := r.cancellable && r.order.TotalAmount == 0
	if free && r.restart > 0 {
		r.compensations = r.compensations[1:] // nothing was charged
	}

	r.checkCancelled(in.Decided)
	if !free {
		r.step(activityValidatePayment, activityRefundPayment, r.limits.stepPolicy())
		r.checkCancelled(false)
	}
	r.step(activityReserveInventory, activityReleaseInventory, r.limits.reservationPolicy())
	r.checkCancelled(false)
	r.awaitApproval()
	shipment := r.step(activityProcessShipment, activityCancelShipment, r.limits.stepPolicy()).Shipment

	if r.failure != nil {
		return r.fail()
	}
	return r.complete(shipment)
}

// run is one execution of the workflow function. Every replay makes a new one.
type run struct {
	ctx    *workflow.WorkflowContext
	order  contracts.Order
	limits Limits
	// compensations are the activities that compensate the steps so far, oldest first.
	compensations []string
	// failure is why the order cannot be fulfilled; nil as long as it can.
	failure *partner.Reason
	restart int
	// The fields of Input with these names.
	oneByOne, cancellable, knowsBusy, notifyWithOutcome bool
}

const (
	// codeTechnical says that a step used up its attempts because of technical errors.
	codeTechnical = "technical_failure"
	// codeReservationTimeout says that the stock could not be reserved in time because of technical errors.
	codeReservationTimeout = "reservation_timeout"
	// codeInterrupted says that a restarted saga found that it had been compensating, and does not know why.
	codeInterrupted = "interrupted"
)

// step runs an activity unless the saga has failed. It records the compensation before the activity runs, because a lost reply may hide
// an effect. A refusal is a reply that says that there was no effect, so it removes the compensation. A cancellation does not: it says
// nothing about earlier attempts.
func (r *run) step(activity, compensation string, policy *workflow.RetryPolicy) StepResult {
	var result StepResult
	if r.failure != nil {
		return result
	}
	if r.restart == 0 {
		r.compensations = append(r.compensations, compensation)
	}
	err := r.attempt(activity, policy, &result)
	switch {
	case r.failure != nil: // cancelled between two attempts
	case err != nil && activity == activityReserveInventory:
		r.failure = &partner.Reason{Code: codeReservationTimeout, Message: fmt.Sprintf("The stock could not be reserved within %s.", r.limits.Reservation)}
	case err != nil:
		r.failTechnically(activity)
	case result.Refused != nil && result.Refused.Undone:
		r.failure = &partner.Reason{Code: codeInterrupted, Message: "The order could not be fulfilled; undoing it was interrupted, and is now completed."}
	case result.Refused != nil && result.Refused.Code == record.CodeCancelled:
		r.failure = result.Refused
	case result.Refused != nil:
		r.failure = result.Refused
		if r.restart == 0 {
			r.compensations = r.compensations[:len(r.compensations)-1]
		}
	}
	return result
}

// attempt runs the activity of a forward step until it replies, the policy allows no further attempt, or the saga has failed. Between two
// attempts it checks for a cancellation, which the engine's own retries would not. While the service is busy it runs the activity again;
// such a run is no attempt, and its time does not count.
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
			r.pauseUnlessCancelled(r.limits.busyBackoff(busy))
			began = began.Add(r.ctx.CurrentTimeUTC().Sub(called))
		} else {
			if failed++; failed == 1 && r.knowsBusy {
				began = r.ctx.CurrentTimeUTC()
			}
			pause, again := backoff(policy, failed, began, r.ctx.CurrentTimeUTC())
			if !again {
				return err
			}
			r.pauseUnlessCancelled(pause)
		}
		if r.failure != nil {
			return nil //nolint:nilerr // the saga ends for another reason than this attempt
		}
	}
}

// pauseUnlessCancelled returns after d, or earlier if the order is cancelled.
func (r *run) pauseUnlessCancelled(d time.Duration) {
	until := r.ctx.CurrentTimeUTC().Add(d)
	for r.failure == nil && r.waitForSignal(max(0, until.Sub(r.ctx.CurrentTimeUTC()))) {
		r.readDecisions()
	}
}

// checkCancelled ends the saga if the customer cancelled the order. It reads the saga record only if changed is true or a signal arrived.
func (r *run) checkCancelled(changed bool) {
	for r.ctx.WaitForExternalEvent(Signal, 0).Await(nil) == nil {
		changed = true
	}
	if changed && r.failure == nil {
		r.readDecisions()
	}
}

// readDecisions ends the saga if the saga record says that the customer cancelled the order.
func (r *run) readDecisions() {
	var d Decisions
	if err := r.call(activityReadDecisions, StepInput{Order: r.order}, r.limits.lastingPolicy(), &d); err != nil {
		r.failTechnically(activityReadDecisions)
		return
	}
	r.failure = d.Refused
}

// awaitApproval requests the approval of a large order, and waits until it is decided or expires.
func (r *run) awaitApproval() {
	if r.failure != nil || !r.limits.needsApproval(r.order) {
		return
	}
	now := r.ctx.CurrentTimeUTC()
	request := ApprovalInput{Order: r.order, RequestedAt: now, ExpiresAt: now.Add(r.limits.Approval)}
	var requested ApprovalRequest
	if r.call(activityRequestApproval, request, r.limits.lastingPolicy(), &requested) != nil {
		r.failTechnically(activityRequestApproval)
		return
	}
	expires := request.ExpiresAt
	if !requested.ExpiresAt.IsZero() {
		expires = requested.ExpiresAt // a restarted saga requested it before
	}
	// The signal of a decision can be lost with the run that a restart replaces, so a restarted saga reads the record first.
	for changed := r.restart > 0; ; changed = false {
		expired := !changed && !r.waitForSignal(max(0, expires.Sub(r.ctx.CurrentTimeUTC()))) // a negative timeout would never end
		var d Decisions
		if r.call(activitySettleApproval, ApprovalInput{Order: r.order, Expired: expired}, r.limits.lastingPolicy(), &d) != nil {
			r.failTechnically(activitySettleApproval)
			return
		}
		if r.failure = d.Refused; d.Approved || d.Refused != nil {
			return
		}
		// A signal without a decision in the saga record approves nothing.
	}
}

// waitForSignal waits for the next signal and reports whether it arrived before the timeout. A negative timeout never ends.
func (r *run) waitForSignal(timeout time.Duration) (arrived bool) {
	return !errors.Is(r.ctx.WaitForExternalEvent(Signal, timeout).Await(nil), task.ErrTaskCanceled)
}

func (r *run) failTechnically(activity string) {
	r.failure = &partner.Reason{Code: codeTechnical, Message: activity + " did not succeed in spite of its retries."}
}

func (r *run) call(activity string, input any, policy *workflow.RetryPolicy, result any) error {
	return r.schedule(activity, input, policy).Await(result)
}

func (r *run) schedule(activity string, input any, policy *workflow.RetryPolicy) workflow.Task {
	return r.ctx.CallActivity(activity, workflow.WithActivityInput(input), workflow.WithActivityRetryPolicy(policy))
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

// fail compensates the completed steps and reports why.
func (r *run) fail() (any, error) {
	undone, refunded, err := r.compensate()
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

// report announces the outcome and requests the customer's messages. It changes report to what was recorded, because a cancellation can
// still arrive before; the messages follow from that. A message that cannot be requested does not change the order's outcome.
func (r *run) report(report *Report, refunded bool) error {
	if !r.oneByOne {
		return r.reportAtOnce(report, refunded)
	}
	if r.notifyWithOutcome {
		report.Notify, report.Refunded = true, refunded
	}
	var recorded Reported
	if err := r.call(activityUpdateOrderStatus, *report, r.limits.lastingPolicy(), &recorded); err != nil {
		return fmt.Errorf("report the outcome: %w", err)
	}
	*report = report.recorded(recorded)
	if recorded.Notified {
		return nil
	}
	for _, m := range messages {
		_ = r.call(m.activity, report.message(refunded), r.limits.lastingPolicy(), nil) // the activity logs its error
	}
	return nil
}

// reportAtOnce is the report of sagas that the first release started.
func (r *run) reportAtOnce(report *Report, refunded bool) error {
	announced := r.schedule(activityUpdateOrderStatus, *report, r.limits.lastingPolicy())
	sent := make([]workflow.Task, len(messages))
	for i := range messages {
		sent[i] = r.schedule(messages[i].activity, report.message(refunded), r.limits.lastingPolicy())
	}
	err := announced.Await(nil)
	for _, s := range sent {
		_ = s.Await(nil) // the activity logs its error
	}
	if err != nil {
		return fmt.Errorf("report the outcome: %w", err)
	}
	return nil
}
