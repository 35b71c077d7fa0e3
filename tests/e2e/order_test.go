package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAnOrderPlacedOverRESTIsFulfilled(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	setStock(t, waybill, "PROD-REST", 5)
	id, err := place(ctx, waybill, "rest-1", orderBody("CUST-REST", 99.98, line("PROD-REST", 2, 49.99)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := await(ctx, waybill, id, "fulfilled")
	if err != nil {
		t.Fatal(err)
	}
	if got.TrackingNumber == "" || got.ProcessedAt == "" {
		t.Errorf("order %+v, want a tracking number and processed_at", got)
	}
	wantBooks(t, waybill, id, fulfilledBooks)
	if diff := cmp.Diff(stock{OnHand: 3, Shipped: 2}, stockOf(t, waybill, "PROD-REST")); diff != "" {
		t.Errorf("stock (-want +got):\n%s", diff)
	}
	want := []string{
		"Order.Created", "Order.Confirmed", "ValidatePayment done", "Order.Updated", "ReserveInventory done",
		"ProcessShipment done", "Fulfillment.Completed", "Order.Fulfilled",
	}
	if diff := cmp.Diff(want, story(timeline(t, waybill, id))); diff != "" {
		t.Errorf("timeline (-want +got):\n%s", diff)
	}
}

// The failing order of the original workshop: the product does not exist, so the payment is refunded, and the timeline says why.
func TestAnOrderForAnInvalidProductIsRefunded(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	body := orderBody("CUST-789", 99.99, line("INVALID-PRODUCT", 1, 99.99))
	body["shipping_address"] = map[string]any{"street": "789 Error St", "city": "Fail City", "state": "ER", "zip": "00000"}
	id, err := place(ctx, waybill, "invalid-product", body)
	if err != nil {
		t.Fatal(err)
	}
	got, err := await(ctx, waybill, id, "fulfillment_failed")
	if err != nil {
		t.Fatal(err)
	}
	if got.Failure == nil || got.Failure.Code != "unknown_product" || got.Failure.Message != "There is no product INVALID-PRODUCT." {
		t.Errorf("failure %+v, want one that names the product", got.Failure)
	}
	wantBooks(t, waybill, id, books{Charges: 1, Refunds: 1, Reservation: "refused"})
	want := []string{
		"Order.Created", "Order.Confirmed", "ValidatePayment done", "Order.Updated", "ReserveInventory refused",
		"RefundPayment done", "Fulfillment.Failed", "Order.FulfillmentFailed",
	}
	if diff := cmp.Diff(want, story(timeline(t, waybill, id))); diff != "" {
		t.Errorf("timeline (-want +got):\n%s", diff)
	}
}

// The five orders of one customer of the original workshop are listed, each once, newest first, over several pages.
func TestACustomersOrdersAreListedOnce(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	setStock(t, waybill, "PROD-LIST", 100)
	const orders = 5
	want := make([]string, 0, orders)
	for i := range orders {
		id, err := place(ctx, waybill, fmt.Sprintf("list-%d", i), orderBody("CONSISTENCY-TEST", 10, line("PROD-LIST", 1, 10)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := await(ctx, waybill, id, "fulfilled"); err != nil {
			t.Fatal(err)
		}
		want = append(want, id)
	}
	slices.Reverse(want)
	var got []string
	for cursor := ""; ; {
		query := url.Values{"customer_id": {"CONSISTENCY-TEST"}, "limit": {"2"}}
		if cursor != "" {
			query.Set("cursor", cursor)
		}
		code, _, answer, err := call(ctx, http.MethodGet, waybill.App("orders").URL+"/v1/orders?"+query.Encode(), nil)
		if err != nil || code != http.StatusOK {
			t.Fatalf("list: %d %s %v", code, answer, err)
		}
		var page struct {
			Items      []order
			NextCursor string `json:"next_cursor"`
		}
		if err := json.Unmarshal(answer, &page); err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Items {
			got = append(got, o.OrderID)
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
}

func TestARepeatedRequestIsOneOrder(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	setStock(t, waybill, "PROD-REPEAT", 5)
	body := orderBody("CUST-REPEAT", 10, line("PROD-REPEAT", 1, 10))
	first, err := place(ctx, waybill, "repeat-1", body)
	if err != nil {
		t.Fatal(err)
	}
	second, err := place(ctx, waybill, "repeat-1", body)
	if err != nil {
		t.Fatal(err)
	}
	if first != second {
		t.Errorf("orders %s and %s, want the same", first, second)
	}
	code, _, answer, err := call(ctx, http.MethodPost, waybill.App("orders").URL+"/v1/orders",
		orderBody("CUST-REPEAT", 20, line("PROD-REPEAT", 2, 10)), "Idempotency-Key", "repeat-1")
	if err != nil || code != http.StatusUnprocessableEntity {
		t.Errorf("same key, other body: %d %s %v, want 422", code, answer, err)
	}
	if _, err := await(ctx, waybill, first, "fulfilled"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(stock{OnHand: 4, Shipped: 1}, stockOf(t, waybill, "PROD-REPEAT")); diff != "" {
		t.Errorf("stock (-want +got):\n%s", diff)
	}
}
