package e2e

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/tests/internal/system"
)

// The whole system stops with orders in flight and one that waits for approval, once as Ctrl-C stops it and once by killing the runner, and goes on
// where it was when it is started again on the same data. Nothing it started is left behind.
func TestASecondStartContinuesTheFirst(t *testing.T) {
	t.Parallel()
	const orders = 20
	stops := map[string]func(context.Context, *system.System) error{
		"Ctrl-C":        func(_ context.Context, s *system.System) error { return s.Stop() },
		"runner killed": func(ctx context.Context, s *system.System) error { return s.KillRunner(ctx) },
	}
	for name, stop := range stops {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			out := &output{}
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("the runner said:\n%s", out)
				}
			})
			data := t.TempDir()
			first, err := system.Start(ctx, runner, data, out)
			if err != nil {
				t.Fatal(err)
			}
			setStock(t, first, "PROD-STOP", orders)
			ids := make([]string, 0, orders)
			for i := range orders {
				id, err := place(ctx, first, fmt.Sprintf("stop-%d", i), orderBody(fmt.Sprintf("CUST-STOP-%d", i%5), 10, line("PROD-STOP", 1, 10)))
				if err != nil {
					t.Fatal(err)
				}
				ids = append(ids, id)
			}
			large := aLargeOrder(ctx, t, first, "stop-large")
			if err := stop(ctx, first); err != nil {
				t.Fatal(err)
			}
			second, err := system.Start(ctx, runner, data, out)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				if _, err := await(ctx, second, id, "fulfilled"); err != nil {
					t.Error(err)
					continue
				}
				wantBooks(t, second, id, fulfilledBooks)
			}
			// Who waited for a person waits on, and is found.
			ask(t, second, http.MethodPost, "fulfillment", "/v1/approvals/"+large, decision(true, "approver@example.com"), 202)
			if _, err := await(ctx, second, large, "fulfilled"); err != nil {
				t.Error(err)
			}
			wantBooks(t, second, large, fulfilledBooks)
			if diff := cmp.Diff(stock{Shipped: orders}, stockOf(t, second, "PROD-STOP")); diff != "" {
				t.Errorf("stock (-want +got):\n%s", diff)
			}
			before := time.Now()
			if err := second.Stop(); err != nil {
				t.Error(err)
			}
			t.Logf("stopped in %s", time.Since(before).Round(time.Millisecond))
		})
	}
}
