package saga

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/partner"
	"waybill/services/fulfillment/internal/record"
)

// The activities by which a saga asks people, and reads what they decided.

func cancelled(c *record.Cancellation) *partner.Reason {
	message := c.Reason
	if message == "" {
		message = "The customer cancelled the order."
	}
	return &partner.Reason{Code: record.CodeCancelled, Message: message}
}

// readDecisions says whether the customer cancelled the order in time.
func (a activities) readDecisions(ctx context.Context, in StepInput) (d Decisions, err error) {
	d.Refused, err = a.stopped(ctx, in.Order.OrderID)
	return d, err
}

func (a activities) requestApproval(ctx context.Context, in ApprovalInput) (asked Asked, err error) {
	order := in.Order
	err = traced(ctx, activityRequestApproval, order.OrderID, func(ctx context.Context) error {
		// On the list first: a request that nobody finds would wait in vain.
		if err := a.Records.ListApproval(ctx, order.OrderID); err != nil {
			return err
		}
		e, err := a.Records.Change(ctx, order.OrderID, func(e *record.Saga) (bool, error) {
			return e.RequestApproval(in.RequestedAt, in.ExpiresAt), nil
		})
		if err != nil {
			return fmt.Errorf("request the approval: %w", err)
		}
		asked.ExpiresAt = e.Approval.ExpiresAt
		if e.Approval.Decision != nil || e.Cancelled() {
			return nil // a restarted saga asked, and was answered; or there is nothing left to decide
		}
		return askForApproval(ctx, a.Events, order, e.Approval)
	})
	return asked, err
}

func askForApproval(ctx context.Context, events Events, order contracts.Order, approval *record.Approval) error {
	err := events.Publish(ctx, key(order, contracts.TypeApprovalRequested), contracts.ApprovalRequested{
		OrderID: order.OrderID, CustomerID: order.CustomerID, TotalAmount: order.TotalAmount, Currency: order.Currency,
		RequestedAt: approval.RequestedAt, ExpiresAt: approval.ExpiresAt,
	})
	if err != nil {
		return fmt.Errorf("announce the approval: %w", err)
	}
	return nil
}

// settleApproval ends the approval if it can be, and announces how.
func (a activities) settleApproval(ctx context.Context, in ApprovalInput) (d Decisions, err error) {
	order := in.Order
	err = traced(ctx, activitySettleApproval, order.OrderID, func(ctx context.Context) error {
		e, err := a.Records.Change(ctx, order.OrderID, func(e *record.Saga) (bool, error) {
			if e.Approval == nil {
				return false, errApprovalLost
			}
			return e.Settle(in.Expired, a.Now()), nil
		})
		if errors.Is(err, errApprovalLost) {
			e, err = a.restoreApproval(ctx, in)
		}
		if err != nil {
			return fmt.Errorf("settle the approval: %w", err)
		}
		if e.Approval == nil || e.Approval.Decision == nil {
			return nil
		}
		decision := e.Approval.Decision
		d.Approved, d.Refused = decision.Approved, refusal(&e)
		said := contracts.StepCompleted{Actor: decision.Approver, Outcome: contracts.OutcomeDone, Message: decision.Reason}
		if d.Refused != nil {
			said.Outcome, said.Code, said.Message = contracts.OutcomeRefused, d.Refused.Code, d.Refused.Message
		} else if e.Cancelled() {
			d.Refused = cancelled(e.Cancellation) // after the approval, which is announced as it was decided
		}
		return a.tell(ctx, key(order, contracts.StepApproval), order, contracts.StepApproval, said)
	})
	return d, err
}

var errApprovalLost = errors.New("the journal does not hold the approval that was asked for")

// restoredApproval is how long a person has to decide about an approval that was restored. When the time that was first given is
// over the saga ends the wait all the same: its history has that time.
const restoredApproval = 24 * time.Hour

// restoreApproval asks again for an approval that the journal lost with its store, and ends it if it can be ended.
func (a activities) restoreApproval(ctx context.Context, in ApprovalInput) (record.Saga, error) {
	order := in.Order
	a.Logger.WarnContext(ctx, "the journal lost the approval that a saga waits for; it is asked for again", slog.String("order_id", order.OrderID))
	if err := a.Records.ListApproval(ctx, order.OrderID); err != nil {
		return record.Saga{}, err
	}
	e, err := a.Records.Change(ctx, order.OrderID, func(e *record.Saga) (bool, error) {
		now := a.Now()
		e.Begin(order, now)
		e.RequestApproval(now, now.Add(restoredApproval))
		e.Settle(in.Expired, now)
		return true, nil
	})
	if err == nil && e.AwaitsApproval() {
		err = askForApproval(ctx, a.Events, order, e.Approval)
	}
	return e, err
}

// refusal is why a decided approval does not approve; nil when it does.
func refusal(e *record.Saga) *partner.Reason {
	d := e.Approval.Decision
	switch {
	case d.Approved:
		return nil
	case d.Code == record.CodeCancelled:
		return cancelled(e.Cancellation)
	case d.Code == record.CodeTimedOut:
		return &partner.Reason{Code: d.Code, Message: "Nobody approved the order in time."}
	default:
		return &partner.Reason{Code: d.Code, Message: "The order was not approved: " + d.Reason}
	}
}

// askForRepair records that the saga stands still, and announces it.
func (a activities) askForRepair(ctx context.Context, in HaltInput) (result StepResult, err error) {
	order := in.Order
	err = traced(ctx, activityAskForRepair, order.OrderID, func(ctx context.Context) error {
		e, err := a.Records.Change(ctx, order.OrderID, func(e *record.Saga) (bool, error) {
			return e.Block(record.Blocked{
				Round: in.Round, Since: a.Now().UTC(), Failure: in.Failure, Undone: in.Undone, NotUndone: in.NotUndone,
			}), nil
		})
		if err != nil {
			return fmt.Errorf("record the halt: %w", err)
		}
		return tellOfHalt(ctx, a.Events, &e)
	})
	return result, err
}

func tellOfHalt(ctx context.Context, events Events, e *record.Saga) error {
	halt := e.Blocked
	err := events.Publish(ctx, key(e.Order, contracts.TypeFulfillmentFailed)+":attention:"+strconv.Itoa(halt.Round), contracts.FulfillmentFailed{
		OrderID: e.Order.OrderID, CustomerID: e.Order.CustomerID, Code: halt.Failure.Code, Error: halt.Failure.Message,
		Undone: halt.Undone, NotUndone: halt.NotUndone, FailedAt: halt.Since,
	})
	if err != nil {
		return fmt.Errorf("announce the halt: %w", err)
	}
	return nil
}

// takeRepair reports whether a person ordered the repair that the halt waits for, and announces it.
func (a activities) takeRepair(ctx context.Context, in HaltInput) (repaired bool, err error) {
	order := in.Order
	err = traced(ctx, activityTakeRepair, order.OrderID, func(ctx context.Context) error {
		lost := false
		e, err := a.Records.Change(ctx, order.OrderID, func(e *record.Saga) (bool, error) {
			begun := e.Begin(order, a.Now()) // false, unless the entry was lost
			lost = !e.Ended() && e.RepairOf(in.Round) == nil && e.Block(record.Blocked{
				Round: in.Round, Since: a.Now().UTC(), Failure: in.Failure, Undone: in.Undone, NotUndone: in.NotUndone,
			})
			return begun || lost, nil
		})
		if err != nil {
			return fmt.Errorf("take the repair: %w", err)
		}
		if lost {
			a.Logger.WarnContext(ctx, "the journal lost the halt of a saga; it is recorded again", slog.String("order_id", order.OrderID))
			return tellOfHalt(ctx, a.Events, &e)
		}
		repair := e.RepairOf(in.Round)
		if repair == nil {
			return nil
		}
		repaired = true
		return a.tell(ctx, key(order, contracts.StepRepair)+":"+strconv.Itoa(in.Round), order, contracts.StepRepair,
			contracts.StepCompleted{Outcome: contracts.OutcomeDone, Actor: repair.Actor, Message: repair.Reason})
	})
	return repaired, err
}

// codeAlreadyShipped is why a cancellation is refused.
const codeAlreadyShipped = "already_shipped"

// answerCancellation announces, if the customer wanted to cancel the order, what became of that: that it was recorded, after
// which nothing is shipped, or that it was too late. Of a cancelled order the outcome says it.
func answerCancellation(ctx context.Context, events Events, e *record.Saga, now time.Time) error {
	late := e.Cancellation != nil && (e.Cancellation.Late || e.Outcome == record.Completed)
	if e.Cancellation == nil || e.Ended() && !late {
		return nil
	}
	// The two ids differ: a release that did not record the booking may have shipped an order whose cancellation it took.
	id := key(e.Order, contracts.StepCancel)
	answer := contracts.StepCompleted{
		OrderID: e.Order.OrderID, CustomerID: e.Order.CustomerID, Step: contracts.StepCancel, CompletedAt: now,
	}
	if late {
		answer.Outcome, answer.Code, answer.Message = contracts.OutcomeRefused, codeAlreadyShipped, "The parcel was booked before the cancellation arrived."
	} else {
		id, answer.Outcome = id+":"+contracts.OutcomeDone, contracts.OutcomeDone
	}
	if err := events.Publish(ctx, id, answer); err != nil {
		return fmt.Errorf("announce what became of the cancellation: %w", err)
	}
	return nil
}
