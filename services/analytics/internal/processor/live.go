package processor

import (
	"waybill/services/analytics/internal/anomaly"
	"waybill/services/analytics/internal/metric"
	"waybill/services/analytics/internal/pipeline"
)

// Statistics returns those of a metric in the window that ends now. All numbers are zero if nothing happened in it.
func (p *Processor) Statistics(name string, w metric.Window) metric.Statistics {
	at := p.options.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	stats, ok := p.windows.Statistics(name, w, at)
	if !ok {
		stats.Name, stats.Window = name, w
		stats.From, stats.To = w.Bounds(at)
	}
	return stats
}

// Stats returns the figures of the windows themselves.
func (p *Processor) Stats() pipeline.Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.windows.Stats()
}

// maxBehind is how many anomalies a watcher may be behind before it misses some.
const maxBehind = 64

// Watch returns a channel of the anomalies that are found from now on; stop ends it.
func (p *Processor) Watch() (found <-chan anomaly.Anomaly, stop func()) {
	ch := make(chan anomaly.Anomaly, maxBehind)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watchers[ch] = struct{}{}
	return ch, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watchers, ch)
	}
}

// show sends an anomaly to the watchers. The caller holds p.mu, so a watcher that is too far behind misses it: it can read
// the list of anomalies instead.
func (p *Processor) show(a anomaly.Anomaly) {
	for ch := range p.watchers {
		select {
		case ch <- a:
		default:
		}
	}
}
