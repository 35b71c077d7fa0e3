package events_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/platform/eventing/eventingtest"
	"waybill/services/orders/internal/admission"
	"waybill/services/orders/internal/events"
	"waybill/services/orders/internal/ordering"
	"waybill/services/orders/internal/store"
)

// Every handler gets a store and a bus that fail.
func TestEveryHandlerTellsPermanentFromTransient(t *testing.T) {
	t.Parallel()
	eventingtest.Run(t, func(t *testing.T, client *eventingtest.Client) eventingtest.World {
		t.Helper()
		logger, documents := slog.New(slog.DiscardHandler), eventingtest.NewDocuments()
		publisher, err := eventing.NewPublisher(client, contracts.OrderBus)
		if err != nil {
			t.Fatal(err)
		}
		gate, err := admission.New(admission.Options{Age: time.Minute, Logger: logger})
		if err != nil {
			t.Fatal(err)
		}
		out := events.Publisher{Bus: publisher}
		handlers := &events.Handlers{
			Orders: &ordering.Service{Store: store.New(documents, "process", 24*time.Hour), Publisher: out, Admission: gate, Logger: logger}, Logger: logger,
		}
		subscriptions := handlers.Subscriptions()
		return eventingtest.World{
			Subscriptions: subscriptions, OnDeadLetter: out.DeadLettered,
			Needs: map[string]eventingtest.Failure{"store": eventingtest.Store, "bus": eventingtest.Bus},
			Event: func(t *testing.T, eventType string, n int) eventing.Event {
				t.Helper()
				if eventType != contracts.TypeOrderCreated { // its order must exist
					created := sampleOf(t, contracts.TypeOrderCreated, n)
					if err := subscriptions[0].Handlers[contracts.TypeOrderCreated](t.Context(), created); err != nil {
						t.Fatal(err)
					}
				}
				return sampleOf(t, eventType, n)
			},
		}
	})
}

// sampleOf is the contract's sample of a type, about the n-th order.
func sampleOf(t *testing.T, eventType string, n int) eventing.Event {
	t.Helper()
	text := strings.ReplaceAll(string(contracts.Sample(eventType)), "ORD-1001", fmt.Sprintf("ORD-%d", n))
	var e eventing.Event
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		t.Fatal(err)
	}
	e.ID = fmt.Sprintf("%s-%d", eventType, n)
	return e
}
