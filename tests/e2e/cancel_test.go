package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"waybill/tests/internal/system"
)

// cancel requests a cancellation and repeats the request until the outcome is known, as a client does: 503 means that
// fulfillment, which may just have been killed, has not answered yet.
func cancel(ctx context.Context, t *testing.T, s *system.System, id string, body any) int {
	t.Helper()
	for {
		code, _, answer, err := call(ctx, http.MethodPost, s.App("orders").URL+"/v1/orders/"+id+"/cancel", body)
		if err == nil && code != http.StatusServiceUnavailable {
			return code
		}
		if !wait(ctx, 200*time.Millisecond) {
			t.Fatalf("cancel %s: %d %s %v", id, code, answer, err)
		}
	}
}

// wantCancelled waits for the end of an order whose cancellation was answered with 202, and checks that no shipment, reservation
// or charge is left.
func wantCancelled(ctx context.Context, t *testing.T, id string) {
	t.Helper()
	if o, err := final(ctx, waybill, id); err != nil || o.Status != "cancelled" {
		t.Errorf("%s ended %q, %v; want it cancelled", id, o.Status, err)
	}
	var shipment struct {
		Booked    []json.RawMessage
		Cancelled bool
	}
	got, err := booksOf(ctx, waybill, id)
	if err == nil {
		_, err = system.ReadState(ctx, waybill.App("fulfillment").DaprHTTP, "statestore", "shipment:"+id, &shipment)
	}
	if err != nil || got.Charges != got.Refunds || len(shipment.Booked) > 0 && !shipment.Cancelled || got.Reservation == "reserved" || got.Reservation == "shipped" {
		t.Errorf("books of %s: %+v, shipment cancelled: %v, %v; want everything undone", id, got, shipment.Cancelled, err)
	}
}

// A step that retries checks for a cancellation between two attempts, whichever step it is and however long the backoff is.
func TestCancellingWhileAStepRetries(t *testing.T) {
	t.Parallel()
	setStock(t, waybill, "PROD-CANCEL-RETRY", 100)
	for name, trouble := range map[string]struct{ token, zip string }{
		"the carrier fails six times": {"", "X-FAIL-6"},
		"the carrier is down":         {"", "X-DOWN"},
		"the carrier never answers":   {"", "X-LOST"},
		"the payment fails six times": {"tok_fail_6", ""},
		"the payment is down":         {"tok_down", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			id, err := place(ctx, waybill, "cancel-retry-"+trouble.token+trouble.zip,
				with(orderBody("CUST-CANCEL-"+trouble.token+trouble.zip, 10, line("PROD-CANCEL-RETRY", 1, 10)), trouble.token, trouble.zip))
			if err != nil {
				t.Fatal(err)
			}
			// Wait until the step has failed at least once.
			for failing := false; !failing; {
				var saga struct {
					Steps []struct{ Outcome string }
				}
				if _, _, answer, err := call(ctx, http.MethodGet, waybill.App("fulfillment").URL+"/v1/fulfillments/"+id, nil); err == nil {
					_ = json.Unmarshal(answer, &saga) // a 404 has no steps
				}
				failing = len(saga.Steps) > 0 && saga.Steps[len(saga.Steps)-1].Outcome == "failing"
				if !failing && !wait(ctx, 50*time.Millisecond) {
					t.Fatalf("no step of %s fails", id)
				}
			}
			asked := time.Now()
			if code := cancel(ctx, t, waybill, id, nil); code != http.StatusAccepted {
				t.Fatalf("the cancellation was answered with %d", code)
			}
			wantCancelled(ctx, t, id)
			t.Logf("cancelled %s after it was asked for", time.Since(asked).Round(time.Millisecond))
		})
	}
}

// An approval does not overtake a cancellation. Twelve orders are cancelled and approved at the same moment; each order whose
// cancellation was answered with 202 ends cancelled. The approval that comes after it is refused, and the refusal names the
// cancellation.
func TestAnApprovalAfterACancellation(t *testing.T) {
	t.Parallel()
	setStock(t, waybill, "PROD-CANCEL-LARGE", 100)
	for i := range 12 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			id, err := place(ctx, waybill, fmt.Sprint("cancel-approve-", i), orderBody(fmt.Sprint("CUST-CANCEL-", i), 6000, line("PROD-CANCEL-LARGE", 1, 6000)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := await(ctx, waybill, id, "awaiting_approval"); err != nil {
				t.Fatal(err)
			}
			if code := cancel(ctx, t, waybill, id, map[string]any{"reason": "Ordered twice."}); code != http.StatusAccepted {
				t.Fatalf("the cancellation was answered with %d", code)
			}
			code, _, answer, err := call(ctx, http.MethodPost, waybill.App("fulfillment").URL+"/v1/approvals/"+id, decision(true, "approver@example.com"))
			var problem struct {
				Code    string
				Related struct {
					Approved bool
					Reason   string
				}
			}
			if err != nil || code != http.StatusConflict || json.Unmarshal(answer, &problem) != nil ||
				problem.Code != "cancelled" && problem.Code != "already_decided" || problem.Related.Approved || problem.Related.Reason != "Ordered twice." {
				t.Errorf("the approval was answered with %d %s %v, want a conflict that shows the cancellation", code, answer, err)
			}
			wantCancelled(ctx, t, id)
		})
	}
}

// A free order is not charged. A card that would be declined does not fail it, and its cancellation announces no refund.
func TestAFreeOrder(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	setStock(t, waybill, "PROD-FREE", 10)
	for zip, want := range map[string]string{"": "fulfilled", "X-REFUSED": "fulfillment_failed"} {
		id, err := place(ctx, waybill, "free-"+want, with(orderBody("CUST-FREE", 0, line("PROD-FREE", 1, 0)), "tok_declined", zip))
		if err != nil {
			t.Fatal(err)
		}
		if o, err := final(ctx, waybill, id); err != nil || o.Status != want {
			t.Errorf("%s ended %q, %v; want %s", id, o.Status, err, want)
		}
		got, err := booksOf(ctx, waybill, id)
		if err != nil || got.Charges != 0 || got.Refunds != 0 {
			t.Errorf("books of %s: %+v, %v", id, got, err)
		}
	}
}
