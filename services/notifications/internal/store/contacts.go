package store

import (
	"context"
	"errors"
	"sync"
	"time"

	"waybill/platform/state"
	"waybill/services/notifications/internal/contact"
	"waybill/services/notifications/internal/vapid"
)

// Contacts keeps one document per customer.
type Contacts struct {
	state state.Store

	mu sync.Mutex
	// recent is what was read a moment ago. What this process writes leaves it at once, also what is being read meanwhile:
	// a reader keeps nothing when writes has grown.
	recent map[string]reading
	writes int
}

type reading struct {
	contact contact.Contact
	at      time.Time
}

const (
	// recently is how old an answer of Recent can be.
	recently = time.Second
	// maxRecent bounds how many contacts are in memory.
	maxRecent = 1000
)

// NewContacts returns the contacts in s.
func NewContacts(s state.Store) *Contacts { return &Contacts{state: s, recent: map[string]reading{}} }

func contactKey(customerID string) string { return "contact:" + customerID }

// Get reads a customer's contact, the zero Contact when nothing is known.
func (s *Contacts) Get(ctx context.Context, customerID string) (contact.Contact, error) {
	var c contact.Contact
	_, err := s.state.Get(ctx, contactKey(customerID), &c)
	if errors.Is(err, state.ErrNotFound) {
		err = nil
	}
	return c, err
}

// Recent is Get with an answer that may be a second old. It is never older than what this process last wrote. The messages
// of one order come together, and so one read serves them all.
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

// Update lets change alter the contact, the zero Contact when nothing is known, and stores it unless change reports that
// nothing changed. Change may run several times.
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
	// After an error the write may have had its effect, and of two writes at once the later one is not known.
	delete(s.recent, customerID)
	if err == nil && s.writes == writes+1 {
		s.remember(customerID, c, started)
	}
	return c, err
}

// remember keeps what was read, or written, at that time. The caller holds mu.
func (s *Contacts) remember(customerID string, c contact.Contact, at time.Time) {
	if len(s.recent) >= maxRecent {
		clear(s.recent)
	}
	c.Waiting = nil // it can be long, and a list that is old says nothing
	s.recent[customerID] = reading{c, at}
}

const keysKey = "vapid-keys"

// Keys returns the key pair that is kept, and keeps the one that generate makes when there is none.
func Keys(ctx context.Context, s state.Store, generate func() (vapid.Keys, error)) (vapid.Keys, error) {
	return state.Update(ctx, s, keysKey, func(k *vapid.Keys, exists bool) (err error) {
		if exists {
			return state.ErrUnchanged
		}
		*k, err = generate()
		return err
	})
}
