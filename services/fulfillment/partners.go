package main

import (
	"context"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/bulkhead"
	"waybill/services/fulfillment/internal/partner"
	"waybill/services/fulfillment/internal/saga"
)

// payments is a payment provider behind a bulkhead.
type payments struct {
	saga.Payments

	calls *bulkhead.Bulkhead
}

// behindBulkheads gives each partner a limit of its own.
func behindBulkheads(p saga.Payments, c saga.Carrier, calls int) (saga.Payments, saga.Carrier, error) {
	paying, err := bulkhead.New("payments", calls)
	if err != nil {
		return nil, nil, err
	}
	shipping, err := bulkhead.New("carrier", calls)
	if err != nil {
		return nil, nil, err
	}
	return payments{p, paying}, carrier{c, shipping}, nil
}

// Charge is the provider's, in its turn.
func (p payments) Charge(ctx context.Context, order contracts.Order, key string) (transactionID string, refused *partner.Reason, err error) {
	err = p.calls.Start(ctx, func(ctx context.Context) (err error) {
		transactionID, refused, err = p.Payments.Charge(ctx, order, key)
		return err
	})
	return transactionID, refused, err
}

// Refund is the provider's, in its turn.
func (p payments) Refund(ctx context.Context, order contracts.Order, key string) (amount contracts.Amount, transactionID string, err error) {
	err = p.calls.Undo(ctx, func(ctx context.Context) (err error) {
		amount, transactionID, err = p.Payments.Refund(ctx, order, key)
		return err
	})
	return amount, transactionID, err
}

// carrier is a carrier behind a bulkhead.
type carrier struct {
	saga.Carrier

	calls *bulkhead.Bulkhead
}

// Book is the carrier's, in its turn.
func (c carrier) Book(ctx context.Context, order contracts.Order, key string) (shipment partner.Shipment, refused *partner.Reason, err error) {
	err = c.calls.Start(ctx, func(ctx context.Context) (err error) {
		shipment, refused, err = c.Carrier.Book(ctx, order, key)
		return err
	})
	return shipment, refused, err
}

// Cancel is the carrier's, in its turn.
func (c carrier) Cancel(ctx context.Context, order contracts.Order) (cancelled bool, err error) {
	err = c.calls.Undo(ctx, func(ctx context.Context) (err error) {
		cancelled, err = c.Carrier.Cancel(ctx, order)
		return err
	})
	return cancelled, err
}
