package eventing

import (
	"bytes"
	"context"
	"encoding/base64"
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
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/go-cmp/cmp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waybill/platform/internal/fakedapr"
	"waybill/platform/state"
)

const deadLetter = "orders.app.dead"

// receiving is a Receiver behind its routes, with a sidecar that it publishes through.
type receiving struct {
	sidecar      fakedapr.Server
	publish      *Publisher
	receiver     *Receiver
	routes       *chi.Mux
	log          bytes.Buffer
	mu           sync.Mutex
	deadLettered []Event
	onDeadLetter error
}

func receive(t *testing.T, token string, s Subscription) *receiving {
	t.Helper()
	x := &receiving{routes: chi.NewMux()}
	x.publish = newPublisher(t, &x.sidecar)
	s.Component, s.Topic, s.DeadLetter = "orderbus", "orders", deadLetter
	r, err := NewReceiver(ReceiverOptions{
		App: "app", Token: token, Publisher: x.publish, Logger: slog.New(slog.NewJSONHandler(&x.log, nil)),
		OnDeadLetter: func(_ context.Context, topic string, e Event) error {
			x.mu.Lock()
			defer x.mu.Unlock()
			if topic != "orders" {
				t.Errorf("OnDeadLetter got topic %s", topic)
			}
			x.deadLettered = append(x.deadLettered, e)
			return x.onDeadLetter
		},
	}, s)
	if err != nil {
		t.Fatal(err)
	}
	r.firstDelay = time.Millisecond
	r.Mount(x.routes)
	x.receiver = r
	return x
}

func handling(handle Handler) Subscription {
	return Subscription{Handlers: map[string]Handler{"Order.Placed": handle}}
}

func (x *receiving) do(ctx context.Context, method, path, body string, header map[string]string) *httptest.ResponseRecorder {
	req := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	req.RemoteAddr = "127.0.0.1:50000"
	for name, value := range header {
		req.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	x.routes.ServeHTTP(w, req)
	return w
}

func (x *receiving) deliver(t *testing.T, path, body string) string {
	t.Helper()
	w := x.do(t.Context(), http.MethodPost, path, body, nil)
	var answer struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); w.Code != http.StatusOK || err != nil {
		t.Fatalf("answered %d %s", w.Code, w.Body)
	}
	return answer.Status
}

// brokerUnavailable makes every publish fail until the returned function is called.
func (x *receiving) brokerUnavailable() (back func()) {
	before := x.publish.timeout
	x.publish.timeout = 20 * time.Millisecond
	x.sidecar.Fail(func(context.Context, fakedapr.Call) error { return status.Error(codes.Unavailable, "away") })
	return func() {
		x.publish.timeout = before
		x.sidecar.Fail(nil)
	}
}

// dead are the events on the dead-letter topic.
func (x *receiving) dead(t *testing.T) []map[string]any {
	t.Helper()
	published := x.sidecar.Published()
	found := make([]map[string]any, 0, len(published))
	for _, p := range published {
		if p.Topic != deadLetter || p.Component != "orderbus" {
			t.Errorf("something was published on %s, %s", p.Component, p.Topic)
		}
		found = append(found, attributes(t, p.Data))
	}
	return found
}

const placedPath = "/events/orders/Order.Placed"

func cloudEventOf(id string) string {
	return `{"specversion":"1.0","id":"` + id + `","type":"Order.Placed","source":"elsewhere","subject":"orders/ORD-1",` +
		`"tenant":"north","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","data":{"order_id":"ORD-1"}}`
}

func TestReceiverRefusesSubscriptions(t *testing.T) {
	t.Parallel()
	good := Subscription{Component: "orderbus", Topic: "orders", DeadLetter: deadLetter}
	noDeadLetter, noTopic, noComponent, circle, bulk := good, good, good, good, good
	rawAndDeadLetter, rawAndHandlers := good, Subscription{Component: "orderbus", Topic: "orders", Handlers: map[string]Handler{}}
	rawWithSessions := Subscription{Component: "orderbus", Topic: "orders", Sessions: true, Raw: func(context.Context, Message) error { return nil }}
	rawAndDeadLetter.Raw = func(context.Context, Message) error { return nil }
	rawAndHandlers.Raw = rawAndDeadLetter.Raw
	noDeadLetter.DeadLetter, noTopic.Topic, noComponent.Component, circle.DeadLetter, bulk.Bulk = "", "", "", "orders", &Bulk{}
	for name, subscriptions := range map[string][]Subscription{
		"no dead letter": {noDeadLetter}, "no topic": {noTopic}, "no component": {noComponent}, "a circle": {circle},
		"no bulk handler": {bulk}, "twice": {good, good}, "raw with dead letters": {rawAndDeadLetter}, "raw with handlers": {rawAndHandlers},
		"raw with sessions": {rawWithSessions},
	} {
		if _, err := NewReceiver(ReceiverOptions{}, subscriptions...); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestDescription(t *testing.T) {
	t.Parallel()
	match := func(eventType string) map[string]any {
		return map[string]any{"match": `has(event.type) && event.type == "` + eventType + `"`, "path": "/events/orders/" + eventType}
	}
	bulk := func(messages float64) map[string]any {
		return map[string]any{"enabled": true, "maxMessagesCount": messages, "maxAwaitDurationMs": 1500.0}
	}
	sessions := map[string]any{"requireSessions": "true", "sessionIdleTimeoutInSec": "1", "maxConcurrentSessions": "64"}
	undecoded := map[string]any{"rawPayload": "true"}
	raw := map[string]any{"pubsubname": "orderbus", "topic": deadLetter, "route": "/events/" + deadLetter, "metadata": undecoded}
	orders := map[string]any{
		"pubsubname": "orderbus", "topic": "orders",
		"routes": map[string]any{"rules": []any{match("A"), match("B"), match("C")}, "default": "/events/orders"},
	}
	inventory := map[string]any{
		"pubsubname": "orderbus", "topic": "inventory", "metadata": sessions, "route": "/events/inventory/bulk", "bulkSubscribe": bulk(100),
	}
	views := map[string]any{"pubsubname": "telemetrybus", "topic": "views", "route": "/events/views/bulk", "bulkSubscribe": bulk(100)}
	with := func(described map[string]any, name string, value any) map[string]any {
		described = maps.Clone(described)
		described[name] = value
		return described
	}
	for name, c := range map[string]struct {
		broker bool
		want   []any
	}{
		"the sidecar retries": {false, []any{
			with(orders, "deadLetterTopic", deadLetter), with(inventory, "deadLetterTopic", "inventory.app.dead"),
			with(views, "deadLetterTopic", "views.app.dead"), raw,
		}},
		// Without a dead-letter topic, with undecoded messages, and with small batches for sessions.
		"the broker retries": {true, []any{
			map[string]any{"pubsubname": "orderbus", "topic": "orders", "route": "/events/orders", "metadata": undecoded},
			with(with(inventory, "bulkSubscribe", bulk(10)), "metadata", with(sessions, "rawPayload", "true")),
			with(views, "metadata", undecoded), raw,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			described(t, c.broker, c.want)
		})
	}
}

func described(t *testing.T, broker bool, want []any) {
	t.Helper()
	none := func(context.Context, Event) error { return nil }
	together := func(context.Context, []Event) []error { return nil }
	r, err := NewReceiver(ReceiverOptions{Logger: slog.New(slog.DiscardHandler), BrokerRetries: broker},
		Subscription{Component: "orderbus", Topic: "orders", DeadLetter: deadLetter, Handlers: map[string]Handler{"B": none, "C": none, "A": none}},
		Subscription{
			Component: "orderbus", Topic: "inventory", DeadLetter: "inventory.app.dead", Sessions: true,
			Bulk: &Bulk{MaxMessages: 100, MaxAwait: 1500 * time.Millisecond, Handle: together},
		},
		Subscription{
			Component: "telemetrybus", Topic: "views", DeadLetter: "views.app.dead",
			Bulk: &Bulk{MaxMessages: 100, MaxAwait: 1500 * time.Millisecond, Handle: together},
		},
		Subscription{Component: "orderbus", Topic: deadLetter, Raw: func(context.Context, Message) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	x := &receiving{routes: chi.NewMux()}
	r.Mount(x.routes)
	w := x.do(t.Context(), http.MethodGet, "/dapr/subscribe", "", nil)
	var got []any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the description differs (-want +got):\n%s", diff)
	}
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("it is answered as %s", got)
	}
}

// TestRedeliveryIsDelayed delays what a broker would deliver again at once, and nothing else.
func TestRedeliveryIsDelayed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		subscription Subscription
		path, body   string
		fails        error
		held         bool
	}{
		"one event":                 {handling(nil), placedPath, cloudEventOf("e1"), ErrUnavailable, true},
		"one that is handled":       {handling(nil), placedPath, cloudEventOf("e1"), nil, false},
		"one that is dead-lettered": {handling(nil), placedPath, cloudEventOf("e1"), Reject(ErrUnavailable), false},
		"a batch": {
			Subscription{Bulk: &Bulk{MaxMessages: 10}}, "/events/orders/bulk",
			`{"entries":[{"entryId":"1","event":` + cloudEventOf("e1") + `}]}`, ErrUnavailable, true,
		},
		"a batch that is handled": {
			Subscription{Bulk: &Bulk{MaxMessages: 10}}, "/events/orders/bulk",
			`{"entries":[{"entryId":"1","event":` + cloudEventOf("e1") + `}]}`, nil, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				handler := func(context.Context, Event) error { return c.fails }
				c.subscription.Component, c.subscription.Topic, c.subscription.DeadLetter = "orderbus", "orders", deadLetter
				c.subscription.Handlers = map[string]Handler{"Order.Placed": handler}
				x := &receiving{routes: chi.NewMux()}
				x.publish = newPublisher(t, &x.sidecar)
				r, err := NewReceiver(ReceiverOptions{
					App: "app", Publisher: x.publish, Logger: slog.New(slog.DiscardHandler), BrokerRetries: true,
				}, c.subscription)
				if err != nil {
					t.Fatal(err)
				}
				r.attempts = 1
				r.Mount(x.routes)
				began := time.Now()
				if w := x.do(t.Context(), http.MethodPost, c.path, undecoded(c.body), nil); w.Code != http.StatusOK {
					t.Errorf("answered %d %s", w.Code, w.Body)
				}
				want := time.Duration(0)
				if c.held {
					want = brokerPause
				}
				if got := time.Since(began); got != want {
					t.Errorf("answered after %v, want %v", got, want)
				}
			})
		})
	}
}

// undecoded is a message from a sidecar that does not decode messages; a bulk delivery stays as it is.
func undecoded(message string) string {
	if strings.HasPrefix(message, `{"entries"`) {
		return message
	}
	return `{"id":"random","type":"com.dapr.event.sent","data_base64":"` + base64.StdEncoding.EncodeToString([]byte(message)) + `"}`
}

// TestUndecodedMessages checks that the service itself dead-letters a message that is not a CloudEvent, with a reason, if the sidecar
// does not decode messages.
func TestUndecodedMessages(t *testing.T) {
	t.Parallel()
	entry := func(id, message string) string {
		return `{"entryId":"` + id + `","event":"` + base64.StdEncoding.EncodeToString([]byte(message)) + `","metadata":{"metadata.SessionId":"CUST-1"}}`
	}
	for name, c := range map[string]struct {
		bulk   *Bulk
		path   string
		bodies []string
	}{
		"one by one": {nil, "/events/orders", []string{undecoded(cloudEventOf("e1")), undecoded("no JSON")}},
		"a batch":    {&Bulk{MaxMessages: 10}, "/events/orders/bulk", []string{`{"entries":[` + entry("1", cloudEventOf("e1")) + `,` + entry("2", "no JSON") + `]}`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var handled []string
			s := handling(func(_ context.Context, e Event) error {
				handled = append(handled, e.ID+" of "+e.Key+" in "+e.traceParent)
				return nil
			})
			s.Bulk = c.bulk
			x := receive(t, "", s)
			x.receiver.brokerRetries = true
			for _, body := range c.bodies {
				if w := x.do(t.Context(), http.MethodPost, c.path, body, map[string]string{"metadata.SessionId": "CUST-1"}); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "RETRY") {
					t.Errorf("answered %d %s", w.Code, w.Body)
				}
			}
			if want := []string{"e1 of CUST-1 in 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}; !slices.Equal(handled, want) {
				t.Errorf("handled %q, want %q", handled, want)
			}
			dead := x.dead(t)
			if len(dead) != 1 || dead[0]["data"] != "no JSON" || !strings.Contains(fmt.Sprint(dead[0]["parkedreason"]), "not a CloudEvent") {
				t.Errorf("dead-lettered %v", dead)
			}
		})
	}
}

// TestServiceBusSessionsAreKeys checks that an event keeps the key that Service Bus calls a session.
func TestServiceBusSessionsAreKeys(t *testing.T) {
	t.Parallel()
	var got []string
	take := func(_ context.Context, e Event) error {
		got = append(got, e.Key)
		return nil
	}
	single := receive(t, "", handling(take))
	single.do(t.Context(), http.MethodPost, placedPath, cloudEventOf("e1"), map[string]string{"metadata.SessionId": "CUST-1"})
	together := handling(take)
	together.Bulk = &Bulk{MaxMessages: 10}
	bulk := receive(t, "", together)
	bulk.do(t.Context(), http.MethodPost, "/events/orders/bulk",
		`{"entries":[{"entryId":"1","event":`+cloudEventOf("e2")+`,"metadata":{"metadata.SessionId":"CUST-2"}}]}`, nil)
	if want := []string{"CUST-1", "CUST-2"}; !slices.Equal(got, want) {
		t.Errorf("the keys are %v, want %v", got, want)
	}
}

func TestOnlyTheSidecarIsAnswered(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, token, shown, from string
		want                     int
	}{
		{"the right token", "secret", "secret", "10.0.0.1:5", http.StatusOK},
		{"a wrong token", "secret", "guess", "127.0.0.1:5", http.StatusForbidden},
		{"no token shown", "secret", "", "127.0.0.1:5", http.StatusForbidden},
		{"no token set, this host", "", "", "127.0.0.1:5", http.StatusOK},
		{"no token set, this host by IPv6", "", "", "[::1]:5", http.StatusOK},
		{"no token set, another host", "", "", "10.0.0.1:5", http.StatusForbidden},
		{"no token set, a token shown from another host", "", "guess", "10.0.0.1:5", http.StatusForbidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var handled atomic.Int32
			x := receive(t, c.token, handling(func(context.Context, Event) error { handled.Add(1); return nil }))
			for path, method := range map[string]string{
				"/dapr/subscribe": http.MethodGet, placedPath: http.MethodPost, "/events/orders": http.MethodPost,
			} {
				req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(cloudEventOf("1")))
				req.RemoteAddr = c.from
				if c.shown != "" {
					req.Header.Set("Dapr-Api-Token", c.shown)
				}
				w := httptest.NewRecorder()
				x.routes.ServeHTTP(w, req)
				if w.Code != c.want {
					t.Errorf("%s %s: %d, want %d", method, path, w.Code, c.want)
				}
			}
			want := int32(0)
			if c.want == http.StatusOK {
				want = 2 // on either route, for the event's type decides
			}
			if n := handled.Load(); n != want {
				t.Errorf("%d events were handled, want %d", n, want)
			}
		})
	}
}

func TestHandled(t *testing.T) {
	t.Parallel()
	var got Event
	x := receive(t, "", handling(func(ctx context.Context, e Event) error {
		got = e
		if _, ok := ctx.Deadline(); !ok {
			t.Error("an attempt has no deadline")
		}
		if id := trace.SpanContextFromContext(ctx).TraceID().String(); id != "0af7651916cd43dd8448eb211c80319c" {
			t.Errorf("the handler runs in trace %s, not the event's", id)
		}
		return nil
	}))
	w := x.do(t.Context(), http.MethodPost, placedPath, cloudEventOf("handled"), map[string]string{"__key": "CUST-123"})
	if w.Code != http.StatusOK || strings.TrimSpace(w.Body.String()) != `{"status":"SUCCESS"}` {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
	if got.ID != "handled" || got.Type != "Order.Placed" || got.Source != "elsewhere" || got.Subject != "orders/ORD-1" || got.Key != "CUST-123" {
		t.Errorf("the handler got %+v", got)
	}
	if dead := x.dead(t); len(dead) != 0 {
		t.Errorf("dead-lettered: %v", dead)
	}
	span := spanOf(t, "handled")
	if span.SpanKind() != trace.SpanKindConsumer || span.Name() != "process Order.Placed" ||
		span.Parent().SpanID().String() != "b7ad6b7169203331" || !span.Parent().IsRemote() {
		t.Errorf("the span is %s, %s below %v", span.SpanKind(), span.Name(), span.Parent())
	}
}

func spanOf(t *testing.T, id string) sdktrace.ReadOnlySpan {
	t.Helper()
	for _, span := range spans.GetSpans().Snapshots() {
		for _, a := range span.Attributes() {
			if a.Value.String() == id {
				return span
			}
		}
	}
	t.Fatalf("there is no span of event %s", id)
	return nil
}

func TestErrorsThatPassAreRetried(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{
		"state":                fmt.Errorf("load: %w", state.ErrUnavailable),
		"conflict":             fmt.Errorf("save: %w", state.ErrConflict),
		"bus":                  fmt.Errorf("publish: %w", ErrUnavailable),
		"sidecar":              fmt.Errorf("start: %w", status.Error(codes.Unavailable, "refused")),
		"sidecar slow":         fmt.Errorf("start: %w", status.Error(codes.DeadlineExceeded, "slow")),
		"own deadline":         fmt.Errorf("call: %w", context.DeadlineExceeded),
		"one of several":       errors.Join(errors.New("other"), state.ErrUnavailable),
		"overloaded":           status.Error(codes.ResourceExhausted, "busy"),
		"and the first of two": fmt.Errorf("%w: %w", state.ErrUnavailable, errors.New("inner")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int32
			x := receive(t, "", handling(func(context.Context, Event) error { calls.Add(1); return failure }))
			if got := x.deliver(t, placedPath, cloudEventOf("1")); got != "RETRY" {
				t.Errorf("answered %s", got)
			}
			if n := calls.Load(); n != attemptsPerDelivery {
				t.Errorf("tried %d times", n)
			}
			if dead := x.dead(t); len(dead) != 0 || len(x.deadLettered) != 0 {
				t.Errorf("dead-lettered: %v", dead)
			}
			// When it has passed the same event goes through.
			calls.Store(0)
			failure = nil
			if got := x.deliver(t, placedPath, cloudEventOf("1")); got != "SUCCESS" || calls.Load() != 1 {
				t.Errorf("answered %s after %d attempts", got, calls.Load())
			}
		})
	}
}

func TestHandledAtTheSecondAttempt(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func() error{
		"error": func() error { return errors.New("odd") },
		"panic": func() error { panic("odd") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int32
			x := receive(t, "", handling(func(context.Context, Event) error {
				if calls.Add(1) == 1 {
					return fail()
				}
				return nil
			}))
			if got := x.deliver(t, placedPath, cloudEventOf("1")); got != "SUCCESS" || len(x.dead(t)) != 0 {
				t.Errorf("answered %s, dead-lettered %v", got, x.dead(t))
			}
		})
	}
}

func TestDeadLettered(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, reason string
		fail         func() error
		calls        int32
	}{
		{"rejected", "load: no items", func() error { return fmt.Errorf("load: %w", Reject(errors.New("no items"))) }, 1},
		{"rejected although the cause may pass", "odd: the state store is unavailable", func() error { return Reject(fmt.Errorf("odd: %w", state.ErrUnavailable)) }, 1},
		{"unknown errors", "failed 4 times, the last time with: odd", func() error { return errors.New("odd") }, 4},
		{"impossible keys", "failed 4 times, the last time with: the state store cannot keep this", func() error { return state.ErrInvalid }, 4},
		{"panics", "failed 4 times, the last time with: the handler panicked: odd", func() error { panic("odd") }, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int32
			x := receive(t, "", handling(func(context.Context, Event) error { calls.Add(1); return c.fail() }))
			w := x.do(t.Context(), http.MethodPost, placedPath, cloudEventOf("1"), map[string]string{"__key": "CUST-123"})
			if strings.TrimSpace(w.Body.String()) != `{"status":"SUCCESS"}` {
				t.Errorf("answered %d %s", w.Code, w.Body)
			}
			if calls.Load() != c.calls {
				t.Errorf("tried %d times, want %d", calls.Load(), c.calls)
			}
			dead := x.dead(t)
			if len(dead) != 1 {
				t.Fatalf("dead-lettered: %v", dead)
			}
			delete(dead[0], "parkedat")
			want := map[string]any{
				"specversion": "1.0", "id": "1", "type": "Order.Placed", "source": "elsewhere", "subject": "orders/ORD-1", "tenant": "north",
				"datacontenttype": "application/json", "data": map[string]any{"order_id": "ORD-1"}, "parkedby": "app", "parkedreason": c.reason,
			}
			if diff := cmp.Diff(want, dead[0]); diff != "" {
				t.Errorf("the dead-lettered event differs (-want +got):\n%s", diff)
			}
			if got := x.sidecar.Published()[0].Metadata["partitionKey"]; got != "CUST-123" {
				t.Errorf("it is dead-lettered with the key %q", got)
			}
			if len(x.deadLettered) != 1 || x.deadLettered[0].ID != "1" || x.deadLettered[0].DeadLetter.Reason != c.reason {
				t.Errorf("OnDeadLetter got %+v", x.deadLettered)
			}
			if c.name == "panics" && !strings.Contains(x.log.String(), "receive_test.go") {
				t.Errorf("the log does not say where the handler panicked: %s", x.log.String())
			}
		})
	}
}

func TestWhatCannotBeDeadLetteredIsRetried(t *testing.T) {
	t.Parallel()
	reject := handling(func(context.Context, Event) error { return Reject(errors.New("never")) })
	t.Run("the broker is away", func(t *testing.T) {
		t.Parallel()
		x := receive(t, "", reject)
		back := x.brokerUnavailable()
		for path, body := range map[string]string{placedPath: cloudEventOf("1"), "/events/orders": `not JSON`} {
			if got := x.deliver(t, path, body); got != "RETRY" {
				t.Errorf("%s: answered %s", path, got)
			}
		}
		back()
		if got := x.deliver(t, placedPath, cloudEventOf("1")); got != "SUCCESS" || len(x.dead(t)) != 1 {
			t.Errorf("when it is back: answered %s, dead-lettered %v", got, x.dead(t))
		}
	})
	t.Run("OnDeadLetter fails", func(t *testing.T) {
		t.Parallel()
		x := receive(t, "", reject)
		x.onDeadLetter = fmt.Errorf("not announced: %w", ErrUnavailable)
		if got := x.deliver(t, placedPath, cloudEventOf("1")); got != "RETRY" || len(x.dead(t)) != 0 {
			t.Errorf("answered %s, dead-lettered %v", got, x.dead(t))
		}
	})
}

func TestUnreadableIsDeadLettered(t *testing.T) {
	t.Parallel()
	for body, data := range map[string]any{
		`not JSON`:                         "not JSON",
		``:                                 "",
		`[1,2]`:                            []any{1.0, 2.0},
		`"base64"`:                         "base64",
		`{"id":7}`:                         map[string]any{"id": 7.0},
		`null`:                             nil,
		`{"id":"1","data":"d"}`:            "d",
		`{"type":"T","source":"s"}`:        nil,
		`{"id":"","type":"T","data":true}`: true,
	} {
		t.Run(body, func(t *testing.T) {
			t.Parallel()
			for _, path := range []string{"/events/orders", placedPath} {
				x := receive(t, "", handling(func(context.Context, Event) error { t.Error("the handler was called"); return nil }))
				for range 2 {
					if got := x.deliver(t, path, body); got != "SUCCESS" {
						t.Errorf("answered %s", got)
					}
				}
				dead := x.dead(t)
				if len(dead) != 2 {
					t.Fatalf("dead-lettered: %v", dead)
				}
				for _, name := range []string{"id", "type", "source", "specversion", "parkedreason", "parkedby"} {
					if dead[0][name] == nil || dead[0][name] == "" {
						t.Errorf("the dead-lettered event has no %s: %v", name, dead[0])
					}
				}
				if diff := cmp.Diff(data, dead[0]["data"]); diff != "" {
					t.Errorf("the dead-lettered data differs (-want +got):\n%s", diff)
				}
				if dead[0]["id"] != dead[1]["id"] {
					t.Errorf("dead-lettered again its id changed from %v to %v", dead[0]["id"], dead[1]["id"])
				}
				if len(x.deadLettered) != 2 {
					t.Errorf("OnDeadLetter was called %d times", len(x.deadLettered))
				}
			}
		})
	}
}

func TestUninterestingTypesAreAcknowledged(t *testing.T) {
	t.Parallel()
	x := receive(t, "", handling(func(context.Context, Event) error { t.Error("the handler was called"); return nil }))
	if got := x.deliver(t, "/events/orders", `{"id":"1","type":"Other","source":"s"}`); got != "SUCCESS" || len(x.dead(t)) != 0 {
		t.Errorf("answered %s, dead-lettered %v", got, x.dead(t))
	}
}

func TestAnAbandonedDeliveryIsNotDeadLettered(t *testing.T) {
	t.Parallel()
	for name, bulk := range map[string]bool{"single": false, "bulk": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, leave := context.WithCancel(t.Context())
			s, path, body := handling(func(context.Context, Event) error { leave(); return errors.New("odd") }), placedPath, cloudEventOf("1")
			if bulk {
				s, path, body = bulkOf(func(context.Context, []Event) []error { leave(); return []error{errors.New("odd")} }), bulkOrders, batchOf(body)
			}
			x := receive(t, "", s)
			w := x.do(ctx, http.MethodPost, path, body, nil)
			if !strings.Contains(w.Body.String(), "RETRY") || len(x.deadLettered) != 0 || len(x.dead(t)) != 0 {
				t.Errorf("answered %s, dead-lettered %v", w.Body, x.dead(t))
			}
		})
	}
}

func TestALongReasonIsCut(t *testing.T) {
	t.Parallel()
	x := receive(t, "", handling(func(context.Context, Event) error { return Reject(errors.New(strings.Repeat("ü", 1<<20))) }))
	x.deliver(t, placedPath, cloudEventOf("1"))
	if got, ok := x.dead(t)[0]["parkedreason"].(string); !ok || len(got) > maxReason || strings.ContainsRune(got, '\uFFFD') {
		t.Errorf("the reason has %d bytes", len(got))
	}
}

const bulkOrders = "/events/orders/bulk"

func bulkOf(handle BulkHandler) Subscription {
	return Subscription{Bulk: &Bulk{MaxMessages: 100, MaxAwait: time.Second, Handle: handle}}
}

// batchOf is a bulk delivery; the entries are named entry-0, entry-1 and so on.
func batchOf(events ...string) string {
	entries := make([]string, len(events))
	for i, e := range events {
		entries[i] = fmt.Sprintf(`{"entryId":"entry-%d","contentType":"application/cloudevents+json","metadata":{"__key":"key-%d"},"event":%s}`, i, i, e)
	}
	return `{"id":"batch","topic":"orders","entries":[` + strings.Join(entries, ",") + `]}`
}

// statuses are those of a bulk answer, by entry, after the check that Dapr accepts them.
func (x *receiving) statuses(t *testing.T, body string) []string {
	t.Helper()
	w := x.do(t.Context(), http.MethodPost, bulkOrders, body, nil)
	var answer struct {
		Statuses []struct {
			EntryID string `json:"entryId"`
			Status  string `json:"status"`
		} `json:"statuses"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); w.Code != http.StatusOK || err != nil {
		t.Fatalf("answered %d %s", w.Code, w.Body)
	}
	statuses := make([]string, 0, len(answer.Statuses))
	for i, s := range answer.Statuses {
		if s.EntryID != fmt.Sprintf("entry-%d", i) || s.Status != "SUCCESS" && s.Status != "RETRY" {
			t.Errorf("status %d is %+v", i, s)
		}
		statuses = append(statuses, s.Status)
	}
	return statuses
}

func TestBulk(t *testing.T) {
	t.Parallel()
	const good, passing, hopeless, odd, second = "good", "passing", "hopeless", "odd", "second"
	var calls [][]string
	x := receive(t, "", bulkOf(func(_ context.Context, events []Event) []error {
		ids := make([]string, 0, len(events))
		errs := make([]error, len(events))
		for i, e := range events {
			ids = append(ids, e.ID+" "+e.Key)
			switch e.ID {
			case passing:
				errs[i] = state.ErrUnavailable
			case hopeless:
				errs[i] = Reject(errors.New("never"))
			case odd:
				errs[i] = errors.New("odd")
			case second:
				if len(calls) == 0 {
					errs[i] = errors.New("once")
				}
			}
		}
		calls = append(calls, ids)
		return errs
	}))
	got := x.statuses(t, batchOf(cloudEventOf(good), `"not an event"`, cloudEventOf(passing), `{"id":"no type"}`,
		cloudEventOf(hopeless), cloudEventOf(odd), cloudEventOf(second)))
	want := []string{"SUCCESS", "SUCCESS", "RETRY", "SUCCESS", "SUCCESS", "SUCCESS", "SUCCESS"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the statuses differ (-want +got):\n%s", diff)
	}
	wantCalls := [][]string{
		{"good key-0", "passing key-2", "hopeless key-4", "odd key-5", "second key-6"},
		{"passing key-2", "odd key-5", "second key-6"},
		{"passing key-2", "odd key-5"},
		// In the last attempt what would be dead-lettered is alone.
		{"passing key-2"},
		{"odd key-5"},
	}
	if diff := cmp.Diff(wantCalls, calls); diff != "" {
		t.Errorf("the calls differ (-want +got):\n%s", diff)
	}
	reasons := map[string]string{}
	for _, e := range x.dead(t) {
		reasons[fmt.Sprint(e["id"])] = fmt.Sprint(e["parkedreason"])
	}
	if len(reasons) != 4 || reasons[hopeless] != "never" || reasons[odd] != "failed 4 times, the last time with: odd" ||
		!strings.Contains(reasons["no type"], "no type") {
		t.Errorf("dead-lettered: %q", reasons)
	}
}

// A batch logs one line for each type of event and reason.
func TestABatchLogsItsRetriesTogether(t *testing.T) {
	t.Parallel()
	x := receive(t, "", bulkOf(func(_ context.Context, events []Event) []error {
		errs := make([]error, len(events))
		for i, e := range events {
			errs[i] = fmt.Errorf("store %s: %w", e.ID, state.ErrUnavailable)
			if e.ID == "e3" {
				errs[i] = fmt.Errorf("publish %s: %w", e.ID, ErrUnavailable)
			}
		}
		return errs
	}))
	other := strings.Replace(cloudEventOf("e4"), "Order.Placed", "Order.Changed", 1)
	got := x.statuses(t, batchOf(cloudEventOf("e1"), cloudEventOf("e2"), cloudEventOf("e3"), other))
	if want := []string{"RETRY", "RETRY", "RETRY", "RETRY"}; !slices.Equal(got, want) {
		t.Errorf("answered %v, want %v", got, want)
	}
	type line struct {
		Msg    string
		Events int
		Error  string
		Event  struct{ ID, Type string }
	}
	var lines []line
	for decoder := json.NewDecoder(&x.log); ; {
		var l line
		if err := decoder.Decode(&l); err != nil {
			break
		}
		lines = append(lines, l)
	}
	const message = "event handler failed; will retry"
	want := []line{
		{message, 2, "store e1: the state store is unavailable", struct{ ID, Type string }{"e1", "Order.Placed"}},
		{message, 1, "publish e3: the event bus is unavailable", struct{ ID, Type string }{"e3", "Order.Placed"}},
		{message, 1, "store e4: the state store is unavailable", struct{ ID, Type string }{"e4", "Order.Changed"}},
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("the log differs (-want +got):\n%s", diff)
	}
}

// When the sidecar ends a delivery, the handler's error is a consequence, and the log says so.
func TestADeliveryThatTheSidecarEnds(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]Subscription{
		"one event": handling(func(ctx context.Context, _ Event) error {
			<-ctx.Done()
			return fmt.Errorf("%w: %w", state.ErrUnavailable, ctx.Err())
		}),
		"a batch": bulkOf(func(ctx context.Context, _ []Event) []error {
			<-ctx.Done()
			return []error{fmt.Errorf("%w: %w", state.ErrUnavailable, ctx.Err())}
		}),
	} {
		x := receive(t, "", s)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		path, body := placedPath, cloudEventOf("e1")
		if s.Bulk != nil {
			path, body = "/events/orders/bulk", batchOf(body)
		}
		x.do(ctx, http.MethodPost, path, body, nil)
		cancel()
		if got := x.log.String(); !strings.Contains(got, "sidecar ended the delivery before the event was handled; will retry") || !strings.Contains(got, `"events":1`) ||
			strings.Contains(got, "event handler failed") {
			t.Errorf("%s: the log is %s", name, got)
		}
	}
}

func TestBulkHandlersThatMisbehave(t *testing.T) {
	t.Parallel()
	for name, handle := range map[string]BulkHandler{
		"panics":             func(context.Context, []Event) []error { panic("odd") },
		"answers too little": func(context.Context, []Event) []error { return nil },
		"answers much":       func(context.Context, []Event) []error { return make([]error, 3) },
		"fails and dead-letters all": func(_ context.Context, events []Event) []error {
			return slices.Repeat([]error{errors.New("odd")}, len(events))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := receive(t, "", bulkOf(handle))
			if got := x.statuses(t, batchOf(cloudEventOf("1"), cloudEventOf("2"))); !slices.Equal(got, []string{"SUCCESS", "SUCCESS"}) {
				t.Errorf("answered %q", got)
			}
			if dead := x.dead(t); len(dead) != 2 {
				t.Errorf("dead-lettered: %v", dead)
			}
			x.brokerUnavailable()
			if got := x.statuses(t, batchOf(cloudEventOf("1"), cloudEventOf("2"))); !slices.Equal(got, []string{"RETRY", "RETRY"}) {
				t.Errorf("while the broker is unavailable it answered %q", got)
			}
		})
	}
}

// Events that arrive together and are handled one by one keep the order of their key: events behind a failed one wait for it, events
// behind a dead-lettered one do not, and other keys are not affected.
func TestTogetherAndOneByOne(t *testing.T) {
	t.Parallel()
	var took []string
	failing := map[string]error{"away": state.ErrUnavailable, "never": Reject(errors.New("never")), "odd": errors.New("odd")}
	s := Subscription{
		Component: "bus", Topic: "things", DeadLetter: "things.app.dead", Bulk: &Bulk{MaxMessages: 10, MaxAwait: time.Second},
		Handlers: map[string]Handler{"Thing.Happened": func(_ context.Context, e Event) error {
			if e.ID == "panics" {
				panic("odd")
			}
			if failing[e.ID] == nil {
				took = append(took, e.ID)
			}
			return failing[e.ID]
		}},
	}
	x := receive(t, "", s)
	entries := 0
	entry := func(id, key, eventType string) string {
		entries++
		return fmt.Sprintf(`{"entryId": "entry-%d", "event": {"specversion": "1.0", "id": %q, "type": %q, "source": "test"}, "metadata": {"__key": %q}}`,
			entries-1, id, eventType, key)
	}
	batch := `{"entries": [` + strings.Join([]string{
		entry("a1", "a", "Thing.Happened"), entry("away", "a", "Thing.Happened"), entry("a3", "a", "Thing.Happened"),
		entry("b1", "b", "Thing.Happened"), entry("never", "b", "Thing.Happened"), entry("b3", "b", "Thing.Happened"),
		entry("odd", "c", "Thing.Happened"), entry("c2", "c", "Thing.Happened"), entry("ignored", "d", "Thing.Elsewhere"),
		entry("panics", "e", "Thing.Happened"), entry("f1", "f", "Thing.Happened"),
	}, ",") + `]}`
	got := x.statuses(t, batch)
	want := []string{"SUCCESS", "RETRY", "RETRY", "SUCCESS", "SUCCESS", "SUCCESS", "SUCCESS", "RETRY", "SUCCESS", "SUCCESS", "SUCCESS"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the statuses differ (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a1", "b1", "b3", "f1"}, took); diff != "" {
		t.Errorf("handled (-want +got):\n%s", diff)
	}
	deadLettered := map[string]bool{}
	for _, e := range x.dead(t) {
		deadLettered[fmt.Sprint(e["id"])] = true
	}
	if diff := cmp.Diff(map[string]bool{"never": true, "odd": true, "panics": true}, deadLettered); diff != "" {
		t.Errorf("dead-lettered (-want +got):\n%s", diff)
	}
}

// Events of one type and key that follow each other are handled together where the subscription asks for it, in the last attempt
// alone: none is dead-lettered because of another. Events behind them with their key wait if one must be retried.
func TestHandledTogether(t *testing.T) {
	t.Parallel()
	var calls [][]string
	handle := func(_ context.Context, events []Event) []error {
		ids, errs, fault := make([]string, len(events)), make([]error, len(events)), error(nil)
		for i, e := range events {
			ids[i] = e.ID
			switch e.ID {
			case "never":
				errs[i] = Reject(errors.New("never"))
			case "spoils":
				fault = errors.New("spoils all")
			case "away":
				errs[i] = state.ErrUnavailable
			}
		}
		calls = append(calls, ids)
		if fault != nil {
			return slices.Repeat([]error{fault}, len(events))
		}
		return errs
	}
	single := func(ctx context.Context, e Event) error { return handle(ctx, []Event{e})[0] }
	x := receive(t, "", Subscription{
		Component: "bus", Topic: "things", DeadLetter: "things.app.dead",
		Bulk: &Bulk{
			MaxMessages: 10, MaxAwait: time.Second, Together: map[string]BulkHandler{"Thing.Happened": handle},
		},
		Handlers: map[string]Handler{"Thing.Happened": single, "Thing.Changed": single},
	})
	batch := func(events ...[3]string) string {
		entries := make([]string, len(events))
		for i, e := range events {
			entries[i] = fmt.Sprintf(`{"entryId": "entry-%d", "event": {"specversion": "1.0", "id": %q, "type": "Thing.%s", "source": "test"}, "metadata": {"__key": %q}}`,
				i, e[0], e[2], e[1])
		}
		return `{"entries": [` + strings.Join(entries, ",") + `]}`
	}
	for _, c := range []struct {
		batch          string
		statuses, dead []string
		calls          [][]string
	}{
		{
			batch([3]string{"a1", "a", "Happened"}, [3]string{"never", "a", "Happened"}, [3]string{"a3", "a", "Happened"},
				[3]string{"b1", "b", "Happened"}, [3]string{"a4", "a", "Changed"}, [3]string{"a5", "a", "Happened"}),
			[]string{"SUCCESS", "SUCCESS", "SUCCESS", "SUCCESS", "SUCCESS", "SUCCESS"}, []string{"never"},
			[][]string{{"a1", "never", "a3"}, {"b1"}, {"a4"}, {"a5"}},
		},
		{
			batch([3]string{"d1", "d", "Happened"}, [3]string{"spoils", "d", "Happened"}, [3]string{"d3", "d", "Changed"}),
			[]string{"SUCCESS", "SUCCESS", "RETRY"}, []string{"spoils"},
			[][]string{{"d1", "spoils"}, {"d1", "spoils"}, {"d1", "spoils"}, {"d1"}, {"spoils"}},
		},
		{
			batch([3]string{"c1", "c", "Happened"}, [3]string{"away", "c", "Happened"}, [3]string{"c3", "c", "Changed"}),
			[]string{"SUCCESS", "RETRY", "RETRY"}, []string{},
			[][]string{{"c1", "away"}, {"away"}, {"away"}, {"away"}},
		},
	} {
		calls = nil
		before := len(x.dead(t))
		if diff := cmp.Diff(c.statuses, x.statuses(t, c.batch)); diff != "" {
			t.Errorf("the statuses differ (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(c.calls, calls); diff != "" {
			t.Errorf("the calls differ (-want +got):\n%s", diff)
		}
		added := x.dead(t)[before:]
		dead := make([]string, len(added))
		for i, e := range added {
			dead[i] = fmt.Sprint(e["id"])
		}
		if diff := cmp.Diff(c.dead, dead); diff != "" {
			t.Errorf("dead-lettered (-want +got):\n%s", diff)
		}
	}
}

func TestBulkTraces(t *testing.T) {
	t.Parallel()
	x := receive(t, "", bulkOf(func(ctx context.Context, events []Event) []error {
		inEvent := trace.SpanContextFromContext(events[0].Trace(ctx))
		if inEvent.TraceID().String() != "0af7651916cd43dd8448eb211c80319c" {
			t.Errorf("the first event's trace is %s", inEvent.TraceID())
		}
		links := trace.SpanFromContext(ctx).(sdktrace.ReadOnlySpan).Links()
		if len(links) != 1 || links[0].SpanContext.SpanID() != inEvent.SpanID() {
			t.Errorf("the batch's span links to %v", links)
		}
		return make([]error, len(events))
	}))
	x.statuses(t, batchOf(cloudEventOf("1"), `{"id":"2","type":"T"}`))
}

func TestUnreadableBulk(t *testing.T) {
	t.Parallel()
	x := receive(t, "", bulkOf(func(context.Context, []Event) []error { t.Error("the handler was called"); return nil }))
	if w := x.do(t.Context(), http.MethodPost, bulkOrders, `not JSON`, nil); w.Code != http.StatusInternalServerError {
		t.Errorf("answered %d, want 500, which Dapr retries", w.Code)
	}
	if got := x.statuses(t, `{"entries":[]}`); len(got) != 0 {
		t.Errorf("an empty batch is answered %q", got)
	}
}

// A dead-letter topic is on the bus of its subscription, even if the receiver's own publisher is for another bus.
func TestDeadLetteredOnTheSubscriptionsBus(t *testing.T) {
	t.Parallel()
	x := &receiving{routes: chi.NewMux()}
	r, err := NewReceiver(ReceiverOptions{App: "app", Publisher: newPublisher(t, &x.sidecar), Logger: slog.New(slog.DiscardHandler)}, Subscription{
		Component: "telemetrybus", Topic: "views", DeadLetter: "views.app.dead",
		Handlers: map[string]Handler{"Viewed": func(context.Context, Event) error { return Reject(errors.New("no product")) }},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Mount(x.routes)
	x.do(t.Context(), http.MethodPost, "/events/views", `{"specversion":"1.0","id":"e1","type":"Viewed","source":"test"}`, nil)
	if published := x.sidecar.Published(); len(published) != 1 || published[0].Component != "telemetrybus" || published[0].Topic != "views.app.dead" {
		t.Errorf("published %+v, want the event on the dead-letter topic of telemetrybus", published)
	}
}
