package containers

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"waybill/tests/internal/client"
)

// product is a product that no other test orders, with a stock of n.
func product(ctx context.Context, t *testing.T, name string, n int) string {
	t.Helper()
	p := fmt.Sprintf("PROD-%s-%s", name, rand.Text()[:6]) // a test can run again on the same system
	setStock(ctx, t, p, n)
	return p
}

// awaitAccepted waits until n orders were accepted.
func (o *orders) awaitAccepted(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	for o.accepted.Load() < int32(n) {
		if !client.Wait(ctx, poll) {
			t.Fatalf("%d orders were accepted, not %d, in time", o.accepted.Load(), n)
		}
	}
}

// A sidecar loses its connection to the bus with orders in flight. Unfinished work waits and continues when the connection is
// back.
func TestACutBetweenASidecarAndTheBroker(t *testing.T) {
	const n = 20
	t.Run("fulfillment-sidecar", func(t *testing.T) {
		ctx := bounded(t)
		p := product(ctx, t, "CUT-F", 2*n)
		before := place(ctx, p, n)
		before.awaitAccepted(ctx, t, n/2)
		if err := waybill.cut(ctx, "fulfillment-sidecar", "bus"); err != nil {
			t.Fatal(err)
		}
		// Orders are still accepted and confirmed; fulfillment does not receive them yet.
		during := make([]string, n)
		for i := range during {
			id, err := client.Place(ctx, waybill, fmt.Sprintf("%s-during-%d", p, i), client.Body("CUST-CUT", 10, client.Line(p, 1, 10)))
			if err != nil {
				t.Fatal(err)
			}
			during[i] = id
		}
		for _, id := range during {
			if _, err := client.Await(ctx, waybill, id, "confirmed"); err != nil {
				t.Fatal(err)
			}
		}
		if err := waybill.mend(ctx, "fulfillment-sidecar", "bus"); err != nil {
			t.Fatal(err)
		}
		if err := before.placing.Wait(); err != nil {
			t.Fatal(err)
		}
		all := &orders{ids: append(before.ids, during...)}
		all.wantAllFulfilled(ctx, t, p)
	})
	t.Run("orders-sidecar", func(t *testing.T) {
		ctx := bounded(t)
		p := product(ctx, t, "CUT-O", n)
		placed := place(ctx, p, n)
		placed.awaitAccepted(ctx, t, n/2)
		if err := waybill.cut(ctx, "orders-sidecar", "bus"); err != nil {
			t.Fatal(err)
		}
		// An order that cannot be published is not accepted; its client retries.
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if id, err := client.Place(short, waybill, p+"-refused", client.Body("CUST-CUT", 10, client.Line("INVALID-PRODUCT", 1, 10))); err == nil {
			t.Errorf("order %s was accepted while nothing could be published", id)
		}
		if err := waybill.mend(ctx, "orders-sidecar", "bus"); err != nil {
			t.Fatal(err)
		}
		placed.wantAllFulfilled(ctx, t, p)
	})
}

// A container that is paused for a while, its connections open, loses nothing.
func TestAPausedContainer(t *testing.T) {
	const n = 20
	for _, name := range []string{"fulfillment", "broker"} {
		t.Run(name, func(t *testing.T) {
			ctx := bounded(t)
			p := product(ctx, t, "PAUSE", n)
			placed := place(ctx, p, n)
			placed.awaitAccepted(ctx, t, n/2)
			if err := waybill.pause(ctx, name); err != nil {
				t.Fatal(err)
			}
			// Long enough for an order's own time limit to pass.
			short, cancel := context.WithTimeout(ctx, 6*time.Second)
			defer cancel()
			_, err := client.Place(short, waybill, p+"-meanwhile", client.Body("CUST-PAUSE", 10, client.Line("INVALID-PRODUCT", 1, 10)))
			if accepted := err == nil; accepted != (name != "broker") {
				t.Errorf("while %s stands still, an order is accepted: %t (%v)", name, accepted, err)
			}
			if err := waybill.unpause(ctx, name); err != nil {
				t.Fatal(err)
			}
			placed.wantAllFulfilled(ctx, t, p)
		})
	}
}

// A container is killed with orders in flight and started again.
func TestAKilledContainer(t *testing.T) {
	const n = 20
	for _, name := range []string{"fulfillment-sidecar", "broker"} {
		t.Run(name, func(t *testing.T) {
			ctx := bounded(t)
			p := product(ctx, t, "KILL", n)
			placed := place(ctx, p, n)
			placed.awaitAccepted(ctx, t, n/2)
			if err := waybill.kill(ctx, name); err != nil {
				t.Fatal(err)
			}
			placed.wantAllFulfilled(ctx, t, p)
			if err := waybill.waitHealthy(ctx, slices.Sorted(maps.Keys(waybill.containers))...); err != nil {
				t.Error(err)
			}
		})
	}
}

// Every service is restarted in turn, as an update does, while customers place orders. No accepted order is lost, charged twice
// or shipped twice.
func TestRollingRestartUnderLoad(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*testTimeout)
	defer cancel()
	const stock = 100_000
	p := product(ctx, t, "ROLL", stock)
	enough := make(chan struct{})
	load := &orders{}
	var clients [4][]string
	for c := range clients {
		load.placing.Go(func() error {
			for i := 0; ; i++ {
				select {
				case <-enough:
					return nil
				default:
				}
				id, err := client.Place(ctx, waybill, fmt.Sprintf("%s-%d-%d", p, c, i), client.Body(fmt.Sprintf("CUST-ROLL-%d", c), 10, client.Line(p, 1, 10)))
				if err != nil {
					return err
				}
				clients[c] = append(clients[c], id)
				load.accepted.Add(1)
				if !client.Wait(ctx, 250*time.Millisecond) {
					return ctx.Err()
				}
			}
		})
	}
	for _, name := range []string{"orders", "fulfillment", "notifications", "analytics"} {
		// Under load means that some orders came before the restart and some after it.
		load.awaitAccepted(ctx, t, int(load.accepted.Load())+5)
		began := time.Now()
		if err := waybill.restart(ctx, name); err != nil {
			t.Fatal(err)
		}
		if err := waybill.waitReady(ctx, name); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s was restarted and ready again in %s", name, time.Since(began).Round(100*time.Millisecond))
	}
	load.awaitAccepted(ctx, t, int(load.accepted.Load())+5)
	close(enough)
	if err := load.placing.Wait(); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, c := range clients {
		ids = append(ids, c...)
	}
	t.Logf("%d orders were accepted", len(ids))
	for _, id := range ids {
		if _, err := client.Await(ctx, waybill, id, "fulfilled"); err != nil {
			t.Error(err)
			continue
		}
		wantBooks(ctx, t, id, client.Fulfilled)
	}
	wantStock(ctx, t, p, client.Stock{OnHand: stock - len(ids), Shipped: len(ids)})
	// Each line was counted as one purchase although analytics was restarted meanwhile.
	awaitCount(ctx, t, "purchases_"+p, len(ids))
}
