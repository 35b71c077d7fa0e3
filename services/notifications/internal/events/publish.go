package events

import (
	"context"
	"time"

	"waybill/contracts"
	"waybill/platform/eventing"
)

// source is the CloudEvents source of the events that this service publishes.
const source = "/waybill/notifications"

// Announcer returns a function that publishes the outcome of a message. It may be called again with the same id.
func Announcer(publisher *eventing.Publisher) func(ctx context.Context, id string, at time.Time, outcome contracts.Payload) error {
	return func(ctx context.Context, id string, at time.Time, outcome contracts.Payload) error {
		e, err := eventing.New(id, source, contracts.Version, at, outcome)
		if err != nil {
			return err
		}
		return publisher.Publish(ctx, contracts.TopicNotificationOutcomes, e)
	}
}
