package processor

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"waybill/contracts"
	"waybill/services/analytics/internal/anomaly"
	"waybill/services/analytics/internal/event"
	"waybill/services/analytics/internal/metric"
	"waybill/services/analytics/internal/pipeline"
	"waybill/services/analytics/internal/store"
)

// Run makes the windows from the store and then keeps series, other replicas' events and retention up to date, until ctx
// ends. What fails is tried again.
func (s *Stream) Run(ctx context.Context) {
	if !s.begin(ctx) {
		return
	}
	var loops sync.WaitGroup
	defer loops.Wait()
	loops.Go(func() { s.announceFound(ctx) })
	loops.Go(func() { s.every(ctx, s.options.Record, "record metrics", s.record) })
	loops.Go(func() { s.every(ctx, time.Hour, "remove old rows", s.expire) })
	if s.options.Follow > 0 {
		loops.Go(func() { s.every(ctx, s.options.Follow, "follow other replicas", s.follow()) })
	}
}

// begin makes the windows, however often that takes; it is false when ctx ends first.
func (s *Stream) begin(ctx context.Context) bool {
	const longest = 10 * time.Second
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, longest) {
		begun := time.Now()
		err := s.rebuild(ctx)
		if err == nil {
			stats := s.Stats()
			s.options.Logger.InfoContext(ctx, "the windows are made from the store", slog.Uint64("views", stats.Views),
				slog.Uint64("purchases", stats.Purchases), slog.Uint64("recommendations", stats.Recommendations), slog.Duration("took", time.Since(begun)))
			close(s.ready)
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		s.options.Logger.WarnContext(ctx, "the windows could not be made from the store", slog.Any("error", err))
		if !wait(ctx, pause) {
			return false
		}
	}
}

// announceFound announces what the process before found and perhaps did not announce.
func (s *Stream) announceFound(ctx context.Context) {
	const pause = time.Second
	for err := s.announce(ctx); err != nil; err = s.announce(ctx) {
		if !wait(ctx, pause) {
			return
		}
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// every does something at whole multiples of an interval.
func (s *Stream) every(ctx context.Context, interval time.Duration, what string, do func(ctx context.Context, at time.Time) error) {
	for {
		now := s.options.Now()
		next := now.Truncate(interval).Add(interval)
		if !wait(ctx, next.Sub(now)) {
			return
		}
		if err := do(ctx, next); err != nil && ctx.Err() == nil {
			s.options.Logger.WarnContext(ctx, "could not "+what+", which is tried again", slog.Any("error", err))
		}
	}
}

// unannounced is how long before the last event was stored the process may have ended without announcing what an event
// showed: longer than a delivery is tried.
const unannounced = time.Minute

// rebuild makes the windows from what is stored, in the order in which it arrived. What the last events before the end of
// the process before showed is announced, perhaps again.
func (s *Stream) rebuild(ctx context.Context) error {
	windows, err := pipeline.New(s.options.Pipeline)
	if err != nil {
		return err
	}
	type finding struct {
		anomaly.Anomaly

		stored time.Time
	}
	var found []anomaly.Anomaly
	var recent []finding
	var newest time.Time
	now := s.options.Now()
	// Beyond every window only purchases are of use, for their histories.
	windowed := now.Add(-metric.Hour.Length() - s.options.Pipeline.Lateness - time.Minute)
	for row, err := range s.options.Store.Events(ctx, now.Add(-s.options.Rebuild)) {
		if err != nil {
			return err
		}
		if row.Timestamp.Before(windowed) && row.Type != contracts.TypeProductPurchased {
			continue
		}
		e, ok := s.stored(ctx, &row)
		if !ok {
			continue
		}
		if row.ProcessedAt.After(newest) {
			newest = row.ProcessedAt
		}
		if s.tooFarAhead(&row, now) {
			continue
		}
		_, found = windows.Add(&e, found[:0])
		if len(found) == 0 {
			continue
		}
		recent = slices.DeleteFunc(recent, func(f finding) bool { return newest.Sub(f.stored) > unannounced })
		for _, a := range found {
			recent = append(recent, finding{a, row.ProcessedAt})
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.windows, s.pending = windows, nil
	for _, f := range recent {
		if newest.Sub(f.stored) <= unannounced {
			s.pending = append(s.pending, f.Anomaly)
		}
	}
	return nil
}

// tooFarAhead reports whether a process stored the row whose clock was ahead of this one, or before this one was set back. Counting
// it would make every true event too late for the windows.
func (s *Stream) tooFarAhead(row *store.Event, now time.Time) bool {
	return row.Timestamp.Sub(now) > s.options.MaxAhead
}

// stored is the event of a row.
func (s *Stream) stored(ctx context.Context, row *store.Event) (event.Event, bool) {
	e, err := event.FromRecord(event.Record{
		ID: row.ID, Type: row.Type, User: row.UserID, Session: row.SessionID, Product: row.ProductID, At: row.Timestamp,
		Value: row.Value, Properties: string(row.Properties),
	})
	if err != nil {
		// Someone else wrote it, or a version that took what this one does not. It cannot be counted, and waiting helps nobody.
		s.options.Logger.WarnContext(ctx, "a stored event cannot be counted", slog.String("event_id", row.ID), slog.Any("error", err))
	}
	return e, err == nil
}

// Each look at the store reaches back over the events that happened lately, and every now and then over all that may still
// be counted.
const (
	lately     = 15 * time.Second
	everySoFar = 10
)

// follow counts what other replicas stored. What this one counted itself is known by its id.
func (s *Stream) follow() func(ctx context.Context, at time.Time) error {
	looks := 0
	return func(ctx context.Context, _ time.Time) error {
		back := max(lately, 3*s.options.Follow)
		if looks%everySoFar == 0 {
			back = max(back, s.options.Pipeline.Lateness)
		}
		for row, err := range s.options.Store.Events(ctx, s.options.Now().Add(-back)) {
			if err != nil {
				return err
			}
			if s.tooFarAhead(&row, s.options.Now()) {
				continue
			}
			if e, ok := s.stored(ctx, &row); ok {
				s.mu.Lock()
				s.add([]event.Event{e})
				s.mu.Unlock()
			}
		}
		looks++ // a look that failed is made again
		return s.announce(ctx)
	}
}

// slower is how often the points of the longer windows are written.
const slower = 5 * time.Minute

// record writes the windows that end at a time: once now, and once more when hardly anything can come that still changes
// them. Sessions have no series: there are too many, and each is short.
func (s *Stream) record(ctx context.Context, at time.Time) error {
	final := at.Add(-s.settled())
	for _, end := range []time.Time{at, final} {
		for _, w := range metric.Windows() {
			if w != metric.Minute && !end.Equal(end.Truncate(max(slower, s.options.Record))) {
				continue
			}
			if rows := s.points(w, end); len(rows) > 0 {
				if err := s.options.Store.PutMetrics(ctx, rows); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// settled is how long after its end a window is written for the last time: as late as the windows can still be asked for.
func (s *Stream) settled() time.Duration {
	return max(0, (s.options.Pipeline.Lateness-s.options.MaxAhead).Truncate(s.options.Record)-s.options.Record)
}

// points are the rows of the windows that end at a time.
func (s *Stream) points(w metric.Window, end time.Time) []store.Metric {
	now := s.options.Now()
	var rows []store.Metric
	s.mu.Lock()
	defer s.mu.Unlock()
	for m := range s.all(w, end.Add(-time.Second)) {
		if strings.HasPrefix(m.Name, "session_") {
			break // they come last
		}
		rows = append(rows, store.Metric{
			Name: m.Name, Window: m.Window.String(), Timestamp: m.To, Count: m.Count, Sum: m.Sum, Mean: m.Mean, Median: m.Median,
			Min: m.Min, Max: m.Max, StdDev: m.StdDev, P95: m.P95, P99: m.P99, ComputedAt: now,
		})
	}
	return rows
}

func (s *Stream) expire(ctx context.Context, at time.Time) error {
	old, ok := s.options.Store.(store.Expirer)
	if !ok {
		return nil
	}
	gone, err := old.Expire(ctx, store.Expiry{
		Events: at.Add(-s.options.Keep.Events), Metrics: at.Add(-s.options.Keep.Metrics), Anomalies: at.Add(-s.options.Keep.Anomalies),
	})
	if err == nil && gone != (store.Counts{}) {
		s.options.Logger.InfoContext(ctx, "old rows are removed", slog.Int64("events", gone.Events), slog.Int64("metrics", gone.Metrics),
			slog.Int64("anomalies", gone.Anomalies))
	}
	return err
}
