package api

import (
	"context"
	"errors"
	"fmt"

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
	if err := a.Sagas.Start(ctx, order); err != nil {
		return fmt.Errorf("%w: %w", eventing.ErrUnavailable, err)
	}
	return nil
}
