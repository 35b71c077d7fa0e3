package store

import (
	"context"
	"errors"

	"waybill/platform/state"
	"waybill/services/notifications/internal/contact"
	"waybill/services/notifications/internal/vapid"
)

// Contacts keeps one document per customer.
type Contacts struct{ state state.Store }

// NewContacts returns the contacts in s.
func NewContacts(s state.Store) *Contacts { return &Contacts{s} }

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

// Update lets change alter the contact, the zero Contact when nothing is known, and stores it unless change reports that
// nothing changed. Change may run several times.
func (s *Contacts) Update(ctx context.Context, customerID string, change func(c *contact.Contact) bool) (contact.Contact, error) {
	return state.Update(ctx, s.state, contactKey(customerID), func(c *contact.Contact, _ bool) error {
		if !change(c) {
			return state.Keep
		}
		return nil
	})
}

const keysKey = "vapid-keys"

// Keys returns the key pair that is kept, and keeps the one that generate makes when there is none.
func Keys(ctx context.Context, s state.Store, generate func() (vapid.Keys, error)) (vapid.Keys, error) {
	return state.Update(ctx, s, keysKey, func(k *vapid.Keys, exists bool) (err error) {
		if exists {
			return state.Keep
		}
		*k, err = generate()
		return err
	})
}
