// Package reconcile owns the records that have not reached their end: it keeps their ids in a durable set and calls the
// service for each of them until the service says that it is done. It does not know what a record is.
//
// A service adds an id to a Pending set before it stores the record, and runs a Loop on that set:
//
//	pending := reconcile.NewPending(store, "orders", ulid.Make().String())
//	loop, err := reconcile.New(reconcile.Options{
//		Name: "orders", Pending: pending, Reconcile: orders.Reconcile, Interval: 10 * time.Second, Logger: logger,
//	})
//	group.Go(func() error { loop.Run(ctx); return nil })
//
// Reconcile is level-based, as in Kubernetes: it reads the record, does what the record needs now, and returns. It must be
// idempotent, because the loop is at-least-once: after a crash, and with several replicas, an id is reconciled more than once,
// possibly at the same time.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"waybill/platform/clock"
	"waybill/platform/retryable"
	"waybill/platform/state"
)

// Result is what a Reconcile without an error decided.
type Result struct {
	// Done: the record has reached its end. Its id leaves the pending set, RequeueAfter does not count.
	Done bool
	// RequeueAfter is how long the record needs no call. The next call comes with the first pass after that time, or earlier
	// if the record changes. NextPass means the next pass. Zero means the backoff: each zero result in a row, and each
	// error, doubles it.
	RequeueAfter time.Duration
}

// NextPass is the RequeueAfter of a record that needs a call in every pass.
const NextPass = time.Nanosecond

// Record is what a prefetch knows about one record. All its times may come from another process's clock; the loop counts on
// its own monotonic clock from the moment when it first saw them.
type Record struct {
	// Changed is when the record last changed. A record that has another time than before has a new grace period and no
	// backoff. If it is zero, the grace period starts when this process first saw the id.
	Changed time.Time
	// Grace is how long after Changed the record is left alone. Zero means not at all.
	Grace time.Duration
	// Created is when the record began, for the metric of the oldest age only. If it is zero, the age counts from when this
	// process first saw the id.
	Created time.Time
	// Unreadable says that the record is stored but cannot be read. The record is not reconciled and stays pending, and
	// the others are reconciled. The pass then returns the error and is not complete.
	Unreadable error
}

// Set is a set of pending ids. *Pending is one.
type Set interface {
	// Visit calls visit with the ids, page by page, and removes those that visit returns as done; see Pending.Visit.
	Visit(ctx context.Context, visit func(ctx context.Context, ids []string) (done []string, err error)) error
}

// Options are the parts of a Loop. Name, Pending, Reconcile, Interval and Logger are required.
type Options struct {
	// Name is the reconciler's name in logs and metrics.
	Name    string
	Pending Set
	// Reconcile brings the record of that id closer to its end. An error means that it could not, and is retried with a
	// backoff. If errors are retryable (retryable.Is), the store or the bus is probably away: the third in a pass ends the
	// pass. Any other error belongs to the record alone and does not delay the others.
	Reconcile func(ctx context.Context, id string) (Result, error)
	// Prefetch, if it is set, is called with the ids of a batch before they are reconciled, including those that are not due. It
	// can read their records at once and keep them for the calls of Reconcile, which follow before the next Prefetch. It
	// returns what it knows about each; an id that is missing in the map has the grace period of Options. An error ends the pass.
	Prefetch func(ctx context.Context, ids []string) (map[string]Record, error)
	// Batch bounds the number of ids of one Prefetch. Zero means a page of the pending set, which holds at most 400.
	Batch int

	// Interval is the pause between two passes. A pass that failed because the store or the bus is away is repeated after a
	// second, and then with growing pauses up to Interval.
	Interval time.Duration
	// Grace is how long an id is left alone after this process first saw it, if no prefetched Record says otherwise. It must be
	// longer than the time between adding an id and storing its record, if Reconcile answers Done for a missing record.
	Grace time.Duration
	// Backoff is the first pause of a record after an error or a zero Result. It doubles up to MaxBackoff. The defaults are
	// Interval and five minutes.
	Backoff, MaxBackoff time.Duration
	// Concurrency is how many calls of Reconcile run at the same time. The default is 1; then all functions of Options are called
	// by one goroutine.
	Concurrency int

	// PassBegins and PassEnds, if set, are called before each pass, and after each pass that was complete: it saw every id and
	// read every record.
	PassBegins, PassEnds func()
	// Survey, if set, makes Run start with a pass that calls Prefetch but not Reconcile. It gets the result of that pass. The
	// survey is repeated every second as long as it returns true.
	Survey func(err error) (again bool)

	// IDKey is the key of the id in logs, such as "order_id". The default is "id".
	IDKey  string
	Logger *slog.Logger
}

const (
	defaultMaxBackoff = 5 * time.Minute
	// maxFailures is the number of retryable failures that end a pass: the rest would fail too.
	maxFailures = 3
	// retryPause is the pause after a pass that failed.
	retryPause = time.Second
)

// Loop reconciles the records of a pending set. All its methods may be called by many goroutines. It keeps in memory when each
// record is due. That is lost with the process, so the next process calls Reconcile a little earlier.
type Loop struct {
	o        Options
	outcomes metric.Int64Counter
	wake     chan struct{}

	running sync.Mutex // held during a pass; guards changed and created
	changed *clock.Tracker[string]
	created *clock.Tracker[string]

	mu        sync.Mutex // guards what follows
	schedule  map[string]*due
	triggered []string
	// surveyed: one pass was complete, so the figures below are known.
	surveyed bool
	pending  int
	oldest   time.Time // when the oldest pending record began, on this process's monotonic clock; zero if there is none
}

// due is when a record is reconciled next.
type due struct {
	changed   time.Time
	notBefore time.Time
	backoff   time.Duration
}

// New returns a Loop that does nothing until Run, and registers its metrics.
func New(o Options) (*Loop, error) {
	if o.Interval <= 0 {
		return nil, fmt.Errorf("the interval of reconciler %s must be positive, got %v", o.Name, o.Interval)
	}
	if o.Backoff <= 0 {
		o.Backoff = o.Interval
	}
	if o.MaxBackoff <= 0 {
		o.MaxBackoff = max(defaultMaxBackoff, o.Backoff)
	}
	o.Backoff = min(o.Backoff, o.MaxBackoff)
	o.Concurrency = max(1, o.Concurrency)
	if o.IDKey == "" {
		o.IDKey = "id"
	}
	l := &Loop{
		o: o, wake: make(chan struct{}, 1), schedule: map[string]*due{},
		changed: clock.NewTracker[string](time.Now), created: clock.NewTracker[string](time.Now),
	}
	return l, l.measure(otel.Meter("waybill/platform/reconcile"))
}

// measure registers the metrics. With several replicas each reports the same records, so a dashboard shows the maximum of
// the two gauges and the sum of the outcomes.
func (l *Loop) measure(meter metric.Meter) (err error) {
	name := metric.WithAttributes(attribute.String("reconciler", l.o.Name))
	if l.outcomes, err = meter.Int64Counter("waybill.reconcile.outcomes",
		metric.WithDescription("Calls of a reconciler, by reconciler and outcome: done, requeued, failed.")); err != nil {
		return fmt.Errorf("measure the outcomes of reconciler %s: %w", l.o.Name, err)
	}
	pending, err := meter.Int64ObservableGauge("waybill.reconcile.pending",
		metric.WithDescription("Records that have not reached their end, by reconciler."))
	if err != nil {
		return fmt.Errorf("measure the pending records of reconciler %s: %w", l.o.Name, err)
	}
	oldest, err := meter.Float64ObservableGauge("waybill.reconcile.oldest_age", metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest record that has not reached its end, by reconciler."))
	if err != nil {
		return fmt.Errorf("measure the oldest record of reconciler %s: %w", l.o.Name, err)
	}
	if _, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if !l.surveyed {
			return nil
		}
		age := 0.0
		if !l.oldest.IsZero() {
			age = time.Since(l.oldest).Seconds()
		}
		o.ObserveInt64(pending, int64(l.pending), name)
		o.ObserveFloat64(oldest, age, name)
		return nil
	}, pending, oldest); err != nil {
		return fmt.Errorf("measure reconciler %s: %w", l.o.Name, err)
	}
	return nil
}

// Run makes passes until ctx ends: one at once, or a survey, and then one after every interval. It returns when the call of
// Reconcile that was running has returned.
func (l *Loop) Run(ctx context.Context) {
	first := time.Duration(0)
	if l.o.Survey != nil {
		if !l.survey(ctx) {
			return
		}
		first = l.o.Interval
	}
	timer := time.NewTimer(first)
	defer timer.Stop()
	pause := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
			l.runTriggered(ctx)
			continue
		case <-timer.C:
		}
		err := l.Pass(ctx)
		next := l.o.Interval
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			pause = 0
		default:
			if retryable.Is(err) {
				pause = max(retryPause, 2*pause)
				next = min(pause, l.o.Interval)
			}
			l.o.Logger.WarnContext(ctx, "reconcile pass failed; will retry", l.name(), slog.Duration("retry_after", next), slog.Any("error", err))
		}
		timer.Reset(next)
	}
}

// survey makes the survey, again as long as Options.Survey says so. It returns false if ctx ended before.
func (l *Loop) survey(ctx context.Context) bool {
	for {
		err := l.pass(ctx, false)
		if ctx.Err() != nil {
			return false
		}
		if err != nil {
			l.o.Logger.WarnContext(ctx, "pending records could not be counted", l.name(), slog.Any("error", err))
		}
		if !l.o.Survey(err) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(min(retryPause, l.o.Interval)):
		}
	}
}

// Pass reconciles now every pending record that is due. It returns nil if it saw every id and read every record, also if
// some were not reconciled. Run calls it; a test or a shutdown may call it too.
func (l *Loop) Pass(ctx context.Context) error { return l.pass(ctx, true) }

// Trigger has Run reconcile these ids now, without grace period and backoff. The ids must be in the pending set: Trigger only
// saves time, and forgets the ids if the process ends or Reconcile fails. It does not block.
func (l *Loop) Trigger(ids ...string) {
	l.mu.Lock()
	for _, id := range ids {
		if !slices.Contains(l.triggered, id) {
			l.triggered = append(l.triggered, id)
		}
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *Loop) runTriggered(ctx context.Context) {
	l.mu.Lock()
	ids := l.triggered
	l.triggered = nil
	l.mu.Unlock()
	l.running.Lock()
	defer l.running.Unlock()
	// An id that is done stays in the set until a pass reconciles it once more: it may have been added again by then.
	if _, err := l.page(ctx, ids, &pass{calls: true, now: true, ages: map[string]time.Duration{}}); err != nil && ctx.Err() == nil {
		l.o.Logger.WarnContext(ctx, "triggered records were not reconciled; the next pass will retry", l.name(), slog.Any("error", err))
	}
}

func (l *Loop) name() slog.Attr { return slog.String("reconciler", l.o.Name) }

// pass is one pass over the pending set.
type pass struct {
	// calls: Reconcile is called. now: also for a record that is not due.
	calls, now bool

	mu       sync.Mutex
	ages     map[string]time.Duration // of the records that are pending
	failures int
	failed   error // the failure that ends the pass
}

func (l *Loop) pass(ctx context.Context, calls bool) error {
	l.running.Lock()
	defer l.running.Unlock()
	if l.o.PassBegins != nil {
		l.o.PassBegins()
	}
	p := &pass{calls: calls, ages: map[string]time.Duration{}}
	err := l.o.Pending.Visit(ctx, func(ctx context.Context, ids []string) ([]string, error) { return l.page(ctx, ids, p) })
	if err != nil {
		return err
	}
	l.complete(p)
	if l.o.PassEnds != nil {
		l.o.PassEnds()
	}
	return nil
}

// complete forgets the records that the pass did not see, because another process found them done.
func (l *Loop) complete(p *pass) {
	l.changed.Prune()
	l.created.Prune()
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.schedule {
		if _, pending := p.ages[id]; !pending {
			delete(l.schedule, id)
		}
	}
	l.surveyed, l.pending, l.oldest = true, len(p.ages), time.Time{}
	if l.pending > 0 {
		l.oldest = time.Now().Add(-slices.Max(slices.Collect(maps.Values(p.ages))))
	}
}

// page reconciles the records of a page that are due, and returns the ids that are done.
func (l *Loop) page(ctx context.Context, ids []string, p *pass) (done []string, err error) {
	ids = distinct(ids)
	size := len(ids)
	if l.o.Batch > 0 {
		size = l.o.Batch
	}
	var unreadable []error
	for batch := range slices.Chunk(ids, max(1, size)) {
		var records map[string]Record
		if l.o.Prefetch != nil {
			if records, err = l.o.Prefetch(ctx, batch); err != nil {
				return done, join(err, unreadable)
			}
		}
		ended, faults := l.batch(ctx, batch, records, p)
		done = append(done, ended...)
		unreadable = append(unreadable, faults...)
		if p.failed != nil {
			return done, join(p.failed, unreadable)
		}
	}
	return done, join(nil, unreadable)
}

func distinct(ids []string) []string {
	seen := make(map[string]bool, len(ids))
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		known := seen[id]
		seen[id] = true
		return known
	})
}

func (l *Loop) batch(ctx context.Context, ids []string, records map[string]Record, p *pass) (done []string, unreadable []error) {
	var calls sync.WaitGroup
	slots := make(chan struct{}, l.o.Concurrency)
	for _, id := range ids {
		r, known := records[id]
		if !known {
			r.Grace = l.o.Grace
		}
		ready := l.observe(id, r, p)
		if r.Unreadable != nil {
			l.o.Logger.ErrorContext(ctx, "record cannot be read; it stays pending", l.name(), slog.String(l.o.IDKey, id), slog.Any("error", r.Unreadable))
			if !errors.Is(r.Unreadable, state.ErrUnreadable) {
				r.Unreadable = fmt.Errorf("%w: %w", state.ErrUnreadable, r.Unreadable)
			}
			unreadable = append(unreadable, r.Unreadable)
			continue
		}
		if !p.calls || !ready && !p.now {
			continue
		}
		slots <- struct{}{} // wait until one of the running calls has ended
		if p.ended() {
			break
		}
		call := func() {
			if l.reconcile(ctx, id, p) {
				p.mu.Lock()
				defer p.mu.Unlock()
				done = append(done, id)
			}
		}
		if l.o.Concurrency == 1 {
			call()
			<-slots
			continue
		}
		calls.Go(func() {
			defer func() { <-slots }()
			call()
		})
	}
	calls.Wait()
	return done, unreadable
}

// observe notes what the pass knows about a record, and reports whether the record is due.
func (l *Loop) observe(id string, r Record, p *pass) (ready bool) {
	age := l.created.SinceFirstSeen(id, r.Created)
	if !r.Created.IsZero() {
		age = l.created.Age(id, r.Created)
	}
	p.mu.Lock()
	p.ages[id] = age
	p.mu.Unlock()
	if !p.calls {
		return false // a survey only counts; grace periods start with the first pass that can call Reconcile
	}
	idle := l.changed.SinceFirstSeen(id, r.Changed)
	if !r.Changed.IsZero() {
		idle = l.changed.Age(id, r.Changed)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.schedule[id]
	if d != nil && !d.changed.Equal(r.Changed) {
		d = nil
	}
	if d == nil {
		d = &due{changed: r.Changed}
		l.schedule[id] = d
	}
	return idle >= r.Grace && !time.Now().Before(d.notBefore)
}

// reconcile makes one call and schedules the next one.
func (l *Loop) reconcile(ctx context.Context, id string, p *pass) (done bool) {
	result, err := l.o.Reconcile(ctx, id)
	if err != nil && ctx.Err() != nil {
		p.fail(err, 1) // the process ends; the record is not at fault
		return false
	}
	outcome := "requeued"
	switch {
	case err != nil:
		outcome, result = "failed", Result{}
	case result.Done:
		outcome = "done"
	}
	l.outcomes.Add(ctx, 1, metric.WithAttributes(attribute.String("reconciler", l.o.Name), attribute.String("outcome", outcome)))
	pause := l.next(id, result)
	if result.Done {
		// Nothing may be left of it: the id can be added again, for a new record.
		l.changed.Forget(id)
		l.created.Forget(id)
		p.mu.Lock()
		delete(p.ages, id)
		p.mu.Unlock()
	}
	if err == nil {
		return result.Done
	}
	level := slog.LevelError
	if retryable.Is(err) {
		level = slog.LevelWarn
		if p.fail(err, maxFailures) {
			return false // the pass returns the error
		}
	}
	l.o.Logger.Log(ctx, level, "record was not reconciled; will retry",
		l.name(), slog.String(l.o.IDKey, id), slog.Duration("retry_after", pause), slog.Any("error", err))
	return false
}

// ended reports whether a failure ends the pass.
func (p *pass) ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed != nil
}

// fail counts a failure, and reports whether it ends the pass because there were so many.
func (p *pass) fail(err error, limit int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failures++; p.failures < limit {
		return false
	}
	if p.failed == nil {
		p.failed = err
	}
	return true
}

// next schedules the next call after a result, and returns the pause.
func (l *Loop) next(id string, result Result) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.schedule[id]
	if result.Done || d == nil {
		delete(l.schedule, id)
		return 0
	}
	pause := result.RequeueAfter
	if pause > 0 {
		d.backoff = 0
	} else {
		if d.backoff = min(2*d.backoff, l.o.MaxBackoff); d.backoff == 0 {
			d.backoff = l.o.Backoff
		}
		pause = d.backoff
	}
	d.notBefore = time.Now().Add(pause)
	return pause
}
