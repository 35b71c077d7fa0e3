// Package store keeps messages, contacts and keys as documents in a state store. It maps them to the domain and decides
// nothing.
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

// Messages keeps an order's messages in one document, and every other message in one of its own. Where a message is
// follows from its id alone, so an id names one message.
type Messages struct {
	state state.Store
	locks keyLocks
	// retention is how long messages are kept that all have their outcome; 0 is for ever.
	retention time.Duration
}

// NewMessages returns the messages in s.
func NewMessages(s state.Store) *Messages { return &Messages{state: s, locks: newKeyLocks()} }

// KeepFor has messages vanish some time after their document was last written, once all in it have their outcome; 0 keeps them. It
// returns s, and is called before anything is read or written.
func (s *Messages) KeepFor(retention time.Duration) *Messages {
	s.retention = retention
	return s
}

// document holds the messages whose home it is. An order's also lists the order's messages that are at home elsewhere, as
// alerts are.
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
	// maxElsewhere bounds an order's list of messages that are at home elsewhere. A saga causes a dozen at most.
	maxElsewhere = 500
	// maxBatch is how many documents are read at once: the largest have some 30 KB.
	maxBatch = 100
)

func orderKey(id string) string { return "order-messages:" + id }

// home is the key of the document that holds the message: the order's for an id of the form <order>:<template>:<channel>,
// which bounds how many an order's document can hold. A template that is new must not have been part of ids before.
func home(id string) string {
	order, rest, _ := strings.Cut(id, ":")
	template, channel, _ := strings.Cut(rest, ":")
	if slices.Contains(contracts.Templates(), template) && slices.Contains(contracts.Channels(), channel) && message.CheckParty("order_id", order) == nil {
		return orderKey(order)
	}
	return "message:" + id
}

// Place names the document in which the message is. A customer's messages about one order mostly share one.
func (*Messages) Place(id string) string { return home(id) }

// keyLocks spares writers of one document in this process the conflicts that ETags would make them repeat. It is no
// guard: other replicas do not know of it.
type keyLocks []chan struct{}

const lockCount = 64

func newKeyLocks() keyLocks {
	l := make(keyLocks, lockCount)
	for i := range l {
		l[i] = make(chan struct{}, 1)
	}
	return l
}

// lock waits for the key's lock until ctx ends, and returns what unlocks it.
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

// Create stores new messages whose place is the same, in one write; created is false for one that was there already. It returns
// the messages as they stand in the store. A message that is at home elsewhere is listed under its order first, so that none is
// missing there.
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
			return &message.Error{Kind: message.Invalid, Code: "too_many_notifications", Text: fmt.Sprintf("an order has at most %d notifications of other names than its own", maxElsewhere)}
		}
		d.Elsewhere = append(d.Elsewhere, id)
		return nil
	})
}

// Get reads a message; without one the error is message.ErrNotFound's.
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

// Update lets change alter the message that is there, and stores it unless change reports that nothing changed. Change may
// run several times. It returns the message as it then stands.
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

// At reads the messages at the place.
func (s *Messages) At(ctx context.Context, place string) ([]message.Message, error) {
	var d document
	if _, err := s.state.Get(ctx, place, &d); err != nil && !errors.Is(err, state.ErrNotFound) {
		return nil, err
	}
	return d.Messages, nil
}

// UpdateAt lets change alter each message at the place, stores them in one write, and returns those for which change reported
// that something changed. Change may run several times.
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

// Many reads messages by their ids; a missing one is missing from the answer. A message whose document cannot be decoded is in
// unreadable instead, with the error.
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

// OfOrder reads the order's messages in the order in which they were asked for.
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
		// A message that is listed and not there is being created, or was never: its event is not acknowledged yet.
		if m, ok := elsewhere[id]; ok {
			messages = append(messages, m)
		}
	}
	// Whoever names a message after one order and asks for it for another one has it listed there only.
	messages = slices.DeleteFunc(messages, func(m message.Message) bool { return m.OrderID != orderID })
	slices.SortStableFunc(messages, func(a, b message.Message) int { return a.RequestedAt.Compare(b.RequestedAt) })
	return messages, nil
}
