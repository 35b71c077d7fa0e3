package bulkhead

import (
	"context"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/partner"
	"waybill/services/fulfillment/internal/saga"
)

// payments limits the calls to a payment provider.
type payments struct {
	saga.Payments

	calls *Bulkhead
}

// Payments returns next with at most n concurrent charges and n concurrent refunds.
func Payments(next saga.Payments, n int) (saga.Payments, error) {
	calls, err := New("payments", n)
	return payments{next, calls}, err
}

// Charge calls the provider once a slot is free; see Bulkhead.Start.
func (p payments) Charge(ctx context.Context, order contracts.Order, key string) (transactionID string, refused *partner.Reason, err error) {
	err = p.calls.Start(ctx, func(ctx context.Context) (err error) {
		transactionID, refused, err = p.Payments.Charge(ctx, order, key)
		return err
	})
	return transactionID, refused, err
}

// Refund calls the provider once a slot is free; see Bulkhead.Undo.
func (p payments) Refund(ctx context.Context, order contracts.Order, key string) (amount contracts.Amount, transactionID string, err error) {
	err = p.calls.Undo(ctx, func(ctx context.Context) (err error) {
		amount, transactionID, err = p.Payments.Refund(ctx, order, key)
		return err
	})
	return amount, transactionID, err
}

// carrier limits the calls to a carrier.
type carrier struct {
	saga.Carrier

	calls *Bulkhead
}

// Carrier returns next with at most n concurrent bookings and n concurrent cancellations.
func Carrier(next saga.Carrier, n int) (saga.Carrier, error) {
	calls, err := New("carrier", n)
	return carrier{next, calls}, err
}

// Book calls the carrier once a slot is free; see Bulkhead.Start.
func (c carrier) Book(ctx context.Context, order contracts.Order, key string) (shipment partner.Shipment, refused *partner.Reason, err error) {
	err = c.calls.Start(ctx, func(ctx context.Context) (err error) {
		shipment, refused, err = c.Carrier.Book(ctx, order, key)
		return err
	})
	return shipment, refused, err
}

// Cancel calls the carrier once a slot is free; see Bulkhead.Undo.
func (c carrier) Cancel(ctx context.Context, order contracts.Order) (cancelled bool, err error) {
	err = c.calls.Undo(ctx, func(ctx context.Context) (err error) {
		cancelled, err = c.Carrier.Cancel(ctx, order)
		return err
	})
	return cancelled, err
}
