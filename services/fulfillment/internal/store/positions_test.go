package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"waybill/contracts"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/store"
)

// checkSums reads every document about stock and derives each order's position from ADR 28 and not from the code: from its mark, or else
// its reservation. It returns the faults of each product's sums. An order that ended, by what its callers learned, must have no pieces.
func checkSums(memory *state.Memory, products, orders []string, pieces map[string]int, ended func(order string) bool) error {
	ctx := context.Background()
	var faults []error
	for _, product := range products {
		var s inventory.Stock
		if _, err := memory.Get(ctx, "stock:"+product, &s); err != nil {
			return err
		}
		held, shipped := 0, 0
		for _, order := range orders {
			var r inventory.Reservation
			if _, err := memory.Get(ctx, "reservation:"+order, &r); err != nil && !errors.Is(err, state.ErrNotFound) {
				return err
			}
			says := r.State
			if says == inventory.Releasing || says == inventory.Unshipping {
				says = r.Was
			}
			if says == inventory.Reserved && !r.Derives {
				says = inventory.Shipped
			}
			heldBefore, shippedBefore := held, shipped
			h, isHeld := s.Held[order]
			m, isMoved := s.Moved[order]
			switch {
			case isHeld && isMoved:
				faults = append(faults, fmt.Errorf("%s has two marks of %s", product, order))
			case isHeld:
				held += h
			case isMoved:
				shipped += m
			case says == inventory.Reserved:
				held += r.Lines[product]
			case says == inventory.Shipped:
				shipped += r.Lines[product]
			}
			if ended(order) && held+shipped != heldBefore+shippedBefore {
				faults = append(faults, fmt.Errorf("%s ended and still has pieces of %s: %+v", order, product, s))
			}
		}
		if s.Reserved() != held || s.Shipped != shipped || s.OnHand+s.Shipped != pieces[product] || s.Available() < 0 || s.Reserved() < 0 || s.Shipped < 0 || s.Held[":settled"] < 0 {
			faults = append(faults, fmt.Errorf("%s: on hand %d, reserved %d, shipped %d of %d pieces; orders hold %d and %d were shipped: %+v",
				product, s.OnHand, s.Reserved(), s.Shipped, pieces[product], held, shipped, s))
		}
	}
	return errors.Join(faults...)
}

// gate is a store whose calls wait until a test releases them one by one and decides how each ends.
type gate struct {
	*state.Memory

	mu      sync.Mutex
	blocked []*blocked
	open    bool
}

type blocked struct {
	what  string
	write bool
	fate  chan fate
}

type fate int

const (
	succeeds fate = iota
	failsBefore
	failsAfter
	conflicts
)

func (g *gate) call(what string, write bool, effect func() error) error {
	g.mu.Lock()
	if g.open {
		g.mu.Unlock()
		return effect()
	}
	p := &blocked{what: what, write: write, fate: make(chan fate)}
	g.blocked = append(g.blocked, p)
	g.mu.Unlock()
	switch <-p.fate {
	case failsBefore:
		return state.ErrUnavailable
	case failsAfter:
		return errors.Join(effect(), state.ErrUnavailable)
	case conflicts:
		return state.ErrConflict
	default:
		return effect()
	}
}

// release releases one of the waiting calls and describes it; empty if there is none.
func (g *gate) release(which int, f fate) string {
	g.mu.Lock()
	if len(g.blocked) == 0 {
		g.mu.Unlock()
		return ""
	}
	which %= len(g.blocked)
	p := g.blocked[which]
	g.blocked = slices.Delete(g.blocked, which, which+1)
	g.mu.Unlock()
	if !p.write && f != failsBefore || f == conflicts && strings.HasPrefix(p.what, "create reservation") {
		f = succeeds // a create without a document must not conflict
	}
	p.fate <- f
	return "    " + p.what + []string{"", " fails before", " fails after", " conflicts"}[f]
}

func (g *gate) Get(ctx context.Context, key string, doc any) (etag state.ETag, err error) {
	err = g.call("get "+key, false, func() error { etag, err = g.Memory.Get(ctx, key, doc); return err })
	return etag, err
}

func (g *gate) GetMany(ctx context.Context, keys []string) (docs map[string][]byte, err error) {
	err = g.call("get many", false, func() error { docs, err = g.Memory.GetMany(ctx, keys); return err })
	return docs, err
}

func (g *gate) Create(ctx context.Context, key string, doc any, options ...state.Option) error {
	return g.call("create "+key, true, func() error { return g.Memory.Create(ctx, key, doc, options...) })
}

func (g *gate) Replace(ctx context.Context, key string, doc any, etag state.ETag, options ...state.Option) error {
	return g.call("replace "+key, true, func() error { return g.Memory.Replace(ctx, key, doc, etag, options...) })
}

// Documents of a former release: an order that holds, one that is half shipped, one that is half released, and two that ended.
var former = map[string]string{
	"stock:A": `{"product_id":"A","on_hand":17,"shipped":3,"held":{"OLD-1":2},"last":{"revision":9,"previous":8,"current":15,"at":"2026-01-02T12:00:00Z"},"version":11}`,
	"stock:B": `{"product_id":"B","on_hand":18,"shipped":2,"held":{"OLD-1":1,"OLD-2":1,"OLD-3":2},"last":{"revision":9,"previous":8,"current":14,"at":"2026-01-02T12:00:00Z"},"version":11}`,

	"reservation:OLD-1": `{"order_id":"OLD-1","state":"reserved","lines":{"A":2,"B":1}}`,
	"reservation:OLD-2": `{"order_id":"OLD-2","state":"reserved","lines":{"A":1,"B":1}}`,
	"reservation:OLD-3": `{"order_id":"OLD-3","state":"releasing","lines":{"A":1,"B":2}}`,
	"reservation:OLD-4": `{"order_id":"OLD-4","state":"shipped","lines":{"A":2,"B":2}}`,
	"reservation:OLD-5": `{"order_id":"OLD-5","state":"released","lines":{"A":2,"B":2}}`,
}

// Two replicas work on a few orders. Their store calls are answered in any sequence, fail before or after their effect, conflict, or are
// never answered in time, and steps are repeated. At every moment the sums of the stock match the orders, and in the end each order has
// the outcome that its callers learned.
func TestEveryInterleavingKeepsTheSums(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		seed, steps := rapid.Uint64().Draw(r, "seed"), rapid.IntRange(20, 400).Draw(r, "steps")
		old := rapid.Bool().Draw(r, "documents of a former release")
		var fault error
		synctest.Test(t, func(*testing.T) { fault = play(rand.New(rand.NewPCG(seed, 0)), steps, old) })
		if fault != nil {
			r.Fatal(fault)
		}
	})
}

func play(chance *rand.Rand, steps int, old bool) error { //nolint:gocognit // one scenario, from start to end
	memory := &gate{Memory: state.NewMemory(), open: true}
	ctx := context.Background()
	wants := map[string][]contracts.Line{
		"ORDER-1": {pieces("A", 2)}, "ORDER-2": {pieces("B", 1), pieces("A", 1)}, "ORDER-3": {pieces("A", 2), pieces("B", 2)},
	}
	stock := map[string]int{"A": 4, "B": 2}
	if old {
		for key, doc := range former {
			if err := memory.Create(ctx, key, json.RawMessage(doc)); err != nil {
				return err
			}
		}
		stock = map[string]int{"A": 20, "B": 20}
		wants["OLD-1"], wants["OLD-2"] = []contracts.Line{pieces("A", 2), pieces("B", 1)}, []contracts.Line{pieces("A", 1), pieces("B", 1)}
		wants["OLD-3"], wants["OLD-4"] = []contracts.Line{pieces("A", 1), pieces("B", 2)}, []contracts.Line{pieces("A", 2), pieces("B", 2)}
		wants["OLD-5"] = wants["OLD-4"]
	}
	replicas := [2]*store.Inventory{}
	for i := range replicas {
		replicas[i] = store.NewInventory(memory, func(context.Context, inventory.Stock) error { return nil }, time.Now)
		defer replicas[i].Wait()
	}
	for product, n := range stock {
		if !old {
			if _, err := replicas[0].Set(ctx, product, n); err != nil {
				return err
			}
		}
	}
	orders := slices.Sorted(maps.Keys(wants))
	var mu sync.Mutex
	told := map[string]map[string]bool{} // the answers of each order's calls
	check := func() error {
		return checkSums(memory.Memory, []string{"A", "B"}, orders, stock, func(order string) bool {
			mu.Lock()
			defer mu.Unlock()
			return told[order]["released"] || told[order][inventory.CodeOutOfStock]
		})
	}
	if err := check(); err != nil {
		return fmt.Errorf("at the beginning: %w", err)
	}

	memory.open = false
	var running sync.WaitGroup
	// drain lets every running call end.
	drain := func() {
		memory.mu.Lock()
		memory.open = true
		memory.mu.Unlock()
		for memory.release(0, succeeds) != "" {
			synctest.Wait()
		}
		running.Wait()
	}
	defer drain()
	answered := func(order, answer string) {
		mu.Lock()
		defer mu.Unlock()
		if told[order] == nil {
			told[order] = map[string]bool{}
		}
		told[order][answer] = true
	}
	do := func(w *store.Inventory, name string, what int) error {
		o := order(name, wants[name]...)
		switch what {
		case 0, 1:
			refused, err := w.Reserve(ctx, o)
			if err == nil {
				answer := "reserved"
				if refused != nil {
					answer = refused.Code
				}
				answered(name, answer)
			}
			return err
		case 2:
			return w.Ship(ctx, o)
		case 3:
			return w.Unship(ctx, o)
		default:
			_, err := w.Release(ctx, o)
			if err == nil {
				answered(name, "released")
			}
			return err
		}
	}
	var log []string
	among := orders[:1+chance.IntN(len(orders))] // fewer orders conflict more often
	chance.Shuffle(len(orders), func(i, j int) { orders[i], orders[j] = orders[j], orders[i] })
	for range steps {
		switch choice := chance.IntN(100); {
		case choice < 15: // a step begins
			name, replica, what := among[chance.IntN(len(among))], chance.IntN(2), chance.IntN(5)
			log = append(log, fmt.Sprintf("replica %d: %s %s", replica, []string{"reserve", "reserve", "ship", "unship", "release"}[what], name))
			running.Go(func() { _ = do(replicas[replica], name, what) })
		case choice < 17: // time passes
			log = append(log, "time passes")
			time.Sleep(time.Duration(chance.IntN(12)) * time.Second)
		default: // one store call is answered
			f := succeeds
			if choice >= 85 {
				f = fate(1 + chance.IntN(3))
			}
			if did := memory.release(chance.IntN(1000), f); did != "" {
				log = append(log, did)
			}
		}
		synctest.Wait()
		if err := check(); err != nil {
			return fmt.Errorf("%s\nafter %d steps: %w", strings.Join(log, "\n"), len(log), err)
		}
	}

	drain()
	return conclude(memory, replicas[1], orders, wants, told, do, check)
}

// conclude repeats what failed and ends every order: it ships reserved orders and releases the others.
func conclude(memory *gate, w *store.Inventory, orders []string, wants map[string][]contracts.Line, told map[string]map[string]bool,
	do func(*store.Inventory, string, int) error, check func() error,
) error {
	ctx := context.Background()
	for _, name := range orders {
		if told[name]["reserved"] && (told[name][inventory.CodeOutOfStock] || told[name][inventory.CodeUnknownProduct]) {
			return fmt.Errorf("%s was reserved and refused: %v", name, told[name])
		}
		if err := do(w, name, 0); err != nil {
			return fmt.Errorf("reserve %s: %w", name, err)
		}
		if told[name]["reserved"] && (told[name][inventory.CodeOutOfStock] || told[name][inventory.CodeUnknownProduct]) {
			return fmt.Errorf("%s was reserved and refused: %v", name, told[name])
		}
		var r inventory.Reservation
		if _, err := memory.Get(ctx, "reservation:"+name, &r); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		end, want := 4, []inventory.State{inventory.Released, inventory.Refused}
		if r.State == inventory.Reserved || r.State == inventory.Shipped {
			end, want = 2, []inventory.State{inventory.Shipped}
		}
		if err := do(w, name, end); err != nil {
			return fmt.Errorf("end %s, which is %s: %w", name, r.State, err)
		}
		if _, err := memory.Get(ctx, "reservation:"+name, &r); err != nil || !slices.Contains(want, r.State) {
			return fmt.Errorf("%s is %s, want %v: %w", name, r.State, want, err)
		}
		if err := check(); err != nil {
			return fmt.Errorf("after the end of %s, which is %s: %w", name, r.State, err)
		}
	}
	for _, product := range []string{"A", "B"} {
		s, err := w.Get(ctx, product)
		if err != nil {
			return err
		}
		if s, err = w.Set(ctx, product, s.OnHand); err != nil {
			return err
		}
		if len(s.Marks()) > 0 || s.Reserved() != 0 {
			return fmt.Errorf("marks of orders that ended are left: %+v", s)
		}
	}
	return check()
}
