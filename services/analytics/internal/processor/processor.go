// Package processor processes analytics events: it stores each event once, counts it in the windows of this process, and
// publishes an alert for each anomaly that it shows. It also rebuilds the windows after a restart, reads what other replicas
// stored, and writes the windows to the store as time series. It knows neither the bus nor HTTP.
package processor

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	otelmetric "go.opentelemetry.io/otel/metric"

	"waybill/platform/health"
	"waybill/platform/retryable"
	"waybill/services/analytics/internal/anomaly"
	"waybill/services/analytics/internal/event"
	"waybill/services/analytics/internal/metric"
	"waybill/services/analytics/internal/pipeline"
	"waybill/services/analytics/internal/store"
)

// Options configure a Processor.
type Options struct {
	Store    store.Store
	Pipeline pipeline.Config
	// PublishAlerts publishes anomalies. It may get the same anomaly more than once.
	PublishAlerts func(ctx context.Context, found []anomaly.Anomaly) error
	// MaxAhead is how far in the future the time of an event may be when the event arrives.
	MaxAhead time.Duration
	// Rebuild is how far back the process reads the store at its start, to rebuild the windows and the purchase histories.
	Rebuild time.Duration
	// Record is how often windows are written to the store as points of a series: a divisor of an hour.
	Record time.Duration
	// Follow is how often the process reads what other replicas stored; 0 if there are none.
	Follow time.Duration
	// Keep is how long rows are kept, if the store does not remove them itself.
	Keep   Keep
	Logger *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Keep is how long rows are kept.
type Keep struct{ Events, Metrics, Anomalies time.Duration }

// Processor processes events. It is safe for concurrent use.
type Processor struct {
	options Options
	ready   chan struct{}
	// publishing is a semaphore of one: a single goroutine publishes alerts at a time.
	publishing chan struct{}

	mu      sync.Mutex // guards the fields below
	windows *pipeline.Pipeline
	// pending are anomalies whose alerts are not published yet.
	pending []anomaly.Anomaly
	// unsure are the keys of events whose Append failed: they may be stored without being counted. If the store later reports
	// such an event as known, it still has to be counted.
	unsure   map[string]struct{}
	watchers map[chan anomaly.Anomaly]struct{}
}

// New makes a Processor. Process waits until Run has rebuilt the windows.
func New(o Options) (*Processor, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	windows, err := pipeline.New(o.Pipeline)
	if err != nil {
		return nil, err
	}
	if o.MaxAhead > o.Pipeline.Lateness {
		return nil, fmt.Errorf("MaxAhead must not be more than the lateness %v, got %v: an event from the future would drop the current windows", o.Pipeline.Lateness, o.MaxAhead)
	}
	if least := metric.Hour.Length() + o.Pipeline.Lateness; o.Rebuild < least {
		return nil, fmt.Errorf("the rebuild must be at least %v, the longest window and the lateness, got %v", least, o.Rebuild)
	}
	p := &Processor{
		options: o, ready: make(chan struct{}), publishing: make(chan struct{}, 1), windows: windows,
		unsure: map[string]struct{}{}, watchers: map[chan anomaly.Anomaly]struct{}{},
	}
	return p, p.instrument(otel.Meter("waybill/services/analytics"))
}

func (p *Processor) instrument(meter otelmetric.Meter) error {
	for _, g := range []struct {
		name, description string
		value             func(pipeline.Stats) int64
	}{
		{"waybill.analytics.late", "Events that are stored and came too late for the windows.", func(s pipeline.Stats) int64 { return int64(s.Late) }}, //nolint:gosec // a count
		{"waybill.analytics.products", "Products with windows.", func(s pipeline.Stats) int64 { return int64(s.Products) }},
		{"waybill.analytics.sessions", "Sessions with windows.", func(s pipeline.Stats) int64 { return int64(s.Sessions) }},
		{"waybill.analytics.evicted_products", "Products whose windows were evicted to make room for others.", func(s pipeline.Stats) int64 { return int64(s.EvictedProducts) }}, //nolint:gosec // a count
		{"waybill.analytics.evicted_sessions", "Sessions whose windows were evicted to make room for others.", func(s pipeline.Stats) int64 { return int64(s.EvictedSessions) }}, //nolint:gosec // a count
	} {
		if _, err := meter.Int64ObservableGauge(g.name, otelmetric.WithDescription(g.description),
			otelmetric.WithInt64Callback(func(_ context.Context, o otelmetric.Int64Observer) error { o.Observe(g.value(p.Stats())); return nil })); err != nil {
			return fmt.Errorf("create the gauge %s: %w", g.name, err)
		}
	}
	return nil
}

// errNotReady is the error of Process until the windows are rebuilt.
var errNotReady = retryable.New("the windows are being rebuilt from the store")

// Ready returns an error until the windows are rebuilt.
func (p *Processor) Ready(context.Context) error {
	select {
	case <-p.ready:
		return nil
	default:
		return health.Explain(errNotReady, errNotReady.Error())
	}
}

// Outcome is how many events of a batch were new, were known before, or could not be stored.
type Outcome struct{ New, Known, Unstored int }

// Process stores the events, counts the new ones in the windows, and publishes alerts for what is unusual about them. It is
// idempotent: after an error, or after a success that got lost, the caller processes the same events again. It overwrites
// the slice.
func (p *Processor) Process(ctx context.Context, events []event.Event) (Outcome, error) {
	select {
	case <-p.ready:
	case <-ctx.Done():
		return Outcome{}, errNotReady
	}
	// Alerts that failed before come first. While they fail, no events are counted, so pending does not grow.
	if err := p.publishAlerts(ctx); err != nil || len(events) == 0 {
		return Outcome{}, err
	}
	isNew, err := p.store(ctx, events)
	if err != nil {
		return Outcome{Unstored: len(events)}, err
	}
	return p.count(events, isNew), p.publishAlerts(ctx)
}

// store stores the events and reports for each whether it is new.
func (p *Processor) store(ctx context.Context, events []event.Event) (isNew []bool, err error) {
	now := p.options.Now().UTC()
	rows := make([]store.Event, len(events))
	for i := range events {
		rows[i] = p.row(&events[i], now)
	}
	if isNew, err = p.options.Store.Append(ctx, rows); err != nil {
		p.addUnsure(rows)
		return nil, fmt.Errorf("store %d events: %w", len(rows), store.Failed(err))
	}
	return isNew, nil
}

func (p *Processor) row(e *event.Event, now time.Time) store.Event {
	r := e.Record(p.options.Pipeline.Currency)
	return store.Event{
		ID: r.ID, Type: r.Type, Timestamp: r.At, UserID: r.User, SessionID: r.Session, ProductID: r.Product, Value: r.Value,
		Properties: json.RawMessage(r.Properties), ProcessedAt: now,
	}
}

// maxUnsure bounds the keys that are remembered while the store fails. The bus delivers a failed batch again before it
// delivers other events of the partition, so there are no more keys than in one batch of each partition.
const maxUnsure = 100_000

func (p *Processor) addUnsure(rows []store.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range rows {
		if len(p.unsure) < maxUnsure {
			p.unsure[rows[i].ID] = struct{}{}
		}
	}
}

// count counts the events that are new to the store, and those whose Append failed before. It overwrites events.
func (p *Processor) count(events []event.Event, isNew []bool) (o Outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	uncounted := events[:0]
	for i := range events {
		_, unsure := p.unsure[events[i].Key()]
		if unsure {
			delete(p.unsure, events[i].Key())
		}
		if isNew[i] {
			o.New++
		} else {
			o.Known++
		}
		if isNew[i] || unsure {
			uncounted = append(uncounted, events[i])
		}
	}
	p.add(uncounted)
	return o
}

// add counts events in the windows and shows the anomalies that it finds to the watchers. The caller holds p.mu.
func (p *Processor) add(events []event.Event) {
	known := len(p.pending)
	p.pending = p.windows.AddAll(events, p.pending)
	for _, a := range p.pending[known:] {
		p.show(a)
	}
}
