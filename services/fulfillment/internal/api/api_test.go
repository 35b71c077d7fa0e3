package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/platform/rest"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/api"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/ledger"
)

// sagas records which orders' sagas were started.
type sagas struct {
	started []contracts.Order
	err     error
}

func (s *sagas) Start(_ context.Context, o contracts.Order) error {
	s.started = append(s.started, o)
	return s.err
}

// service is the edge on a warehouse without I/O.
type service struct {
	api   api.API
	stock *ledger.Inventory
	sagas *sagas
	http  http.Handler
}

func newService(t *testing.T) service {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	stock := ledger.NewInventory(state.NewMemory(), func(context.Context, inventory.Stock) error { return nil }, time.Now)
	started := &sagas{}
	a := api.API{Inventory: stock, Sagas: started, Logger: logger}
	router, surface := rest.New(rest.Info{Title: "test", Version: "1"}, logger)
	a.Mount(surface)
	return service{a, stock, started, router}
}

func call(t *testing.T, h http.Handler, method, path, body string) (int, map[string]any) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	recorder := httptest.NewRecorder()
	h.ServeHTTP(recorder, req)
	var answer map[string]any
	if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%s %s: %d %s", method, path, recorder.Code, recorder.Body)
	}
	return recorder.Code, answer
}

func TestStockIsSetAndShown(t *testing.T) {
	t.Parallel()
	s := newService(t)
	if code, answer := call(t, s.http, http.MethodGet, "/v1/inventory/PROD-001", ""); code != 404 || answer["code"] != "unknown_product" {
		t.Errorf("unknown product: %d %v", code, answer)
	}
	if code, answer := call(t, s.http, http.MethodPut, "/v1/inventory/PROD-001", `{"on_hand": 10}`); code != 200 {
		t.Errorf("set: %d %v", code, answer)
	}
	order := contracts.Order{OrderID: "ORDER-1", Items: []contracts.Line{{ProductID: "PROD-001", Quantity: 4}}}
	if refused, err := s.stock.Reserve(t.Context(), order); err != nil || refused != nil {
		t.Fatal(refused, err)
	}
	_, answer := call(t, s.http, http.MethodGet, "/v1/inventory/PROD-001", "")
	want := map[string]any{"product_id": "PROD-001", "on_hand": 10.0, "reserved": 4.0, "available": 6.0, "shipped": 0.0}
	if diff := cmp.Diff(want, answer); diff != "" {
		t.Errorf("stock (-want +got):\n%s", diff)
	}
	if code, answer := call(t, s.http, http.MethodPut, "/v1/inventory/PROD-001", `{"on_hand": 3}`); code != 409 || answer["code"] != "stock_reserved" {
		t.Errorf("set below what is held: %d %v", code, answer)
	}
}

func TestBadStockRequestsNameTheField(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, c := range []struct {
		path, body string
		status     int
		location   string
	}{
		{"/v1/inventory/PROD-001", ``, 400, ""},
		{"/v1/inventory/PROD-001", `{`, 400, "body"},
		{"/v1/inventory/PROD-001", `{}`, 422, "body.on_hand"},
		{"/v1/inventory/PROD-001", `{"on_hand": -1}`, 422, "body.on_hand"},
		{"/v1/inventory/PROD-001", `{"on_hand": 1.5}`, 422, "body.on_hand"},
		{"/v1/inventory/PROD-001", `{"on_hand": "1"}`, 422, "body.on_hand"},
		{"/v1/inventory/PROD-001", `{"on_hand": 1, "colour": "red"}`, 422, "body.colour"},
		{"/v1/inventory/a%2Fb", `{"on_hand": 1}`, 422, "path.product_id"},
		{"/v1/inventory/" + strings.Repeat("x", 65), `{"on_hand": 1}`, 422, "path.product_id"},
	} {
		code, answer := call(t, s.http, http.MethodPut, c.path, c.body)
		named := c.location == "" || strings.Contains(fmt.Sprint(answer["errors"]), "location:"+c.location+" ")
		if code != c.status || !named {
			t.Errorf("PUT %s %s: %d %v; want %d that names %s", c.path, c.body, code, answer, c.status, c.location)
		}
	}
}

func confirmed(t *testing.T, data any) eventing.Event {
	t.Helper()
	encoded, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	return eventing.Event{ID: "event-1", Type: contracts.TypeOrderConfirmed, Data: encoded}
}

func TestAConfirmedOrderStartsItsSaga(t *testing.T) {
	t.Parallel()
	s := newService(t)
	handle := s.api.Subscriptions()[0].Handlers[contracts.TypeOrderConfirmed]
	order := contracts.Order{OrderID: "ORDER-1", CustomerID: "CUST-123", Items: []contracts.Line{{ProductID: "PROD-001", Quantity: 1}}}
	if err := handle(t.Context(), confirmed(t, contracts.OrderConfirmed{Order: order})); err != nil {
		t.Fatal(err)
	}
	order.Currency = contracts.DefaultCurrency
	if diff := cmp.Diff([]contracts.Order{order}, s.sagas.started); diff != "" {
		t.Errorf("started (-want +got):\n%s", diff)
	}

	s.sagas.err = errors.New("the engine is away")
	if err := handle(t.Context(), confirmed(t, contracts.OrderConfirmed{Order: order})); !errors.Is(err, eventing.ErrUnavailable) {
		t.Errorf("an engine that is away: %v, want an error that is retried", err)
	}
}

func TestAConfirmationThatCannotBeRunIsRejected(t *testing.T) {
	t.Parallel()
	s := newService(t)
	handle := s.api.Subscriptions()[0].Handlers[contracts.TypeOrderConfirmed]
	for _, data := range []any{nil, "text", map[string]any{}, map[string]any{"order_id": "ORDER-1", "customer_id": "CUST-123"}} {
		if err := handle(t.Context(), confirmed(t, data)); !eventing.Rejected(err) {
			t.Errorf("%v: %v, want a rejection", data, err)
		}
	}
	if len(s.sagas.started) != 0 {
		t.Errorf("started %v", s.sagas.started)
	}
}
