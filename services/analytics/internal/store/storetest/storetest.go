// Package storetest is the behaviour that every analytics store has, as tests, with a naive model to compare with.
package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"waybill/contracts"
	"waybill/services/analytics/internal/store"
)

// Run holds the stores that open returns to the suite. Each call of open returns an empty store, which it closes when the
// test ends.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, store.Store){
		"rows come back as they were":       rowsComeBack,
		"an event is stored once":           once,
		"many writers, each event once":     manyWriters,
		"the newest version stands":         newestVersionStands,
		"anomalies in pages":                pages,
		"what is wrong is refused":          refused,
		"random rows, compared":             random,
		"a caller that gave up":             gaveUp,
		"nothing stored, nothing answered":  empty,
		"texts that quote and inject":       texts,
		"awkward events come back":          awkward,
		"an expired row is gone, others no": expired,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// start is where the suite's time begins.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func event(n int) store.Event {
	return store.Event{
		ID: fmt.Sprintf("event-%05d", n), Type: contracts.TypeProductViewed, Timestamp: start.Add(time.Duration(n) * time.Second),
		UserID: "CUST-123", SessionID: "session-1", ProductID: "PROD-001", Value: 1, Properties: json.RawMessage(`{"page":"home"}`),
		ProcessedAt: start.Add(time.Duration(n)*time.Second + time.Millisecond),
	}
}

func metric(n int) store.Metric {
	return store.Metric{
		Name: "total_views", Window: "1m", Timestamp: start.Add(time.Duration(n) * time.Minute), Count: int64(n), Sum: 2, Mean: 3, Median: 4,
		Min: -5, Max: 6, StdDev: 7.25, P95: 8, P99: 1e300, ComputedAt: start.Add(time.Duration(n)*time.Minute + time.Second),
	}
}

func anomaly(n int) store.Anomaly {
	return store.Anomaly{
		ID: fmt.Sprintf("anomaly-%03d", n), Type: "view_spike", ProductID: "PROD-001", Expected: 10, Seen: 99.5, Score: 4.5,
		Sentence: "PROD-001 was viewed 99 times in a minute; 10 are usual.", Timestamp: start.Add(time.Duration(n) * time.Second), UpdatedAt: start,
	}
}

var equal = cmp.Options{
	cmpopts.EquateEmpty(),
	cmp.Transformer("JSON", func(raw json.RawMessage) (v any) {
		if json.Unmarshal(raw, &v) != nil {
			return string(raw)
		}
		return v
	}),
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, equal); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// must returns a function that takes a result and stops the test at an error.
func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func all(t *testing.T, seq iter.Seq2[store.Event, error]) []store.Event {
	t.Helper()
	var events []store.Event
	for e, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}

func rowsComeBack(t *testing.T, s store.Store) {
	t.Helper()
	// 5,200 events are several pages, transactions or requests, whatever the store has.
	events := make([]store.Event, 5_200)
	for i := range events {
		// What happens later may arrive earlier.
		events[i] = event(i)
		events[i].Timestamp = start.Add(-time.Duration(i) * time.Second)
		// Three arrive at one moment.
		events[i].ProcessedAt = start.Add(time.Duration(i/3) * time.Millisecond)
	}
	events[0].Timestamp = time.Date(2026, 3, 1, 13, 0, 0, 123_456_789, time.FixedZone("", 3600))
	events[1].Properties = nil
	events[2].UserID, events[2].SessionID, events[2].ProductID = "", "", ""
	events[3].Value = -1.5e-7
	fresh := must[[]bool](t)(s.Append(t.Context(), events))
	m := NewModel()
	same(t, "fresh", fresh, m.Append(events))
	same(t, "all events", all(t, s.Events(t.Context(), start.Add(-100*time.Hour))), m.Events(start.Add(-100*time.Hour)))
	since := start.Add(-50 * time.Second)
	same(t, "events since", all(t, s.Events(t.Context(), since)), m.Events(since))

	got := 0
	for _, err := range s.Events(t.Context(), start.Add(-100*time.Hour)) {
		if got++; err != nil || got == 10 {
			break
		}
	}
	same(t, "events until the caller had enough", got, 10)

	metrics := []store.Metric{metric(1), metric(2), metric(3)}
	if err := s.PutMetrics(t.Context(), metrics); err != nil {
		t.Fatal(err)
	}
	q := store.SeriesQuery{Name: "total_views", Window: "1m", From: metrics[0].Timestamp, To: metrics[2].Timestamp, Limit: 10}
	same(t, "series", must[[]store.Metric](t)(s.Series(t.Context(), q)), metrics[:2])
	q.Limit = 1
	same(t, "the newest of the series", must[[]store.Metric](t)(s.Series(t.Context(), q)), metrics[1:2])
	q.Window = "5m"
	same(t, "series of another window", must[[]store.Metric](t)(s.Series(t.Context(), q)), []store.Metric(nil))

	anomalies := []store.Anomaly{anomaly(1)}
	if err := s.PutAnomalies(t.Context(), anomalies); err != nil {
		t.Fatal(err)
	}
	same(t, "anomalies", must[[]store.Anomaly](t)(s.Anomalies(t.Context(), store.AnomalyQuery{Limit: 5})), anomalies)
	same(t, "counts", must[store.Counts](t)(s.Counts(t.Context())), store.Counts{Events: 5_200, Metrics: 3, Anomalies: 1})
}

func once(t *testing.T, s store.Store) {
	t.Helper()
	first, second := event(1), event(2)
	changed := event(1)
	changed.Value, changed.ProductID = 99, "PROD-002"
	same(t, "within a batch", must[[]bool](t)(s.Append(t.Context(), []store.Event{first, changed, second, second})), []bool{true, false, true, false})
	same(t, "again, with a new one", must[[]bool](t)(s.Append(t.Context(), []store.Event{changed, event(3), first})), []bool{false, true, false})
	same(t, "again, alone", must[[]bool](t)(s.Append(t.Context(), []store.Event{first})), []bool{false})
	same(t, "what stands", all(t, s.Events(t.Context(), start)), []store.Event{first, second, event(3)})
	same(t, "counts", must[store.Counts](t)(s.Counts(t.Context())), store.Counts{Events: 3})
}

func manyWriters(t *testing.T, s store.Store) {
	t.Helper()
	const writers, batches, size = 8, 5, 40
	var news atomic.Int64
	var wait sync.WaitGroup
	for w := range writers {
		wait.Go(func() {
			for b := range batches {
				events := make([]store.Event, size)
				for i := range events {
					// Neighbours share half of their events.
					events[i] = event(b*10_000 + w*size/2 + i)
				}
				fresh, err := s.Append(t.Context(), events)
				if err != nil {
					t.Error(err)
					return
				}
				for _, f := range fresh {
					if f {
						news.Add(1)
					}
				}
			}
		})
	}
	wait.Wait()
	const want = batches * (writers + 1) * size / 2
	same(t, "new events, over all writers", news.Load(), int64(want))
	same(t, "stored events", len(all(t, s.Events(t.Context(), start))), want)
}

func newestVersionStands(t *testing.T, s store.Store) {
	t.Helper()
	newer, older := metric(1), metric(1)
	newer.Count, newer.ComputedAt = 100, newer.ComputedAt.Add(time.Second)
	q := store.SeriesQuery{Name: newer.Name, Window: newer.Window, From: start, To: start.Add(time.Hour), Limit: 10}
	for _, batch := range [][]store.Metric{{older}, {newer}, {older}} {
		if err := s.PutMetrics(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	same(t, "metric", must[[]store.Metric](t)(s.Series(t.Context(), q)), []store.Metric{newer})

	later, earlier := anomaly(1), anomaly(1)
	later.Seen, later.UpdatedAt = 500, later.UpdatedAt.Add(time.Second)
	for _, batch := range [][]store.Anomaly{{later, earlier}, {earlier}} {
		if err := s.PutAnomalies(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	same(t, "anomaly", must[[]store.Anomaly](t)(s.Anomalies(t.Context(), store.AnomalyQuery{Limit: 10})), []store.Anomaly{later})
	same(t, "counts", must[store.Counts](t)(s.Counts(t.Context())), store.Counts{Metrics: 1, Anomalies: 1})
}

func pages(t *testing.T, s store.Store) {
	t.Helper()
	m := NewModel()
	anomalies := make([]store.Anomaly, 0, 23)
	for i := range 23 {
		a := anomaly(i)
		// Several share a time, and the page ends among them.
		a.Timestamp = start.Add(time.Duration(i/5) * time.Second)
		a.ProductID = fmt.Sprintf("PROD-%03d", i%2)
		if i%3 == 0 {
			a.Type = "unusual_purchase_amount"
		}
		anomalies = append(anomalies, a)
	}
	m.PutAnomalies(anomalies)
	if err := s.PutAnomalies(t.Context(), anomalies); err != nil {
		t.Fatal(err)
	}
	for _, q := range []store.AnomalyQuery{{Limit: 3}, {Limit: 4, ProductID: "PROD-001"}, {Limit: 2, Type: "view_spike"}, {Limit: 2, Type: "view_spike", ProductID: "PROD-000"}} {
		seen := 0
		for {
			page := must[[]store.Anomaly](t)(s.Anomalies(t.Context(), q))
			same(t, fmt.Sprintf("page %+v", q), page, m.Anomalies(q))
			if len(page) == 0 || t.Failed() {
				break
			}
			seen += len(page)
			last := page[len(page)-1]
			q.After = &store.Place{Timestamp: last.Timestamp, ID: last.ID}
		}
		whole := m.Anomalies(store.AnomalyQuery{ProductID: q.ProductID, Type: q.Type, Limit: 100})
		same(t, "anomalies on all pages", seen, len(whole))
	}
}

func refused(t *testing.T, s store.Store) {
	t.Helper()
	for name, spoil := range map[string]func(*store.Event){
		"no id": func(e *store.Event) { e.ID = "" }, "no type": func(e *store.Event) { e.Type = "" },
		"no time": func(e *store.Event) { e.Timestamp = time.Time{} }, "never processed": func(e *store.Event) { e.ProcessedAt = time.Time{} },
		"NaN": func(e *store.Event) { e.Value = math.NaN() }, "infinite": func(e *store.Event) { e.Value = math.Inf(-1) },
		"properties that are no object": func(e *store.Event) { e.Properties = json.RawMessage(`[1]`) },
		"properties that are no JSON":   func(e *store.Event) { e.Properties = json.RawMessage(`{"a":`) },
		"an id that is no text":         func(e *store.Event) { e.ID = "\xff" },
	} {
		e := event(2)
		spoil(&e)
		if _, err := s.Append(t.Context(), []store.Event{event(1), e}); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %v, want store.ErrInvalid", name, err)
		}
	}
	m := metric(1)
	m.StdDev = math.NaN()
	if err := s.PutMetrics(t.Context(), []store.Metric{metric(2), m}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("a metric with NaN: %v", err)
	}
	a := anomaly(1)
	a.ID = ""
	if err := s.PutAnomalies(t.Context(), []store.Anomaly{anomaly(2), a}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("an anomaly without an id: %v", err)
	}
	if _, err := s.TopProducts(t.Context(), store.TopQuery{By: "Views DESC; DROP", Limit: 1}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("an unknown rank: %v", err)
	}
	for _, limit := range []int{0, -1, store.MaxRows + 1} {
		_, one := s.Series(t.Context(), store.SeriesQuery{Limit: limit})
		_, two := s.TopProducts(t.Context(), store.TopQuery{By: store.ByViews, Limit: limit})
		_, three := s.Anomalies(t.Context(), store.AnomalyQuery{Limit: limit})
		for _, err := range []error{one, two, three} {
			if !errors.Is(err, store.ErrInvalid) {
				t.Errorf("limit %d: %v", limit, err)
			}
		}
	}
	same(t, "nothing of a refused batch is stored", must[store.Counts](t)(s.Counts(t.Context())), store.Counts{})
}

func random(t *testing.T, s store.Store) {
	t.Helper()
	seed := rand.Uint64() //nolint:gosec // a test's numbers are no secret
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // as above
	m := NewModel()
	types := []string{contracts.TypeProductViewed, contracts.TypeProductPurchased, contracts.TypeRecommendationGenerated}
	product := func() string {
		if r.IntN(10) == 0 {
			return ""
		}
		return fmt.Sprintf("PROD-%03d", r.IntN(12))
	}
	arrival := 0
	for range 30 {
		events := make([]store.Event, r.IntN(60))
		for i := range events {
			arrival++
			events[i] = event(r.IntN(1_500))
			events[i].Type, events[i].ProductID = types[r.IntN(len(types))], product()
			// Quarters add up the same in every order.
			events[i].Value = float64(r.IntN(4_000)-100) / 4
			events[i].Timestamp = start.Add(time.Duration(r.IntN(7_200)) * time.Second)
			events[i].ProcessedAt = start.Add(time.Duration(arrival) * time.Millisecond)
		}
		metrics := make([]store.Metric, r.IntN(20))
		for i := range metrics {
			arrival++
			metrics[i] = metric(r.IntN(100))
			metrics[i].Window = []string{"1m", "5m"}[r.IntN(2)]
			metrics[i].Count = int64(arrival)
			metrics[i].ComputedAt = start.Add(time.Duration(r.IntN(1_000))*time.Second + time.Duration(arrival)*time.Millisecond)
		}
		same(t, "fresh", must[[]bool](t)(s.Append(t.Context(), events)), m.Append(events))
		if err := s.PutMetrics(t.Context(), metrics); err != nil {
			t.Fatal(err)
		}
		m.PutMetrics(metrics)

		from := start.Add(time.Duration(r.IntN(7_200)) * time.Second)
		to := from.Add(time.Duration(r.IntN(7_200)) * time.Second)
		top := store.TopQuery{From: from, To: to, By: []store.Rank{store.ByViews, store.ByPurchases, store.ByRevenue}[r.IntN(3)], Limit: 1 + r.IntN(15)}
		same(t, fmt.Sprintf("top products %+v", top), must[[]store.Product](t)(s.TopProducts(t.Context(), top)), m.TopProducts(top))
		series := store.SeriesQuery{Name: "total_views", Window: "1m", From: from, To: to, Limit: 1 + r.IntN(50)}
		same(t, fmt.Sprintf("series %+v", series), must[[]store.Metric](t)(s.Series(t.Context(), series)), m.Series(series))
		same(t, "events", all(t, s.Events(t.Context(), from)), m.Events(from))
		if t.Failed() {
			return
		}
	}
	same(t, "counts", must[store.Counts](t)(s.Counts(t.Context())), m.Counts())
}

func gaveUp(t *testing.T, s store.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Append(ctx, []store.Event{event(1)}); err == nil {
		t.Error("an append of a caller that gave up reports success")
	}
	if err := s.PutMetrics(ctx, []store.Metric{metric(1)}); err == nil {
		t.Error("a put of a caller that gave up reports success")
	}
	for _, err := range s.Events(ctx, start) {
		if err == nil {
			t.Error("a caller that gave up still gets events")
		}
	}
	// The same rows again, and others, are stored by the next caller.
	if _, err := s.Append(t.Context(), []store.Event{event(1), event(2)}); err != nil {
		t.Fatal(err)
	}
	same(t, "events", all(t, s.Events(t.Context(), start)), []store.Event{event(1), event(2)})
}

func empty(t *testing.T, s store.Store) {
	t.Helper()
	same(t, "append of nothing", must[[]bool](t)(s.Append(t.Context(), nil)), []bool{})
	if err := errors.Join(s.PutMetrics(t.Context(), nil), s.PutAnomalies(t.Context(), nil)); err != nil {
		t.Error(err)
	}
	same(t, "events", all(t, s.Events(t.Context(), start)), []store.Event(nil))
	same(t, "series", must[[]store.Metric](t)(s.Series(t.Context(), store.SeriesQuery{Limit: 1})), []store.Metric(nil))
	same(t, "top", must[[]store.Product](t)(s.TopProducts(t.Context(), store.TopQuery{From: start, To: start.Add(time.Hour), By: store.ByRevenue, Limit: 1})), []store.Product(nil))
	same(t, "anomalies", must[[]store.Anomaly](t)(s.Anomalies(t.Context(), store.AnomalyQuery{Limit: 1})), []store.Anomaly(nil))
	same(t, "counts", must[store.Counts](t)(s.Counts(t.Context())), store.Counts{})
}

func texts(t *testing.T, s store.Store) {
	t.Helper()
	events := make([]store.Event, 0, 8)
	for i, text := range []string{`"quoted"`, `'; DROP TABLE AnalyticsEvents; --`, "line\nbreak\ttab\r", `back\slash`, "Größe ✓ 😀", `") | union AnalyticsEvents //`, "a,b", "\u2028"} {
		e := event(i)
		e.ID, e.ProductID, e.SessionID = text, text, text
		properties, err := json.Marshal(map[string]any{text: []any{text, nil, 1.5, map[string]any{"a": true}}})
		if err != nil {
			t.Fatal(err)
		}
		e.Properties = properties
		events = append(events, e)
	}
	must[[]bool](t)(s.Append(t.Context(), events))
	same(t, "again", must[[]bool](t)(s.Append(t.Context(), events)), make([]bool, len(events)))
	same(t, "events", all(t, s.Events(t.Context(), start)), events)
	for _, e := range events {
		a := anomaly(1)
		a.ID, a.ProductID, a.Sentence = e.ID, e.ProductID, e.ProductID
		if err := s.PutAnomalies(t.Context(), []store.Anomaly{a}); err != nil {
			t.Fatal(err)
		}
		same(t, "anomalies of "+e.ProductID, must[[]store.Anomaly](t)(s.Anomalies(t.Context(), store.AnomalyQuery{ProductID: e.ProductID, Limit: 5})), []store.Anomaly{a})
		m := metric(1)
		m.Name = "views_" + e.ProductID
		if err := s.PutMetrics(t.Context(), []store.Metric{m}); err != nil {
			t.Fatal(err)
		}
		q := store.SeriesQuery{Name: m.Name, Window: m.Window, From: start, To: start.Add(time.Hour), Limit: 5}
		same(t, "series of "+m.Name, must[[]store.Metric](t)(s.Series(t.Context(), q)), []store.Metric{m})
	}
}

func expired(t *testing.T, s store.Store) {
	t.Helper()
	expirer, ok := s.(store.Expirer)
	if !ok {
		t.Skip("this store expires rows by itself")
	}
	m := NewModel()
	events, metrics, anomalies := make([]store.Event, 0, 5_000), make([]store.Metric, 0, 5_000), make([]store.Anomaly, 0, 10)
	for i := range 5_000 { // several steps
		events = append(events, event(i))
		metrics = append(metrics, metric(i))
	}
	for i := range 10 {
		anomalies = append(anomalies, anomaly(i))
	}
	must[[]bool](t)(s.Append(t.Context(), events))
	if err := errors.Join(s.PutMetrics(t.Context(), metrics), s.PutAnomalies(t.Context(), anomalies)); err != nil {
		t.Fatal(err)
	}
	m.Append(events)
	m.PutMetrics(metrics)
	m.PutAnomalies(anomalies)
	for _, before := range []store.Expiry{{}, {Events: start.Add(4_321 * time.Second)}, {Metrics: start.Add(3 * time.Hour), Anomalies: start.Add(4 * time.Second)}} {
		same(t, fmt.Sprintf("gone %+v", before), must[store.Counts](t)(expirer.Expire(t.Context(), before)), m.Expire(before))
		same(t, "what is left", must[store.Counts](t)(s.Counts(t.Context())), m.Counts())
	}
	same(t, "events", all(t, s.Events(t.Context(), start)), m.Events(start))
	q := store.SeriesQuery{Name: "total_views", Window: "1m", From: start, To: start.Add(5 * time.Hour), Limit: 1000}
	same(t, "series", must[[]store.Metric](t)(s.Series(t.Context(), q)), m.Series(q))
	same(t, "an expired event is new again", must[[]bool](t)(s.Append(t.Context(), events[:1])), []bool{true})
}
