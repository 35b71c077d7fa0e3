package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/platform/rest"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/api"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/record"
	"waybill/services/fulfillment/internal/simulator"
	"waybill/services/fulfillment/internal/store"
)

// sagas has the record of one order.
type sagas struct {
	saga record.Saga
	err  error
}

func (s *sagas) known(id string) error {
	if s.err == nil && id != s.saga.Order.OrderID {
		return record.ErrUnknown(id)
	}
	return s.err
}

func (s *sagas) Decide(_ context.Context, id string, approved bool, approver, reason string) (record.Saga, error) {
	if err := s.known(id); err != nil {
		return s.saga, err
	}
	_, err := s.saga.Decide(approved, approver, reason, now)
	return s.saga, err
}

func (s *sagas) Repair(_ context.Context, id, actor, reason string) (record.Saga, error) {
	if err := s.known(id); err != nil {
		return s.saga, err
	}
	_, err := s.saga.Repair(actor, reason, now)
	return s.saga, err
}

func (s *sagas) Show(_ context.Context, id string) (record.Saga, []record.Step, error) {
	return s.saga, []record.Step{
		{Name: "ValidatePayment", StartedAt: now, EndedAt: now.Add(time.Second), Attempts: 2, Done: true},
		{Name: "ReserveInventory", StartedAt: now, EndedAt: now.Add(time.Second), Attempts: 1, Error: "no answer"},
		{Name: "RequestApproval", StartedAt: now, Attempts: 1},
	}, s.known(id)
}

func (s *sagas) List(_ context.Context, state record.State, _ int) ([]record.Saga, bool, error) {
	if now, _ := s.State(&s.saga); state != "" && now != state {
		return nil, false, s.err
	}
	return []record.Saga{s.saga}, true, s.err
}

func (s *sagas) Approvals(_ context.Context, keep func(*record.Saga) bool, _ int) ([]record.Saga, bool, error) {
	if !keep(&s.saga) {
		return nil, false, s.err
	}
	return []record.Saga{s.saga}, false, s.err
}

func (s *sagas) State(saga *record.Saga) (record.State, *record.Wait) {
	idle := now.Sub(saga.LastMoved())
	return saga.State(idle, time.Hour), saga.Wait(idle, time.Hour)
}

var now = time.Date(2026, time.March, 14, 9, 26, 53, 0, time.UTC)

// service is the API with a warehouse in memory.
type service struct {
	memory state.Store
	stock  *store.Inventory
	sagas  *sagas
	http   http.Handler
}

func newService(t *testing.T) service {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	memory := state.NewMemory()
	stock := store.NewInventory(memory, func(context.Context, inventory.Stock) error { return nil }, time.Now)
	known := &sagas{}
	a := api.API{Audited: []api.Audited{simulator.NewPayments(memory, time.Now), stock, simulator.NewCarrier(memory, time.Now)}, Inventory: stock, Sagas: known, Logger: logger}
	router, surface := rest.New(rest.Info{Title: "test", Version: "1"}, logger)
	a.Mount(surface)
	return service{memory, stock, known, router}
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
		t.Errorf("set below what orders hold: %d %v", code, answer)
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

// waitingForApproval returns a service with one order, ORDER-1, that waits for approval.
func waitingForApproval(t *testing.T) service {
	t.Helper()
	s := newService(t)
	s.sagas.saga.Begin(contracts.Order{OrderID: "ORDER-1", CustomerID: "CUST-123", TotalAmount: 6000_0000, Currency: "USD"}, now)
	s.sagas.saga.RequestApproval(now, now.Add(24*time.Hour))
	return s
}

func TestAnApprovalIsDecidedOnce(t *testing.T) {
	t.Parallel()
	s := waitingForApproval(t)
	if _, answer := call(t, s.http, http.MethodGet, "/v1/approvals?state=pending", ""); fmt.Sprint(answer["items"]) !=
		"[map[currency:USD customer_id:CUST-123 expires_at:2026-03-15T09:26:53Z order_id:ORDER-1 requested_at:2026-03-14T09:26:53Z state:pending total_amount:6000]]" {
		t.Errorf("pending: %v", answer)
	}
	const decision = `{"approved": true, "approver": "approver@example.com", "reason": "Known customer."}`
	for range 2 {
		if code, answer := call(t, s.http, http.MethodPost, "/v1/approvals/ORDER-1", decision); code != 202 || answer["state"] != "approved" {
			t.Errorf("decide: %d %v", code, answer)
		}
	}
	code, answer := call(t, s.http, http.MethodPost, "/v1/approvals/ORDER-1", `{"approved": false, "approver": "other@example.com", "reason": "No."}`)
	if code != 409 || answer["code"] != "already_decided" ||
		fmt.Sprint(answer["related"]) != "map[approved:true approver:approver@example.com at:2026-03-14T09:26:53Z reason:Known customer.]" {
		t.Errorf("a second decision: %d %v", code, answer)
	}
	if _, answer := call(t, s.http, http.MethodGet, "/v1/approvals", ""); fmt.Sprint(answer["items"]) != "[]" {
		t.Errorf("pending after the decision: %v", answer)
	}
	if code, answer := call(t, s.http, http.MethodPost, "/v1/approvals/ORDER-2", decision); code != 404 || answer["code"] != "unknown_order" {
		t.Errorf("an unknown order: %d %v", code, answer)
	}
}

func TestBadDecisionsNameTheField(t *testing.T) {
	t.Parallel()
	s := waitingForApproval(t)
	for _, c := range []struct {
		path, body, location string
	}{
		{"/v1/approvals/ORDER-1", `{}`, "body.approved"},
		{"/v1/approvals/ORDER-1", `{"approver": "a", "reason": "b"}`, "body.approved"},
		{"/v1/approvals/ORDER-1", `{"approved": "yes", "approver": "a", "reason": "b"}`, "body.approved"},
		{"/v1/approvals/ORDER-1", `{"approved": true, "reason": "b"}`, "body.approver"},
		{"/v1/approvals/ORDER-1", `{"approved": true, "approver": "  ", "reason": "b"}`, "body.approver"},
		{"/v1/approvals/ORDER-1", `{"approved": true, "approver": "a", "reason": ""}`, "body.reason"},
		{"/v1/approvals/ORDER-1", `{"approved": true, "approver": "a", "reason": "b", "paid": true}`, "body.paid"},
		{"/v1/fulfillments/ORDER-1/repair", `{"reason": "b"}`, "body.actor"},
		{"/v1/fulfillments/ORDER-1/repair", `{"actor": "a"}`, "body.reason"},
	} {
		code, answer := call(t, s.http, http.MethodPost, c.path, c.body)
		if code != 422 || !strings.Contains(fmt.Sprint(answer["errors"]), "location:"+c.location+" ") && !strings.Contains(fmt.Sprint(answer), strings.TrimPrefix(c.location, "body.")) {
			t.Errorf("POST %s %s: %d %v; want 422 that names %s", c.path, c.body, code, answer, c.location)
		}
	}
	if s.sagas.saga.Approval.Decision != nil {
		t.Errorf("decided: %+v", s.sagas.saga.Approval.Decision)
	}
	for _, query := range []string{"/v1/approvals?state=banana", "/v1/fulfillments?state=banana", "/v1/fulfillments?limit=0"} {
		if code, answer := call(t, s.http, http.MethodGet, query, ""); code != 422 {
			t.Errorf("GET %s: %d %v", query, code, answer)
		}
	}
}

func TestASagaIsShownWithWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	s := waitingForApproval(t)
	_, answer := call(t, s.http, http.MethodGet, "/v1/fulfillments/ORDER-1", "")
	waits, _ := answer["waits"].(map[string]any)
	if answer["state"] != "waiting" || waits["for"] != "approval" || !strings.Contains(fmt.Sprint(waits["moved_by"]), "POST /v1/approvals/ORDER-1") {
		t.Errorf("a saga that waits: %v", answer)
	}
	shown := answer["steps"].([]any)
	outcomes := make([]any, 0, len(shown))
	for _, step := range shown {
		outcomes = append(outcomes, step.(map[string]any)["outcome"])
	}
	if diff := cmp.Diff([]any{"done", "failing", "running"}, outcomes); diff != "" {
		t.Errorf("outcomes of the steps (-want +got):\n%s", diff)
	}
	for state, listed := range map[string]int{"waiting": 1, "running": 0, "stuck": 0, "needs_attention": 0} {
		if _, answer := call(t, s.http, http.MethodGet, "/v1/fulfillments?state="+state, ""); len(answer["items"].([]any)) != listed {
			t.Errorf("%s: %v", state, answer)
		}
	}
	if code, answer := call(t, s.http, http.MethodGet, "/v1/fulfillments/ORDER-2", ""); code != 404 || answer["code"] != "unknown_order" {
		t.Errorf("an unknown saga: %d %v", code, answer)
	}
	s.sagas.err = fmt.Errorf("read: %w", state.ErrUnavailable)
	if code, answer := call(t, s.http, http.MethodGet, "/v1/fulfillments/ORDER-1", ""); code != 503 {
		t.Errorf("a store that is unavailable: %d %v", code, answer)
	}
}

func TestARepairIsOrderedOnce(t *testing.T) {
	t.Parallel()
	s := waitingForApproval(t)
	const repair = `{"actor": "operator@example.com", "reason": "The carrier answers again."}`
	if code, answer := call(t, s.http, http.MethodPost, "/v1/fulfillments/ORDER-1/repair", repair); code != 409 || answer["code"] != "nothing_to_repair" {
		t.Errorf("a repair of a saga that is not blocked: %d %v", code, answer)
	}
	s.sagas.saga.Block(record.Blocked{Round: 1, Since: now, NotUndone: []string{"RefundPayment"}})
	if _, answer := call(t, s.http, http.MethodGet, "/v1/fulfillments/ORDER-1", ""); answer["state"] != "needs_attention" || fmt.Sprint(answer["not_undone"]) != "[RefundPayment]" {
		t.Errorf("a saga that needs attention: %v", answer)
	}
	for range 2 {
		code, answer := call(t, s.http, http.MethodPost, "/v1/fulfillments/ORDER-1/repair", repair)
		if code != 202 || fmt.Sprint(answer["repairs"]) != "[map[actor:operator@example.com at:2026-03-14T09:26:53Z reason:The carrier answers again.]]" {
			t.Errorf("repair: %d %v", code, answer)
		}
	}
}

// request sends a request with headers, and returns the whole answer.
func request(t *testing.T, h http.Handler, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	recorder := httptest.NewRecorder()
	h.ServeHTTP(recorder, req)
	return recorder
}

// A request with the ETag that it read does not overwrite stock that has changed since.
func TestStockIsSetOnlyIfTheETagMatches(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const path = "/v1/inventory/PROD-001"
	if r := request(t, s.http, http.MethodPut, path, `{"on_hand":5}`, "If-Match", "*"); r.Code != http.StatusPreconditionFailed {
		t.Errorf("If-Match: * without stock: %d %s", r.Code, r.Body)
	}
	if r := request(t, s.http, http.MethodPut, path, `{"on_hand":10}`, "If-None-Match", "*"); r.Code != http.StatusOK {
		t.Fatalf("create: %d %s", r.Code, r.Body)
	}
	if r := request(t, s.http, http.MethodPut, path, `{"on_hand":11}`, "If-None-Match", "*"); r.Code != http.StatusPreconditionFailed {
		t.Errorf("create again: %d %s", r.Code, r.Body)
	}
	read := request(t, s.http, http.MethodGet, path, "")
	etag := read.Header().Get("ETag")
	if !strings.HasPrefix(etag, `"`) || !strings.HasSuffix(etag, `"`) {
		t.Fatalf("ETag %s", etag)
	}
	if r := request(t, s.http, http.MethodGet, path, "", "If-None-Match", etag); r.Code != http.StatusNotModified || r.Body.Len() > 0 || r.Header().Get("ETag") != etag {
		t.Errorf("unchanged: %d %s", r.Code, r.Body)
	}
	o := contracts.Order{OrderID: "ORDER-1", Items: []contracts.Line{{ProductID: "PROD-001", Quantity: 2}}}
	if refused, err := s.stock.Reserve(t.Context(), o); refused != nil || err != nil {
		t.Fatal(refused, err)
	}
	if err := s.stock.Ship(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	r := request(t, s.http, http.MethodPut, path, `{"on_hand":12}`, "If-Match", etag)
	if r.Code != http.StatusPreconditionFailed || !strings.Contains(r.Body.String(), "on_hand is 8, reserved 0, shipped 2") {
		t.Errorf("what shipped in between is overwritten: %d %s", r.Code, r.Body)
	}
	if r := request(t, s.http, http.MethodGet, path, "", "If-None-Match", etag); r.Code != http.StatusOK {
		t.Errorf("changed: %d", r.Code)
	}
	etag = request(t, s.http, http.MethodGet, path, "").Header().Get("ETag")
	if r := request(t, s.http, http.MethodPut, path, `{"on_hand":12}`, "If-Match", `W/`+etag); r.Code != http.StatusPreconditionFailed {
		t.Errorf("a weak ETag matched: %d", r.Code)
	}
	set := request(t, s.http, http.MethodPut, path, `{"on_hand":12}`, "If-Match", `"other", `+etag)
	if set.Code != http.StatusOK || set.Header().Get("ETag") == etag {
		t.Fatalf("set: %d %s", set.Code, set.Body)
	}
	if now := request(t, s.http, http.MethodGet, path, "").Header().Get("ETag"); now != set.Header().Get("ETag") {
		t.Errorf("PUT answers the ETag %s, GET %s", set.Header().Get("ETag"), now)
	}
	if r := request(t, s.http, http.MethodPut, path, `{"on_hand":13}`); r.Code != http.StatusOK {
		t.Errorf("without a condition: %d", r.Code)
	}
}

func TestStockIsAdjusted(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const path = "/v1/inventory/PROD-001/adjustments"
	const three = `{"delta":-3,"reason":"Three were damaged."}`
	if r := request(t, s.http, http.MethodPost, path, three, "Idempotency-Key", "k0"); r.Code != http.StatusNotFound {
		t.Errorf("no stock: %d %s", r.Code, r.Body)
	}
	if _, err := s.stock.Set(t.Context(), "PROD-001", 10); err != nil {
		t.Fatal(err)
	}
	if refused, err := s.stock.Reserve(t.Context(), contracts.Order{OrderID: "ORDER-1", Items: []contracts.Line{{ProductID: "PROD-001", Quantity: 5}}}); refused != nil || err != nil {
		t.Fatal(refused, err)
	}
	first := request(t, s.http, http.MethodPost, path, three, "Idempotency-Key", "k1")
	if first.Code != http.StatusOK || !strings.Contains(first.Body.String(), `"on_hand":7,"reserved":5,"available":2,"shipped":0,"delta":-3`) {
		t.Fatalf("%d %s", first.Code, first.Body)
	}
	if again := request(t, s.http, http.MethodPost, path, three, "Idempotency-Key", "k1"); again.Code != http.StatusOK || again.Body.String() != first.Body.String() {
		t.Errorf("again: %d %s", again.Code, again.Body)
	}
	for name, c := range map[string]struct {
		body, key string
		status    int
		says      string
	}{
		"another body":     {`{"delta":-2,"reason":"Three were damaged."}`, "k1", 422, "idempotency_key_reused"},
		"below reserved":   {`{"delta":-3,"reason":"x"}`, "k2", 409, "on_hand of PROD-001 is 7 and cannot change by -3: orders hold 5 pieces"},
		"beyond all":       {`{"delta":1000000000,"reason":"x"}`, "k2", 409, "stock_limit"},
		"far beyond all":   {`{"delta":9223372036854775807,"reason":"x"}`, "k2", 422, "body.delta"},
		"nothing":          {`{"delta":0,"reason":"x"}`, "k2", 422, "body.delta"},
		"no delta":         {`{"reason":"x"}`, "k2", 422, "body"},
		"no reason":        {`{"delta":1}`, "k2", 422, "body"},
		"a blank reason":   {`{"delta":1,"reason":"  "}`, "k2", 422, "body.reason"},
		"no key":           {`{"delta":1,"reason":"x"}`, "", 422, "dempotency-"},
		"a key with space": {`{"delta":1,"reason":"x"}`, "a b", 422, "dempotency-"},
	} {
		headers := []string{"Idempotency-Key", c.key}
		if c.key == "" {
			headers = nil
		}
		if r := request(t, s.http, http.MethodPost, path, c.body, headers...); r.Code != c.status || !strings.Contains(r.Body.String(), c.says) {
			t.Errorf("%s: %d %s", name, r.Code, r.Body)
		}
	}
	if now, err := s.stock.Get(t.Context(), "PROD-001"); err != nil || now.OnHand != 7 {
		t.Errorf("%+v, %v", now, err)
	}
}

// The answer comes from the partners, also without a saga.
func TestWhatPartnersKnowOfAnOrderIsShown(t *testing.T) {
	t.Parallel()
	s := newService(t)
	order := contracts.Order{OrderID: "ORDER-9", CustomerID: "CUST-123", Items: []contracts.Line{{ProductID: "PROD-001", Quantity: 2}}, TotalAmount: 20 * contracts.Unit, Currency: "USD"}
	if code, answer := call(t, s.http, http.MethodGet, "/v1/fulfillments/ORDER-9/books", ""); code != 404 || answer["code"] != "unknown_order" {
		t.Errorf("an order that no partner knows: %d %v", code, answer)
	}
	payments, carrier := simulator.NewPayments(s.memory, time.Now), simulator.NewCarrier(s.memory, time.Now)
	if _, _, err := payments.Charge(t.Context(), order, "key"); err != nil {
		t.Fatal(err)
	}
	_, answer := call(t, s.http, http.MethodGet, "/v1/fulfillments/ORDER-9/books", "")
	want := map[string]any{
		"order_id": "ORDER-9", "charges": []any{map[string]any{"transaction_id": "TXN-ORDER-9", "amount": 20.0}}, "refunds": []any{}, "parcels": []any{},
	}
	delete(answer, "$schema")
	if diff := cmp.Diff(want, answer); diff != "" {
		t.Errorf("charged (-want +got):\n%s", diff)
	}
	if _, err := s.stock.Set(t.Context(), "PROD-001", 5); err != nil {
		t.Fatal(err)
	}
	if refused, err := s.stock.Reserve(t.Context(), order); refused != nil || err != nil {
		t.Fatal(refused, err)
	}
	parcel, _, err := carrier.Book(t.Context(), order, "key")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := carrier.Cancel(t.Context(), order); err != nil {
		t.Fatal(err)
	}
	if _, _, err := payments.Refund(t.Context(), order, "key"); err != nil {
		t.Fatal(err)
	}
	_, answer = call(t, s.http, http.MethodGet, "/v1/fulfillments/ORDER-9/books", "")
	want["refunds"], want["parcels"], want["cancelled"] = want["charges"], []any{parcel.TrackingNumber}, true
	want["reservation"] = map[string]any{"state": "reserved", "lines": map[string]any{"PROD-001": 2.0}}
	if diff := cmp.Diff(want, answer); diff != "" {
		t.Errorf("undone (-want +got):\n%s", diff)
	}
}
