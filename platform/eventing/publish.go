package eventing

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	dapr "github.com/dapr/go-sdk/client"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"waybill/platform/retryable"
)

// ErrUnavailable says that publishing failed after all retries. The event may have arrived nevertheless.
var ErrUnavailable = retryable.New("the event bus is unavailable")

// ErrRefused says that the broker or the sidecar will never accept the event: it is too large, or this app may not publish it.
var ErrRefused = retryable.NewPermanent("the event bus refuses the event")

// Publisher publishes events to the topics of one pub/sub component. It may be used by many goroutines.
type Publisher struct {
	client    dapr.Client
	component string
	timeout   time.Duration
	published metric.Int64Counter
	retried   metric.Int64Counter
	logger    *slog.Logger
	failing   *sync.Map // topic → since when publishing to it fails
}

// publishTimeout is how long a Publisher retries if its caller's context has no shorter deadline.
const publishTimeout = 10 * time.Second

const (
	// maxBulk and maxBulkBytes bound the events, and their bytes, of one bulk request.
	maxBulk      = 500
	maxBulkBytes = 2 << 20
	// maxEvent is the largest event, in bytes. The Kafka components accept messages of 1 MiB (maxMessageBytes), including what
	// the sidecar adds. For an event of a bulk request, Dapr's error does not name this reason.
	maxEvent = 1<<20 - 16<<10
)

// NewPublisher returns a Publisher for the named component.
func NewPublisher(client dapr.Client, component string) (*Publisher, error) {
	meter := otel.Meter("waybill/platform/eventing")
	published, err := meter.Int64Counter("waybill.events.published", metric.WithDescription("Events that the broker accepted."))
	if err != nil {
		return nil, fmt.Errorf("count published events: %w", err)
	}
	retried, err := meter.Int64Counter("waybill.events.publish_retries", metric.WithDescription("Publish calls that were retried."))
	if err != nil {
		return nil, fmt.Errorf("count publish retries: %w", err)
	}
	return &Publisher{client: client, component: component, timeout: publishTimeout, published: published, retried: retried, logger: slog.New(slog.DiscardHandler), failing: &sync.Map{}}, nil
}

// On returns a Publisher like p for another component.
func (p *Publisher) On(component string) *Publisher {
	other := *p
	other.component = component
	return &other
}

// WithLogger returns a Publisher like p that logs when publishing to a topic begins to fail and when it works again.
func (p *Publisher) WithLogger(logger *slog.Logger) *Publisher {
	other := *p
	other.logger = logger
	return &other
}

// noteFailure logs the first failure of a topic.
func (p *Publisher) noteFailure(ctx context.Context, topic string, err error) {
	if _, failing := p.failing.LoadOrStore(topic, time.Now()); !failing {
		p.logger.WarnContext(ctx, "publish failed; will retry", slog.String("component", p.component), slog.String("topic", topic), slog.Any("error", err))
	}
}

// noteSuccess logs that a topic that failed works again.
func (p *Publisher) noteSuccess(ctx context.Context, topic string) {
	if since, failed := p.failing.LoadAndDelete(topic); failed {
		p.logger.InfoContext(ctx, "publish works again", slog.String("component", p.component), slog.String("topic", topic),
			slog.Duration("failed_for", time.Since(since.(time.Time)).Round(time.Millisecond))) //nolint:forcetypeassert // noteFailure stores nothing else
	}
}

// Publish returns nil when the broker has the event. It retries with backoff until ctx ends, at most for ten seconds. Its error
// wraps ErrUnavailable, or ErrRefused if no retry can help. A retry can deliver the event twice.
func (p *Publisher) Publish(ctx context.Context, topic string, e Event) error {
	body, err := encode(e)
	if err != nil {
		return err
	}
	return p.retry(ctx, topic, 1, func(ctx context.Context) error {
		return p.client.PublishEvent(ctx, p.component, topic, body,
			dapr.PublishEventWithContentType(CloudEventType), dapr.PublishEventWithMetadata(transport(e)))
	})
}

// PublishAll publishes the events in bulk requests and returns when the broker has all of them, with Publish's errors.
// Dapr does not say which events of a failed request arrived, so a retry repeats the whole request.
func (p *Publisher) PublishAll(ctx context.Context, topic string, events []Event) error {
	var entries []any
	size := 0
	flush := func() error {
		if len(entries) == 0 {
			return nil
		}
		err := p.retry(ctx, topic, int64(len(entries)), func(ctx context.Context) error {
			return p.client.PublishEvents(ctx, p.component, topic, entries).Error
		})
		entries, size = nil, 0
		return err
	}
	for i, e := range events {
		body, err := encode(e)
		if err != nil {
			return err
		}
		if len(entries) == maxBulk || size+len(body) > maxBulkBytes {
			if err := flush(); err != nil {
				return err
			}
		}
		entries, size = append(entries, dapr.PublishEventsEvent{
			EntryID: strconv.Itoa(i), Data: body, ContentType: CloudEventType, Metadata: transport(e),
		}), size+len(body)
	}
	return flush()
}

// encode encodes the event. It refuses one that no sidecar accepts, so that it is not retried.
func encode(e Event) ([]byte, error) {
	body, err := e.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encode event %s: %w: %w", e.ID, ErrRefused, err)
	}
	if len(body) > maxEvent {
		return nil, fmt.Errorf("%w: event %s must not have more than %d bytes, got %d", ErrRefused, e.ID, maxEvent, len(body))
	}
	return body, nil
}

// transport is the metadata that makes Kafka and Event Hubs (partitionKey) and Service Bus (SessionId) keep the order of a key,
// and Service Bus deduplicate events (MessageId). An event without a key is a session of its own, because a subscription with
// sessions does not receive an event without one.
func transport(e Event) map[string]string {
	id := serviceBusID(e.ID)
	if e.Key == "" {
		return map[string]string{"SessionId": id, "MessageId": id}
	}
	return map[string]string{"partitionKey": e.Key, "SessionId": serviceBusID(e.Key), "MessageId": id}
}

// serviceBusID is text, or its hash if it is longer than Service Bus allows.
func serviceBusID(text string) string {
	if len(text) <= 128 {
		return text
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
}

func (p *Publisher) retry(ctx context.Context, topic string, events int64, publish func(context.Context) error) error {
	toTopic := metric.WithAttributes(attribute.String("topic", topic))
	delay := backoff.NewExponentialBackOff()
	delay.InitialInterval = 50 * time.Millisecond
	delay.MaxInterval = time.Second
	// The deadline also ends a call that the sidecar does not answer.
	bounded, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	_, err := backoff.Retry(bounded, func() (struct{}, error) {
		err := publish(bounded)
		if retryable.IsPermanent(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(delay), backoff.WithMaxElapsedTime(p.timeout), backoff.WithNotify(func(err error, _ time.Duration) {
		p.retried.Add(ctx, 1, toTopic)
		p.noteFailure(ctx, topic, err)
	}))
	switch {
	case err == nil:
		p.published.Add(ctx, events, toTopic)
		p.noteSuccess(ctx, topic)
		return nil
	case retryable.IsPermanent(err):
		return fmt.Errorf("publish to %s: %w: %w", topic, ErrRefused, err)
	default:
		if ctx.Err() == nil { // else the caller left
			p.noteFailure(ctx, topic, err)
		}
		return fmt.Errorf("publish to %s: %w: %w", topic, ErrUnavailable, err)
	}
}
