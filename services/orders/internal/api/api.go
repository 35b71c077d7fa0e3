// Package api is the edge of this service: its REST surface, the events it takes and those it publishes. It turns what
// comes in into calls of the domain, and the domain's errors into answers. Only this package knows status codes. It does
// not know how orders are stored.
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
	"waybill/services/orders/internal/admission"
	"waybill/services/orders/internal/idempotency"
	"waybill/services/orders/internal/order"
)

// Orders is where orders are kept.
type Orders interface {
	Create(ctx context.Context, o *order.Order) error
	Get(ctx context.Context, id order.ID) (*order.Order, error)
	Update(ctx context.Context, id order.ID, change func(o *order.Order) (*order.Order, error)) error
	Watch(ctx context.Context, o *order.Order) error
	// Sweep shows visit the orders that are not known to have ended, and forgets those that visit returns as done.
	Sweep(ctx context.Context, visit func(ctx context.Context, ids []order.ID, found map[order.ID]*order.Order) (done []order.ID, err error)) error
	List(ctx context.Context, customerID string, status order.Status, limit, before int) (orders []*order.Order, next int, err error)
}

// Publisher hands events to the bus.
type Publisher interface {
	Publish(ctx context.Context, topic string, e eventing.Event) error
}

// Service answers requests and events.
type Service struct {
	Orders    Orders
	Keys      *idempotency.Keys
	Publisher Publisher
	// Admission says whether there is room for a new order.
	Admission *admission.Gate
	Logger    *slog.Logger
}

// version is the version of this API. It changes when the API does, and not with the data version of the events.
const version = "1.0"

// Info describes the API.
func Info() rest.Info {
	return rest.Info{
		Title: "Waybill orders", Version: version,
		Description: "Place orders and follow them. An order is accepted when it is stored and announced; whatever happens to it afterwards is an event on its timeline.",
	}
}

// Register puts the service's whole REST surface on the API.
func (s *Service) Register(api huma.API) {
	api.OpenAPI().Components.Schemas.RegisterTypeAlias(reflect.TypeFor[contracts.Amount](), reflect.TypeFor[amount]())

	huma.Register(api, huma.Operation{
		OperationID: "place-order", Method: http.MethodPost, Path: "/v1/orders", DefaultStatus: http.StatusAccepted,
		Summary: "Place an order",
		Description: "Answers 202 once the order is stored and announced. A request without an answer may be repeated: with an Idempotency-Key, " +
			"or with an order_id of the client's own, it comes to one and the same order.\n\n" +
			"Answers 503 overloaded, with Retry-After, while there is no room for the order: as many orders are open as can be finished in time, " +
			"or this customer has more of them than its share. Nothing is stored then, and the request may be repeated. One that repeats a request " +
			"whose order is stored already gets its answer all the same.",
		MaxBodyBytes: rest.MaxBody, Tags: []string{"orders"},
		Errors: []int{http.StatusBadRequest, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusServiceUnavailable},
	}, s.place)
	huma.Register(api, huma.Operation{
		OperationID: "get-order", Method: http.MethodGet, Path: "/v1/orders/{id}", Tags: []string{"orders"},
		Summary: "Read an order", Description: "With If-None-Match it answers 304 while the order is unchanged.",
		Responses: map[string]*huma.Response{"304": {Description: "The order is as the If-None-Match header knows it."}},
		Errors:    []int{http.StatusNotFound, http.StatusServiceUnavailable},
	}, s.get)
	huma.Register(api, huma.Operation{
		OperationID: "list-orders", Method: http.MethodGet, Path: "/v1/orders", Tags: []string{"orders"},
		Summary: "List a customer's orders, newest first",
		Description: "Pages hold while orders are added. With a status a page may be short, or even empty, although next_cursor says that there is more: " +
			"one request looks at a bounded number of orders.",
		Errors: []int{http.StatusServiceUnavailable},
	}, s.list)
	huma.Register(api, huma.Operation{
		OperationID: "list-open-orders", Method: http.MethodGet, Path: "/v1/open-orders", Tags: []string{"orders"},
		Summary:     "List the orders that have not ended, of all customers",
		Description: "For operators, and for audits such as `make doctor`: the orders that this service follows until they have ended, in no particular order.",
		Errors:      []int{http.StatusServiceUnavailable},
	}, s.listOpen)
	huma.Register(api, huma.Operation{
		OperationID: "cancel-order", Method: http.MethodPost, Path: "/v1/orders/{id}/cancel", DefaultStatus: http.StatusAccepted, Tags: []string{"orders"},
		Summary: "Ask for an order to be cancelled",
		Description: "Answers 202, with the order, once it is certain that the order is cancelled or will be: the parcel was not booked before, nothing stays " +
			"booked, reserved or charged, and the order ends cancelled. An order that is still received is cancelled at once. For any other, fulfilment " +
			"records the cancellation and undoes what was done; until then the status stays, and the timeline shows Order.CancellationRequested and " +
			"the step Cancel, done.\n\n" +
			"Answers 503 cancellation_pending when fulfilment has not answered within about five seconds. The wish is stored and passed on all the same, " +
			"and fulfilment may find that the parcel was booked before: then the timeline shows the step Cancel, refused, and the order goes on.\n\n" +
			"A request may be repeated, and answers with the result. While the cancellation is under way, and once the order is cancelled, a repeated " +
			"request answers 202 with the order as it is; the first reason counts.\n\n" +
			"Answers 409 when it is too late: order_shipped, order_final for one that could not be fulfilled, and order_needs_attention for one that " +
			"a person must settle first.",
		MaxBodyBytes: rest.MaxBody,
		Errors: []int{
			http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusServiceUnavailable,
		},
	}, s.cancel)
	huma.Register(api, huma.Operation{
		OperationID: "get-timeline", Method: http.MethodGet, Path: "/v1/orders/{id}/timeline", Tags: []string{"orders"},
		Summary:     "Read every event of an order",
		Description: "In the order in which this service learned of them, each with the order's status after it.",
		Errors:      []int{http.StatusNotFound, http.StatusServiceUnavailable},
	}, s.timeline)
}

// Subscriptions is every event the service takes.
func (s *Service) Subscriptions() []eventing.Subscription {
	return []eventing.Subscription{
		subscription(contracts.OrdersReadsOrders, map[string]eventing.Handler{
			contracts.TypeOrderCreated: s.created,
		}),
		subscription(contracts.OrdersReadsFulfillment, map[string]eventing.Handler{
			contracts.TypeStepCompleted:        s.stepCompleted,
			contracts.TypeApprovalRequested:    s.approvalRequested,
			contracts.TypeFulfillmentCompleted: s.fulfillmentCompleted,
			contracts.TypeFulfillmentFailed:    s.fulfillmentFailed,
			contracts.TypeFulfillmentCancelled: s.fulfillmentCancelled,
		}),
	}
}

func subscription(s contracts.Subscription, handlers map[string]eventing.Handler) eventing.Subscription {
	return eventing.Subscription{
		Component: contracts.OrderBus, Topic: s.Topic, DeadLetter: s.DeadLetter(), Sessions: true, Handlers: handlers,
	}
}

// Remind publishes again what of the order waits for an answer. While orders from the bus wait there, an order that was placed over
// REST is confirmed at once: its own event is behind them.
func (s *Service) Remind(ctx context.Context, o *order.Order) error {
	if err := s.announce(ctx, o, o.Outstanding()...); err != nil {
		return err
	}
	if o.Status() != order.Received || !s.Admission.BusMayBeHeld() {
		return nil
	}
	return s.confirmPlaced(ctx, o)
}

// announce publishes entries of the order's timeline that are the service's own.
func (s *Service) announce(ctx context.Context, o *order.Order, entries ...order.Entry) error {
	for _, entry := range entries {
		payload := o.Announcement(entry)
		if payload == nil {
			continue
		}
		e, err := eventing.New(entry.EventID, order.Source, contracts.Version, entry.Time, payload)
		if err != nil {
			return err
		}
		if err := s.Publisher.Publish(ctx, contracts.TopicOrders, e); err != nil {
			return err
		}
	}
	return nil
}
