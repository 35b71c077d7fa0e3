package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"waybill/tests/internal/system"
)

// admission is the part of orders' /readyz that says how much work is open.
type admission struct {
	State   string  `json:"state"`
	Cause   string  `json:"cause"`
	Open    int     `json:"open"`
	Limit   int     `json:"limit"`
	Oldest  float64 `json:"oldest_age_seconds"`
	BusHeld bool    `json:"bus_held"`
}

// awaitAdmission waits until admission is as wanted, and fails if orders is not ready meanwhile.
func awaitAdmission(ctx context.Context, t *testing.T, s *system.System, wanted func(admission) bool) {
	t.Helper()
	for {
		var body struct{ Admission admission }
		code, _, answer, err := call(ctx, http.MethodGet, s.App("orders").URL+"/readyz", nil)
		if err == nil && code == http.StatusOK {
			err = json.Unmarshal(answer, &body)
		}
		if err == nil && code == http.StatusOK && wanted(body.Admission) {
			return
		}
		if !wait(ctx, 50*time.Millisecond) {
			t.Fatalf("readyz: %d %s %v", code, answer, err)
		}
	}
}

// Orders that wait for a slow carrier fill the limit of open orders. A new order over REST is then refused before anything of it
// is stored; a new order on the bus waits there. Open orders can still be read and cancelled. When enough of them have ended,
// both new orders are accepted. Finally, a slow carrier that accepts one call at a time delays its own orders, fails none, and
// does not delay payments.
func TestNoMoreIsAcceptedThanCanBeFinished(t *testing.T) {
	t.Parallel()
	const bound = 5
	ctx := bounded(t)
	s := ownSystem(ctx, t, fmt.Sprint("ADMISSION_OPEN=", bound), "PARTNER_CALLS=1")
	setStock(t, s, "PROD-ADM", 100)
	body := func(n int) map[string]any {
		return orderBody(fmt.Sprint("CUST-ADM-", n), 10, line("PROD-ADM", 1, 10))
	}
	ids := make([]string, 0, bound)
	for n := range bound {
		id, err := place(ctx, s, "", with(body(n), "", "X-DOWN"))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	awaitAdmission(ctx, t, s, func(a admission) bool {
		return a.State == "closed" && a.Cause == "open" && a.Open == bound && a.Limit == bound
	})
	for _, id := range ids {
		if _, err := await(ctx, s, id, "fulfilling"); err != nil {
			t.Fatal(err)
		}
	}

	late := body(bound)
	late["order_id"] = "ord-late"
	code, header, answer, err := call(ctx, http.MethodPost, s.App("orders").URL+"/v1/orders", late, "Idempotency-Key", "late")
	if err != nil {
		t.Fatal(err)
	}
	var problem struct{ Code string }
	seconds, notNumber := strconv.Atoi(header.Get("Retry-After"))
	if err := json.Unmarshal(answer, &problem); err != nil || code != http.StatusServiceUnavailable || problem.Code != "overloaded" ||
		notNumber != nil || seconds < 1 || seconds > 60 {
		t.Fatalf("got %d %s, Retry-After %q", code, answer, header.Get("Retry-After"))
	}
	status, err := s.Status()
	if err != nil {
		t.Fatal(err)
	}
	bus, err := kgo.NewClient(kgo.SeedBrokers(status.Broker))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bus.Close)
	foreign := body(bound + 1)
	foreign["order_id"] = "ord-foreign"
	publish(t, bus, "orders", "CUST-ADM-0", created(t, "EVT-foreign", foreign))
	awaitAdmission(ctx, t, s, func(a admission) bool { return a.BusHeld })

	// Cancelling one order is not enough: admission opens again at four fifths of the limit.
	if code := cancel(ctx, t, s, ids[0], nil); code != http.StatusAccepted {
		t.Errorf("cancel: %d", code)
	}
	if _, err := await(ctx, s, ids[0], "cancelled"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"ord-late", "ord-foreign"} {
		if _, code, err := read(ctx, s, id); err != nil || code != http.StatusNotFound {
			t.Errorf("%s: %d %v, want nothing stored", id, code, err)
		}
	}
	for _, id := range ids[1:] {
		if code := cancel(ctx, t, s, id, nil); code != http.StatusAccepted {
			t.Errorf("cancel: %d", code)
		}
	}
	id, err := place(ctx, s, "late", late)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{id, "ord-foreign"} {
		if _, err := await(ctx, s, id, "fulfilled"); err != nil {
			t.Fatal(err)
		}
		wantBooks(t, s, id, fulfilledBooks)
	}
	awaitAdmission(ctx, t, s, func(a admission) bool { return a.State == "open" && a.Open == 0 && a.Oldest == 0 })
	code, _, answer, err = call(ctx, http.MethodGet, s.App("orders").URL+"/v1/dead-letters?topic=orders", nil)
	var letters struct{ Items []any }
	if err == nil {
		err = json.Unmarshal(answer, &letters)
	}
	if err != nil || code != http.StatusOK || len(letters.Items) > 0 {
		t.Errorf("dead letters: %d %s %v", code, answer, err)
	}
	if told := story(timeline(t, s, "ord-foreign")); !slices.Contains(told, "Order.Confirmed") {
		t.Errorf("got %v", told)
	}

	slow := make([]string, 0, bound)
	for n := range bound - 1 { // together they take longer than one waits for its turn
		id, err := place(ctx, s, "", with(body(n), "", "X-SLOW"))
		if err != nil {
			t.Fatal(err)
		}
		slow = append(slow, id)
	}
	declined, err := place(ctx, s, "", with(body(bound), "tok_declined", "X-SLOW"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := await(ctx, s, declined, "fulfillment_failed"); err != nil {
		t.Fatal(err)
	}
	if o, _, err := read(ctx, s, slow[len(slow)-1]); err != nil || o.Status == "fulfilled" {
		t.Errorf("the slow orders are done already, the last is %s, %v", o.Status, err)
	}
	for _, id := range slow {
		if _, err := await(ctx, s, id, "fulfilled"); err != nil {
			t.Fatal(err)
		}
		wantBooks(t, s, id, fulfilledBooks)
	}
}
