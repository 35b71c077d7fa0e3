package state_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"waybill/platform/state"
	"waybill/platform/state/statetest"
)

// counting is a store that counts its concurrent calls.
type counting struct {
	state.Store
	now, most atomic.Int32
	// meet, if it is set, makes each call wait until another one arrives or the test receives.
	meet chan struct{}
}

func (c *counting) Get(ctx context.Context, key string, doc any) (state.ETag, error) {
	now := c.now.Add(1)
	defer c.now.Add(-1)
	for most := c.most.Load(); now > most && !c.most.CompareAndSwap(most, now); most = c.most.Load() {
		continue
	}
	if c.meet != nil {
		select {
		case c.meet <- struct{}{}:
		case <-c.meet:
		}
	}
	return c.Store.Get(ctx, key, doc)
}

func TestConcurrencyLimitIsKept(t *testing.T) {
	t.Parallel()
	const limit, calls = 2, 20
	store := &counting{Store: state.NewMemory(), meet: make(chan struct{})} // a call returns only if another one runs beside it
	limited := state.WithConcurrencyLimit(store, limit)
	var all sync.WaitGroup
	for range calls {
		all.Go(func() {
			var doc any
			if _, err := limited.Get(t.Context(), "key", &doc); !errors.Is(err, state.ErrNotFound) {
				t.Errorf("get: %v", err)
			}
		})
	}
	all.Wait()
	if most := store.most.Load(); most != limit {
		t.Errorf("%d concurrent calls, want %d", most, limit)
	}
}

func TestWaitForASlotEndsWithItsContext(t *testing.T) {
	t.Parallel()
	store := &counting{Store: state.NewMemory(), meet: make(chan struct{})}
	limited := state.WithConcurrencyLimit(store, 1)
	first := make(chan error, 1)
	go func() { // owned: the test waits for first
		var doc any
		_, err := limited.Get(t.Context(), "key", &doc)
		first <- err
	}()
	for store.now.Load() == 0 {
		select {
		case <-t.Context().Done():
			t.Fatal("the first call did not start")
		default:
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := limited.Create(ctx, "key", 1); !errors.Is(err, state.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("a call that got no slot: %v", err)
	}
	<-store.meet
	if err := <-first; !errors.Is(err, state.ErrNotFound) {
		t.Errorf("the first call: %v", err)
	}
}

func TestNoLimitReturnsTheStoreItself(t *testing.T) {
	t.Parallel()
	memory := state.NewMemory()
	if state.WithConcurrencyLimit(memory, 0) != state.Store(memory) {
		t.Error("a limit of zero returned another store")
	}
	if state.WithPriority(memory) != state.Store(memory) {
		t.Error("priority for a store without a limit returned another store")
	}
}

// gated is a store whose calls wait until the test lets them continue.
type gated struct {
	state.Store
	gate chan struct{}
}

func (g *gated) Get(ctx context.Context, key string, doc any) (state.ETag, error) {
	<-g.gate
	return g.Store.Get(ctx, key, doc)
}

func TestWaitingCallersGoInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const callers = 50
		store := &gated{state.NewMemory(), make(chan struct{})}
		limited := state.WithConcurrencyLimit(store, 1)
		var all sync.WaitGroup
		var order []int
		for n := range callers {
			all.Go(func() {
				var doc any
				if _, err := limited.Get(t.Context(), "key", &doc); !errors.Is(err, state.ErrNotFound) {
					t.Errorf("get: %v", err)
				}
				order = append(order, n) // one at a time: the limit is 1 and the test waits for each
			})
			synctest.Wait()
		}
		for range callers {
			store.gate <- struct{}{}
			synctest.Wait()
		}
		all.Wait()
		if len(order) != callers || !slices.IsSorted(order) {
			t.Errorf("the order of calls is %v", order)
		}
	})
}

// A caller with priority waits for the calls that run or are next, and not for all that wait. Both kinds share one limit.
func TestPriorityGoesAheadOfWaitingCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit, waiting = 2, 50
		store := &counting{Store: &gated{state.NewMemory(), make(chan struct{})}}
		limited := state.WithConcurrencyLimit(store, limit)
		var all sync.WaitGroup
		var finished atomic.Int32
		get := func(s state.Store) {
			var doc any
			if _, err := s.Get(t.Context(), "key", &doc); !errors.Is(err, state.ErrNotFound) {
				t.Errorf("get: %v", err)
			}
		}
		for range waiting {
			all.Go(func() { get(limited); finished.Add(1) })
		}
		synctest.Wait()
		before := make(chan int32, 1)
		all.Go(func() { get(state.WithPriority(limited)); before <- finished.Load() })
		synctest.Wait()
		gate := store.Store.(*gated).gate
		for range waiting + 1 {
			gate <- struct{}{}
			synctest.Wait()
		}
		all.Wait()
		if n := <-before; n > 2*limit || store.most.Load() != limit {
			t.Errorf("%d calls finished before it, and %d ran concurrently; want at most %d and %d", n, store.most.Load(), 2*limit, limit)
		}
	})
}

// Many callers with priority do not starve those without it: at most as many as there are slots go ahead of the next one.
func TestPriorityDoesNotStarveOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit, callers = 2, 50
		store := &gated{state.NewMemory(), make(chan struct{})}
		limited := state.WithConcurrencyLimit(store, limit)
		priority := state.WithPriority(limited)
		var all sync.WaitGroup
		var finished atomic.Int32
		get := func(s state.Store) {
			var doc any
			if _, err := s.Get(t.Context(), "key", &doc); !errors.Is(err, state.ErrNotFound) {
				t.Errorf("get: %v", err)
			}
		}
		for range limit {
			all.Go(func() { get(priority); finished.Add(1) })
		}
		synctest.Wait()
		before := make(chan int32, 1)
		all.Go(func() { get(limited); before <- finished.Load() })
		synctest.Wait()
		for range callers {
			all.Go(func() { get(priority); finished.Add(1) })
		}
		synctest.Wait()
		for range limit + 1 + callers {
			store.gate <- struct{}{}
			synctest.Wait()
		}
		all.Wait()
		if n := <-before; n > 2*limit {
			t.Errorf("%d calls with priority finished before it, want at most %d", n, 2*limit)
		}
	})
}

func TestConcurrencyLimitIsAStore(t *testing.T) {
	t.Parallel()
	statetest.Run(t, func(*testing.T) state.Store { return state.WithConcurrencyLimit(state.NewMemory(), 2) })
	statetest.Run(t, func(*testing.T) state.Store {
		return state.WithPriority(state.WithConcurrencyLimit(state.NewMemory(), 2))
	})
}

// delayed is a store as far away as a sidecar with SQLite.
type delayed struct{ state.Store }

func (d delayed) Get(ctx context.Context, key string, doc any) (state.ETag, error) {
	time.Sleep(300 * time.Microsecond)
	return d.Store.Get(ctx, key, doc)
}

// BenchmarkPriority measures a call with priority while 100 callers without it keep both slots busy.
func BenchmarkPriority(b *testing.B) {
	limited := state.WithConcurrencyLimit(delayed{state.NewMemory()}, 2)
	get := func(s state.Store) {
		var doc any
		if _, err := s.Get(context.Background(), "key", &doc); !errors.Is(err, state.ErrNotFound) {
			b.Errorf("get: %v", err)
		}
	}
	var all sync.WaitGroup
	var stop atomic.Bool
	var others atomic.Int64
	for range 100 {
		all.Go(func() {
			for !stop.Load() {
				get(limited)
				others.Add(1)
			}
		})
	}
	priority := state.WithPriority(limited)
	for b.Loop() {
		get(priority)
	}
	stop.Store(true)
	all.Wait()
	b.ReportMetric(float64(others.Load())/b.Elapsed().Seconds(), "others/s")
}
