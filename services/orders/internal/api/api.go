// Package api is the REST surface of this service. It turns requests into calls of package ordering, and errors into answers.
// Only this package knows status codes. It does not know how orders are stored, nor the bus.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"waybill/contracts"
	"waybill/platform/rest"
	"waybill/services/orders/internal/admission"
	"waybill/services/orders/internal/idempotency"
	"waybill/services/orders/internal/order"
	"waybill/services/orders/internal/ordering"
	"waybill/services/orders/internal/orderjson"
)

// Reader reads orders.
type Reader interface {
	Get(ctx context.Context, id order.ID) (*order.Order, error)
	// List returns a customer's orders, newest first, and the position of the next page.
	List(ctx context.Context, customerID string, status order.Status, limit, before int) (orders []*order.Order, next int, err error)
	// Open returns orders that have not ended, and whether there are more. A state.ErrUnreadable comes with the readable orders.
	Open(ctx context.Context, limit int) (orders []*order.Order, more bool, err error)
}

// Service answers requests.
type Service struct {
	Orders *ordering.Service
	Reader Reader
	Keys   *idempotency.Keys
	// Admission admits new orders.
	Admission *admission.Gate
	Logger    *slog.Logger
}

// version is the version of this API. The events have a data version of their own.
const version = "1.0"

// Info describes the API.
func Info() rest.Info {
	return rest.Info{
		Title: "Waybill orders", Version: version,
		Description: "Place orders and follow them. An order is accepted once it is stored and published. Everything that happens to it later is an event on its timeline.",
	}
}

// Register adds all operations to the API.
func (s *Service) Register(api huma.API) {
	api.OpenAPI().Components.Schemas.RegisterTypeAlias(reflect.TypeFor[contracts.Amount](), reflect.TypeFor[orderjson.Amount]())

	huma.Register(api, huma.Operation{
		OperationID: "place-order", Method: http.MethodPost, Path: "/v1/orders", DefaultStatus: http.StatusAccepted,
		Summary: "Place an order",
		Description: "Answers 202 once the order is stored and published. A client that got no answer may repeat the request: with an Idempotency-Key, " +
			"or with its own order_id, the repeated request leads to the same order.\n\n" +
			"Answers 503 overloaded, with Retry-After, while admission is closed: as many orders are open as can be finished in time, " +
			"or this customer has more open orders than its share. Then nothing is stored, and the client may repeat the request. A repeated request " +
			"whose order is already stored still gets its answer.",
		MaxBodyBytes: rest.MaxBody, Tags: []string{"orders"},
		Errors: []int{http.StatusBadRequest, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusServiceUnavailable},
	}, s.place)
	huma.Register(api, huma.Operation{
		OperationID: "get-order", Method: http.MethodGet, Path: "/v1/orders/{id}", Tags: []string{"orders"},
		Summary: "Read an order", Description: "With If-None-Match it answers 304 if the order has not changed.",
		Responses: map[string]*huma.Response{"304": {Description: "The order has not changed since the version in If-None-Match."}},
		Errors:    []int{http.StatusNotFound, http.StatusServiceUnavailable},
	}, s.get)
	huma.Register(api, huma.Operation{
		OperationID: "list-orders", Method: http.MethodGet, Path: "/v1/orders", Tags: []string{"orders"},
		Summary: "List a customer's orders, newest first",
		Description: "A cursor stays valid while orders are added. With a status, a page may be short or even empty although there is a next_cursor: " +
			"one request reads a bounded number of orders.",
		Errors: []int{http.StatusServiceUnavailable},
	}, s.list)
	huma.Register(api, huma.Operation{
		OperationID: "list-open-orders", Method: http.MethodGet, Path: "/v1/open-orders", Tags: []string{"orders"},
		Summary:     "List the orders that have not ended, of all customers",
		Description: "For operators, and for audits such as `make doctor`. The orders are in no particular order.",
		Errors:      []int{http.StatusServiceUnavailable},
	}, s.listOpen)
	huma.Register(api, huma.Operation{
		OperationID: "cancel-order", Method: http.MethodPost, Path: "/v1/orders/{id}/cancel", DefaultStatus: http.StatusAccepted, Tags: []string{"orders"},
		Summary: "Request the cancellation of an order",
		Description: "Answers 202, with the order, once it is certain that the order is cancelled or will be: its parcel was not booked, nothing stays " +
			"booked, reserved or charged, and the order ends cancelled. An order that is still received is cancelled at once. For any other order, fulfilment " +
			"records the cancellation and compensates the completed steps. Until that is finished the status does not change, and the timeline shows " +
			"Order.CancellationRequested and the step Cancel with the outcome done.\n\n" +
			"Answers 503 cancellation_pending if fulfilment has not answered within about five seconds. The request is stored and published, and fulfilment " +
			"may still refuse it because the parcel was already booked. Then the timeline shows the step Cancel with the outcome refused, and the order continues.\n\n" +
			"The client may repeat the request and gets the result. While the cancellation runs, and once the order is cancelled, a repeated " +
			"request answers 202 with the current order; the first reason counts.\n\n" +
			"Answers 409 if it is too late: order_shipped, order_final for an order that could not be fulfilled, and order_needs_attention for an order that " +
			"a person must settle first.",
		MaxBodyBytes: rest.MaxBody,
		Errors: []int{
			http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusServiceUnavailable,
		},
	}, s.cancel)
	huma.Register(api, huma.Operation{
		OperationID: "get-timeline", Method: http.MethodGet, Path: "/v1/orders/{id}/timeline", Tags: []string{"orders"},
		Summary:     "Read every event of an order",
		Description: "In the order in which this service processed them, each with the order's status after it.",
		Errors:      []int{http.StatusNotFound, http.StatusServiceUnavailable},
	}, s.timeline)
}
