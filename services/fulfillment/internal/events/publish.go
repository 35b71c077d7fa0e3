// Package events connects fulfilment to the message bus: everything that it publishes, its subscriptions, and the handlers of the events
// that it receives.
package events

import (
	"context"
	"fmt"
	"time"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/saga"
)

// source is the CloudEvents source of all events that this service publishes.
const source = "/waybill/fulfillment"

// Bus publishes events to a topic. It returns nil when the broker has all of them.
type Bus interface {
	Publish(ctx context.Context, topic string, e eventing.Event) error
	PublishAll(ctx context.Context, topic string, events []eventing.Event) error
}

// Publisher publishes fulfilment's events to the topics that it owns, and requests for customer messages to the notifications' inbox.
type Publisher struct{ Bus Bus }

// Publish publishes one event.
func (p Publisher) Publish(ctx context.Context, id string, payload contracts.Payload) error {
	return p.publish(ctx, topicOf(payload), id, payload)
}

// PublishAll publishes events in as few requests as their topics allow.
func (p Publisher) PublishAll(ctx context.Context, all ...saga.Event) error {
	for len(all) > 0 {
		topic, n := topicOf(all[0].Payload), 1
		for n < len(all) && topicOf(all[n].Payload) == topic {
			n++
		}
		batch := make([]eventing.Event, n)
		for i := range batch {
			var err error
			if batch[i], err = eventing.New(all[i].ID, source, contracts.Version, time.Now(), all[i].Payload); err != nil {
				return err
			}
		}
		if err := p.Bus.PublishAll(ctx, topic, batch); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

func topicOf(payload contracts.Payload) string {
	if payload.EventType() == contracts.TypeNotificationRequested {
		return contracts.TopicNotifications
	}
	return contracts.TopicFulfillment
}

// AnnounceStock returns the function that announces the latest change of a product's stock in a warehouse.
func (p Publisher) AnnounceStock(warehouse string) func(context.Context, inventory.Stock) error {
	return func(ctx context.Context, s inventory.Stock) error {
		return p.publish(ctx, contracts.TopicInventory, fmt.Sprintf("%s:stock:%d", s.ProductID, s.Last.Revision), contracts.StockChanged{
			ProductID: s.ProductID, CurrentStock: s.Last.Current, PreviousStock: s.Last.Previous,
			Change: s.Last.Current - s.Last.Previous, WarehouseID: warehouse, Revision: s.Last.Revision, Timestamp: s.Last.At.UTC(),
		})
	}
}

func (p Publisher) publish(ctx context.Context, topic, id string, payload contracts.Payload) error {
	event, err := eventing.New(id, source, contracts.Version, time.Now(), payload)
	if err != nil {
		return err
	}
	return p.Bus.Publish(ctx, topic, event)
}
