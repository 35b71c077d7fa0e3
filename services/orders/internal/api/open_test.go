package api_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/platform/state"
)

type openPage struct {
	Items []struct {
		OrderID string `json:"order_id"`
		Status  string `json:"status"`
	} `json:"items"`
	More bool `json:"more"`
}

func (w *world) open(query string) (ids []string, more bool) {
	w.t.Helper()
	var page openPage
	if answer := w.get("/v1/open-orders"+query, &page); answer.Code != http.StatusOK {
		w.t.Fatalf("%d %s", answer.Code, answer.Body)
	}
	ids = make([]string, 0, len(page.Items))
	for _, item := range page.Items {
		ids = append(ids, item.OrderID)
	}
	slices.Sort(ids)
	return ids, page.More
}

func TestOrdersThatHaveNotEndedAreListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if ids, more := w.open(""); len(ids) > 0 || more {
		t.Errorf("before the first order: %v %v", ids, more)
	}
	for i := range 3 {
		w.taken(contracts.TopicOrders, elsewhere(t, fmt.Sprint(i), map[string]any{"order_id": fmt.Sprint("o-", i)}))
	}
	w.cancelled(w.cancel("o-1", `{}`))
	w.taken(contracts.TopicFulfillment, sagaCancelled(t, "o-1"))
	ids, more := w.open("")
	if diff := cmp.Diff([]string{"o-0", "o-2"}, ids); diff != "" || more {
		t.Errorf("%s %v", diff, more)
	}
	if ids, more := w.open("?limit=1"); len(ids) != 1 || !more {
		t.Errorf("one: %v %v", ids, more)
	}
	w.corrupt("order:o-0")
	if ids, _ := w.open(""); len(ids) != 1 || ids[0] != "o-2" {
		t.Errorf("with one that cannot be decoded: %v", ids)
	}
	w.refused(w.request(http.MethodGet, "/v1/open-orders?limit=501", ""), http.StatusUnprocessableEntity)
	w.faults.reset(0, storeAway)
	w.refused(w.request(http.MethodGet, "/v1/open-orders", ""), http.StatusServiceUnavailable)
}

func (w *world) corrupt(key string) {
	w.t.Helper()
	if _, err := state.Update(w.t.Context(), w.store, key, func(doc *any, _ bool) error { *doc = "corrupt"; return nil }); err != nil {
		w.t.Fatal(err)
	}
}

// An order that is lost from the pending set is added again when it is placed again.
func TestPlacingAgainAddsAnOrderToThePendingSet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.accepted(w.place(map[string]any{"order_id": "o-1"}))
	w.confirmAll()
	if _, err := state.Update(t.Context(), w.store, "backlog:orders", func(doc *any, _ bool) error { *doc = map[string]any{}; return nil }); err != nil {
		t.Fatal(err)
	}
	if ids, _ := w.open(""); len(ids) > 0 {
		t.Fatalf("listed: %v", ids)
	}
	w.restart()
	w.accepted(w.place(map[string]any{"order_id": "o-1"}))
	if ids, _ := w.open(""); len(ids) != 1 || ids[0] != id {
		t.Errorf("listed: %v", ids)
	}
}
