package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"waybill/contracts"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/partner"
	"waybill/services/fulfillment/internal/store"
)

func order(id string, lines ...contracts.Line) contracts.Order {
	return contracts.Order{OrderID: id, CustomerID: "CUST-123", Items: lines, TotalAmount: 99_9800, Currency: "USD"}
}

func pieces(product string, quantity int) contracts.Line {
	return contracts.Line{ProductID: product, Quantity: quantity}
}

func warehouse(t *testing.T, announce func(context.Context, inventory.Stock) error) *store.Inventory {
	t.Helper()
	if announce == nil {
		announce = func(context.Context, inventory.Stock) error { return nil }
	}
	w := store.NewInventory(state.NewMemory(), announce, time.Now)
	for _, product := range []string{"PROD-001", "PROD-002"} {
		if _, err := w.Set(t.Context(), product, 10); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func wantStock(t *testing.T, w *store.Inventory, product string, onHand, reserved, shipped int) {
	t.Helper()
	s, err := w.Get(t.Context(), product)
	if err != nil {
		t.Fatal(err)
	}
	if s.OnHand != onHand || s.Reserved() != reserved || s.Shipped != shipped {
		t.Errorf("%s: on hand %d, reserved %d, shipped %d; want %d, %d, %d", product, s.OnHand, s.Reserved(), s.Shipped, onHand, reserved, shipped)
	}
}

func TestAHundredOrdersForTheLastTenPieces(t *testing.T) {
	t.Parallel()
	w := warehouse(t, nil)
	var won atomic.Int32
	var racing sync.WaitGroup
	for i := range 100 {
		racing.Go(func() {
			refused, err := w.Reserve(t.Context(), order(fmt.Sprintf("ORDER-%d", i), pieces("PROD-001", 1)))
			switch {
			case err != nil:
				t.Errorf("reserve: %v", err)
			case refused == nil:
				won.Add(1)
			case refused.Code != inventory.CodeOutOfStock:
				t.Errorf("refused with %+v", refused)
			}
		})
	}
	racing.Wait()
	if won.Load() != 10 {
		t.Errorf("%d orders won, want 10", won.Load())
	}
	wantStock(t, w, "PROD-001", 10, 10, 0)
}

// Orders name two products in different sequences and need more than there is. They do not deadlock, and a refused order holds no line.
func TestAllLinesAreReservedOrNone(t *testing.T) {
	t.Parallel()
	w := warehouse(t, nil)
	var held atomic.Int32
	var racing sync.WaitGroup
	for i := range 20 {
		racing.Go(func() {
			lines := []contracts.Line{pieces("PROD-001", 1), pieces("PROD-002", 2)}
			if i%2 == 1 {
				lines[0], lines[1] = lines[1], lines[0]
			}
			refused, err := w.Reserve(t.Context(), order(fmt.Sprintf("ORDER-%d", i), lines...))
			if err != nil {
				t.Errorf("reserve: %v", err)
			} else if refused == nil {
				held.Add(1)
			}
		})
	}
	racing.Wait()
	n := int(held.Load())
	if n == 0 || n > 5 {
		t.Errorf("%d orders hold their lines, want one to five", n)
	}
	wantStock(t, w, "PROD-001", 10, n, 0)
	wantStock(t, w, "PROD-002", 10, 2*n, 0)
}

// A step that runs again has the same result.
func TestStepsAreIdempotent(t *testing.T) {
	t.Parallel()
	w := warehouse(t, nil)
	o := order("ORDER-1", pieces("PROD-001", 2), pieces("PROD-002", 1))
	twice := func(step func() error) {
		t.Helper()
		for range 2 {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
	}
	reserve := func() error {
		refused, err := w.Reserve(t.Context(), o)
		if refused != nil {
			return refused
		}
		return err
	}
	twice(reserve)
	wantStock(t, w, "PROD-001", 10, 2, 0)
	twice(func() error { return w.Ship(t.Context(), o) })
	wantStock(t, w, "PROD-001", 8, 0, 2)
	twice(reserve) // a late repetition finds the lines shipped and reserves nothing more
	wantStock(t, w, "PROD-001", 8, 0, 2)
	twice(func() error { return w.Unship(t.Context(), o) })
	wantStock(t, w, "PROD-001", 10, 2, 0)
	twice(func() error { _, err := w.Release(t.Context(), o); return err })
	wantStock(t, w, "PROD-001", 10, 0, 0)
	wantStock(t, w, "PROD-002", 10, 0, 0)
	if err := w.Ship(t.Context(), o); err == nil {
		t.Error("a released order was shipped")
	}
	if refused, err := w.Reserve(t.Context(), o); err != nil || refused == nil {
		t.Errorf("a released order was reserved again: %v, %v", refused, err)
	}
}

// A release that overtakes its reservation leaves no line held, whichever of the two ends last.
func TestAReleaseStopsALateReservation(t *testing.T) {
	t.Parallel()
	for range 50 {
		w := warehouse(t, nil)
		o := order("ORDER-1", pieces("PROD-001", 2))
		var racing sync.WaitGroup
		racing.Go(func() { _, _ = w.Reserve(t.Context(), o) })
		racing.Go(func() {
			if _, err := w.Release(t.Context(), o); err != nil {
				t.Errorf("release: %v", err)
			}
		})
		racing.Wait()
		wantStock(t, w, "PROD-001", 10, 0, 0)
	}
}

// If the announcement of a change fails, the step fails, and its repetition announces the stock as it is then.
func TestAnAnnouncementIsNotLost(t *testing.T) {
	t.Parallel()
	var fail bool
	var last inventory.Stock
	w := warehouse(t, func(_ context.Context, s inventory.Stock) error {
		if fail {
			return errors.New("the bus is unavailable")
		}
		last = s
		return nil
	})
	fail = true
	o := order("ORDER-1", pieces("PROD-001", 3))
	if _, err := w.Reserve(t.Context(), o); err == nil {
		t.Fatal("the reservation ended without its announcement")
	}
	fail = false
	if refused, err := w.Reserve(t.Context(), o); err != nil || refused != nil {
		t.Fatalf("the repetition: %v %v", refused, err)
	}
	if last.ProductID != "PROD-001" || last.Last.Current != 7 || last.Last.Previous != 10 {
		t.Errorf("announced %+v, want the change from 10 to 7", last.Last)
	}
	wantStock(t, w, "PROD-001", 10, 3, 0)
}

// Two replicas share one store. They get a hundred adjustments, each sent twice, while orders reserve, ship and release.
func TestAdjustmentsBesideReservations(t *testing.T) {
	t.Parallel()
	memory := state.NewMemory()
	announce := func(context.Context, inventory.Stock) error { return nil }
	replicas := []*store.Inventory{store.NewInventory(memory, announce, time.Now), store.NewInventory(memory, announce, time.Now)}
	if _, err := replicas[0].Set(t.Context(), "PROD-001", 100); err != nil {
		t.Fatal(err)
	}
	want := 100
	var shipped atomic.Int32
	var racing sync.WaitGroup
	for i := range 100 {
		delta := 1 + i%3
		want += delta
		for again := range 2 {
			racing.Go(func() {
				a, err := replicas[(i+again)%2].Adjust(t.Context(), "PROD-001", fmt.Sprintf("key-%d", i), delta, "delivered")
				if err != nil || a.Delta != delta {
					t.Errorf("adjust: %+v, %v", a, err)
				}
			})
		}
	}
	for i := range 50 {
		racing.Go(func() {
			w, o := replicas[i%2], order(fmt.Sprintf("ORDER-%d", i), pieces("PROD-001", 2))
			if refused, err := w.Reserve(t.Context(), o); err != nil || refused != nil {
				t.Errorf("reserve: %v, %v", refused, err)
			}
			if i%2 == 0 {
				if _, err := w.Release(t.Context(), o); err != nil {
					t.Errorf("release: %v", err)
				}
				return
			}
			if err := w.Ship(t.Context(), o); err != nil {
				t.Errorf("ship: %v", err)
			}
			shipped.Add(2)
		})
	}
	racing.Wait()
	wantStock(t, replicas[0], "PROD-001", want-int(shipped.Load()), 0, int(shipped.Load()))
}

// Of a hundred adjustments that remove one piece each, as many succeed as pieces are available.
func TestAdjustmentsDoNotRemoveReservedPieces(t *testing.T) {
	t.Parallel()
	w := warehouse(t, nil)
	if refused, err := w.Reserve(t.Context(), order("ORDER-1", pieces("PROD-001", 6))); refused != nil || err != nil {
		t.Fatal(refused, err)
	}
	var done atomic.Int32
	var racing sync.WaitGroup
	for i := range 100 {
		racing.Go(func() {
			_, err := w.Adjust(t.Context(), "PROD-001", fmt.Sprintf("key-%d", i), -1, "lost")
			if refused, ok := errors.AsType[*partner.Reason](err); ok && refused.Code == inventory.CodeStockReserved {
				return
			}
			if err != nil {
				t.Errorf("adjust: %v", err)
			}
			done.Add(1)
		})
	}
	racing.Wait()
	if done.Load() != 4 {
		t.Errorf("%d adjustments succeeded, want 4", done.Load())
	}
	wantStock(t, w, "PROD-001", 6, 6, 0)
}

// A process ends between the change and its answer. Another process gets the request again: it announces the change, gives the same
// answer, and changes nothing.
func TestARepeatedAdjustmentGetsTheFirstAnswer(t *testing.T) {
	t.Parallel()
	memory := state.NewMemory()
	killed := store.NewInventory(memory, func(context.Context, inventory.Stock) error { return errors.New("killed") }, time.Now)
	var announced []inventory.Change
	later := store.NewInventory(memory, func(_ context.Context, s inventory.Stock) error {
		announced = append(announced, s.Last)
		return nil
	}, time.Now)
	if _, err := later.Set(t.Context(), "PROD-001", 10); err != nil {
		t.Fatal(err)
	}
	if _, err := killed.Adjust(t.Context(), "PROD-001", "key", -3, "lost"); err == nil {
		t.Fatal("the adjustment was answered")
	}
	for range 2 {
		if a, err := later.Adjust(t.Context(), "PROD-001", "key", -3, "lost"); err != nil || a.OnHand != 7 {
			t.Errorf("again: %+v, %v", a, err)
		}
	}
	wantStock(t, later, "PROD-001", 7, 0, 0)
	if len(announced) < 2 || announced[1].Previous != 10 || announced[1].Current != 7 || announced[1].Revision != 2 {
		t.Errorf("announced %+v", announced)
	}
	if _, err := later.Adjust(t.Context(), "PROD-404", "key", 1, "found"); err == nil {
		t.Error("a product that does not exist was adjusted")
	}
}

// A document of a former release has no version and no adjustments.
func TestStockOfAFormerReleaseIsAdjusted(t *testing.T) {
	t.Parallel()
	memory := state.NewMemory()
	former := json.RawMessage(`{"product_id":"PROD-001","on_hand":10,"shipped":2,"held":{"ORDER-1":4},"last":{"revision":3,"previous":7,"current":6,"at":"2026-01-02T12:00:00Z"}}`)
	if err := memory.Create(t.Context(), "stock:PROD-001", former); err != nil {
		t.Fatal(err)
	}
	w := store.NewInventory(memory, func(context.Context, inventory.Stock) error { return nil }, time.Now)
	before, err := w.Get(t.Context(), "PROD-001")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Adjust(t.Context(), "PROD-001", "key", 5, "found"); err != nil {
		t.Fatal(err)
	}
	after, err := w.Get(t.Context(), "PROD-001")
	if err != nil || after.OnHand != 15 || after.Reserved() != 4 || after.Shipped != 2 || after.Last.Revision != 4 || before.ETag() == after.ETag() {
		t.Errorf("%+v, %v", after, err)
	}
}
