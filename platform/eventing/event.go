// Package eventing publishes and receives CloudEvents through a Dapr sidecar. It owns delivery: retries, order keys,
// trace context, dead letters and the verdict that each delivery gets. It knows nothing of what the events mean.
package eventing

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"waybill/platform/strictjson"
	"waybill/platform/timestamp"
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
	// DeadLetter says why and by whom the event was set aside, if it was.
	DeadLetter *DeadLetter
	// traceParent and traceState are the W3C trace context under which the event was published.
	traceParent, traceState string
	// dataText is Data of an event that came in a batch, a part of the batch's text.
	dataText string
	// received is the text of a received event. It has the attributes that have no field here, so that dead-lettering it loses
	// nothing.
	received string
}

// Trace returns ctx in the trace under which the event was published. A Handler's context is in it already; a BulkHandler
// gets one context for all its events and asks here for that of each.
func (e Event) Trace(ctx context.Context) context.Context {
	return propagation.TraceContext{}.Extract(ctx, traceHeaders{e.traceParent, e.traceState})
}

// traceHeaders shows an event's trace context to a propagator.
type traceHeaders struct{ parent, state string }

// Get is that of a propagation.TextMapCarrier.
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

// Set does nothing, for nobody writes into an event that was received.
func (h traceHeaders) Set(string, string) {}

// Keys are the headers' names.
func (h traceHeaders) Keys() []string { return []string{"traceparent", "tracestate"} }

// DataText is Data as a text. Of an event that came in a batch it is a part of the batch's text and not a copy.
func (e Event) DataText() string {
	if e.dataText != "" && e.dataText == string(e.Data) {
		return e.dataText
	}
	return string(e.Data)
}

// DeadLetter is why an event lies on a dead-letter topic.
type DeadLetter struct {
	By     string
	Reason string
	At     time.Time
	// Cut says that the event was too large for the topic: its data is the beginning of its text, and it cannot be processed.
	Cut bool
}

// cut is what is kept of a dead-lettered event that its topic does not take as it is.
func (e Event) cut() Event {
	short := func(text string) string { return strings.ToValidUTF8(text[:min(len(text), maxReason)], "") }
	reason := fmt.Sprintf("%s (the event does not fit on its dead-letter topic, and only the beginning of its %d bytes of data is kept)", e.DeadLetter.Reason, len(e.Data))
	kept := Event{
		ID: e.ID, Type: short(e.Type), Source: short(e.Source), Subject: short(e.Subject), Time: e.Time, DataVersion: short(e.DataVersion), Key: e.Key,
		DeadLetter: &DeadLetter{By: e.DeadLetter.By, Reason: reason, At: e.DeadLetter.At, Cut: true}, traceParent: e.traceParent, traceState: e.traceState,
	}
	if len(kept.ID) > maxReason {
		kept.ID = UnknownID([]byte(e.ID))
	}
	kept.Data, _ = json.Marshal(strings.ToValidUTF8(string(e.Data[:min(len(e.Data), maxCutData)]), "")) //nolint:errchkjson // a string always encodes
	return kept
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
	if err := strictjson.Unmarshal(e.Data, v); err != nil {
		return Reject(fmt.Errorf("the event's data cannot be read: %w", err))
	}
	if path := timestamp.FindUnwritable(v); path != "" {
		return Reject(fmt.Errorf("%s must be a time in the years 0000 to 9999 in UTC", path))
	}
	return nil
}

const (
	specVersion     = "1.0"
	jsonContentType = "application/json"
	// CloudEventType is the media type of an event in structured JSON.
	CloudEventType = "application/cloudevents+json"
)

// cloudEvent is what is read of the structured JSON form. Extension names are lower case without separators, as the
// specification asks.
type cloudEvent struct {
	SpecVersion      string          `json:"specversion"`
	ID               string          `json:"id"`
	Type             string          `json:"type"`
	Source           string          `json:"source"`
	Subject          string          `json:"subject"`
	Time             string          `json:"time"`
	DataContentType  string          `json:"datacontenttype"`
	DataVersion      string          `json:"dataversion"`
	TraceParent      string          `json:"traceparent"`
	TraceState       string          `json:"tracestate"`
	DeadLetterBy     string          `json:"parkedby"`
	DeadLetterReason string          `json:"parkedreason"`
	DeadLetterAt     string          `json:"parkedat"`
	DeadLetterCut    string          `json:"parkedcut"`
	Data             json.RawMessage `json:"data"`
}

// MarshalJSON writes the event as a CloudEvent in structured JSON.
func (e Event) MarshalJSON() ([]byte, error) {
	if len(e.Data) > 0 && !json.Valid(e.Data) {
		return nil, errors.New("the event's data is no JSON")
	}
	b := e.appendTo(make([]byte, 0, len(e.Data)+envelope))
	if e.received == "" {
		return b, nil
	}
	return e.withRest(b)
}

// envelope is about how long a CloudEvent is without its data, in bytes.
const envelope = 384

// appendTo writes the event without what has no field in it. It does by hand what encoding/json would do with cloudEvent,
// for every event that anybody publishes goes through here.
func (e Event) appendTo(b []byte) []byte {
	b = append(b, `{"specversion":"`+specVersion+`"`...)
	text := func(name, value string, always bool) {
		if value != "" || always {
			b = append(append(append(b, `,"`...), name...), `":`...)
			b = appendQuoted(b, value)
		}
	}
	instant := func(name string, at time.Time) {
		b = append(append(append(b, `,"`...), name...), `":"`...)
		b = append(at.AppendFormat(b, time.RFC3339Nano), '"')
	}
	text("id", e.ID, true)
	text("type", e.Type, true)
	text("source", e.Source, true)
	text("subject", e.Subject, false)
	if !e.Time.IsZero() {
		instant("time", e.Time)
	}
	text("datacontenttype", jsonContentType, true)
	text("dataversion", e.DataVersion, false)
	if e.DeadLetter != nil {
		text("parkedby", e.DeadLetter.By, false)
		text("parkedreason", e.DeadLetter.Reason, false)
		instant("parkedat", e.DeadLetter.At.UTC())
		if e.DeadLetter.Cut {
			text("parkedcut", "true", true)
		}
	}
	if len(e.Data) > 0 {
		b = append(append(b, `,"data":`...), e.Data...)
	}
	return append(b, '}')
}

// appendQuoted writes a JSON string.
func appendQuoted(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(text) //nolint:errchkjson // a string always encodes
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), text...), '"')
}

// withRest is the written event with the attributes that have no field here. They do not replace any it has, but for the
// media type of the data.
func (e Event) withRest(written []byte) ([]byte, error) {
	all, received := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if err := errors.Join(json.Unmarshal(written, &all), json.Unmarshal([]byte(e.received), &received)); err != nil {
		return nil, err
	}
	for name, value := range received {
		if _, ok := all[name]; !slices.Contains(notKept, name) && (!ok || name == "datacontenttype") {
			all[name] = value
		}
	}
	return json.Marshal(all)
}

// notKept are the attributes with a field of their own, and those that Dapr writes anew on every publish.
var notKept = []string{
	"specversion", "id", "type", "source", "subject", "time", "dataversion", "data", "parkedby", "parkedreason", "parkedat", "parkedcut",
	"traceparent", "tracestate", "traceid", "topic", "pubsubname",
}

// UnmarshalJSON reads a CloudEvent. Its JSON must be strict; what it says is read leniently: unknown attributes are ignored and
// a time that cannot be read is left out, for another system's slip in what nobody here uses is no reason to refuse its event.
func (e *Event) UnmarshalJSON(b []byte) error {
	read, err := readEvent(string(b), bytes.Clone(b))
	if err == nil {
		*e = read
	}
	return err
}

// readEvent reads a CloudEvent; body has the bytes of text, and the event keeps both. With an error comes what is to be
// dead-lettered: the whole text as data, under the id and the type by which it can be found.
func readEvent(text string, body []byte) (Event, error) {
	if e, ok := scanEvent(text, body); ok {
		return e, nil
	}
	e, err := decodeEvent(text, body)
	if err != nil {
		return refusedEvent(body), err
	}
	return e, nil
}

// decodeEvent reads what scanEvent leaves to the strict decoder.
func decodeEvent(text string, b []byte) (Event, error) {
	members := map[string]json.RawMessage{}
	if err := strictjson.Unmarshal(b, &members); err != nil {
		return Event{}, err
	}
	if _, ok := members["time"]; ok && !isString(members["time"]) {
		delete(members, "time")
		var err error
		if b, err = json.Marshal(members); err != nil {
			return Event{}, err
		}
	}
	var ce cloudEvent
	if err := strictjson.Unmarshal(b, &ce); err != nil {
		return Event{}, err
	}
	e := ce.event()
	e.received = text
	return e, nil
}

// refusedEvent is the event under which an unreadable one is dead-lettered.
func refusedEvent(body []byte) Event {
	e := Event{Data: jsonOrText(body)}
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return e
	}
	text := func(name string) (value string) {
		_ = json.Unmarshal(members[name], &value) // what is no text is left out
		return value
	}
	e.ID, e.Type, e.Source, e.Subject = text("id"), text("type"), text("source"), text("subject")
	e.traceParent, e.traceState = text("traceparent"), text("tracestate")
	return e
}

// event is the event of what was received.
func (ce *cloudEvent) event() Event {
	e := Event{
		ID: ce.ID, Type: ce.Type, Source: ce.Source, Subject: ce.Subject, DataVersion: ce.DataVersion,
		Data: ce.Data, traceParent: ce.TraceParent, traceState: ce.TraceState,
	}
	if at, err := time.Parse(time.RFC3339Nano, ce.Time); err == nil && timestamp.Writable(at) {
		e.Time = at
	}
	if ce.DeadLetterReason != "" {
		e.DeadLetter = &DeadLetter{By: ce.DeadLetterBy, Reason: ce.DeadLetterReason, Cut: ce.DeadLetterCut == "true"}
		if at, err := time.Parse(time.RFC3339Nano, ce.DeadLetterAt); err == nil && timestamp.Writable(at) {
			e.DeadLetter.At = at
		}
	}
	return e
}

func isString(value json.RawMessage) bool { return len(value) > 0 && value[0] == '"' }
