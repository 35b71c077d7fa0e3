// Package processor processes analytics events: it stores each event once, counts it in the windows of this process, and
// publishes an alert for each anomaly that it shows. It also rebuilds the windows after a restart, reads what other replicas
// stored, and writes the windows to the store as time series. It knows neither the bus nor HTTP.
package processor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	otelmetric "go.opentelemetry.io/otel/metric"

	"waybill/platform/eventing"
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
		return nil, fmt.Errorf("Rebuild must be at least %v, the longest window and the lateness, got %v", least, o.Rebuild)
	}
	p := &Processor{
		options: o, ready: make(chan struct{}), publishing: make(chan struct{}, 1), windows: windows,
		unsure: map[string]struct{}{}, watchers: map[chan anomaly.Anomaly]struct{}{},
	}
	return p, p.instrument(otel.Meter("waybill/services/analytics"))
}

func (s *Stream) instrument(meter otelmetric.Meter) (err error) {
	if s.taken, err = meter.Int64Counter("waybill.analytics.events", otelmetric.WithDescription("Events taken from the bus, by outcome: new, known, rejected, unstored.")); err != nil {
		return fmt.Errorf("count events: %w", err)
	}
	for _, g := range []struct {
		name, says string
		of         func(pipeline.Stats) int64
	}{
		{"waybill.analytics.late", "Events stored that came too late for the windows.", func(p pipeline.Stats) int64 { return int64(p.Late) }}, //nolint:gosec // a count
		{"waybill.analytics.products", "Products with windows.", func(p pipeline.Stats) int64 { return int64(p.Products) }},
		{"waybill.analytics.sessions", "Sessions with windows.", func(p pipeline.Stats) int64 { return int64(p.Sessions) }},
		{"waybill.analytics.evicted_products", "Products whose windows made room for others.", func(p pipeline.Stats) int64 { return int64(p.EvictedProducts) }}, //nolint:gosec // a count
		{"waybill.analytics.evicted_sessions", "Sessions whose windows made room for others.", func(p pipeline.Stats) int64 { return int64(p.EvictedSessions) }}, //nolint:gosec // a count
	} {
		if _, err = meter.Int64ObservableGauge(g.name, otelmetric.WithDescription(g.says),
			otelmetric.WithInt64Callback(func(_ context.Context, o otelmetric.Int64Observer) error { o.Observe(g.of(s.Stats())); return nil })); err != nil {
			return fmt.Errorf("measure the windows: %w", err)
		}
	}
	return nil
}

// errNotReady is why nothing is taken before the windows are made.
var errNotReady = retryable.New("the windows are being made from the store")

// Ready reports, as an error, that the windows are not made yet.
func (s *Stream) Ready(context.Context) error {
	select {
	case <-s.ready:
		return nil
	default:
		return health.Explain(errNotReady, errNotReady.Error())
	}
}

// Handle takes events that were delivered together. An event is done when it is stored and counted, and what it showed is
// announced. One that can never be counted is rejected; the others beside it count.
func (s *Stream) Handle(ctx context.Context, delivered []eventing.Event) []error {
	errs := make([]error, len(delivered))
	select {
	case <-s.ready:
	case <-ctx.Done():
		return all(errs, errNotReady)
	}
	// First what could not be announced before: while that lasts nothing more is found.
	if err := s.announce(ctx); err != nil {
		return all(errs, err)
	}
	now := s.options.Now().UTC()
	events, rows, index := make([]event.Event, 0, len(delivered)), make([]store.Event, 0, len(delivered)), make([]int, 0, len(delivered))
	for i := range delivered {
		e, row, err := s.read(&delivered[i], now)
		if err != nil {
			errs[i] = eventing.Reject(err)
			continue
		}
		events, rows, index = append(events, e), append(rows, row), append(index, i)
	}
	s.count(ctx, "rejected", len(delivered)-len(events))
	err := s.take(ctx, events, rows)
	if err == nil {
		err = s.announce(ctx)
	}
	if err != nil {
		for _, i := range index {
			errs[i] = err
		}
	}
	return errs
}

func all(errs []error, err error) []error {
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// read checks an event and makes the row that is stored of it.
func (s *Stream) read(delivered *eventing.Event, now time.Time) (event.Event, store.Event, error) {
	// What is on the bus was let in once; times without a zone and missing ids come from other publishers.
	e, err := event.Decode(delivered.DataText(), event.Rules{
		Type: delivered.Type, Source: delivered.Source, Delivered: true, Now: now, MaxAhead: s.options.MaxAhead, NaiveIsUTC: true, DeriveID: true,
	})
	if err != nil {
		return event.Event{}, store.Event{}, err
	}
	r := e.Record(s.options.Pipeline.Currency)
	row := store.Event{
		ID: r.ID, Type: r.Type, Timestamp: r.At, UserID: r.User, SessionID: r.Session, ProductID: r.Product, Value: r.Value,
		Properties: json.RawMessage(r.Properties), ProcessedAt: now,
	}
	return e, row, row.Check()
}

// take stores the events and counts the new ones. It uses the events' own place for those.
func (s *Stream) take(ctx context.Context, events []event.Event, rows []store.Event) error {
	if len(rows) == 0 {
		return nil
	}
	fresh, err := s.options.Store.Append(ctx, rows)
	if err != nil {
		s.notSure(rows)
		s.count(ctx, "unstored", len(rows))
		return fmt.Errorf("store %d events: %w", len(rows), store.Failed(err))
	}
	added, uncounted := 0, events[:0]
	s.mu.Lock()
	for i := range events {
		_, unsure := s.unsure[events[i].Key()]
		if unsure {
			delete(s.unsure, events[i].Key())
		}
		if fresh[i] {
			added++
		}
		if fresh[i] || unsure {
			uncounted = append(uncounted, events[i])
		}
	}
	s.add(uncounted)
	s.mu.Unlock()
	s.count(ctx, "new", added)
	s.count(ctx, "known", len(rows)-added)
	return nil
}

// maxUnsure bounds how many ids are remembered while the store fails. The events of one delivery come again before others
// of their partition, so there are not more than the partitions' batches.
const maxUnsure = 100_000

func (s *Stream) notSure(rows []store.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range rows {
		if len(s.unsure) < maxUnsure {
			s.unsure[rows[i].ID] = struct{}{}
		}
	}
}

// add counts events; s.mu is held.
func (s *Stream) add(events []event.Event) {
	before := len(s.pending)
	s.pending = s.windows.AddAll(events, s.pending)
	for _, a := range s.pending[before:] {
		s.show(a)
	}
}

func (s *Stream) count(ctx context.Context, outcome string, n int) {
	if n > 0 {
		s.taken.Add(ctx, int64(n), otelmetric.WithAttributes(attribute.String("outcome", outcome)))
	}
}

// announce stores and publishes what was found. Both may be done twice: the ids follow from what was found.
func (s *Stream) announce(ctx context.Context) error {
	s.mu.Lock()
	waiting := len(s.pending) > 0
	s.mu.Unlock()
	if !waiting {
		return nil
	}
	select {
	case s.announcing <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("announce anomalies: %w", eventing.Retry(context.Cause(ctx))) // another delivery is at it
	}
	defer func() { <-s.announcing }()
	s.mu.Lock()
	found := slices.Clone(s.pending)
	s.mu.Unlock()
	if len(found) == 0 {
		return nil
	}
	err := s.announceAll(ctx, found)
	if err != nil && !retryable.Is(err) {
		err = s.announceEach(ctx, found)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.pending = slices.Clone(s.pending[len(found):])
	s.mu.Unlock()
	return nil
}

// announceEach announces what was found one by one, and drops what never can be: no event is to blame for it, and none may
// wait for it.
func (s *Stream) announceEach(ctx context.Context, found []anomaly.Anomaly) error {
	for i := range found {
		err := s.announceAll(ctx, found[i:i+1])
		switch {
		case err == nil:
		case retryable.Is(err):
			return err
		default:
			s.options.Logger.ErrorContext(ctx, "anomaly cannot be announced and is dropped", slog.String("anomaly_id", found[i].ID), slog.Any("error", err))
		}
	}
	return nil
}

func (s *Stream) announceAll(ctx context.Context, found []anomaly.Anomaly) error {
	now := s.options.Now()
	rows := make([]store.Anomaly, len(found))
	for i, a := range found {
		rows[i] = store.Anomaly{
			ID: a.ID, Type: a.Kind, ProductID: a.Product, Expected: a.Expected, Seen: a.Seen, Score: a.Score, Sentence: a.Sentence,
			Timestamp: a.At, UpdatedAt: now,
		}
	}
	if err := s.options.Store.PutAnomalies(ctx, rows); err != nil {
		return fmt.Errorf("store %d anomalies: %w", len(rows), store.Failed(err))
	}
	if err := s.options.Announce(ctx, found); err != nil {
		return fmt.Errorf("announce %d anomalies: %w", len(found), err)
	}
	return nil
}

// Statistics are those of a metric in the window that ends now. They are all zero when nothing happened in it.
func (s *Stream) Statistics(name string, w metric.Window) metric.Statistics {
	at := s.options.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	stats, ok := s.windows.Statistics(name, w, at)
	if !ok {
		stats.Name, stats.Window = name, w
		stats.From, stats.To = w.Bounds(at)
	}
	return stats
}

// all yields every metric, as pipeline.Pipeline.All; s.mu is held.
func (s *Stream) all(w metric.Window, at time.Time) iter.Seq[metric.Statistics] {
	return s.windows.All(w, at)
}

// Stats are the figures of the windows themselves.
func (s *Stream) Stats() pipeline.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.windows.Stats()
}

// watched is how many anomalies a watcher may be behind before it misses some.
const watched = 64

// Watch returns a channel of the anomalies that are found from now on; stop ends it.
func (s *Stream) Watch() (found <-chan anomaly.Anomaly, stop func()) {
	ch := make(chan anomaly.Anomaly, watched)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[ch] = struct{}{}
	return ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, ch)
	}
}

// show tells the watchers; s.mu is held.
func (s *Stream) show(a anomaly.Anomaly) {
	for ch := range s.watchers {
		select {
		case ch <- a:
		default: // whoever is so far behind reads the list of anomalies instead
		}
	}
}
