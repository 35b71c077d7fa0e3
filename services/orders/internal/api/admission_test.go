package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/services/orders/internal/admission"
)

// bounded is a world whose process admits no more than the limits allow.
func bounded(t *testing.T, limits admission.Options) *world {
	t.Helper()
	w := newWorld(t)
	w.limits = limits
	w.restart()
	w.count()
	return w
}

// count lets the process count the open orders, as it does when it starts.
func (w *world) count() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.reconciler.Run(ctx) })
	for !w.gate.Counted() {
		time.Sleep(time.Millisecond)
	}
	cancel()
	running.Wait()
}

// fill places n orders of as many customers, and has them confirmed.
func (w *world) fill(n int) (ids []string) {
	w.t.Helper()
	for i := range n {
		ids = append(ids, w.accepted(w.place(map[string]any{"order_id": fmt.Sprint("full-", i), "customer_id": fmt.Sprint("CUST-full-", i)})))
	}
	w.confirmAll()
	return ids
}

// end lets the saga of the order end.
func (w *world) end(id string) {
	w.t.Helper()
	for _, e := range sagaOf(w.t, id, true) {
		w.taken(contracts.TopicFulfillment, e)
	}
}

// overloaded fails the test unless the answer refuses an order because admission is closed.
func (w *world) overloaded(answer *httptest.ResponseRecorder) {
	w.t.Helper()
	p := w.refused(answer, http.StatusServiceUnavailable)
	seconds, err := strconv.Atoi(answer.Header().Get("Retry-After"))
	if p.Code != "overloaded" || err != nil || seconds < 1 || seconds > 60 || !strings.Contains(p.Detail, fmt.Sprintf("in %d seconds", seconds)) {
		w.t.Errorf("got %s %s, Retry-After %q", p.Code, p.Detail, answer.Header().Get("Retry-After"))
	}
}

// trace is everything that is stored and published.
func (w *world) trace() string {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	w.bus.mu.Lock()
	defer w.bus.mu.Unlock()
	return fmt.Sprint(w.store.made, len(w.bus.published))
}

// TestARefusedOrderLeavesNothing: neither an order nor its key, and the key may come with another order afterwards.
func TestARefusedOrderLeavesNothing(t *testing.T) {
	t.Parallel()
	w := bounded(t, admission.Options{Open: 3})
	ids := w.fill(3)
	before := w.trace()
	for _, header := range [][]string{nil, {"Idempotency-Key", "key"}} {
		w.overloaded(w.place(map[string]any{"order_id": "ord-1"}, header...))
	}
	if after := w.trace(); after != before {
		t.Errorf("stored or published %s, before %s", after, before)
	}
	if p := w.refused(w.place(map[string]any{"total_amount": 1}), http.StatusUnprocessableEntity); p.Code != "invalid_request" {
		t.Errorf("an invalid order is answered %s", p.Code)
	}
	w.end(ids[0])
	w.accepted(w.place(map[string]any{"order_id": "ord-2"}, "Idempotency-Key", "key"))
}

// TestWhatIsStoredIsAnswered: a request that repeats another gets its order while no new one finds room.
func TestWhatIsStoredIsAnswered(t *testing.T) {
	t.Parallel()
	w := bounded(t, admission.Options{Open: 3})
	keyed := w.accepted(w.place(nil, "Idempotency-Key", "key"))
	named := map[string]any{"order_id": "ord-1"}
	w.accepted(w.place(named))
	w.fill(1)
	w.overloaded(w.place(nil))
	for range 2 {
		if again := w.accepted(w.place(nil, "Idempotency-Key", "key")); again != keyed {
			t.Errorf("got %s, want %s", again, keyed)
		}
		w.accepted(w.place(named))
		w.restart()
		w.count()
	}
	if p := w.refused(w.place(map[string]any{"payment_token": "tok_other"}, "Idempotency-Key", "key"), http.StatusUnprocessableEntity); p.Code != "idempotency_key_reused" {
		t.Errorf("got %s", p.Code)
	}
	if p := w.refused(w.place(map[string]any{"order_id": "ord-1", "payment_token": "tok_other"}), http.StatusConflict); p.Code != "order_id_taken" {
		t.Errorf("got %s", p.Code)
	}
	if s := w.gate.Status(); s.Open != 3 || s.InFlight != 0 {
		t.Errorf("got %+v", s)
	}
}

// TestAKeyAfterAKill: the process dies at any point of a request and is followed by one that has no room. The same key then gets
// the order that was stored; where none was, it is refused, and later makes one order.
func TestAKeyAfterAKill(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]mode{"dies before": diesBefore, "dies after": diesAfter} {
		for at := 1; ; at++ {
			hit := false
			synctest.Test(t, func(t *testing.T) {
				w := bounded(t, admission.Options{Open: 2})
				w.fill(1)
				w.faults.reset(at, m)
				first := w.place(nil, "Idempotency-Key", "key")
				hit = w.faults.hit
				stored := len(w.store.orders()) == 2
				w.restart()
				w.count()
				time.Sleep(10 * time.Second) // the dead process's lease is over
				for n := 0; w.gate.Status().State == "open"; n++ {
					w.accepted(w.place(map[string]any{"order_id": fmt.Sprint("more-", n), "customer_id": fmt.Sprint("CUST-more-", n)}))
				}
				before := len(w.store.orders())
				answer := w.place(nil, "Idempotency-Key", "key")
				if stored {
					id := w.accepted(answer)
					if first.Code == http.StatusAccepted && w.accepted(first) != id {
						t.Errorf("%s call %d: answered %s, then %s", name, at, first.Body, answer.Body)
					}
				} else {
					w.overloaded(answer)
				}
				w.confirmAll()
				for _, id := range w.store.orders() {
					if id == "full-0" || strings.HasPrefix(id, "more-") {
						w.end(id)
					}
				}
				w.accepted(w.place(nil, "Idempotency-Key", "key"))
				want := before
				if !stored {
					want++
				}
				if ids := w.store.orders(); len(ids) != want {
					t.Errorf("%s call %d: stored %v, want one order of the key", name, at, ids)
				}
			})
			if !hit {
				break
			}
		}
	}
}

// TestNoSlotIsLost: 20,000 requests whose clients leave, whose orders are invalid or whose store fails leave all the room there was.
func TestNoSlotIsLost(t *testing.T) {
	t.Parallel()
	w := bounded(t, admission.Options{Open: 50})
	var all sync.WaitGroup
	const workers, each = 40, 500
	for worker := range workers {
		all.Go(func() {
			for n := range each {
				change := map[string]any{"customer_id": fmt.Sprint("CUST-", n)}
				ctx, leave := context.WithCancel(t.Context())
				switch n % 5 {
				case 0:
					change["total_amount"] = 1
				case 1:
					leave()
				case 2:
					time.AfterFunc(time.Duration(n)*time.Microsecond, leave)
				case 3:
					w.faults.reset(0, storeAway)
				default:
					w.faults.reset(0, never)
				}
				r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/orders", strings.NewReader(body(t, change)))
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("Idempotency-Key", fmt.Sprintf("%d-%d", worker, n))
				w.handler.ServeHTTP(httptest.NewRecorder(), r)
				leave()
			}
		})
	}
	all.Wait()
	w.faults.reset(0, never)
	s := w.gate.Status()
	if s.InFlight != 0 || s.Open == 0 || s.Open > 50 {
		t.Errorf("got %+v", s)
	}
	for _, id := range w.store.orders() {
		for _, e := range sagaOf(t, id, true) {
			w.deliver(contracts.TopicFulfillment, e)
		}
	}
	if s := w.gate.Status(); s.InFlight != 0 || s.Open != 0 || s.State != "open" {
		t.Errorf("got %+v", s)
	}
	w.accepted(w.place(nil))
}

// external is the Order.Created of another system.
func external(t *testing.T, id string) eventing.Event {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(body(t, map[string]any{"order_id": id, "customer_id": "CUST-bus"})), &fields); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	var e eventing.Event
	if err := json.Unmarshal(contracts.Sample(contracts.TypeOrderCreated), &e); err != nil {
		t.Fatal(err)
	}
	e.ID, e.Source, e.Data = id+" of another system", "/another/system", data
	return e
}

// TestOrdersWaitOnTheBus until there is room, and are neither stored nor dead-lettered before.
func TestOrdersWaitOnTheBus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := bounded(t, admission.Options{Open: 4})
		w.taken(contracts.TopicOrders, external(t, "bus-1"))
		w.taken(contracts.TopicOrders, external(t, "bus-2"))
		w.taken(contracts.TopicOrders, external(t, "bus-3"))
		before := w.trace()
		began := time.Now()
		if verdict := w.deliver(contracts.TopicOrders, external(t, "bus-4")); verdict != "RETRY" {
			t.Errorf("got %s", verdict)
		}
		if held := time.Since(began); held < 5*time.Second || held > 9*time.Second {
			t.Errorf("the delivery was held for %s", held)
		}
		if after := w.trace(); after != before {
			t.Errorf("stored or published %s, before %s", after, before)
		}
		// A stored order is accepted again, a redrive is not refused, and REST has its part of the limit.
		w.taken(contracts.TopicOrders, external(t, "bus-2"))
		if err := w.receiver.Redrive(t.Context(), contracts.TopicOrders, external(t, "bus-5")); err != nil {
			t.Error(err)
		}
		w.end("bus-5")
		w.accepted(w.place(map[string]any{"order_id": "rest"}))

		// A delivery that waits is accepted as soon as there is room.
		var waiting sync.WaitGroup
		waiting.Go(func() { w.taken(contracts.TopicOrders, external(t, "bus-4")) })
		time.Sleep(time.Second)
		w.end("bus-1")
		w.end("bus-2")
		waiting.Wait()
		if o := w.order("bus-4"); o.Status != "confirmed" {
			t.Errorf("got %+v", o)
		}
		// Nothing that must wait keeps the process from stopping.
		w.end("rest")
		w.taken(contracts.TopicOrders, external(t, "bus-6"))
		w.gate.Stop()
		began = time.Now()
		if verdict := w.deliver(contracts.TopicOrders, external(t, "bus-7")); verdict != "RETRY" || time.Since(began) > time.Second {
			t.Errorf("got %s after %s", verdict, time.Since(began))
		}
		if deadLettered := w.bus.deadLettered(); len(deadLettered) > 0 {
			t.Errorf("dead-lettered %v", deadLettered)
		}
	})
}

// An order over REST does not wait behind a queue on the bus: its own event is behind the queue, so it is confirmed at once. Its
// events are the same, once and in order.
func TestARESTOrderPassesAQueueOnTheBus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := bounded(t, admission.Options{Open: 8})
		early := w.accepted(w.place(map[string]any{"order_id": "early"}))
		for n := range 6 {
			w.taken(contracts.TopicOrders, external(t, fmt.Sprint("bus-", n)))
		}
		if verdict := w.deliver(contracts.TopicOrders, external(t, "bus-6")); verdict != "RETRY" {
			t.Fatalf("got %s", verdict)
		}
		late := w.accepted(w.place(map[string]any{"order_id": "late"}))
		if o := w.order(late); o.Status != "confirmed" {
			t.Errorf("the order is %s", o.Status)
		}
		if o := w.order(early); o.Status != "received" {
			t.Errorf("the order is %s", o.Status)
		}
		// One that was placed before is confirmed by the next pass of the reconciler.
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { w.reconciler.Run(ctx) })
		for range 8 {
			w.deliver(contracts.TopicOrders, external(t, "bus-6")) // the bus keeps waiting
		}
		cancel()
		running.Wait()
		for _, id := range []string{early, late} {
			if o := w.order(id); o.Status != "confirmed" {
				t.Errorf("%s is %s", id, o.Status)
			}
			w.end(id)
		}
		confirmAgain := len(w.bus.of(contracts.TypeOrderConfirmed))
		w.confirmAll()
		if n := len(w.bus.of(contracts.TypeOrderConfirmed)); n != confirmAgain {
			t.Errorf("%d confirmations, %d before the orders' own events arrived", n, confirmAgain)
		}
		want := []string{
			"Order.Created received", "Order.Confirmed confirmed", "Fulfillment.StepCompleted fulfilling", "Order.Updated fulfilling",
			"Fulfillment.StepCompleted fulfilling", "Fulfillment.StepCompleted fulfilling", "Fulfillment.Completed fulfilled", "Order.Fulfilled fulfilled",
		}
		for _, id := range []string{early, late} {
			if diff := cmp.Diff(want, w.history(id)); diff != "" {
				t.Errorf("%s: %s", id, diff)
			}
		}
		var published []string
		for n := 0; ; n++ {
			p, ok := w.bus.at(n)
			if !ok {
				break
			}
			if p.Subject == "orders/"+late && !slices.Contains(published, p.Type) {
				published = append(published, p.Type)
			}
		}
		if diff := cmp.Diff([]string{"Order.Created", "Order.Confirmed", "Order.Updated", "Order.Fulfilled"}, published); diff != "" {
			t.Error(diff)
		}
	})
}

// TestWhatEndsOrdersIsNeverRefused: with no room at all, orders are read, listed, cancelled and fulfilled.
func TestWhatEndsOrdersIsNeverRefused(t *testing.T) {
	t.Parallel()
	w := bounded(t, admission.Options{Open: 4, Waiting: 1})
	ids := w.fill(4)
	w.taken(contracts.TopicFulfillment, approvalRequested(t, ids[0]))
	w.overloaded(w.place(nil))
	for _, id := range ids {
		var shown, timeline any
		w.get("/v1/orders/"+id, &shown)
		w.get("/v1/orders/"+id+"/timeline", &timeline)
	}
	if n := len(w.listed("CUST-full-1")); n != 1 {
		t.Errorf("%d orders are listed", n)
	}
	if answer := w.request(http.MethodPost, "/v1/orders/"+ids[1]+"/cancel", ""); answer.Code != http.StatusAccepted {
		t.Errorf("got %d %s", answer.Code, answer.Body)
	}
	w.taken(contracts.TopicFulfillment, sagaCancelled(t, ids[1]))
	w.end(ids[2])
	w.overloaded(w.place(nil)) // the one that waits for a person is too many
	w.taken(contracts.TopicFulfillment, step(t, ids[0], contracts.StepApproval, contracts.OutcomeDone))
	if s := w.gate.Status(); s.Open != 2 || s.Waiting != 0 {
		t.Errorf("got %+v", s)
	}
	w.accepted(w.place(nil))
}

// TestANewProcessCountsWhatIsOpen, and refuses everything until it has.
func TestANewProcessCountsWhatIsOpen(t *testing.T) {
	t.Parallel()
	w := bounded(t, admission.Options{Open: 3})
	ids := w.fill(3)
	w.restart()
	w.overloaded(w.place(nil))
	w.count()
	w.overloaded(w.place(nil))
	w.end(ids[0])
	w.accepted(w.place(nil))
}
