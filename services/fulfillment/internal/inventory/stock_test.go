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

func TestStockHoldsShipsAndGivesBack(t *testing.T) {
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
		refused.Message != "7 of PROD-001 are wanted, 6 are available." {
		t.Fatalf("hold too much: %+v", refused)
	}
	if refused := s.Set(3, noon); refused == nil || refused.Code != inventory.CodeStockReserved {
		t.Fatalf("set below what is held: %+v", refused)
	}
	if !did(t)(s.Ship("ORDER-1", nil, noon)) || did(t)(s.Ship("ORDER-1", nil, noon)) {
		t.Fatal("a hold ships once")
	}
	if !did(t)(s.Unship("ORDER-1", nil, noon)) || did(t)(s.Unship("ORDER-1", nil, noon)) {
		t.Fatal("a shipment comes back once")
	}
	if !did(t)(s.GiveBack("ORDER-1", nil, noon)) || did(t)(s.GiveBack("ORDER-1", nil, noon)) {
		t.Fatal("a hold is given back once")
	}
	if _, err := s.Ship("ORDER-1", nil, noon); err == nil {
		t.Error("what is not held was shipped")
	}
	want := inventory.Stock{ProductID: "PROD-001", OnHand: 10, Held: map[string]int{}, Moved: map[string]int{}, Version: 5,
		Last: inventory.Change{Revision: 3, Previous: 6, Current: 10, At: noon}}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("stock (-want +got):\n%s", diff)
	}
}

// did makes what says whether a change of the stock was made. It must not fail.
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

// Once the reservation says where its order stands, the stock keeps nothing of the order but its share of the sums.
func TestAMarkIsDroppedWhenTheReservationSaysTheSame(t *testing.T) {
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
	if !did(t)(s.GiveBack("ORDER-1", r, noon)) {
		t.Error("not given back")
	}
	s.Settle("ORDER-1", r, noon)
	want("given back, and not recorded", 1, 10, 0, 0)
	if did(t)(s.GiveBack("ORDER-1", r, noon)) {
		t.Error("given back twice")
	}
	r.State = inventory.Released
	s.Settle("ORDER-1", r, noon)
	want("recorded", 0, 10, 0, 0)
	if _, err := s.GiveBack("ORDER-2", &inventory.Reservation{State: inventory.Reserved, Lines: r.Lines, Derives: true}, noon); err == nil {
		t.Error("more was given back than orders hold")
	}
}

// A change of what can be sold is counted; setting the same again, or shipping what was held, is none. The first setting
// is one even when it is zero, so that a new product is announced.
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
		{func() { _, _ = s.GiveBack("ORDER-1", nil, noon) }, 4},
	} {
		if c.do(); s.Last.Revision != c.revision {
			t.Errorf("after change %d the revision is %d, want %d", i, s.Last.Revision, c.revision)
		}
	}
}

func TestALineOfSeveralIsAddedUp(t *testing.T) {
	t.Parallel()
	got := inventory.Wanted([]contracts.Line{{ProductID: "B", Quantity: 1}, {ProductID: "A", Quantity: 2}, {ProductID: "B", Quantity: 3}})
	if diff := cmp.Diff(inventory.Quantities{"A": 2, "B": 4}, got); diff != "" {
		t.Errorf("wanted (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"A", "B"}, got.Products()); diff != "" {
		t.Errorf("products (-want +got):\n%s", diff)
	}
}

// Whatever orders do, in whatever order and however often: nothing is sold that is not there, and no piece is lost.
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
			"give back": func(t *rapid.T) {
				order := anOrder(t)
				_, _ = s.GiveBack(order, nil, noon)
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
		"another number":      {"key-1", -2, "damaged", inventory.CodeKeyReused},
		"another reason":      {"key-1", -3, "lost", inventory.CodeKeyReused},
		"more than there are": {"key-2", -4, "damaged", inventory.CodeStockReserved},
		"more than fit":       {"key-2", inventory.MaxOnHand, "found", inventory.CodeStockLimit},
		"more than an int":    {"key-2", math.MaxInt, "found", inventory.CodeStockLimit},
		"less than an int":    {"key-2", math.MinInt, "lost", inventory.CodeStockReserved},
	} {
		if _, done, refused := s.Adjust(c.key, c.delta, c.reason, noon); done || refused == nil || refused.Code != c.code {
			t.Errorf("%s: %v, %+v; want %s", name, done, refused, c.code)
		}
	}
	if s.OnHand != 3 || len(s.Adjustments) != 1 {
		t.Errorf("refused adjustments changed the stock: %+v", s)
	}
}

// Keys are remembered for their lifetime, and never more than fit the product's document.
func TestKeysOfAdjustmentsAreForgotten(t *testing.T) {
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
		t.Errorf("at the end of its lifetime key-0 is not known: %v, %v", done, refused)
	}
	if _, done, refused := s.Adjust("one more", 1, "found", end.Add(time.Second)); !done || refused != nil || len(s.Adjustments) != inventory.MaxAdjustments {
		t.Errorf("%v, %v, %d remembered", done, refused, len(s.Adjustments))
	}
}
