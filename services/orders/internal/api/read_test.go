package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/services/orders/internal/order"
)

func TestGet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.accepted(w.place(nil))
	var shown shownOrder
	etag := w.get("/v1/orders/"+id, &shown).Header().Get("ETag")
	if len(etag) < 4 || etag[0] != '"' || etag[len(etag)-1] != '"' {
		t.Errorf("the ETag is %s", etag)
	}
	for _, known := range []string{etag, "W/" + etag, `"other", ` + etag, "*"} {
		answer := w.request(http.MethodGet, "/v1/orders/"+id, "", "If-None-Match", known)
		if answer.Code != http.StatusNotModified || answer.Body.Len() > 0 || answer.Header().Get("ETag") != etag {
			t.Errorf("If-None-Match %s: %d %s", known, answer.Code, answer.Body)
		}
	}
	w.confirmAll()
	answer := w.request(http.MethodGet, "/v1/orders/"+id, "", "If-None-Match", etag)
	if answer.Code != http.StatusOK || answer.Header().Get("ETag") == etag {
		t.Errorf("a changed order: %d %s", answer.Code, answer.Header().Get("ETag"))
	}
}

func TestGetWhatIsNotThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, path := range []string{"/v1/orders/nobody", "/v1/orders/nobody/timeline", "/v1/orders/a%2Fb", "/v1/orders/" + strings.Repeat("x", 1000)} {
		if p := w.refused(w.request(http.MethodGet, path, ""), http.StatusNotFound); p.Code != "order_not_found" {
			t.Errorf("%.40s: %s", path, p.Code)
		}
	}
	w.faults.reset(0, storeAway)
	w.refused(w.request(http.MethodGet, "/v1/orders/nobody", ""), http.StatusServiceUnavailable)
	w.refused(w.request(http.MethodGet, "/v1/orders?customer_id=a", ""), http.StatusServiceUnavailable)
	w.refused(w.request(http.MethodDelete, "/v1/orders/nobody", ""), http.StatusMethodNotAllowed)
}

func TestBadLists(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 3 {
		w.taken(contracts.TopicOrders, elsewhere(t, fmt.Sprint(i), map[string]any{"order_id": fmt.Sprint("o-", i)}))
	}
	var page struct {
		NextCursor string `json:"next_cursor"`
	}
	w.get("/v1/orders?customer_id=CUST-123&limit=1", &page)
	for query, locations := range map[string][]string{
		"":                                        {"query.customer_id"},
		"customer_id=":                            {"query.customer_id"},
		"customer_id=a%2Fb":                       {"query.customer_id"},
		"customer_id=a&limit=0":                   {"query.limit"},
		"customer_id=a&limit=101":                 {"query.limit"},
		"customer_id=a&limit=ten":                 {"query.limit"},
		"customer_id=a&status=banana":             {"query.status"},
		"customer_id=a&cursor=banana":             {"query.cursor"},
		"customer_id=a&cursor=%00":                {"query.cursor"},
		"customer_id=a&page=2":                    {"query.page"},
		"status=banana&limit=0":                   {"query.customer_id", "query.limit", "query.status"},
		"customer_id=a&cursor=LTU6YQ":             {"query.cursor"}, // -5:a
		"customer_id=a&cursor=MDph":               {"query.cursor"}, // 0:a
		"customer_id=a&cursor=" + page.NextCursor: {"query.cursor"}, // another customer's
	} {
		p := w.refused(w.request(http.MethodGet, "/v1/orders?"+query, ""), http.StatusUnprocessableEntity)
		if diff := cmp.Diff(locations, p.locations()); diff != "" {
			t.Errorf("%s: %s", query, diff)
		}
	}
}

// pages reads a list to its end, calling between before each page but the first.
func (w *world) pages(query string, between func()) []string {
	w.t.Helper()
	ids, cursor := []string{}, ""
	for range 1000 {
		var page struct {
			Items      []shownOrder
			NextCursor string `json:"next_cursor"`
		}
		at := "/v1/orders?" + query
		if cursor != "" {
			at += "&cursor=" + url.QueryEscape(cursor)
		}
		w.get(at, &page)
		if page.Items == nil {
			w.t.Fatal("items is null")
		}
		for _, o := range page.Items {
			ids = append(ids, o.OrderID)
		}
		if cursor = page.NextCursor; cursor == "" {
			return ids
		}
		if between != nil {
			between()
		}
	}
	w.t.Fatal("the list has no end")
	return nil
}

func TestListWhileOrdersAreAdded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	added := 0
	add := func() {
		id := fmt.Sprintf("o-%03d", added)
		e := elsewhere(t, id, map[string]any{"order_id": id})
		w.taken(contracts.TopicOrders, e)
		w.taken(contracts.TopicOrders, e)
		added++
	}
	want := func(from int) []string {
		var ids []string
		for i := from - 1; i >= 0; i-- {
			ids = append(ids, fmt.Sprintf("o-%03d", i))
		}
		return ids
	}
	for range 250 {
		add()
	}
	if diff := cmp.Diff(want(250), w.pages("customer_id=CUST-123", nil)); diff != "" {
		t.Errorf("in peace: %s", diff)
	}
	for _, limit := range []int{1, 20, 99, 100} {
		from := added
		if diff := cmp.Diff(want(from), w.pages(fmt.Sprint("customer_id=CUST-123&limit=", limit), func() {
			if added < 350 {
				add()
			}
		})[:from]); diff != "" {
			t.Errorf("limit %d: %s", limit, diff)
		}
	}
	if got := w.pages("customer_id=nobody", nil); len(got) != 0 {
		t.Errorf("a stranger has %v", got)
	}
}

func TestListByStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var want []string
	for i := range 750 {
		id := fmt.Sprintf("o-%04d", i)
		w.taken(contracts.TopicOrders, elsewhere(t, id, map[string]any{"order_id": id}))
		if i%370 == 0 {
			w.taken(contracts.TopicFulfillment, sagaOf(t, id, true)[3])
			want = append(want, id)
		}
	}
	slices.Reverse(want)
	if diff := cmp.Diff(want, w.pages("customer_id=CUST-123&status=fulfilled", nil)); diff != "" {
		t.Error(diff)
	}
	if got := w.pages("customer_id=CUST-123&status=cancelled", nil); len(got) != 0 {
		t.Errorf("cancelled: %v", got)
	}
	// One request reads a bounded number of orders, whatever it finds.
	w.faults.reset(0, never)
	w.request(http.MethodGet, "/v1/orders?customer_id=CUST-123&status=cancelled", "")
	if w.faults.calls > 30 {
		t.Errorf("one request made %d calls to the store", w.faults.calls)
	}
}

// TestOpenAPI holds the description to the domain's limits and to what the service answers.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var doc struct {
		Paths map[string]map[string]struct {
			Summary   string
			Responses map[string]struct {
				Content map[string]struct {
					Schema struct {
						Ref string `json:"$ref"`
					}
				}
			}
			Parameters []struct {
				Name   string
				Schema struct{ Enum []string }
			}
		}
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct {
					Type     any
					Pattern  string
					MaxItems int
					Maximum  float64
				}
			}
		}
	}
	w.get("/openapi.json", &doc)
	for path, methods := range doc.Paths {
		for method, operation := range methods {
			if operation.Summary == "" || operation.Responses["503"].Content["application/problem+json"].Schema.Ref != "#/components/schemas/Problem" {
				t.Errorf("%s %s is not described whole", method, path)
			}
			for _, p := range operation.Parameters {
				if p.Name != "status" {
					continue
				}
				statuses := make([]string, 0, len(order.Statuses()))
				for _, s := range order.Statuses() {
					statuses = append(statuses, string(s))
				}
				if diff := cmp.Diff(statuses, p.Schema.Enum); diff != "" {
					t.Error(diff)
				}
			}
		}
	}
	if len(doc.Paths) != 5 {
		t.Errorf("%d paths", len(doc.Paths))
	}
	created, line := doc.Components.Schemas["NewOrder"].Properties, doc.Components.Schemas["NewLine"].Properties
	if created["items"].MaxItems != order.MaxLines || line["quantity"].Maximum != order.MaxQuantity || line["price"].Type != "number" || line["quantity"].Type != "integer" {
		t.Errorf("the limits are %+v %+v", created, line)
	}
	for name, pattern := range map[string]string{"order_id": created["order_id"].Pattern, "customer_id": created["customer_id"].Pattern, "product_id": line["product_id"].Pattern} {
		if pattern != order.IDPattern {
			t.Errorf("%s is described by %s", name, pattern)
		}
	}
	if _, ok := doc.Components.Schemas["ShownOrder"].Properties["payment_token"]; ok {
		t.Error("the payment token is shown")
	}
	if b, err := json.Marshal(doc.Components.Schemas["Line"].Properties["price"].Type); err != nil || string(b) != `"number"` {
		t.Errorf("a shown price is a %s", b)
	}
}
