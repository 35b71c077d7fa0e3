package operations_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"waybill/contracts"
	"waybill/platform/reconcile"
	"waybill/platform/reconcile/reconciletest"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/operations"
	"waybill/services/fulfillment/internal/record"
	"waybill/services/fulfillment/internal/store"
)

// never is a grace period that lasts longer than every test: no saga is started, woken or terminated, so no engine is needed.
const never = 1000 * 24 * time.Hour

func newReconciler(t *testing.T, records *store.Sagas) *operations.Reconciler {
	t.Helper()
	sagas := operations.New(operations.Options{Records: records, StuckAfter: never, Logger: slog.New(slog.DiscardHandler), Now: time.Now})
	r, err := operations.NewReconciler(sagas, operations.ReconcilerOptions{Interval: time.Minute, Grace: never, LostAfter: never})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// pending returns the ids in a pending set.
func pending(t *testing.T, set reconcile.Set) []string {
	t.Helper()
	var ids []string
	err := set.Visit(t.Context(), func(_ context.Context, page []string) ([]string, error) {
		ids = append(ids, page...)
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ids)
	return ids
}

func end(ctx context.Context, records *store.Sagas, id string) error {
	_, err := records.Change(ctx, id, func(s *record.Saga) (bool, error) {
		return s.End(record.Completed, record.Announcement{ID: id}, time.Now()), nil
	})
	return err
}

// The conformance suite of platform/reconcile for the pending sagas.
func TestReconciler(t *testing.T) {
	t.Parallel()
	reconciletest.RunReconciler(t, func(t *testing.T, s state.Store, process string) reconciletest.Service {
		t.Helper()
		records := store.NewSagas(s, process, time.Now)
		return reconciletest.Service{
			Loop: newReconciler(t, records), Set: "sagas",
			Key: func(id string) string { return "saga:" + id }, Interval: time.Minute, SettlesIn: 5 * time.Minute,
			Begin: func(ctx context.Context, n int) (string, error) {
				id := fmt.Sprint("ORDER-", n)
				_, _, err := records.Begin(ctx, contracts.Order{OrderID: id})
				return id, err
			},
			End: func(ctx context.Context, id string) error { return end(ctx, records, id) },
		}
	})
}

// An approval leaves the list 30 days after its saga has ended, or when its record was removed. One that is not decided stays.
func TestOldApprovalsLeaveTheList(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		records := store.NewSagas(state.NewMemory(), "writer", time.Now)
		short := store.NewSagas(state.NewMemory(), "writer", time.Now).KeepFor(time.Hour)
		for _, s := range []*store.Sagas{records, short} {
			for _, id := range []string{"ORDER-1", "ORDER-2"} {
				if _, _, err := s.Begin(t.Context(), contracts.Order{OrderID: id}); err != nil {
					t.Fatal(err)
				}
				if err := s.ListApproval(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			}
			if err := end(t.Context(), s, "ORDER-1"); err != nil {
				t.Fatal(err)
			}
		}
		want := func(s *store.Sagas, r *operations.Reconciler, want ...string) {
			t.Helper()
			if err := r.Pass(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := pending(t, s.PendingApprovals()); !slices.Equal(got, want) {
				t.Errorf("listed are %v, want %v", got, want)
			}
		}
		kept, removed := newReconciler(t, records), newReconciler(t, short)
		time.Sleep(2 * time.Hour)
		want(records, kept, "ORDER-1", "ORDER-2")
		want(short, removed, "ORDER-2")
		time.Sleep(30 * 24 * time.Hour)
		want(records, kept, "ORDER-2")
		want(short, removed, "ORDER-2")
	})
}
