package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

// Each process in turn is killed with SIGKILL while 50 orders are in flight. When it is back, every order is fulfilled, charged
// once and shipped once, and the stock adds up. The subtests run one after the other, because each kills what the others need.
func TestKillAnyProcess(t *testing.T) {
	const orders = 50
	for _, victim := range []string{"orders", "orders-sidecar", "fulfillment", "fulfillment-sidecar", "notifications", "notifications-sidecar", "placement", "scheduler", "broker"} {
		t.Run(victim, func(t *testing.T) {
			ctx := bounded(t)
			run := rand.Text()[:8] // the test can run again on the same system
			product := "PROD-KILL-" + run
			setStock(t, waybill, product, orders)
			ids := make([]string, orders)
			var accepted atomic.Int32
			enough := make(chan struct{})
			var once sync.Once
			var placing errgroup.Group
			placing.SetLimit(8)
			for i := range orders {
				placing.Go(func() error {
					id, err := place(ctx, waybill, fmt.Sprintf("kill-%s-%d", run, i),
						orderBody(fmt.Sprintf("CUST-KILL-%d", i%10), 10, line(product, 1, 10)))
					ids[i] = id
					if accepted.Add(1) == orders/2 {
						once.Do(func() { close(enough) })
					}
					return err
				})
				if i == orders/2 {
					placing.Go(func() error { return killWhen(ctx, enough, victim) })
				}
			}
			if err := placing.Wait(); err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				if _, err := await(ctx, waybill, id, "fulfilled"); err != nil {
					t.Error(err)
					continue
				}
				wantBooks(t, waybill, id, fulfilledBooks)
			}
			if diff := cmp.Diff(stock{Shipped: orders}, stockOf(t, waybill, product)); diff != "" {
				t.Errorf("stock (-want +got):\n%s", diff)
			}
		})
	}
}

// killWhen kills the process when enough orders are in flight.
func killWhen(ctx context.Context, enough <-chan struct{}, victim string) error {
	select {
	case <-enough:
	case <-ctx.Done():
		return ctx.Err()
	}
	return waybill.Kill(ctx, victim)
}
