package events

import (
	"context"
	"fmt"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/services/analytics/internal/anomaly"
	"waybill/services/analytics/internal/event"
)

// source is the CloudEvents source of anomalies. Analytics events have sources of their own.
const source = "/waybill/analytics"

// Bus publishes events to a topic. It returns nil when the broker has all of them.
type Bus interface {
	PublishAll(ctx context.Context, topic string, events []eventing.Event) error
}

// Buffer collects analytics events of several callers and publishes them in batches. Add returns nil when the broker has
// all the events.
type Buffer interface {
	Add(ctx context.Context, events []eventing.Event) error
}

// Publisher publishes everything that this service publishes.
type Publisher struct {
	Bus    Bus
	Buffer Buffer
}

// ToBus returns the function with which the Buffer publishes a batch.
func ToBus(bus Bus) func(ctx context.Context, batch []eventing.Event) error {
	return func(ctx context.Context, batch []eventing.Event) error {
		return bus.PublishAll(ctx, contracts.TopicAnalyticsEvents, batch)
	}
}

// Publish publishes analytics events through the Buffer, with its errors.
func (p *Publisher) Publish(ctx context.Context, events []event.Event) error {
	batch := make([]eventing.Event, len(events))
	for i := range events {
		e := &events[i]
		var err error
		if batch[i], err = eventing.New(e.ID(), e.Source(), contracts.Version, e.At(), e.Payload()); err != nil {
			return eventing.Reject(fmt.Errorf("encode event %s: %w", e.ID(), err))
		}
	}
	return p.Buffer.Add(ctx, batch)
}

// PublishAlerts publishes anomalies. It is safe to publish an anomaly again: its id is the same.
func (p *Publisher) PublishAlerts(ctx context.Context, found []anomaly.Anomaly) error {
	alerts := make([]eventing.Event, len(found))
	for i, a := range found {
		var err error
		if alerts[i], err = eventing.New(a.ID, source, contracts.Version, a.At, a.Payload()); err != nil {
			return fmt.Errorf("encode anomaly %s: %w", a.ID, err)
		}
	}
	return p.Bus.PublishAll(ctx, contracts.TopicAlerts, alerts)
}
