package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"waybill/contracts"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/record"
	"waybill/services/fulfillment/internal/store"
	"waybill/services/fulfillment/internal/partner"
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

func TestAHundredOrdersForTheLastTen(t *testing.T) {
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

// Orders for two products in different line order, with less stock than they want, neither deadlock nor leave a line of a
// refused order held.
func TestAllLinesOrNone(t *testing.T) {
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

// Every step runs again at any point and comes to the same.
func TestStepsRunAgain(t *testing.T) {
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
	twice(reserve) // a late repetition finds the lines shipped and holds nothing more
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

// A release that overtakes its reservation leaves nothing held, whichever of the two ends last.
func TestAReleaseFencesALateReservation(t *testing.T) {
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

// When the announcement of a change fails, the step fails, and its repetition announces what is true then.
func TestAnAnnouncementIsNotLost(t *testing.T) {
	t.Parallel()
	var fail bool
	var last inventory.Stock
	w := warehouse(t, func(_ context.Context, s inventory.Stock) error {
		if fail {
			return errors.New("the bus is away")
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

func TestPaymentsAreTakenAndGivenBackOnce(t *testing.T) {
	t.Parallel()
	p := simulator.NewPayments(state.NewMemory(), time.Now)
	o := order("ORDER-1")
	for range 2 {
		id, refused, err := p.Charge(t.Context(), o, "key")
		if err != nil || refused != nil || id != "TXN-ORDER-1" {
			t.Fatalf("charge: %q %v %v", id, refused, err)
		}
	}
	for range 2 {
		amount, id, err := p.Refund(t.Context(), o, "refund")
		if err != nil || amount != o.TotalAmount || id != "TXN-ORDER-1" {
			t.Fatalf("refund: %v %q %v", amount, id, err)
		}
	}
}

// A refund closes the account: a charge that comes late takes nothing.
func TestARefundFencesALateCharge(t *testing.T) {
	t.Parallel()
	p := simulator.NewPayments(state.NewMemory(), time.Now)
	if amount, id, err := p.Refund(t.Context(), order("ORDER-1"), "refund"); err != nil || amount != 0 || id != "" {
		t.Fatalf("refund of nothing: %v %q %v", amount, id, err)
	}
	if _, refused, err := p.Charge(t.Context(), order("ORDER-1"), "key"); err != nil || refused == nil {
		t.Errorf("a charge was taken after the refund: %v, %v", refused, err)
	}
}

func TestACancelledShipmentFencesALateBooking(t *testing.T) {
	t.Parallel()
	c := simulator.NewCarrier(state.NewMemory(), time.Now)
	if cancelled, err := c.Cancel(t.Context(), order("ORDER-1")); err != nil || cancelled {
		t.Fatalf("cancel nothing: %v %v", cancelled, err)
	}
	if _, refused, err := c.Book(t.Context(), order("ORDER-1"), "key"); err != nil || refused == nil {
		t.Errorf("a parcel was booked after the cancellation: %v, %v", refused, err)
	}
}

// The documented triggers of the simulated partners.
func TestTriggers(t *testing.T) {
	t.Parallel()
	p := simulator.NewPayments(state.NewMemory(), time.Now)
	for token, code := range map[string]string{"tok_declined": "card_declined", "tok_insufficient_funds": "insufficient_funds"} {
		o := order("ORDER-" + code)
		o.PaymentToken = token
		if _, refused, err := p.Charge(t.Context(), o, "key"); err != nil || refused == nil || refused.Code != code {
			t.Errorf("%s: %v %v, want %s", token, refused, err, code)
		}
	}
	fails := order("ORDER-FAILS")
	fails.PaymentToken = "tok_fail_2"
	for attempt := 1; attempt <= 3; attempt++ {
		if _, _, err := p.Charge(t.Context(), fails, "key"); (err == nil) != (attempt == 3) {
			t.Errorf("tok_fail_2, attempt %d: %v", attempt, err)
		}
	}
	down := order("ORDER-DOWN")
	down.PaymentToken = "tok_down"
	if _, _, err := p.Charge(t.Context(), down, "key"); err == nil {
		t.Error("tok_down charged")
	}
	c := simulator.NewCarrier(state.NewMemory(), time.Now)
	refused := order("ORDER-REFUSED")
	refused.ShipTo.Zip = "X-REFUSED"
	if _, reason, err := c.Book(t.Context(), refused, "key"); err != nil || reason == nil || reason.Code != "undeliverable" {
		t.Errorf("X-REFUSED: %v %v", reason, err)
	}
	lost := order("ORDER-LOST")
	lost.ShipTo.Zip = "X-LOST"
	if _, _, err := c.Book(t.Context(), lost, "key"); err == nil {
		t.Error("X-LOST answered")
	}
	if booked, err := c.Cancel(t.Context(), lost); err != nil || !booked {
		t.Errorf("X-LOST booked: %v %v", booked, err)
	}
	unwilling := order("ORDER-REFUND")
	unwilling.PaymentToken = "tok_refund_fail_1"
	if _, refused, err := p.Charge(t.Context(), unwilling, "key"); err != nil || refused != nil {
		t.Fatal(refused, err)
	}
	if _, _, err := p.Refund(t.Context(), unwilling, "refund"); err == nil {
		t.Error("tok_refund_fail_1 refunded at once")
	}
	if amount, _, err := p.Refund(t.Context(), unwilling, "refund"); err != nil || amount != unwilling.TotalAmount {
		t.Errorf("tok_refund_fail_1: refunded %v, %v", amount, err)
	}
}

func TestOneBeginningOfASagaIsTheFirst(t *testing.T) {
	t.Parallel()
	s := store.NewSagas(state.NewMemory(), "writer", time.Now)
	// The customer's cancellation may be there before the order.
	if _, err := s.Change(t.Context(), "ORDER-2", func(e *record.Saga) (bool, error) { return e.Cancel("Ordered twice.", time.Now()), nil }); err != nil {
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
			t.Errorf("%d beginnings of %s were the first, want 1", firsts.Load(), id)
		}
	}
}

// A change that begins with an entry that was read before writes nothing over what came in between.
func TestAChangeOfWhatWasRead(t *testing.T) {
	t.Parallel()
	s := store.NewSagas(state.NewMemory(), "writer", time.Now)
	if _, _, err := s.Begin(t.Context(), order("ORDER-1")); err != nil {
		t.Fatal(err)
	}
	book := func(e *record.Saga) (bool, error) { return e.Book(time.Now()), nil }
	_, before, err := s.Read(t.Context(), "ORDER-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Change(t.Context(), "ORDER-1", func(e *record.Saga) (bool, error) { return e.Cancel("Ordered twice.", time.Now()), nil }); err != nil {
		t.Fatal(err)
	}
	if e, err := before(book); err != nil || !e.Cancelled() || e.Booked() {
		t.Errorf("booked beside the cancellation: %+v, %v", e, err)
	}
	if _, _, err := s.Begin(t.Context(), order("ORDER-2")); err != nil {
		t.Fatal(err)
	}
	_, change, err := s.Read(t.Context(), "ORDER-2")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time finds that it is booked
		if e, err := change(book); err != nil || !e.Booked() {
			t.Errorf("%+v, %v", e, err)
		}
	}
	if e, err := s.Get(t.Context(), "ORDER-2"); err != nil || !e.Booked() {
		t.Errorf("%+v, %v", e, err)
	}
}

// Those that have not ended are found by a process that knows nothing of them, and those that are forgotten are not.
func TestOpenSagasAreFoundAgain(t *testing.T) {
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
	open := func(forget ...string) map[string]bool {
		found := map[string]bool{}
		err := later.Open(t.Context(), func(_ context.Context, entries []record.Saga) ([]string, error) {
			for _, e := range entries {
				found[e.Order.OrderID] = true
			}
			return forget, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if found := open("ORDER-7"); len(found) != sagas {
		t.Errorf("%d sagas were found, want %d", len(found), sagas)
	}
	if found := open(); len(found) != sagas-1 || found["ORDER-7"] {
		t.Errorf("%d sagas were found after one was forgotten, want %d", len(found), sagas-1)
	}
	if _, err := s.Get(t.Context(), "ORDER-99"); err == nil {
		t.Error("an unknown saga was read")
	}
}

// Two replicas over one state: a hundred adjustments, each sent twice, while orders reserve, ship and release. The sums are exact.
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

// Of a hundred withdrawals of one piece each, as many succeed as pieces are free: none that an order holds is taken.
func TestAdjustmentsTakeNothingThatOrdersHold(t *testing.T) {
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

// A process that ends between the change and its answer has applied the adjustment. Another process, to which the request comes
// again, announces it, gives the same answer and changes nothing.
func TestAnAdjustmentWithoutAnAnswerIsSentAgain(t *testing.T) {
	t.Parallel()
	memory := state.NewMemory()
	gone := store.NewInventory(memory, func(context.Context, inventory.Stock) error { return errors.New("killed") }, time.Now)
	var announced []inventory.Change
	later := store.NewInventory(memory, func(_ context.Context, s inventory.Stock) error {
		announced = append(announced, s.Last)
		return nil
	}, time.Now)
	if _, err := later.Set(t.Context(), "PROD-001", 10); err != nil {
		t.Fatal(err)
	}
	if _, err := gone.Adjust(t.Context(), "PROD-001", "key", -3, "lost"); err == nil {
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

// A document of the last release has neither version nor adjustments.
func TestStockOfTheLastReleaseIsAdjusted(t *testing.T) {
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

func TestTheCarrierTakesAsLongAsTheAddressSays(t *testing.T) {
	t.Parallel()
	for zip, want := range map[string]time.Duration{"12345": 0, "X-SLOW": 2 * time.Second, "X-SLOW-10": 10 * time.Second, "X-SLOW-": 0} {
		t.Run(zip, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := order("ORDER-" + zip)
				o.ShipTo.Zip = zip
				begun := time.Now()
				_, refused, err := simulator.NewCarrier(state.NewMemory(), time.Now).Book(t.Context(), o, "key")
				if took := time.Since(begun); err != nil || refused != nil || took != want {
					t.Errorf("took %s, %v, %v; want a booking after %s", took, refused, err, want)
				}
			})
		})
	}
}
