// Package eventing publishes and receives CloudEvents through a Dapr sidecar. It owns delivery: retries, order keys,
// trace context, dead letters and the verdict that each delivery gets. It knows nothing of what the events mean.
package eventing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/propagation"
)

// Event is a CloudEvent 1.0 with JSON data.
type Event struct {
	// ID is the same on every retry of the same fact, so that whoever receives it twice can tell.
	ID      string
	Type    string
	Source  string
	Subject string
	Time    time.Time
	// DataVersion is the version of the payload's shape.
	DataVersion string
	// Key orders events: those of one key are delivered in the order in which they were published. It is not part of
	// the CloudEvent but travels beside it, and is empty on a received event whose transport does not show it.
	Key  string
	Data json.RawMessage
	// Parked says why and by whom the event was set aside, if it was.
	Parked *Parked
	// traceParent and traceState are the W3C trace context under which the event was published.
	traceParent, traceState string
	// rest are the attributes of a received event that have no field here, so that parking it loses nothing.
	rest map[string]json.RawMessage
}

// Trace returns ctx in the trace under which the event was published. A Handler's context is in it already; a BulkHandler
// gets one context for all its events and asks here for that of each.
func (e Event) Trace(ctx context.Context) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": e.traceParent, "tracestate": e.traceState})
}

// Parked is why an event lies on a dead-letter topic.
type Parked struct {
	By     string
	Reason string
	At     time.Time
}

// Payload is the data of an event to publish.
type Payload interface {
	EventType() string
	Subject() string
	Key() string
}

// New makes the event of a fact. The id must follow from the fact.
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

// Decode reads the event's data into v; a failure rejects the event, for it will never be readable.
func (e Event) Decode(v any) error {
	if len(e.Data) == 0 {
		return Reject(errors.New("the event has no data"))
	}
	if err := json.Unmarshal(e.Data, v); err != nil {
		return Reject(fmt.Errorf("the event's data cannot be read: %w", err))
	}
	return nil
}

const (
	specVersion     = "1.0"
	jsonContentType = "application/json"
	// CloudEventType is the media type of an event in structured JSON.
	CloudEventType = "application/cloudevents+json"
)

// cloudEvent is the structured JSON form. Extension names are lower case without separators, as the specification asks.
type cloudEvent struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Type            string          `json:"type"`
	Source          string          `json:"source"`
	Subject         string          `json:"subject,omitempty"`
	Time            string          `json:"time,omitempty"`
	DataContentType string          `json:"datacontenttype,omitempty"`
	DataVersion     string          `json:"dataversion,omitempty"`
	TraceParent     string          `json:"traceparent,omitempty"`
	TraceState      string          `json:"tracestate,omitempty"`
	ParkedBy        string          `json:"parkedby,omitempty"`
	ParkedReason    string          `json:"parkedreason,omitempty"`
	ParkedAt        string          `json:"parkedat,omitempty"`
	Data            json.RawMessage `json:"data,omitempty"`
}

// MarshalJSON writes the event as a CloudEvent in structured JSON.
func (e Event) MarshalJSON() ([]byte, error) {
	ce := cloudEvent{
		SpecVersion: specVersion, ID: e.ID, Type: e.Type, Source: e.Source, Subject: e.Subject,
		DataContentType: jsonContentType, DataVersion: e.DataVersion, Data: e.Data,
	}
	if !e.Time.IsZero() {
		ce.Time = e.Time.Format(time.RFC3339Nano)
	}
	if e.Parked != nil {
		ce.ParkedBy, ce.ParkedReason, ce.ParkedAt = e.Parked.By, e.Parked.Reason, e.Parked.At.UTC().Format(time.RFC3339Nano)
	}
	if len(e.rest) == 0 {
		return json.Marshal(ce)
	}
	return ce.with(e.rest)
}

// with is the event with further attributes, which do not replace any it has, but for the media type of the data.
func (ce cloudEvent) with(rest map[string]json.RawMessage) ([]byte, error) {
	b, err := json.Marshal(ce)
	if err != nil {
		return nil, err
	}
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, err
	}
	for name, value := range rest {
		if _, ok := all[name]; !ok || name == "datacontenttype" {
			all[name] = value
		}
	}
	return json.Marshal(all)
}

// notKept are the attributes with a field of their own, and those that Dapr writes anew on every publish.
var notKept = []string{
	"specversion", "id", "type", "source", "subject", "time", "dataversion", "data", "parkedby", "parkedreason", "parkedat",
	"traceparent", "tracestate", "traceid", "topic", "pubsubname",
}

// UnmarshalJSON reads a CloudEvent leniently: unknown attributes are ignored and a time that cannot be read is left out,
// for another system's slip in what nobody here uses is no reason to refuse its event.
func (e *Event) UnmarshalJSON(b []byte) error {
	rest := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &rest); err != nil {
		return err
	}
	if _, ok := rest["time"]; ok && !isString(rest["time"]) {
		delete(rest, "time")
		var err error
		if b, err = json.Marshal(rest); err != nil {
			return err
		}
	}
	var ce cloudEvent
	if err := json.Unmarshal(b, &ce); err != nil {
		return err
	}
	for _, name := range notKept {
		delete(rest, name)
	}
	*e = Event{
		ID: ce.ID, Type: ce.Type, Source: ce.Source, Subject: ce.Subject, DataVersion: ce.DataVersion,
		Data: ce.Data, traceParent: ce.TraceParent, traceState: ce.TraceState, rest: rest,
	}
	if at, err := time.Parse(time.RFC3339Nano, ce.Time); err == nil {
		e.Time = at
	}
	if ce.ParkedReason != "" {
		e.Parked = &Parked{By: ce.ParkedBy, Reason: ce.ParkedReason}
		if at, err := time.Parse(time.RFC3339Nano, ce.ParkedAt); err == nil {
			e.Parked.At = at
		}
	}
	return nil
}

func isString(value json.RawMessage) bool { return len(value) > 0 && value[0] == '"' }
