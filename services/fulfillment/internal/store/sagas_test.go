package store_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"waybill/platform/state"
	"waybill/services/fulfillment/internal/record"
	"waybill/services/fulfillment/internal/store"
)

func TestASagaGoesAfterItsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := store.NewSagas(state.NewMemory(), "writer", time.Now).KeepFor(24 * time.Hour)
		for _, id := range []string{"ORD-1", "ORD-2"} {
			if _, _, err := s.Begin(t.Context(), order(id)); err != nil {
				t.Fatal(err)
			}
			if err := s.ListApproval(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		end := func(id string) {
			t.Helper()
			_, err := s.Change(t.Context(), id, func(e *record.Saga) (bool, error) {
				return e.End(record.Completed, record.Announcement{ID: id}, time.Now()), nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		approvals := func() (ids []string) {
			t.Helper()
			err := s.Approvals(t.Context(), func(_ context.Context, entries []record.Saga) ([]string, error) {
				for _, e := range entries {
					ids = append(ids, e.Order.OrderID)
				}
				return nil, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return ids
		}
		end("ORD-1")
		time.Sleep(23 * time.Hour)
		if _, first, err := s.Begin(t.Context(), order("ORD-1")); err != nil || first {
			t.Errorf("a saga that ended a day ago begins again: %v, %v", first, err)
		}
		time.Sleep(time.Hour)
		if _, err := s.Get(t.Context(), "ORD-1"); err == nil {
			t.Error("the entry is still there")
		}
		if got := approvals(); len(got) != 1 || got[0] != "ORD-2" {
			t.Errorf("the approvals are %v", got)
		}
		// What vanished is off the list: as an entry of another saga it does not come back.
		if _, _, err := s.Begin(t.Context(), order("ORD-1")); err != nil {
			t.Fatal(err)
		}
		if got := approvals(); len(got) != 1 {
			t.Errorf("the approvals are %v", got)
		}
		time.Sleep(1000 * time.Hour)
		if _, err := s.Get(t.Context(), "ORD-2"); err != nil {
			t.Errorf("a saga that runs: %v", err)
		}
	})
}

func TestWhatIsOfAnOrder(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]bool{
		"reservation:ORD-1": false, "payment:ORD-1": true, "shipment:ORD-1": true,
		"saga:ORD-1": false, "stock:PROD-001": false, "backlog:sagas:payment:1": false, "deadletter:orders:payment": false,
	} {
		if simulator.OfOrder(key) != want {
			t.Errorf("%s is of an order: %v", key, !want)
		}
	}
}
