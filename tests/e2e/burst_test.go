package e2e

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

// A burst of orders for one product: each order is either refused at admission or fulfilled, orders for other products go through
// meanwhile, and nothing that is left delays later orders. `make test-overload` offers a much higher load and measures it. This
// test runs alone, because it would make requests of other tests be refused.
func TestABurstOfOrdersForOneProduct(t *testing.T) {
	const orders, clients, onHand = 400, 64, 10_000
	ctx := bounded(t)
	run := rand.Text()[:8] // the test can run again on the same system
	hot, other := "PROD-HOT-"+run, "PROD-COLD-"+run
	setStock(t, waybill, hot, onHand)
	setStock(t, waybill, other, onHand)

	var mu sync.Mutex
	var accepted []string
	var placing errgroup.Group
	placing.SetLimit(clients)
	for n := range orders {
		if n == orders/2 {
			placing.Go(func() error {
				id, err := place(ctx, waybill, "other-"+run, orderBody("CUST-OTHER", 10, line(other, 1, 10)))
				if err != nil {
					return err
				}
				_, err = await(ctx, waybill, id, "fulfilled")
				return err
			})
		}
		placing.Go(func() error {
			body := orderBody(fmt.Sprintf("CUST-HOT-%d", n%20), 10, line(hot, 1, 10))
			id := fmt.Sprintf("HOT-%s-%d", run, n)
			body["order_id"] = id
			status, header, answer, err := call(ctx, http.MethodPost, waybill.App("orders").URL+"/v1/orders", body)
			switch {
			case err != nil:
				return err
			case status == http.StatusAccepted:
				mu.Lock()
				defer mu.Unlock()
				accepted = append(accepted, id)
			case status != http.StatusServiceUnavailable || header.Get("Retry-After") == "":
				return fmt.Errorf("order %s: %d %s, Retry-After %q; want 202, or 503 with Retry-After", id, status, answer, header.Get("Retry-After"))
			}
			return nil
		})
	}
	if err := placing.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d orders were accepted", len(accepted), orders)
	if len(accepted) < clients/2 {
		t.Errorf("%d orders were accepted, want more", len(accepted))
	}
	for _, id := range accepted {
		got, err := await(ctx, waybill, id, "fulfilled")
		if err != nil {
			t.Fatalf("%v; failure %+v", err, got.Failure)
		}
		wantBooks(t, waybill, id, fulfilledBooks)
	}
	if diff := cmp.Diff(stock{OnHand: onHand - len(accepted), Shipped: len(accepted)}, stockOf(t, waybill, hot)); diff != "" {
		t.Errorf("stock (-want +got):\n%s", diff)
	}

	id, err := place(ctx, waybill, "after-"+run, orderBody("CUST-AFTER", 10, line(hot, 1, 10)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := await(ctx, waybill, id, "fulfilled"); err != nil {
		t.Error(err)
	}
}
