// Package store keeps messages, contacts and keys as documents in a state store. It maps them to the domain and holds no business
// rules.
package store

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"time"

	"waybill/contracts"
	"waybill/platform/state"
	"waybill/services/notifications/internal/message"
)

// Messages stores the messages of an order in one document, and every other message in its own document. The key follows from the id
// of the message alone, so an id is unique.
type Messages struct {
	state state.Store
	locks keyLocks
	// retention is how long a document is kept after its last write, once all its messages have an outcome; 0 keeps it forever.
	retention time.Duration
}

// NewMessages returns the messages that are stored in s.
func NewMessages(s state.Store) *Messages { return &Messages{state: s, locks: newKeyLocks()} }

// KeepFor sets how long a document is kept after its last write, once all its messages have an outcome; 0 keeps it forever. Call it
// before the first read or write. It returns s.
func (s *Messages) KeepFor(retention time.Duration) *Messages {
	s.retention = retention
	return s
}

// document holds messages. The document of an order also lists the ids of the order's messages that have their own document, such as
// alerts.
type document struct {
	Messages  []message.Message `json:"messages,omitempty"`
	Elsewhere []string          `json:"elsewhere,omitempty"`
}

func (d *document) find(id string) *message.Message {
	i := slices.IndexFunc(d.Messages, func(m message.Message) bool { return m.ID == id })
	if i < 0 {
		return nil
	}
	return &d.Messages[i]
}

const (
	// maxElsewhere limits the number of messages of an order that have their own document. A saga causes at most a dozen.
	maxElsewhere = 500
	// maxBatch limits the number of documents in one read. The largest documents have about 30 KB.
	maxBatch = 100
)

func orderKey(id string) string { return "order-messages:" + id }

// home is the key of the document that holds the message. An id of the form <order>:<template>:<channel> belongs to the document of
// the order, which limits the number of messages there. The name of a new template must not have been part of ids before.
func home(id string) string {
	order, rest, _ := strings.Cut(id, ":")
	template, channel, _ := strings.Cut(rest, ":")
	if slices.Contains(contracts.Templates(), template) && slices.Contains(contracts.Channels(), channel) && message.CheckParty("order_id", order) == nil {
		return orderKey(order)
	}
	return "message:" + id
}

// Place names the document of the message. Most messages of one order share a document.
func (*Messages) Place(id string) string { return home(id) }

// keyLocks avoids ETag conflicts between writers in this process. Correctness does not depend on it: other replicas do not share
// it.
type keyLocks []chan struct{}

const lockCount = 64

func newKeyLocks() keyLocks {
	l := make(keyLocks, lockCount)
	for i := range l {
		l[i] = make(chan struct{}, 1)
	}
	return l
}

// lock waits for the lock of the key until ctx ends. The caller calls unlock.
func (l keyLocks) lock(ctx context.Context, key string) (unlock func(), err error) {
	h := fnv.New32a()
	h.Write([]byte(key)) // never fails
	held := l[h.Sum32()%lockCount]
	select {
	case held <- struct{}{}:
		return func() { <-held }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for other writers of %s: %w: %w", key, state.ErrUnavailable, ctx.Err())
	}
}

func (s *Messages) update(ctx context.Context, key string, change func(d *document, exists bool) error) error {
	unlock, err := s.locks.lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	var ttl time.Duration
	_, err = state.Update(ctx, s.state, key, func(d *document, exists bool) error {
		err := change(d, exists)
		if ttl = 0; !slices.ContainsFunc(d.Messages, func(m message.Message) bool { return !m.Final() }) {
			ttl = s.retention
		}
		return err
	}, state.TTLFunc(func() time.Duration { return ttl }))
	return err
}

// Create stores new messages of one place in one write. It returns all of them as they are in the store; created is false for a
// message that existed before. A message with its own document is listed under its order first, so that the list misses none.
func (s *Messages) Create(ctx context.Context, ms ...message.Message) (stored []message.Message, created []bool, err error) {
	key := home(ms[0].ID)
	for _, m := range ms {
		if m.OrderID != "" && key != orderKey(m.OrderID) {
			if err := s.list(ctx, m.OrderID, m.ID); err != nil {
				return nil, nil, err
			}
		}
	}
	stored, created = make([]message.Message, len(ms)), make([]bool, len(ms))
	err = s.update(ctx, key, func(d *document, _ bool) error {
		for i, m := range ms {
			there := d.find(m.ID)
			if created[i] = there == nil; created[i] {
				d.Messages = append(d.Messages, m)
				stored[i] = m
			} else {
				stored[i] = *there
			}
		}
		if !slices.Contains(created, true) {
			return state.ErrUnchanged
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return stored, created, nil
}

func (s *Messages) list(ctx context.Context, orderID, id string) error {
	return s.update(ctx, orderKey(orderID), func(d *document, _ bool) error {
		switch {
		case slices.Contains(d.Elsewhere, id):
			return state.ErrUnchanged
		case len(d.Elsewhere) >= maxElsewhere:
			return &message.Error{Kind: message.Invalid, Code: "too_many_notifications", Text: fmt.Sprintf("an order can have at most %d notifications whose notification_id is not <order_id>:<template>:<channel>", maxElsewhere)}
		}
		d.Elsewhere = append(d.Elsewhere, id)
		return nil
	})
}

// Get reads a message. If it does not exist, the error is that of message.ErrNotFound.
func (s *Messages) Get(ctx context.Context, id string) (message.Message, error) {
	var d document
	if _, err := s.state.Get(ctx, home(id), &d); err != nil && !errors.Is(err, state.ErrNotFound) {
		return message.Message{}, err
	}
	if m := d.find(id); m != nil {
		return *m, nil
	}
	return message.Message{}, message.ErrNotFound()
}

// Update lets change modify the message, stores it if change reports a change, and returns it. It may call change several times.
func (s *Messages) Update(ctx context.Context, id string, change func(m *message.Message) bool) (stored message.Message, err error) {
	err = s.update(ctx, home(id), func(d *document, _ bool) error {
		m := d.find(id)
		if m == nil {
			return message.ErrNotFound()
		}
		changed := change(m)
		stored = *m
		if !changed {
			return state.ErrUnchanged
		}
		return nil
	})
	return stored, err
}

// At reads the messages of the place.
func (s *Messages) At(ctx context.Context, place string) ([]message.Message, error) {
	var d document
	if _, err := s.state.Get(ctx, place, &d); err != nil && !errors.Is(err, state.ErrNotFound) {
		return nil, err
	}
	return d.Messages, nil
}

// UpdateAt lets change modify each message of the place, stores them in one write, and returns those for which change reported a
// change. It may call change several times.
func (s *Messages) UpdateAt(ctx context.Context, place string, change func(m *message.Message) bool) (changed []message.Message, err error) {
	err = s.update(ctx, place, func(d *document, _ bool) error {
		changed = nil
		for i := range d.Messages {
			if change(&d.Messages[i]) {
				changed = append(changed, d.Messages[i])
			}
		}
		if len(changed) == 0 {
			return state.ErrUnchanged
		}
		return nil
	})
	return changed, err
}

// Many reads messages by their ids. A message that does not exist is in neither result. A message whose document cannot be decoded
// is in unreadable, with the error.
func (s *Messages) Many(ctx context.Context, ids []string) (messages map[string]message.Message, unreadable map[string]error, err error) {
	wanted := make(map[string][]string, len(ids)) // ids by the key of their document
	for _, id := range ids {
		wanted[home(id)] = append(wanted[home(id)], id)
	}
	messages, unreadable = make(map[string]message.Message, len(ids)), map[string]error{}
	for batch := range slices.Chunk(slices.Sorted(maps.Keys(wanted)), maxBatch) {
		values, err := s.state.GetMany(ctx, batch)
		if err != nil {
			return nil, nil, err
		}
		for key, value := range values {
			var d document
			if err := state.Decode(key, value, &d); err != nil {
				for _, id := range wanted[key] {
					unreadable[id] = err
				}
				continue
			}
			for _, m := range d.Messages {
				if slices.Contains(wanted[key], m.ID) {
					messages[m.ID] = m
				}
			}
		}
	}
	return messages, unreadable, nil
}

// OfOrder reads the messages of an order, sorted by the time of their request.
func (s *Messages) OfOrder(ctx context.Context, orderID string) ([]message.Message, error) {
	var d document
	if _, err := s.state.Get(ctx, orderKey(orderID), &d); err != nil && !errors.Is(err, state.ErrNotFound) {
		return nil, err
	}
	elsewhere, unreadable, err := s.Many(ctx, d.Elsewhere)
	if err != nil {
		return nil, err
	}
	for _, err := range unreadable {
		return nil, err
	}
	messages := d.Messages
	for _, id := range d.Elsewhere {
		// A listed message that does not exist is being created: its event is not acknowledged yet.
		if m, ok := elsewhere[id]; ok {
			messages = append(messages, m)
		}
	}
	// A message of another order can have an id that belongs to the document of this one. It is listed under its own order only.
	messages = slices.DeleteFunc(messages, func(m message.Message) bool { return m.OrderID != orderID })
	slices.SortStableFunc(messages, func(a, b message.Message) int { return a.RequestedAt.Compare(b.RequestedAt) })
	return messages, nil
}
