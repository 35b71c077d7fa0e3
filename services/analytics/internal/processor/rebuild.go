package processor

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"waybill/contracts"
	"waybill/services/analytics/internal/anomaly"
	"waybill/services/analytics/internal/event"
	"waybill/services/analytics/internal/metric"
	"waybill/services/analytics/internal/pipeline"
	"waybill/services/analytics/internal/store"
)

// rebuildUntilReady rebuilds the windows and retries until that succeeds. It returns false if ctx ends first.
func (p *Processor) rebuildUntilReady(ctx context.Context) bool {
	var begun time.Time
	done := retry(ctx, 100*time.Millisecond, 10*time.Second, func() error {
		begun = time.Now()
		return p.rebuild(ctx)
	}, func(err error) {
		p.options.Logger.WarnContext(ctx, "windows not rebuilt from the store; will retry", slog.Any("error", err))
	})
	if !done {
		return false
	}
	stats := p.Stats()
	p.options.Logger.InfoContext(ctx, "windows rebuilt from the store", slog.Uint64("views", stats.Views), slog.Uint64("purchases", stats.Purchases),
		slog.Uint64("recommendations", stats.Recommendations), slog.Duration("took", time.Since(begun)))
	close(p.ready)
	return true
}

// alertWindow is how long before the last stored event the previous process can have stored an event without publishing its
// alerts. It is longer than all attempts at a delivery.
const alertWindow = time.Minute

// rebuild builds the windows from the stored events, in the order in which these arrived. The previous process may have
// stopped before it published its last alerts, so those are pending again.
func (p *Processor) rebuild(ctx context.Context) error {
	windows, err := pipeline.New(p.options.Pipeline)
	if err != nil {
		return err
	}
	type finding struct {
		anomaly.Anomaly

		storedAt time.Time
	}
	var found []anomaly.Anomaly
	var recent []finding
	var newest time.Time
	now := p.options.Now()
	// Of older events only purchases matter, for the purchase histories.
	oldestInWindows := now.Add(-metric.Hour.Length() - p.options.Pipeline.Lateness - time.Minute)
	for row, err := range p.options.Store.Events(ctx, now.Add(-p.options.Rebuild)) {
		if err != nil {
			return err
		}
		if row.Timestamp.Before(oldestInWindows) && row.Type != contracts.TypeProductPurchased {
			continue
		}
		e, ok := p.fromRow(ctx, &row)
		if !ok {
			continue
		}
		if row.ProcessedAt.After(newest) {
			newest = row.ProcessedAt
		}
		if p.tooFarAhead(&row, now) {
			continue
		}
		_, found = windows.Add(&e, found[:0])
		if len(found) == 0 {
			continue
		}
		recent = slices.DeleteFunc(recent, func(f finding) bool { return newest.Sub(f.storedAt) > alertWindow })
		for _, a := range found {
			recent = append(recent, finding{a, row.ProcessedAt})
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.windows, p.pending = windows, nil
	for _, f := range recent {
		if newest.Sub(f.storedAt) <= alertWindow {
			p.pending = append(p.pending, f.Anomaly)
		}
	}
	return nil
}

// publishRebuilt publishes the alerts that are pending after a rebuild.
func (p *Processor) publishRebuilt(ctx context.Context) {
	retry(ctx, time.Second, time.Second, func() error { return p.publishAlerts(ctx) }, func(error) {})
}

// tooFarAhead reports whether the row's time is too far in the future, because the clock of the process that stored it was
// ahead. To count such a row would make all current events late.
func (p *Processor) tooFarAhead(row *store.Event, now time.Time) bool {
	return row.Timestamp.Sub(now) > p.options.MaxAhead
}

// fromRow returns the event of a row. ok is false if the row cannot be read: another version, or another program, stored it.
// The row is skipped, because a retry would not help.
func (p *Processor) fromRow(ctx context.Context, row *store.Event) (e event.Event, ok bool) {
	e, err := event.FromRecord(event.Record{
		ID: row.ID, Type: row.Type, User: row.UserID, Session: row.SessionID, Product: row.ProductID, At: row.Timestamp,
		Value: row.Value, Properties: string(row.Properties),
	})
	if err != nil {
		p.options.Logger.WarnContext(ctx, "stored event is not valid; skipped", slog.String("event_id", row.ID), slog.Any("error", err))
	}
	return e, err == nil
}
