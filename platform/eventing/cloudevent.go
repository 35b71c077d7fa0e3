package eventing

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"waybill/platform/strictjson"
	"waybill/platform/timestamp"
)

const (
	specVersion     = "1.0"
	jsonContentType = "application/json"
	// CloudEventType is the media type of an event in structured JSON.
	CloudEventType = "application/cloudevents+json"
)

// cloudEvent has the attributes that are read from the structured JSON form. Extension names are lower case without
// separators, as the specification requires. The names of the dead letter's attributes are stored and never change.
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
		return nil, errors.New("the event's data must be valid JSON")
	}
	b := e.appendTo(make([]byte, 0, len(e.Data)+envelope))
	if e.received == "" {
		return b, nil
	}
	return e.withRest(b)
}

// envelope is the usual length of a CloudEvent without its data, in bytes.
const envelope = 384

// appendTo appends the event to b, without the attributes that have no field. It writes what encoding/json would write for
// cloudEvent, but faster: every published event is encoded here.
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

// appendQuoted appends a JSON string to b.
func appendQuoted(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(text) //nolint:errchkjson // a string always encodes
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), text...), '"')
}

// withRest adds to the written event the attributes of the received one that have no field. They replace none that is written,
// except the media type of the data.
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

// notKept are the attributes that have a field, and those that Dapr writes on every publish.
var notKept = []string{
	"specversion", "id", "type", "source", "subject", "time", "dataversion", "data", "parkedby", "parkedreason", "parkedat", "parkedcut",
	"traceparent", "tracestate", "traceid", "topic", "pubsubname",
}

// UnmarshalJSON decodes a CloudEvent. Its JSON must be strict, but its attributes need not be right: unknown ones are ignored,
// and a time that cannot be parsed is left out. An error in an attribute that is not used does not refuse the event.
func (e *Event) UnmarshalJSON(b []byte) error {
	read, err := readEvent(string(b), bytes.Clone(b))
	if err == nil {
		*e = read
	}
	return err
}

// readEvent decodes a CloudEvent. body has the bytes of text, and the event keeps both. With an error it returns the event to
// dead-letter: the whole text as data, with the id and type that could be read, so that it can be found.
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

// decodeEvent decodes with the strict decoder what scanEvent did not.
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

// refusedEvent is the event to dead-letter for a text that could not be decoded.
func refusedEvent(body []byte) Event {
	e := Event{Data: jsonOrText(body)}
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return e
	}
	text := func(name string) (value string) {
		_ = json.Unmarshal(members[name], &value) // a value that is not text is left out
		return value
	}
	e.ID, e.Type, e.Source, e.Subject = text("id"), text("type"), text("source"), text("subject")
	e.traceParent, e.traceState = text("traceparent"), text("tracestate")
	return e
}

// event is the event with these attributes.
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
