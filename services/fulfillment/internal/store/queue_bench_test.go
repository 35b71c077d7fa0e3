package store_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"waybill/platform/state"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/store"
)

// The cost of a reservation with a store that takes a millisecond for each call, for one product and for twenty.
func BenchmarkReserve(b *testing.B) {
	for _, products := range []int{1, 20} {
		b.Run(fmt.Sprintf("products=%d", products), func(b *testing.B) {
			memory := &distant{Memory: state.NewMemory(), latency: time.Millisecond}
			w := store.NewInventory(memory, func(context.Context, inventory.Stock) error { return nil }, time.Now)
			for n := range products {
				if _, err := w.Set(b.Context(), fmt.Sprintf("PROD-%d", n), inventory.MaxOnHand); err != nil {
					b.Fatal(err)
				}
			}
			var next atomic.Int64
			b.SetParallelism(64)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					n := int(next.Add(1))
					refused, err := w.Reserve(b.Context(), order(fmt.Sprintf("ORDER-%d", n), pieces(fmt.Sprintf("PROD-%d", n%products), 1)))
					if err != nil || refused != nil {
						b.Error(refused, err)
					}
				}
			})
			w.Wait()
		})
	}
}
