package events_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/platform/retryable"
	"waybill/services/fulfillment/internal/events"
)

// sagas records what was started and cancelled.
type sagas struct {
	started   []contracts.Order
	cancelled []contracts.OrderCancellationRequested
	err       error
}

func (s *sagas) Start(_ context.Context, o contracts.Order) error {
	s.started = append(s.started, o)
	return s.err
}

func (s *sagas) Cancel(_ context.Context, r contracts.OrderCancellationRequested) error {
	s.cancelled = append(s.cancelled, r)
	return s.err
}

var now = time.Date(2026, time.March, 14, 9, 26, 53, 0, time.UTC)

// event returns an event with this data.
func event(t *testing.T, data any) eventing.Event {
	t.Helper()
	encoded, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	return eventing.Event{ID: "event-1", Type: contracts.TypeOrderConfirmed, Data: encoded}
}

func TestAConfirmedOrderStartsItsSaga(t *testing.T) {
	t.Parallel()
	s := &sagas{}
	handle := events.Subscriptions(s)[0].Handlers[contracts.TypeOrderConfirmed]
	order := contracts.Order{OrderID: "ORDER-1", CustomerID: "CUST-123", Items: []contracts.Line{{ProductID: "PROD-001", Quantity: 1}}}
	if err := handle(t.Context(), event(t, contracts.OrderConfirmed{Order: order})); err != nil {
		t.Fatal(err)
	}
	order.Currency = contracts.DefaultCurrency
	if diff := cmp.Diff([]contracts.Order{order}, s.started); diff != "" {
		t.Errorf("started (-want +got):\n%s", diff)
	}

	s.err = retryable.New("the engine is unavailable")
	if err := handle(t.Context(), event(t, contracts.OrderConfirmed{Order: order})); !retryable.Is(err) {
		t.Errorf("an unavailable engine: %v, want a retryable error", err)
	}
}

func TestAnIncompleteConfirmationIsRejected(t *testing.T) {
	t.Parallel()
	s := &sagas{}
	handle := events.Subscriptions(s)[0].Handlers[contracts.TypeOrderConfirmed]
	for _, data := range []any{nil, "text", map[string]any{}, map[string]any{"order_id": "ORDER-1", "customer_id": "CUST-123"}} {
		if err := handle(t.Context(), event(t, data)); !eventing.Rejected(err) {
			t.Errorf("%v: %v, want a rejection", data, err)
		}
	}
	if len(s.started) != 0 {
		t.Errorf("started %v", s.started)
	}
}

func TestACancellationIsPassedToItsSaga(t *testing.T) {
	t.Parallel()
	s := &sagas{}
	handle := events.Subscriptions(s)[0].Handlers[contracts.TypeOrderCancellationRequested]
	request := contracts.OrderCancellationRequested{OrderID: "ORDER-1", CustomerID: "CUST-123", Reason: "Ordered twice.", RequestedAt: now}
	if err := handle(t.Context(), event(t, request)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]contracts.OrderCancellationRequested{request}, s.cancelled); diff != "" {
		t.Errorf("cancelled (-want +got):\n%s", diff)
	}
	for _, data := range []any{nil, map[string]any{}, "text"} {
		if err := handle(t.Context(), event(t, data)); !eventing.Rejected(err) {
			t.Errorf("%v: %v, want a rejection", data, err)
		}
	}
}
