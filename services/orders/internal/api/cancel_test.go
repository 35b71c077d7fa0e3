package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/platform/eventing"
)

type shownCancellation struct {
	OrderID      string `json:"order_id"`
	Status       string
	Cancellation *struct {
		RequestedAt time.Time `json:"requested_at"`
		Reason      string
		Refused     bool
		Accepted    bool
	}
}

func (w *world) cancel(id, body string) *httptest.ResponseRecorder {
	w.t.Helper()
	return w.request(http.MethodPost, "/v1/orders/"+id+"/cancel", body)
}

// cancelled reads the answer to a cancellation and fails the test unless it was accepted.
func (w *world) cancelled(answer *httptest.ResponseRecorder) shownCancellation {
	w.t.Helper()
	var shown shownCancellation
	decode(w.t, answer, &shown)
	if answer.Code != http.StatusAccepted || shown.Cancellation == nil || shown.OrderID == "" {
		w.t.Fatalf("got %d %s, want the order, to be cancelled", answer.Code, answer.Body)
	}
	return shown
}

// confirmed places an order and confirms it.
func (w *world) confirmed() string {
	w.t.Helper()
	id := w.accepted(w.place(nil))
	w.confirmAll()
	return id
}

func step(t *testing.T, id, name, outcome string) eventing.Event {
	t.Helper()
	return saga(t, id+":"+name, contracts.StepCompleted{OrderID: id, CustomerID: "CUST-123", Step: name, Outcome: outcome, Actor: actorOf(name)})
}

func actorOf(step string) string {
	if step == contracts.StepApproval || step == contracts.StepRepair {
		return "approver@example.com"
	}
	return ""
}

func approvalRequested(t *testing.T, id string) eventing.Event {
	t.Helper()
	at := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	return saga(t, id+":ApprovalRequested", contracts.ApprovalRequested{
		OrderID: id, CustomerID: "CUST-123", TotalAmount: 6000_0000, Currency: "USD", RequestedAt: at, ExpiresAt: at.Add(24 * time.Hour),
	})
}

func sagaCancelled(t *testing.T, id string) eventing.Event {
	t.Helper()
	return saga(t, id+":Fulfillment.Cancelled", contracts.FulfillmentCancelled{
		OrderID: id, CustomerID: "CUST-123", Reason: "Ordered twice.", Undone: []string{"RefundPayment"}, CancelledAt: time.Now(),
	})
}

func sagaFailed(t *testing.T, id, name string, notUndone ...string) eventing.Event {
	t.Helper()
	return saga(t, id+":"+name, contracts.FulfillmentFailed{OrderID: id, CustomerID: "CUST-123", Code: "declined", Error: "No.", NotUndone: notUndone})
}

const because = `{"reason":"Ordered twice."}`

// A received order has no saga, so it is cancelled at once and never gets one.
func TestCancelWhatIsReceived(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.accepted(w.place(nil))
		for range 2 {
			if shown := w.cancelled(w.cancel(id, because)); shown.Status != "cancelled" || shown.Cancellation.Reason != "Ordered twice." {
				t.Errorf("got %+v", shown)
			}
		}
		e := same(t, w.bus.of(contracts.TypeOrderCancelled))
		var payload contracts.OrderCancelled
		if err := json.Unmarshal(e.Data, &payload); err != nil {
			t.Fatal(err)
		}
		if e.ID != id+":Order.Cancelled" || e.Topic != contracts.TopicOrders || payload.OrderID != id || payload.Reason != "Ordered twice." {
			t.Errorf("announced as %+v", e)
		}
		before := len(w.bus.of(contracts.TypeOrderCancelled))
		w.confirmAll()
		if len(w.bus.of(contracts.TypeOrderConfirmed)) > 0 || len(w.bus.of(contracts.TypeOrderCancellationRequested)) > 0 {
			t.Error("a cancelled order is confirmed, or fulfilment asked to cancel it")
		}
		if len(w.bus.of(contracts.TypeOrderCancelled)) == before {
			t.Error("its end is not announced again, though its announcement may have been lost")
		}
		if diff := cmp.Diff([]string{"Order.Created received", "Order.Cancelled cancelled"}, w.history(id)); diff != "" {
			t.Error(diff)
		}
		time.Sleep(2 * receivedTTL)
		if w.order(id).Status != "cancelled" {
			t.Error("the order is not kept")
		}
		if diff := cmp.Diff([]string{id}, w.listed("CUST-123")); diff != "" {
			t.Error(diff)
		}
		if len(w.bus.deadLettered()) > 0 {
			t.Errorf("dead-lettered %v", w.bus.deadLettered())
		}
	})
}

func TestCancelDuringFulfilment(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		events func(id string) []eventing.Event
		status string
	}{
		"confirmed":         {func(string) []eventing.Event { return nil }, "confirmed"},
		"fulfilling":        {func(id string) []eventing.Event { return []eventing.Event{step(t, id, "ValidatePayment", "done")} }, "fulfilling"},
		"awaiting approval": {func(id string) []eventing.Event { return []eventing.Event{approvalRequested(t, id)} }, "awaiting_approval"},
	} {
		w := newWorld(t)
		id := w.confirmed()
		for _, e := range test.events(id) {
			w.taken(contracts.TopicFulfillment, e)
		}
		for i, reason := range []string{because, "", `{"reason":"Another."}`} {
			shown := w.cancelled(w.cancel(id, reason))
			if shown.Status != test.status || shown.Cancellation.Reason != "Ordered twice." || shown.Cancellation.Refused {
				t.Errorf("%s: got %+v", name, shown)
			}
			if n := len(w.bus.of(contracts.TypeOrderCancellationRequested)); n != i+1 {
				t.Errorf("%s: announced %d times after %d requests", name, n, i+1)
			}
		}
		e := same(t, w.bus.of(contracts.TypeOrderCancellationRequested))
		var payload contracts.OrderCancellationRequested
		if err := json.Unmarshal(e.Data, &payload); err != nil {
			t.Fatal(err)
		}
		if e.ID != id+":Order.CancellationRequested" || payload.CustomerID != "CUST-123" || payload.Reason != "Ordered twice." || payload.RequestedAt.IsZero() {
			t.Errorf("%s: announced %+v", name, e)
		}
		same(t, w.bus.of(contracts.TypeOrderConfirmed))

		w.taken(contracts.TopicFulfillment, step(t, id, "RefundPayment", "done"))
		w.taken(contracts.TopicFulfillment, sagaCancelled(t, id))
		if shown := w.cancelled(w.cancel(id, "")); shown.Status != "cancelled" || len(w.bus.of(contracts.TypeOrderCancellationRequested)) != 3 {
			t.Errorf("%s: cancelled, a repeated request shows %+v", name, shown)
		}
		if e := same(t, w.bus.of(contracts.TypeOrderCancelled)); e.ID != id+":Order.Cancelled" {
			t.Errorf("%s: announced %s", name, e.ID)
		}
	}
}

// TestCancelWaitsForFulfillment: 202 says that fulfilment has recorded the cancellation. Without its answer the
// client gets cancellation_pending, and a repeated request gets the result; another replica may have got the answer, or none.
func TestCancelWaitsForFulfillment(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer func(id string) eventing.Event
		status int
		code   string
	}{
		"recorded":         {func(id string) eventing.Event { return step(t, id, contracts.StepCancel, "done") }, http.StatusAccepted, ""},
		"cancelled":        {func(id string) eventing.Event { return sagaCancelled(t, id) }, http.StatusAccepted, ""},
		"booked before":    {func(id string) eventing.Event { return step(t, id, contracts.StepCancel, "refused") }, http.StatusConflict, "order_shipped"},
		"shipped before":   {func(id string) eventing.Event { return sagaOf(t, id, true)[2] }, http.StatusConflict, "order_shipped"},
		"failed before":    {func(id string) eventing.Event { return sagaFailed(t, id, "Fulfillment.Failed") }, http.StatusConflict, "order_final"},
		"still no answer":  {nil, http.StatusServiceUnavailable, "cancellation_pending"},
		"another step":     {func(id string) eventing.Event { return step(t, id, contracts.StepValidatePayment, "done") }, http.StatusServiceUnavailable, "cancellation_pending"},
		"needs a person":   {func(id string) eventing.Event { return sagaFailed(t, id, "attention:1", "RefundPayment") }, http.StatusConflict, "order_needs_attention"},
		"waits for person": {func(id string) eventing.Event { return approvalRequested(t, id) }, http.StatusServiceUnavailable, "cancellation_pending"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				id := w.confirmed()
				w.fulfillment = nil
				before := time.Now()
				first := w.cancel(id, because)
				if p := w.refused(first, http.StatusServiceUnavailable); p.Code != "cancellation_pending" || first.Header().Get("Retry-After") == "" {
					t.Errorf("without an answer: %+v, Retry-After %q", p, first.Header().Get("Retry-After"))
				}
				if waited := time.Since(before); waited < 4*time.Second || waited > 6*time.Second {
					t.Errorf("the client waited for %s", waited)
				}
				var pending shownCancellation
				if w.get("/v1/orders/"+id, &pending); pending.Cancellation == nil || pending.Cancellation.Accepted || pending.Cancellation.Refused {
					t.Errorf("a pending cancellation is shown as %+v", pending.Cancellation)
				}
				var asking sync.WaitGroup
				asking.Go(func() { // the answer comes while the client waits
					if test.answer != nil {
						time.Sleep(time.Second)
						w.taken(contracts.TopicFulfillment, test.answer(id))
					}
				})
				answer := w.cancel(id, because)
				asking.Wait()
				if test.code == "order_needs_attention" {
					answer = w.cancel(id, because)
				}
				if test.status != http.StatusAccepted {
					if p := w.refused(answer, test.status); p.Code != test.code {
						t.Errorf("answered %+v, want %s", p, test.code)
					}
					return
				}
				if shown := w.cancelled(answer); !shown.Cancellation.Accepted {
					t.Errorf("the accepted cancellation is shown as %+v", shown.Cancellation)
				}
			})
		})
	}
}

// Fulfilment refuses the cancellation, and the order continues.
func TestCancelTooLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.confirmed()
	w.fulfillment = func(id string) eventing.Event {
		return saga(t, id+":Cancel", contracts.StepCompleted{
			OrderID: id, CustomerID: "CUST-123", Step: contracts.StepCancel, Outcome: contracts.OutcomeRefused, Code: "already_shipped", Message: "It has left.",
		})
	}
	for range 2 {
		if p := w.refused(w.cancel(id, because), http.StatusConflict); p.Code != "order_shipped" {
			t.Errorf("answered %+v", p)
		}
	}
	events := sagaOf(t, id, true)
	for _, e := range events[:3] {
		w.taken(contracts.TopicFulfillment, e)
	}
	var shown shownCancellation
	if w.get("/v1/orders/"+id, &shown); shown.Status != "fulfilling" || shown.Cancellation == nil || !shown.Cancellation.Refused {
		t.Errorf("the order is %+v", shown)
	}
	w.taken(contracts.TopicFulfillment, events[3])
	if got := w.order(id).Status; got != "fulfilled" {
		t.Errorf("the order ends %s", got)
	}
	var timeline struct {
		Items []struct{ Type, Step, Outcome, Code, Reason string }
	}
	w.get("/v1/orders/"+id+"/timeline", &timeline)
	told := make([]string, 0, len(timeline.Items))
	for _, e := range timeline.Items {
		told = append(told, strings.TrimSpace(strings.Join([]string{e.Type, e.Step, e.Outcome, e.Code, e.Reason}, " ")))
	}
	for _, want := range []string{"Order.CancellationRequested    Ordered twice.", "Fulfillment.StepCompleted Cancel refused already_shipped"} {
		if !slices.Contains(told, want) {
			t.Errorf("the timeline lacks %q: %q", want, told)
		}
	}
}

func TestCancelRefused(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		code   string
		events func(id string) []eventing.Event
	}{
		{"order_shipped", func(id string) []eventing.Event { return sagaOf(t, id, true)[:3] }},
		{"order_shipped", func(id string) []eventing.Event { return sagaOf(t, id, true) }},
		{"order_final", func(id string) []eventing.Event { return sagaOf(t, id, false) }},
		{"order_needs_attention", func(id string) []eventing.Event {
			return []eventing.Event{sagaFailed(t, id, "attention:1", "RefundPayment")}
		}},
	} {
		w := newWorld(t)
		id := w.confirmed()
		for _, e := range test.events(id) {
			w.taken(contracts.TopicFulfillment, e)
		}
		before := w.history(id)
		p := w.refused(w.cancel(id, because), http.StatusConflict)
		if p.Code != test.code || !strings.Contains(p.Detail, w.order(id).Status) {
			t.Errorf("%s: %+v", test.code, p)
		}
		if diff := cmp.Diff(before, w.history(id)); diff != "" || len(w.bus.of(contracts.TypeOrderCancellationRequested)) > 0 {
			t.Errorf("%s: a refused request had effects: %s", test.code, diff)
		}
	}
}

func TestBadCancellations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.confirmed()
	for _, path := range []string{"nobody", "a%2Fb", strings.Repeat("x", 1000)} {
		if p := w.refused(w.cancel(path, ""), http.StatusNotFound); p.Code != "order_not_found" {
			t.Errorf("%.40s: %s", path, p.Code)
		}
	}
	nothing := []string{}
	for name, test := range map[string]struct {
		body      string
		header    []string
		status    int
		locations []string
	}{
		"half an object":        {"{", nil, 400, []string{"body"}},
		"an array":              {"[]", nil, 422, []string{"body"}},
		"a reason of a number":  {`{"reason":5}`, nil, 422, []string{"body.reason"}},
		"a long reason":         {`{"reason":"` + strings.Repeat("x", 501) + `"}`, nil, 422, []string{"body.reason"}},
		"a reason of two lines": {`{"reason":"a\nb"}`, nil, 422, []string{"body.reason"}},
		"an unknown field":      {`{"because":"x"}`, nil, 422, []string{"body.because"}},
		"not sent as JSON":      {because, []string{"Content-Type", "text/plain"}, 415, []string{"body"}},
		"2 MB":                  {`{"reason":"` + strings.Repeat("x", 2<<20) + `"}`, nil, 413, nothing},
	} {
		p := w.refused(w.request(http.MethodPost, "/v1/orders/"+id+"/cancel", test.body, test.header...), test.status)
		if diff := cmp.Diff(test.locations, p.locations()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	w.refused(w.request(http.MethodGet, "/v1/orders/"+id+"/cancel", ""), http.StatusMethodNotAllowed)
	if n := len(w.bus.of(contracts.TypeOrderCancellationRequested)); n > 0 {
		t.Errorf("%d refused requests were announced", n)
	}
	for _, body := range []string{"", "{}", `{"reason":""}`, `{"reason":"` + strings.Repeat("ü", 500) + `"}`} {
		w.cancelled(w.cancel(w.confirmed(), body))
	}
}

// TestCancelRacesTheConfirmation: whichever comes first, the order is either cancelled and never confirmed, or confirmed and
// fulfilment asked to cancel it.
func TestCancelRacesTheConfirmation(t *testing.T) {
	t.Parallel()
	for range 50 {
		w := newWorld(t)
		id := w.accepted(w.place(nil))
		created := w.bus.of(contracts.TypeOrderCreated)[0].Event
		var all sync.WaitGroup
		all.Go(func() { w.taken(contracts.TopicOrders, created) })
		for range 3 {
			all.Go(func() {
				if answer := w.cancel(id, because); answer.Code != http.StatusAccepted {
					t.Errorf("%d %s", answer.Code, answer.Body)
				}
			})
		}
		all.Wait()
		confirmed, requested, cancelled := w.bus.of(contracts.TypeOrderConfirmed), w.bus.of(contracts.TypeOrderCancellationRequested), w.bus.of(contracts.TypeOrderCancelled)
		switch status := w.order(id).Status; {
		case status == "cancelled" && len(confirmed) == 0 && len(requested) == 0:
			same(t, cancelled)
		case status == "confirmed" && len(cancelled) == 0:
			same(t, confirmed)
			same(t, requested)
		default:
			t.Fatalf("the order is %s; %d confirmations, %d requests, %d cancellations", status, len(confirmed), len(requested), len(cancelled))
		}
	}
}

// TestCancelBrokenAtEveryStep breaks the request at each of its calls, before and after the call's effect, and repeats it.
func TestCancelBrokenAtEveryStep(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]mode{"fails before": before, "fails after": after, "dies before": diesBefore, "dies after": diesAfter} {
		for _, confirmed := range []bool{false, true} {
			for step := 1; ; step++ {
				broken := true
				t.Run(fmt.Sprint(name, " step ", step, " confirmed ", confirmed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t)
						id := w.accepted(w.place(nil))
						want, announced := "cancelled", contracts.TypeOrderCancelled
						if confirmed {
							w.confirmAll()
							want, announced = "confirmed", contracts.TypeOrderCancellationRequested
						}
						w.faults.reset(step, m)
						first := w.cancel(id, because)
						broken = w.faults.hit
						if first.Code != http.StatusAccepted {
							w.refused(first, http.StatusServiceUnavailable)
						}
						w.restart()
						if shown := w.cancelled(w.cancel(id, because)); shown.Status != want {
							t.Errorf("the order is %s", shown.Status)
						}
						same(t, w.bus.of(announced))
						if n := strings.Count(fmt.Sprint(w.history(id)), announced); n != 1 {
							t.Errorf("the timeline holds %d of them", n)
						}
						w.confirmAll()
						if got := w.order(id).Status; got != want {
							t.Errorf("the order is %s in the end", got)
						}
						if diff := cmp.Diff([]string{id}, w.listed("CUST-123")); diff != "" {
							t.Error(diff)
						}
					})
				})
				if !broken || t.Failed() {
					break
				}
			}
		}
	}
}

func TestFollowAnApproval(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.confirmed()
	happy := sagaOf(t, id, true)
	for _, test := range []struct {
		event  eventing.Event
		status string
	}{
		{happy[0], "fulfilling"},
		{approvalRequested(t, id), "awaiting_approval"},
		{happy[1], "awaiting_approval"}, // late
		{step(t, id, contracts.StepApproval, "done"), "fulfilling"},
		{approvalRequested(t, id), "fulfilling"}, // again
		{happy[2], "fulfilling"},
		{happy[3], "fulfilled"},
	} {
		w.taken(contracts.TopicFulfillment, test.event)
		if got := w.order(id).Status; got != test.status {
			t.Errorf("after %s the order is %s, want %s", test.event.ID, got, test.status)
		}
	}
	var timeline struct {
		Items []struct {
			Type, Step, Actor string
			Amount            contracts.Amount
			ExpiresAt         time.Time `json:"expires_at"`
		}
	}
	w.get("/v1/orders/"+id+"/timeline", &timeline)
	approvals := 0
	for _, e := range timeline.Items {
		switch {
		case e.Type == contracts.TypeApprovalRequested && e.Amount == 6000_0000 && !e.ExpiresAt.IsZero():
			approvals++
		case e.Step == contracts.StepApproval && e.Actor == "approver@example.com":
			approvals++
		}
	}
	if approvals != 2 {
		t.Errorf("the timeline lacks the request or the decision: %+v", timeline)
	}
	var statuses []string
	ids := map[string]bool{}
	for _, e := range w.bus.of(contracts.TypeOrderUpdated) {
		var updated contracts.OrderUpdated
		if err := json.Unmarshal(e.Data, &updated); err != nil {
			t.Fatal(err)
		}
		if !ids[e.ID] {
			statuses = append(statuses, updated.Status)
		}
		ids[e.ID] = true
	}
	if diff := cmp.Diff([]string{"fulfilling", "awaiting_approval", "fulfilling"}, statuses); diff != "" {
		t.Error(diff)
	}
}

func TestFollowARepair(t *testing.T) {
	t.Parallel()
	for end, last := range map[string]func(id string) eventing.Event{
		"fulfillment_failed": func(id string) eventing.Event { return sagaFailed(t, id, "Fulfillment.Failed") },
		"cancelled":          func(id string) eventing.Event { return sagaCancelled(t, id) },
	} {
		w := newWorld(t)
		id := w.confirmed()
		for _, e := range []eventing.Event{
			step(t, id, "ValidatePayment", "done"), sagaFailed(t, id, "attention:1", "RefundPayment"),
			step(t, id, contracts.StepRepair, "done"), step(t, id, "RefundPayment", "done"),
		} {
			w.taken(contracts.TopicFulfillment, e)
		}
		if got := w.order(id).Status; got != "needs_attention" {
			t.Errorf("before its end the order is %s", got)
		}
		if len(w.bus.of(contracts.TypeOrderFulfillmentFailed)) > 0 {
			t.Error("announced as failed while it stands still")
		}
		w.taken(contracts.TopicFulfillment, last(id))
		if got := w.order(id).Status; got != end {
			t.Errorf("the order ends %s, want %s", got, end)
		}
	}
}
