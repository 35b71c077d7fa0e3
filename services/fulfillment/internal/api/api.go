// Package api is fulfilment's edge: its REST routes and the events it takes. It turns requests into calls of what main
// gives it, and errors into problems; it decides nothing.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/platform/rest"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/partner"
	"waybill/services/fulfillment/internal/record"
)

// Inventory is the stock that the REST routes show and set.
type Inventory interface {
	Get(ctx context.Context, product string) (inventory.Stock, error)
	Set(ctx context.Context, product string, onHand int, conditions ...inventory.Condition) (inventory.Stock, error)
	Adjust(ctx context.Context, product, key string, delta int, reason string) (inventory.Adjustment, error)
}

// Sagas starts sagas, shows them, and takes people's decisions on them. Refusals are a *record.Error; every other error
// will pass.
type Sagas interface {
	Start(ctx context.Context, order contracts.Order) error
	Cancel(ctx context.Context, request contracts.OrderCancellationRequested) error
	Decide(ctx context.Context, orderID string, approved bool, approver, reason string) (record.Saga, error)
	Repair(ctx context.Context, orderID, actor, reason string) (record.Saga, error)
	Show(ctx context.Context, orderID string) (record.Saga, []record.Step, error)
	List(ctx context.Context, state record.State, limit int) (entries []record.Saga, more bool, err error)
	Approvals(ctx context.Context, keep func(e *record.Saga) bool, limit int) (entries []record.Saga, more bool, err error)
	Wait(e *record.Saga) (record.State, *record.Wait)
}

// Audited is a partner that can say what it knows of an order.
type Audited interface {
	// Audit adds what the partner knows to a, and reports whether it knows the order.
	Audit(ctx context.Context, orderID string, a *partner.Audit) (known bool, err error)
}

// API is what the routes stand on.
type API struct {
	Audited   []Audited
	Inventory Inventory
	Sagas     Sagas
	Logger    *slog.Logger
}

// version is the version of this API. It changes when the API does, and not with the data version of the events.
const version = "1.0.0"

// Info describes the API.
func Info() rest.Info {
	return rest.Info{
		Title: "Waybill fulfillment", Version: version,
		Description: "Stock, approvals, and the saga that pays, reserves and ships an order or undoes what it did.",
	}
}

// Mount adds the REST routes.
func (a API) Mount(api huma.API) {
	api.OpenAPI().Components.Schemas.RegisterTypeAlias(reflect.TypeFor[contracts.Amount](), reflect.TypeFor[amount]())
	huma.Register(api, huma.Operation{
		OperationID: "get-stock", Method: http.MethodGet, Path: "/v1/inventory/{product_id}",
		Summary: "A product's stock", Tags: []string{"inventory"}, Errors: []int{404, 422, 503},
		Responses: map[string]*huma.Response{"304": {Description: "The stock is as the If-None-Match header knows it."}},
	}, a.getStock)
	huma.Register(api, huma.Operation{
		OperationID: "set-stock", Method: http.MethodPut, Path: "/v1/inventory/{product_id}",
		Summary: "Set what the warehouse holds of a product",
		Description: "Creates the product when it is new. What orders hold stays reserved, so on_hand cannot be set below it. With If-Match it " +
			"answers 412 when the stock has changed since it was read, with If-None-Match: * when the product exists. Without them it sets what was " +
			"counted, whatever shipped since the counting; to add or remove pieces, use an adjustment.",
		Tags: []string{"inventory"}, Errors: []int{400, 409, 412, 413, 415, 422, 503},
	}, a.setStock)
	huma.Register(api, huma.Operation{
		OperationID: "adjust-stock", Method: http.MethodPost, Path: "/v1/inventory/{product_id}/adjustments", DefaultStatus: http.StatusOK,
		Summary: "Add pieces to what the warehouse holds of a product, or remove some",
		Description: "Changes on_hand by delta, once for each Idempotency-Key, whatever ships or is reserved at the same time. It never goes below what " +
			"orders hold. The key is remembered for 24 hours, and 1,000 keys of a product at a time; beyond that it answers 409.",
		Tags: []string{"inventory"}, Errors: []int{400, 404, 409, 413, 415, 422, 503},
	}, a.adjustStock)
	body := api.OpenAPI().Paths["/v1/inventory/{product_id}/adjustments"].Post.RequestBody.Content["application/json"].Schema
	api.OpenAPI().Components.Schemas.SchemaFromRef(body.Ref).Properties["delta"].Extensions = map[string]any{"not": map[string]any{"const": 0}}
	huma.Register(api, huma.Operation{
		OperationID: "get-fulfillment", Method: http.MethodGet, Path: "/v1/fulfillments/{order_id}",
		Summary:     "An order's saga: its steps, and what it waits for",
		Description: "Steps have their times, attempts and outcome. What it waits for says since when, and what would move it.",
		Tags:        []string{"sagas"}, Errors: []int{404, 422, 503},
	}, a.getFulfillment)
	huma.Register(api, huma.Operation{
		OperationID: "get-books", Method: http.MethodGet, Path: "/v1/fulfillments/{order_id}/books",
		Summary:     "What payment provider, warehouse and carrier hold of an order",
		Description: "For audits, such as `make doctor`: it answers from their books and not from the saga, also about an order that has none.",
		Tags:        []string{"sagas"}, Errors: []int{404, 422, 503},
	}, a.getAudit)
	huma.Register(api, huma.Operation{
		OperationID: "list-fulfillments", Method: http.MethodGet, Path: "/v1/fulfillments",
		Summary:     "The sagas that have not ended",
		Description: "stuck: should have ended by now and waits for nobody; the watchdog wakes it. needs_attention: an undo could not be done; POST …/repair resumes it.",
		Tags:        []string{"sagas"}, Errors: []int{422, 503},
	}, a.listFulfillments)
	huma.Register(api, huma.Operation{
		OperationID: "repair-fulfillment", Method: http.MethodPost, Path: "/v1/fulfillments/{order_id}/repair", DefaultStatus: http.StatusAccepted,
		Summary:     "Have what could not be undone tried again",
		Description: "For a saga that needs attention. Actor and reason stand on the order's timeline. The same repair again is no other one.",
		Tags:        []string{"sagas"}, Errors: []int{400, 404, 409, 413, 415, 422, 503},
	}, a.repair)
	huma.Register(api, huma.Operation{
		OperationID: "list-approvals", Method: http.MethodGet, Path: "/v1/approvals",
		Summary:     "Who waits for approval, since when, and until when",
		Description: "Decided ones stay listed for 30 days.",
		Tags:        []string{"approvals"}, Errors: []int{422, 503},
	}, a.listApprovals)
	huma.Register(api, huma.Operation{
		OperationID: "decide-approval", Method: http.MethodPost, Path: "/v1/approvals/{order_id}", DefaultStatus: http.StatusAccepted,
		Summary:     "Approve an order, or refuse it",
		Description: "The first decision counts. The same one of the same approver again is answered alike; another one is a 409 that shows the first.",
		Tags:        []string{"approvals"}, Errors: []int{400, 404, 409, 413, 415, 422, 503},
	}, a.decide)
}

// Subscriptions are the events that fulfilment takes.
func (a API) Subscriptions() []eventing.Subscription {
	return []eventing.Subscription{{
		Component:  contracts.OrderBus,
		Topic:      contracts.FulfillmentReadsOrders.Topic,
		DeadLetter: contracts.FulfillmentReadsOrders.DeadLetter(),
		Sessions:   true,
		Handlers: map[string]eventing.Handler{
			contracts.TypeOrderConfirmed:             a.orderConfirmed,
			contracts.TypeOrderCancellationRequested: a.cancellationRequested,
		},
	}}
}

// amount is how contracts.Amount stands in JSON.
type amount float64
