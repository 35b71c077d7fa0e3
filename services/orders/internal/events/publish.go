package events

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/services/orders/internal/order"
)

// Bus publishes an event to a topic. It returns nil when the broker has it.
type Bus interface {
	Publish(ctx context.Context, topic string, e eventing.Event) error
}

// Publisher publishes everything that this service publishes. The id of an event follows from the fact, so it is safe to
// publish a fact again.
type Publisher struct {
	Bus Bus
}

// Publish publishes the entries of the order's timeline that are this service's own. It skips the others.
func (p Publisher) Publish(ctx context.Context, o *order.Order, entries ...order.Entry) error {
	for _, entry := range entries {
		payload := o.Announcement(entry)
		if payload == nil {
			continue
		}
		e, err := eventing.New(entry.EventID, order.Source, contracts.Version, entry.Time, payload)
		if err != nil {
			return err
		}
		if err := p.Bus.Publish(ctx, contracts.TopicOrders, e); err != nil {
			return err
		}
	}
	return nil
}

// fulfillment is the other source of the events that this service reads, besides its own.
const fulfillment = "/waybill/fulfillment"

// DeadLettered publishes, as System.Error, that this service dead-lettered an event.
func (p Publisher) DeadLettered(ctx context.Context, topic string, e eventing.Event) error {
	id := topic + ":" + e.ID + ":" + contracts.TypeSystemError
	if e.Source != order.Source && e.Source != fulfillment {
		// An event id is unique only within its source.
		sum := sha256.Sum256([]byte(e.Source))
		id += ":" + hex.EncodeToString(sum[:8])
	}
	systemError, err := eventing.New(id, order.Source, contracts.Version, e.DeadLetter.At, contracts.SystemError{
		Service: contracts.AppOrders, Topic: topic, EventID: e.ID, Type: e.Type, About: e.Subject,
		Error: e.DeadLetter.Reason, OccurredAt: e.DeadLetter.At.UTC(),
	})
	if err != nil {
		return err
	}
	return p.Bus.Publish(ctx, contracts.TopicOrders, systemError)
}
