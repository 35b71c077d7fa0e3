package store_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"waybill/platform/state"
	"waybill/services/fulfillment/internal/record"
	"waybill/services/fulfillment/internal/store"
)

func TestASagaRecordExpiresAfterItsEnd(t *testing.T) {
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
			_, err := s.Change(t.Context(), id, func(s *record.Saga) (bool, error) {
				return s.End(record.Completed, record.Announcement{ID: id}, time.Now()), nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		approvals := func() (ids []string) {
			t.Helper()
			err := s.Approvals(t.Context(), func(sagas []record.Saga) error {
				for _, e := range sagas {
					ids = append(ids, e.Order.OrderID)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return ids
		}
		end("ORD-1")
		time.Sleep(23 * time.Hour)
		if _, first, err := s.Begin(t.Context(), order("ORD-1")); err != nil || first {
			t.Errorf("a saga that ended 23 hours ago begins again: %v, %v", first, err)
		}
		time.Sleep(time.Hour)
		if _, err := s.Get(t.Context(), "ORD-1"); err == nil {
			t.Error("the record still exists")
		}
		if got := approvals(); len(got) != 1 || got[0] != "ORD-2" {
			t.Errorf("the approvals are %v", got)
		}
		time.Sleep(1000 * time.Hour)
		if _, err := s.Get(t.Context(), "ORD-2"); err != nil {
			t.Errorf("the record of a running saga: %v", err)
		}
	})
}

func TestExactlyOneBeginIsTheFirst(t *testing.T) {
	t.Parallel()
	s := store.NewSagas(state.NewMemory(), "writer", time.Now)
	// The customer's cancellation may arrive before the order.
	if _, err := s.Change(t.Context(), "ORDER-2", func(s *record.Saga) (bool, error) { return s.Cancel("Ordered twice.", time.Now()), nil }); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"ORDER-1", "ORDER-2"} {
		var firsts atomic.Int32
		var racing sync.WaitGroup
		for range 20 {
			racing.Go(func() {
				e, first, err := s.Begin(t.Context(), order(id))
				if err != nil || e.Ended() || e.Order.TotalAmount == 0 || (e.Cancellation != nil) != (id == "ORDER-2") {
					t.Errorf("begin: %+v %v", e, err)
				}
				if first {
					firsts.Add(1)
				}
			})
		}
		racing.Wait()
		if firsts.Load() != 1 {
			t.Errorf("%d calls of Begin for %s were the first, want 1", firsts.Load(), id)
		}
	}
}

// A change of a record that was read before does not overwrite changes in between.
func TestAChangeOfAReadRecordDetectsConflicts(t *testing.T) {
	t.Parallel()
	s := store.NewSagas(state.NewMemory(), "writer", time.Now)
	if _, _, err := s.Begin(t.Context(), order("ORDER-1")); err != nil {
		t.Fatal(err)
	}
	book := func(s *record.Saga) (bool, error) { return s.Book(time.Now()), nil }
	_, before, err := s.Read(t.Context(), "ORDER-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Change(t.Context(), "ORDER-1", func(s *record.Saga) (bool, error) { return s.Cancel("Ordered twice.", time.Now()), nil }); err != nil {
		t.Fatal(err)
	}
	if e, err := before(book); err != nil || !e.Cancelled() || e.Booked() {
		t.Errorf("booked after the cancellation: %+v, %v", e, err)
	}
	if _, _, err := s.Begin(t.Context(), order("ORDER-2")); err != nil {
		t.Fatal(err)
	}
	_, change, err := s.Read(t.Context(), "ORDER-2")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second call finds it booked
		if e, err := change(book); err != nil || !e.Booked() {
			t.Errorf("%+v, %v", e, err)
		}
	}
	if e, err := s.Get(t.Context(), "ORDER-2"); err != nil || !e.Booked() {
		t.Errorf("%+v, %v", e, err)
	}
}

// A new process finds the sagas that have not ended, but not those that were removed.
func TestANewProcessFindsOpenSagas(t *testing.T) {
	t.Parallel()
	memory := state.NewMemory()
	s := store.NewSagas(memory, "writer", time.Now)
	const sagas = 60
	for i := range sagas {
		if _, _, err := s.Begin(t.Context(), order(fmt.Sprintf("ORDER-%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	later := store.NewSagas(memory, "another", time.Now)
	open := func() map[string]bool {
		found := map[string]bool{}
		err := later.Open(t.Context(), func(sagas []record.Saga) error {
			for _, e := range sagas {
				found[e.Order.OrderID] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if found := open(); len(found) != sagas {
		t.Errorf("%d sagas were found, want %d", len(found), sagas)
	}
	remove := func(context.Context, []string) ([]string, error) { return []string{"ORDER-7"}, nil }
	if err := later.PendingSagas().Visit(t.Context(), remove); err != nil {
		t.Fatal(err)
	}
	if found := open(); len(found) != sagas-1 || found["ORDER-7"] {
		t.Errorf("%d sagas were found after one was removed, want %d", len(found), sagas-1)
	}
	if _, err := s.Get(t.Context(), "ORDER-99"); err == nil {
		t.Error("an unknown saga was found")
	}
}
