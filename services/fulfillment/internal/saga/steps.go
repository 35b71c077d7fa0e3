package saga

import (
	"context"
	"errors"
	"fmt"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/partner"
	"waybill/services/fulfillment/internal/record"
)

// The steps that call partners, each with its compensation.

// checkCancelled returns why a forward step must not run because the order was cancelled; nil if it may run. Every attempt checks before
// it calls the partner, because an attempt can run long after the workflow scheduled it. A step that did not run is not announced. An
// order without a saga record, because the record was lost, was not cancelled.
func (a activities) checkCancelled(ctx context.Context, orderID string) (*partner.Reason, error) {
	cancelled, _, err := a.readCancelled(ctx, orderID)
	return cancelled, err
}

// readCancelled is checkCancelled, and also returns a function that changes the record that was read.
func (a activities) readCancelled(ctx context.Context, orderID string) (*partner.Reason, record.Change, error) {
	saga, change, err := a.Records.Read(ctx, orderID)
	if refused, ok := errors.AsType[*record.Error](err); ok && refused.Kind == record.NotFound {
		return nil, func(alter func(*record.Saga) (bool, error)) (record.Saga, error) {
			return a.Records.Change(ctx, orderID, alter)
		}, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("check for a cancellation: %w", err)
	}
	if !saga.Cancelled() {
		return nil, change, nil
	}
	return cancellationReason(saga.Cancellation), change, nil
}

func cancellationReason(c *record.Cancellation) *partner.Reason {
	message := c.Reason
	if message == "" {
		message = "The customer cancelled the order."
	}
	return &partner.Reason{Code: record.CodeCancelled, Message: message}
}

// validatePayment charges the order's total. It charges nothing for a free order.
func (a activities) validatePayment(ctx context.Context, in StepInput) (StepResult, error) {
	cancelled, err := a.checkCancelled(ctx, in.Order.OrderID)
	if err != nil || cancelled != nil || in.Order.TotalAmount == 0 {
		return StepResult{Refused: cancelled}, err
	}
	transaction, refused, err := a.Payments.Charge(ctx, in.Order, key(in.Order, activityValidatePayment))
	if err != nil {
		return StepResult{}, fmt.Errorf("charge: %w", err)
	}
	done := contracts.StepCompleted{TransactionID: transaction, Amount: in.Order.TotalAmount, Currency: in.Order.Currency}
	return StepResult{Refused: refused}, a.announceStep(ctx, in.Order, activityValidatePayment, refused, done)
}

func (a activities) refundPayment(ctx context.Context, in StepInput) (StepResult, error) {
	amount, transaction, err := a.Payments.Refund(ctx, in.Order, key(in.Order, activityRefundPayment))
	if err != nil {
		return StepResult{}, fmt.Errorf("refund: %w", err)
	}
	if transaction == "" || amount == 0 {
		return StepResult{}, nil // nothing had been charged
	}
	done := contracts.StepCompleted{TransactionID: transaction, Amount: amount, Currency: in.Order.Currency}
	return StepResult{Refunded: true}, a.announceStep(ctx, in.Order, activityRefundPayment, nil, done)
}

func (a activities) reserveInventory(ctx context.Context, in StepInput) (StepResult, error) {
	cancelled, err := a.checkCancelled(ctx, in.Order.OrderID)
	if err != nil || cancelled != nil {
		return StepResult{Refused: cancelled}, err
	}
	refused, err := a.Inventory.Reserve(ctx, in.Order)
	if err != nil {
		return StepResult{}, fmt.Errorf("reserve: %w", err)
	}
	return StepResult{Refused: refused}, a.announceStep(ctx, in.Order, activityReserveInventory, refused, contracts.StepCompleted{})
}

func (a activities) releaseInventory(ctx context.Context, in StepInput) (StepResult, error) {
	released, err := a.Inventory.Release(ctx, in.Order)
	if err != nil {
		return StepResult{}, fmt.Errorf("release: %w", err)
	}
	if !released {
		return StepResult{}, nil
	}
	return StepResult{}, a.announceStep(ctx, in.Order, activityReleaseInventory, nil, contracts.StepCompleted{})
}

// processShipment books the parcel first: stock leaves the warehouse only with a booked parcel. Between the two it records the booking in
// the saga record. A cancellation is recorded in the same document, so whichever of the two is recorded first wins.
func (a activities) processShipment(ctx context.Context, in StepInput) (StepResult, error) {
	cancelled, change, err := a.readCancelled(ctx, in.Order.OrderID)
	if err != nil || cancelled != nil {
		return StepResult{Refused: cancelled}, err
	}
	shipment, refused, err := a.Carrier.Book(ctx, in.Order, key(in.Order, activityProcessShipment))
	if err != nil {
		return StepResult{}, fmt.Errorf("book the carrier: %w", err)
	}
	if refused == nil {
		saga, err := change(func(s *record.Saga) (bool, error) {
			begun := s.Begin(in.Order, a.Now()) // false, unless the record was lost
			return s.Book(a.Now()) || begun, nil
		})
		if err != nil {
			return StepResult{}, fmt.Errorf("record the booking: %w", err)
		}
		if saga.Cancelled() {
			return StepResult{Refused: cancellationReason(saga.Cancellation)}, nil
		}
		if err := a.Inventory.Ship(ctx, in.Order); err != nil {
			return StepResult{}, fmt.Errorf("ship the stock: %w", err)
		}
	}
	done := contracts.StepCompleted{
		Carrier: shipment.Carrier, TrackingNumber: shipment.TrackingNumber, EstimatedDelivery: shipment.EstimatedDelivery,
	}
	return StepResult{Refused: refused, Shipment: shipment}, a.announceStep(ctx, in.Order, activityProcessShipment, refused, done)
}

func (a activities) cancelShipment(ctx context.Context, in StepInput) (StepResult, error) {
	cancelled, err := a.Carrier.Cancel(ctx, in.Order)
	if err != nil {
		return StepResult{}, fmt.Errorf("cancel the shipment: %w", err)
	}
	if err := a.Inventory.Unship(ctx, in.Order); err != nil {
		return StepResult{}, fmt.Errorf("unship the stock: %w", err)
	}
	if !cancelled {
		return StepResult{}, nil
	}
	return StepResult{}, a.announceStep(ctx, in.Order, activityCancelShipment, nil, contracts.StepCompleted{})
}
