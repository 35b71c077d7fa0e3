package e2e

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// Every bad request gets a 4xx problem that names each faulty field, and nothing is stored.
func TestBadInputIsNamedAndStoresNothing(t *testing.T) {
	t.Parallel()
	const id = "BAD-INPUT"
	good := func() map[string]any {
		body := orderBody("CUST-BAD", 10, line("PROD-001", 1, 10))
		body["order_id"] = id
		return body
	}
	with := func(change func(body map[string]any)) any {
		body := good()
		change(body)
		return body
	}
	item := func(field string, value any) any {
		return with(func(body map[string]any) { body["items"].([]map[string]any)[0][field] = value })
	}
	for _, c := range []struct {
		name   string
		body   any
		status int
		fields []string
	}{
		{"no body", []byte{}, 400, nil},
		{"not JSON", []byte(`{"customer_id": `), 400, nil},
		{"trailing data", []byte(`{} {}`), 400, nil},
		{"an array", []byte(`[]`), 422, []string{"body"}},
		{"an empty object", []byte(`{}`), 422, []string{"customer_id", "items", "total_amount", "shipping_address"}},
		{"10 MB", bytes.Repeat([]byte(" "), 10<<20), 413, nil},
		{"unknown fields", with(func(b map[string]any) { b["discount"] = 1 }), 422, []string{"discount"}},
		{"unknown field of an item", item("colour", "red"), 422, []string{"colour"}},
		{"negative quantity", item("quantity", -5), 422, []string{"body.items[0].quantity"}},
		{"no quantity", item("quantity", 0), 422, []string{"body.items[0].quantity"}},
		{"fractional quantity", item("quantity", 1.5), 422, []string{"body.items[0].quantity"}},
		{"quantity as text", item("quantity", "1"), 422, []string{"body.items[0].quantity"}},
		{"price with three decimals", item("price", json.Number("9.999")), 422, []string{"body.items[0].price"}},
		{"negative price", item("price", -1), 422, []string{"body.items[0].price"}},
		{"price as text", item("price", "10"), 422, []string{"body.items[0].price"}},
		{"total that does not add up", with(func(b map[string]any) { b["total_amount"] = 11 }), 422, []string{"body.total_amount"}},
		{"10,000 items", with(func(b map[string]any) {
			b["items"] = slices.Repeat([]any{line("PROD-001", 1, 10)}, 10_000)
			b["total_amount"] = 100_000
		}), 422, []string{"body.items"}},
		{"no items", with(func(b map[string]any) { b["items"] = []any{} }), 422, []string{"body.items"}},
		{"empty ids", with(func(b map[string]any) {
			b["order_id"], b["customer_id"] = "", ""
			b["items"] = []any{line("", 1, 10)}
		}), 422, []string{"body.order_id", "body.customer_id", "body.items[0].product_id"}},
		{"ids with slashes", with(func(b map[string]any) {
			b["order_id"], b["customer_id"] = "a/b", "c/../d"
			b["items"] = []any{line("e/f", 1, 10)}
		}), 422, []string{"body.order_id", "body.customer_id", "body.items[0].product_id"}},
		{"everything at once", with(func(b map[string]any) {
			b["customer_id"], b["total_amount"], b["discount"] = "", json.Number("1.234"), true
			b["items"] = []any{line("PROD-001", -1, 10), map[string]any{"product_id": "PROD-001", "quantity": 1, "price": json.Number("0.001")}}
		}), 422, []string{"body.customer_id", "body.total_amount", "discount", "body.items[0].quantity", "body.items[1].price"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			code, header, answer, err := call(t.Context(), http.MethodPost, waybill.App("orders").URL+"/v1/orders", c.body)
			if err != nil {
				t.Fatal(err)
			}
			if code != c.status || !strings.HasPrefix(header.Get("Content-Type"), "application/problem+json") {
				t.Fatalf("answer %d %s: %s; want a %d problem", code, header.Get("Content-Type"), answer, c.status)
			}
			var problem struct {
				Title, Detail, Code string
				Errors              []struct{ Location, Message string }
			}
			if err := json.Unmarshal(answer, &problem); err != nil {
				t.Fatal(err)
			}
			if problem.Title == "" || problem.Code == "" {
				t.Errorf("problem %s, want a title and a code", answer)
			}
			if len(answer) > 64<<10 {
				t.Errorf("the problem has %d bytes", len(answer))
			}
			for _, field := range c.fields {
				named := 0
				for _, fault := range problem.Errors {
					if strings.Contains(fault.Location+" "+fault.Message, field) {
						named++
					}
				}
				if named == 0 {
					t.Errorf("no fault names %s: %s", field, answer)
				}
			}
		})
	}
	t.Cleanup(func() {
		if code, _, answer, err := call(t.Context(), http.MethodGet, waybill.App("orders").URL+"/v1/orders/"+id, nil); err == nil && code != http.StatusNotFound {
			t.Errorf("%s was stored: %d %s", id, code, answer)
		}
	})
}

func TestOddPathsAndQueriesAreProblems(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]int{
		"/v1/orders/UNKNOWN":                            404,
		"/v1/orders/a%2Fb":                              404,
		"/v1/orders":                                    422,
		"/v1/orders?customer_id=CUST-1&limit=0":         422,
		"/v1/orders?customer_id=CUST-1&limit=x":         422,
		"/v1/orders?customer_id=CUST-1&status=nonsense": 422,
		"/v1/orders?customer_id=CUST-1&cursor=nonsense": 422,
		"/v1/orders?customer_id=CUST-1&colour=red":      422,
		"/v1/nothing":                                   404,
		"/v1/orders/UNKNOWN/timeline":                   404,
	} {
		code, header, answer, err := call(t.Context(), http.MethodGet, waybill.App("orders").URL+path, nil)
		if err != nil || code != want || !strings.HasPrefix(header.Get("Content-Type"), "application/problem+json") {
			t.Errorf("GET %s: %d %s %s %v; want a %d problem", path, code, header.Get("Content-Type"), answer, err, want)
		}
	}
	for path, body := range map[string]any{
		"/v1/inventory/PROD-ODD": map[string]any{"on_hand": -1},
		"/v1/inventory/a%2Fb":    map[string]any{"on_hand": 1},
	} {
		code, _, answer, err := call(t.Context(), http.MethodPut, waybill.App("fulfillment").URL+path, body)
		if err != nil || code != 422 {
			t.Errorf("PUT %s: %d %s %v; want 422", path, code, answer, err)
		}
	}
	if code, _, _, err := call(t.Context(), http.MethodDelete, waybill.App("orders").URL+"/v1/orders/UNKNOWN", nil); err != nil || code != 405 {
		t.Errorf("DELETE of an order: %d %v; want 405", code, err)
	}
}
