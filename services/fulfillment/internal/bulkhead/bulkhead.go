// Package bulkhead limits the concurrent calls to each partner, so that a slow partner does not use up the calls of the others
// (docs/adr/0029).
package bulkhead

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"waybill/services/fulfillment/internal/partner"
)

// startTimeout is how long a call that starts something waits for a free slot. After that its step answers that the service is busy,
// and runs again later.
const startTimeout = 3 * time.Second

// Bulkhead is the concurrency limit of one partner. It is safe for concurrent use.
type Bulkhead struct {
	partner string
	// starting and undoing have an element for each call in progress. Compensations have slots of their own, so that calls that start
	// something never delay them.
	starting, undoing chan struct{}
	busy              metric.Int64Counter
}

// New returns a Bulkhead that allows n concurrent calls that start something, and n concurrent compensations.
func New(name string, n int) (*Bulkhead, error) {
	b := &Bulkhead{partner: name, starting: make(chan struct{}, n), undoing: make(chan struct{}, n)}
	meter := otel.Meter("waybill/services/fulfillment")
	var err error
	if b.busy, err = meter.Int64Counter("waybill.fulfillment.partner.busy",
		metric.WithDescription("Calls to a partner that found no free slot and are made later, by partner and kind: start, undo.")); err != nil {
		return nil, fmt.Errorf("measure calls of partner %s: %w", name, err)
	}
	if _, err = meter.Int64ObservableGauge("waybill.fulfillment.partner.calls",
		metric.WithDescription("Calls to a partner in progress, by partner and kind: start, undo."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(int64(len(b.starting)), b.attributes("start"))
			o.Observe(int64(len(b.undoing)), b.attributes("undo"))
			return nil
		})); err != nil {
		return nil, fmt.Errorf("measure calls of partner %s: %w", name, err)
	}
	return b, nil
}

func (b *Bulkhead) attributes(kind string) metric.MeasurementOption {
	return metric.WithAttributes(attribute.String("partner", b.partner), attribute.String("kind", kind))
}

// Start makes a call that starts something once a slot is free. If that takes too long the error is partner.ErrBusy, and the partner was
// not called.
func (b *Bulkhead) Start(ctx context.Context, call func(ctx context.Context) error) error {
	waiting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return b.do(ctx, waiting, b.starting, "start", call)
}

// Undo makes a compensating call once a slot is free. It waits until ctx ends.
func (b *Bulkhead) Undo(ctx context.Context, call func(ctx context.Context) error) error {
	return b.do(ctx, ctx, b.undoing, "undo", call)
}

func (b *Bulkhead) do(ctx, waiting context.Context, slots chan struct{}, kind string, call func(ctx context.Context) error) error {
	select {
	case slots <- struct{}{}:
	case <-waiting.Done():
		b.busy.Add(ctx, 1, b.attributes(kind))
		return fmt.Errorf("call partner %s: all %d slots are in use: %w", b.partner, cap(slots), partner.ErrBusy)
	}
	defer func() { <-slots }()
	return call(ctx)
}
