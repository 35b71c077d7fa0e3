package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"waybill/tests/internal/program"
	"waybill/tests/internal/system"
)

// The workflow engine's database and the scheduler's data can both be lost (docs/adr/0018, docs/operations.md). Here everything
// stops while sagas run, wait before a retry, and wait for a person. Then the data of scheduler and engine is deleted. Every
// order still ends, charged once and shipped once.
func TestTheWorkflowEngineForgetsEverything(t *testing.T) {
	t.Parallel()
	const orders = 20
	ctx, cancel := context.WithTimeout(t.Context(), 3*testTimeout)
	defer cancel()
	out := &program.Tail{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the runner said:\n%s", out)
		}
	})
	data := t.TempDir()
	environment := []string{"RECONCILE_INTERVAL=2s", "RECONCILE_GRACE=2s", "STEP_FIRST_RETRY=2s"}
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
	lost, err := filepath.Glob(filepath.Join(data, "state", "fulfillment.workflowstore.db*"))
	if err != nil || len(lost) == 0 {
		t.Fatalf("the engine's data: %v, %v", lost, err)
	}
	for _, path := range append(lost, filepath.Join(data, "scheduler")) {
		if _, err := os.Stat(path); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
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
	ask(t, second, http.MethodPost, "fulfillment", "/v1/approvals/"+large, decision(true, "approver@example.com"), 202)
	if _, err := await(ctx, second, large, "fulfilled"); err != nil {
		t.Error(err)
	}
	wantBooks(t, second, large, fulfilledBooks)
	if err := second.Stop(); err != nil {
		t.Error(err)
	}
}
