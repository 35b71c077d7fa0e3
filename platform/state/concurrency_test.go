package state_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"waybill/platform/state"
	"waybill/platform/state/statetest"
)

// busy is a store that counts how many calls it has at a time, and holds each until all that may come are there.
type busy struct {
	state.Store
	now, most atomic.Int32
	meet      chan struct{}
}

func (b *busy) Get(ctx context.Context, key string, doc any) (state.ETag, error) {
	now := b.now.Add(1)
	defer b.now.Add(-1)
	for most := b.most.Load(); now > most && !b.most.CompareAndSwap(most, now); most = b.most.Load() {
		continue
	}
	if b.meet != nil {
		select {
		case b.meet <- struct{}{}:
		case <-b.meet:
		}
	}
	return b.Store.Get(ctx, key, doc)
}

func TestNoMoreCallsAtATimeThanTheLimit(t *testing.T) {
	t.Parallel()
	const limit, calls = 2, 20
	store := &busy{Store: state.NewMemory(), meet: make(chan struct{})} // two calls must meet for any to go on
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
		t.Errorf("%d calls at a time, want %d", most, limit)
	}
}

func TestWaitingForATurnEndsWithItsContext(t *testing.T) {
	t.Parallel()
	store := &busy{Store: state.NewMemory(), meet: make(chan struct{})}
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
			t.Fatal("the first call does not begin")
		default:
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := limited.Create(ctx, "key", 1); !errors.Is(err, state.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("a call that got no turn: %v", err)
	}
	<-store.meet
	if err := <-first; !errors.Is(err, state.ErrNotFound) {
		t.Errorf("the first call: %v", err)
	}
}

func TestNoLimitIsTheStoreItself(t *testing.T) {
	t.Parallel()
	memory := state.NewMemory()
	if state.WithConcurrencyLimit(memory, 0) != state.Store(memory) {
		t.Error("a limit of zero limits")
	}
}

// A caller of First waits for the calls that are under way, and not for those that wait for a turn. Both share one limit.
func TestFirstPassesThoseWhoWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit = 2
		store := &busy{Store: &slow{state.NewMemory(), make(chan struct{})}}
		limited := state.WithConcurrencyLimit(store, limit)
		var all sync.WaitGroup
		var before atomic.Int32
		get := func(s state.Store) {
			var doc any
			if _, err := s.Get(t.Context(), "key", &doc); !errors.Is(err, state.ErrNotFound) {
				t.Errorf("get: %v", err)
			}
		}
		for range 50 {
			all.Go(func() { get(limited); before.Add(1) })
		}
		synctest.Wait()
		passed := make(chan int32, 1)
		all.Go(func() { get(state.WithPriority(limited)); passed <- before.Load() })
		synctest.Wait()
		hold := store.Store.(*slow).hold
		for range 50 + 1 {
			hold <- struct{}{}
			synctest.Wait()
		}
		all.Wait()
		if n := <-passed; n > 2*limit || store.most.Load() != limit {
			t.Errorf("%d calls came before it, and %d were under way at a time", n, store.most.Load())
		}
		memory := state.NewMemory()
		if state.WithPriority(memory) != state.Store(memory) {
			t.Error("a store without a limit has no first")
		}
	})
}

func TestLimitedIsAStore(t *testing.T) {
	t.Parallel()
	statetest.Run(t, func(*testing.T) state.Store { return state.WithConcurrencyLimit(state.NewMemory(), 2) })
	statetest.Run(t, func(*testing.T) state.Store {
		return state.WithPriority(state.WithConcurrencyLimit(state.NewMemory(), 2))
	})
}
