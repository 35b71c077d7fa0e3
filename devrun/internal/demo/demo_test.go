package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// world is a fake of orders and fulfillment. An order's status advances with each read.
type world struct {
	t      *testing.T
	mu     sync.Mutex
	orders map[string]*fake
	// ends changes how an order ends, by its number.
	ends map[string]string
	// refuse answers every decision and cancellation with this status.
	refuse int
}

type fake struct {
	way       []string // the statuses to come
	status    string
	failure   string
	approved  bool
	cancelled bool
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	id := path[min(2, len(path)-1)]
	o := w.orders[id]
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/v1/orders":
		id, o = w.place(r)
		rw.WriteHeader(http.StatusAccepted)
		w.show(rw, id, o)
	case r.Method == http.MethodGet && path[1] == "orders":
		w.advance(o)
		w.show(rw, id, o)
	case r.Method == http.MethodGet && path[1] == "fulfillments":
		if o.status == "received" {
			rw.WriteHeader(http.StatusNotFound)
			return
		}
		fmt.Fprint(rw, `{"steps":[{"step":"ValidatePayment","outcome":"done","attempts":1}]}`)
	case w.refuse != 0:
		http.Error(rw, `{"detail":"no"}`, w.refuse)
	case r.Method == http.MethodPost && path[1] == "approvals":
		var decision struct {
			Approved         bool
			Approver, Reason string
		}
		if err := json.NewDecoder(r.Body).Decode(&decision); err != nil || decision.Approver == "" || decision.Reason == "" {
			w.t.Errorf("decision %+v, %v", decision, err)
		}
		o.approved = decision.Approved
		rw.WriteHeader(http.StatusAccepted)
	case r.Method == http.MethodPost && path[len(path)-1] == "cancel":
		o.cancelled = true
		rw.WriteHeader(http.StatusAccepted)
	default:
		w.t.Errorf("%s %s", r.Method, r.URL.Path)
	}
}

func (w *world) place(r *http.Request) (string, *fake) {
	var body request
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		w.t.Error(err)
	}
	o := &fake{status: "received", way: []string{"confirmed", "fulfilling"}}
	switch {
	case body.Items[0].ProductID != "PROD-001" || body.PaymentToken == "tok_declined" || body.ShipTo.Zip != "12345":
		o.way, o.failure = append(o.way, "fulfillment_failed"), "It was refused."
	case body.Total == "5999.98":
		o.way = append(o.way, "awaiting_approval", "fulfilled")
	default:
		o.way = append(o.way, "fulfilled")
	}
	id := fmt.Sprintf("ORD-%d", len(w.orders)+1)
	if end, changed := w.ends[id]; changed {
		o.way[len(o.way)-1] = end
	}
	w.orders[id] = o
	return id, o
}

func (w *world) advance(o *fake) {
	switch {
	case o.cancelled:
		o.status, o.way = "cancelled", nil
	case o.status == "awaiting_approval" && !o.approved, len(o.way) == 0:
	default:
		o.status, o.way = o.way[0], o.way[1:]
	}
}

func (w *world) show(rw http.ResponseWriter, id string, o *fake) {
	now := time.Now()
	body := map[string]any{"order_id": id, "status": o.status, "created_at": now, "updated_at": now.Add(1500 * time.Millisecond)}
	if o.status == "fulfillment_failed" {
		body["failure"] = map[string]string{"message": o.failure}
	}
	if err := json.NewEncoder(rw).Encode(body); err != nil {
		w.t.Error(err)
	}
}

func play(t *testing.T, w *world) (string, error) {
	t.Helper()
	w.t, w.orders = t, map[string]*fake{}
	server := httptest.NewServer(http.HandlerFunc(w.serve))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var out strings.Builder
	err := Run(ctx, server.Client(), System{Orders: server.URL, Fulfillment: server.URL}, &out)
	return out.String(), err
}

func TestTheDemoFollowsEveryOrderToItsEnd(t *testing.T) {
	t.Parallel()
	out, err := play(t, &world{})
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"placed as ORD-1", "ValidatePayment done", "approved by demo@example.com", "asked to cancel", "is fulfillment_failed: It was refused.",
		"ORD-5  more than 5,000, approved          fulfilled           1.5s",
		"ORD-6  cancelled while it is being paid   cancelled           1.5s",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
}

func TestAnUnexpectedEndIsAnError(t *testing.T) {
	t.Parallel()
	out, err := play(t, &world{ends: map[string]string{"ORD-1": "cancelled"}})
	if err == nil || !strings.Contains(err.Error(), "ORD-1 (two pieces, paid and shipped) must end as fulfilled, got cancelled") {
		t.Errorf("%v", err)
	}
	if !strings.Contains(out, "SCENARIO") {
		t.Errorf("no table:\n%s", out)
	}
}

func TestARefusalIsAnError(t *testing.T) {
	t.Parallel()
	if out, err := play(t, &world{refuse: http.StatusConflict}); err == nil || !strings.Contains(err.Error(), `status 409: {"detail":"no"}`) {
		t.Errorf("%v\n%s", err, out)
	}
}
