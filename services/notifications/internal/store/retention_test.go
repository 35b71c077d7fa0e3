package store_test

import (
	"testing"
	"testing/synctest"
	"time"

	"waybill/platform/state"
	"waybill/services/notifications/internal/message"
	"waybill/services/notifications/internal/store"
)

func TestMessagesExpireAfterTheirOutcomes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := store.NewMessages(state.NewMemory()).KeepFor(24 * time.Hour)
		const email, sms, alert = "ORD-1:order_shipped:email", "ORD-1:order_shipped:sms", "alert:PROD-001:stock:7:email"
		for _, id := range []string{email, sms, alert} {
			if _, _, err := s.Create(t.Context(), message.Message{ID: id, OrderID: "ORD-1", State: message.Pending}); err != nil {
				t.Fatal(err)
			}
		}
		change := func(id string, change func(m *message.Message) bool) {
			t.Helper()
			if _, err := s.Update(t.Context(), id, change); err != nil {
				t.Fatal(err)
			}
		}
		deliver := func(m *message.Message) bool { return m.Accept(time.Now()) }
		there := func(id string, want bool) {
			t.Helper()
			if _, err := s.Get(t.Context(), id); (err == nil) != want {
				t.Errorf("%s: %v", id, err)
			}
		}
		change(email, deliver)
		change(alert, deliver)
		time.Sleep(24 * time.Hour)
		there(email, true) // another message of the document has no outcome yet
		there(alert, false)
		change(sms, deliver)
		time.Sleep(23 * time.Hour)
		change(email, func(m *message.Message) bool {
			changed, err := m.Resend("operator@example.com", "lost", true, time.Now())
			return changed && err == nil
		})
		time.Sleep(1000 * time.Hour)
		there(sms, true)
		change(email, deliver)
		time.Sleep(24 * time.Hour)
		there(email, false)
		there(sms, false)
		if found, err := s.OfOrder(t.Context(), "ORD-1"); err != nil || len(found) != 0 {
			t.Errorf("the order has %v, %v", found, err)
		}
	})
}
