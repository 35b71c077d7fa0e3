package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"waybill/tests/internal/system"
)

// On Container Apps fulfillment's scheduler loses its data with its replica (docs/adr/0018). Here everything stops with sagas at
// work, in the pause before a retry, and waiting for a person; the scheduler's data is thrown away; and every order still ends.
func TestTheSchedulersDataIsLost(t *testing.T) {
	t.Parallel()
	const orders = 20
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	out := &output{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the runner said:\n%s", out)
		}
	})
	data := t.TempDir()
	environment := []string{"STUCK_AFTER=10s", "WATCHDOG_INTERVAL=2s", "WATCHDOG_GRACE=2s", "STEP_FIRST_RETRY=2s"}
	first, err := system.Start(ctx, runner, data, out, environment...)
	if err != nil {
		t.Fatal(err)
	}
	setStock(t, first, "PROD-LOST", orders)
	ids := make([]string, 0, orders)
	for i := range orders {
		body := orderBody(fmt.Sprintf("CUST-LOST-%d", i%5), 10, line("PROD-LOST", 1, 10))
		if i%2 == 0 {
			body["payment_token"] = "tok_fail_3"
		}
		id, err := place(ctx, first, fmt.Sprintf("lost-%d", i), body)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	large := aLargeOrder(ctx, t, first, "lost-large")
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	lost := filepath.Join(data, "scheduler")
	if kept, err := os.ReadDir(lost); err != nil || len(kept) == 0 {
		t.Fatalf("the scheduler's data: %v, %v", kept, err)
	}
	if err := os.RemoveAll(lost); err != nil {
		t.Fatal(err)
	}
	second, err := system.Start(ctx, runner, data, out, environment...)
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	for _, id := range ids {
		if _, err := await(ctx, second, id, "fulfilled"); err != nil {
			t.Error(err)
			continue
		}
		wantBooks(t, second, id, fulfilledBooks)
	}
	t.Logf("all ended after %s", time.Since(before).Round(time.Millisecond))
	_ = large
	if err := second.Stop(); err != nil {
		t.Error(err)
	}
}
