// Package bulkhead bounds the calls to one partner that are under way, so that a partner that is slow or does not answer takes
// nothing from the others (docs/adr/0029). It does not know what is called.
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

// startWait is how long a call that starts something waits for its turn. Its step then answers that the service is busy, and comes
// again.
const startWait = 3 * time.Second

// Bulkhead is the limit of one partner. It may be used by many goroutines.
type Bulkhead struct {
	partner string
	// starting and undoing hold something for each call under way. What is undone has places of its own, so that what is
	// started never keeps it waiting.
	starting, undoing chan struct{}
	busy              metric.Int64Counter
}

// New returns a Bulkhead that has at most so many calls under way that start something, and as many that undo.
func New(name string, calls int) (*Bulkhead, error) {
	b := &Bulkhead{partner: name, starting: make(chan struct{}, calls), undoing: make(chan struct{}, calls)}
	meter := otel.Meter("waybill/services/fulfillment")
	var err error
	if b.busy, err = meter.Int64Counter("waybill.fulfillment.partner.busy",
		metric.WithDescription("Calls to a partner that got no turn and are made later, by partner and kind: start, undo.")); err != nil {
		return nil, fmt.Errorf("measure the calls of partner %s: %w", name, err)
	}
	if _, err = meter.Int64ObservableGauge("waybill.fulfillment.partner.calls",
		metric.WithDescription("Calls to a partner that are under way, by partner and kind: start, undo."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(int64(len(b.starting)), b.attributes("start"))
			o.Observe(int64(len(b.undoing)), b.attributes("undo"))
			return nil
		})); err != nil {
		return nil, fmt.Errorf("measure the calls of partner %s: %w", name, err)
	}
	return b, nil
}

func (b *Bulkhead) attributes(kind string) metric.MeasurementOption {
	return metric.WithAttributes(attribute.String("partner", b.partner), attribute.String("kind", kind))
}

// Start makes a call that starts something, when it is its turn. The error is a partner.ErrBusy when that takes too long; the
// partner was not called then.
func (b *Bulkhead) Start(ctx context.Context, call func(ctx context.Context) error) error {
	waiting, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	return b.do(ctx, waiting, b.starting, "start", call)
}

// Undo makes a call that undoes something, when it is its turn, for which it waits as long as ctx lasts.
func (b *Bulkhead) Undo(ctx context.Context, call func(ctx context.Context) error) error {
	return b.do(ctx, ctx, b.undoing, "undo", call)
}

func (b *Bulkhead) do(ctx, waiting context.Context, places chan struct{}, kind string, call func(ctx context.Context) error) error {
	select {
	case places <- struct{}{}:
	case <-waiting.Done():
		b.busy.Add(ctx, 1, b.attributes(kind))
		return fmt.Errorf("call partner %s (%d calls are under way): %w", b.partner, cap(places), partner.ErrBusy)
	}
	defer func() { <-places }()
	return call(ctx)
}
