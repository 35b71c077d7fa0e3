package eventing

import (
	"cmp"
	"encoding/json"
	"strings"

	"waybill/platform/jsontext"
)

// What a sidecar delivers in bulk is read here in one pass: by encoding/json it is most of the time that a batch takes, and
// the sidecar's Kafka component delivers no other batch meanwhile. Whatever does not look as sidecars write it is left to
// encoding/json, so that this decides about speed only.

// scanEvent reads a CloudEvent; body has the bytes of text, and the event keeps both. ok is false when encoding/json has to
// look at it.
func scanEvent(text string, body []byte) (e Event, ok bool) {
	s := jsontext.Scanner{Src: text}
	s.Space()
	e, ok = nextEvent(&s, body)
	s.Space()
	return e, ok && s.Pos == len(text)
}

// nextEvent reads the CloudEvent that comes next.
func nextEvent(s *jsontext.Scanner, body []byte) (Event, bool) {
	var ce cloudEvent
	start, dataText := s.Pos, ""
	ok := eachMember(s, func(name string) bool {
		from := s.Pos
		if name == "data" {
			text, ok := s.Value()
			if !ok || ce.Data != nil || text == "null" {
				return false
			}
			ce.Data, dataText = json.RawMessage(body[from:s.Pos:s.Pos]), text
			return true
		}
		field := ce.attribute(name)
		if field == nil {
			_, ok := s.Value()
			return ok && plain(name)
		}
		value, ok := quoted(s)
		if !ok || *field != "" {
			return false
		}
		*field = value
		return true
	})
	if !ok {
		return Event{}, false
	}
	e := ce.event()
	e.received, e.dataText = s.Src[start:s.Pos], dataText
	return e, true
}

// attribute is the field of a text attribute, nil when it has none.
func (ce *cloudEvent) attribute(name string) *string {
	switch name {
	case "specversion":
		return &ce.SpecVersion
	case "id":
		return &ce.ID
	case "type":
		return &ce.Type
	case "source":
		return &ce.Source
	case "subject":
		return &ce.Subject
	case "time":
		return &ce.Time
	case "datacontenttype":
		return &ce.DataContentType
	case "dataversion":
		return &ce.DataVersion
	case "traceparent":
		return &ce.TraceParent
	case "tracestate":
		return &ce.TraceState
	case "parkedby":
		return &ce.ParkedBy
	case "parkedreason":
		return &ce.ParkedReason
	case "parkedat":
		return &ce.ParkedAt
	default:
		return nil
	}
}

// plain says that encoding/json, which does not look at case, takes the name for no other.
func plain(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') })
}

// eachMember calls read for each member of the object that comes next, when its value comes next. It is false when read is,
// when a name has escapes, or when there is no object.
func eachMember(s *jsontext.Scanner, read func(name string) bool) bool {
	if !s.Take('{') {
		return false
	}
	if s.Space(); s.Take('}') {
		return true
	}
	for {
		s.Space()
		start := s.Pos
		s.Escaped = false
		if !s.Quoted() || s.Escaped {
			return false
		}
		name := s.Src[start+1 : s.Pos-1]
		if s.Space(); !s.Take(':') {
			return false
		}
		if s.Space(); !read(name) {
			return false
		}
		if s.Space(); s.Take('}') {
			return true
		}
		if !s.Take(',') {
			return false
		}
	}
}

// quoted is the text that comes next.
func quoted(s *jsontext.Scanner) (string, bool) {
	start := s.Pos
	s.Escaped = false
	if !s.Quoted() {
		return "", false
	}
	return jsontext.Unquote(s.Src[start:s.Pos], s.Escaped), true
}

// entry is one event of a bulk delivery, or why there is none in it.
type entry struct {
	id    string
	event Event
	err   error
}

// readBatch reads a bulk delivery, whose events keep its body.
func readBatch(body []byte) ([]entry, error) {
	if entries, ok := scanBatch(body); ok {
		return entries, nil
	}
	return decodeBatch(body)
}

// decodeBatch reads what scanBatch leaves to encoding/json.
func decodeBatch(body []byte) ([]entry, error) {
	var batch struct {
		Entries []struct {
			EntryID  string            `json:"entryId"`
			Event    json.RawMessage   `json:"event"`
			Metadata map[string]string `json:"metadata"`
		} `json:"entries"`
	}
	if err := json.Unmarshal(body, &batch); err != nil {
		return nil, err
	}
	entries := make([]entry, len(batch.Entries))
	for i, one := range batch.Entries {
		entries[i].id = one.EntryID
		var err error
		if entries[i].event, err = decodeEntry(one.Event); err != nil {
			entries[i].err = notCloudEvent(err)
			continue
		}
		entries[i].event.Key = keyOf(func(name string) string { return one.Metadata[name] })
	}
	return entries, nil
}

// decodeEntry reads the event of an entry, which a sidecar that was not asked to look into messages writes as base64. With the
// error comes an event that holds what is none.
func decodeEntry(text json.RawMessage) (Event, error) {
	var message []byte
	if len(text) > 0 && text[0] == '"' && json.Unmarshal(text, &message) == nil {
		text = message
		if e, ok := scanEvent(string(text), text); ok {
			return e, nil
		}
	}
	var e Event
	if err := json.Unmarshal(text, &e); err != nil {
		return Event{Data: jsonOrText(text)}, err
	}
	return e, nil
}

// usualEvent is how long an event in its entry usually is, in bytes.
const usualEvent = 1000

// scanBatch reads a bulk delivery as sidecars write it; ok is false when it does not look so.
func scanBatch(body []byte) (entries []entry, ok bool) {
	s := jsontext.Scanner{Src: string(body)}
	s.Space()
	ok = eachMember(&s, func(name string) bool {
		if name != "entries" {
			_, ok := s.Value()
			return ok && !strings.EqualFold(name, "entries")
		}
		if entries != nil || !s.Take('[') {
			return false
		}
		entries = make([]entry, 0, len(body)/usualEvent+1)
		for s.Space(); !s.Take(']'); s.Space() {
			if len(entries) > 0 && !s.Take(',') {
				return false
			}
			s.Space()
			one, ok := nextEntry(&s, body)
			if !ok {
				return false
			}
			entries = append(entries, one)
		}
		return true
	})
	s.Space()
	return entries, ok && s.Pos == len(body)
}

func nextEntry(s *jsontext.Scanner, body []byte) (entry, bool) {
	var one entry
	var key, session string
	var event, metadata bool
	ok := eachMember(s, func(name string) (ok bool) {
		switch name {
		case "entryId":
			again := one.id != ""
			one.id, ok = quoted(s)
			return ok && !again
		case "event":
			again := event
			one.event, ok = nextEvent(s, body)
			event = true
			return ok && !again
		case "metadata":
			again := metadata
			metadata = true
			return !again && eachMember(s, func(name string) bool {
				value, ok := quoted(s)
				switch name {
				case kafkaKey:
					key = value
				case serviceBusKey:
					session = value
				}
				return ok
			})
		default:
			_, ok = s.Value()
			return ok && !strings.EqualFold(name, "entryId") && !strings.EqualFold(name, "event") && !strings.EqualFold(name, "metadata")
		}
	})
	one.event.Key = cmp.Or(key, session)
	return one, ok && event
}
