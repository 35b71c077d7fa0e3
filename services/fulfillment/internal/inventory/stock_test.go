package inventory_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/inventory"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func TestStockIsHeldShippedAndReleased(t *testing.T) {
	t.Parallel()
	s := inventory.Stock{ProductID: "PROD-001"}
	if refused := s.Set(10, noon); refused != nil {
		t.Fatal(refused)
	}
	if changed, refused, err := s.Hold("ORDER-1", nil, 4, noon); !changed || refused != nil || err != nil {
		t.Fatalf("hold: %v %v %v", changed, refused, err)
	}
	if changed, refused, err := s.Hold("ORDER-1", nil, 4, noon); changed || refused != nil || err != nil {
		t.Fatalf("hold again: %v %v %v, want no change", changed, refused, err)
	}
	if _, refused, err := s.Hold("ORDER-2", nil, 7, noon); err != nil || refused == nil || refused.Code != inventory.CodeOutOfStock ||
		refused.Message != "7 pieces of PROD-001 are needed, 6 are available." {
		t.Fatalf("hold too much: %+v", refused)
	}
	if refused := s.Set(3, noon); refused == nil || refused.Code != inventory.CodeStockReserved {
		t.Fatalf("set below what orders hold: %+v", refused)
	}
	if !did(t)(s.Ship("ORDER-1", nil, noon)) || did(t)(s.Ship("ORDER-1", nil, noon)) {
		t.Fatal("a hold ships once")
	}
	if !did(t)(s.Unship("ORDER-1", nil, noon)) || did(t)(s.Unship("ORDER-1", nil, noon)) {
		t.Fatal("a shipment is unshipped once")
	}
	if !did(t)(s.Release("ORDER-1", nil, noon)) || did(t)(s.Release("ORDER-1", nil, noon)) {
		t.Fatal("a hold is released once")
	}
	if _, err := s.Ship("ORDER-1", nil, noon); err == nil {
		t.Error("pieces that are not held were shipped")
	}
	want := inventory.Stock{ProductID: "PROD-001", OnHand: 10, Held: map[string]int{}, Moved: map[string]int{}, Version: 5,
		Last: inventory.Change{Revision: 3, Previous: 6, Current: 10, At: noon}}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("stock (-want +got):\n%s", diff)
	}
}

// did returns a function that returns changed and fails the test if there is an error.
func did(t *testing.T) func(changed bool, err error) bool {
	t.Helper()
	return func(changed bool, err error) bool {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
		return changed
	}
}

// Once the reservation says the order's position, the stock has only the order's share of the sums.
func TestAMarkIsRemovedWhenTheReservationSaysTheSame(t *testing.T) {
	t.Parallel()
	s := inventory.Stock{ProductID: "PROD-001", OnHand: 10}
	r := &inventory.Reservation{OrderID: "ORDER-1", State: inventory.Reserved, Lines: inventory.Quantities{"PROD-001": 4}, Derives: true}
	if _, _, err := s.Hold("ORDER-1", nil, 4, noon); err != nil {
		t.Fatal(err)
	}
	want := func(step string, marks, onHand, reserved, shipped int) {
		t.Helper()
		if len(s.Marks()) != marks || s.OnHand != onHand || s.Reserved() != reserved || s.Shipped != shipped {
			t.Errorf("%s: %+v", step, s)
		}
	}
	s.Settle("ORDER-1", nil, noon)
	want("the reservation is not recorded", 1, 10, 4, 0)
	s.Settle("ORDER-1", r, noon)
	want("it is", 0, 10, 4, 0)
	if !did(t)(s.Ship("ORDER-1", r, noon)) {
		t.Error("not shipped")
	}
	s.Settle("ORDER-1", r, noon)
	want("shipped, and not recorded", 1, 6, 0, 4)
	r.State = inventory.Shipped
	s.Settle("ORDER-1", r, noon)
	want("recorded", 0, 6, 0, 4)
	r.Become(inventory.Releasing)
	if !did(t)(s.Release("ORDER-1", r, noon)) {
		t.Error("not released")
	}
	s.Settle("ORDER-1", r, noon)
	want("released, and not recorded", 1, 10, 0, 0)
	if did(t)(s.Release("ORDER-1", r, noon)) {
		t.Error("released twice")
	}
	r.State = inventory.Released
	s.Settle("ORDER-1", r, noon)
	want("recorded", 0, 10, 0, 0)
	if _, err := s.Release("ORDER-2", &inventory.Reservation{State: inventory.Reserved, Lines: r.Lines, Derives: true}, noon); err == nil {
		t.Error("more was released than orders hold")
	}
}

// A change of the available pieces is counted. To set the same number again, or to ship a hold, is no change. The first Set is a change
// even if it is zero, so that a new product is announced.
func TestChangesAreCounted(t *testing.T) {
	t.Parallel()
	s := inventory.Stock{ProductID: "PROD-001"}
	for i, c := range []struct {
		do       func()
		revision int
	}{
		{func() { s.Set(0, noon) }, 1},
		{func() { s.Set(0, noon) }, 1},
		{func() { s.Set(5, noon) }, 2},
		{func() { _, _, _ = s.Hold("ORDER-1", nil, 5, noon) }, 3},
		{func() { _, _ = s.Ship("ORDER-1", nil, noon) }, 3},
		{func() { _, _ = s.Unship("ORDER-1", nil, noon) }, 3},
		{func() { _, _ = s.Release("ORDER-1", nil, noon) }, 4},
	} {
		if c.do(); s.Last.Revision != c.revision {
			t.Errorf("after change %d the revision is %d, want %d", i, s.Last.Revision, c.revision)
		}
	}
}

func TestLinesOfOneProductAreAddedUp(t *testing.T) {
	t.Parallel()
	got := inventory.Wanted([]contracts.Line{{ProductID: "B", Quantity: 1}, {ProductID: "A", Quantity: 2}, {ProductID: "B", Quantity: 3}})
	if diff := cmp.Diff(inventory.Quantities{"A": 2, "B": 4}, got); diff != "" {
		t.Errorf("wanted (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"A", "B"}, got.Products()); diff != "" {
		t.Errorf("products (-want +got):\n%s", diff)
	}
}

// For every sequence of operations, no piece is sold twice and no piece is lost.
func TestStockIsConserved(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		initial := rapid.IntRange(0, 20).Draw(t, "initial")
		s := inventory.Stock{ProductID: "PROD-001"}
		s.Set(initial, noon)
		shipped := map[string]int{}
		t.Repeat(map[string]func(*rapid.T){
			"hold": func(t *rapid.T) {
				order := anOrder(t)
				if _, out := shipped[order]; !out {
					_, _, _ = s.Hold(order, nil, rapid.IntRange(1, 10).Draw(t, "quantity"), noon)
				}
			},
			"release": func(t *rapid.T) {
				order := anOrder(t)
				_, _ = s.Release(order, nil, noon)
				delete(shipped, order)
			},
			"ship": func(t *rapid.T) {
				order := anOrder(t)
				quantity := s.Held[order]
				if changed, err := s.Ship(order, nil, noon); changed && err == nil {
					shipped[order] = quantity
				}
			},
			"unship": func(t *rapid.T) {
				order := anOrder(t)
				if _, out := shipped[order]; out {
					_, _ = s.Unship(order, nil, noon)
					delete(shipped, order)
				}
			},
			"adjust": func(t *rapid.T) {
				delta := rapid.IntRange(-10, 10).Draw(t, "delta")
				before, reserved := s.OnHand, s.Reserved()
				_, done, refused := s.Adjust(rapid.StringN(1, 3, -1).Draw(t, "key"), delta, "counted", noon)
				if done {
					initial += delta
				}
				if !done && s.OnHand != before || done && before+delta < reserved || done && refused != nil {
					t.Fatalf("by %d: on hand %d after %d with %d reserved, done %v, refused %v", delta, s.OnHand, before, reserved, done, refused)
				}
			},
			"": func(t *rapid.T) {
				if s.OnHand+s.Shipped != initial {
					t.Fatalf("on hand %d and shipped %d, want %d together", s.OnHand, s.Shipped, initial)
				}
				if s.Available() < 0 || s.Reserved() < 0 || s.Shipped < 0 {
					t.Fatalf("available %d, reserved %d, shipped %d", s.Available(), s.Reserved(), s.Shipped)
				}
			},
		})
	})
}

func anOrder(t *rapid.T) string {
	return fmt.Sprintf("ORDER-%d", rapid.IntRange(1, 5).Draw(t, "order"))
}

func TestAnAdjustmentIsAppliedOnce(t *testing.T) {
	t.Parallel()
	s := inventory.Stock{ProductID: "PROD-001"}
	s.Set(10, noon)
	if changed, _, err := s.Hold("ORDER-1", nil, 4, noon); !changed || err != nil {
		t.Fatal("not held", err)
	}
	first, done, refused := s.Adjust("key-1", -3, "damaged", noon)
	if !done || refused != nil || s.OnHand != 7 || first.OnHand != 7 || first.Reserved != 4 {
		t.Fatalf("%+v, %v, %v", first, done, refused)
	}
	_, _ = s.Ship("ORDER-1", nil, noon)
	if again, done, refused := s.Adjust("key-1", -3, "damaged", noon.Add(time.Hour)); done || refused != nil || again != first || s.OnHand != 3 {
		t.Errorf("again: %+v, %v, %v; on hand %d", again, done, refused, s.OnHand)
	}
	for name, c := range map[string]struct {
		key    string
		delta  int
		reason string
		code   string
	}{
		"another number":   {"key-1", -2, "damaged", inventory.CodeKeyReused},
		"another reason":   {"key-1", -3, "lost", inventory.CodeKeyReused},
		"too few pieces":   {"key-2", -4, "damaged", inventory.CodeStockReserved},
		"above the limit":  {"key-2", inventory.MaxOnHand, "found", inventory.CodeStockLimit},
		"more than an int": {"key-2", math.MaxInt, "found", inventory.CodeStockLimit},
		"less than an int": {"key-2", math.MinInt, "lost", inventory.CodeStockReserved},
	} {
		if _, done, refused := s.Adjust(c.key, c.delta, c.reason, noon); done || refused == nil || refused.Code != c.code {
			t.Errorf("%s: %v, %+v; want %s", name, done, refused, c.code)
		}
	}
	if s.OnHand != 3 || len(s.Adjustments) != 1 {
		t.Errorf("refused adjustments changed the stock: %+v", s)
	}
}

// Keys are remembered for their lifetime, but only as many as fit into the product's document.
func TestAdjustmentKeysExpire(t *testing.T) {
	t.Parallel()
	s := inventory.Stock{ProductID: "PROD-001"}
	s.Set(0, noon)
	for i := range inventory.MaxAdjustments {
		if _, done, refused := s.Adjust(fmt.Sprintf("key-%d", i), 1, strings.Repeat("€", 200), noon.Add(time.Duration(i)*time.Second)); !done {
			t.Fatal(refused)
		}
	}
	if document, err := json.Marshal(s); err != nil || len(document) > 1_000_000 {
		t.Errorf("the document has %d bytes, %v", len(document), err)
	}
	end := noon.Add(inventory.KeyLifetime)
	if _, done, refused := s.Adjust("one more", 1, "found", end); done || refused == nil || refused.Code != inventory.CodeTooManyAdjustments ||
		!strings.Contains(refused.Message, "possible at 2026-01-03T12:00:00Z") {
		t.Errorf("%v, %+v", done, refused)
	}
	if _, done, refused := s.Adjust("key-0", 1, strings.Repeat("€", 200), end); done || refused != nil {
		t.Errorf("key-0 is forgotten before the end of its lifetime: %v, %v", done, refused)
	}
	if _, done, refused := s.Adjust("one more", 1, "found", end.Add(time.Second)); !done || refused != nil || len(s.Adjustments) != inventory.MaxAdjustments {
		t.Errorf("%v, %v, %d remembered", done, refused, len(s.Adjustments))
	}
}
