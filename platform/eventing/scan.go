package eventing

import (
	"cmp"
	"encoding/json"
	"strings"

	"waybill/platform/jsonscan"
)

// This file decodes bulk deliveries in one pass. A general decoder would need most of the time of a batch, and the sidecar's Kafka
// component delivers no other batch meanwhile. A text that is not in the sidecars' usual form, or is not strict JSON, is left to
// the strict decoder: so this code only decides how fast it goes, not what is accepted.

// scan is a text and the position up to which it was read.
type scan struct {
	src string
	pos int
}

// scanEvent decodes a CloudEvent. body has the bytes of text, and the event keeps both. ok is false if the strict decoder must
// decode it.
func scanEvent(text string, body []byte) (e Event, ok bool) {
	s := scan{text, jsonscan.SkipSpace(text, 0)}
	e, ok = s.event(body)
	return e, ok && s.ended()
}

func (s *scan) ended() bool { return jsonscan.SkipSpace(s.src, s.pos) == len(s.src) }

// event decodes the CloudEvent that comes next.
func (s *scan) event(body []byte) (Event, bool) {
	var ce cloudEvent
	start, dataText := s.pos, ""
	ok := s.eachMember(func(name string) bool {
		from := s.pos
		if name == "data" {
			text, ok := s.value()
			if !ok || ce.Data != nil || text == "null" {
				return false
			}
			ce.Data, dataText = json.RawMessage(body[from:s.pos:s.pos]), text
			return true
		}
		field := ce.attribute(name)
		if field == nil {
			_, ok := s.value()
			return ok
		}
		value, ok := s.quoted()
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
	e.received, e.dataText = s.src[start:s.pos], dataText
	return e, true
}

// attribute is the field of a text attribute, or nil if it has none.
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
		return &ce.DeadLetterBy
	case "parkedreason":
		return &ce.DeadLetterReason
	case "parkedat":
		return &ce.DeadLetterAt
	case "parkedcut":
		return &ce.DeadLetterCut
	default:
		return nil
	}
}

// eachMember calls read for each member of the object that comes next; read must consume the value. It returns false if read
// does, if a name has escapes or appears twice, or if no object comes next.
func (s *scan) eachMember(read func(name string) bool) bool {
	if !s.take('{') {
		return false
	}
	if s.pos = jsonscan.SkipSpace(s.src, s.pos); s.take('}') {
		return true
	}
	var names jsonscan.NameSet
	for {
		name, pos, marks, ok := jsonscan.MemberName(s.src, s.pos)
		if s.pos = pos; !ok || marks&jsonscan.HasEscape != 0 || !names.Add(name, marks) || !read(name) {
			return false
		}
		s.pos = jsonscan.SkipSpace(s.src, s.pos)
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

func (s *scan) take(c byte) (ok bool) {
	s.pos, ok = jsonscan.SkipByte(s.src, s.pos, c)
	return ok
}

// value is the text of the value that comes next.
func (s *scan) value() (text string, ok bool) {
	start := s.pos
	s.pos, _, ok = jsonscan.SkipValue(s.src, start)
	return s.src[start:s.pos], ok
}

// quoted is the content of the string that comes next.
func (s *scan) quoted() (string, bool) {
	start := s.pos
	end, marks, ok := jsonscan.SkipString(s.src, start)
	if s.pos = end; !ok {
		return "", false
	}
	return jsonscan.Unquote(s.src[start+1:end-1], marks), true
}

// entry is one entry of a bulk delivery: an event, or an error and what is to be dead-lettered.
type entry struct {
	id    string
	event Event
	err   error
}

// readBatch decodes a bulk delivery. Its events keep the body.
func readBatch(body []byte) ([]entry, error) {
	if entries, ok := scanBatch(body); ok {
		return entries, nil
	}
	return decodeBatch(body)
}

// decodeBatch decodes what scanBatch did not. The frame comes from the sidecar and is decoded leniently, so that an event that is
// not strict JSON does not block the others of its batch.
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
		}
		entries[i].event.Key = keyOf(func(name string) string { return one.Metadata[name] })
	}
	return entries, nil
}

// decodeEntry decodes the event of an entry. A sidecar that does not decode messages writes it as base64. With an error it
// returns what is to be dead-lettered.
func decodeEntry(text json.RawMessage) (Event, error) {
	var message []byte
	if len(text) > 0 && text[0] == '"' && json.Unmarshal(text, &message) == nil {
		text = message
	}
	return readEvent(string(text), text)
}

// usualEvent is the usual length of an entry, in bytes.
const usualEvent = 1000

// scanBatch decodes a bulk delivery in the sidecars' usual form. ok is false if it has another form.
func scanBatch(body []byte) (entries []entry, ok bool) {
	text := string(body)
	s := scan{text, jsonscan.SkipSpace(text, 0)}
	ok = s.eachMember(func(name string) bool {
		if name != "entries" {
			_, ok := s.value()
			return ok && !strings.EqualFold(name, "entries")
		}
		if entries != nil || !s.take('[') {
			return false
		}
		entries = make([]entry, 0, len(body)/usualEvent+1)
		for {
			s.pos = jsonscan.SkipSpace(text, s.pos)
			if s.take(']') {
				return true
			}
			if len(entries) > 0 && !s.take(',') {
				return false
			}
			s.pos = jsonscan.SkipSpace(text, s.pos)
			one, ok := s.entry(body)
			if !ok {
				return false
			}
			entries = append(entries, one)
		}
	})
	return entries, ok && s.ended()
}

func (s *scan) entry(body []byte) (entry, bool) {
	var one entry
	var key, session string
	var event, metadata bool
	ok := s.eachMember(func(name string) (ok bool) {
		switch name {
		case "entryId":
			again := one.id != ""
			one.id, ok = s.quoted()
			return ok && !again
		case "event":
			again := event
			one.event, ok = s.event(body)
			event = true
			return ok && !again
		case "metadata":
			again := metadata
			metadata = true
			return !again && s.eachMember(func(name string) bool {
				value, ok := s.quoted()
				switch name {
				case kafkaKey:
					key = value
				case serviceBusKey:
					session = value
				}
				return ok
			})
		default:
			_, ok = s.value()
			return ok && !strings.EqualFold(name, "entryId") && !strings.EqualFold(name, "event") && !strings.EqualFold(name, "metadata")
		}
	})
	one.event.Key = cmp.Or(key, session)
	return one, ok && event
}
