package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/services/orders/internal/idempotency"
)

func TestPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.accepted(w.place(nil))
	created := same(t, w.bus.of(contracts.TypeOrderCreated))
	if created.Topic != contracts.TopicOrders || created.ID != id+":Order.Created" || created.Source != "/waybill/orders" || created.DataVersion != contracts.Version {
		t.Errorf("published %+v", created)
	}
	var payload contracts.OrderCreated
	if err := json.Unmarshal(created.Data, &payload); err != nil {
		t.Fatal(err)
	}
	want := contracts.Order{
		OrderID: id, CustomerID: "CUST-123", TotalAmount: 99_9800, Currency: "USD", PaymentToken: "tok_secret",
		Items:  []contracts.Line{{ProductID: "PROD-001", Name: "Mug", Quantity: 2, Price: 49_9900}},
		ShipTo: contracts.Address{Street: "123 Main St", City: "Seattle", State: "WA", Zip: "98101", Country: "US"},
	}
	if diff := cmp.Diff(want, payload.Order); diff != "" {
		t.Error(diff)
	}
	var shown map[string]any
	answer := w.get("/v1/orders/"+id, &shown)
	if shown["status"] != "received" || shown["total_amount"] != 99.98 || strings.Contains(answer.Body.String(), "tok_secret") {
		t.Errorf("shown as %s", answer.Body)
	}
}

// TestAReceivedOrderVanishes: an order whose client never got a 202, and did not ask again, leaves nothing behind.
func TestAReceivedOrderVanishes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.faults.reset(0, busAway)
		w.refused(w.place(map[string]any{"order_id": "ord-1"}), http.StatusServiceUnavailable)
		w.faults.reset(0, never)
		time.Sleep(receivedTTL + time.Second)
		w.refused(w.request(http.MethodGet, "/v1/orders/ord-1", ""), http.StatusNotFound)
		w.accepted(w.place(map[string]any{"order_id": "ord-1", "customer_id": "another"}))
	})
}

func TestBadOrders(t *testing.T) {
	t.Parallel()
	nothing := []string{}
	valid := body(t, nil)
	for name, test := range map[string]struct {
		body      string
		header    []string
		status    int
		locations []string
	}{
		"no body":             {"", nil, 400, nothing},
		"half an object":      {"{", nil, 400, []string{"body"}},
		"no JSON":             {"order please", nil, 400, []string{"body"}},
		"two orders":          {valid + valid, nil, 400, []string{"body"}},
		"trailing data":       {valid + "x", nil, 400, []string{"body"}},
		"an array":            {"[" + valid + "]", nil, 422, []string{"body"}},
		"null":                {"null", nil, 422, []string{"body"}},
		"a number beyond any": {strings.Replace(valid, "49.99", "1e999", 1), nil, 400, []string{"body.items[0].price"}},
		"10 MB":               {`{"customer_id":"` + strings.Repeat("x", 10<<20) + `"}`, nil, 413, nothing},
		"not sent as JSON":    {valid, []string{"Content-Type", "text/plain"}, 415, []string{"body"}},
		"an empty object": {"{}", nil, 422, []string{
			"body.customer_id", "body.items", "body.shipping_address", "body.total_amount",
		}},
		"an empty address": {body(t, map[string]any{"shipping_address": map[string]any{}}), nil, 422, []string{
			"body.shipping_address.city", "body.shipping_address.street", "body.shipping_address.zip",
		}},
		"an address of nulls": {body(t, map[string]any{"shipping_address": map[string]any{"street": nil, "city": nil, "zip": nil}}), nil, 422, []string{
			"body.shipping_address.city", "body.shipping_address.street", "body.shipping_address.zip",
		}},
		"unknown fields": {body(t, map[string]any{"coupon": "X", "items": item(map[string]any{"colour": "red"})}), nil, 422, []string{
			"body.coupon", "body.items[0].colour",
		}},
		"quantity -5":                {body(t, map[string]any{"items": item(map[string]any{"quantity": -5})}), nil, 422, []string{"body.items[0].quantity"}},
		"quantity 0":                 {body(t, map[string]any{"items": item(map[string]any{"quantity": 0})}), nil, 422, []string{"body.items[0].quantity"}},
		"quantity 1.5":               {body(t, map[string]any{"items": item(map[string]any{"quantity": 1.5})}), nil, 422, []string{"body.items[0].quantity"}},
		"quantity in text":           {body(t, map[string]any{"items": item(map[string]any{"quantity": "2"})}), nil, 422, []string{"body.items[0].quantity"}},
		"quantity null":              {body(t, map[string]any{"items": item(map[string]any{"quantity": json.RawMessage("null")})}), nil, 422, []string{"body.items[0].quantity"}},
		"quantity 1e4":               {body(t, map[string]any{"items": item(map[string]any{"quantity": json.Number("1e4")})}), nil, 422, []string{"body.items[0].quantity"}},
		"quantity 1e18":              {body(t, map[string]any{"items": item(map[string]any{"quantity": json.Number("1e18")})}), nil, 422, []string{"body.items[0].quantity"}},
		"quantity 1001":              {body(t, map[string]any{"items": item(map[string]any{"quantity": 1001})}), nil, 422, []string{"body.items[0].quantity"}},
		"price 49.999":               {body(t, map[string]any{"items": item(map[string]any{"price": json.Number("49.999")})}), nil, 422, []string{"body.items[0].price"}},
		"price -1":                   {body(t, map[string]any{"items": item(map[string]any{"price": -1})}), nil, 422, []string{"body.items[0].price"}},
		"price x":                    {body(t, map[string]any{"items": item(map[string]any{"price": "x"})}), nil, 422, []string{"body.items[0].price"}},
		"price 1e11":                 {body(t, map[string]any{"items": item(map[string]any{"price": json.Number("1e11")})}), nil, 422, []string{"body.items[0].price"}},
		"price beyond all":           {body(t, map[string]any{"items": item(map[string]any{"price": json.Number("1e300")})}), nil, 422, []string{"body.items[0].price"}},
		"no price":                   {body(t, map[string]any{"items": item(map[string]any{"price": nil})}), nil, 422, []string{"body.items[0].price"}},
		"a total that is off":        {body(t, map[string]any{"total_amount": 1}), nil, 422, []string{"body.total_amount"}},
		"no total":                   {body(t, map[string]any{"total_amount": nil}), nil, 422, []string{"body.total_amount"}},
		"a total in text":            {body(t, map[string]any{"total_amount": "99.98"}), nil, 422, []string{"body.total_amount"}},
		"no items":                   {body(t, map[string]any{"items": []any{}}), nil, 422, []string{"body.items"}},
		"items null":                 {body(t, map[string]any{"items": json.RawMessage("null")}), nil, 422, []string{"body.items"}},
		"items that are one":         {body(t, map[string]any{"items": item(nil)[0]}), nil, 422, []string{"body.items"}},
		"an item that is a text":     {body(t, map[string]any{"items": []any{"PROD-001"}}), nil, 422, []string{"body.items[0]"}},
		"10,000 items":               {body(t, map[string]any{"items": slices.Repeat(item(nil), 10_000)}), nil, 422, []string{"body.items"}},
		"101 items":                  {body(t, map[string]any{"items": slices.Repeat(item(nil), 101)}), nil, 422, []string{"body.items"}},
		"an empty customer":          {body(t, map[string]any{"customer_id": ""}), nil, 422, []string{"body.customer_id"}},
		"a customer with a slash":    {body(t, map[string]any{"customer_id": "a/b"}), nil, 422, []string{"body.customer_id"}},
		"a customer of bars":         {body(t, map[string]any{"customer_id": "a||b"}), nil, 422, []string{"body.customer_id"}},
		"an order with a slash":      {body(t, map[string]any{"order_id": "../a"}), nil, 422, []string{"body.order_id"}},
		"a numeric order":            {body(t, map[string]any{"order_id": 7}), nil, 422, []string{"body.order_id"}},
		"a product with a space":     {body(t, map[string]any{"items": item(map[string]any{"product_id": "a b"})}), nil, 422, []string{"body.items[0].product_id"}},
		"a lower-case currency":      {body(t, map[string]any{"currency": "usd"}), nil, 422, []string{"body.currency"}},
		"a long name":                {body(t, map[string]any{"items": item(map[string]any{"name": strings.Repeat("x", 201)})}), nil, 422, []string{"body.items[0].name"}},
		"a street that is not UTF-8": {strings.Replace(valid, "123 Main St", "Stra\xdfe", 1), nil, 400, []string{"body.shipping_address.street"}},
		"a control character":        {body(t, map[string]any{"payment_token": "a\x00b"}), nil, 422, []string{"body.payment_token"}},
		"a key with a space":         {valid, []string{"Idempotency-Key", "a b"}, 422, []string{"header.Idempotency-Key"}},
		"a key that is too long":     {valid, []string{"Idempotency-Key", strings.Repeat("k", 256)}, 422, []string{"header.Idempotency-Key"}},
		"all sorts of faults at once": {
			body(t, map[string]any{
				"customer_id": 5, "order_id": "a/b", "currency": "EURO", "gift": true, "total_amount": nil,
				"items": []any{
					map[string]any{"product_id": "", "quantity": "2", "price": json.Number("49.99999")},
					map[string]any{"product_id": "P", "quantity": 0, "price": -1, "size": 1},
					map[string]any{},
				},
				"shipping_address": map[string]any{"street": "", "city": 7},
			}),
			[]string{"Idempotency-Key", "a b"}, 422,
			[]string{
				"body.currency", "body.customer_id", "body.gift", "body.items[0].price", "body.items[0].product_id", "body.items[0].quantity",
				"body.items[1].price", "body.items[1].quantity", "body.items[1].size", "body.items[2].price", "body.items[2].product_id",
				"body.items[2].quantity", "body.order_id", "body.shipping_address.city", "body.shipping_address.street",
				"body.shipping_address.zip", "body.total_amount", "header.Idempotency-Key",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for _, header := range [][]string{test.header, append([]string{"Idempotency-Key", "key"}, test.header...)} {
				p := w.refused(w.request(http.MethodPost, "/v1/orders", test.body, header...), test.status)
				if diff := cmp.Diff(test.locations, p.locations()); diff != "" {
					t.Errorf("faulty places: %s", diff)
				}
			}
			if len(w.store.made) > 0 || len(w.bus.published) > 0 {
				t.Errorf("a refused order left %v and %v behind", w.store.made, w.bus.published)
			}
		})
	}
}

// TestABodyThatBreaksOff: what did arrive may be a whole order, and yet nobody knows whether it is what was meant.
func TestABodyThatBreaksOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, sent := range []string{"", `{"customer_id":`, body(t, nil)} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/orders",
			io.MultiReader(strings.NewReader(sent), iotest.ErrReader(io.ErrUnexpectedEOF)))
		r.Header.Set("Content-Type", "application/json")
		answer := httptest.NewRecorder()
		w.handler.ServeHTTP(answer, r)
		w.refused(answer, http.StatusBadRequest)
	}
	if len(w.store.made) > 0 {
		t.Errorf("stored %v", w.store.made)
	}
}

func TestPlaceTakesAPriceAsItIsWritten(t *testing.T) {
	t.Parallel()
	for price, total := range map[json.Number]json.Number{"0.1": "0.2", "0.10": "0.20", "5": "10", "0": "0", "1234567.89": "2469135.78"} {
		w := newWorld(t)
		w.accepted(w.place(map[string]any{"items": item(map[string]any{"price": price}), "total_amount": total}))
	}
}

func TestAnIDThatIsTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	named := map[string]any{"order_id": "ord-1"}
	w.accepted(w.place(named))
	w.accepted(w.place(named))
	if created := w.bus.of(contracts.TypeOrderCreated); len(created) != 2 {
		t.Errorf("published %d times, want again while nothing shows that it arrived", len(created))
	}
	created := same(t, w.bus.of(contracts.TypeOrderCreated))
	for name, change := range map[string]map[string]any{
		"other items":   {"order_id": "ord-1", "items": item(map[string]any{"name": "Cup"})},
		"other payment": {"order_id": "ord-1", "payment_token": "tok_other"},
		"other address": {"order_id": "ord-1", "shipping_address": map[string]any{"street": "A", "city": "B", "zip": "C"}},
	} {
		if p := w.refused(w.place(change), http.StatusConflict); p.Code != "order_id_taken" {
			t.Errorf("%s: %s", name, p.Code)
		}
	}
	w.taken(contracts.TopicOrders, created.Event)
	answer := w.place(named)
	w.accepted(answer)
	if !strings.Contains(answer.Body.String(), `"confirmed"`) {
		t.Errorf("got %s, want the order as it is by now", answer.Body)
	}
	if n := len(w.bus.of(contracts.TypeOrderCreated)); n != 2 || len(w.store.orders()) != 1 {
		t.Errorf("%d orders, published %d times; want one, and nothing more of one that is confirmed", len(w.store.orders()), n)
	}
}

func TestPlaceWhenSomethingIsAway(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]mode{"the bus": busAway, "the store": storeAway} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.faults.reset(0, away)
				began := time.Now()
				for _, header := range [][]string{nil, {"Idempotency-Key", "key"}} {
					answer := w.place(nil, header...)
					w.refused(answer, http.StatusServiceUnavailable)
					if answer.Header().Get("Retry-After") == "" {
						t.Error("no Retry-After")
					}
				}
				if took := time.Since(began); took > 15*time.Second {
					t.Errorf("two requests took %s", took)
				}
				w.faults.reset(0, never)
				w.accepted(w.place(nil, "Idempotency-Key", "key"))
				if n := len(w.bus.of(contracts.TypeOrderCreated)); n != 1 {
					t.Errorf("%d orders were announced, want 1", n)
				}
			})
		})
	}
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.place(nil, "Idempotency-Key", "key")
	id := w.accepted(first)
	w.confirmAll()

	again := w.place(nil, "Idempotency-Key", "key")
	if again.Body.String() != first.Body.String() || again.Header().Get("Location") != first.Header().Get("Location") || again.Code != first.Code {
		t.Errorf("the same request is answered %s, then %s", first.Body, again.Body)
	}
	spaced := w.request(http.MethodPost, "/v1/orders", strings.ReplaceAll(body(t, nil), ",", ",\n "), "Idempotency-Key", "key")
	if w.accepted(spaced) != id {
		t.Error("the same order, written with spaces, is another one")
	}
	for name, change := range map[string]map[string]any{
		"another payment":  {"payment_token": "tok_other"},
		"another id":       {"order_id": "ord-2"},
		"the id it got":    {"order_id": id},
		"another currency": {"currency": "EUR"},
	} {
		if p := w.refused(w.place(change, "Idempotency-Key", "key"), http.StatusUnprocessableEntity); p.Code != "idempotency_key_reused" {
			t.Errorf("%s: %s", name, p.Code)
		}
	}
	w.restart()
	if again := w.accepted(w.place(nil, "Idempotency-Key", "key")); again != id {
		t.Errorf("after a restart the key leads to %s, want %s", again, id)
	}
	if other := w.accepted(w.place(nil, "Idempotency-Key", "Key")); other == id {
		t.Error("another key leads to the same order")
	}
	if n := len(w.store.orders()); n != 2 {
		t.Errorf("%d orders, want 2", n)
	}
}

// TestAKeyInAnotherProcess: whether the first request was done follows from its order. While that is only received, another
// process cannot tell and does not guess; the client comes to the first one's answer all the same.
func TestAKeyInAnotherProcess(t *testing.T) {
	t.Parallel()
	for name, confirmed := range map[string]bool{"an order that is confirmed": true, "an order that is received": false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			first := w.place(nil, "Idempotency-Key", "key")
			id := w.accepted(first)
			if w.accepted(w.place(nil, "Idempotency-Key", "key")) != id || len(w.bus.of(contracts.TypeOrderCreated)) != 1 {
				t.Errorf("%s: in the same process it was announced %d times", name, len(w.bus.of(contracts.TypeOrderCreated)))
			}
			w.restart()
			if p := w.refused(w.place(map[string]any{"payment_token": "tok_other"}, "Idempotency-Key", "key"), http.StatusUnprocessableEntity); p.Code != "idempotency_key_reused" {
				t.Errorf("%s: another order: %s", name, p.Code)
			}
			if confirmed {
				w.confirmAll()
			} else {
				w.refused(w.place(nil, "Idempotency-Key", "key"), http.StatusConflict)
				time.Sleep(idempotency.Lease)
			}
			again := w.place(nil, "Idempotency-Key", "key")
			if again.Body.String() != first.Body.String() || again.Header().Get("Location") != first.Header().Get("Location") || again.Code != first.Code {
				t.Errorf("%s: answered %s, then %d %s", name, first.Body, again.Code, again.Body)
			}
			same(t, w.bus.of(contracts.TypeOrderCreated))
			if diff := cmp.Diff([]string{id}, w.store.orders()); diff != "" {
				t.Errorf("%s: stored: %s", name, diff)
			}
		})
	}
}

// TestAKeyForAnIDThatIsTaken: the order of that id does not show that this request was done, however far it has come.
func TestAKeyForAnIDThatIsTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.accepted(w.place(map[string]any{"order_id": "ord-1"}, "Idempotency-Key", "first"))
	other := map[string]any{"order_id": "ord-1", "payment_token": "tok_other"}
	for _, next := range []func(){w.confirmAll, w.restart, func() {}} {
		if p := w.refused(w.place(other, "Idempotency-Key", "second"), http.StatusConflict); p.Code != "order_id_taken" {
			t.Errorf("got %s", p.Code)
		}
		next()
	}
	if w.accepted(w.place(map[string]any{"order_id": "ord-1"}, "Idempotency-Key", "third")) != "ord-1" {
		t.Error("the same order under another key is another one")
	}
}

func TestAKeyIsForgottenInTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.accepted(w.place(nil, "Idempotency-Key", "key"))
		time.Sleep(time.Hour + time.Second)
		if w.accepted(w.place(nil, "Idempotency-Key", "key")) == id {
			t.Error("the key is remembered for ever")
		}
	})
}

func TestOneKeySentManyTimesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	answers := make([]*httptest.ResponseRecorder, 50)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() { answers[i] = w.place(nil, "Idempotency-Key", "key") })
	}
	all.Wait()
	ids := map[string]bool{}
	for _, answer := range answers {
		if answer.Code == http.StatusConflict {
			if w.refused(answer, http.StatusConflict); answer.Header().Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			continue
		}
		ids[w.accepted(answer)] = true
	}
	if len(ids) != 1 || len(w.store.orders()) != 1 || len(w.bus.of(contracts.TypeOrderCreated)) != 1 {
		t.Errorf("50 requests led to %v; stored %v", ids, w.store.orders())
	}
}

// TestPlaceBrokenAtEveryStep breaks the request at each of its calls in turn, before and after the call's effect, with and
// without the death of the process, and repeats it: there must be one order, announced under one id.
func TestPlaceBrokenAtEveryStep(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]mode{"fails before": before, "fails after": after, "dies before": diesBefore, "dies after": diesAfter} {
		for step := 1; ; step++ {
			broken := true
			t.Run(fmt.Sprint(name, " step ", step), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					w.faults.reset(step, m)
					first := w.place(nil, "Idempotency-Key", "key")
					broken = w.faults.hit
					dead := m == diesBefore || m == diesAfter
					if dead {
						w.restart()
						// The next process cannot know that this one is dead before its lease is over.
						early := w.place(nil, "Idempotency-Key", "key")
						if early.Code != http.StatusAccepted {
							w.refused(early, http.StatusConflict)
						}
						time.Sleep(idempotency.Lease)
					}
					w.faults.reset(0, never)
					id := w.accepted(w.place(nil, "Idempotency-Key", "key"))
					if first.Code == http.StatusAccepted && w.accepted(first) != id {
						t.Errorf("first answered %s, then %s", first.Body, id)
					} else if first.Code != http.StatusAccepted {
						w.refused(first, http.StatusServiceUnavailable)
					}
					if diff := cmp.Diff([]string{id}, w.store.orders()); diff != "" {
						t.Errorf("stored: %s", diff)
					}
					if created := same(t, w.bus.of(contracts.TypeOrderCreated)); created.ID != id+":Order.Created" {
						t.Errorf("announced %s", created.ID)
					}
					w.confirmAll()
					var shown struct{ Status string }
					if w.get("/v1/orders/"+id, &shown); shown.Status != "confirmed" {
						t.Errorf("the order ends %s", shown.Status)
					}
				})
			})
			if !broken || t.Failed() {
				break
			}
		}
	}
}

// TestPlaceRidesOutAFault breaks each call of the request in turn, before and after its effect: with a store that is asked
// again the client does not notice, and nothing is there twice.
func TestPlaceRidesOutAFault(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]mode{"fails before": before, "fails after": after} {
		for _, header := range [][]string{nil, {"Idempotency-Key", "key"}} {
			for step := 1; ; step++ {
				broken := true
				t.Run(fmt.Sprint(name, " step ", step, header), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t)
						w.storeTimeout = 4 * time.Second
						w.restart()
						w.faults.reset(step, m)
						id := w.accepted(w.place(nil, header...))
						broken = w.faults.hit
						w.faults.reset(0, never)
						if diff := cmp.Diff([]string{id}, w.store.orders()); diff != "" {
							t.Errorf("stored: %s", diff)
						}
						same(t, w.bus.of(contracts.TypeOrderCreated))
						if header != nil && w.accepted(w.place(nil, header...)) != id {
							t.Error("the key leads to another order")
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
