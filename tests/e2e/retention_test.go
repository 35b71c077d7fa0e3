package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"waybill/tests/internal/stored"
)

// When the retention of a finished workflow is over, no row and no job of it is left, however long its history is, with and
// without a compensation, and although the sidecar that runs the workflows is killed while others are removed. A job that stayed
// would be triggered every second. Orders, messages and idempotency keys are removed as well.
func TestNothingIsLeftOfWhatHasEnded(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	s := ownSystem(ctx, t, "WORKFLOW_RETENTION=2s", "STATE_CLEANUP_INTERVAL=2s", "ORDER_RETENTION=20s", "IDEMPOTENCY_TTL=20s",
		"ADDRESS_WAIT=2s", "MESSAGE_RETENTION=2s", "STEP_FIRST_RETRY=1ms", "STEP_LAST_RETRY=1ms", "SEND_ATTEMPTS=1")
	const lines, few = 100, 20
	many := make([]map[string]any, lines)
	for n := range many {
		many[n] = line(fmt.Sprintf("PROD-%03d", n%10), 1, 10)
	}
	for n := range 10 {
		setStock(t, s, fmt.Sprintf("PROD-%03d", n), 1000)
	}
	ask(t, s, http.MethodPost, "orders", "/v1/orders", orderBody("CUST-123", 1200, append(many[:lines:lines], many[:20]...)...), 422)

	plain := func() map[string]any { return orderBody("CUST-123", 10, line("PROD-000", 1, 10)) }
	orders := map[string]map[string]any{
		"a hundred lines":            orderBody("CUST-123", 1000, many...),
		"more than a hundred events": with(plain(), "tok_fail_28", ""),
		"undone":                     with(plain(), "", "X-REFUSED"),
		"undone after many attempts": with(plain(), "tok_refund_fail_28", "X-REFUSED"),
	}
	for n := range few {
		orders[fmt.Sprintf("plain %d", n)] = plain()
	}
	var ends sync.WaitGroup
	for name, body := range orders {
		ends.Go(func() {
			want := "fulfilled"
			if strings.HasPrefix(name, "undone") {
				want = "fulfillment_failed"
			}
			id, err := place(ctx, s, strings.ReplaceAll(name, " ", "-"), body)
			if err == nil {
				_, err = await(ctx, s, id, want)
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	for range 2 {
		if err := s.Kill(ctx, "fulfillment-sidecar"); err != nil {
			t.Error(err)
		}
	}
	ends.Wait()
	goes := []string{
		stored.Jobs, "fulfillment.workflowstore/history", "fulfillment.workflowstore/inbox", "fulfillment.workflowstore/state",
		"orders.statestore/order", "orders.statestore/idempotency", "notifications.statestore/order-messages",
	}
	for {
		found, err := stored.Count(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, kind := range goes {
			if n := found[kind].Rows; n > 0 {
				left = append(left, fmt.Sprintf("%d of %s", n, kind))
			}
		}
		if len(left) == 0 {
			if n := found["fulfillment.statestore/saga"].Rows; n != int64(len(orders)) {
				t.Errorf("the journal has %d entries, want that of every order, %d", n, len(orders))
			}
			return
		}
		if !wait(ctx, 200*time.Millisecond) {
			t.Fatalf("it stays: %s", strings.Join(left, ", "))
		}
	}
}
