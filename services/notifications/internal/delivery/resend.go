package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"waybill/services/notifications/internal/message"
)

// Resend starts a new round for a message with an outcome, and records the request in the message. To repeat the same request changes
// nothing unless the message has failed since.
func (c *Courier) Resend(ctx context.Context, id, actor, reason string, evenIfDelivered bool) (message.Message, error) {
	now := time.Now()
	m, err := c.Messages.Get(ctx, id)
	if err != nil {
		return m, err
	}
	next := m
	if changed, err := next.Resend(actor, reason, evenIfDelivered, now); err != nil || !changed {
		return m, err
	}
	// The entry is added before the round begins: if this process ends in between, another one finds the message.
	if err := c.Pending.Add(ctx, entryOf(id, next.Round, now)); err != nil {
		return m, fmt.Errorf("resend notification %s: %w", id, err)
	}
	var refusal error
	var changed bool
	m, err = c.Messages.Update(ctx, id, func(m *message.Message) bool {
		if m.Round >= next.Round {
			changed, refusal = false, message.ErrPending(m.State)
			if n := len(m.Resends); n > 0 && m.Resends[n-1].Actor == actor && m.Resends[n-1].Reason == reason {
				refusal = nil // a concurrent request was the same
			}
			return false
		}
		changed, refusal = m.Resend(actor, reason, evenIfDelivered, now)
		return changed
	})
	if err != nil {
		return m, fmt.Errorf("resend notification %s: %w", id, err)
	}
	if refusal != nil || !changed {
		return m, refusal
	}
	c.metrics.resends.Add(ctx, 1, metric.WithAttributes(attribute.String("channel", m.Channel)))
	c.Logger.InfoContext(ctx, "operator resends notification; it is pending again", slog.String("notification_id", id),
		slog.String("channel", m.Channel), slog.Int("resends", len(m.Resends)))
	c.putNow(&m)
	return m, nil
}
