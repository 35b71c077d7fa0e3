package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/partner"
	"waybill/services/fulfillment/internal/record"
)

// The events that a saga publishes. Each id follows from the order and the fact, so a repeated announcement is deduplicated.

// announceStep announces that a step ended: done, or refused.
func (a activities) announceStep(ctx context.Context, order contracts.Order, step string, refused *partner.Reason, e contracts.StepCompleted) error {
	if refused != nil {
		e = contracts.StepCompleted{Outcome: contracts.OutcomeRefused, Code: refused.Code, Message: refused.Message}
	} else {
		e.Outcome = contracts.OutcomeDone
	}
	return a.announce(ctx, key(order, step), order, step, e)
}

// announce announces under an id that a step ended.
func (a activities) announce(ctx context.Context, id string, order contracts.Order, step string, e contracts.StepCompleted) error {
	e.OrderID, e.CustomerID, e.Step, e.CompletedAt = order.OrderID, order.CustomerID, step, a.Now().UTC()
	if err := a.Events.Publish(ctx, id, e); err != nil {
		return fmt.Errorf("announce the step: %w", err)
	}
	return nil
}

// AnnounceAgain repeats the last announcement of a saga, for a consumer that missed it.
func AnnounceAgain(ctx context.Context, events Events, s *record.Saga, now time.Time) error {
	switch {
	case s.Ended():
		if err := announceOutcome(ctx, events, s); err != nil {
			return err
		}
		return AnswerCancellation(ctx, events, s, now)
	case s.AwaitsRepair():
		return announceBlocked(ctx, events, s)
	case s.AwaitsApproval():
		return announceApproval(ctx, events, s.Order, s.Approval)
	default:
		return nil
	}
}

func announceApproval(ctx context.Context, events Events, order contracts.Order, approval *record.Approval) error {
	err := events.Publish(ctx, key(order, contracts.TypeApprovalRequested), contracts.ApprovalRequested{
		OrderID: order.OrderID, CustomerID: order.CustomerID, TotalAmount: order.TotalAmount, Currency: order.Currency,
		RequestedAt: approval.RequestedAt, ExpiresAt: approval.ExpiresAt,
	})
	if err != nil {
		return fmt.Errorf("announce the approval: %w", err)
	}
	return nil
}

// announceBlocked announces that the saga needs attention.
func announceBlocked(ctx context.Context, events Events, s *record.Saga) error {
	b := s.Blocked
	err := events.Publish(ctx, key(s.Order, contracts.TypeFulfillmentFailed)+":attention:"+strconv.Itoa(b.Round), contracts.FulfillmentFailed{
		OrderID: s.Order.OrderID, CustomerID: s.Order.CustomerID, Code: b.Failure.Code, Error: b.Failure.Message,
		Undone: b.Undone, NotUndone: b.NotUndone, FailedAt: b.Since,
	})
	if err != nil {
		return fmt.Errorf("announce that the saga needs attention: %w", err)
	}
	return nil
}

func announceOutcome(ctx context.Context, events Events, s *record.Saga) error {
	event, err := outcomeEvent(s)
	if err != nil {
		return fmt.Errorf("read the outcome of %s: %w", s.Order.OrderID, err)
	}
	if err := events.Publish(ctx, s.Announced.ID, event); err != nil {
		return fmt.Errorf("announce the outcome: %w", err)
	}
	return nil
}

// outcomeEvent is the recorded event that announces the saga's outcome.
func outcomeEvent(s *record.Saga) (contracts.Payload, error) {
	switch s.Announced.Type {
	case contracts.TypeFulfillmentCompleted:
		return decode[contracts.FulfillmentCompleted](s.Announced.Data)
	case contracts.TypeFulfillmentFailed:
		return decode[contracts.FulfillmentFailed](s.Announced.Data)
	case contracts.TypeFulfillmentCancelled:
		return decode[contracts.FulfillmentCancelled](s.Announced.Data)
	default:
		return nil, errors.New("its event has the type " + s.Announced.Type)
	}
}

func decode[T contracts.Payload](data []byte) (event T, err error) {
	return event, json.Unmarshal(data, &event)
}

// codeAlreadyShipped is why a cancellation is refused.
const codeAlreadyShipped = "already_shipped"

// AnswerCancellation announces the answer to the customer's cancellation, if there is one: that it was recorded, after which nothing
// ships, or that it was too late. For a cancelled order that has ended, the outcome is the answer.
func AnswerCancellation(ctx context.Context, events Events, s *record.Saga, now time.Time) error {
	late := s.Cancellation != nil && (s.Cancellation.Late || s.Outcome == record.Completed)
	if s.Cancellation == nil || s.Ended() && !late {
		return nil
	}
	// The two ids differ: a release that did not record the booking may have shipped an order after it confirmed the cancellation.
	id := key(s.Order, contracts.StepCancel)
	answer := contracts.StepCompleted{
		OrderID: s.Order.OrderID, CustomerID: s.Order.CustomerID, Step: contracts.StepCancel, CompletedAt: now,
	}
	if late {
		answer.Outcome, answer.Code, answer.Message = contracts.OutcomeRefused, codeAlreadyShipped, "The parcel was booked before the cancellation arrived."
	} else {
		id, answer.Outcome = id+":"+contracts.OutcomeDone, contracts.OutcomeDone
	}
	if err := events.Publish(ctx, id, answer); err != nil {
		return fmt.Errorf("answer the cancellation: %w", err)
	}
	return nil
}
