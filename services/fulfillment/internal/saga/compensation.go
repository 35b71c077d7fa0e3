package saga

import (
	"fmt"
	"slices"

	"github.com/dapr/durabletask-go/workflow"

	"waybill/contracts"
)

// compensate compensates the completed steps, newest first, in a workflow of its own. If a compensation fails, the saga needs attention: it
// waits until a person orders a repair, and then tries again.
func (r *run) compensate() (undone []string, refunded bool, err error) {
	left := slices.Clone(r.compensations)
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
		if err := r.awaitRepair(RepairInput{Order: r.order, Round: round, Failure: *r.failure, Undone: undone, NotUndone: left}); err != nil {
			return nil, false, err
		}
	}
	return undone, refunded, nil
}

func (r *run) awaitRepair(blocked RepairInput) error {
	if err := r.call(activityAskForRepair, blocked, r.limits.lastingPolicy(), nil); err != nil {
		return fmt.Errorf("ask for a repair: %w", err)
	}
	for repaired, changed := false, r.restart > 0; !repaired; changed = false {
		if !changed {
			r.waitForSignal(-1)
		}
		if err := r.call(activityTakeRepair, blocked, r.limits.lastingPolicy(), &repaired); err != nil {
			return fmt.Errorf("take the repair: %w", err)
		}
	}
	return nil
}

// CompensationInput is the input of the compensation workflow. Undos are the activities to call, newest step first.
type CompensationInput struct {
	Order  contracts.Order `json:"order"`
	Undos  []string        `json:"undos"`
	Limits Limits          `json:"limits"`
}

// Compensation is the result of the compensation workflow. NotUndone is the activity that failed, and those after it.
type Compensation struct {
	Undone    []string `json:"undone,omitempty"`
	NotUndone []string `json:"not_undone,omitempty"`
	// Refunded says that money was refunded.
	Refunded bool `json:"refunded,omitempty"`
}

// compensateOrder is the compensation workflow. It calls one activity after the other and stops at the first that fails: the money is not
// refunded for a parcel that could not be cancelled.
func compensateOrder(ctx *workflow.WorkflowContext) (any, error) {
	var in CompensationInput
	if err := ctx.GetInput(&in); err != nil {
		return nil, fmt.Errorf("read what to compensate: %w", err)
	}
	r := run{ctx: ctx, order: in.Order, limits: in.Limits}
	var c Compensation
	for i, activity := range in.Undos {
		var result StepResult
		if err := r.call(activity, StepInput{Order: in.Order}, in.Limits.lastingPolicy(), &result); err != nil {
			c.NotUndone = in.Undos[i:]
			return c, nil //nolint:nilerr // what is left is the result
		}
		c.Undone, c.Refunded = append(c.Undone, activity), c.Refunded || result.Refunded
	}
	return c, nil
}
