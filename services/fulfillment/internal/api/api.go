// Package api is fulfilment's edge: its REST routes and the events it takes. It turns requests into calls of what main
// gives it, and errors into problems; it decides nothing.
package api

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/services/fulfillment/internal/inventory"
)

// Inventory is the stock that the REST routes show and set.
type Inventory interface {
	Get(ctx context.Context, product string) (inventory.Stock, error)
	Set(ctx context.Context, product string, onHand int) (inventory.Stock, error)
}

// Sagas starts an order's saga, once however often it is asked to. Every error it returns will pass.
type Sagas interface {
	Start(ctx context.Context, order contracts.Order) error
}

// API is what the routes stand on.
type API struct {
	Inventory Inventory
	Sagas     Sagas
	Logger    *slog.Logger
}

// Mount adds the REST routes.
func (a API) Mount(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "get-stock", Method: http.MethodGet, Path: "/v1/inventory/{product_id}",
		Summary: "A product's stock", Tags: []string{"inventory"}, Errors: []int{404, 422, 503},
	}, a.getStock)
	huma.Register(api, huma.Operation{
		OperationID: "set-stock", Method: http.MethodPut, Path: "/v1/inventory/{product_id}",
		Summary:     "Set what the warehouse holds of a product",
		Description: "Creates the product when it is new. What orders hold stays reserved, so on_hand cannot be set below it.",
		Tags:        []string{"inventory"}, Errors: []int{400, 409, 413, 415, 422, 503},
	}, a.setStock)
}

// Subscriptions are the events that fulfilment takes.
func (a API) Subscriptions() []eventing.Subscription {
	return []eventing.Subscription{{
		Component:  contracts.OrderBus,
		Topic:      contracts.FulfillmentReadsOrders.Topic,
		DeadLetter: contracts.FulfillmentReadsOrders.DeadLetter(),
		Handlers:   map[string]eventing.Handler{contracts.TypeOrderConfirmed: a.orderConfirmed},
	}}
}
