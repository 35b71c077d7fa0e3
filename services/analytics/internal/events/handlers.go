// Package events connects this service to the message bus: its subscriptions, the handlers of the events that it receives,
// and everything that it publishes. It converts between CloudEvents and the domain, and knows neither the store nor HTTP.
package events

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/services/analytics/internal/event"
	"waybill/services/analytics/internal/processor"
)

// Options configure Handlers.
type Options struct {
	Processor *processor.Processor
	Publisher *Publisher
	// MaxAhead is how far in the future the time of an event may be when the event arrives.
	MaxAhead time.Duration
	// The bus delivers a batch when it has BatchSize events, or after BatchWait.
	BatchSize int
	BatchWait time.Duration
}

// Handlers process the events that this service receives.
type Handlers struct {
	Options

	received metric.Int64Counter
}

// New makes the Handlers.
func New(o Options) (*Handlers, error) {
	received, err := otel.Meter("waybill/services/analytics").Int64Counter("waybill.analytics.events",
		metric.WithDescription("Events received from the bus, by outcome: new, known, rejected, unstored."))
	if err != nil {
		return nil, fmt.Errorf("create the counter of received events: %w", err)
	}
	return &Handlers{Options: o, received: received}, nil
}

// Subscriptions are the topics that this service reads.
func (h *Handlers) Subscriptions() []eventing.Subscription {
	return []eventing.Subscription{
		h.subscribe(contracts.AnalyticsReadsEvents, h.analyticsEvents),
		h.subscribe(contracts.AnalyticsReadsOrders, eventing.OfType(contracts.TypeOrderFulfilled, eventing.OnBatch(h.fulfilledOrders))),
	}
}

func (h *Handlers) subscribe(s contracts.Subscription, handle eventing.BulkHandler) eventing.Subscription {
	return eventing.Subscription{
		Component: contracts.Bus(s.Topic), Topic: s.Topic, DeadLetter: s.DeadLetter(),
		Sessions: contracts.Bus(s.Topic) == contracts.OrderBus,
		Bulk:     &eventing.Bulk{MaxMessages: h.BatchSize, MaxAwait: h.BatchWait, Handle: handle},
	}
}

// analyticsEvents decodes a batch and gives the valid events to the Processor. It rejects the others.
func (h *Handlers) analyticsEvents(ctx context.Context, delivered []eventing.Event) []error {
	errs := make([]error, len(delivered))
	events, at := make([]event.Event, 0, len(delivered)), make([]int, 0, len(delivered))
	now := time.Now()
	for i := range delivered {
		e, err := decode(&delivered[i], now, h.MaxAhead)
		if err != nil {
			errs[i] = eventing.Reject(err)
			continue
		}
		events, at = append(events, e), append(at, i)
	}
	h.count(ctx, "rejected", len(delivered)-len(events))
	outcome, err := h.Processor.Process(ctx, events)
	h.count(ctx, "new", outcome.New)
	h.count(ctx, "known", outcome.Known)
	h.count(ctx, "unstored", outcome.Unstored)
	for _, i := range at {
		errs[i] = err
	}
	return errs
}

// decode accepts what publishers other than this service may leave out: a time zone, and the event's id.
func decode(delivered *eventing.Event, now time.Time, maxAhead time.Duration) (event.Event, error) {
	return event.Decode(delivered.DataText(), event.Rules{
		Type: delivered.Type, Source: delivered.Source, Delivered: true, Now: now, MaxAhead: maxAhead, NaiveIsUTC: true, DeriveID: true,
	})
}

func (h *Handlers) count(ctx context.Context, outcome string, n int) {
	if n > 0 {
		h.received.Add(ctx, int64(n), metric.WithAttributes(attribute.String("outcome", outcome)))
	}
}

// maxPublished is how many purchases are published together.
const maxPublished = 500

// fulfilledOrders publishes one purchase for each line of the orders. It is idempotent: the ids of the purchases follow from
// the order, and the Processor counts each id once.
func (h *Handlers) fulfilledOrders(ctx context.Context, orders []eventing.Typed[contracts.OrderFulfilled]) []error {
	errs := make([]error, len(orders))
	now := time.Now()
	var purchases []event.Event
	for i, order := range orders {
		lines, err := h.purchases(order, now)
		if err != nil {
			errs[i] = eventing.Reject(err)
			continue
		}
		purchases = append(purchases, lines...)
	}
	for part := range slices.Chunk(purchases, maxPublished) {
		if err := h.Publisher.Publish(ctx, part); err != nil {
			// A single order may be the cause. The Receiver finds it: it calls this handler again with each order alone.
			for i := range errs {
				if errs[i] == nil {
					errs[i] = fmt.Errorf("publish purchases: %w", err)
				}
			}
			break
		}
	}
	return errs
}

// purchases are those of an order. If the order's time is too far in the future, the clock of orders is ahead of ours: the
// purchases then get the time now, because analytics would reject their own.
func (h *Handlers) purchases(order eventing.Typed[contracts.OrderFulfilled], now time.Time) ([]event.Event, error) {
	data := order.Data
	if data.FulfilledAt.IsZero() {
		data.FulfilledAt = order.Event.Time
	}
	if data.FulfilledAt.Sub(now) > h.MaxAhead {
		data.FulfilledAt = now.UTC()
	}
	return event.Purchases(data)
}
