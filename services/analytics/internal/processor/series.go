package processor

import (
	"context"
	"strings"
	"time"

	"waybill/services/analytics/internal/metric"
	"waybill/services/analytics/internal/store"
)

// longInterval is how often the points of the longer windows are written.
const longInterval = 5 * time.Minute

// record writes the windows that end at a time. It writes each window twice: when it ends, and again when late events can
// hardly change it any more. Sessions have no series, because there are too many and each is short.
func (p *Processor) record(ctx context.Context, at time.Time) error {
	final := at.Add(-p.finalDelay())
	for _, end := range []time.Time{at, final} {
		for _, w := range metric.Windows() {
			if w != metric.Minute && !end.Equal(end.Truncate(max(longInterval, p.options.Record))) {
				continue
			}
			if points := p.points(w, end); len(points) > 0 {
				if err := p.options.Store.PutMetrics(ctx, points); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// finalDelay is how long after its end a window is written for the last time: as late as the pipeline still has it.
func (p *Processor) finalDelay() time.Duration {
	return max(0, (p.options.Pipeline.Lateness-p.options.MaxAhead).Truncate(p.options.Record)-p.options.Record)
}

// points are the rows of the windows that end at a time.
func (p *Processor) points(w metric.Window, end time.Time) []store.Metric {
	now := p.options.Now()
	var rows []store.Metric
	p.mu.Lock()
	defer p.mu.Unlock()
	for m := range p.windows.All(w, end.Add(-time.Second)) {
		if strings.HasPrefix(m.Name, "session_") {
			break // sessions come last
		}
		rows = append(rows, store.Metric{
			Name: m.Name, Window: m.Window.String(), Timestamp: m.To, Count: m.Count, Sum: m.Sum, Mean: m.Mean, Median: m.Median,
			Min: m.Min, Max: m.Max, StdDev: m.StdDev, P95: m.P95, P99: m.P99, ComputedAt: now,
		})
	}
	return rows
}
