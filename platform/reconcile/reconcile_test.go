package reconcile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	"waybill/platform/internal/fakedapr"
	"waybill/platform/reconcile"
	"waybill/platform/reconcile/reconciletest"
	"waybill/platform/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPendingInMemory(t *testing.T) {
	t.Parallel()
	reconciletest.RunPending(t, func(*testing.T) state.Store { return state.NewMemory() })
}

func TestPendingOnDapr(t *testing.T) {
	t.Parallel()
	reconciletest.RunPending(t, func(t *testing.T) state.Store {
		t.Helper()
		return state.NewDapr(new(fakedapr.Server).Client(t), "statestore")
	})
}

// doc is the record of a service that has nothing but records.
type doc struct {
	Ended bool `json:"ended"`
}

// A service with prefetch, and one without, pass the suite.
func TestSuite(t *testing.T) {
	t.Parallel()
	for _, prefetch := range []bool{true, false} {
		t.Run("prefetch "+strconv.FormatBool(prefetch), func(t *testing.T) {
			t.Parallel()
			reconciletest.RunReconciler(t, func(t *testing.T, s state.Store, process string) reconciletest.Service {
				t.Helper()
				pending := reconcile.NewPending(s, "docs", process)
				key := func(id string) string { return "doc:" + id }
				o := reconcile.Options{
					Name: "docs", Pending: pending, Interval: time.Minute, MaxBackoff: time.Minute, Grace: time.Minute, Concurrency: 2,
					Logger: slog.New(slog.DiscardHandler),
					Reconcile: func(ctx context.Context, id string) (reconcile.Result, error) {
						var d doc
						_, err := s.Get(ctx, key(id), &d)
						return reconcile.Result{Done: d.Ended}, err
					},
				}
				if prefetch {
					var docs map[string]doc
					o.Batch = 2
					o.Prefetch = func(ctx context.Context, ids []string) (map[string]reconcile.Record, error) {
						keys := make([]string, len(ids))
						for i, id := range ids {
							keys[i] = key(id)
						}
						values, err := s.GetMany(ctx, keys)
						docs = map[string]doc{}
						records := map[string]reconcile.Record{}
						for i, id := range ids {
							var d doc
							records[id] = reconcile.Record{Unreadable: state.Decode(keys[i], values[keys[i]], &d)}
							docs[id] = d
						}
						return records, err
					}
					o.Reconcile = func(_ context.Context, id string) (reconcile.Result, error) {
						return reconcile.Result{Done: docs[id].Ended}, nil
					}
				}
				loop, err := reconcile.New(o)
				if err != nil {
					t.Fatal(err)
				}
				return reconciletest.Service{
					Loop: loop, Set: "docs", Key: key, Interval: time.Minute, SettlesIn: 10 * time.Minute,
					Begin: func(ctx context.Context, n int) (string, error) {
						id := strconv.Itoa(n)
						return id, errors.Join(pending.Add(ctx, id), s.Create(ctx, key(id), doc{}))
					},
					End: func(ctx context.Context, id string) error {
						_, err := state.Update(ctx, s, key(id), func(d *doc, _ bool) error { d.Ended = true; return nil })
						return err
					},
				}
			})
		})
	}
}

// call is one call of Reconcile, or a hook, and when it came.
type call struct {
	What  string
	After time.Duration
}

// world is a loop over ids a to z, in a test's own time.
type world struct {
	*testing.T

	pending *reconcile.Pending
	options reconcile.Options
	log     bytes.Buffer
	began   time.Time

	mu      sync.Mutex
	calls   []call
	results map[string]reconcile.Result
	errs    map[string]error
	records map[string]reconcile.Record
}

func inWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			T: t, pending: reconcile.NewPending(state.NewMemory(), "records", "w"), began: time.Now(),
			results: map[string]reconcile.Result{}, errs: map[string]error{}, records: map[string]reconcile.Record{},
		}
		w.options = reconcile.Options{
			Name: "records", Pending: w.pending, Reconcile: w.reconcile, Interval: 10 * time.Second,
			Logger: slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		}
		test(w)
	})
}

func (w *world) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, call{what, time.Since(w.began)})
}

func (w *world) reconcile(_ context.Context, id string) (reconcile.Result, error) {
	w.note(id)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.results[id], w.errs[id]
}

// prefetch makes the loop use w.records.
func (w *world) prefetch() {
	w.options.Prefetch = func(context.Context, []string) (map[string]reconcile.Record, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.records, nil
	}
}

func (w *world) set(id string, result reconcile.Result, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.results[id], w.errs[id] = result, err
}

func (w *world) record(id string, r reconcile.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records[id] = r
}

func (w *world) new() *reconcile.Loop {
	w.Helper()
	loop, err := reconcile.New(w.options)
	if err != nil {
		w.Fatal(err)
	}
	return loop
}

// run starts the loop, and returns a function that stops it.
func (w *world) run() (loop *reconcile.Loop, stop func()) {
	loop = w.new()
	ctx, cancel := context.WithCancel(w.Context())
	var running sync.WaitGroup
	running.Go(func() { loop.Run(ctx) })
	return loop, func() { cancel(); running.Wait() }
}

// pass lets time pass and returns the calls, each with its time.
func (w *world) pass(d time.Duration) []string {
	time.Sleep(d)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	got := make([]string, 0, len(w.calls))
	for _, c := range w.calls {
		got = append(got, fmt.Sprint(c.What, " ", c.After))
	}
	w.calls = nil
	return got
}

func (w *world) want(what, want string, got []string) {
	w.Helper()
	if diff := cmp.Diff(want, strings.Join(got, ", ")); diff != "" {
		w.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func (w *world) add(ids ...string) {
	w.Helper()
	add(w.T, w.pending, ids...)
}

func (w *world) left(want ...string) {
	w.Helper()
	if diff := cmp.Diff(want, seen(w.T, w.pending, none)); diff != "" {
		w.Errorf("pending (-want +got):\n%s", diff)
	}
}

func TestBackoffGrows(t *testing.T) {
	inWorld(t, func(w *world) {
		w.options.MaxBackoff = time.Minute
		w.add("a")
		_, stop := w.run()
		defer stop()
		w.want("without a result", "a 0s, a 10s, a 30s, a 1m10s, a 2m10s, a 3m10s", w.pass(4*time.Minute))
		w.set("a", reconcile.Result{RequeueAfter: 15 * time.Second}, nil)
		w.want("requeued", "a 4m10s, a 4m30s", w.pass(40*time.Second))
		w.set("a", reconcile.Result{}, errors.New("broken"))
		w.want("failed", "a 4m50s, a 5m0s, a 5m20s", w.pass(50*time.Second))
		w.set("a", reconcile.Result{RequeueAfter: reconcile.NextPass}, nil)
		w.want("in every pass", "a 6m0s, a 6m10s, a 6m20s", w.pass(50*time.Second))
		w.set("a", reconcile.Result{Done: true}, nil)
		w.want("done", "a 6m30s", w.pass(time.Hour))
		w.left()
	})
}

// A record that changes has a new grace period and no backoff. Another process's wrong clock does not matter.
func TestGracePeriod(t *testing.T) {
	inWorld(t, func(w *world) {
		w.prefetch()
		w.options.Grace = 25 * time.Second
		w.add("missing", "now", "ahead", "behind", "changes")
		const grace = 35 * time.Second
		w.record("now", reconcile.Record{Changed: w.began})
		w.record("ahead", reconcile.Record{Changed: w.began.Add(5 * time.Hour), Grace: grace})
		w.record("behind", reconcile.Record{Changed: w.began.Add(-5 * time.Hour), Grace: grace})
		w.record("changes", reconcile.Record{Changed: w.began, Grace: grace})
		for _, id := range []string{"missing", "now", "ahead", "behind", "changes"} {
			w.set(id, reconcile.Result{RequeueAfter: time.Hour}, nil)
		}
		_, stop := w.run()
		defer stop()
		w.want("first", "now 0s, behind 0s, missing 30s", w.pass(31*time.Second))
		w.record("changes", reconcile.Record{Changed: w.began.Add(31 * time.Second), Grace: grace})
		w.want("later", "ahead 40s, changes 1m10s", w.pass(time.Minute))
		w.record("behind", reconcile.Record{Changed: w.began.Add(time.Minute)})
		w.want("no grace period any more", "behind 1m40s", w.pass(30*time.Second))
	})
}

// An id that was removed and is added again for a new record gets the grace period again.
func TestAnIDThatIsAddedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.options.Grace = 25 * time.Second
		w.set("a", reconcile.Result{Done: true}, nil)
		w.add("a")
		_, stop := w.run()
		defer stop()
		w.want("first", "a 30s", w.pass(31*time.Second))
		w.add("a")
		w.want("again", "a 1m10s", w.pass(time.Minute))
		w.left()
	})
}

// One record that fails does not delay the others. If the store or the bus is away, a pass ends after three failures.
func TestFailures(t *testing.T) {
	inWorld(t, func(w *world) {
		w.options.MaxBackoff = time.Minute
		broken, away := errors.New("broken"), fmt.Errorf("publish: %w", state.ErrUnavailable)
		for _, id := range []string{"a", "b", "c", "d", "e"} {
			w.add(id)
			w.set(id, reconcile.Result{}, broken)
		}
		_, stop := w.run()
		defer stop()
		w.want("broken", "a 0s, b 0s, c 0s, d 0s, e 0s", w.pass(9*time.Second))
		for _, id := range []string{"a", "b", "c", "d", "e"} {
			w.set(id, reconcile.Result{}, away)
		}
		// Repeated after 1, 2, 4 and 8 seconds, while the failed ones back off.
		w.want("away", "a 10s, b 10s, c 10s, d 11s, e 11s, a 31s, b 31s, c 31s", w.pass(22500*time.Millisecond))
		for _, id := range []string{"a", "b", "c", "d", "e"} {
			w.set(id, reconcile.Result{Done: true}, nil)
		}
		w.pass(2 * time.Minute)
		w.left()
		for _, text := range []string{
			`level=ERROR msg="record was not reconciled; will retry" reconciler=records id=a retry_after=10s error=broken`,
			`level=WARN msg="record was not reconciled; will retry" reconciler=records id=b`,
			`level=WARN msg="reconcile pass failed; will retry" reconciler=records retry_after=1s error="publish: `,
		} {
			if !strings.Contains(w.log.String(), text) {
				w.Errorf("no line %s in\n%s", text, &w.log)
			}
		}
	})
}

func TestUnreadableRecords(t *testing.T) {
	inWorld(t, func(w *world) {
		w.prefetch()
		ended := 0
		w.options.PassEnds = func() { ended++ }
		w.add("a", "b", "c")
		w.record("b", reconcile.Record{Unreadable: errors.New("not JSON")})
		w.set("c", reconcile.Result{Done: true}, nil)
		loop := w.new()
		if err := loop.Pass(w.Context()); !errors.Is(err, state.ErrUnreadable) || ended > 0 {
			w.Errorf("%d complete passes, %v", ended, err)
		}
		w.want("the others", "a 0s, c 0s", w.pass(0))
		w.left("a", "b")
		w.record("b", reconcile.Record{})
		if err := loop.Pass(w.Context()); err != nil || ended != 1 {
			w.Errorf("%d complete passes, %v", ended, err)
		}
		w.want("once it can be read", "b 0s", w.pass(0))
	})
}

func TestSurvey(t *testing.T) {
	inWorld(t, func(w *world) {
		w.prefetch()
		w.add("a")
		w.record("a", reconcile.Record{Unreadable: state.ErrUnreadable})
		w.options.PassBegins = func() { w.note("begins") }
		w.options.PassEnds = func() { w.note("ends") }
		w.options.Survey = func(err error) bool { w.note(fmt.Sprint("surveyed ", err == nil)); return err != nil }
		_, stop := w.run()
		defer stop()
		w.want("not complete", "begins 0s, surveyed false 0s, begins 1s, surveyed false 1s", w.pass(1500*time.Millisecond))
		w.record("a", reconcile.Record{})
		w.want("complete", "begins 2s, ends 2s, surveyed true 2s, begins 12s, a 12s, ends 12s", w.pass(11*time.Second))
	})
}

func TestTrigger(t *testing.T) {
	inWorld(t, func(w *world) {
		w.options.Grace = time.Hour
		w.add("a", "b")
		loop, stop := w.run()
		defer stop()
		w.want("in the grace period", "", w.pass(15*time.Second))
		loop.Trigger("a", "b", "a")
		w.want("at once", "a 15s, b 15s", w.pass(time.Second))
		w.set("a", reconcile.Result{Done: true}, nil)
		loop.Trigger("a")
		w.want("again", "a 16s", w.pass(time.Second))
		w.left("a", "b") // a pass confirms it
		w.pass(2 * time.Hour)
		w.left("b")
	})
}

func TestConcurrency(t *testing.T) {
	inWorld(t, func(w *world) {
		running, most := 0, 0
		w.options.Concurrency = 3
		w.options.Reconcile = func(context.Context, string) (reconcile.Result, error) {
			w.mu.Lock()
			running++
			most = max(most, running)
			w.mu.Unlock()
			time.Sleep(time.Second)
			w.mu.Lock()
			defer w.mu.Unlock()
			running--
			return reconcile.Result{Done: true}, nil
		}
		w.add("a", "b", "c", "d", "e", "f", "g")
		if err := w.new().Pass(w.Context()); err != nil || most != 3 || time.Since(w.began) != 3*time.Second {
			w.Errorf("%d at the same time, in %v: %v", most, time.Since(w.began), err)
		}
		w.left()
	})
}

// Batches of Prefetch, each followed by the calls for its ids; each id once.
func TestPrefetchBatches(t *testing.T) {
	inWorld(t, func(w *world) {
		w.options.Batch = 2
		w.options.Prefetch = func(_ context.Context, ids []string) (map[string]reconcile.Record, error) {
			w.note("[" + strings.Join(ids, " ") + "]")
			return map[string]reconcile.Record{}, nil
		}
		w.add("a", "b", "a", "c", "b")
		if err := w.new().Pass(w.Context()); err != nil {
			w.Error(err)
		}
		w.want("calls", "[a b] 0s, a 0s, b 0s, [c] 0s, c 0s", w.pass(0))
		away := fmt.Errorf("read: %w", state.ErrUnavailable)
		w.options.Prefetch = func(context.Context, []string) (map[string]reconcile.Record, error) { return nil, away }
		if err := w.new().Pass(w.Context()); !errors.Is(err, away) {
			w.Errorf("got %v", err)
		}
		w.want("without its records", "", w.pass(0))
	})
}

// A loop that stops waits for the call that runs, and does not blame the record for the end of its context.
func TestStop(t *testing.T) {
	inWorld(t, func(w *world) {
		w.options.Reconcile = func(ctx context.Context, id string) (reconcile.Result, error) {
			<-ctx.Done()
			time.Sleep(time.Second)
			w.note(id)
			return reconcile.Result{}, ctx.Err()
		}
		w.add("a", "b")
		_, stop := w.run()
		w.pass(time.Second)
		stop()
		w.want("stopped", "a 2s", w.pass(0))
		w.left("a", "b")
		if w.log.Len() > 0 {
			w.Errorf("logged %s", &w.log)
		}
	})
}

//nolint:paralleltest // it sets the global meter provider
func TestMetrics(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	before := otel.GetMeterProvider()
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	t.Cleanup(func() { otel.SetMeterProvider(before) })
	pending := reconcile.NewPending(state.NewMemory(), "records", "w")
	add(t, pending, "done", "open", "broken")
	loop, err := reconcile.New(reconcile.Options{
		Name: "metered", Pending: pending, Interval: time.Second, Logger: slog.New(slog.DiscardHandler),
		Prefetch: func(context.Context, []string) (map[string]reconcile.Record, error) {
			return map[string]reconcile.Record{
				"done": {Created: time.Now().Add(-2 * time.Hour)}, "open": {Created: time.Now().Add(-time.Hour)}, "broken": {},
			}, nil
		},
		Reconcile: func(_ context.Context, id string) (reconcile.Result, error) {
			if id == "broken" {
				return reconcile.Result{}, errors.New("broken")
			}
			return reconcile.Result{Done: id == "done"}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := collect(t, reader); len(got) > 0 {
		t.Errorf("before the first pass: %v", got)
	}
	if err := loop.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"waybill.reconcile.oldest_age 3600", "waybill.reconcile.outcomes done 1", "waybill.reconcile.outcomes failed 1",
		"waybill.reconcile.outcomes requeued 1", "waybill.reconcile.pending 2",
	}
	if diff := cmp.Diff(want, collect(t, reader)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// collect returns the metrics of the reconciler "metered", sorted.
func collect(t *testing.T, reader sdkmetric.Reader) []string {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					if name, _ := p.Attributes.Value("reconciler"); name.AsString() == "metered" {
						found = append(found, fmt.Sprint(m.Name, " ", p.Value))
					}
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					if name, _ := p.Attributes.Value("reconciler"); name.AsString() == "metered" {
						found = append(found, fmt.Sprint(m.Name, " ", int(p.Value)))
					}
				}
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					name, _ := p.Attributes.Value("reconciler")
					if outcome, _ := p.Attributes.Value("outcome"); name.AsString() == "metered" {
						found = append(found, fmt.Sprint(m.Name, " ", outcome.AsString(), " ", p.Value))
					}
				}
			}
		}
	}
	slices.Sort(found)
	return found
}

func TestAnIntervalIsRequired(t *testing.T) {
	t.Parallel()
	if _, err := reconcile.New(reconcile.Options{Name: "records"}); err == nil {
		t.Error("no error")
	}
}
