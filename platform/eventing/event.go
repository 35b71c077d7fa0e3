// Package eventing publishes and receives CloudEvents through a Dapr sidecar. It owns delivery: retries, order keys,
// trace context, dead letters and the verdict that each delivery gets. It knows nothing of what the events mean.
package eventing

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
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
	// traceParent is the W3C trace context under which the event was published.
	traceParent string
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
	return json.Marshal(ce)
}

// UnmarshalJSON reads a CloudEvent leniently: unknown attributes are ignored and a time that cannot be read is left out,
// for another system's slip in what nobody here uses is no reason to refuse its event.
func (e *Event) UnmarshalJSON(b []byte) error {
	var ce cloudEvent
	if err := json.Unmarshal(b, &ce); err != nil {
		return err
	}
	*e = Event{
		ID: ce.ID, Type: ce.Type, Source: ce.Source, Subject: ce.Subject, DataVersion: ce.DataVersion,
		Data: ce.Data, traceParent: ce.TraceParent,
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
