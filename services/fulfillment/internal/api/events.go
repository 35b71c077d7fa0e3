package api

import (
	"context"
	"errors"

	"waybill/contracts"
	"waybill/platform/eventing"
)

// orderConfirmed starts the order's saga. Orders has checked the order; what is asked here is only what the saga could
// not run without.
func (a API) orderConfirmed(ctx context.Context, e eventing.Event) error {
	var confirmed contracts.OrderConfirmed
	if err := e.Decode(&confirmed); err != nil {
		return err
	}
	order := confirmed.Order
	if order.OrderID == "" || order.CustomerID == "" || len(order.Items) == 0 {
		return eventing.Reject(errors.New("a confirmed order needs order_id, customer_id and items"))
	}
	if order.Currency == "" {
		order.Currency = contracts.DefaultCurrency
	}
	return a.Sagas.Start(ctx, order)
}

// cancellationRequested passes a customer's wish on to the order's saga.
func (a API) cancellationRequested(ctx context.Context, e eventing.Event) error {
	var request contracts.OrderCancellationRequested
	if err := e.Decode(&request); err != nil {
		return err
	}
	if request.OrderID == "" {
		return eventing.Reject(errors.New("a cancellation needs order_id"))
	}
	if request.RequestedAt.IsZero() {
		request.RequestedAt = e.Time
	}
	return a.Sagas.Cancel(ctx, request)
}
