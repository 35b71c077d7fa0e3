// Package events connects this service to the message bus: its subscriptions, the handlers of the events that it receives,
// and everything that it publishes. It converts between CloudEvents and the domain, and knows neither the store nor HTTP.
package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/platform/strictjson"
	"waybill/platform/timestamp"
	"waybill/services/orders/internal/order"
	"waybill/services/orders/internal/ordering"
	"waybill/services/orders/internal/orderjson"
)

// Handlers process the events that this service receives.
type Handlers struct {
	Orders *ordering.Service
	Logger *slog.Logger
}

// Subscriptions are the topics that this service reads.
func (h *Handlers) Subscriptions() []eventing.Subscription {
	return []eventing.Subscription{
		subscribe(contracts.OrdersReadsOrders, map[string]eventing.Handler{
			contracts.TypeOrderCreated: h.created,
		}),
		subscribe(contracts.OrdersReadsFulfillment, map[string]eventing.Handler{
			contracts.TypeStepCompleted:        eventing.On(h.stepCompleted),
			contracts.TypeApprovalRequested:    eventing.On(h.approvalRequested),
			contracts.TypeFulfillmentCompleted: eventing.On(h.fulfillmentCompleted),
			contracts.TypeFulfillmentFailed:    eventing.On(h.fulfillmentFailed),
			contracts.TypeFulfillmentCancelled: eventing.On(h.fulfillmentCancelled),
		}),
	}
}

func subscribe(s contracts.Subscription, handlers map[string]eventing.Handler) eventing.Subscription {
	return eventing.Subscription{
		Component: contracts.OrderBus, Topic: s.Topic, DeadLetter: s.DeadLetter(), Sessions: true, Handlers: handlers,
	}
}

// created confirms an order from the bus, this service's own or another system's.
//
// It does not use eventing.On, because any system may write this event: one rejection names every fault of the order.
func (h *Handlers) created(ctx context.Context, e eventing.Event) error {
	o, err := decodeCreated(e)
	if err != nil {
		return eventing.Reject(err)
	}
	// Admission applies to orders of other systems. This service admitted its own orders before it published them, and an
	// operator decided about a redriven one.
	if e.Source != order.Source && !eventing.Redriven(ctx) {
		slot, err := h.Orders.AdmitFromBus(ctx, o)
		if err != nil {
			return eventing.Retry(err)
		}
		defer slot.Release()
	}
	return verdict(h.Orders.Confirm(ctx, o, causeOf(e)))
}

func (h *Handlers) stepCompleted(ctx context.Context, e eventing.Event, data contracts.StepCompleted) error {
	return h.follow(ctx, e, data.OrderID, func(o *order.Order, cause order.Cause, now time.Time) bool { return o.Step(cause, data, now) })
}

func (h *Handlers) approvalRequested(ctx context.Context, e eventing.Event, data contracts.ApprovalRequested) error {
	return h.follow(ctx, e, data.OrderID, func(o *order.Order, cause order.Cause, now time.Time) bool { return o.AwaitApproval(cause, data, now) })
}

func (h *Handlers) fulfillmentCompleted(ctx context.Context, e eventing.Event, data contracts.FulfillmentCompleted) error {
	return h.follow(ctx, e, data.OrderID, func(o *order.Order, cause order.Cause, now time.Time) bool { return o.Complete(cause, data, now) })
}

func (h *Handlers) fulfillmentFailed(ctx context.Context, e eventing.Event, data contracts.FulfillmentFailed) error {
	return h.follow(ctx, e, data.OrderID, func(o *order.Order, cause order.Cause, now time.Time) bool { return o.Fail(cause, data, now) })
}

func (h *Handlers) fulfillmentCancelled(ctx context.Context, e eventing.Event, data contracts.FulfillmentCancelled) error {
	return h.follow(ctx, e, data.OrderID, func(o *order.Order, cause order.Cause, now time.Time) bool { return o.Cancel(cause, data, now) })
}

// follow applies an event of the saga to its order. It rejects the event of an order that is not stored.
func (h *Handlers) follow(ctx context.Context, e eventing.Event, orderID string, apply func(o *order.Order, cause order.Cause, now time.Time) bool) error {
	id, err := order.ParseID(orderID)
	if err != nil {
		return eventing.Reject(err)
	}
	cause := causeOf(e)
	err = h.Orders.Follow(ctx, id, cause, func(o *order.Order, now time.Time) bool { return apply(o, cause, now) })
	if refused, ok := errors.AsType[*order.Error](err); ok && refused.Kind == order.NotFound {
		h.Logger.WarnContext(ctx, "event of an order that is not stored; it is dead-lettered (make doctor lists lost orders)",
			slog.String("order_id", orderID), slog.String("event_type", e.Type), slog.String("event_id", e.ID))
	}
	return verdict(err)
}

// verdict rejects the event if the domain refused it. Any other error decides by itself.
func verdict(err error) error {
	if _, refused := errors.AsType[*order.Error](err); refused {
		return eventing.Reject(err)
	}
	return err
}

// createdData is an Order.Created of any system.
type createdData struct {
	orderjson.NewOrder
	CreatedAt json.RawMessage `json:"created_at"`
}

// decodeCreated reads and checks the order in the event. The error names every fault, and no values.
func decodeCreated(e eventing.Event) (*order.Order, error) {
	var data createdData
	err := strictjson.Check(e.Data)
	if err != nil {
		return nil, fmt.Errorf("the event's data cannot be read: %w", err)
	}
	mistyped, _ := errors.AsType[*strictjson.Error](strictjson.Unmarshal(e.Data, &data))
	if mistyped != nil {
		_ = json.Unmarshal(e.Data, &data) // it reads on after a field of the wrong type, so the error can name the others' faults too
	}
	o, invalid := order.New(data.Draft(), createdAt(data.CreatedAt, e))
	switch {
	case mistyped == nil:
		return o, invalid
	case invalid == nil:
		return nil, fmt.Errorf("%s %s", mistyped.Path, mistyped.Rule)
	default:
		return nil, fmt.Errorf("%s %s. %w", mistyped.Path, mistyped.Rule, invalid)
	}
}

// createdAt is when the customer placed the order. A time that is missing or out of range does not make the order invalid:
// then it is the time of the event.
func createdAt(written json.RawMessage, e eventing.Event) time.Time {
	var at time.Time
	if err := json.Unmarshal(written, &at); err == nil && timestamp.Check(at) == nil {
		return at
	}
	return eventTime(e)
}

func eventTime(e eventing.Event) time.Time {
	if timestamp.Check(e.Time) != nil {
		return time.Now().UTC().Truncate(time.Millisecond)
	}
	return e.Time
}

func causeOf(e eventing.Event) order.Cause {
	return order.Cause{EventID: e.ID, Source: e.Source, Time: eventTime(e)}
}
