package events_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/platform/eventing/eventingtest"
	"waybill/platform/reconcile"
	"waybill/services/notifications/internal/delivery"
	"waybill/services/notifications/internal/events"
	"waybill/services/notifications/internal/message"
	"waybill/services/notifications/internal/store"
)

type noChannel struct{}

func (noChannel) Send(context.Context, contracts.Contact, message.Outgoing) error { return nil }
func (noChannel) Parallel() int                                                   { return 1 }

// Every handler distinguishes permanent from retryable failures of the store and the bus.
func TestEveryHandlerDistinguishesPermanentFailures(t *testing.T) {
	t.Parallel()
	eventingtest.Run(t, func(t *testing.T, client *eventingtest.Client) eventingtest.World {
		t.Helper()
		logger, documents := slog.New(slog.DiscardHandler), eventingtest.NewDocuments()
		publisher, err := eventing.NewPublisher(client, contracts.OrderBus)
		if err != nil {
			t.Fatal(err)
		}
		messages, contacts := store.NewMessages(documents), store.NewContacts(documents)
		courier, err := delivery.New(delivery.Options{
			Messages: messages, Contacts: contacts, Pending: reconcile.NewPending(documents, "notifications", "writer"),
			Channels:  map[string]delivery.Channel{contracts.ChannelEmail: noChannel{}, contracts.ChannelSMS: noChannel{}, contracts.ChannelPush: noChannel{}},
			Announce:  events.Announcer(publisher),
			Operators: contracts.Contact{Email: "ops@example.com"}, SendTimeout: time.Second, Logger: logger,
		})
		if err != nil {
			t.Fatal(err)
		}
		return eventingtest.World{
			Subscriptions: events.Handlers{Courier: courier}.Subscriptions(),
			Needs:         map[string]eventingtest.Failure{"store": eventingtest.Store, "bus": eventingtest.Bus},
			Event: func(t *testing.T, eventType string, n int) eventing.Event {
				t.Helper()
				text := strings.NewReplacer("ORD-1001", fmt.Sprintf("ORD-%d", n), "PROD-001", fmt.Sprintf("PROD-%d", n), "CUST-123", fmt.Sprintf("CUST-%d", n),
					`"expires_at": "2026`, `"expires_at": "2126`).
					Replace(string(contracts.Sample(eventType)))
				var e eventing.Event
				if err := json.Unmarshal([]byte(text), &e); err != nil {
					t.Fatal(err)
				}
				e.ID = fmt.Sprintf("%s-%d", eventType, n)
				return e
			},
		}
	})
}
