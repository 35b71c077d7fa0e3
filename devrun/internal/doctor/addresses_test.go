package doctor

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// answers are those of a service, by path and query.
type answers map[string]string

func (a answers) serve(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		if id := r.URL.Query().Get("order_id"); id != "" {
			path += "?" + id
		}
		answer, there := a[path]
		switch {
		case !there:
			w.WriteHeader(http.StatusNotFound)
		case answer == "500":
			w.WriteHeader(http.StatusInternalServerError)
		default:
			_, _ = w.Write([]byte(answer)) // the client says what is wrong
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// services are three whose orders fit: ORD-1 was fulfilled, ORD-4 waits for approval.
func services() (orders, fulfillment, notifications answers) {
	order := func(id, status string) string {
		return `{"order_id":"` + id + `","customer_id":"CUST-123","status":"` + status + `","items":[{"product_id":"PROD-001","quantity":2,"price":10.00}],"total_amount":20.00,"currency":"USD","processed_at":"2026-11-28T10:00:00Z","updated_at":"2026-11-28T10:00:00Z"}`
	}
	saga := func(id, rest string) string {
		return `{"order_id":"` + id + `","customer_id":"CUST-123","total_amount":20.00,"started_at":"2026-11-28T10:00:00Z",` + rest + `}`
	}
	books := func(state, parcels string) string {
		return `{"charges":[{"transaction_id":"TXN-1","amount":20.00}],"refunds":[],"reservation":{"state":"` + state + `","lines":{"PROD-001":2}},"parcels":[` + parcels + `]}`
	}
	orders = answers{
		"/v1/open-orders": `{"items":[{"order_id":"ORD-4"}],"more":false}`, "/v1/dead-letters": `{"topics":[{"topic":"orders","open":3}]}`,
		"/v1/orders/ORD-1": order("ORD-1", "fulfilled"), "/v1/orders/ORD-4": order("ORD-4", "awaiting_approval"),
	}
	fulfillment = answers{
		"/v1/fulfillments": `{"items":[{"order_id":"ORD-4"}],"more":false}`, "/v1/approvals": `{"items":[{"order_id":"ORD-4"}],"more":false}`, "/v1/dead-letters": `{"topics":[]}`,
		"/v1/fulfillments/ORD-1":       saga("ORD-1", `"state":"ended","outcome":"completed","ended_at":"`+time.Now().UTC().Format(time.RFC3339)+`"`),
		"/v1/fulfillments/ORD-4":       saga("ORD-4", `"state":"waiting","approval":{"state":"pending","expires_at":"2026-11-29T10:00:00Z"}`),
		"/v1/fulfillments/ORD-1/books": books("shipped", `"UPS-1"`), "/v1/fulfillments/ORD-4/books": books("reserved", ""),
		"/v1/inventory/PROD-001": `{"on_hand":98,"reserved":2}`,
	}
	notifications = answers{
		"/v1/dead-letters":          `{"topics":[]}`,
		"/v1/notifications?ORD-1":   `{"items":[{"notification_id":"ORD-1:order_shipped:email","state":"delivered"},{"notification_id":"ORD-1:order_shipped:sms","state":"delivered"},{"notification_id":"ORD-1:order_shipped:push","state":"failed"}]}`,
		"/v1/notifications?ORD-404": `{"items":[]}`, "/v1/notifications?ORD-4": `{"items":[]}`,
	}
	return orders, fulfillment, notifications
}

func TestAgainstAddresses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		plant func(orders, fulfillment, notifications answers)
		want  []string
	}{
		"healthy": {func(_, _, _ answers) {}, []string{}},
		"an order without a saga": {func(_, f, _ answers) {
			delete(f, "/v1/fulfillments/ORD-4")
		}, []string{"order_without_saga ORD-4"}},
		"a saga without an order": {func(o, _, _ answers) {
			delete(o, "/v1/orders/ORD-1")
		}, []string{"saga_without_order ORD-1"}},
		"an approval that is gone": {func(_, f, _ answers) {
			f["/v1/fulfillments/ORD-4"] = strings.Replace(f["/v1/fulfillments/ORD-4"], `"state":"waiting","approval"`, `"state":"running","appr0val"`, 1)
		}, []string{"approval_missing ORD-4"}},
		"an order that no reconciler looks at": {func(o, _, _ answers) {
			o["/v1/open-orders"] = `{"items":[],"more":false}`
		}, []string{"order_not_in_backlog ORD-4"}},
		"an outcome that nobody told": {func(o, _, _ answers) {
			o["/v1/orders/ORD-1"] = strings.Replace(o["/v1/orders/ORD-1"], "fulfilled", "fulfilling", 1)
			o["/v1/open-orders"] = `{"items":[{"order_id":"ORD-1"},{"order_id":"ORD-4"}],"more":false}`
		}, []string{"outcome_not_told ORD-1"}},
		"two charges": {func(_, f, _ answers) {
			f["/v1/fulfillments/ORD-1/books"] = strings.Replace(f["/v1/fulfillments/ORD-1/books"], `"charges":[`, `"charges":[{"transaction_id":"TXN-2","amount":20.00},`, 1)
		}, []string{"charged_twice ORD-1"}},
		"a parcel that was called back": {func(_, f, _ answers) {
			f["/v1/fulfillments/ORD-1/books"] = strings.Replace(f["/v1/fulfillments/ORD-1/books"], `"parcels"`, `"cancelled":true,"parcels"`, 1)
		}, []string{"charged_not_refunded ORD-1", "fulfilled_without_shipment ORD-1"}},
		"a message that nobody asked for": {func(_, _, n answers) {
			n["/v1/notifications?ORD-1"] = `{"items":[]}`
		}, []string{"message_missing ORD-1"}},
		"fewer than no pieces": {func(_, f, _ answers) {
			f["/v1/inventory/PROD-001"] = `{"on_hand":-1,"reserved":0}`
		}, []string{"on_hand_negative PROD-001"}},
		"a document that cannot be decoded": {func(o, _, _ answers) {
			o["/v1/orders/ORD-1"] = "500"
		}, []string{"document_unreadable ORD-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, f, n := services()
			c.plant(o, f, n)
			a := Addresses{Orders: o.serve(t), Fulfillment: f.serve(t), Notifications: n.serve(t), IDs: []string{"ORD-1"}}
			r, err := Remote(t.Context(), a, Options{Grace: 50 * time.Millisecond, Kept: patient.Kept})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, names(r)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(r.Notes) != 1 || len(r.Unseen) != 1 {
				t.Errorf("notes %v, unseen %v", r.Notes, r.Unseen)
			}
		})
	}
}

// What is longer than an answer, or not there, is said; a service that does not answer is an error.
func TestWhatAddressesDoNotShow(t *testing.T) {
	t.Parallel()
	o, f, _ := services()
	delete(o, "/v1/open-orders")
	f["/v1/fulfillments"] = `{"items":[{"order_id":"ORD-4"}],"more":true}`
	a := Addresses{Orders: o.serve(t), Fulfillment: f.serve(t)}
	r, err := Remote(t.Context(), a, Options{Grace: 50 * time.Millisecond, Kept: patient.Kept})
	if err != nil || !r.Healthy() || len(r.Unseen) != 4 {
		t.Errorf("%v: %v %v", err, names(r), r.Unseen)
	}
	a.Notifications = "http://127.0.0.1:1"
	if _, err := Remote(t.Context(), a, Options{Grace: time.Millisecond}); err == nil {
		t.Error("a service that does not answer is no error")
	}
}
