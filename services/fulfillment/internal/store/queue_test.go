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
	"waybill/services/fulfillment/internal/partner"
	"waybill/services/fulfillment/internal/store"
)

// distant is a store in memory whose calls take some time. It counts calls, and a test can freeze it.
type distant struct {
	*state.Memory

	latency time.Duration
	frozen  atomic.Pointer[chan struct{}] // closed when the store thaws

	stockWrites, now, most atomic.Int32 // now: calls that run; most: the most that ran at the same time
}

func newDistant(latency time.Duration) *distant {
	return &distant{Memory: state.NewMemory(), latency: latency}
}

// freeze makes calls hang until the returned function is called.
func (d *distant) freeze() func() {
	ice := make(chan struct{})
	d.frozen.Store(&ice)
	return func() {
		d.frozen.Store(nil)
		close(ice)
	}
}

// call ignores its context, like a call that hangs.
func (d *distant) call() {
	now := d.now.Add(1)
	defer d.now.Add(-1)
	for most := d.most.Load(); now > most && !d.most.CompareAndSwap(most, now); most = d.most.Load() {
		continue
	}
	if d.latency > 0 {
		time.Sleep(d.latency)
	}
	if ice := d.frozen.Load(); ice != nil {
		<-*ice
	}
}

func (d *distant) Get(ctx context.Context, key string, doc any) (state.ETag, error) {
	d.call()
	return d.Memory.Get(ctx, key, doc)
}

func (d *distant) GetMany(ctx context.Context, keys []string) (map[string][]byte, error) {
	d.call()
	return d.Memory.GetMany(ctx, keys)
}

func (d *distant) Create(ctx context.Context, key string, doc any, options ...state.Option) error {
	d.call()
	return d.Memory.Create(ctx, key, doc, options...)
}

func (d *distant) Replace(ctx context.Context, key string, doc any, etag state.ETag, options ...state.Option) error {
	if key == stock1 {
		d.stockWrites.Add(1)
	}
	d.call()
	return d.Memory.Replace(ctx, key, doc, etag, options...)
}

const stock1 = "stock:PROD-001"

func stocked(t *testing.T, memory state.Store, stock map[string]int) *store.Inventory {
	t.Helper()
	w := store.NewInventory(memory, func(context.Context, inventory.Stock) error { return nil }, time.Now)
	for product, n := range stock {
		if _, err := w.Set(t.Context(), product, n); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(w.Wait)
	return w
}

// The store hangs for twenty seconds, while the 500 orders have a timeout of two. They leave then, and none is applied later. When the
// store answers again, it serves the next order at once.
func TestOrdersLeaveTheQueueOfAStoreThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := newDistant(time.Millisecond)
		w := stocked(t, memory, map[string]int{"PROD-001": 1000})
		thaw := memory.freeze()
		began := time.Now()
		var all sync.WaitGroup
		for i := range 500 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				_, err := w.Reserve(ctx, order(fmt.Sprintf("ORDER-%d", i), pieces("PROD-001", 1)))
				if !errors.Is(err, partner.ErrBusy) || time.Since(began) > 3*time.Second {
					t.Errorf("after %s: %v", time.Since(began), err)
				}
			})
		}
		all.Wait()
		time.Sleep(18 * time.Second)
		thaw()
		w.Wait()
		wantStock(t, w, "PROD-001", 1000, 0, 0)
		began = time.Now()
		if refused, err := w.Reserve(t.Context(), order("ORDER-500", pieces("PROD-001", 1))); refused != nil || err != nil || time.Since(began) > 100*time.Millisecond {
			t.Errorf("the next order: %v, %v, after %s", refused, err, time.Since(began))
		}
		wantStock(t, w, "PROD-001", 1000, 1, 0)
	})
}

// A change whose context ends while its group is read leaves and is not applied. Once its group is being written, it waits for the
// result.
func TestAChangeThatIsWrittenWaitsForTheResult(t *testing.T) {
	t.Parallel()
	for timeout, applied := range map[time.Duration]bool{500 * time.Millisecond: false, 1500 * time.Millisecond: true} {
		t.Run(timeout.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				memory := newDistant(0)
				w := stocked(t, memory, map[string]int{"PROD-001": 10})
				memory.latency = time.Second // one for the read, one for the write
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				defer cancel()
				_, err := w.Adjust(ctx, "PROD-001", "key", -1, "lost")
				w.Wait()
				if (err == nil) != applied || !applied && !errors.Is(err, partner.ErrBusy) {
					t.Errorf("the caller got %v", err)
				}
				wantStock(t, w, "PROD-001", map[bool]int{false: 10, true: 9}[applied], 0, 0)
			})
		})
	}
}

// Of a thousand concurrent orders every tenth is cancelled. All others are reserved at their first attempt, with few writes and fewer
// announcements, and the document stays small.
func TestAThousandOrdersOfOneProduct(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const orders = 1000
		memory := newDistant(2 * time.Millisecond)
		var announced atomic.Int32
		w := store.NewInventory(memory, func(context.Context, inventory.Stock) error {
			announced.Add(1)
			time.Sleep(3 * time.Millisecond)
			return nil
		}, time.Now)
		if _, err := w.Set(t.Context(), "PROD-001", orders); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		var reserved atomic.Int32
		began := time.Now()
		for i := range orders {
			all.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if i%10 == 0 {
					time.AfterFunc(time.Duration(i/10)*time.Millisecond, cancel)
				}
				refused, err := w.Reserve(ctx, order(fmt.Sprintf("ORDER-%d", i), pieces("PROD-001", 1)))
				if err == nil && refused == nil {
					reserved.Add(1)
				} else if i%10 != 0 {
					t.Errorf("ORDER-%d: %v, %v", i, refused, err)
				}
			})
		}
		all.Wait()
		if took, writes := time.Since(began), memory.stockWrites.Load(); took > 2*time.Second || writes > 50 || announced.Load() > writes+1 {
			t.Errorf("%s, %d writes and %d announcements of the stock", took, writes, announced.Load())
		}
		// Cancelled orders are reserved when they try again.
		for i := range orders {
			if refused, err := w.Reserve(t.Context(), order(fmt.Sprintf("ORDER-%d", i), pieces("PROD-001", 1))); err != nil || refused != nil {
				t.Errorf("again: %v, %v", refused, err)
			}
		}
		wantStock(t, w, "PROD-001", orders, orders, 0)
		var document json.RawMessage
		if _, err := memory.Memory.Get(t.Context(), stock1, &document); err != nil || len(document) > 500 {
			t.Errorf("with %d open orders the document has %d bytes, %v: %s", orders, len(document), err, document)
		}
	})
}

// A group has invalid orders, one with an unreadable reservation, and one that needs too much. Each fails alone, for its own reason.
func TestABadOrderDoesNotFailItsGroup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := newDistant(time.Millisecond)
		w := stocked(t, memory, map[string]int{"PROD-001": 198})
		if err := memory.Create(t.Context(), "reservation:ORDER-UNREADABLE", 42); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		bad := func(o contracts.Order, code string) {
			all.Go(func() {
				if refused, err := w.Reserve(t.Context(), o); err != nil || refused == nil || refused.Code != code {
					t.Errorf("%q: %+v, %v; want it refused with %s", o.OrderID, refused, err, code)
				}
			})
		}
		for i := range 198 {
			all.Go(func() {
				if refused, err := w.Reserve(t.Context(), order(fmt.Sprintf("ORDER-%d", i), pieces("PROD-001", 1))); err != nil || refused != nil {
					t.Errorf("ORDER-%d: %v, %v", i, refused, err)
				}
			})
		}
		bad(order("ORDER||1", pieces("PROD-001", 1)), inventory.CodeInvalidOrder)
		bad(order("", pieces("PROD-001", 1)), inventory.CodeInvalidOrder)
		bad(order("ORDER-NEGATIVE", pieces("PROD-001", -5)), inventory.CodeInvalidOrder)
		bad(order("ORDER-MUCH", pieces("PROD-001", 500)), inventory.CodeOutOfStock)
		all.Go(func() {
			if _, err := w.Reserve(t.Context(), order("ORDER-UNREADABLE", pieces("PROD-001", 1))); err == nil {
				t.Error("an order whose reservation cannot be read was reserved")
			}
		})
		all.Wait()
		wantStock(t, w, "PROD-001", 198, 198, 0)
	})
}

// Lines of one product count together, and each order of a group is checked against what the others leave.
func TestTwoLinesOfOneProductCountTogether(t *testing.T) {
	t.Parallel()
	w := stocked(t, state.NewMemory(), map[string]int{"PROD-001": 5})
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			refused, err := w.Reserve(t.Context(), order(fmt.Sprintf("ORDER-%d", i), pieces("PROD-001", 3), pieces("PROD-001", 3)))
			if err != nil || refused == nil || refused.Code != inventory.CodeOutOfStock {
				t.Errorf("%+v, %v", refused, err)
			}
		})
	}
	all.Wait()
	wantStock(t, w, "PROD-001", 5, 0, 0)
}

// Orders name two products in any sequence, or one of them twice.
func TestOrdersOfTheSameProductsDoNotDeadlock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := newDistant(time.Millisecond)
		w := stocked(t, memory, map[string]int{"A": 600, "B": 600})
		var all sync.WaitGroup
		var a, b atomic.Int32
		began := time.Now()
		for i := range 1000 {
			lines := [][]contracts.Line{{pieces("A", 1), pieces("B", 1)}, {pieces("B", 1), pieces("A", 1)}, {pieces("A", 1), pieces("A", 1)}}[i%3]
			all.Go(func() {
				refused, err := w.Reserve(t.Context(), order(fmt.Sprintf("ORDER-%d", i), lines...))
				switch {
				case err != nil || refused != nil && refused.Code != inventory.CodeOutOfStock:
					t.Errorf("%v, %v", refused, err)
				case refused == nil:
					for _, line := range lines {
						map[string]*atomic.Int32{"A": &a, "B": &b}[line.ProductID].Add(1)
					}
				}
			})
		}
		all.Wait()
		if took := time.Since(began); took > 10*time.Second || a.Load() == 0 || a.Load() > 600 || b.Load() > 600 {
			t.Errorf("after %s, %d and %d", took, a.Load(), b.Load())
		}
		wantStock(t, w, "A", 600, int(a.Load()), 0)
		wantStock(t, w, "B", 600, int(b.Load()), 0)
	})
}

// While an order of eighty products is reserved, 200 small ones a second take at most twice as long as without it.
func TestABigOrderDoesNotDelaySmallOnes(t *testing.T) {
	t.Parallel()
	measure := func(big bool) (worst time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			stock := map[string]int{"PROD-001": 100_000}
			lines := append(make([]contracts.Line, 0, 81), pieces("PROD-001", 80))
			for i := range 80 {
				product := fmt.Sprintf("PROD-%d", 100+i)
				stock[product] = 100
				lines = append(lines, pieces(product, 80))
			}
			memory := newDistant(5 * time.Millisecond)
			w := stocked(t, memory, stock)
			var all sync.WaitGroup
			var longest atomic.Int64
			for i := range 1000 {
				all.Go(func() {
					time.Sleep(time.Duration(i) * 5 * time.Millisecond)
					began := time.Now()
					if refused, err := w.Reserve(t.Context(), order(fmt.Sprintf("ORDER-%d", i), pieces("PROD-001", 1))); err != nil || refused != nil {
						t.Errorf("%v, %v", refused, err)
					}
					for took := int64(time.Since(began)); ; {
						if old := longest.Load(); took <= old || longest.CompareAndSwap(old, took) {
							break
						}
					}
				})
			}
			if big {
				all.Go(func() {
					time.Sleep(time.Second)
					if refused, err := w.Reserve(t.Context(), order("ORDER-BIG", lines...)); err != nil || refused != nil {
						t.Errorf("the big order: %v, %v", refused, err)
					}
				})
			}
			all.Wait()
			worst = time.Duration(longest.Load())
		})
		return worst
	}
	if alone, beside := measure(false), measure(true); beside > 2*alone {
		t.Errorf("a small order took %s beside a big one, and %s without it", beside, alone)
	}
}

// Two replicas race for the last piece 500 times. Exactly one wins each time.
func TestTwoReplicasRaceForTheLastPiece(t *testing.T) {
	t.Parallel()
	memory := state.NewMemory()
	replicas := []*store.Inventory{stocked(t, memory, nil), stocked(t, memory, nil)}
	for round := range 500 {
		product := fmt.Sprintf("PROD-%d", round)
		if _, err := replicas[round%2].Set(t.Context(), product, 1); err != nil {
			t.Fatal(err)
		}
		var won atomic.Int32
		var racing sync.WaitGroup
		for i, w := range replicas {
			racing.Go(func() {
				refused, err := w.Reserve(t.Context(), order(fmt.Sprintf("ORDER-%d-%d", round, i), pieces(product, 1)))
				switch {
				case err != nil:
					t.Errorf("round %d: %v", round, err)
				case refused == nil:
					won.Add(1)
				}
			})
		}
		racing.Wait()
		if won.Load() != 1 {
			t.Fatalf("round %d has %d winners", round, won.Load())
		}
		wantStock(t, replicas[0], product, 1, 1, 0)
	}
}

// The store hangs for longer than an activity may run. Each activity ends at its timeout, the store gets few calls at the same time, and
// once the store answers again every order is reserved once.
func TestAStoreThatHangsLongerThanAnActivity(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const orders = 100
		memory := newDistant(0)
		w := stocked(t, memory, map[string]int{"PROD-001": 1000})
		thaw := memory.freeze()
		thaws := time.Now().Add(3 * time.Minute)
		var all sync.WaitGroup
		var running, most, attempts atomic.Int32
		for i := range orders {
			all.Go(func() {
				for done := false; !done; time.Sleep(5 * time.Second) { // as a saga retries its activity
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					most.Store(max(most.Load(), running.Add(1)))
					attempts.Add(1)
					began := time.Now()
					refused, err := w.Reserve(ctx, order(fmt.Sprintf("ORDER-%d", i), pieces("PROD-001", 1)))
					if running.Add(-1); time.Since(began) > 31*time.Second {
						t.Errorf("an activity ran for %s", time.Since(began))
					}
					cancel()
					if done = err == nil; refused != nil {
						t.Error(refused)
					}
				}
			})
		}
		time.Sleep(time.Until(thaws))
		thaw()
		all.Wait()
		if most.Load() > orders || attempts.Load() < 2*orders || memory.most.Load() > orders {
			t.Errorf("%d activities and %d store calls at the same time, %d attempts", most.Load(), memory.most.Load(), attempts.Load())
		}
		wantStock(t, w, "PROD-001", 1000, orders, 0)
	})
}

// A full queue rejects reservations and nothing else.
func TestAFullQueueRejectsReservations(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := newDistant(time.Millisecond)
		w := stocked(t, memory, map[string]int{"PROD-001": 10_000})
		shipping := order("ORDER-SHIPPING", pieces("PROD-001", 1))
		if refused, err := w.Reserve(t.Context(), shipping); refused != nil || err != nil {
			t.Fatal(refused, err)
		}
		thaw := memory.freeze()
		var all sync.WaitGroup
		var busy, reserved atomic.Int32
		for i := range 3000 {
			all.Go(func() {
				_, err := w.Reserve(t.Context(), order(fmt.Sprintf("ORDER-%d", i), pieces("PROD-001", 1)))
				switch {
				case err == nil:
					reserved.Add(1)
				case errors.Is(err, partner.ErrBusy):
					busy.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if busy.Load() < 900 || reserved.Load() != 0 {
			t.Errorf("%d were rejected and %d reserved while the store hangs", busy.Load(), reserved.Load())
		}
		all.Go(func() {
			if err := w.Ship(t.Context(), shipping); err != nil {
				t.Errorf("ship: %v", err)
			}
		})
		all.Go(func() {
			if _, err := w.Adjust(t.Context(), "PROD-001", "key", 5, "found"); err != nil {
				t.Errorf("adjust: %v", err)
			}
		})
		synctest.Wait()
		thaw()
		all.Wait()
		if busy.Load()+reserved.Load() != 3000 {
			t.Errorf("%d busy and %d reserved of 3000", busy.Load(), reserved.Load())
		}
		wantStock(t, w, "PROD-001", 10_004, int(reserved.Load()), 1)
	})
}

// The changes of a group are announced as one, with the available pieces before and after the group, so that consumers see every
// threshold that was crossed.
func TestAGroupIsAnnouncedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := newDistant(time.Millisecond)
		var mu sync.Mutex
		var announced []inventory.Change
		w := store.NewInventory(memory, func(_ context.Context, s inventory.Stock) error {
			mu.Lock()
			defer mu.Unlock()
			announced = append(announced, s.Last)
			return nil
		}, time.Now)
		if _, err := w.Set(t.Context(), "PROD-001", 40); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for i := range 35 {
			all.Go(func() {
				if refused, err := w.Reserve(t.Context(), order(fmt.Sprintf("ORDER-%d", i), pieces("PROD-001", 1))); err != nil || refused != nil {
					t.Error(refused, err)
				}
			})
		}
		all.Wait()
		w.Wait()
		if len(announced) > 4 {
			t.Errorf("35 reservations were announced %d times", len(announced)-1)
		}
		for i := 1; i < len(announced); i++ {
			if announced[i].Previous != announced[i-1].Current || announced[i].Revision <= announced[i-1].Revision {
				t.Errorf("announced %+v after %+v", announced[i], announced[i-1])
			}
		}
		if last := announced[len(announced)-1]; last.Current != 5 || last.Revision != 36 {
			t.Errorf("last announced %+v", last)
		}
	})
}

// A reservation expires after it has ended. Its shipped pieces still count, and no mark of it is left.
func TestAnEndedReservationExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := state.NewMemory()
		w := stocked(t, memory, map[string]int{"PROD-001": 10}).KeepFor(time.Hour)
		open, shipped := order("ORDER-1", pieces("PROD-001", 2)), order("ORDER-2", pieces("PROD-001", 3))
		released, refused := order("ORDER-3", pieces("PROD-001", 1)), order("ORDER-4", pieces("PROD-001", 50))
		for _, o := range []contracts.Order{open, shipped, released, refused} {
			if _, err := w.Reserve(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Ship(t.Context(), shipped); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Release(t.Context(), released); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1000 * time.Hour)
		var r inventory.Reservation
		for o, want := range map[string]bool{"ORDER-1": true, "ORDER-2": false, "ORDER-3": false, "ORDER-4": false} {
			if _, err := memory.Get(t.Context(), "reservation:"+o, &r); (err == nil) != want {
				t.Errorf("the reservation of %s: %v", o, err)
			}
		}
		if err := w.Ship(t.Context(), open); err != nil {
			t.Error(err)
		}
		s, err := w.Set(t.Context(), "PROD-001", 5)
		if err != nil || len(s.Marks()) > 0 {
			t.Errorf("%+v, %v", s, err)
		}
		wantStock(t, w, "PROD-001", 5, 0, 5)
	})
}
