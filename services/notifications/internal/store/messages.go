// Package store keeps messages, contacts and keys as documents in a state store. It maps them to the domain and decides
// nothing.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"waybill/platform/state"
	"waybill/services/notifications/internal/message"
)

// Messages keeps one document per message, and one per order that lists its messages.
type Messages struct{ state state.Store }

// NewMessages returns the messages in s.
func NewMessages(s state.Store) *Messages { return &Messages{s} }

func messageKey(id string) string { return "message:" + id }

func orderKey(id string) string { return "order-messages:" + id }

type orderIndex struct {
	IDs []string `json:"ids"`
}

const (
	// maxPerOrder bounds an order's list of messages. A saga causes a dozen at most.
	maxPerOrder = 500
	// maxBatch is how many messages are read at once: the largest have some 3 KB.
	maxBatch = 200
)

// Create stores a new message, listed under its order first so that none is missing there; created is false when there was
// one of that id already. It returns the message as it stands in the store.
func (s *Messages) Create(ctx context.Context, m message.Message) (stored message.Message, created bool, err error) {
	if m.OrderID != "" {
		if err := s.index(ctx, m.OrderID, m.ID); err != nil {
			return m, false, err
		}
	}
	err = s.state.Create(ctx, messageKey(m.ID), m)
	if !errors.Is(err, state.ErrConflict) {
		return m, err == nil, err
	}
	stored, err = s.Get(ctx, m.ID)
	return stored, false, err
}

func (s *Messages) index(ctx context.Context, orderID, id string) error {
	_, err := state.Update(ctx, s.state, orderKey(orderID), func(i *orderIndex, _ bool) error {
		switch {
		case slices.Contains(i.IDs, id):
			return state.Keep
		case len(i.IDs) >= maxPerOrder:
			return &message.Error{Kind: message.Invalid, Code: "too_many_notifications", Text: fmt.Sprintf("an order has at most %d notifications", maxPerOrder)}
		}
		i.IDs = append(i.IDs, id)
		return nil
	})
	return err
}

// Get reads a message; without one the error is message.ErrNotFound's.
func (s *Messages) Get(ctx context.Context, id string) (message.Message, error) {
	var m message.Message
	_, err := s.state.Get(ctx, messageKey(id), &m)
	if errors.Is(err, state.ErrNotFound) {
		err = message.ErrNotFound()
	}
	return m, err
}

// Update lets change alter the message that is there, and stores it unless change reports that nothing changed. Change may
// run several times. It returns the message as it then stands.
func (s *Messages) Update(ctx context.Context, id string, change func(m *message.Message) bool) (message.Message, error) {
	return state.Update(ctx, s.state, messageKey(id), func(m *message.Message, exists bool) error {
		switch {
		case !exists:
			return message.ErrNotFound()
		case !change(m):
			return state.Keep
		}
		return nil
	})
}

// Many reads messages by their ids; a missing one is missing from the answer.
func (s *Messages) Many(ctx context.Context, ids []string) (map[string]message.Message, error) {
	messages := make(map[string]message.Message, len(ids))
	for batch := range slices.Chunk(ids, maxBatch) {
		keys := make([]string, len(batch))
		for i, id := range batch {
			keys[i] = messageKey(id)
		}
		values, err := s.state.GetMany(ctx, keys)
		if err != nil {
			return nil, err
		}
		for key, value := range values {
			var m message.Message
			if err := json.Unmarshal(value, &m); err != nil {
				return nil, fmt.Errorf("read %s: %w", key, err)
			}
			messages[m.ID] = m
		}
	}
	return messages, nil
}

// OfOrder reads the order's messages in the order in which they were asked for.
func (s *Messages) OfOrder(ctx context.Context, orderID string) ([]message.Message, error) {
	var index orderIndex
	if _, err := s.state.Get(ctx, orderKey(orderID), &index); err != nil {
		if errors.Is(err, state.ErrNotFound) {
			return nil, nil
		}
		return nil, err
	}
	found, err := s.Many(ctx, index.IDs)
	if err != nil {
		return nil, err
	}
	messages := make([]message.Message, 0, len(index.IDs))
	for _, id := range index.IDs {
		// A message that is listed and not there is being created, or was never: its event is not acknowledged yet.
		if m, ok := found[id]; ok && m.OrderID == orderID {
			messages = append(messages, m)
		}
	}
	return messages, nil
}
