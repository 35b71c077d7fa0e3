package saga_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/record"
)

// erase empties a document, as if its store had been deleted while the engine kept its own.
func (w *world) erase(key string) {
	w.t.Helper()
	if _, err := state.Update(w.t.Context(), w.store, key, func(doc *map[string]any, exists bool) error {
		if !exists {
			w.t.Fatalf("there is no %s", key)
		}
		*doc = map[string]any{}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
}

// A saga record can be lost while its saga runs. When orders sends the order again, the saga requests its approval again, which is then
// listed and can be decided.
func TestALostApprovalIsRequestedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	order := aLargeOrder("ORDER-1")
	w.start(order)
	w.until(order, "an approval", (*record.Saga).AwaitsApproval)
	w.erase("saga:" + order.OrderID)
	if err := w.decide(order, true, "approver@example.com"); err == nil {
		t.Error("an approval was decided that the record does not hold")
	}
	w.start(order) // orders sends the order again
	w.until(order, "the approval", (*record.Saga).AwaitsApproval)
	listed, _, err := w.sagas.Approvals(t.Context(), (*record.Saga).AwaitsApproval, 10)
	if err != nil || len(listed) != 1 {
		t.Errorf("listed: %v, %v", listed, err)
	}
	if err := w.decide(order, true, "approver@example.com"); err != nil {
		t.Fatal(err)
	}
	if result := w.end(order); result.Outcome != record.Completed {
		t.Errorf("result %+v", result)
	}
	w.wantHoldings(order, holdings{charges: 1, parcels: 1, reservation: inventory.Shipped})
}

// An approval that expires after its record was lost ends the saga.
func TestALostApprovalExpires(t *testing.T) {
	t.Parallel()
	limits := quick
	limits.Approval = 200 * time.Millisecond
	w := newWorld(t, limits)
	order := aLargeOrder("ORDER-1")
	w.start(order)
	w.until(order, "an approval", (*record.Saga).AwaitsApproval)
	w.erase("saga:" + order.OrderID)
	if result := w.end(order); result.Code != record.CodeTimedOut {
		t.Errorf("result %+v, want %s", result, record.CodeTimedOut)
	}
	if e := w.until(order, "an end", (*record.Saga).Ended); e.Outcome != record.Failed || e.Order.CustomerID != order.CustomerID {
		t.Errorf("the record is %+v", e)
	}
}

// A saga that waits for a repair records that again after its record was lost, and can be repaired.
func TestALostNeedForAttentionIsRecordedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	order := anOrder("ORDER-1")
	order.ShipTo.Zip = "X-REFUSED"
	w.faults.set("Refund", 1000, false)
	w.start(order)
	first := w.until(order, "that the saga is blocked", (*record.Saga).AwaitsRepair)
	w.erase("saga:" + order.OrderID)
	w.faults.set("Refund", 0, false)
	w.start(order)
	again := w.until(order, "that the saga is blocked again", (*record.Saga).AwaitsRepair)
	if diff := cmp.Diff(first.Blocked.NotUndone, again.Blocked.NotUndone); diff != "" {
		t.Error(diff)
	}
	if _, err := w.sagas.Repair(t.Context(), order.OrderID, "operator@example.com", "The provider answers again."); err != nil {
		t.Fatal(err)
	}
	if result := w.end(order); result.Outcome != record.Failed {
		t.Errorf("result %+v", result)
	}
}

// A record that cannot be decoded hides no other from the reconciler and the lists.
func TestAnUnreadableRecordHidesNoOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	orders := []contracts.Order{aLargeOrder("ORDER-1"), aLargeOrder("ORDER-2"), aLargeOrder("ORDER-3")}
	for _, order := range orders {
		w.start(order)
		w.until(order, "an approval", (*record.Saga).AwaitsApproval)
	}
	if _, err := state.Update(t.Context(), w.store, "saga:ORDER-2", func(doc *any, _ bool) error { *doc = "corrupt"; return nil }); err != nil {
		t.Fatal(err)
	}
	for _, order := range orders {
		if err := w.lose(order); err != nil {
			t.Fatal(err)
		}
	}
	if err := newReconciler(w.sagas, 0, time.Minute).Pass(t.Context()); !errors.Is(err, record.ErrUnreadable) {
		t.Errorf("the pass returns %v", err)
	}
	for _, order := range []contracts.Order{orders[0], orders[2]} {
		w.until(order, "a restart", func(s *record.Saga) bool { return s.Restarts == 1 })
	}
	open, _, err := w.sagas.List(t.Context(), "", 10)
	if err != nil || len(open) != 2 {
		t.Errorf("open: %v, %v", open, err)
	}
	waiting, _, err := w.sagas.Approvals(t.Context(), (*record.Saga).AwaitsApproval, 10)
	if err != nil || len(waiting) != 2 {
		t.Errorf("waiting: %v, %v", waiting, err)
	}
}
