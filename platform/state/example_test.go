package state_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"waybill/platform/state"
)

type stock struct {
	Available int `json:"available"`
}

// Update reads a document, changes it and writes it back. If another writer was faster, it runs the change again.
func ExampleUpdate() {
	ctx := context.Background()
	store := state.NewMemory()
	errSoldOut := errors.New("sold out")
	take := func(n int) func(*stock, bool) error {
		return func(s *stock, exists bool) error {
			if !exists {
				s.Available = 10
			}
			if s.Available < n {
				return errSoldOut
			}
			s.Available -= n
			return nil
		}
	}
	left, err := state.Update(ctx, store, "stock:PROD-001", take(7))
	fmt.Println(left.Available, err)
	left, err = state.Update(ctx, store, "stock:PROD-001", take(7))
	fmt.Println(left.Available, err)
	// Output:
	// 3 <nil>
	// 3 sold out
}

// A service puts the retries outside of the concurrency limit, so that a call that waits for its next attempt holds no slot.
func ExampleWithRetry() {
	ctx := context.Background()
	limited := state.WithConcurrencyLimit(state.NewMemory(), 2)
	store := state.WithRetry(limited, 4*time.Second)
	if err := store.Create(ctx, "stock:PROD-001", stock{Available: 10}); err != nil {
		fmt.Println(err)
	}
	err := store.Create(ctx, "stock:PROD-001", stock{Available: 20})
	fmt.Println(errors.Is(err, state.ErrConflict)) // it is not retried
	// Output: true
}
