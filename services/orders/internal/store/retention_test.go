package store_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"waybill/contracts"
	"waybill/platform/state"
	"waybill/services/orders/internal/order"
	"waybill/services/orders/internal/store"
)

func fulfilled(t *testing.T, id string) *order.Order {
	t.Helper()
	o := newOrder(t, id, "CUST-123")
	o.Confirm(order.Cause{EventID: "confirmed"}, at)
	o.Complete(order.Cause{EventID: "completed"}, contracts.FulfillmentCompleted{}, at)
	if !o.Status().Final() {
		t.Fatalf("the order is %s", o.Status())
	}
	return o
}

func TestAnOrderExpiresAfterItsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := store.New(state.NewMemory(), "writer", time.Hour).KeepFor(24 * time.Hour)
		running := newOrder(t, "ORD-1", "CUST-123")
		running.Confirm(order.Cause{EventID: "confirmed"}, at)
		save(t, s, running)
		save(t, s, fulfilled(t, "ORD-2"))
		forever := store.New(state.NewMemory(), "writer", time.Hour)
		save(t, forever, fulfilled(t, "ORD-2"))
		time.Sleep(20 * time.Hour)
		// What happens after the end, such as a cancellation that comes too late, prolongs its stay.
		err := s.Update(t.Context(), "ORD-2", func(o *order.Order) (*order.Order, error) {
			o.Step(order.Cause{EventID: "late"}, contracts.StepCompleted{Step: "S"}, at)
			return o, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Hour)
		if _, err := s.Get(t.Context(), "ORD-2"); err != nil {
			t.Errorf("20 h after its last change: %v", err)
		}
		time.Sleep(4 * time.Hour)
		if _, err := s.Get(t.Context(), "ORD-2"); !errors.As(err, new(*order.Error)) {
			t.Errorf("24 h after its last change: %v", err)
		}
		time.Sleep(1000 * time.Hour)
		if _, err := s.Get(t.Context(), "ORD-1"); err != nil {
			t.Errorf("an order that has not ended: %v", err)
		}
		if _, err := forever.Get(t.Context(), "ORD-2"); err != nil {
			t.Errorf("without a retention: %v", err)
		}
	})
}

func TestACustomersListExpiresWithTheOrders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := store.New(state.NewMemory(), "writer", time.Hour).KeepFor(24 * time.Hour)
		next := 0
		place := func(n int) {
			t.Helper()
			for range n {
				next++
				save(t, s, fulfilled(t, fmt.Sprintf("ORD-%d", next)))
			}
		}
		listed := func() (ids []order.ID) {
			t.Helper()
			for before := 0; ; {
				orders, position, err := s.List(t.Context(), "CUST-123", "", 50, before)
				if err != nil {
					t.Fatal(err)
				}
				for _, o := range orders {
					ids = append(ids, o.ID())
				}
				if before = position; before == 0 {
					return ids
				}
			}
		}
		place(450) // of which pages hold 300
		if got := len(listed()); got != 450 {
			t.Fatalf("%d orders are listed", got)
		}
		time.Sleep(31*24*time.Hour - time.Minute)
		place(2)
		time.Sleep(time.Minute)
		if got := listed(); len(got) != 2 || got[0] != "ORD-452" {
			t.Errorf("a month later %v are listed", got)
		}
		place(120)
		if got := len(listed()); got != 122 {
			t.Errorf("%d of 122 orders are listed beside pages that expired", got)
		}
		time.Sleep(1000 * time.Hour)
		place(250)
		if got := len(listed()); got != 250 {
			t.Errorf("%d of 250 orders are listed after the whole list expired", got)
		}
	})
}
