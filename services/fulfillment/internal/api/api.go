// Package api is fulfilment's REST API. It turns requests into calls and errors into problems, and decides nothing.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"waybill/contracts"
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

// Sagas shows sagas and records people's decisions about them. A refusal is a *record.Error; every other error is retryable.
type Sagas interface {
	Decide(ctx context.Context, orderID string, approved bool, approver, reason string) (record.Saga, error)
	Repair(ctx context.Context, orderID, actor, reason string) (record.Saga, error)
	Show(ctx context.Context, orderID string) (record.Saga, []record.Step, error)
	List(ctx context.Context, state record.State, limit int) (sagas []record.Saga, more bool, err error)
	Approvals(ctx context.Context, keep func(*record.Saga) bool, limit int) (sagas []record.Saga, more bool, err error)
	State(s *record.Saga) (record.State, *record.Wait)
}

// Audited is a partner that can say what it knows of an order.
type Audited interface {
	// Audit adds what the partner knows to a, and reports whether it knows the order.
	Audit(ctx context.Context, orderID string, a *partner.Audit) (known bool, err error)
}

// API has what the routes need.
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
		Description: "Stock, approvals, and the saga that pays, reserves and ships an order, or compensates the completed steps.",
	}
}

// Mount adds the REST routes.
func (a API) Mount(api huma.API) {
	api.OpenAPI().Components.Schemas.RegisterTypeAlias(reflect.TypeFor[contracts.Amount](), reflect.TypeFor[amount]())
	huma.Register(api, huma.Operation{
		OperationID: "get-stock", Method: http.MethodGet, Path: "/v1/inventory/{product_id}",
		Summary: "A product's stock", Tags: []string{"inventory"}, Errors: []int{404, 422, 503},
		Responses: map[string]*huma.Response{"304": {Description: "The stock has an ETag of the If-None-Match header."}},
	}, a.getStock)
	huma.Register(api, huma.Operation{
		OperationID: "set-stock", Method: http.MethodPut, Path: "/v1/inventory/{product_id}",
		Summary: "Set how many pieces of a product the warehouse holds",
		Description: "Creates the product if it is new. Pieces that orders hold stay reserved, so on_hand cannot be less than them. With If-Match the " +
			"answer is 412 if the stock has changed since it was read, with If-None-Match: * if the product exists. Without these headers the request " +
			"sets the counted number, even if pieces shipped since the count. To add or remove pieces, use an adjustment.",
		Tags: []string{"inventory"}, Errors: []int{400, 409, 412, 413, 415, 422, 503},
	}, a.setStock)
	huma.Register(api, huma.Operation{
		OperationID: "adjust-stock", Method: http.MethodPost, Path: "/v1/inventory/{product_id}/adjustments", DefaultStatus: http.StatusOK,
		Summary: "Add or remove pieces of a product",
		Description: "Changes on_hand by delta, once for each Idempotency-Key, also while pieces ship or are reserved. on_hand is never less than what " +
			"orders hold. A key is remembered for 24 hours. If 1,000 keys of a product are remembered, the answer is 409.",
		Tags: []string{"inventory"}, Errors: []int{400, 404, 409, 413, 415, 422, 503},
	}, a.adjustStock)
	body := api.OpenAPI().Paths["/v1/inventory/{product_id}/adjustments"].Post.RequestBody.Content["application/json"].Schema
	api.OpenAPI().Components.Schemas.SchemaFromRef(body.Ref).Properties["delta"].Extensions = map[string]any{"not": map[string]any{"const": 0}}
	huma.Register(api, huma.Operation{
		OperationID: "get-fulfillment", Method: http.MethodGet, Path: "/v1/fulfillments/{order_id}",
		Summary:     "An order's saga: its steps, and what it waits for",
		Description: "Each step has its times, attempts and outcome. The wait says since when, and what would end it.",
		Tags:        []string{"sagas"}, Errors: []int{404, 422, 503},
	}, a.getFulfillment)
	huma.Register(api, huma.Operation{
		OperationID: "get-books", Method: http.MethodGet, Path: "/v1/fulfillments/{order_id}/books",
		Summary:     "What payment provider, warehouse and carrier know of an order",
		Description: "For audits, such as `make doctor`. The answer comes from the partners and not from the saga, also for an order without a saga.",
		Tags:        []string{"sagas"}, Errors: []int{404, 422, 503},
	}, a.getAudit)
	huma.Register(api, huma.Operation{
		OperationID: "list-fulfillments", Method: http.MethodGet, Path: "/v1/fulfillments",
		Summary:     "The sagas that have not ended",
		Description: "stuck: it should have ended by now and waits for no person; the reconciler wakes it. needs_attention: a compensation failed; POST …/repair resumes it.",
		Tags:        []string{"sagas"}, Errors: []int{422, 503},
	}, a.listFulfillments)
	huma.Register(api, huma.Operation{
		OperationID: "repair-fulfillment", Method: http.MethodPost, Path: "/v1/fulfillments/{order_id}/repair", DefaultStatus: http.StatusAccepted,
		Summary:     "Try failed compensations again",
		Description: "For a saga that needs attention. The order's timeline shows actor and reason. A repeated request with the same actor and reason changes nothing.",
		Tags:        []string{"sagas"}, Errors: []int{400, 404, 409, 413, 415, 422, 503},
	}, a.repair)
	huma.Register(api, huma.Operation{
		OperationID: "list-approvals", Method: http.MethodGet, Path: "/v1/approvals",
		Summary:     "Orders that wait for approval, since when, and until when",
		Description: "Decided approvals stay listed for 30 days.",
		Tags:        []string{"approvals"}, Errors: []int{422, 503},
	}, a.listApprovals)
	huma.Register(api, huma.Operation{
		OperationID: "decide-approval", Method: http.MethodPost, Path: "/v1/approvals/{order_id}", DefaultStatus: http.StatusAccepted,
		Summary:     "Approve an order, or refuse it",
		Description: "The first decision counts. The same decision of the same approver again gets the same answer; a different one gets 409 with the first decision.",
		Tags:        []string{"approvals"}, Errors: []int{400, 404, 409, 413, 415, 422, 503},
	}, a.decide)
}

// amount is the JSON form of contracts.Amount.
type amount float64
