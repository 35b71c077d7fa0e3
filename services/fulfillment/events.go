package main

import (
	"context"
	"fmt"
	"time"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/saga"
)

// source is the CloudEvents source of what this service publishes.
const source = "/waybill/fulfillment"

// events publishes fulfilment's facts to the topics it owns, and what customers are to be told to the notifications' inbox.
type events struct{ publisher *eventing.Publisher }

func (e events) Publish(ctx context.Context, id string, payload contracts.Payload) error {
	return e.publish(ctx, topicOf(payload), id, payload)
}

// PublishAll publishes events in as few requests as their topics allow.
func (e events) PublishAll(ctx context.Context, all ...saga.Event) error {
	for len(all) > 0 {
		topic, together := topicOf(all[0].Payload), 1
		for together < len(all) && topicOf(all[together].Payload) == topic {
			together++
		}
		batch := make([]eventing.Event, together)
		for i := range batch {
			var err error
			if batch[i], err = eventing.New(all[i].ID, source, contracts.Version, time.Now(), all[i].Payload); err != nil {
				return err
			}
		}
		if err := e.publisher.PublishAll(ctx, topic, batch); err != nil {
			return err
		}
		all = all[together:]
	}
	return nil
}

func topicOf(payload contracts.Payload) string {
	if payload.EventType() == contracts.TypeNotificationRequested {
		return contracts.TopicNotifications
	}
	return contracts.TopicFulfillment
}

func (e events) announceStock(warehouse string) func(context.Context, inventory.Stock) error {
	return func(ctx context.Context, s inventory.Stock) error {
		return e.publish(ctx, contracts.TopicInventory, fmt.Sprintf("%s:stock:%d", s.ProductID, s.Last.Revision), contracts.StockChanged{
			ProductID: s.ProductID, CurrentStock: s.Last.Current, PreviousStock: s.Last.Previous,
			Change: s.Last.Current - s.Last.Previous, WarehouseID: warehouse, Revision: s.Last.Revision, Timestamp: s.Last.At.UTC(),
		})
	}
}

func (e events) publish(ctx context.Context, topic, id string, payload contracts.Payload) error {
	event, err := eventing.New(id, source, contracts.Version, time.Now(), payload)
	if err != nil {
		return err
	}
	return e.publisher.Publish(ctx, topic, event)
}
