// Package ingest accepts events from many callers and publishes them in batches. It owns the buffer between the two: how much it
// holds, when a batch is published, and that no caller gets a success before the broker has its events. It does not know what the
// events mean.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"waybill/platform/eventing"
	"waybill/platform/retryable"
)

var (
	// ErrFull means that the buffer has no room for the events now. It accepted none of them.
	ErrFull = retryable.New("the buffer is full")
	// ErrClosed means that the buffer is closed. It accepted none of the events.
	ErrClosed = retryable.New("the buffer is closed")
)

// Options configure a Buffer.
type Options struct {
	// Publish returns when the broker has the events. It retries; its error is returned to every caller with an event in the
	// batch.
	Publish func(ctx context.Context, events []eventing.Event) error
	// BatchSize is the number of events of a full batch, which is published at once. Interval is how long the first event of a
	// batch waits for others.
	BatchSize int
	Interval  time.Duration
	// Lanes is the number of batches that are published at the same time. The events of one key share a lane, so they keep their
	// order.
	Lanes int
	// MaxEvents and MaxBytes bound the buffered events, including those that are being published.
	MaxEvents, MaxBytes int
}

// Buffer collects the events of many callers for the broker. It is safe for concurrent use.
type Buffer struct {
	options Options
	seed    maphash.Seed
	lanes   []chan entry

	mu            sync.RWMutex // orders closing the lanes after the last send
	closed        bool
	events, bytes atomic.Int64

	sizes                    metric.Int64Histogram
	batches, failed, refused metric.Int64Counter
}

// entry is one event of one call.
type entry struct {
	event eventing.Event
	call  *call
}

// call is one call of Add.
type call struct {
	// span is the trace of the caller.
	span      trace.SpanContext
	abandoned atomic.Bool
	mu        sync.Mutex
	left      int
	err       error
	done      chan struct{}
}

func (c *call) settle(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.err = err
	}
	if c.left--; c.left == 0 {
		close(c.done)
	}
}

// New makes a Buffer. Nothing is published until Run.
func New(o Options) (*Buffer, error) {
	if o.Publish == nil || o.BatchSize < 1 || o.Interval <= 0 || o.Lanes < 1 || o.MaxEvents < o.BatchSize || o.MaxBytes < 1 {
		return nil, errors.New("a buffer publishes batches of at least one event, after an interval, in at least one lane, and holds at least a batch")
	}
	b := &Buffer{options: o, seed: maphash.MakeSeed(), lanes: make([]chan entry, o.Lanes)}
	for i := range b.lanes {
		// There is room for everything that was admitted, so no send blocks.
		b.lanes[i] = make(chan entry, o.MaxEvents)
	}
	return b, b.instrument(otel.Meter("waybill/services/analytics"))
}

func (b *Buffer) instrument(meter metric.Meter) (err error) {
	if b.sizes, err = meter.Int64Histogram("waybill.analytics.ingest.batch_size", metric.WithDescription("Events in a batch handed to the broker."),
		metric.WithExplicitBucketBoundaries(1, 2, 5, 10, 20, 50, 100, 200, 500)); err != nil {
		return fmt.Errorf("measure batches: %w", err)
	}
	for _, c := range []struct {
		to         *metric.Int64Counter
		name, says string
	}{
		{&b.batches, "waybill.analytics.ingest.batches", "Batches that the broker took."},
		{&b.failed, "waybill.analytics.ingest.failed_batches", "Batches that the broker did not take after all retries."},
		{&b.refused, "waybill.analytics.ingest.refused", "Events refused because the buffer was full."},
	} {
		if *c.to, err = meter.Int64Counter(c.name, metric.WithDescription(c.says)); err != nil {
			return fmt.Errorf("measure batches: %w", err)
		}
	}
	for name, n := range map[string]*atomic.Int64{"waybill.analytics.ingest.depth": &b.events, "waybill.analytics.ingest.depth_bytes": &b.bytes} {
		if _, err = meter.Int64ObservableGauge(name, metric.WithDescription("What is buffered, with what is under way to the broker."),
			metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error { o.Observe(n.Load()); return nil })); err != nil {
			return fmt.Errorf("measure the buffer: %w", err)
		}
	}
	return nil
}

// Depth is the number of buffered events.
func (b *Buffer) Depth() int { return int(b.events.Load()) }

// Add returns nil when the broker has all the events. It returns ErrFull at once, and accepts none, if there is no room for all
// of them; otherwise the error of the batches with some of them, and then some may have arrived. If ctx ends first, those that
// are not being published yet are dropped.
func (b *Buffer) Add(ctx context.Context, events []eventing.Event) error {
	if len(events) == 0 {
		return nil
	}
	c := &call{span: trace.SpanContextFromContext(ctx), left: len(events), done: make(chan struct{})}
	if err := b.enqueue(ctx, events, c); err != nil {
		return err
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		c.abandoned.Store(true)
		return fmt.Errorf("wait for the broker: %w", retryable.Mark(context.Cause(ctx)))
	}
}

func (b *Buffer) enqueue(ctx context.Context, events []eventing.Event, c *call) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.closed {
		return ErrClosed
	}
	size := 0
	for i := range events {
		size += sizeOf(&events[i])
	}
	if !b.reserve(len(events), size) {
		b.refused.Add(ctx, int64(len(events)))
		return ErrFull
	}
	for _, e := range events {
		b.lanes[maphash.String(b.seed, e.Key)%uint64(len(b.lanes))] <- entry{e, c}
	}
	return nil
}

// reserve reserves room for all events or for none.
func (b *Buffer) reserve(events, size int) bool {
	full := b.events.Add(int64(events)) > int64(b.options.MaxEvents)
	if full = b.bytes.Add(int64(size)) > int64(b.options.MaxBytes) || full; full {
		b.events.Add(-int64(events))
		b.bytes.Add(-int64(size))
	}
	return !full
}

func sizeOf(e *eventing.Event) int {
	const envelope = 256
	return len(e.Data) + envelope
}

// Run publishes until the buffer is closed and empty, or the retries of the last batch are over.
func (b *Buffer) Run(ctx context.Context) {
	var lanes sync.WaitGroup
	for _, lane := range b.lanes {
		lanes.Go(func() { b.run(ctx, lane) })
	}
	lanes.Wait()
}

// Close makes Run return when the events of all waiting callers are published or have failed.
func (b *Buffer) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.closed = true
	for _, lane := range b.lanes {
		close(lane)
	}
}

func (b *Buffer) run(ctx context.Context, lane <-chan entry) {
	timer := time.NewTimer(b.options.Interval)
	defer timer.Stop()
	batch := make([]entry, 0, b.options.BatchSize)
	for first := range lane {
		batch = b.gather(append(batch[:0], first), lane, timer)
		b.publish(ctx, batch)
		clear(batch)
	}
}

// gather fills the batch until it is full or its time is over.
func (b *Buffer) gather(batch []entry, lane <-chan entry, timer *time.Timer) []entry {
	timer.Reset(b.options.Interval)
	for len(batch) < b.options.BatchSize {
		select {
		case e, ok := <-lane:
			if !ok {
				return batch
			}
			batch = append(batch, e)
		case <-timer.C:
			return batch
		}
	}
	return batch
}

func (b *Buffer) publish(ctx context.Context, batch []entry) {
	events := make([]eventing.Event, 0, len(batch))
	for i := range batch {
		// A caller that left got no success and sends its events again.
		if !batch[i].call.abandoned.Load() {
			events = append(events, batch[i].event)
		}
	}
	var err error
	if len(events) > 0 {
		if err = b.traced(ctx, batch, events); err != nil {
			b.failed.Add(ctx, 1)
		} else {
			b.batches.Add(ctx, 1)
			b.sizes.Record(ctx, int64(len(events)))
		}
	}
	for i := range batch {
		b.events.Add(-1)
		b.bytes.Add(-int64(sizeOf(&batch[i].event)))
		batch[i].call.settle(err)
	}
}

// maxLinks is how many links a span keeps (OpenTelemetry's own limit).
const maxLinks = 128

// traced publishes in a span. The span belongs to the trace of the one request in the batch, or links to the traces of all its
// requests.
func (b *Buffer) traced(ctx context.Context, batch []entry, events []eventing.Event) error {
	var links []trace.Link
	known := map[trace.SpanID]bool{}
	for i := range batch {
		if of := batch[i].call.span; of.IsValid() && !known[of.SpanID()] && len(links) < maxLinks {
			known[of.SpanID()] = true
			links = append(links, trace.Link{SpanContext: of})
		}
	}
	if len(links) == 1 {
		ctx, links = trace.ContextWithSpanContext(ctx, links[0].SpanContext), nil
	}
	ctx, span := otel.Tracer("waybill/services/analytics").Start(ctx, "publish a batch", trace.WithLinks(links...),
		trace.WithAttributes(attribute.Int("messaging.batch.message_count", len(events))))
	defer span.End()
	err := b.options.Publish(ctx, events)
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, "not published")
	}
	return err
}
