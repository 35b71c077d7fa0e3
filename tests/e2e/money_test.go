package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// in is an order in a currency; the price of its line and the total are JSON numbers exactly as given.
func in(currency, product, price string) map[string]any {
	body := orderBody("CUST-MONEY", 0, line(product, 1, 0))
	body["currency"], body["total_amount"] = currency, json.Number(price)
	body["items"].([]map[string]any)[0]["price"] = json.Number(price)
	return body
}

func TestMoneyFollowsItsCurrency(t *testing.T) {
	t.Parallel()
	setStock(t, waybill, "PROD-MONEY", 100)
	for _, c := range []struct {
		currency, price, says string
	}{
		{"JPY", "705.50", "must have no decimal places in JPY"},
		{"KWD", "1.2345", "must have at most 3 decimal places in KWD"},
		{"ZZZ", "1", "ISO 4217"},
		{"XAU", "1", "ISO 4217"},
	} {
		code, _, answer, err := call(t.Context(), http.MethodPost, waybill.App("orders").URL+"/v1/orders", in(c.currency, "PROD-MONEY", c.price))
		if err != nil || code != http.StatusUnprocessableEntity || !strings.Contains(string(answer), c.says) {
			t.Errorf("%s %s: %d %s %v", c.price, c.currency, code, answer, err)
		}
	}
	// The system of the tests has an approval threshold in USD only.
	for _, c := range []struct{ currency, price, status string }{
		{"KWD", "1.234", "awaiting_approval"}, {"JPY", "705", "awaiting_approval"}, {"USD", "4999.99", "fulfilled"},
	} {
		t.Run(c.currency, func(t *testing.T) {
			t.Parallel()
			id, err := place(t.Context(), waybill, "money-"+c.currency, in(c.currency, "PROD-MONEY", c.price))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := await(t.Context(), waybill, id, c.status); err != nil {
				t.Fatal(err)
			}
			if c.status == "awaiting_approval" {
				ask(t, waybill, http.MethodPost, "fulfillment", "/v1/approvals/"+id, decision(true, "approver@example.com"), http.StatusAccepted)
			}
			if _, err := await(t.Context(), waybill, id, "fulfilled"); err != nil {
				t.Fatal(err)
			}
			var shown struct {
				Total    json.Number `json:"total_amount"`
				Currency string      `json:"currency"`
			}
			_, _, answer, err := call(t.Context(), http.MethodGet, waybill.App("orders").URL+"/v1/orders/"+id, nil)
			if err != nil || json.Unmarshal(answer, &shown) != nil || shown.Currency != c.currency || strings.TrimSuffix(shown.Total.String(), ".00") != c.price {
				t.Errorf("%s %v, want %s", answer, err, c.price)
			}
		})
	}
}

// 100 adjustments of one product, each sent twice, while orders reserve and ship it.
func TestStockIsAdjustedWhileOrdersShip(t *testing.T) {
	t.Parallel()
	const product, adjustments, orders = "PROD-ADJUSTED", 100, 10
	setStock(t, waybill, product, orders)
	at := waybill.App("fulfillment").URL + "/v1/inventory/" + product
	_, header, _, err := call(t.Context(), http.MethodGet, at, nil)
	if err != nil {
		t.Fatal(err)
	}
	read := header.Get("ETag")
	var working sync.WaitGroup
	for i := range adjustments {
		for range 2 {
			working.Go(func() {
				for {
					code, _, answer, err := call(t.Context(), http.MethodPost, at+"/adjustments", map[string]any{"delta": 2, "reason": "Delivered."}, "Idempotency-Key", fmt.Sprintf("key-%d", i))
					if err == nil && code == http.StatusOK {
						return
					}
					if err != nil || code != http.StatusServiceUnavailable { // a busy store is asked again
						t.Errorf("adjust: %d %s %v", code, answer, err)
						return
					}
				}
			})
		}
	}
	for i := range orders {
		working.Go(func() {
			id, err := place(t.Context(), waybill, fmt.Sprintf("adjusted-%d", i), orderBody("CUST-MONEY", 10, line(product, 1, 10)))
			if err == nil {
				_, err = await(t.Context(), waybill, id, "fulfilled")
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	working.Wait()
	if diff := cmp.Diff(stock{OnHand: 2 * adjustments, Shipped: orders}, stockOf(t, waybill, product)); diff != "" {
		t.Errorf("stock (-want +got):\n%s", diff)
	}
	code, _, answer, err := call(t.Context(), http.MethodPut, at, map[string]int{"on_hand": orders}, "If-Match", read)
	if err != nil || code != http.StatusPreconditionFailed {
		t.Errorf("an old state was written: %d %s %v", code, answer, err)
	}
}
