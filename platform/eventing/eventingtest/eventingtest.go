// Package eventingtest checks that the event handlers of every service behave alike when a dependency fails: an event that can
// never be processed is dead-lettered with its reason while the others are processed, and one that fails for a while is not
// lost. It finds the handlers by the service's subscriptions, so it also covers a new handler.
package eventingtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	dapr "github.com/dapr/go-sdk/client"
	"github.com/go-chi/chi/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waybill/platform/eventing"
	"waybill/platform/state"
)

// World is a service without a network: its handlers, with dependencies that call Fail first.
type World struct {
	Subscriptions []eventing.Subscription
	// Event returns the n-th valid event of a type, each about another fact, and prepares what its handler expects to exist.
	Event func(t *testing.T, eventType string, n int) eventing.Event
	// BatchTypes are the event types that a subscription with a batch handler handles, by topic.
	BatchTypes map[string][]string
	// Needs are the dependencies by the names under which they call Fail.
	Needs map[string]Failure
	// OnDeadLetter is for the Receiver.
	OnDeadLetter func(ctx context.Context, topic string, e eventing.Event) error
}

// Failure is how a dependency fails.
type Failure struct{ Permanent, Transient error }

// Failures of the dependencies that every service has, as their adapters return them.
var (
	Store  = Failure{fmt.Errorf("save the document: %w", state.ErrInvalid), fmt.Errorf("save the document: %w", state.ErrUnavailable)}
	Bus    = Failure{status.Error(codes.InvalidArgument, "the topic cannot have this"), status.Error(codes.Unavailable, "the broker is unavailable")}
	Engine = Failure{status.Error(codes.InvalidArgument, "the input cannot be kept"), status.Error(codes.Unavailable, "the engine is unavailable")}
)

// fault is what fails while one event is handled.
type fault struct {
	need string
	err  error
	mu   sync.Mutex
	// left is how many more times it fails, or -1 for always.
	left int
	hits int
}

type faultKey struct{}

// Fail is the error of a dependency, if it is to fail for the event that ctx belongs to.
func Fail(ctx context.Context, need string) error {
	f, ok := ctx.Value(faultKey{}).(*fault)
	if !ok || f.need != need {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left == 0 {
		return nil
	}
	if f.left > 0 {
		f.left--
	}
	f.hits++
	return f.err
}

// Documents is a store in memory that fails under the name "store".
type Documents struct{ state.Store }

// NewDocuments returns an empty store.
func NewDocuments() Documents { return Documents{state.NewMemory()} }

// Get is state.Store's.
func (d Documents) Get(ctx context.Context, key string, doc any) (state.ETag, error) {
	if err := Fail(ctx, "store"); err != nil {
		return "", err
	}
	return d.Store.Get(ctx, key, doc)
}

// GetMany is state.Store's.
func (d Documents) GetMany(ctx context.Context, keys []string) (map[string][]byte, error) {
	if err := Fail(ctx, "store"); err != nil {
		return nil, err
	}
	return d.Store.GetMany(ctx, keys)
}

// Create is state.Store's.
func (d Documents) Create(ctx context.Context, key string, doc any, options ...state.Option) error {
	if err := Fail(ctx, "store"); err != nil {
		return err
	}
	return d.Store.Create(ctx, key, doc, options...)
}

// Replace is state.Store's.
func (d Documents) Replace(ctx context.Context, key string, doc any, etag state.ETag, options ...state.Option) error {
	if err := Fail(ctx, "store"); err != nil {
		return err
	}
	return d.Store.Replace(ctx, key, doc, etag, options...)
}

// Client is a Dapr client that only publishes, and fails under the name "bus".
type Client struct {
	dapr.Client

	mu        sync.Mutex
	published map[string][]eventing.Event
}

// PublishEvent is dapr.Client's.
func (c *Client) PublishEvent(ctx context.Context, _, topic string, data any, _ ...dapr.PublishEventOption) error {
	if err := Fail(ctx, "bus"); err != nil && !strings.HasSuffix(topic, ".dead") {
		return err
	}
	text, ok := data.([]byte)
	if !ok {
		return errors.New("not bytes")
	}
	var e eventing.Event
	if err := json.Unmarshal(text, &e); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.published == nil {
		c.published = map[string][]eventing.Event{}
	}
	c.published[topic] = append(c.published[topic], e)
	return nil
}

func (c *Client) on(topic string) []eventing.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.published[topic])
}

// Run checks every handler of the service that newWorld returns.
func Run(t *testing.T, newWorld func(t *testing.T, client *Client) World) {
	t.Helper()
	shape := newWorld(t, &Client{})
	for _, s := range shape.Subscriptions {
		if s.Raw != nil {
			continue
		}
		types := slices.Sorted(maps.Keys(s.Handlers))
		if s.Bulk != nil && s.Bulk.Handle != nil {
			types = shape.BatchTypes[s.Topic]
		}
		if len(types) == 0 {
			t.Errorf("BatchTypes has no event types for the handler of %s", s.Topic)
		}
		for _, eventType := range types {
			for _, broker := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/broker retries %v", s.Topic, eventType, broker), func(t *testing.T) {
					t.Parallel()
					deadLettered := 0
					for _, need := range slices.Sorted(maps.Keys(shape.Needs)) {
						client := &Client{}
						h := newHandling(t, newWorld(t, client), client, s.Topic, eventType, broker)
						deadLettered += h.permanent(t, need)
						if !broker { // there an event that is given back is held for seconds
							h.transient(t, need)
						}
					}
					if deadLettered == 0 {
						t.Error("the handler uses none of the dependencies that can fail")
					}
				})
			}
		}
	}
}

// handling is one handler behind a Receiver.
type handling struct {
	world     World
	client    *Client
	topic     string
	dead      string
	eventType string
	bulk      bool
	broker    bool
	routes    http.Handler
	receiver  *eventing.Receiver

	mu sync.Mutex
	// faults are the faults by event id; done counts how many times each event was processed.
	faults map[string]*fault
	done   map[string]int
}

func newHandling(t *testing.T, w World, client *Client, topic, eventType string, broker bool) *handling {
	t.Helper()
	h := &handling{world: w, client: client, topic: topic, eventType: eventType, broker: broker, faults: map[string]*fault{}, done: map[string]int{}}
	subscriptions := slices.Clone(w.Subscriptions)
	for i, s := range subscriptions {
		subscriptions[i].Handlers = map[string]eventing.Handler{}
		for name, handle := range s.Handlers {
			subscriptions[i].Handlers[name] = func(ctx context.Context, e eventing.Event) error {
				return h.note(e, handle(h.with(ctx, e), e))
			}
		}
		if s.Bulk != nil {
			bulk := *s.Bulk
			if bulk.Handle != nil {
				bulk.Handle = h.together(s.Bulk.Handle)
			}
			bulk.Together = map[string]eventing.BulkHandler{}
			for name, handle := range s.Bulk.Together {
				bulk.Together[name] = h.together(handle)
			}
			subscriptions[i].Bulk = &bulk
		}
		if s.Topic == topic {
			h.dead, h.bulk = s.DeadLetter, s.Bulk != nil
		}
	}
	publisher, err := eventing.NewPublisher(client, "bus")
	if err != nil {
		t.Fatal(err)
	}
	h.receiver, err = eventing.NewReceiver(eventing.ReceiverOptions{
		App: "app", Publisher: publisher, OnDeadLetter: w.OnDeadLetter, BrokerRetries: broker, Logger: slog.New(slog.DiscardHandler),
	}, subscriptions...)
	if err != nil {
		t.Fatal(err)
	}
	router := chi.NewMux()
	h.receiver.Mount(router)
	h.routes = router
	return h
}

func (h *handling) together(handle eventing.BulkHandler) eventing.BulkHandler {
	return func(ctx context.Context, events []eventing.Event) []error {
		errs := handle(h.with(ctx, events...), events)
		for i := range errs {
			errs[i] = h.note(events[i], errs[i])
		}
		return errs
	}
}

// with is ctx with the fault of the events that are handled together, if one of them has one.
func (h *handling) with(ctx context.Context, events ...eventing.Event) context.Context {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range events {
		if f := h.faults[e.ID]; f != nil {
			return context.WithValue(ctx, faultKey{}, f)
		}
	}
	return ctx
}

func (h *handling) note(e eventing.Event, err error) error {
	if err == nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.done[e.ID]++
	}
	return err
}

// permanent makes one of three events with one key fail permanently, and redrives it after the cause is fixed. It returns how many
// events were dead-lettered.
func (h *handling) permanent(t *testing.T, need string) int {
	t.Helper()
	failure := h.world.Needs[need].Permanent
	events := []eventing.Event{h.world.Event(t, h.eventType, 1), h.world.Event(t, h.eventType, 2), h.world.Event(t, h.eventType, 3)}
	poison := &fault{need: need, err: failure, left: -1}
	h.setFault(events[1].ID, poison)
	h.deliverAll(t, events, 3)
	for _, i := range []int{0, 2} {
		if h.processed(events[i].ID) == 0 {
			t.Errorf("%s: an event beside the one that fails was not processed", need)
		}
	}
	dead := h.client.on(h.dead)
	if h.processed(events[1].ID) > 0 || poison.hits == 0 { // the handler can do without it
		if len(dead) > 0 {
			t.Errorf("%s: dead-lettered %s for %q", need, dead[0].ID, dead[0].DeadLetter.Reason)
		}
		h.setFault(events[1].ID, nil)
		return 0
	}
	if len(dead) != 1 || dead[0].ID != events[1].ID || dead[0].DeadLetter == nil || !strings.Contains(dead[0].DeadLetter.Reason, cause(failure)) {
		t.Errorf("%s: dead-lettered %+v, want the event that fails with %q", need, dead, cause(failure))
		return 1
	}
	h.setFault(events[1].ID, nil)
	if err := h.receiver.Redrive(t.Context(), h.topic, dead[0]); err != nil || h.processed(events[1].ID) == 0 {
		t.Errorf("%s: redriven after the cause was fixed: %v", need, err)
	}
	return 1
}

// cause is the part of an error that every wrapping keeps.
func cause(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}

// transient makes one of three events with one key fail for longer than one delivery is tried.
func (h *handling) transient(t *testing.T, need string) {
	t.Helper()
	before := len(h.client.on(h.dead))
	events := []eventing.Event{h.world.Event(t, h.eventType, 4), h.world.Event(t, h.eventType, 5), h.world.Event(t, h.eventType, 6)}
	failing := &fault{need: need, err: h.world.Needs[need].Transient, left: 6}
	h.setFault(events[1].ID, failing)
	h.deliverAll(t, events, 5)
	for _, e := range events {
		if h.processed(e.ID) == 0 {
			t.Errorf("%s: event %s was lost", need, e.ID)
		}
	}
	if dead := h.client.on(h.dead); len(dead) != before {
		t.Errorf("%s: dead-lettered %q", need, dead[before].DeadLetter.Reason)
	}
}

func (h *handling) setFault(id string, f *fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults[id] = f
	if f == nil {
		delete(h.faults, id)
	}
}

func (h *handling) processed(id string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.done[id]
}

// deliverAll delivers the events, and redelivers those that were not acknowledged, up to a limit.
func (h *handling) deliverAll(t *testing.T, events []eventing.Event, times int) {
	t.Helper()
	for range times {
		var again []eventing.Event
		if h.bulk {
			again = h.deliver(t, events)
		} else {
			for i := range events {
				again = append(again, h.deliver(t, events[i:i+1])...)
			}
		}
		if events = again; len(events) == 0 {
			return
		}
	}
	t.Errorf("%d events, such as %s, are still not acknowledged", len(events), events[0].ID)
}

// deliver delivers the events as a sidecar does, and returns those that were not acknowledged.
func (h *handling) deliver(t *testing.T, events []eventing.Event) (again []eventing.Event) {
	t.Helper()
	type entry struct {
		EntryID  string            `json:"entryId"`
		Event    any               `json:"event"`
		Metadata map[string]string `json:"metadata"`
	}
	entries := make([]entry, len(events))
	for i, e := range events {
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		entries[i] = entry{fmt.Sprint(i), json.RawMessage(text), map[string]string{"__key": "CUST-123"}}
		if h.broker {
			entries[i].Event = text // it was not asked to look into it
		}
	}
	path, body := "/events/"+h.topic+"/bulk", any(map[string]any{"entries": entries})
	if !h.bulk {
		path, body = "/events/"+h.topic, entries[0].Event
		if h.broker {
			body = map[string]any{"id": "random", "data_base64": entries[0].Event}
		}
	}
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(string(text)))
	request.RemoteAddr = "127.0.0.1:50000"
	request.Header.Set("__key", "CUST-123")
	recorder := httptest.NewRecorder()
	h.routes.ServeHTTP(recorder, request)
	var answer struct {
		Status   string `json:"status"`
		Statuses []struct {
			Status string `json:"status"`
		} `json:"statuses"`
	}
	if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil || recorder.Code != http.StatusOK {
		t.Fatalf("answered %d %s", recorder.Code, recorder.Body)
	}
	verdicts := []string{answer.Status}
	if h.bulk {
		verdicts = make([]string, 0, len(answer.Statuses))
		for _, s := range answer.Statuses {
			verdicts = append(verdicts, s.Status)
		}
	}
	if len(verdicts) != len(events) {
		t.Fatalf("answered %s for %d events", recorder.Body, len(events))
	}
	for i, verdict := range verdicts {
		switch verdict {
		case "SUCCESS":
		case "RETRY":
			again = append(again, events[i])
		default:
			t.Errorf("answered %s, and a sidecar crashes on DROP in a batch", verdict)
		}
	}
	return again
}
