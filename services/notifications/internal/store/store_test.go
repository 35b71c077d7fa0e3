package store_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/platform/state"
	"waybill/services/notifications/internal/contact"
	"waybill/services/notifications/internal/message"
	"waybill/services/notifications/internal/store"
)

// An id names one message in every form of ids, and the order lists the message.
func TestMessagesByTheirIDsAndOrders(t *testing.T) {
	t.Parallel()
	s := store.NewMessages(state.NewMemory())
	at := time.Now().UTC()
	for i, m := range []message.Message{
		{ID: "ORD-1:order_shipped:email", OrderID: "ORD-1"},
		{ID: "alert:f1:email", OrderID: "ORD-1"},
		{ID: "alert:PROD-001:stock:7:email"},
		{ID: "ORD-1:order_shipped:sms", OrderID: "ORD-1"},
		{ID: "a-name-of-its-own", OrderID: "ORD-1"},
		{ID: "ORD-1:order_shipped:push", OrderID: "ORD-2"}, // named after another order
		{ID: "ORD-1:another_template:email", OrderID: "ORD-1"},
		{ID: "ORD-1:order_shipped:email:2", OrderID: "ORD-1"},
		{ID: "alert:order_shipped:email", OrderID: "alert"},
	} {
		m.RequestedAt = at.Add(time.Duration(i) * time.Second)
		if stored, created, err := s.Create(t.Context(), m); err != nil || !created[0] || stored[0].ID != m.ID {
			t.Fatalf("%s: %+v, %v, %v", m.ID, stored, created, err)
		}
		again := m
		again.OrderID, again.Template = "ORD-3", "another"
		if stored, created, err := s.Create(t.Context(), again); err != nil || created[0] || stored[0].OrderID != m.OrderID || stored[0].Template != "" {
			t.Errorf("%s again: %+v, %v, %v", m.ID, stored, created, err)
		}
		if _, err := s.Update(t.Context(), m.ID, func(m *message.Message) bool { m.Attempts++; return true }); err != nil {
			t.Errorf("%s: %v", m.ID, err)
		}
		if got, err := s.Get(t.Context(), m.ID); err != nil || got.ID != m.ID || got.Attempts != 1 {
			t.Errorf("%s: %+v, %v", m.ID, got, err)
		}
		many, _, err := s.Many(t.Context(), []string{m.ID, "ORD-1:order_failed:email", m.ID})
		if err != nil || len(many) != 1 || many[m.ID].Attempts != 1 {
			t.Errorf("%s: %+v, %v", m.ID, many, err)
		}
	}
	for order, want := range map[string][]string{
		"ORD-1": {
			"ORD-1:order_shipped:email", "alert:f1:email", "ORD-1:order_shipped:sms", "a-name-of-its-own", "ORD-1:another_template:email",
			"ORD-1:order_shipped:email:2",
		},
		"ORD-2": {"ORD-1:order_shipped:push"},
		"ORD-3": {},
		"alert": {"alert:order_shipped:email"},
	} {
		listed, err := s.OfOrder(t.Context(), order)
		got := make([]string, 0, len(listed))
		for _, m := range listed {
			got = append(got, m.ID)
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %s %v", order, diff, err)
		}
	}
	for _, id := range []string{"ORD-1:order_failed:email", "ORD-9:order_failed:email", "unknown", "a:b"} {
		_, err := s.Get(t.Context(), id)
		_, updateErr := s.Update(t.Context(), id, func(*message.Message) bool { return true })
		if !cmp.Equal(err, message.ErrNotFound()) || !cmp.Equal(updateErr, message.ErrNotFound()) {
			t.Errorf("%s: %v, %v", id, err, updateErr)
		}
	}
}

// slow blocks a read until the test continues it.
type slow struct {
	state.Store

	reading, goOn chan struct{}
}

func (s *slow) Get(ctx context.Context, key string, doc any) (state.ETag, error) {
	etag, err := s.Store.Get(ctx, key, doc)
	if s.reading != nil {
		reading := s.reading
		s.reading = nil
		close(reading)
		<-s.goOn
	}
	return etag, err
}

func TestARecentContact(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		docs := &slow{Store: state.NewMemory()}
		here, elsewhere := store.NewContacts(docs), store.NewContacts(docs.Store)
		set := func(s *store.Contacts, email string) {
			t.Helper()
			if _, err := s.Update(t.Context(), "CUST-123", func(c *contact.Contact) bool { c.Email = email; return true }); err != nil {
				t.Fatal(err)
			}
		}
		known := func(want string) {
			t.Helper()
			if c, err := here.Recent(t.Context(), "CUST-123"); err != nil || c.Email != want {
				t.Errorf("%q is known, want %q: %v", c.Email, want, err)
			}
		}
		known("")
		set(here, "first@example.com")
		known("first@example.com")
		set(elsewhere, "second@example.com")
		known("first@example.com")
		time.Sleep(time.Second) // of the bubble's clock
		known("second@example.com")
		set(here, "third@example.com")
		known("third@example.com")

		// A read that is in progress during a write is not cached.
		time.Sleep(time.Second)
		reading, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
		docs.reading, docs.goOn = reading, goOn
		go func() { // owned: waited for below
			defer close(ended)
			known("third@example.com")
		}()
		<-reading
		set(here, "fourth@example.com")
		close(goOn)
		<-ended
		known("fourth@example.com")
	})
}

// hung is a store whose reads hang until the test ends them.
type hung struct {
	*state.Memory

	end chan struct{}
}

func (h *hung) Get(ctx context.Context, key string, doc any) (state.ETag, error) {
	<-h.end
	return h.Memory.Get(ctx, key, doc)
}

// A writer that waits for another writer of the document stops waiting when its context ends, and writes nothing later.
func TestAWaitingWriterStopsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		held := &hung{state.NewMemory(), make(chan struct{})}
		s := store.NewMessages(held)
		first := make(chan error, 1)
		go func() { // owned: the test waits for first
			_, _, err := s.Create(t.Context(), message.Message{ID: "ORD-1:order_shipped:email", OrderID: "ORD-1"})
			first <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		began := time.Now()
		_, _, err := s.Create(ctx, message.Message{ID: "ORD-1:order_shipped:sms", OrderID: "ORD-1"})
		if !errors.Is(err, state.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 2*time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		close(held.end)
		if err := <-first; err != nil {
			t.Error(err)
		}
		if all, err := s.OfOrder(t.Context(), "ORD-1"); err != nil || len(all) != 1 {
			t.Errorf("%+v, %v", all, err)
		}
	})
}
