package store

import (
	"context"
	"errors"
	"sync"
	"time"

	"waybill/platform/state"
	"waybill/services/notifications/internal/contact"
)

// Contacts stores one document per customer.
type Contacts struct {
	state state.Store

	mu sync.Mutex
	// recent caches contacts for a moment. A write of this process removes its contact at once. A read that was in progress during
	// a write is not cached: writes has grown.
	recent map[string]reading
	writes int
}

type reading struct {
	contact contact.Contact
	at      time.Time
}

const (
	// recently is the maximum age of an answer of Recent.
	recently = time.Second
	// maxRecent limits the number of cached contacts.
	maxRecent = 1000
)

// NewContacts returns the contacts in s.
func NewContacts(s state.Store) *Contacts { return &Contacts{state: s, recent: map[string]reading{}} }

func contactKey(customerID string) string { return "contact:" + customerID }

// Get reads the contact of a customer. It returns the zero Contact for an unknown customer.
func (s *Contacts) Get(ctx context.Context, customerID string) (contact.Contact, error) {
	var c contact.Contact
	_, err := s.state.Get(ctx, contactKey(customerID), &c)
	if errors.Is(err, state.ErrNotFound) {
		err = nil
	}
	return c, err
}

// Recent is like Get, but its answer may be a second old. It is never older than the last write of this process. The messages of an
// order are requested together, so one read serves them all.
func (s *Contacts) Recent(ctx context.Context, customerID string) (contact.Contact, error) {
	now := time.Now()
	s.mu.Lock()
	known, ok := s.recent[customerID]
	writes := s.writes
	s.mu.Unlock()
	if ok && now.Sub(known.at) < recently {
		return known.contact, nil
	}
	c, err := s.Get(ctx, customerID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.writes == writes {
		s.remember(customerID, c, now)
	}
	return c, err
}

// Update lets change modify the contact (the zero Contact for an unknown customer), stores it if change reports a change, and
// returns it. It may call change several times.
func (s *Contacts) Update(ctx context.Context, customerID string, change func(c *contact.Contact) bool) (contact.Contact, error) {
	started := time.Now()
	s.mu.Lock()
	writes := s.writes
	s.mu.Unlock()
	c, err := state.Update(ctx, s.state, contactKey(customerID), func(c *contact.Contact, _ bool) error {
		if !change(c) {
			return state.ErrUnchanged
		}
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	// After an error the write may still have had its effect. Of two concurrent writes it is not known which was the last.
	delete(s.recent, customerID)
	if err == nil && s.writes == writes+1 {
		s.remember(customerID, c, started)
	}
	return c, err
}

// remember caches a contact that was read or written at the given time. The caller holds mu.
func (s *Contacts) remember(customerID string, c contact.Contact, at time.Time) {
	if len(s.recent) >= maxRecent {
		clear(s.recent)
	}
	c.Waiting = nil // the list can be long, and an old list is useless
	s.recent[customerID] = reading{c, at}
}
