package processor

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"waybill/platform/retryable"
	"waybill/services/analytics/internal/anomaly"
	"waybill/services/analytics/internal/store"
)

// publishAlerts stores the pending anomalies and publishes an alert for each. It is idempotent: their ids follow from what
// was found.
func (p *Processor) publishAlerts(ctx context.Context) error {
	if !p.hasPending() {
		return nil
	}
	select {
	case p.publishing <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("publish alerts: %w", retryable.Mark(context.Cause(ctx))) // another delivery is still publishing
	}
	defer func() { <-p.publishing }()
	p.mu.Lock()
	found := slices.Clone(p.pending)
	p.mu.Unlock()
	if len(found) == 0 {
		return nil
	}
	err := p.alert(ctx, found)
	if err != nil && !retryable.Is(err) {
		err = p.alertEach(ctx, found)
	}
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.pending = slices.Clone(p.pending[len(found):])
	p.mu.Unlock()
	return nil
}

func (p *Processor) hasPending() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pending) > 0
}

// alertEach publishes the alerts one by one and drops those that can never be published: such an alert must not block events.
func (p *Processor) alertEach(ctx context.Context, found []anomaly.Anomaly) error {
	for i := range found {
		err := p.alert(ctx, found[i:i+1])
		switch {
		case err == nil:
		case retryable.Is(err):
			return err
		default:
			p.options.Logger.ErrorContext(ctx, "alert cannot be published; dropped", slog.String("anomaly_id", found[i].ID), slog.Any("error", err))
		}
	}
	return nil
}

func (p *Processor) alert(ctx context.Context, found []anomaly.Anomaly) error {
	now := p.options.Now()
	rows := make([]store.Anomaly, len(found))
	for i, a := range found {
		rows[i] = store.Anomaly{
			ID: a.ID, Type: a.Kind, ProductID: a.Product, Expected: a.Expected, Seen: a.Seen, Score: a.Score, Sentence: a.Sentence,
			Timestamp: a.At, UpdatedAt: now,
		}
	}
	if err := p.options.Store.PutAnomalies(ctx, rows); err != nil {
		return fmt.Errorf("store %d anomalies: %w", len(rows), store.Failed(err))
	}
	if err := p.options.PublishAlerts(ctx, found); err != nil {
		return fmt.Errorf("publish %d alerts: %w", len(found), err)
	}
	return nil
}
