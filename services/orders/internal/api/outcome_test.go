package api_test

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
	"waybill/services/orders/internal/api"
	"waybill/services/orders/internal/idempotency"
	"waybill/services/orders/internal/store"
)

// TestEveryHandlerTellsPermanentFromTransient gives every handler a store and a bus that fail.
func TestEveryHandlerTellsPermanentFromTransient(t *testing.T) {
	t.Parallel()
	eventingtest.Run(t, func(t *testing.T, client *eventingtest.Client) eventingtest.World {
		t.Helper()
		logger, documents := slog.New(slog.DiscardHandler), eventingtest.NewDocuments()
		publisher, err := eventing.NewPublisher(client, contracts.OrderBus)
		if err != nil {
			t.Fatal(err)
		}
		service := &api.Service{
			Orders: store.New(documents, "process", receivedTTL), Publisher: publisher, Logger: logger,
			Keys: idempotency.New(documents, "process", time.Hour, logger), Admission: gate(t, admission.Options{}),
		}
		subscriptions := service.Subscriptions()
		return eventingtest.World{
			Subscriptions: subscriptions, OnDeadLetter: service.DeadLettered,
			Needs: map[string]eventingtest.Failure{"store": eventingtest.Store, "bus": eventingtest.Bus},
			Event: func(t *testing.T, eventType string, n int) eventing.Event {
				t.Helper()
				if eventType != contracts.TypeOrderCreated { // it is about an order that is there
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
