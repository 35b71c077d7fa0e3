package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"waybill/platform/eventing"
)

// spans are those of every test in this package; a test finds its own by its context.
var spans = tracetest.NewInMemoryExporter()

func TestMain(m *testing.M) {
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)))
	goleak.VerifyTestMain(m)
}

// broker remembers batches, and answers what the test says.
type broker struct {
	mu      sync.Mutex
	batches [][]string
	at      []time.Time
	answer  func(ctx context.Context, n int) error
}

func (b *broker) publish(ctx context.Context, events []eventing.Event) error {
	b.mu.Lock()
	ids := make([]string, len(events))
	for i := range events {
		ids[i] = events[i].ID
	}
	b.batches, b.at = append(b.batches, ids), append(b.at, time.Now())
	n, answer := len(b.batches), b.answer
	b.mu.Unlock()
	if answer == nil {
		return nil
	}
	return answer(ctx, n)
}

func (b *broker) ids() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Concat(b.batches...)
}

func start(t *testing.T, o Options) *Buffer {
	t.Helper()
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { b.Run(t.Context()) })
	t.Cleanup(func() { b.Close(); running.Wait() })
	return b
}

func some(from, n int, key string) []eventing.Event {
	events := make([]eventing.Event, n)
	for i := range events {
		events[i] = eventing.Event{ID: fmt.Sprintf("e%d", from+i), Key: key, Data: []byte(`{}`)}
	}
	return events
}

func TestBatchesGoByIntervalAndBySize(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var to broker
		b := start(t, Options{Publish: to.publish, BatchSize: 100, Interval: 20 * time.Millisecond, Lanes: 1, MaxEvents: 1000, MaxBytes: 1 << 20})
		begun := time.Now()
		if err := b.Add(t.Context(), some(0, 3, "S")); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != 20*time.Millisecond || len(to.batches) != 1 || len(to.batches[0]) != 3 {
			t.Errorf("a few events: %v in batches %v, want one after the interval", took, to.batches)
		}
		begun = time.Now()
		if err := b.Add(t.Context(), some(3, 200, "S")); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != 0 || len(to.batches) != 3 || len(to.batches[1]) != 100 || len(to.batches[2]) != 100 {
			t.Errorf("many events: after %v, %d batches, want two at once", took, len(to.batches)-1)
		}
		if b.Depth() != 0 || b.bytes.Load() != 0 {
			t.Errorf("%d events, %d bytes are left", b.Depth(), b.bytes.Load())
		}
	})
}

func TestAddReturnsWhenTheBrokerHasAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		to := broker{answer: func(_ context.Context, n int) error {
			if n == 2 {
				<-let
			}
			return nil
		}}
		b := start(t, Options{Publish: to.publish, BatchSize: 10, Interval: time.Millisecond, Lanes: 1, MaxEvents: 100, MaxBytes: 1 << 20})
		done := make(chan error, 1)
		go func() { done <- b.Add(t.Context(), some(0, 15, "S")) }() // owned: the test reads done
		time.Sleep(time.Minute)                                      // of the bubble's time
		select {
		case err := <-done:
			t.Fatalf("ended with %v before the broker had the last batch", err)
		default:
		}
		close(let)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestAFullBufferRefusesAtOnceAndWhole(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		to := broker{answer: func(context.Context, int) error { <-let; return nil }}
		b := start(t, Options{Publish: to.publish, BatchSize: 5, Interval: time.Millisecond, Lanes: 1, MaxEvents: 10, MaxBytes: 1 << 20})
		first := make(chan error, 1)
		go func() { first <- b.Add(t.Context(), some(0, 8, "S")) }() // owned: the test reads first
		synctest.Wait()
		if err := b.Add(t.Context(), some(8, 3, "S")); !errors.Is(err, ErrFull) {
			t.Errorf("3 events into room for 2: %v, want ErrFull", err)
		}
		second := make(chan error, 1)
		go func() { second <- b.Add(t.Context(), some(11, 2, "S")) }() // owned: the test reads second
		synctest.Wait()
		if b.Depth() != 10 {
			t.Errorf("the depth is %d, want 10", b.Depth())
		}
		close(let)
		if err := errors.Join(<-first, <-second); err != nil {
			t.Error(err)
		}
		if got := to.ids(); len(got) != 10 || slices.Contains(got, "e8") {
			t.Errorf("published %v, want what was not refused", got)
		}
		if err := b.Add(t.Context(), some(20, 1, "S")); err != nil {
			t.Errorf("with room again: %v", err)
		}
	})
}

func TestBytesAreBounded(t *testing.T) {
	t.Parallel()
	var to broker
	b := start(t, Options{Publish: to.publish, BatchSize: 5, Interval: time.Millisecond, Lanes: 2, MaxEvents: 10, MaxBytes: 1000})
	large := eventing.Event{ID: "large", Data: make([]byte, 1000)}
	if err := b.Add(t.Context(), []eventing.Event{large}); !errors.Is(err, ErrFull) || b.Depth() != 0 {
		t.Errorf("%v, depth %d, want ErrFull", err, b.Depth())
	}
}

func TestAFailedBatchFailsItsCallersOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		away := errors.New("away")
		to := broker{answer: func(_ context.Context, n int) error {
			if n == 1 {
				return away
			}
			return nil
		}}
		b := start(t, Options{Publish: to.publish, BatchSize: 2, Interval: time.Millisecond, Lanes: 1, MaxEvents: 10, MaxBytes: 1 << 20})
		if err := b.Add(t.Context(), some(0, 4, "S")); !errors.Is(err, away) {
			t.Errorf("a call with a failed batch: %v", err)
		}
		if err := b.Add(t.Context(), some(4, 4, "S")); err != nil {
			t.Errorf("the next call: %v", err)
		}
	})
}

func TestKeysKeepTheirOrder(t *testing.T) {
	t.Parallel()
	var to broker
	b := start(t, Options{Publish: to.publish, BatchSize: 7, Interval: time.Millisecond, Lanes: 4, MaxEvents: 1000, MaxBytes: 1 << 20})
	events := make([]eventing.Event, 500)
	for i := range events {
		events[i] = eventing.Event{ID: fmt.Sprintf("S%d:%03d", i%5, i), Key: fmt.Sprintf("S%d", i%5)}
	}
	if err := b.Add(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	last := map[string]string{}
	for _, id := range to.ids() {
		key := id[:2]
		if id <= last[key] {
			t.Fatalf("%s came after %s", id, last[key])
		}
		last[key] = id
	}
}

func TestWhoGivesUpIsNotPublished(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var to broker
		b := start(t, Options{Publish: to.publish, BatchSize: 10, Interval: time.Second, Lanes: 1, MaxEvents: 10, MaxBytes: 1 << 20})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := b.Add(ctx, some(0, 1, "S")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if err := b.Add(t.Context(), some(1, 1, "S")); err != nil {
			t.Error(err)
		}
		if got := to.ids(); len(got) != 1 || got[0] != "e1" {
			t.Errorf("published %v, want e1", got)
		}
	})
}

func TestCloseSettlesWhatWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var to broker
		b := start(t, Options{Publish: to.publish, BatchSize: 10, Interval: time.Hour, Lanes: 3, MaxEvents: 10, MaxBytes: 1 << 20})
		done := make(chan error, 1)
		go func() { done <- b.Add(t.Context(), some(0, 3, "S")) }() // owned: the test reads done
		synctest.Wait()
		b.Close()
		if err := <-done; err != nil || len(to.ids()) != 3 {
			t.Errorf("%v, published %v", err, to.ids())
		}
		if err := b.Add(t.Context(), some(3, 1, "S")); !errors.Is(err, ErrClosed) {
			t.Errorf("a closed buffer: %v", err)
		}
	})
}

// A batch of one request is in the trace of that request; one of several has a trace of its own, which links to theirs.
func TestABatchIsTraced(t *testing.T) {
	t.Parallel()
	var within []trace.SpanContext
	publish := func(ctx context.Context, _ []eventing.Event) error {
		within = append(within, trace.SpanContextFromContext(ctx))
		return nil
	}
	b := start(t, Options{Publish: publish, BatchSize: 4, Interval: time.Hour, Lanes: 1, MaxEvents: 10, MaxBytes: 1 << 20})
	first, endFirst := otel.Tracer("test").Start(t.Context(), "first")
	second, endSecond := otel.Tracer("test").Start(t.Context(), "second")
	defer endFirst.End()
	defer endSecond.End()
	if err := b.Add(first, some(0, 4, "")); err != nil {
		t.Fatal(err)
	}
	var calls sync.WaitGroup
	for i, ctx := range []context.Context{first, second} {
		calls.Go(func() {
			if err := b.Add(ctx, some(4+2*i, 2, "")); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if len(within) != 2 || within[0].TraceID() != endFirst.SpanContext().TraceID() || within[1].TraceID() == endFirst.SpanContext().TraceID() ||
		within[1].TraceID() == endSecond.SpanContext().TraceID() {
		t.Fatalf("published in the traces %v", within)
	}
	for _, span := range spans.GetSpans() {
		if span.SpanContext.SpanID() == within[1].SpanID() && len(span.Links) != 2 {
			t.Errorf("the batch of two requests links to %v", span.Links)
		}
	}
}
