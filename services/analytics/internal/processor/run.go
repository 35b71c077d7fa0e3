package processor

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"waybill/services/analytics/internal/store"
)

// Run rebuilds the windows from the store. Then it writes the series, reads what other replicas stored, and removes old rows,
// until ctx ends. It retries what fails.
func (p *Processor) Run(ctx context.Context) {
	if !p.rebuildUntilReady(ctx) {
		return
	}
	var loops sync.WaitGroup
	defer loops.Wait()
	loops.Go(func() { p.publishRebuilt(ctx) })
	loops.Go(func() { p.every(ctx, p.options.Record, "series not written; will retry", p.record) })
	loops.Go(func() { p.every(ctx, time.Hour, "old rows not removed; will retry", p.removeOld) })
	if p.options.Follow > 0 {
		loops.Go(func() { p.every(ctx, p.options.Follow, "events of other replicas not read; will retry", p.follow()) })
	}
}

// every calls do at whole multiples of an interval.
func (p *Processor) every(ctx context.Context, interval time.Duration, failure string, do func(ctx context.Context, at time.Time) error) {
	for {
		now := p.options.Now()
		next := now.Truncate(interval).Add(interval)
		if !wait(ctx, next.Sub(now)) {
			return
		}
		if err := do(ctx, next); err != nil && ctx.Err() == nil {
			p.options.Logger.WarnContext(ctx, failure, slog.Any("error", err))
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

// retry calls do until it succeeds, with growing pauses from shortest to longest. It returns false if ctx ends first.
func retry(ctx context.Context, shortest, longest time.Duration, do func() error, failed func(err error)) bool {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval, pauses.Multiplier = shortest, longest, 2
	_, err := backoff.Retry(ctx, func() (struct{}, error) { return struct{}{}, do() }, backoff.WithBackOff(pauses),
		backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, _ time.Duration) { failed(err) }))
	return err == nil
}

func (p *Processor) removeOld(ctx context.Context, at time.Time) error {
	expirer, ok := p.options.Store.(store.Expirer)
	if !ok {
		return nil
	}
	removed, err := expirer.Expire(ctx, store.Expiry{
		Events: at.Add(-p.options.Keep.Events), Metrics: at.Add(-p.options.Keep.Metrics), Anomalies: at.Add(-p.options.Keep.Anomalies),
	})
	if err == nil && removed != (store.Counts{}) {
		p.options.Logger.InfoContext(ctx, "old rows removed", slog.Int64("events", removed.Events), slog.Int64("metrics", removed.Metrics),
			slog.Int64("anomalies", removed.Anomalies))
	}
	return err
}
