package e2e

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"waybill/tests/internal/program"
	"waybill/tests/internal/system"
)

// spans collects what the services export, as an OpenTelemetry collector would: the names of the spans of each trace, prefixed
// with the name of the service.
type spans struct {
	mu     sync.Mutex
	traces map[string][]string
}

func (s *spans) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.URL.Path != "/v1/traces" {
		return // metrics go the same way
	}
	var export collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(body, &export); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range export.GetResourceSpans() {
		service := ""
		for _, attribute := range resource.GetResource().GetAttributes() {
			if attribute.GetKey() == "service.name" {
				service = attribute.GetValue().GetStringValue()
			}
		}
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				trace := string(span.GetTraceId())
				s.traces[trace] = append(s.traces[trace], service+": "+span.GetName())
			}
		}
	}
}

// of returns the trace that has a span with the name, or nil.
func (s *spans) of(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, trace := range s.traces {
		if slices.Contains(trace, name) {
			return slices.Clone(trace)
		}
	}
	return nil
}

// One order is one trace, from its request through every event and every step of its saga to its end.
func TestAnOrderIsOneTrace(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	collected := &spans{traces: map[string][]string{}}
	server := httptest.NewServer(collected)
	t.Cleanup(server.Close)
	out := &program.Tail{}
	s, err := system.Start(ctx, runner, t.TempDir(), out, "OTEL_EXPORTER_OTLP_ENDPOINT="+server.URL, "OTEL_BSP_SCHEDULE_DELAY=100")
	if err != nil {
		t.Fatalf("%v\nthe runner said:\n%s", err, out)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	setStock(t, s, "PROD-TRACE", 1)
	id, err := place(ctx, s, "trace-1", orderBody("CUST-TRACE", 10, line("PROD-TRACE", 1, 10)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := await(ctx, s, id, "fulfilled"); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"orders: POST /v1/orders", "orders: process Order.Created", "fulfillment: process Order.Confirmed",
		"fulfillment: ValidatePayment", "fulfillment: ReserveInventory", "fulfillment: ProcessShipment",
		"fulfillment: UpdateOrderStatus", "orders: process Fulfillment.StepCompleted", "orders: process Fulfillment.Completed",
	}
	var missing []string
	for {
		trace := collected.of(want[0])
		missing = slices.DeleteFunc(slices.Clone(want), func(name string) bool { return slices.Contains(trace, name) })
		if len(missing) == 0 {
			return
		}
		if !wait(ctx, 50*time.Millisecond) {
			t.Fatalf("the trace of the order misses %q; it has %q", missing, trace)
		}
	}
}
