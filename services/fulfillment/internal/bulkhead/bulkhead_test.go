package bulkhead_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"waybill/services/fulfillment/internal/bulkhead"
	"waybill/services/fulfillment/internal/partner"
)

func newBulkhead(t *testing.T, calls int) *bulkhead.Bulkhead {
	t.Helper()
	b, err := bulkhead.New("carrier", calls)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// lasting returns a call that lasts for d.
func lasting(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d):
			return nil
		}
	}
}

// A partner answers after 25 seconds. Its concurrency limit holds, other calls soon fail as busy, compensations continue, and another
// partner is not affected.
func TestASlowPartnerUsesOnlyItsOwnSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow, other := newBulkhead(t, 10), newBulkhead(t, 10)
		var running, most, busy, done atomic.Int64
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				began := time.Now()
				err := slow.Start(t.Context(), func(ctx context.Context) error {
					most.Store(max(most.Load(), running.Add(1)))
					defer running.Add(-1)
					return lasting(25 * time.Second)(ctx)
				})
				switch {
				case err == nil:
					done.Add(1)
				case errors.Is(err, partner.ErrBusy) && time.Since(began) == 3*time.Second:
					busy.Add(1)
				default:
					t.Errorf("got %v after %s", err, time.Since(began))
				}
			})
		}
		synctest.Wait()
		began := time.Now()
		for range 100 {
			if err := other.Start(t.Context(), lasting(time.Millisecond)); err != nil {
				t.Error(err)
			}
			if err := slow.Undo(t.Context(), lasting(time.Millisecond)); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("200 quick calls took %s", took)
		}
		all.Wait()
		if most.Load() != 10 || done.Load() != 10 || busy.Load() != 90 {
			t.Errorf("%d at a time, %d done, %d busy", most.Load(), done.Load(), busy.Load())
		}
	})
}

func TestACompensationWaitsForASlotUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBulkhead(t, 1)
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if err := b.Undo(t.Context(), lasting(10*time.Second)); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := b.Undo(ctx, lasting(time.Second)); !errors.Is(err, partner.ErrBusy) {
			t.Errorf("got %v", err)
		}
		all.Wait()
	})
}

// Many of 20,000 callers give up, before they have a slot or during the call.
func TestNoSlotIsLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBulkhead(t, 5)
		var all sync.WaitGroup
		for n := range 20_000 {
			all.Go(func() {
				time.Sleep(time.Duration(rand.N(1000)) * time.Millisecond)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.N(2000))*time.Millisecond)
				defer cancel()
				call := b.Start
				if n%2 == 0 {
					call = b.Undo
				}
				_ = call(ctx, lasting(time.Duration(rand.N(50))*time.Millisecond))
			})
		}
		all.Wait()
		// Every slot is free: as many calls as there are slots run at the same time.
		var met sync.WaitGroup
		met.Add(5)
		for range 5 {
			all.Go(func() {
				if err := b.Start(t.Context(), func(context.Context) error { met.Done(); met.Wait(); return nil }); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	})
}
