package eventing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	dapr "github.com/dapr/go-sdk/client"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrUnavailable says that an event could not be handed to the broker. It may have arrived all the same.
var ErrUnavailable = errors.New("the event bus is unavailable")

// Publisher publishes events to the topics of one pub/sub component. It may be used by many goroutines.
type Publisher struct {
	client    dapr.Client
	component string
	patience  time.Duration
	published metric.Int64Counter
	retried   metric.Int64Counter
}

// publishPatience is how long a Publisher goes on retrying when its caller set no shorter deadline.
const publishPatience = 10 * time.Second

// maxBulk is how many events one bulk request carries at most.
const maxBulk = 500

// NewPublisher returns a Publisher for the named component.
func NewPublisher(client dapr.Client, component string) (*Publisher, error) {
	meter := otel.Meter("waybill/platform/eventing")
	published, err := meter.Int64Counter("waybill.events.published", metric.WithDescription("Events the broker has taken."))
	if err != nil {
		return nil, fmt.Errorf("count published events: %w", err)
	}
	retried, err := meter.Int64Counter("waybill.events.publish_retries", metric.WithDescription("Publish calls that had to be repeated."))
	if err != nil {
		return nil, fmt.Errorf("count publish retries: %w", err)
	}
	return &Publisher{client: client, component: component, patience: publishPatience, published: published, retried: retried}, nil
}

// Publish returns when the broker has the event, after as many retries with backoff as fit into ctx and ten seconds;
// else the error wraps ErrUnavailable, unless the event itself is refused. A retry can deliver the event twice.
func (p *Publisher) Publish(ctx context.Context, topic string, e Event) error {
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode event %s: %w", e.ID, err)
	}
	return p.retry(ctx, topic, 1, func() error {
		return p.client.PublishEvent(ctx, p.component, topic, body,
			dapr.PublishEventWithContentType(CloudEventType), dapr.PublishEventWithMetadata(transport(e.Key)))
	})
}

// PublishAll publishes the events in bulk requests and returns when the broker has all of them, with Publish's errors.
// Dapr does not say which events of a failed request arrived, so a retry repeats the whole request.
func (p *Publisher) PublishAll(ctx context.Context, topic string, events []Event) error {
	for start := 0; start < len(events); start += maxBulk {
		batch := events[start:min(start+maxBulk, len(events))]
		entries := make([]any, len(batch))
		for i, e := range batch {
			body, err := json.Marshal(e)
			if err != nil {
				return fmt.Errorf("encode event %s: %w", e.ID, err)
			}
			entries[i] = dapr.PublishEventsEvent{
				EntryID: fmt.Sprint(i), Data: body, ContentType: CloudEventType, Metadata: transport(e.Key),
			}
		}
		err := p.retry(ctx, topic, int64(len(batch)), func() error {
			return p.client.PublishEvents(ctx, p.component, topic, entries).Error
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// transport is the metadata by which Kafka and Event Hubs (partitionKey) and Service Bus (SessionId) keep a key's order.
func transport(key string) map[string]string {
	if key == "" {
		return nil
	}
	return map[string]string{"partitionKey": key, "SessionId": key}
}

func (p *Publisher) retry(ctx context.Context, topic string, events int64, publish func() error) error {
	toTopic := metric.WithAttributes(attribute.String("topic", topic))
	delay := backoff.NewExponentialBackOff()
	delay.InitialInterval = 50 * time.Millisecond
	delay.MaxInterval = time.Second
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := publish()
		if err != nil && refused(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(delay), backoff.WithMaxElapsedTime(p.patience), backoff.WithNotify(func(error, time.Duration) {
		p.retried.Add(ctx, 1, toTopic)
	}))
	switch {
	case err == nil:
		p.published.Add(ctx, events, toTopic)
		return nil
	case refused(err):
		return fmt.Errorf("publish to %s: %w", topic, err)
	default:
		return fmt.Errorf("publish to %s: %w: %w", topic, ErrUnavailable, err)
	}
}

// refused tells errors that no retry can mend: a topic that this app may not publish to, an event that is too large.
func refused(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unimplemented:
		return true
	default:
		return false
	}
}
