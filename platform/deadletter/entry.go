package deadletter

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"waybill/platform/eventing"
)

type entryState string

const (
	// open: the event waits to be redriven or dismissed.
	open entryState = "open"
	// redriven: the handler processed it.
	redriven entryState = "redriven"
	// dismissed: a person decided that it will not be processed.
	dismissed entryState = "dismissed"
)

// entry is a dead-lettered event as it is stored.
type entry struct {
	Topic string `json:"topic"`
	// EventID is the event's id. It is derived from the content if the event has none, or if another event has the same.
	EventID     string          `json:"event_id"`
	Type        string          `json:"type,omitempty"`
	Subject     string          `json:"subject,omitempty"`
	Key         string          `json:"key,omitempty"`
	Fingerprint string          `json:"fingerprint"`
	Event       json.RawMessage `json:"event,omitempty"`
	// Raw is a message that is not a CloudEvent, or the beginning of one that is too large to store.
	Raw       []byte     `json:"raw,omitempty"`
	Truncated bool       `json:"truncated,omitempty"`
	State     entryState `json:"state"`
	// Opening counts how many times the entry became open.
	Opening        int             `json:"opening"`
	DeadLetterings []deadLettering `json:"parkings"`
	Reason         string          `json:"reason"`
	Attempts       []attempt       `json:"attempts,omitempty"`
	Lease          *lease          `json:"lease,omitempty"`
	// Page is the page that lists the entry, negative before it is listed.
	Page int `json:"page"`
}

// deadLettering is one time that the event was dead-lettered.
type deadLettering struct {
	At     time.Time `json:"at"`
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	// Unsaid says that the message has no time at which it was dead-lettered, so At is when it was first read.
	Unsaid bool `json:"unsaid,omitempty"`
}

// attempt is one redrive, or the dismissal.
type attempt struct {
	ID      string    `json:"id"`
	Actor   string    `json:"actor"`
	Reason  string    `json:"reason"`
	At      time.Time `json:"at"`
	EndedAt time.Time `json:"ended_at,omitzero"`
	Outcome string    `json:"outcome"`
	Error   string    `json:"error,omitempty"`
}

// lease is the right to redrive an entry, which only one attempt has at a time. It ends by itself, because its holder may crash.
type lease struct {
	Attempt string    `json:"attempt"`
	Until   time.Time `json:"until"`
}

const (
	// maxHistory is how many dead-letterings and attempts of an entry are kept, the newest.
	maxHistory = 50
	// maxText bounds an entry's id, type, subject and reason, in bytes. Waybill's own are shorter.
	maxText = 2000
	// maxCut is how much is stored of a message that is too large, in bytes.
	maxCut = 64 << 10
)

// newEntry is the entry of a message from the dead-letter topic of topic.
func newEntry(topic string, m eventing.Message, now time.Time) entry {
	e := entry{Topic: topic, Key: m.Key, State: open, Opening: 1, Page: -1}
	data := printable(m.Data)
	var event eventing.Event
	p := deadLettering{At: now.UTC(), By: "sidecar", Unsaid: true}
	if err := json.Unmarshal(m.Data, &event); err != nil || event.ID == "" || event.Type == "" {
		e.EventID, e.Type, e.Raw, p.Reason = eventing.UnknownID(m.Data), "unknown", m.Data, "not a CloudEvent"
		e.Fingerprint = fingerprint(m.Data)
	} else {
		e.EventID, e.Type, e.Subject, e.Event = event.ID, short(event.Type), short(event.Subject), original(data)
		if len(e.EventID) > maxText {
			e.EventID = eventing.UnknownID([]byte(e.EventID))
		}
		e.Fingerprint = fingerprint([]byte(event.Source), []byte(event.Type), []byte(event.Subject), compact(event.Data))
		p.Reason = "dead-lettered by the sidecar, which gives no reason"
		if event.DeadLetter != nil {
			p.By, p.Reason = short(event.DeadLetter.By), short(event.DeadLetter.Reason)
			if event.DeadLetter.Cut {
				e.cut(m.Data)
			}
			if !event.DeadLetter.At.IsZero() {
				p.At, p.Unsaid = event.DeadLetter.At.UTC(), false
			}
		}
	}
	e.Reason, e.DeadLetterings = p.Reason, []deadLettering{p}
	return e
}

func short(text string) string { return strings.ToValidUTF8(text[:min(len(text), maxText)], "") }

// deadLetterAttributes are the attributes that dead-lettering added or changed.
var deadLetterAttributes = []string{"parkedby", "parkedreason", "parkedat", "parkedcut", "topic", "pubsubname"}

// original is the event without what dead-lettering added. It keeps its own trace context.
func original(event []byte) json.RawMessage {
	var attributes map[string]json.RawMessage
	if err := json.Unmarshal(event, &attributes); err != nil {
		return event // cannot happen: it was decoded before
	}
	for _, name := range deadLetterAttributes {
		delete(attributes, name)
	}
	b, err := json.Marshal(attributes)
	if err != nil {
		return event // cannot happen: it was decoded before
	}
	return b
}

func compact(data json.RawMessage) []byte {
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil {
		return data // empty: the event was decoded before
	}
	return b.Bytes()
}

// fingerprint distinguishes events that have the same id.
func fingerprint(parts ...[]byte) string {
	var sums []byte
	for _, part := range parts {
		sum := sha256.Sum256(part)
		sums = append(sums, sum[:]...)
	}
	sum := sha256.Sum256(sums)
	return hex.EncodeToString(sum[:6])
}

// cut keeps only the beginning of a message that is too large to store.
func (e *entry) cut(message []byte) {
	e.Event, e.Raw, e.Truncated = nil, message[:min(len(message), maxCut)], true
}

// entryKey contains a hash, because an event's id may have characters that a key may not.
func entryKey(topic, eventID string) string {
	sum := sha256.Sum256([]byte(eventID))
	return "deadletter:" + topic + ":" + hex.EncodeToString(sum[:16])
}

func (e *entry) key() string { return entryKey(e.Topic, e.EventID) }

// knows reports whether the entry has the deadLettering already. One without a time of its own counts as known: it cannot be
// distinguished from the others.
func (e *entry) knows(p deadLettering) bool {
	return p.Unsaid || slices.ContainsFunc(e.DeadLetterings, func(known deadLettering) bool { return known.At.Equal(p.At) && known.By == p.By })
}

// addDeadLettering records that the event was dead-lettered again, and opens the entry.
func (e *entry) addDeadLettering(p deadLettering) {
	e.Reason = p.Reason
	e.DeadLetterings = newest(append(e.DeadLetterings, p))
	if e.State != open {
		e.State, e.Opening = open, e.Opening+1
	}
}

// begin records an attempt and gives it the lease.
func (e *entry) begin(a attempt, until time.Time) {
	e.release(a.At)
	e.Lease = &lease{a.ID, until}
	e.Attempts = newest(append(e.Attempts, a))
}

// release ends an expired lease and marks its attempt as interrupted.
func (e *entry) release(at time.Time) {
	if e.Lease != nil {
		e.finish(e.Lease.Attempt, at, interrupted, "")
	}
}

// finish records how an attempt ended.
func (e *entry) finish(attemptID string, at time.Time, outcome, text string) {
	for i := range e.Attempts {
		if a := &e.Attempts[i]; a.ID == attemptID {
			a.EndedAt, a.Outcome, a.Error = at, outcome, text
		}
	}
	if e.Lease != nil && e.Lease.Attempt == attemptID {
		e.Lease = nil
	}
}

func newest[T any](all []T) []T { return all[max(0, len(all)-maxHistory):] }
