package saga

import (
	"fmt"
	"slices"
	"time"

	"github.com/dapr/durabletask-go/workflow"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/partner"
)

// Result is what FulfillOrder ends with.
type Result struct {
	Success           bool      `json:"success"`
	OrderID           string    `json:"order_id"`
	TrackingNumber    string    `json:"tracking_number,omitempty"`
	EstimatedDelivery time.Time `json:"estimated_delivery,omitzero"`
	Code              string    `json:"code,omitempty"`
	Error             string    `json:"error,omitempty"`
	Compensated       bool      `json:"compensated,omitempty"`
	CompletedAt       time.Time `json:"completed_at"`
}

// workflows are the saga's workflow functions. They are replayed from their first line, so they only compute and
// schedule.
type workflows struct{ limits Limits }

// fulfillOrder is the way of an order through fulfilment.
func (w workflows) fulfillOrder(ctx *workflow.WorkflowContext) (any, error) {
	var order contracts.Order
	if err := ctx.GetInput(&order); err != nil {
		return nil, fmt.Errorf("read the order: %w", err)
	}
	r := run{ctx: ctx, order: order, limits: w.limits}

	r.step(activityValidatePayment, activityRefundPayment, w.limits.step())
	r.step(activityReserveInventory, activityReleaseInventory, w.limits.reservation())
	shipment := r.step(activityProcessShipment, activityCancelShipment, w.limits.step())

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
}

// codeTechnical says that a step went on failing for technical reasons until its retries were used up.
const codeTechnical = "technical_failure"

// step runs an activity unless the saga has failed already. Its undo is recorded before it runs, for a lost answer may
// hide an effect; a refusal is an answer, and says that there was none.
func (r *run) step(activity, undo string, policy *workflow.RetryPolicy) StepResult {
	if r.failure != nil {
		return StepResult{}
	}
	r.undos = append(r.undos, undo)
	var result StepResult
	err := r.call(activity, StepInput{Order: r.order}, policy, &result)
	switch {
	case err != nil:
		r.failure = &partner.Reason{Code: codeTechnical, Message: activity + " did not succeed in spite of its retries."}
	case result.Refused != nil:
		r.undos = r.undos[:len(r.undos)-1]
		r.failure = result.Refused
	}
	return result
}

func (r *run) call(activity string, input any, policy *workflow.RetryPolicy, result any) error {
	return r.ctx.CallActivity(activity, workflow.WithActivityInput(input), workflow.WithActivityRetryPolicy(policy)).Await(result)
}

func (r *run) complete(shipment StepResult) (any, error) {
	report := Report{Order: r.order, Shipment: shipment.Shipment}
	if err := r.call(activityUpdateOrderStatus, report, r.limits.lasting(), nil); err != nil {
		return nil, fmt.Errorf("report the fulfilment: %w", err)
	}
	return Result{
		Success: true, OrderID: r.order.OrderID, TrackingNumber: shipment.Shipment.TrackingNumber,
		EstimatedDelivery: shipment.Shipment.EstimatedDelivery, CompletedAt: r.ctx.CurrentTimeUTC(),
	}, nil
}

// fail undoes what was done, in a workflow of its own, and reports the failure.
func (r *run) fail() (any, error) {
	var undone Compensation
	if len(r.undos) > 0 {
		slices.Reverse(r.undos)
		input := CompensationInput{Order: r.order, Undos: r.undos}
		err := r.ctx.CallChildWorkflow(workflowCompensateOrder, workflow.WithChildWorkflowInput(input),
			workflow.WithChildWorkflowInstanceID(compensationID(r.order.OrderID))).Await(&undone)
		if err != nil {
			undone = Compensation{NotUndone: r.undos}
		}
	}
	report := Report{Order: r.order, Failure: r.failure, Compensation: undone}
	if err := r.call(activityUpdateOrderStatus, report, r.limits.lasting(), nil); err != nil {
		return nil, fmt.Errorf("report the failure: %w", err)
	}
	return Result{
		OrderID: r.order.OrderID, Code: r.failure.Code, Error: r.failure.Message,
		Compensated: len(undone.NotUndone) == 0, CompletedAt: r.ctx.CurrentTimeUTC(),
	}, nil
}

// CompensationInput is what CompensateOrder undoes: the activities to call, newest step first.
type CompensationInput struct {
	Order contracts.Order `json:"order"`
	Undos []string        `json:"undos"`
}

// Compensation is what became of the undos. NotUndone is the one that failed and those behind it.
type Compensation struct {
	Undone    []string `json:"undone,omitempty"`
	NotUndone []string `json:"not_undone,omitempty"`
}

// compensateOrder undoes an order's steps one after the other and stops at the first undo that cannot be done: the money
// is not given back for a parcel that could not be called back.
func (w workflows) compensateOrder(ctx *workflow.WorkflowContext) (any, error) {
	var in CompensationInput
	if err := ctx.GetInput(&in); err != nil {
		return nil, fmt.Errorf("read what to undo: %w", err)
	}
	r := run{ctx: ctx, order: in.Order, limits: w.limits}
	for i, undo := range in.Undos {
		if err := r.call(undo, StepInput{Order: in.Order}, w.limits.lasting(), nil); err != nil {
			return Compensation{Undone: in.Undos[:i], NotUndone: in.Undos[i:]}, nil //nolint:nilerr // what is left is the result
		}
	}
	return Compensation{Undone: in.Undos}, nil
}
