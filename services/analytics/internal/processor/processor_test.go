package processor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/services/analytics/internal/anomaly"
	"waybill/services/analytics/internal/event"
	"waybill/services/analytics/internal/metric"
	"waybill/services/analytics/internal/pipeline"
	"waybill/services/analytics/internal/store"
	"waybill/services/analytics/internal/store/sqlite"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
}

// start is when the tests' events happen: a whole minute.
var start = time.Date(2026, time.March, 14, 9, 26, 0, 0, time.UTC)

// world is one replica.
type world struct {
	*Processor

	t         *testing.T
	store     store.Store
	mu        sync.Mutex
	at        time.Time
	announced []string
	refuse    error
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

func (w *world) publishAlerts(_ context.Context, found []anomaly.Anomaly) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return w.refuse
	}
	for _, a := range found {
		w.announced = append(w.announced, a.ID)
	}
	return nil
}

func (w *world) told() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.announced...)
}

func open(t *testing.T, path string) store.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// replica starts a replica on a store, its windows made; change may alter its options.
func replica(t *testing.T, s store.Store, change func(*Options)) *world {
	t.Helper()
	w := &world{t: t, store: s, at: start.Add(30 * time.Second)}
	config := pipeline.DefaultConfig()
	config.Lateness = 5 * time.Minute
	o := Options{
		Store: s, Pipeline: config, PublishAlerts: w.publishAlerts, MaxAhead: time.Minute, Rebuild: 24 * time.Hour, Record: time.Minute,
		Logger: slog.New(slog.DiscardHandler), Now: w.now,
	}
	if change != nil {
		change(&o)
	}
	var err error
	if w.Processor, err = New(o); err != nil {
		t.Fatal(err)
	}
	if !w.rebuildUntilReady(t.Context()) {
		t.Fatal("the windows were not rebuilt")
	}
	return w
}

func view(id, product string, at time.Time) event.Event {
	return of(contracts.ProductViewed{EventID: id, SessionID: "S-1", ProductID: product, Timestamp: at})
}

func purchase(id, product string, value contracts.Amount, at time.Time) event.Event {
	return of(contracts.ProductPurchased{EventID: id, SessionID: "S-1", ProductID: product, Value: value, Timestamp: at})
}

// of is an event that a client sent.
func of(payload contracts.Payload) event.Event { return from(event.SourceClients, payload) }

// from is an event of a source.
func from(source string, payload contracts.Payload) event.Event {
	text, err := json.Marshal(payload)
	if err != nil {
		panic(err)
	}
	e, err := event.Decode(text, event.Rules{Type: payload.EventType(), Source: source})
	if err != nil {
		panic(err)
	}
	return e
}

// process gives the Processor a copy of the events, which it overwrites.
func (w *world) process(events ...event.Event) error {
	w.t.Helper()
	_, err := w.Process(w.t.Context(), slices.Clone(events))
	return err
}

func (w *world) done(events ...event.Event) {
	w.t.Helper()
	if err := w.process(events...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) counts(name string, want int64) {
	w.t.Helper()
	if got := w.Statistics(name, metric.Hour).Count; got != want {
		w.t.Errorf("%s is %d, want %d", name, got, want)
	}
}

func TestEachEventCountsOnce(t *testing.T) {
	t.Parallel()
	w := replica(t, open(t, filepath.Join(t.TempDir(), "a.sqlite")), nil)
	w.done(view("v1", "PROD-001", start), view("v2", "PROD-001", start), view("v1", "PROD-001", start))
	w.done(view("v2", "PROD-001", start), view("v3", "PROD-002", start), purchase("p1", "PROD-001", 49_9900, start))
	w.counts("total_views", 3)
	w.counts("views_PROD-001", 2)
	w.counts("session_S-1_views", 3)
	w.counts("total_purchases", 1)
	if got := w.Statistics("total_revenue", metric.Hour).Sum; got != 49.99 {
		t.Errorf("the revenue is %v", got)
	}
	counts, err := w.store.Counts(t.Context())
	if err != nil || counts.Events != 4 {
		t.Errorf("%d events are stored, %v", counts.Events, err)
	}
}

// The windows remember ids for a while and up to a number; the store remembers all.
func TestWhatTheWindowsForgotTheStoreKnows(t *testing.T) {
	t.Parallel()
	w := replica(t, open(t, filepath.Join(t.TempDir(), "a.sqlite")), func(o *Options) { o.Pipeline.MaxIDs = 2 })
	events := make([]event.Event, 20)
	for i := range events {
		events[i] = view(fmt.Sprintf("v%d", i), "PROD-001", start)
	}
	w.done(events...)
	w.done(events...)
	w.counts("total_views", 20)
}

// broken is a store whose answers get lost.
type broken struct {
	store.Store

	lose func() error
}

func (b *broken) Append(ctx context.Context, events []store.Event) ([]bool, error) {
	fresh, err := b.Store.Append(ctx, events)
	if lost := b.lose(); lost != nil {
		return nil, lost
	}
	return fresh, err
}

func TestALostAnswerOfTheStoreNeitherLosesNorDoublesACount(t *testing.T) {
	t.Parallel()
	lost := errors.New("the answer is lost")
	b := &broken{open(t, filepath.Join(t.TempDir(), "a.sqlite")), func() error { return lost }}
	w := replica(t, b, nil)
	if err := w.process(view("v1", "PROD-001", start), view("v2", "PROD-001", start)); !eventing.Retryable(err) {
		t.Fatalf("got %v, want a retryable error", err)
	}
	w.counts("total_views", 0)
	b.lose = func() error { return nil }
	for range 2 {
		w.done(view("v1", "PROD-001", start), view("v2", "PROD-001", start))
		w.counts("total_views", 2)
	}
}

// What is stored and was not acknowledged comes again after a kill: neither lost nor counted twice.
func TestARestartCountsOn(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.sqlite")
	before := replica(t, open(t, path), nil)
	events := make([]event.Event, 0, 1001)
	for i := range 500 {
		events = append(events, view(fmt.Sprintf("v%d", i), fmt.Sprintf("PROD-%d", i%7), start.Add(time.Duration(i)*time.Millisecond)))
		events = append(events, purchase(fmt.Sprintf("p%d", i), fmt.Sprintf("PROD-%d", i%7), 10_0000, start))
	}
	events = append(events, of(contracts.RecommendationGenerated{
		EventID: "r1", Algorithm: "nearest", ConfidenceScores: []float64{0.5, 1}, Timestamp: start,
	}))
	before.done(events[:600]...)

	after := replica(t, open(t, path), nil)
	after.counts("total_views", 300)
	after.done(events[500:]...)
	after.counts("total_views", 500)
	after.counts("total_purchases", 500)
	if got := after.Statistics("total_revenue", metric.Hour).Sum; got != 5000 {
		t.Errorf("the revenue is %v, want 5000", got)
	}
	again := replica(t, open(t, path), nil)
	for _, name := range []string{"total_views", "views_PROD-3", "revenue_PROD-3", "conversion_rate_PROD-3", "recommendation_confidence_nearest", "session_S-1_views"} {
		if got, want := again.Statistics(name, metric.Hour), after.Statistics(name, metric.Hour); got != want {
			t.Errorf("after a restart %+v, before %+v", got, want)
		}
	}
}

func TestNothingIsTakenBeforeTheWindowsAreMade(t *testing.T) {
	t.Parallel()
	p, err := New(Options{
		Store: open(t, filepath.Join(t.TempDir(), "a.sqlite")), Pipeline: pipeline.DefaultConfig(), MaxAhead: time.Minute, Rebuild: 2 * time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	if p.Ready(t.Context()) == nil {
		t.Error("it is ready")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Process(ctx, []event.Event{view("v1", "PROD-001", start)}); !eventing.Retryable(err) {
		t.Errorf("got %v, want a retryable error", err)
	}
}

func unusual() (usual []event.Event, odd event.Event) {
	for i := range 20 {
		usual = append(usual, purchase(fmt.Sprintf("p%d", i), "PROD-001", contracts.Amount(1000+i)*100, start))
	}
	return usual, purchase("odd", "PROD-001", 999_900, start)
}

func TestWhatIsUnusualIsAnnouncedBeforeTheEventIsDone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.sqlite")
	w := replica(t, open(t, path), nil)
	found, stop := w.Watch()
	defer stop()
	usual, odd := unusual()
	w.done(usual...)
	w.refuse = fmt.Errorf("the bus is away: %w", eventing.ErrUnavailable)
	if err := w.process(odd); !eventing.Retryable(err) {
		t.Fatalf("got %v, want a retryable error", err)
	}
	if err := w.process(view("v1", "PROD-001", start)); !eventing.Retryable(err) {
		t.Fatalf("the next event got %v, want a retryable error", err)
	}
	w.refuse = nil
	w.done(odd)
	w.done(odd)
	if told := w.told(); len(told) != 1 {
		t.Fatalf("announced %v, want one", told)
	}
	if a := <-found; a.ID != w.told()[0] || a.EventID != "odd" {
		t.Errorf("the watcher saw %+v", a)
	}
	stored, err := w.store.Anomalies(t.Context(), store.AnomalyQuery{Limit: 10})
	if err != nil || len(stored) != 1 || stored[0].ID != w.told()[0] || stored[0].ProductID != "PROD-001" {
		t.Errorf("stored %+v, %v", stored, err)
	}
}

// An anomaly that can never be announced is no event's fault: it is dropped, and the events go on.
func TestWhatCanNeverBeAnnouncedBlocksNoEvents(t *testing.T) {
	t.Parallel()
	w := replica(t, open(t, filepath.Join(t.TempDir(), "a.sqlite")), nil)
	usual, odd := unusual()
	w.done(usual...)
	w.refuse = fmt.Errorf("announce: %w", eventing.ErrRefused)
	w.done(odd)
	w.done(view("v1", "PROD-001", start))
	w.refuse = nil
	w.done(view("v2", "PROD-001", start))
	w.counts("total_views", 2)
	if told := w.told(); len(told) != 0 {
		t.Errorf("announced %v, want nothing", told)
	}
}

// The process may die between storing an event and announcing what it showed; then the next one announces it.
func TestWhatWasNotAnnouncedIsAnnouncedAfterARestart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.sqlite")
	before := replica(t, open(t, path), nil)
	usual, odd := unusual()
	before.done(usual...)
	before.refuse = errors.New("killed")
	_ = before.process(odd) // the process is killed before it publishes the alert

	after := replica(t, open(t, path), nil)
	after.done(odd) // it was not acknowledged
	if told := after.told(); len(told) != 1 || !strings.Contains(told[0], "odd") {
		t.Errorf("announced %v, want what the event odd showed", told)
	}
	much := replica(t, open(t, path), nil)
	much.at = much.at.Add(time.Hour)
	much.done(view("v1", "PROD-001", much.at))
	late := replica(t, open(t, path), nil)
	late.done()
	if told := late.told(); len(told) != 0 {
		t.Errorf("announced %v, which was announced long ago", told)
	}
}

// A process whose clock was hours ahead stored events from the future: the next one's windows are not blind until then.
func TestEventsThatAClockAheadStored(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.sqlite")
	ahead := replica(t, open(t, path), nil)
	ahead.at = ahead.at.Add(5 * time.Hour)
	ahead.done(view("v1", "PROD-001", ahead.at))
	after := replica(t, open(t, path), nil)
	after.done(view("v2", "PROD-001", start))
	after.counts("total_views", 1)
}

// The windows hold an hour, the histories of purchases as much as they are made again from.
func TestHistoriesReachFurtherBackThanWindows(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.sqlite")
	before := replica(t, open(t, path), nil)
	usual, _ := unusual()
	before.done(append(usual, view("v1", "PROD-001", start))...)

	after := replica(t, open(t, path), func(o *Options) { o.Now = func() time.Time { return start.Add(3 * time.Hour) } })
	if stats := after.Stats(); stats.Purchases != 20 || stats.Views != 0 {
		t.Errorf("made from %d purchases and %d views, want the purchases only", stats.Purchases, stats.Views)
	}
	after.counts("total_purchases", 0)
	after.done(purchase("odd", "PROD-001", 999_900, start.Add(3*time.Hour)))
	after.counts("total_purchases", 1)
	if told := after.told(); len(told) != 1 {
		t.Errorf("announced %v, want what the event odd showed", told)
	}
}

// Replicas share one store: each takes its part of the events and answers for the whole.
func TestReplicasAnswerForTheWhole(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.sqlite")
	a, b := replica(t, open(t, path), nil), replica(t, open(t, path), nil)
	for i := range 100 {
		to := []*world{a, b}[i%2]
		to.done(view(fmt.Sprintf("v%d", i), "PROD-001", start), purchase(fmt.Sprintf("p%d", i), "PROD-001", 10_0000, start))
	}
	a.counts("total_views", 50)
	for _, w := range []*world{a, b, a, b} {
		if err := w.follow()(t.Context(), start); err != nil {
			t.Fatal(err)
		}
		w.counts("total_views", 100)
		w.counts("total_purchases", 100)
	}
	if got, want := a.Statistics("revenue_PROD-001", metric.Hour), b.Statistics("revenue_PROD-001", metric.Hour); got != want {
		t.Errorf("one replica says %+v, the other %+v", got, want)
	}
	// An event that both get, as when partitions move.
	a.done(view("both", "PROD-001", start))
	b.done(view("both", "PROD-001", start))
	for _, w := range []*world{a, b} {
		if err := w.follow()(t.Context(), start); err != nil {
			t.Fatal(err)
		}
		w.counts("total_views", 101)
	}
}

func TestWindowsBecomePointsOfASeries(t *testing.T) {
	t.Parallel()
	w := replica(t, open(t, filepath.Join(t.TempDir(), "a.sqlite")), nil)
	w.done(view("v1", "PROD-001", start.Add(10*time.Second)), view("v2", "PROD-001", start.Add(20*time.Second)))
	record := func(minutes int) {
		w.mu.Lock()
		w.at = start.Add(time.Duration(minutes) * time.Minute)
		w.mu.Unlock()
		if err := w.record(t.Context(), w.now()); err != nil {
			t.Fatal(err)
		}
	}
	series := func(window string) (counts []int64) {
		points, err := w.store.Series(t.Context(), store.SeriesQuery{Name: "total_views", Window: window, From: start, To: start.Add(time.Hour), Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range points {
			counts = append(counts, p.Count)
		}
		return counts
	}
	record(1)
	if got := fmt.Sprint(series("1m"), series("1h")); got != "[2] []" {
		t.Errorf("points %s", got)
	}
	w.at = start.Add(3 * time.Minute)
	w.done(view("late", "PROD-001", start.Add(30*time.Second)), view("v3", "PROD-001", start.Add(2*time.Minute+time.Second)))
	record(3)
	record(4) // the first minute is written for the last time
	if got := fmt.Sprint(series("1m"), series("5m"), series("1h")); got != "[3 1] [4] [4]" {
		t.Errorf("points %s", got)
	}
	sessions, err := w.store.Series(t.Context(), store.SeriesQuery{Name: "session_S-1_views", Window: "1m", From: start, To: start.Add(time.Hour), Limit: 10})
	if err != nil || len(sessions) != 0 {
		t.Errorf("sessions have points %v, %v", sessions, err)
	}
}

func TestRunKeepsReplicasTogetherAndEnds(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.sqlite")
	other := replica(t, open(t, path), func(o *Options) { o.Now = time.Now })
	w := &world{t: t, store: open(t, path)}
	config := pipeline.DefaultConfig()
	var err error
	if w.Processor, err = New(Options{
		Store: w.store, Pipeline: config, PublishAlerts: w.publishAlerts, MaxAhead: time.Minute, Rebuild: 2 * time.Hour, Record: time.Minute,
		Follow: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	other.done(view("v1", "PROD-001", time.Now()))
	for w.Statistics("total_views", metric.Hour).Count != 1 {
		select {
		case <-time.After(time.Millisecond): // until it is there, or the test's own time is over
		case <-t.Context().Done():
			t.Fatal("the other replica's event does not come")
		}
	}
	cancel()
	running.Wait()
}

func TestWhatCannotWork(t *testing.T) {
	t.Parallel()
	good := Options{Pipeline: pipeline.DefaultConfig(), MaxAhead: time.Minute, Rebuild: 2 * time.Hour}
	ahead, short, wrong := good, good, good
	ahead.MaxAhead, short.Rebuild, wrong.Pipeline.MaxProducts = time.Hour, time.Hour, 0
	for _, o := range []Options{ahead, short, wrong} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}
