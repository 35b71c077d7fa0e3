package processor

import (
	"context"
	"time"

	"waybill/services/analytics/internal/event"
)

// Each read of the store covers the events of the last moments, and every tenth read all events that can still be counted.
const (
	recentEvents = 15 * time.Second
	fullReadEach = 10
)

// follow returns a function that counts the events that other replicas stored. The windows skip events that this process
// counted itself.
func (p *Processor) follow() func(ctx context.Context, at time.Time) error {
	reads := 0
	return func(ctx context.Context, _ time.Time) error {
		back := max(recentEvents, 3*p.options.Follow)
		if reads%fullReadEach == 0 {
			back = max(back, p.options.Pipeline.Lateness)
		}
		for row, err := range p.options.Store.Events(ctx, p.options.Now().Add(-back)) {
			if err != nil {
				return err
			}
			if p.tooFarAhead(&row, p.options.Now()) {
				continue
			}
			if e, ok := p.fromRow(ctx, &row); ok {
				p.mu.Lock()
				p.add([]event.Event{e})
				p.mu.Unlock()
			}
		}
		reads++ // only now: a full read that failed is repeated
		return p.publishAlerts(ctx)
	}
}
