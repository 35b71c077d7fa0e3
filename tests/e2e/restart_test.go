package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/tests/internal/program"
	"waybill/tests/internal/system"
)

// The whole system stops with orders in flight and one that waits for approval, once by Ctrl-C and once by killing the runner.
// Started again on the same data, it continues where it was. No process that it started is left running.
func TestASecondStartContinuesTheFirst(t *testing.T) {
	t.Parallel()
	const orders = 20
	stops := map[string]func(context.Context, *system.System) error{
		"Ctrl-C":        func(_ context.Context, s *system.System) error { return s.Stop() },
		"runner killed": func(ctx context.Context, s *system.System) error { return s.KillRunner(ctx) },
	}
	for name, stop := range stops {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*testTimeout)
			defer cancel()
			out := &program.Tail{}
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
			// An order that waited for a person still waits and is listed.
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

// The scheduler keeps the workflow engine's reminders on its disk. If that disk is lost with its container, as on Azure Container
// Apps, every saga looks as if it were running and would never continue. The reconciler restarts the sagas, whatever they were
// doing: paying, shipping, waiting for a person, refunding.
func TestASchedulerThatLosesItsDataLosesNoOrder(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*testTimeout)
	defer cancel()
	out := &program.Tail{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the runner said:\n%s", out)
		}
	})
	quickReconciler := []string{"RECONCILE_INTERVAL=1s", "RECONCILE_GRACE=1s", "LOST_AFTER=5s"}
	data := t.TempDir()
	first, err := system.Start(ctx, runner, data, out, quickReconciler...)
	if err != nil {
		t.Fatal(err)
	}
	const each = 4
	setStock(t, first, "PROD-LOST", 3*each)
	large := aLargeOrder(ctx, t, first, "lost-large")
	type kind struct {
		name, token, zip string
		status           string
		books            books
	}
	placed := map[string]kind{large: {name: "waiting", status: "fulfilled", books: fulfilledBooks}}
	last := ""
	for _, k := range []kind{
		{name: "refunding", token: "tok_refund_slow", zip: "X-REFUSED", status: "fulfillment_failed", books: refunded},
		{name: "shipping", zip: "X-SLOW", status: "fulfilled", books: fulfilledBooks},
		{name: "paying", token: "tok_slow", zip: "12345", status: "fulfilled", books: fulfilledBooks},
	} {
		for i := range each {
			body := orderBody(fmt.Sprintf("CUST-LOST-%d", i), 10, line("PROD-LOST", 1, 10))
			body["payment_token"] = k.token
			body["shipping_address"] = map[string]any{"street": "123 Test St", "city": "Test City", "state": "TS", "zip": k.zip}
			if last, err = place(ctx, first, fmt.Sprintf("lost-%s-%d", k.name, i), body); err != nil {
				t.Fatal(err)
			}
			placed[last] = k
		}
	}
	for begun := false; !begun; {
		code, _, answer, err := call(ctx, http.MethodGet, first.App("fulfillment").URL+"/v1/fulfillments/"+last, nil)
		begun = err == nil && code == http.StatusOK && strings.Contains(string(answer), "ValidatePayment")
		if !begun && !wait(ctx, 10*time.Millisecond) {
			t.Fatalf("the saga of %s does not begin in time: %d %s %v", last, code, answer, err)
		}
	}
	if err := first.KillRunner(ctx); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(data, "scheduler")); err != nil {
		t.Fatal(err)
	}
	second, err := system.Start(ctx, runner, data, out, quickReconciler...)
	if err != nil {
		t.Fatal(err)
	}
	ask(t, second, http.MethodPost, "fulfillment", "/v1/approvals/"+large, decision(true, "approver@example.com"), 202)
	restarts := map[string]int{}
	for id, k := range placed {
		if _, err := await(ctx, second, id, k.status); err != nil {
			t.Errorf("%s: %v", k.name, err)
			continue
		}
		got, err := booksOf(ctx, second, id)
		if err != nil {
			t.Fatal(err)
		}
		if n, ok := ask(t, second, http.MethodGet, "fulfillment", "/v1/fulfillments/"+id, nil, 200)["restarts"].(float64); ok {
			restarts[k.name] += int(n)
		}
		if diff := cmp.Diff(k.books, got); diff != "" {
			t.Errorf("books of %s, %s (-want +got):\n%s", id, k.name, diff)
		}
	}
	t.Logf("restarted sagas: %v", restarts)
	if restarts["paying"] == 0 {
		t.Error("no saga lost anything, so nothing was tested")
	}
	if diff := cmp.Diff(stock{OnHand: each, Shipped: 2 * each}, stockOf(t, second, "PROD-LOST")); diff != "" {
		t.Errorf("stock (-want +got):\n%s", diff)
	}
	if err := second.Stop(); err != nil {
		t.Error(err)
	}
}
