package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dapr "github.com/dapr/go-sdk/client"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/platform/reconcile"
	"waybill/platform/rest"
	"waybill/platform/state"
	"waybill/services/orders/internal/admission"
	"waybill/services/orders/internal/api"
	"waybill/services/orders/internal/events"
	"waybill/services/orders/internal/idempotency"
	"waybill/services/orders/internal/ordering"
	"waybill/services/orders/internal/store"
)

// world is the service with everything around it: a store and a bus that can be told to fail, and a process that can be
// killed and started again.
type world struct {
	t       *testing.T
	faults  *faults
	store   *fragileStore
	bus     *bus
	handler http.Handler
	// receiver redrives events.
	receiver   *eventing.Receiver
	reconciler *reconcile.Loop
	process    int
	// gate is the process's admission; limits bound it from the next restart on, not at all by default.
	gate   *admission.Gate
	limits admission.Options
	// storeTimeout is how long the service retries a store that fails; not at all by default, so that a fault is seen.
	storeTimeout time.Duration
	// fulfillment is how the other service answers a cancellation; nil when it does not.
	fulfillment func(orderID string) eventing.Event
}

const (
	appToken    = "token of the sidecar"
	receivedTTL = 24 * time.Hour

	reconcileInterval = 10 * time.Second
	reconcileAfter    = 15 * time.Second
)

func newWorld(t *testing.T) *world {
	t.Helper()
	f := &faults{}
	w := &world{t: t, faults: f, store: &fragileStore{Memory: state.NewMemory(), faults: f}, bus: &bus{faults: f}}
	w.bus.taken = func(p published) {
		if p.Type == contracts.TypeOrderCancellationRequested && w.fulfillment != nil {
			w.deliver(contracts.TopicFulfillment, w.fulfillment(strings.TrimPrefix(p.Subject, "orders/")))
		}
	}
	w.fulfillment = func(id string) eventing.Event { return step(t, id, contracts.StepCancel, contracts.OutcomeDone) }
	w.restart()
	return w
}

// restart gives the world a new process, which remembers nothing but what is in the store.
func (w *world) restart() {
	w.t.Helper()
	w.faults.reset(0, never)
	w.process++
	logger := slog.New(slog.DiscardHandler)
	publisher, err := eventing.NewPublisher(w.bus, contracts.OrderBus)
	if err != nil {
		w.t.Fatal(err)
	}
	var documents state.Store = w.store
	if w.storeTimeout > 0 {
		documents = state.WithRetry(w.store, w.storeTimeout)
	}
	process := fmt.Sprint("process ", w.process)
	orders := store.New(documents, process, receivedTTL)
	w.gate = gate(w.t, w.limits)
	out := events.Publisher{Bus: publisher}
	app := &ordering.Service{Store: orders, Publisher: out, Admission: w.gate, Logger: logger}
	service := &api.Service{
		Orders: app, Reader: orders, Keys: idempotency.New(documents, process, time.Hour, logger), Admission: w.gate, Logger: logger,
	}
	w.reconciler, err = ordering.NewReconciler(ordering.ReconcilerOptions{
		Pending: orders.Pending(), GetMany: orders.GetMany, PublishUnanswered: app.PublishUnanswered, Counter: w.gate,
		Interval: reconcileInterval, After: reconcileAfter, Logger: logger,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	receiver, err := eventing.NewReceiver(eventing.ReceiverOptions{
		App: contracts.AppOrders, Token: appToken, Publisher: publisher, OnDeadLetter: out.DeadLettered, Logger: logger,
	}, (&events.Handlers{Orders: app, Logger: logger}).Subscriptions()...)
	if err != nil {
		w.t.Fatal(err)
	}
	router, surface := rest.New(api.Info(), logger)
	service.Register(surface)
	receiver.Mount(router)
	w.receiver, w.handler = receiver, router
}

// gate is an admission of those limits.
func gate(t *testing.T, limits admission.Options) *admission.Gate {
	t.Helper()
	limits.Logger = slog.New(slog.DiscardHandler)
	if limits.Age == 0 {
		limits.Age = time.Minute
	}
	g, err := admission.New(limits)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// request sends a request; header holds names and values in turn.
func (w *world) request(method, path, body string, header ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	r := httptest.NewRequestWithContext(w.t.Context(), method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer := httptest.NewRecorder()
	w.handler.ServeHTTP(answer, r)
	return answer
}

// get reads a resource into v and fails the test unless it is there.
func (w *world) get(path string, v any) *httptest.ResponseRecorder {
	w.t.Helper()
	answer := w.request(http.MethodGet, path, "")
	if answer.Code != http.StatusOK {
		w.t.Fatalf("GET %s: %d %s", path, answer.Code, answer.Body)
	}
	decode(w.t, answer, v)
	return answer
}

func decode(t *testing.T, answer *httptest.ResponseRecorder, v any) {
	t.Helper()
	if err := json.Unmarshal(answer.Body.Bytes(), v); err != nil {
		t.Fatalf("%s: %v", answer.Body, err)
	}
}

// deliver hands an event to the service as the sidecar does, and returns the verdict.
func (w *world) deliver(topic string, e eventing.Event) string {
	w.t.Helper()
	body, err := json.Marshal(e)
	if err != nil {
		w.t.Fatal(err)
	}
	answer := w.request(http.MethodPost, "/events/"+topic+"/"+e.Type, string(body),
		"Content-Type", eventing.CloudEventType, "dapr-api-token", appToken)
	var verdict struct{ Status string }
	decode(w.t, answer, &verdict)
	return verdict.Status
}

// taken fails the test unless the event is acknowledged.
func (w *world) taken(topic string, e eventing.Event) {
	w.t.Helper()
	if verdict := w.deliver(topic, e); verdict != "SUCCESS" {
		w.t.Fatalf("%s %s: %s", e.Type, e.ID, verdict)
	}
}

// confirmAll delivers every Order.Created that was published.
func (w *world) confirmAll() {
	w.t.Helper()
	for _, e := range w.bus.of(contracts.TypeOrderCreated) {
		w.taken(contracts.TopicOrders, e.Event)
	}
}

type problem struct {
	Status int
	Code   string
	Detail string
	Errors []rest.Fault
}

// refused reads a problem and fails the test unless it has this status and is a proper one.
func (w *world) refused(answer *httptest.ResponseRecorder, status int) problem {
	w.t.Helper()
	var p problem
	decode(w.t, answer, &p)
	if answer.Code != status || p.Status != status || answer.Header().Get("Content-Type") != "application/problem+json" {
		w.t.Errorf("got %d %s %s, want a problem of status %d", answer.Code, answer.Header().Get("Content-Type"), answer.Body, status)
	}
	for _, inner := range []string{"unmarshal", "Go ", "struct", "goroutine", "statestore", "orderbus", "rpc", ".go"} {
		if strings.Contains(answer.Body.String(), inner) {
			w.t.Errorf("the problem shows the inside: %s", answer.Body)
		}
	}
	return p
}

func (p problem) locations() []string {
	locations := make([]string, 0, len(p.Errors))
	for _, fault := range p.Errors {
		locations = append(locations, fault.Location)
	}
	slices.Sort(locations)
	return locations
}

// accepted reads the answer to a placed order and fails the test unless it is one.
func (w *world) accepted(answer *httptest.ResponseRecorder) string {
	w.t.Helper()
	var body struct {
		OrderID string `json:"order_id"`
		Status  string
		Links   struct{ Self, Timeline string }
	}
	decode(w.t, answer, &body)
	self := "/v1/orders/" + body.OrderID
	if answer.Code != http.StatusAccepted || body.OrderID == "" || answer.Header().Get("Location") != self || body.Links.Self != self || body.Links.Timeline != self+"/timeline" {
		w.t.Fatalf("got %d %v %s, want an accepted order", answer.Code, answer.Header(), answer.Body)
	}
	return body.OrderID
}

// place sends a valid order, changed as asked, and returns the answer.
func (w *world) place(change map[string]any, header ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	return w.request(http.MethodPost, "/v1/orders", body(w.t, change), header...)
}

// body is a valid order with the given fields replaced, or left out where the value is nil.
func body(t *testing.T, change map[string]any) string {
	t.Helper()
	fields := map[string]any{
		"customer_id":      "CUST-123",
		"items":            []any{map[string]any{"product_id": "PROD-001", "name": "Mug", "quantity": 2, "price": json.Number("49.99")}},
		"total_amount":     json.Number("99.98"),
		"shipping_address": map[string]any{"street": "123 Main St", "city": "Seattle", "state": "WA", "zip": "98101", "country": "US"},
		"payment_token":    "tok_secret",
	}
	for name, value := range change {
		fields[name] = value
		if value == nil {
			delete(fields, name)
		}
	}
	b, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func item(change map[string]any) []any {
	line := map[string]any{"product_id": "PROD-001", "quantity": 2, "price": json.Number("49.99")}
	for name, value := range change {
		line[name] = value
		if value == nil {
			delete(line, name)
		}
	}
	return []any{line}
}

// faults decides which call to the store or the bus fails, and how.
type faults struct {
	mu    sync.Mutex
	mode  mode
	at    int
	calls int
	hit   bool
}

type mode int

const (
	never mode = iota
	// before: the one call fails and has no effect. after: it has its effect and fails all the same.
	before
	after
	// diesBefore and diesAfter: as above, and every later call fails too, as those of a dead process.
	diesBefore
	diesAfter
	// away: every call to the bus fails.
	busAway
	// storeAway: every call to the store fails.
	storeAway
)

func (f *faults) reset(at int, m mode) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.mode, f.calls, f.hit = at, m, 0, false
}

var errFault = errors.New("made to fail")

// call runs a call of the store or the bus, unless it is to fail.
func (f *faults) call(of mode, effect func() error) error {
	f.mu.Lock()
	f.calls++
	m, now := f.mode, f.calls == f.at
	dead := f.hit && (m == diesBefore || m == diesAfter) || m == of
	f.hit = f.hit || now
	f.mu.Unlock()
	switch {
	case dead, now && (m == before || m == diesBefore):
		return errFault
	case now && (m == after || m == diesAfter):
		if err := effect(); err != nil {
			return err
		}
		return errFault
	}
	return effect()
}

// fragileStore is a store that can fail, and that remembers which documents were made.
type fragileStore struct {
	*state.Memory
	faults *faults
	mu     sync.Mutex
	made   []string
}

func (s *fragileStore) failed(err error) error {
	if errors.Is(err, errFault) {
		return fmt.Errorf("rpc error at statestore.go: %w: %w", state.ErrUnavailable, err)
	}
	return err
}

func (s *fragileStore) Get(ctx context.Context, key string, doc any) (etag state.ETag, err error) {
	err = s.faults.call(storeAway, func() error { etag, err = s.Memory.Get(ctx, key, doc); return err })
	return etag, s.failed(err)
}

func (s *fragileStore) GetMany(ctx context.Context, keys []string) (docs map[string][]byte, err error) {
	err = s.faults.call(storeAway, func() error { docs, err = s.Memory.GetMany(ctx, keys); return err })
	return docs, s.failed(err)
}

func (s *fragileStore) Create(ctx context.Context, key string, doc any, options ...state.Option) error {
	return s.failed(s.faults.call(storeAway, func() error {
		err := s.Memory.Create(ctx, key, doc, options...)
		if err == nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.made = append(s.made, key)
		}
		return err
	}))
}

func (s *fragileStore) Replace(ctx context.Context, key string, doc any, etag state.ETag, options ...state.Option) error {
	return s.failed(s.faults.call(storeAway, func() error { return s.Memory.Replace(ctx, key, doc, etag, options...) }))
}

// orders lists the ids of the orders that were ever stored.
func (s *fragileStore) orders() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for _, key := range s.made {
		if id, ok := strings.CutPrefix(key, "order:"); ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// bus is a Dapr client that only publishes, to a slice.
type bus struct {
	dapr.Client
	faults    *faults
	mu        sync.Mutex
	published []published
	// taken is shown every event that was published.
	taken func(p published)
}

type published struct {
	Topic string
	eventing.Event
}

func (b *bus) PublishEvent(_ context.Context, _, topic string, data any, _ ...dapr.PublishEventOption) error {
	err := b.faults.call(busAway, func() error {
		p := published{Topic: topic}
		if err := json.NewDecoder(bytes.NewReader(data.([]byte))).Decode(&p.Event); err != nil {
			return err
		}
		b.mu.Lock()
		b.published = append(b.published, p)
		b.mu.Unlock()
		b.taken(p)
		return nil
	})
	if errors.Is(err, errFault) {
		return status.Error(codes.Unavailable, "orderbus is away")
	}
	return err
}

// at returns what was published as the n-th, counted from 0, if so much was.
func (b *bus) at(n int) (p published, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n >= len(b.published) {
		return published{}, false
	}
	return b.published[n], true
}

// of lists the published events of one type.
func (b *bus) of(eventType string) []published {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []published
	for _, p := range b.published {
		if p.Type == eventType && !strings.HasSuffix(p.Topic, ".dead") {
			found = append(found, p)
		}
	}
	return found
}

// deadLettered lists the events on dead-letter topics.
func (b *bus) deadLettered() []published {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []published
	for _, p := range b.published {
		if strings.HasSuffix(p.Topic, ".dead") {
			found = append(found, p)
		}
	}
	return found
}

// same fails the test unless there is at least one event, and all of them say the same under one id.
func same(t *testing.T, events []published) published {
	t.Helper()
	if len(events) == 0 {
		t.Fatal("nothing was published")
	}
	for _, e := range events[1:] {
		if diff := cmp.Diff(fmt.Sprint(events[0].ID, events[0].Time, string(events[0].Data)), fmt.Sprint(e.ID, e.Time, string(e.Data))); diff != "" {
			t.Fatalf("one fact was published in two ways: %s", diff)
		}
	}
	return events[0]
}
