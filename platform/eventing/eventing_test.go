package eventing

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waybill/platform/internal/fakedapr"
)

// spans are those of every test in this package; a test finds its own by the event's id.
var spans = tracetest.NewInMemoryExporter()

func TestMain(m *testing.M) {
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)))
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

type placed struct {
	ID       string `json:"order_id"`
	Customer string `json:"customer_id"`
}

func (placed) EventType() string { return "Order.Placed" }
func (p placed) Subject() string { return "orders/" + p.ID }
func (p placed) Key() string     { return p.Customer }

func newEvent(t *testing.T, id string) Event {
	t.Helper()
	e, err := New(id, "waybill/test", "1.0", time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC), placed{ID: "ORD-1", Customer: "CUST-123"})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func newPublisher(t *testing.T, server *fakedapr.Server) *Publisher {
	t.Helper()
	p, err := NewPublisher(server.Client(t), "orderbus")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func attributes(t *testing.T, event []byte) map[string]any {
	t.Helper()
	var got map[string]any
	if err := json.Unmarshal(event, &got); err != nil {
		t.Fatalf("%s: %v", event, err)
	}
	return got
}

func TestPublish(t *testing.T) {
	t.Parallel()
	var server fakedapr.Server
	if err := newPublisher(t, &server).Publish(t.Context(), "orders", newEvent(t, "e1")); err != nil {
		t.Fatal(err)
	}
	published := server.Published()
	if len(published) != 1 {
		t.Fatalf("%d events were published", len(published))
	}
	want := map[string]any{
		"specversion": "1.0", "id": "e1", "type": "Order.Placed", "source": "waybill/test", "subject": "orders/ORD-1",
		"time": "2026-03-14T09:26:53Z", "datacontenttype": "application/json", "dataversion": "1.0",
		"data": map[string]any{"order_id": "ORD-1", "customer_id": "CUST-123"},
	}
	if diff := cmp.Diff(want, attributes(t, published[0].Data)); diff != "" {
		t.Errorf("the event differs (-want +got):\n%s", diff)
	}
	published[0].Data = nil
	wantSent := fakedapr.Published{
		Component: "orderbus", Topic: "orders", ContentType: "application/cloudevents+json",
		Metadata: map[string]string{"partitionKey": "CUST-123", "SessionId": "CUST-123", "MessageId": "e1"},
	}
	if diff := cmp.Diff(wantSent, published[0]); diff != "" {
		t.Errorf("the metadata of the event differs (-want +got):\n%s", diff)
	}
}

func TestTransportMetadata(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 129)
	hashed := fmt.Sprintf("%x", sha256.Sum256([]byte(long)))
	for name, c := range map[string]struct {
		id, key string
		want    map[string]string
	}{
		"no key":    {"e1", "", map[string]string{"SessionId": "e1", "MessageId": "e1"}},
		"long":      {long, long, map[string]string{"partitionKey": long, "SessionId": hashed, "MessageId": hashed}},
		"long, cut": {long[:128], long[:128], map[string]string{"partitionKey": long[:128], "SessionId": long[:128], "MessageId": long[:128]}},
	} {
		var server fakedapr.Server
		e := newEvent(t, c.id)
		e.Key = c.key
		if err := newPublisher(t, &server).Publish(t.Context(), "orders", e); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, server.Published()[0].Metadata); diff != "" {
			t.Errorf("%s: the metadata differs (-want +got):\n%s", name, diff)
		}
	}
}

func TestPublishRetries(t *testing.T) {
	t.Parallel()
	var server fakedapr.Server
	server.Fail(func(_ context.Context, c fakedapr.Call) error {
		if c.Number <= 2 {
			return status.Error(codes.Unavailable, "the broker is unavailable")
		}
		return nil
	})
	if err := newPublisher(t, &server).Publish(t.Context(), "orders", newEvent(t, "e1")); err != nil {
		t.Fatal(err)
	}
	if got := len(server.Calls("PublishEvent")); got != 3 {
		t.Errorf("called %d times, want 3", got)
	}
}

// An outage logs two lines for each topic, however many events are published meanwhile.
func TestPublishLogsAnOutageOnce(t *testing.T) {
	t.Parallel()
	var server fakedapr.Server
	var unavailable atomic.Bool
	unavailable.Store(true)
	server.Fail(func(context.Context, fakedapr.Call) error {
		if unavailable.Load() {
			return status.Error(codes.Unavailable, "the broker is unavailable")
		}
		return nil
	})
	var log bytes.Buffer
	p := newPublisher(t, &server).WithLogger(slog.New(slog.NewTextHandler(&log, nil)))
	p.timeout = 20 * time.Millisecond
	for _, id := range []string{"e1", "e2"} {
		if err := p.Publish(t.Context(), "orders", newEvent(t, id)); !errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
	}
	unavailable.Store(false)
	for _, id := range []string{"e1", "e2"} {
		if err := p.Publish(t.Context(), "orders", newEvent(t, id)); err != nil {
			t.Error(err)
		}
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `level=WARN msg="publish failed; will retry" component=orderbus topic=orders error=`) ||
		!strings.Contains(lines[1], `level=INFO msg="publish works again" component=orderbus topic=orders failed_for=`) {
		t.Errorf("the log is\n%s", log.String())
	}
}

func TestPublishDoesNotRetryWhatIsRefused(t *testing.T) {
	t.Parallel()
	for _, code := range []codes.Code{codes.PermissionDenied, codes.InvalidArgument, codes.Unimplemented} {
		var server fakedapr.Server
		server.Fail(func(context.Context, fakedapr.Call) error { return status.Error(code, "no") })
		p := newPublisher(t, &server)
		for what, err := range map[string]error{
			"one": p.Publish(t.Context(), "one", newEvent(t, "e1")), "bulk": p.PublishAll(t.Context(), "bulk", []Event{newEvent(t, "e1")}),
		} {
			if err == nil || errors.Is(err, ErrUnavailable) || status.Code(err) != code {
				t.Errorf("%s, %s: %v", what, code, err)
			}
		}
		if n := len(server.Calls("PublishEvent")); n != 1 {
			t.Errorf("%s: called %d times", code, n)
		}
	}
}

func TestPublishGivesUp(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(context.Context, fakedapr.Call) error{
		"the broker is unavailable": func(context.Context, fakedapr.Call) error { return status.Error(codes.Internal, "broker") },
		"the sidecar hangs":         func(ctx context.Context, _ fakedapr.Call) error { <-ctx.Done(); return ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var server fakedapr.Server
			server.Fail(fail)
			p := newPublisher(t, &server)
			p.timeout = 100 * time.Millisecond
			for what, err := range map[string]error{
				"one": p.Publish(t.Context(), "one", newEvent(t, "e1")), "bulk": p.PublishAll(t.Context(), "bulk", []Event{newEvent(t, "e1")}),
			} {
				if !errors.Is(err, ErrUnavailable) {
					t.Errorf("%s: %v, want ErrUnavailable", what, err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := p.Publish(ctx, "one", newEvent(t, "e1")); !errors.Is(err, ErrUnavailable) {
				t.Errorf("the caller left: %v, want ErrUnavailable", err)
			}
		})
	}
}

func TestPublishRefusesWhatNoSidecarAccepts(t *testing.T) {
	t.Parallel()
	var server fakedapr.Server
	p := newPublisher(t, &server)
	large, broken := newEvent(t, "large"), newEvent(t, "broken")
	large.Data = json.RawMessage(`"` + strings.Repeat("x", 4<<20) + `"`)
	broken.Data = json.RawMessage(`{`)
	for _, e := range []Event{large, broken} {
		for what, err := range map[string]error{"one": p.Publish(t.Context(), "one", e), "bulk": p.PublishAll(t.Context(), "bulk", []Event{e})} {
			if err == nil || errors.Is(err, ErrUnavailable) {
				t.Errorf("%s, %s: %v, want a permanent error", what, e.ID, err)
			}
		}
	}
	if n := len(server.Calls("PublishEvent")) + len(server.Calls("BulkPublishEvent")); n != 0 {
		t.Errorf("the sidecar was called %d times", n)
	}
}

func TestPublishAll(t *testing.T) {
	t.Parallel()
	var server fakedapr.Server
	events := make([]Event, 1201)
	for i := range events {
		events[i] = newEvent(t, fmt.Sprint(i))
		events[i].Key = fmt.Sprint("key ", i)
	}
	server.Fail(func(_ context.Context, c fakedapr.Call) error {
		if c.Number == 2 {
			return status.Error(codes.Unavailable, "once")
		}
		return nil
	})
	if err := newPublisher(t, &server).PublishAll(t.Context(), "orders", events); err != nil {
		t.Fatal(err)
	}
	published, batches := server.Published(), map[int]int{}
	if len(published) != len(events) {
		t.Fatalf("%d events were published, want %d", len(published), len(events))
	}
	for i, p := range published {
		batches[p.Bulk]++
		if id := attributes(t, p.Data)["id"]; id != events[i].ID || p.Metadata["partitionKey"] != events[i].Key || p.Metadata["MessageId"] != events[i].ID || p.ContentType != CloudEventType {
			t.Fatalf("event %d is %v with %v as %s", i, id, p.Metadata, p.ContentType)
		}
	}
	if diff := cmp.Diff(map[int]int{1: 500, 2: 500, 3: 201}, batches); diff != "" {
		t.Errorf("the batches differ (-want +got):\n%s", diff)
	}
	if err := newPublisher(t, &server).PublishAll(t.Context(), "orders", nil); err != nil {
		t.Errorf("publishing nothing: %v", err)
	}
}

func TestPublishAllKeepsRequestsSmall(t *testing.T) {
	t.Parallel()
	var server fakedapr.Server
	events := make([]Event, 6)
	for i := range events {
		events[i] = newEvent(t, fmt.Sprint(i))
		events[i].Data = json.RawMessage(`"` + strings.Repeat("x", 900_000) + `"`)
	}
	if err := newPublisher(t, &server).PublishAll(t.Context(), "orders", events); err != nil {
		t.Fatal(err)
	}
	if got, calls := len(server.Published()), len(server.Calls("BulkPublishEvent")); got != 6 || calls != 3 {
		t.Errorf("%d events in %d requests, want 6 in 3", got, calls)
	}
}

func TestEventKeepsUnknownAttributes(t *testing.T) {
	t.Parallel()
	received := `{"specversion":"1.0","id":"1","type":"T","source":"s","data_base64":"AAH/","datacontenttype":"image/png",` +
		`"tenant":"north","sequence":7,"time":42,"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","topic":"orders","pubsubname":"orderbus"}`
	var e Event
	if err := json.Unmarshal([]byte(received), &e); err != nil {
		t.Fatal(err)
	}
	if err := e.Decode(new(placed)); !Rejected(err) {
		t.Errorf("an event without JSON data is decoded: %v", err)
	}
	e.DeadLetter = &DeadLetter{By: "orders", Reason: "why", At: time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)}
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"specversion": "1.0", "id": "1", "type": "T", "source": "s", "data_base64": "AAH/", "datacontenttype": "image/png",
		"tenant": "north", "sequence": 7.0, "parkedby": "orders", "parkedreason": "why", "parkedat": "2026-03-14T09:26:53Z",
	}
	if diff := cmp.Diff(want, attributes(t, b)); diff != "" {
		t.Errorf("written again the event differs (-want +got):\n%s", diff)
	}
	var again Event
	if err := json.Unmarshal(b, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(e.DeadLetter, again.DeadLetter); diff != "" {
		t.Errorf("read again the reason differs (-want +got):\n%s", diff)
	}
}

// Events are encoded without encoding/json, which must decode them to the same texts.
func TestTextsAreEncodedExactly(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"plain", `a "b" \ c`, "line\nbreak\x00", "é ü ß 🙂", "<&>", strings.Repeat("long ", 200)} {
		e := newEvent(t, text)
		e.Type, e.Source, e.Subject, e.DataVersion = text+"1", text+"2", text+"3", text+"4"
		e.DeadLetter = &DeadLetter{By: text, Reason: text + "5", At: e.Time.Add(time.Second)}
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var again Event
		if err := json.Unmarshal(b, &again); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		again.received, again.dataText = "", ""
		e.Key = ""
		if diff := cmp.Diff(e, again, cmp.AllowUnexported(Event{})); diff != "" {
			t.Errorf("%s differs (-want +got):\n%s", b, diff)
		}
	}
	if _, err := json.Marshal(Event{ID: "1", Type: "T", Source: "s", Data: json.RawMessage(`{"a":`)}); err == nil {
		t.Error("an event whose data is not JSON was encoded")
	}
}

func TestDecodeRejects(t *testing.T) {
	t.Parallel()
	for _, data := range []string{``, `{"order_id":7}`, `"text"`} {
		e := Event{Data: json.RawMessage(data)}
		if err := e.Decode(new(placed)); !Rejected(err) {
			t.Errorf("%q: %v, want a rejection", data, err)
		}
	}
	var read Event
	if err := json.Unmarshal([]byte(`{"id":"1","type":"T","data":{"a":1}}`), &read); err != nil || read.DataText() != `{"a":1}` {
		t.Errorf("the text of the data is %s, %v", read.DataText(), err)
	}
	if read.Data = json.RawMessage(`{"b":2}`); read.DataText() != `{"b":2}` {
		t.Errorf("the text of changed data is %s", read.DataText())
	}
	var p placed
	if err := newEvent(t, "1").Decode(&p); err != nil || p.ID != "ORD-1" {
		t.Errorf("decoded %+v, %v", p, err)
	}
}

// TestTimesThatCannotBeEncoded decodes times whose year in UTC does not have four digits.
func TestTimesThatCannotBeEncoded(t *testing.T) {
	t.Parallel()
	var data struct {
		Steps []struct {
			At time.Time `json:"at"`
		} `json:"steps"`
	}
	e := Event{Data: json.RawMessage(`{"steps":[{"at":"0001-01-01T00:00:00Z"},{"at":"9999-12-31T23:59:59-01:00"}]}`)}
	if err := e.Decode(&data); !Rejected(err) || !strings.Contains(err.Error(), "steps[1].at") {
		t.Errorf("%v, want a rejection that names the field", err)
	}
	for _, at := range []string{"9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+01:00"} {
		if err := json.Unmarshal([]byte(`{"id":"1","type":"T","time":"`+at+`","data":{}}`), &e); err != nil || !e.Time.IsZero() {
			t.Errorf("%s is read as %s, %v", at, e.Time, err)
		}
		if text, err := json.Marshal(e); err != nil || !json.Valid(text) {
			t.Errorf("%s: %s, %v", at, text, err)
		}
	}
}

func TestEventTrace(t *testing.T) {
	t.Parallel()
	var e Event
	if span := trace.SpanContextFromContext(e.Trace(t.Context())); span.IsValid() {
		t.Errorf("an event without a trace is in %v", span)
	}
	err := json.Unmarshal([]byte(`{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","tracestate":"a=b"}`), &e)
	if err != nil {
		t.Fatal(err)
	}
	span := trace.SpanContextFromContext(e.Trace(t.Context()))
	if span.TraceID().String() != "0af7651916cd43dd8448eb211c80319c" || span.TraceState().Get("a") != "b" || !span.IsRemote() {
		t.Errorf("the event's trace is %v", span)
	}
}
