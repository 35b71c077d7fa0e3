package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"waybill/platform/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The tests of this package are not parallel: they change the process's providers and environment.

func start(t *testing.T, format string) (*telemetry.Telemetry, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	started, err := telemetry.Start(t.Context(), telemetry.Options{Service: "orders", Log: &log, Format: format, Level: slog.LevelInfo})
	if err != nil {
		t.Fatal(err)
	}
	return started, &log
}

func stop(t *testing.T, started *telemetry.Telemetry) {
	t.Helper()
	if err := started.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}

func withoutExporters(t *testing.T) {
	t.Helper()
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, "")
		}
	}
}

func TestLogLinesCarryTheTrace(t *testing.T) {
	withoutExporters(t)
	started, log := start(t, "json")
	defer stop(t, started)
	ctx, span := otel.Tracer("test").Start(t.Context(), "work")
	defer span.End()
	ids := map[string]any{"trace_id": span.SpanContext().TraceID().String(), "span_id": span.SpanContext().SpanID().String()}

	plain := started.Logger
	for name, c := range map[string]struct {
		logger *slog.Logger
		want   map[string]any
	}{
		"plain":               {plain, map[string]any{"k": "v"}},
		"a duration":          {plain.With("waited", 22600*time.Millisecond), map[string]any{"k": "v", "waited": "22.6s"}},
		"with":                {plain.With("a", 1), map[string]any{"k": "v", "a": 1.0}},
		"in a group":          {plain.WithGroup("g"), map[string]any{"g": map[string]any{"k": "v"}}},
		"with, in a group":    {plain.With("a", 1).WithGroup("g"), map[string]any{"a": 1.0, "g": map[string]any{"k": "v"}}},
		"in a group, with":    {plain.WithGroup("g").With("a", 1), map[string]any{"g": map[string]any{"k": "v", "a": 1.0}}},
		"in groups":           {plain.WithGroup("g").With("a", 1).WithGroup("h"), map[string]any{"g": map[string]any{"a": 1.0, "h": map[string]any{"k": "v"}}}},
		"in a group, no name": {plain.WithGroup(""), map[string]any{"k": "v"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, traced := range []bool{true, false} {
				log.Reset()
				want := map[string]any{"msg": "hello", "level": "INFO", "service": "orders"}
				maps.Copy(want, c.want)
				if traced {
					c.logger.InfoContext(ctx, "hello", slog.String("k", "v"))
					maps.Copy(want, ids)
				} else {
					c.logger.Info("hello", slog.String("k", "v"))
				}
				var got map[string]any
				if err := json.Unmarshal(log.Bytes(), &got); err != nil {
					t.Fatalf("%s: %v", log, err)
				}
				delete(got, "time")
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("the line differs (-want +got):\n%s", diff)
				}
			}
		})
	}
	// Two loggers derived from one with a group do not share their attributes.
	one := plain.WithGroup("g").With("a", 1)
	left, right := one.With("left", 1), one.With("right", 1)
	log.Reset()
	left.InfoContext(ctx, "hello")
	right.InfoContext(ctx, "hello")
	if lines := strings.Split(log.String(), "\n"); strings.Contains(lines[0], "right") || strings.Contains(lines[1], "left") {
		t.Errorf("the loggers share attributes: %s", log)
	}
}

func TestTextLog(t *testing.T) {
	withoutExporters(t)
	started, log := start(t, "text")
	defer stop(t, started)
	started.Logger.Debug("hidden")
	started.Logger.Info("shown")
	if got := log.String(); strings.Contains(got, "hidden") || !strings.Contains(got, "msg=shown") {
		t.Errorf("the log is %s", got)
	}
}

// collector is an OTLP endpoint that records the requests.
type collector struct {
	mu       sync.Mutex
	received map[string][]byte
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.received[r.URL.Path] = append(c.received[r.URL.Path], body...)
}

func work(ctx context.Context, t *testing.T) {
	t.Helper()
	_, span := otel.Tracer("test").Start(ctx, "a-span-of-the-test")
	if !span.SpanContext().IsValid() {
		t.Error("a span has no trace id")
	}
	span.End()
	counter, err := otel.Meter("test").Int64Counter("a.counter.of.the.test")
	if err != nil {
		t.Fatal(err)
	}
	counter.Add(ctx, 1)
}

func TestExport(t *testing.T) {
	withoutExporters(t)
	for name, set := range map[string][]string{"nothing": nil, "everything": {"traces", "metrics"}, "traces only": {"traces"}} {
		t.Run(name, func(t *testing.T) {
			c := &collector{received: map[string][]byte{}}
			server := httptest.NewServer(c)
			defer server.Close()
			defer http.DefaultClient.CloseIdleConnections()
			switch name {
			case "everything":
				t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
			case "traces only":
				t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", server.URL+"/v1/traces")
			}
			started, log := start(t, "json")
			work(t.Context(), t)
			stop(t, started)

			c.mu.Lock()
			defer c.mu.Unlock()
			if len(c.received) != len(set) {
				t.Errorf("sent to %d endpoints, want %q; log: %s", len(c.received), set, log)
			}
			for _, signal := range set {
				needle := map[string]string{"traces": "a-span-of-the-test", "metrics": "a.counter.of.the.test"}[signal]
				got := c.received["/v1/"+signal]
				if !bytes.Contains(got, []byte(needle)) || !bytes.Contains(got, []byte("orders")) {
					t.Errorf("%s: %q does not name %s of orders", signal, got, needle)
				}
			}
		})
	}
}

func TestFailedExportIsLogged(t *testing.T) {
	withoutExporters(t)
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", server.URL+"/v1/traces")
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "100")
	started, log := start(t, "json")
	work(t.Context(), t)
	err := started.Stop(context.WithoutCancel(t.Context()))
	if err == nil && !strings.Contains(log.String(), "telemetry was not exported") {
		t.Errorf("the log does not report the failed export: %s", log)
	}
}

func TestPropagation(t *testing.T) {
	withoutExporters(t)
	started, _ := start(t, "json")
	defer stop(t, started)
	ctx, span := otel.Tracer("test").Start(t.Context(), "work")
	defer span.End()
	header := http.Header{}
	otel.GetTextMapPropagator().Inject(ctx, headerCarrier(header))
	if got := header.Get("Traceparent"); !strings.Contains(got, span.SpanContext().TraceID().String()) {
		t.Errorf("traceparent is %q", got)
	}
	again := otel.GetTextMapPropagator().Extract(t.Context(), headerCarrier(header))
	if got := trace.SpanContextFromContext(again).SpanID(); got != span.SpanContext().SpanID() {
		t.Errorf("extracted span %s", got)
	}
}

type headerCarrier http.Header

func (h headerCarrier) Get(key string) string { return http.Header(h).Get(key) }
func (h headerCarrier) Set(key, value string) { http.Header(h).Set(key, value) }
func (h headerCarrier) Keys() []string        { return nil }
