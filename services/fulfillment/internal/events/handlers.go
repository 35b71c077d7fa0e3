package events

import (
	"context"
	"errors"

	"waybill/contracts"
	"waybill/platform/eventing"
)

// Sagas starts and cancels sagas. Both methods may be called again for the same event.
type Sagas interface {
	Start(ctx context.Context, order contracts.Order) error
	Cancel(ctx context.Context, request contracts.OrderCancellationRequested) error
}

// Subscriptions are the topics that this service reads.
func Subscriptions(sagas Sagas) []eventing.Subscription {
	h := handlers{sagas}
	return []eventing.Subscription{{
		Component:  contracts.OrderBus,
		Topic:      contracts.FulfillmentReadsOrders.Topic,
		DeadLetter: contracts.FulfillmentReadsOrders.DeadLetter(),
		Sessions:   true,
		Handlers: map[string]eventing.Handler{
			contracts.TypeOrderConfirmed:             eventing.On(h.orderConfirmed),
			contracts.TypeOrderCancellationRequested: eventing.On(h.cancellationRequested),
		},
	}}
}

type handlers struct{ sagas Sagas }

// orderConfirmed starts the order's saga. Orders has checked the order, so this checks only what the saga needs to run.
func (h handlers) orderConfirmed(ctx context.Context, _ eventing.Event, confirmed contracts.OrderConfirmed) error {
	order := confirmed.Order
	if order.OrderID == "" || order.CustomerID == "" || len(order.Items) == 0 {
		return eventing.Reject(errors.New("a confirmed order must have order_id, customer_id and items"))
	}
	if order.Currency == "" {
		order.Currency = contracts.DefaultCurrency
	}
	return h.sagas.Start(ctx, order)
}

// cancellationRequested cancels the order's saga.
func (h handlers) cancellationRequested(ctx context.Context, e eventing.Event, request contracts.OrderCancellationRequested) error {
	if request.OrderID == "" {
		return eventing.Reject(errors.New("a cancellation must have order_id"))
	}
	if request.RequestedAt.IsZero() {
		request.RequestedAt = e.Time
	}
	return h.sagas.Cancel(ctx, request)
}
