package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/platform/eventing"
)

// elsewhere is an Order.Created as another system publishes it.
func elsewhere(t *testing.T, id string, change map[string]any) eventing.Event {
	t.Helper()
	return eventing.Event{
		ID: id, Type: contracts.TypeOrderCreated, Source: "/shop", Subject: "orders/x", Time: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC),
		Data: json.RawMessage(body(t, change)),
	}
}

// saga makes an event of the saga.
func saga(t *testing.T, id string, payload contracts.Payload) eventing.Event {
	t.Helper()
	e, err := eventing.New(id, "/waybill/fulfillment", contracts.Version, time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC), payload)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

type shownOrder struct {
	OrderID        string `json:"order_id"`
	Status         string
	CreatedAt      time.Time `json:"created_at"`
	ProcessedAt    time.Time `json:"processed_at"`
	TrackingNumber string    `json:"tracking_number"`
	Carrier        string
	Failure        *struct{ Code, Message string }
}

type shownTimeline struct {
	Items []struct {
		EventID string `json:"event_id"`
		Type    string
		Status  string
		Source  string
	}
}

func (w *world) order(id string) shownOrder {
	w.t.Helper()
	var shown shownOrder
	w.get("/v1/orders/"+id, &shown)
	return shown
}

// history is the order's timeline as "type status" texts.
func (w *world) history(id string) []string {
	w.t.Helper()
	var shown shownTimeline
	w.get("/v1/orders/"+id+"/timeline", &shown)
	history := make([]string, 0, len(shown.Items))
	for _, e := range shown.Items {
		history = append(history, e.Type+" "+e.Status)
	}
	return history
}

func (w *world) listed(customer string) []string {
	w.t.Helper()
	var page struct{ Items []shownOrder }
	w.get("/v1/orders?limit=100&customer_id="+customer, &page)
	ids := make([]string, 0, len(page.Items))
	for _, o := range page.Items {
		ids = append(ids, o.OrderID)
	}
	return ids
}

func TestConfirm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.accepted(w.place(nil))
	w.confirmAll()
	if o := w.order(id); o.Status != "confirmed" || o.ProcessedAt.IsZero() {
		t.Errorf("the order is %+v", o)
	}
	confirmed := same(t, w.bus.of(contracts.TypeOrderConfirmed))
	var payload contracts.OrderConfirmed
	if err := json.Unmarshal(confirmed.Data, &payload); err != nil {
		t.Fatal(err)
	}
	if confirmed.ID != id+":Order.Confirmed" || payload.OrderID != id || payload.PaymentToken != "tok_secret" || payload.TotalAmount != 99_9800 {
		t.Errorf("announced as %+v %+v", confirmed, payload)
	}
	if diff := cmp.Diff([]string{"Order.Created received", "Order.Confirmed confirmed"}, w.history(id)); diff != "" {
		t.Error(diff)
	}

	// Again: nothing changes, and the confirmation goes out once more, for nobody knows whether it did.
	w.confirmAll()
	if len(w.history(id)) != 2 || len(w.bus.of(contracts.TypeOrderConfirmed)) != 2 {
		t.Errorf("redelivered, the order has %d events and %d confirmations", len(w.history(id)), len(w.bus.of(contracts.TypeOrderConfirmed)))
	}
	same(t, w.bus.of(contracts.TypeOrderConfirmed))
	if diff := cmp.Diff([]string{id}, w.listed("CUST-123")); diff != "" {
		t.Error(diff)
	}
}

// TestAConfirmedOrderStays: the time to live of a received order ends with its confirmation.
func TestAConfirmedOrderStays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.accepted(w.place(nil))
		w.confirmAll()
		time.Sleep(1000 * time.Hour)
		if got := w.order(id).Status; got != "confirmed" {
			t.Errorf("the order is %s", got)
		}
	})
}

func TestAnOrderFromElsewhere(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		createdAt any
		want      time.Time
	}{
		"with its time":          {"2026-02-01T08:00:00+01:00", time.Date(2026, 2, 1, 7, 0, 0, 0, time.UTC)},
		"without":                {nil, time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)},
		"with a time in no way":  {"yesterday", time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)},
		"with year 10000 in UTC": {"9999-12-31T23:59:59-01:00", time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)},
		"with year -1 in UTC":    {"0000-01-01T00:00:00+01:00", time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)},
		"with year 1":            {"0001-01-01T00:00:00Z", time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)},
		"with year 1970":         {"1970-01-01T00:00:00Z", time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)},
	} {
		w := newWorld(t)
		// Unknown fields are another system's business.
		w.taken(contracts.TopicOrders, elsewhere(t, "shop-1", map[string]any{"order_id": "TEST-1", "created_at": test.createdAt, "coupon": "X"}))
		if o := w.order("TEST-1"); o.Status != "confirmed" || !o.CreatedAt.Equal(test.want) {
			t.Errorf("%s: the order is %+v, want it of %s", name, o, test.want)
		}
		if diff := cmp.Diff([]string{"TEST-1"}, w.listed("CUST-123")); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		var shown shownTimeline
		w.get("/v1/orders/TEST-1/timeline", &shown)
		if len(shown.Items) != 2 || shown.Items[0].EventID != "shop-1" || shown.Items[0].Source != "/shop" {
			t.Errorf("%s: %+v", name, shown)
		}
	}
}

func TestAnEventThatCanNeverBeAnOrder(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		data  string
		names []string
	}{
		"nothing in it":           {"{}", []string{"order_id is", "customer_id is", "items must", "total_amount is", "shipping_address.street", "shipping_address.zip"}},
		"no id":                   {body(t, nil), []string{"order_id is required"}},
		"a total that is off":     {body(t, map[string]any{"order_id": "o", "total_amount": 5}), []string{"total_amount must equal"}},
		"several faults":          {body(t, map[string]any{"order_id": "a/b", "items": item(map[string]any{"quantity": -5, "price": json.Number("1.999")})}), []string{"order_id must", "items[0].quantity", "items[0].price"}},
		"half a yen":              {body(t, map[string]any{"order_id": "o", "currency": "JPY"}), []string{"items[0].price must have no decimal places in JPY"}},
		"no currency of ISO 4217": {body(t, map[string]any{"order_id": "o", "currency": "ZZZ"}), []string{"currency must be a current ISO 4217 currency"}},
		"a mistyped field":        {body(t, map[string]any{"order_id": 5, "customer_id": ""}), []string{"order_id must not be a JSON number", "customer_id is required"}},
		"a mistyped name":         {body(t, map[string]any{"order_id": "o", "items": item(map[string]any{"name": 5})}), []string{"items[0].name must not be a JSON number"}},
		"a text for data":         {`"order"`, []string{"order_id"}},
		"an id that has a use":    {body(t, map[string]any{"order_id": "taken", "customer_id": "another"}), []string{"belongs to an order with other content"}},
		"numbers beyond a number": {strings.Replace(body(t, map[string]any{"order_id": "o"}), "99.98", "1e999", 1), []string{"total_amount must"}},
	} {
		w := newWorld(t)
		w.accepted(w.place(map[string]any{"order_id": "taken"}))
		e := eventing.Event{ID: "bad-1", Type: contracts.TypeOrderCreated, Source: "/shop", Subject: "orders/x", Data: json.RawMessage(test.data)}
		w.taken(contracts.TopicOrders, e)
		w.taken(contracts.TopicOrders, e)
		deadLettered := w.bus.deadLettered()
		if len(deadLettered) != 2 || deadLettered[0].Topic != contracts.OrdersReadsOrders.DeadLetter() || deadLettered[0].DeadLetter == nil || deadLettered[0].ID != "bad-1" {
			t.Errorf("%s: dead-lettered %+v", name, deadLettered)
			continue
		}
		errors := w.bus.of(contracts.TypeSystemError)
		if len(errors) != 2 || errors[0].ID != errors[1].ID || errors[0].Topic != contracts.TopicOrders {
			t.Errorf("%s: announced %+v", name, errors)
			continue
		}
		var announced contracts.SystemError
		if err := json.Unmarshal(errors[0].Data, &announced); err != nil {
			t.Fatal(err)
		}
		for _, part := range test.names {
			if !strings.Contains(deadLettered[0].DeadLetter.Reason, part) || announced.Error != deadLettered[0].DeadLetter.Reason {
				t.Errorf("%s: %q and %q leave out %q", name, deadLettered[0].DeadLetter.Reason, announced.Error, part)
			}
		}
		if strings.Contains(announced.Error, "tok_secret") || announced.Service != "orders" || announced.EventID != "bad-1" || announced.Topic != "orders" || announced.About != "orders/x" {
			t.Errorf("%s: announced %+v", name, announced)
		}
		if diff := cmp.Diff([]string{"taken"}, w.store.orders()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if listed := slices.Concat(w.listed("CUST-123"), w.listed("another")); len(listed) > 0 {
			t.Errorf("%s: listed %v", name, listed)
		}
	}
}

// sagaOf is what fulfilment publishes of an order that is shipped, and of one that is not.
func sagaOf(t *testing.T, id string, shipped bool) []eventing.Event {
	t.Helper()
	step := func(name, outcome string) eventing.Event {
		return saga(t, id+":"+name, contracts.StepCompleted{OrderID: id, CustomerID: "CUST-123", Step: name, Outcome: outcome, CompletedAt: time.Now()})
	}
	events := []eventing.Event{step(contracts.StepValidatePayment, contracts.OutcomeDone)}
	if !shipped {
		return append(events, step(contracts.StepReserveInventory, contracts.OutcomeRefused), step(contracts.StepRefundPayment, contracts.OutcomeDone),
			saga(t, id+":Fulfillment.Failed", contracts.FulfillmentFailed{OrderID: id, CustomerID: "CUST-123", Code: "out_of_stock", Error: "None left.", Undone: []string{"RefundPayment"}}))
	}
	return append(events, step(contracts.StepReserveInventory, contracts.OutcomeDone), step(contracts.StepProcessShipment, contracts.OutcomeDone),
		saga(t, id+":Fulfillment.Completed", contracts.FulfillmentCompleted{OrderID: id, CustomerID: "CUST-123", TrackingNumber: "TRK-1", Carrier: "UPS"}))
}

func TestFollowASaga(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.accepted(w.place(nil))
	w.confirmAll()
	for _, e := range sagaOf(t, id, true) {
		w.taken(contracts.TopicFulfillment, e)
	}
	want := []string{
		"Order.Created received", "Order.Confirmed confirmed",
		"Fulfillment.StepCompleted fulfilling", "Order.Updated fulfilling",
		"Fulfillment.StepCompleted fulfilling", "Fulfillment.StepCompleted fulfilling",
		"Fulfillment.Completed fulfilled", "Order.Fulfilled fulfilled",
	}
	if diff := cmp.Diff(want, w.history(id)); diff != "" {
		t.Error(diff)
	}
	if o := w.order(id); o.Status != "fulfilled" || o.TrackingNumber != "TRK-1" || o.Carrier != "UPS" || o.Failure != nil {
		t.Errorf("the order is %+v", o)
	}
	var updated contracts.OrderUpdated
	if err := json.Unmarshal(same(t, w.bus.of(contracts.TypeOrderUpdated)).Data, &updated); err != nil {
		t.Fatal(err)
	}
	if updated.OrderID != id || updated.Status != "fulfilling" || updated.PreviousStatus != "confirmed" {
		t.Errorf("updated: %+v", updated)
	}
	var fulfilled contracts.OrderFulfilled
	if err := json.Unmarshal(same(t, w.bus.of(contracts.TypeOrderFulfilled)).Data, &fulfilled); err != nil {
		t.Fatal(err)
	}
	if fulfilled.OrderID != id || len(fulfilled.Items) != 1 || fulfilled.TrackingNumber != "TRK-1" || fulfilled.TotalAmount != 99_9800 {
		t.Errorf("fulfilled: %+v", fulfilled)
	}
}

func TestFollowASagaThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.accepted(w.place(nil))
	w.confirmAll()
	for _, e := range sagaOf(t, id, false) {
		w.taken(contracts.TopicFulfillment, e)
	}
	o := w.order(id)
	if o.Status != "fulfillment_failed" || o.Failure == nil || o.Failure.Code != "out_of_stock" || o.Failure.Message != "None left." {
		t.Errorf("the order is %+v", o)
	}
	if e := same(t, w.bus.of(contracts.TypeOrderFulfillmentFailed)); e.ID != id+":Order.FulfillmentFailed" {
		t.Errorf("announced %s", e.ID)
	}
}

// TestWhatAnOrderCosts holds the calls of the store and the bus that an order takes, for they are what it costs.
func TestWhatAnOrderCosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.accepted(w.place(nil, "Idempotency-Key", "earlier")) // starts a page of the pending set
	cost := func(step func()) int {
		w.faults.reset(0, never)
		step()
		return w.faults.calls
	}
	var id string
	got := make([]int, 0, 6)
	got = append(got,
		cost(func() { id = w.accepted(w.place(nil, "Idempotency-Key", "key")) }),
		cost(func() { w.taken(contracts.TopicOrders, w.bus.of(contracts.TypeOrderCreated)[1].Event) }))
	for _, e := range sagaOf(t, id, true) {
		got = append(got, cost(func() { w.taken(contracts.TopicFulfillment, e) }))
	}
	want := []int{
		5, // the key, the order, Order.Created, the pending set read and written
		5, // the order and its customer's index read and written, Order.Confirmed
		3, // the order read and written, Order.Updated
		2,
		2,
		3, // Order.Fulfilled
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestEventsInAnyOrder delivers everything twice, in every rotation and backwards: the order ends the same, and announces
// its end once.
func TestEventsInAnyOrder(t *testing.T) {
	t.Parallel()
	for _, shipped := range []bool{true, false} {
		want, announced := "fulfilled", contracts.TypeOrderFulfilled
		if !shipped {
			want, announced = "fulfillment_failed", contracts.TypeOrderFulfillmentFailed
		}
		for rotation := range 8 {
			w := newWorld(t)
			id := w.accepted(w.place(nil))
			events := append([]eventing.Event{w.bus.of(contracts.TypeOrderCreated)[0].Event}, sagaOf(t, id, shipped)...)
			events = slices.Concat(events[rotation%len(events):], events[:rotation%len(events)])
			if rotation >= len(events) {
				slices.Reverse(events)
			}
			for _, e := range slices.Concat(events, events) {
				topic := contracts.TopicFulfillment
				if e.Type == contracts.TypeOrderCreated {
					topic = contracts.TopicOrders
				}
				w.taken(topic, e)
			}
			if got := w.order(id).Status; got != want {
				t.Errorf("rotation %d: the order ends %s, want %s", rotation, got, want)
			}
			same(t, w.bus.of(announced))
			if diff := cmp.Diff([]string{id}, w.listed("CUST-123")); diff != "" {
				t.Errorf("rotation %d: %s", rotation, diff)
			}
			var shown shownTimeline
			w.get("/v1/orders/"+id+"/timeline", &shown)
			ids := map[string]bool{}
			for _, e := range shown.Items {
				if ids[e.EventID] {
					t.Errorf("rotation %d: %s is on the timeline twice", rotation, e.EventID)
				}
				ids[e.EventID] = true
			}
			if len(w.bus.deadLettered()) > 0 {
				t.Errorf("rotation %d: dead-lettered %v", rotation, w.bus.deadLettered())
			}
		}
	}
}

func TestAnEventOfAnUnknownOrder(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"unknown", "a/b", ""} {
		w := newWorld(t)
		for _, e := range sagaOf(t, id, true) {
			w.taken(contracts.TopicFulfillment, e)
		}
		if deadLettered := w.bus.deadLettered(); len(deadLettered) != 4 || deadLettered[0].Topic != contracts.OrdersReadsFulfillment.DeadLetter() {
			t.Errorf("%q: dead-lettered %v", id, deadLettered)
		}
		if len(w.store.made) > 0 {
			t.Errorf("%q: stored %v", id, w.store.made)
		}
	}
	w := newWorld(t)
	w.taken(contracts.TopicFulfillment, eventing.Event{ID: "x", Type: contracts.TypeStepCompleted, Data: json.RawMessage(`{"order_id":5}`)})
	if len(w.bus.deadLettered()) != 1 {
		t.Error("an event that cannot be read is not dead-lettered")
	}
}

// TestEventsBrokenAtEveryStep breaks the handling of each event at each of its calls, and delivers it again as the broker
// does: the order comes to the same end and everything it announces goes out.
func TestEventsBrokenAtEveryStep(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]mode{"fails before": before, "fails after": after, "dies before": diesBefore, "dies after": diesAfter} {
		for step := 1; ; step++ {
			broken := false
			t.Run(fmt.Sprint(name, " step ", step), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					id := w.accepted(w.place(nil))
					events := append([]eventing.Event{w.bus.of(contracts.TypeOrderCreated)[0].Event}, sagaOf(t, id, true)...)
					topic := contracts.TopicOrders
					for _, e := range events {
						w.faults.reset(step, m)
						verdict := w.deliver(topic, e)
						broken = broken || w.faults.hit
						if verdict != "SUCCESS" {
							w.restart()
							w.taken(topic, e)
						}
						w.faults.reset(0, never)
						topic = contracts.TopicFulfillment
					}
					if got := w.order(id).Status; got != "fulfilled" {
						t.Errorf("the order ends %s", got)
					}
					if n := len(w.history(id)); n != 8 {
						t.Errorf("the timeline holds %v", w.history(id))
					}
					for _, announced := range []string{contracts.TypeOrderConfirmed, contracts.TypeOrderUpdated, contracts.TypeOrderFulfilled} {
						same(t, w.bus.of(announced))
					}
					if diff := cmp.Diff([]string{id}, w.listed("CUST-123")); diff != "" {
						t.Error(diff)
					}
					if len(w.bus.deadLettered()) > 0 {
						t.Errorf("dead-lettered %v", w.bus.deadLettered())
					}
				})
			})
			if !broken || t.Failed() {
				break
			}
		}
	}
}

func TestEventsWhenSomethingIsAway(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]mode{"the bus": busAway, "the store": storeAway} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := elsewhere(t, "shop-1", map[string]any{"order_id": "TEST-1"})
				for range 3 {
					w.faults.reset(0, away)
					if verdict := w.deliver(contracts.TopicOrders, e); verdict != "RETRY" {
						t.Errorf("got %s, want RETRY", verdict)
					}
				}
				w.faults.reset(0, never)
				w.taken(contracts.TopicOrders, e)
				if w.order("TEST-1").Status != "confirmed" || len(w.bus.deadLettered()) > 0 {
					t.Errorf("the order is %+v, dead-lettered %v", w.order("TEST-1"), w.bus.deadLettered())
				}
			})
		})
	}
}

func TestOnlyTheSidecarMayDeliver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, token := range []string{"", "another"} {
		for _, path := range []string{"/events/orders/Order.Created", "/events/fulfillment/Fulfillment.Completed", "/events/orders", "/dapr/subscribe"} {
			method := http.MethodPost
			if path == "/dapr/subscribe" {
				method = http.MethodGet
			}
			if answer := w.request(method, path, "{}", "dapr-api-token", token); answer.Code != http.StatusForbidden {
				t.Errorf("%s with token %q: %d", path, token, answer.Code)
			}
		}
	}
	answer := w.request(http.MethodGet, "/dapr/subscribe", "", "dapr-api-token", appToken)
	for _, part := range []string{`"orders.orders.dead"`, `"fulfillment.orders.dead"`, "/events/fulfillment/Fulfillment.StepCompleted"} {
		if !strings.Contains(answer.Body.String(), part) {
			t.Errorf("%s leaves out %s", answer.Body, part)
		}
	}
}
