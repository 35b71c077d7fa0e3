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

// The activities that request decisions of people and read them from the saga record.

// Decisions are what people decided about an order: it was refused, or approved, or neither yet.
type Decisions struct {
	Refused  *partner.Reason `json:"refused,omitempty"`
	Approved bool            `json:"approved,omitempty"`
}

// ApprovalInput is the input of the two activities of an approval.
type ApprovalInput struct {
	Order       contracts.Order `json:"order"`
	RequestedAt time.Time       `json:"requested_at,omitzero"`
	ExpiresAt   time.Time       `json:"expires_at,omitzero"`
	// Expired says that the approval has expired by the engine's clock.
	Expired bool `json:"expired,omitempty"`
}

// ApprovalRequest is an approval as it was first requested.
type ApprovalRequest struct {
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// RepairInput describes a saga that is blocked for the Round-th time.
type RepairInput struct {
	Order     contracts.Order `json:"order"`
	Round     int             `json:"round"`
	Failure   partner.Reason  `json:"failure"`
	Undone    []string        `json:"undone,omitempty"`
	NotUndone []string        `json:"not_undone"`
}

func (in ApprovalInput) orderID() string { return in.Order.OrderID }
func (in RepairInput) orderID() string   { return in.Order.OrderID }

func (in RepairInput) blocked(now time.Time) record.Blocked {
	return record.Blocked{Round: in.Round, Since: now.UTC(), Failure: in.Failure, Undone: in.Undone, NotUndone: in.NotUndone}
}

// readDecisions returns whether the customer cancelled the order in time.
func (a activities) readDecisions(ctx context.Context, in StepInput) (d Decisions, err error) {
	d.Refused, err = a.checkCancelled(ctx, in.Order.OrderID)
	return d, err
}

func (a activities) requestApproval(ctx context.Context, in ApprovalInput) (ApprovalRequest, error) {
	// The list comes first: a request that is not listed would never be decided.
	if err := a.Records.ListApproval(ctx, in.Order.OrderID); err != nil {
		return ApprovalRequest{}, err
	}
	saga, err := a.Records.Change(ctx, in.Order.OrderID, func(s *record.Saga) (bool, error) {
		return s.RequestApproval(in.RequestedAt, in.ExpiresAt), nil
	})
	if err != nil {
		return ApprovalRequest{}, fmt.Errorf("request the approval: %w", err)
	}
	requested := ApprovalRequest{saga.Approval.ExpiresAt}
	if saga.Approval.Decision != nil || saga.Cancelled() {
		return requested, nil // decided before the saga was restarted, or cancelled
	}
	return requested, announceApproval(ctx, a.Events, in.Order, saga.Approval)
}

var errApprovalLost = errors.New("the saga record does not hold the requested approval")

// settleApproval ends the approval if it was decided, cancelled, or has expired, and announces the result.
func (a activities) settleApproval(ctx context.Context, in ApprovalInput) (d Decisions, err error) {
	saga, err := a.Records.Change(ctx, in.Order.OrderID, func(s *record.Saga) (bool, error) {
		if s.Approval == nil {
			return false, errApprovalLost
		}
		return s.Settle(in.Expired, a.Now()), nil
	})
	if errors.Is(err, errApprovalLost) {
		saga, err = a.restoreApproval(ctx, in)
	}
	if err != nil {
		return d, fmt.Errorf("settle the approval: %w", err)
	}
	if saga.Approval == nil || saga.Approval.Decision == nil {
		return d, nil
	}
	decision := saga.Approval.Decision
	d.Approved, d.Refused = decision.Approved, refusal(&saga)
	event := contracts.StepCompleted{Actor: decision.Approver, Outcome: contracts.OutcomeDone, Message: decision.Reason}
	if d.Refused != nil {
		event.Outcome, event.Code, event.Message = contracts.OutcomeRefused, d.Refused.Code, d.Refused.Message
	} else if saga.Cancelled() {
		d.Refused = cancellationReason(saga.Cancellation) // after the approval, which is announced as it was decided
	}
	return d, a.announce(ctx, key(in.Order, contracts.StepApproval), in.Order, contracts.StepApproval, event)
}

// restoredApproval is how long a person has to decide about a restored approval. The saga still ends its wait at the time that was first
// given, because its history has that time.
const restoredApproval = 24 * time.Hour

// restoreApproval requests an approval again that was lost with the store, and ends it if it can be ended.
func (a activities) restoreApproval(ctx context.Context, in ApprovalInput) (record.Saga, error) {
	a.Logger.WarnContext(ctx, "saga record lost its approval; requesting it again", slog.String("order_id", in.Order.OrderID))
	if err := a.Records.ListApproval(ctx, in.Order.OrderID); err != nil {
		return record.Saga{}, err
	}
	saga, err := a.Records.Change(ctx, in.Order.OrderID, func(s *record.Saga) (bool, error) {
		now := a.Now()
		s.Begin(in.Order, now)
		s.RequestApproval(now, now.Add(restoredApproval))
		s.Settle(in.Expired, now)
		return true, nil
	})
	if err == nil && saga.AwaitsApproval() {
		err = announceApproval(ctx, a.Events, in.Order, saga.Approval)
	}
	return saga, err
}

// refusal returns why a decided approval does not approve; nil if it does.
func refusal(s *record.Saga) *partner.Reason {
	d := s.Approval.Decision
	switch {
	case d.Approved:
		return nil
	case d.Code == record.CodeCancelled:
		return cancellationReason(s.Cancellation)
	case d.Code == record.CodeTimedOut:
		return &partner.Reason{Code: d.Code, Message: "The approval expired without a decision."}
	default:
		return &partner.Reason{Code: d.Code, Message: "The order was not approved: " + d.Reason}
	}
}

// requestRepair records and announces that the saga needs attention.
func (a activities) requestRepair(ctx context.Context, in RepairInput) (StepResult, error) {
	saga, err := a.Records.Change(ctx, in.Order.OrderID, func(s *record.Saga) (bool, error) {
		return s.Block(in.blocked(a.Now())), nil
	})
	if err != nil {
		return StepResult{}, fmt.Errorf("record that the saga needs attention: %w", err)
	}
	return StepResult{}, announceBlocked(ctx, a.Events, &saga)
}

// checkRepair reports whether a person ordered the repair of this round, and announces it.
func (a activities) checkRepair(ctx context.Context, in RepairInput) (repaired bool, err error) {
	lost := false
	saga, err := a.Records.Change(ctx, in.Order.OrderID, func(s *record.Saga) (bool, error) {
		begun := s.Begin(in.Order, a.Now()) // false, unless the record was lost
		lost = !s.Ended() && s.RepairOf(in.Round) == nil && s.Block(in.blocked(a.Now()))
		return begun || lost, nil
	})
	if err != nil {
		return false, fmt.Errorf("check for a repair: %w", err)
	}
	if lost {
		a.Logger.WarnContext(ctx, "saga record lost that the saga needs attention; recording it again", slog.String("order_id", in.Order.OrderID))
		return false, announceBlocked(ctx, a.Events, &saga)
	}
	repair := saga.RepairOf(in.Round)
	if repair == nil {
		return false, nil
	}
	return true, a.announce(ctx, key(in.Order, contracts.StepRepair)+":"+strconv.Itoa(in.Round), in.Order, contracts.StepRepair,
		contracts.StepCompleted{Outcome: contracts.OutcomeDone, Actor: repair.Actor, Message: repair.Reason})
}
