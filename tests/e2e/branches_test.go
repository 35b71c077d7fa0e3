package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"waybill/tests/internal/system"
)

var undoneBooks = books{Charges: 1, Refunds: 1, Reservation: "released"}

// with sets the fields that control the simulated partners.
func with(body map[string]any, token, zip string) map[string]any {
	if token != "" {
		body["payment_token"] = token
	}
	if zip != "" {
		address := body["shipping_address"].(map[string]any)
		address["zip"] = zip
	}
	return body
}

// ask sends a request to an app and fails unless the answer has the status.
func ask(t *testing.T, s *system.System, method, app, path string, body any, want int) map[string]any {
	t.Helper()
	code, _, answer, err := call(t.Context(), method, s.App(app).URL+path, body)
	if err != nil || code != want {
		t.Fatalf("%s %s %s: %d %s %v, want %d", method, app, path, code, answer, err, want)
	}
	var decoded map[string]any
	if err := json.Unmarshal(answer, &decoded); err != nil {
		t.Fatal(err)
	}
	return decoded
}

func wantAnswer(t *testing.T, got, want int) {
	t.Helper()
	if got != want {
		t.Fatalf("the cancellation was answered with %d, want %d", got, want)
	}
}

func decision(approved bool, approver string) map[string]any {
	return map[string]any{"approved": approved, "approver": approver, "reason": "Looked into it."}
}

// aLargeOrder places an order that needs approval, and waits until it does.
func aLargeOrder(ctx context.Context, t *testing.T, s *system.System, key string) string {
	t.Helper()
	setStock(t, s, "PROD-LARGE", 100)
	id, err := place(ctx, s, key, orderBody("CUST-LARGE", 5000.01, line("PROD-LARGE", 1, 5000.01)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := await(ctx, s, id, "awaiting_approval"); err != nil {
		t.Fatal(err)
	}
	return id
}

// A large order waits for the decision of a named person. An event on the bus, whatever its payload, does not approve it.
func TestALargeOrderIsApproved(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	id := aLargeOrder(ctx, t, waybill, "approve")
	for _, event := range []string{"Signal", "ApprovalEvent"} {
		code, _, answer, err := call(ctx, http.MethodPost, waybill.App("fulfillment").DaprHTTP+"/v1.0/workflows/dapr/"+id+"/raiseEvent/"+event,
			map[string]any{"approved": true, "approver": "nobody@example.com"})
		if err != nil || code != http.StatusAccepted {
			t.Fatalf("raise %s: %d %s %v", event, code, answer, err)
		}
	}
	if saga := ask(t, waybill, http.MethodGet, "fulfillment", "/v1/fulfillments/"+id, nil, 200); saga["state"] != "waiting" {
		t.Errorf("the saga after the events: %v", saga)
	}
	pending := fmt.Sprint(ask(t, waybill, http.MethodGet, "fulfillment", "/v1/approvals?state=pending&limit=500", nil, 200)["items"])
	if !strings.Contains(pending, id) {
		t.Errorf("%s is not among the pending: %s", id, pending)
	}
	for range 2 {
		ask(t, waybill, http.MethodPost, "fulfillment", "/v1/approvals/"+id, decision(true, "approver@example.com"), 202)
	}
	second := ask(t, waybill, http.MethodPost, "fulfillment", "/v1/approvals/"+id, decision(false, "other@example.com"), 409)
	if related, _ := second["related"].(map[string]any); related["approver"] != "approver@example.com" || related["approved"] != true {
		t.Errorf("a second decision does not show the first: %v", second)
	}
	if _, err := await(ctx, waybill, id, "fulfilled"); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"Order.Created", "Order.Confirmed", "ValidatePayment done", "Order.Updated", "ReserveInventory done", "Fulfillment.ApprovalRequested",
		"Order.Updated", "Approval done", "Order.Updated", "ProcessShipment done", "Fulfillment.Completed", "Order.Fulfilled",
	}
	if diff := cmp.Diff(want, story(timeline(t, waybill, id))); diff != "" {
		t.Errorf("timeline (-want +got):\n%s", diff)
	}
	wantBooks(t, waybill, id, fulfilledBooks)
}

func TestALargeOrderIsRefused(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	id := aLargeOrder(ctx, t, waybill, "refuse")
	ask(t, waybill, http.MethodPost, "fulfillment", "/v1/approvals/"+id, decision(false, "approver@example.com"), 202)
	o, err := await(ctx, waybill, id, "fulfillment_failed")
	if err != nil {
		t.Fatal(err)
	}
	if o.Failure == nil || o.Failure.Code != "approval_denied" {
		t.Errorf("failure %+v, want approval_denied", o.Failure)
	}
	wantBooks(t, waybill, id, undoneBooks)
}

// An order can be cancelled until it has shipped: while it waits, and between two steps.
func TestCancelling(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	id := aLargeOrder(ctx, t, waybill, "cancel-waiting")
	for range 2 {
		wantAnswer(t, cancel(ctx, t, waybill, id, map[string]any{"reason": "Ordered twice."}), 202)
	}
	if _, err := await(ctx, waybill, id, "cancelled"); err != nil {
		t.Fatal(err)
	}
	wantBooks(t, waybill, id, undoneBooks)

	setStock(t, waybill, "PROD-CANCEL", 10)
	slow, err := place(ctx, waybill, "cancel-slow", with(orderBody("CUST-CANCEL", 10, line("PROD-CANCEL", 1, 10)), "tok_slow", ""))
	if err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, cancel(ctx, t, waybill, slow, nil), 202)
	if _, err := await(ctx, waybill, slow, "cancelled"); err != nil {
		t.Fatal(err)
	}
	got, err := booksOf(ctx, waybill, slow)
	if err != nil || got.Charges != got.Refunds || got.Parcels != 0 {
		t.Errorf("books of %s: %+v, %v", slow, got, err)
	}

	shipped, err := place(ctx, waybill, "cancel-late", orderBody("CUST-CANCEL", 10, line("PROD-CANCEL", 1, 10)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := await(ctx, waybill, shipped, "fulfilled"); err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, cancel(ctx, t, waybill, shipped, nil), 409)
	wantBooks(t, waybill, shipped, fulfilledBooks)
	if diff := cmp.Diff(stock{OnHand: 9, Shipped: 1}, stockOf(t, waybill, "PROD-CANCEL")); diff != "" {
		t.Errorf("stock (-want +got):\n%s", diff)
	}
}

// 100 orders at once want one of the last ten pieces each: ten ship, 90 are refunded, and no stock stays reserved.
func TestAHundredOrdersForTheLastTen(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	const orders, pieces = 100, 10
	setStock(t, waybill, "PROD-LAST", pieces)
	ids := make([]string, orders)
	var placing sync.WaitGroup
	for i := range orders {
		placing.Go(func() {
			id, err := place(ctx, waybill, fmt.Sprintf("last-%d", i), orderBody(fmt.Sprintf("CUST-LAST-%d", i), 10, line("PROD-LAST", 1, 10)))
			if err != nil {
				t.Error(err)
			}
			ids[i] = id
		})
	}
	placing.Wait()
	ended := map[string]int{}
	for _, id := range ids {
		o, err := final(ctx, waybill, id)
		if err != nil {
			t.Fatal(err)
		}
		ended[o.Status]++
		want := fulfilledBooks
		if o.Status != "fulfilled" {
			want = books{Charges: 1, Refunds: 1, Reservation: "refused"}
		}
		wantBooks(t, waybill, id, want)
	}
	if diff := cmp.Diff(map[string]int{"fulfilled": pieces, "fulfillment_failed": orders - pieces}, ended); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(stock{Shipped: pieces}, stockOf(t, waybill, "PROD-LAST")); diff != "" {
		t.Errorf("stock (-want +got):\n%s", diff)
	}
}

var finalStatuses = []string{"fulfilled", "fulfillment_failed", "cancelled"}

// final waits for an order's end.
func final(ctx context.Context, s *system.System, id string) (order, error) {
	return awaitAny(ctx, s, id, finalStatuses...)
}

// Every event of a shipped, a compensated and a cancelled order is delivered again, newest first. No order, no payment and no
// stock changes, and no customer gets a second message.
func TestEveryEventTwiceAndOutOfOrder(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	setStock(t, waybill, "PROD-TWICE", 10)
	body := func(quantity int) map[string]any {
		return orderBody("CUST-123", float64(quantity*10), line("PROD-TWICE", quantity, 10))
	}
	wanted := map[string]map[string]any{
		"fulfilled":          body(1),
		"fulfillment_failed": with(body(1), "", "X-REFUSED"),
		"cancelled":          with(body(1), "tok_slow", ""),
	}
	ids := map[string]string{}
	for status, b := range wanted {
		id, err := place(ctx, waybill, "twice-"+status, b)
		if err != nil {
			t.Fatal(err)
		}
		ids[id] = status
		if status == "cancelled" {
			// An order that is cancelled before its confirmation has no saga, so its customer gets no message.
			if _, err := await(ctx, waybill, id, "confirmed"); err != nil {
				t.Fatal(err)
			}
			wantAnswer(t, cancel(ctx, t, waybill, id, nil), 202)
		}
	}
	type picture struct {
		Story []string
		Books books
		Told  int
	}
	look := func() map[string]picture {
		pictures := map[string]picture{}
		for id, status := range ids {
			if _, err := await(ctx, waybill, id, status); err != nil {
				t.Fatal(err)
			}
			told, err := messages(ctx, waybill, id, 3)
			if err != nil {
				t.Fatal(err)
			}
			b, err := booksOf(ctx, waybill, id)
			if err != nil {
				t.Fatal(err)
			}
			pictures[id] = picture{story(timeline(t, waybill, id)), b, len(told)}
		}
		return pictures
	}
	before := look()

	topics := []string{"orders", "fulfillment", "inventory", "notifications"}
	client := foreign(t)
	events := recorded(ctx, t, topics, func(value []byte) bool {
		return slices.ContainsFunc(slices.Collect(maps.Keys(ids)), func(id string) bool { return strings.Contains(string(value), id) })
	})
	if len(events) < 20 {
		t.Fatalf("only %d events tell of the orders", len(events))
	}
	slices.Reverse(events)
	for _, e := range events {
		publish(t, client, e.Topic, string(e.Key), e.Value)
	}
	// Another order on each of their partitions shows when they have been processed.
	id, err := place(ctx, waybill, "twice-behind", body(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := await(ctx, waybill, id, "fulfilled"); err != nil {
		t.Fatal(err)
	}
	if _, err := messages(ctx, waybill, id, 3); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, look()); diff != "" {
		t.Errorf("the repeated events changed something (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(stock{OnHand: 8, Shipped: 2}, stockOf(t, waybill, "PROD-TWICE")); diff != "" {
		t.Errorf("stock (-want +got):\n%s", diff)
	}
}

// recorded reads whole topics as they are now, and returns the events that are wanted.
func recorded(ctx context.Context, t *testing.T, topics []string, wanted func(value []byte) bool) []*kgo.Record {
	t.Helper()
	ends := endOffsets(ctx, t, topics)
	reader := foreign(t, kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	var events []*kgo.Record
	for len(ends) > 0 {
		fetches := reader.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			t.Fatalf("read the topics: %v", err)
		}
		for _, r := range fetches.Records() {
			at := partition{r.Topic, r.Partition}
			end, open := ends[at]
			if open && r.Offset < end && wanted(r.Value) {
				events = append(events, r)
			}
			if open && r.Offset >= end-1 {
				delete(ends, at)
			}
		}
	}
	return events
}

// A saga whose compensation fails needs attention: the API shows it, an event announces it, and it goes on after a named person
// orders the repair.
func TestAnUndoThatFailsIsRepaired(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	s := ownSystem(ctx, t, "UNDO_ATTEMPTS=2")
	setStock(t, s, "PROD-REPAIR", 5)
	id, err := place(ctx, s, "repair", with(orderBody("CUST-123", 10, line("PROD-REPAIR", 1, 10)), "tok_refund_fail_3", "X-REFUSED"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := await(ctx, s, id, "needs_attention"); err != nil {
		t.Fatal(err)
	}
	listed := fmt.Sprint(ask(t, s, http.MethodGet, "fulfillment", "/v1/fulfillments?state=needs_attention", nil, 200)["items"])
	if !strings.Contains(listed, id) || !strings.Contains(listed, "RefundPayment") || !strings.Contains(listed, "/repair") {
		t.Errorf("what needs attention: %s", listed)
	}
	if _, err := alert(ctx, s, id); err != nil {
		t.Error(err)
	}
	wantAnswer(t, cancel(ctx, t, s, id, nil), 409)
	ask(t, s, http.MethodPost, "fulfillment", "/v1/fulfillments/"+id+"/repair", map[string]any{"actor": "operator@example.com"}, 422)
	repair := map[string]any{"actor": "operator@example.com", "reason": "The provider answers again."}
	ask(t, s, http.MethodPost, "fulfillment", "/v1/fulfillments/"+id+"/repair", repair, 202)
	if _, err := await(ctx, s, id, "fulfillment_failed"); err != nil {
		t.Fatal(err)
	}
	wantBooks(t, s, id, undoneBooks)
	if told := story(timeline(t, s, id)); !slices.Contains(told, "Repair done") {
		t.Errorf("the timeline does not tell of the repair: %v", told)
	}
	ask(t, s, http.MethodPost, "fulfillment", "/v1/fulfillments/"+id+"/repair", repair, 202)
	ask(t, s, http.MethodPost, "fulfillment", "/v1/fulfillments/"+id+"/repair", map[string]any{"actor": "other@example.com", "reason": "Again."}, 409)
}

// A provider or carrier that stays down, and a person who does not decide, make the saga fail in the end; it is compensated.
func TestWhatIsGivenUp(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	s := ownSystem(ctx, t, "STEP_ATTEMPTS=3", "APPROVAL_TIMEOUT=1s")
	setStock(t, s, "PROD-DOWN", 10)
	for name, c := range map[string]struct {
		body map[string]any
		code string
		want books
	}{
		"provider down":                 {with(orderBody("CUST-DOWN", 10, line("PROD-DOWN", 1, 10)), "tok_down", ""), "technical_failure", books{}},
		"carrier down after the charge": {with(orderBody("CUST-DOWN", 10, line("PROD-DOWN", 1, 10)), "", "X-DOWN"), "technical_failure", undoneBooks},
		"nobody decides":                {orderBody("CUST-DOWN", 6000, line("PROD-DOWN", 1, 6000)), "approval_timed_out", undoneBooks},
	} {
		t.Run(name, func(t *testing.T) {
			id, err := place(ctx, s, strings.ReplaceAll(name, " ", "-"), c.body)
			if err != nil {
				t.Fatal(err)
			}
			o, err := await(ctx, s, id, "fulfillment_failed")
			if err != nil {
				t.Fatal(err)
			}
			if o.Failure == nil || o.Failure.Code != c.code {
				t.Errorf("failure %+v, want %s", o.Failure, c.code)
			}
			wantBooks(t, s, id, c.want)
		})
	}
	if diff := cmp.Diff(stock{OnHand: 10}, stockOf(t, s, "PROD-DOWN")); diff != "" {
		t.Errorf("stock (-want +got):\n%s", diff)
	}
}
