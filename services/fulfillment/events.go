package main

import (
	"context"
	"fmt"
	"time"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/services/fulfillment/internal/inventory"
)

// source is the CloudEvents source of what this service publishes.
const source = "/waybill/fulfillment"

// events publishes fulfilment's facts to the topics it owns, and what customers are to be told to the notifications' inbox.
type events struct{ publisher *eventing.Publisher }

func (e events) Publish(ctx context.Context, id string, payload contracts.Payload) error {
	topic := contracts.TopicFulfillment
	if payload.EventType() == contracts.TypeNotificationRequested {
		topic = contracts.TopicNotifications
	}
	return e.publish(ctx, topic, id, payload)
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
