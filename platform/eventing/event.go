// Package eventing publishes and receives CloudEvents through a Dapr sidecar. It owns delivery: retries, order keys, trace
// context, dead letters, and the answer to each delivery. It does not know what the events mean.
package eventing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"waybill/platform/strictjson"
	"waybill/platform/timestamp"
)

// Event is a CloudEvent 1.0 with JSON data.
type Event struct {
	// ID is the same on every retry of the same fact, so that a receiver can deduplicate.
	ID      string
	Type    string
	Source  string
	Subject string
	Time    time.Time
	// DataVersion is the version of the payload's shape.
	DataVersion string
	// Key is the partition key: events of one key are delivered in the order in which they were published. It is not part of
	// the CloudEvent. It is empty on a received event whose transport does not pass it on.
	Key  string
	Data json.RawMessage
	// DeadLetter says why and by which service the event was dead-lettered. It is nil on other events.
	DeadLetter *DeadLetter
	// traceParent and traceState are the W3C trace context under which the event was published.
	traceParent, traceState string
	// dataText is Data of an event that came in a batch: a substring of the batch's text.
	dataText string
	// received is the text of a received event. It also has the attributes that have no field here, so that a dead letter
	// keeps them.
	received string
}

// Trace returns ctx in the trace under which the event was published. The context of a Handler is in it already. A BulkHandler
// gets one context for all its events, and calls Trace for the context of each.
func (e Event) Trace(ctx context.Context) context.Context {
	return propagation.TraceContext{}.Extract(ctx, traceHeaders{e.traceParent, e.traceState})
}

// traceHeaders is an event's trace context, as a propagation.TextMapCarrier.
type traceHeaders struct{ parent, state string }

// Get returns a header's value.
func (h traceHeaders) Get(name string) string {
	switch name {
	case "traceparent":
		return h.parent
	case "tracestate":
		return h.state
	default:
		return ""
	}
}

// Set does nothing: a received event does not change.
func (h traceHeaders) Set(string, string) {}

// Keys returns the headers' names.
func (h traceHeaders) Keys() []string { return []string{"traceparent", "tracestate"} }

// DataText returns Data as text. For an event that came in a batch it is a substring of the batch's text, not a copy.
func (e Event) DataText() string {
	if e.dataText != "" && e.dataText == string(e.Data) {
		return e.dataText
	}
	return string(e.Data)
}

// Payload is the data of an event to publish.
type Payload interface {
	EventType() string
	Subject() string
	Key() string
}

// New returns the event of a fact. The id must be derived from the fact, so that a retry repeats it.
func New(id, source, version string, at time.Time, payload Payload) (Event, error) {
	data, err := json.Marshal(payload)
	if err != nil {
		return Event{}, fmt.Errorf("encode %s: %w", payload.EventType(), err)
	}
	return Event{
		ID: id, Type: payload.EventType(), Source: source, Subject: payload.Subject(), Time: at.UTC(),
		DataVersion: version, Key: payload.Key(), Data: data,
	}, nil
}

// Decode decodes the event's data into v, strictly. Its error rejects the event, because no retry can make the data readable.
func (e Event) Decode(v any) error {
	if len(e.Data) == 0 {
		return Reject(errors.New("the event has no data"))
	}
	if err := strictjson.Unmarshal(e.Data, v); err != nil {
		return Reject(fmt.Errorf("the event's data cannot be decoded: %w", err))
	}
	if path := timestamp.FindUnwritable(v); path != "" {
		return Reject(fmt.Errorf("%s must be a time in the years 0000 to 9999 in UTC", path))
	}
	return nil
}
