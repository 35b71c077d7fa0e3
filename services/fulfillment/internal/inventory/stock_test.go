package inventory_test

import (
	"fmt"
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
	if changed, refused := s.Hold("ORDER-1", 4, noon); !changed || refused != nil {
		t.Fatalf("hold: %v %v", changed, refused)
	}
	if changed, refused := s.Hold("ORDER-1", 4, noon); changed || refused != nil {
		t.Fatalf("hold again: %v %v, want no change", changed, refused)
	}
	if _, refused := s.Hold("ORDER-2", 7, noon); refused == nil || refused.Code != inventory.CodeOutOfStock ||
		refused.Message != "7 of PROD-001 are wanted, 6 are available." {
		t.Fatalf("hold too much: %+v", refused)
	}
	if refused := s.Set(3, noon); refused == nil || refused.Code != inventory.CodeStockReserved {
		t.Fatalf("set below what is held: %+v", refused)
	}
	if !s.Ship("ORDER-1") || s.Ship("ORDER-1") {
		t.Fatal("a hold ships once")
	}
	if !s.Unship("ORDER-1", 4) || s.Unship("ORDER-1", 4) {
		t.Fatal("a shipment comes back once")
	}
	if !s.GiveBack("ORDER-1", noon) || s.GiveBack("ORDER-1", noon) {
		t.Fatal("a hold is given back once")
	}
	want := inventory.Stock{ProductID: "PROD-001", OnHand: 10, Held: map[string]int{},
		Last: inventory.Change{Revision: 3, Previous: 6, Current: 10, At: noon}}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("stock (-want +got):\n%s", diff)
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
		{func() { s.Hold("ORDER-1", 5, noon) }, 3},
		{func() { s.Ship("ORDER-1") }, 3},
		{func() { s.Unship("ORDER-1", 5) }, 3},
		{func() { s.GiveBack("ORDER-1", noon) }, 4},
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
					s.Hold(order, rapid.IntRange(1, 10).Draw(t, "quantity"), noon)
				}
			},
			"give back": func(t *rapid.T) { s.GiveBack(anOrder(t), noon) },
			"ship": func(t *rapid.T) {
				order := anOrder(t)
				if quantity := s.Held[order]; s.Ship(order) {
					shipped[order] = quantity
				}
			},
			"unship": func(t *rapid.T) {
				order := anOrder(t)
				if quantity, out := shipped[order]; out {
					s.Unship(order, quantity)
					delete(shipped, order)
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
