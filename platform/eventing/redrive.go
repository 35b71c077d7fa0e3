package eventing

import (
	"context"
	"fmt"
	"log/slog"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
)

// Takes reports whether this app has a handler for the events of that type on that topic.
func (r *Receiver) Takes(topic, eventType string) bool {
	s, ok := r.subscription(topic)
	return ok && (s.Bulk != nil && s.Bulk.Handle != nil || s.Handlers[eventType] != nil)
}

func (r *Receiver) subscription(topic string) (Subscription, bool) {
	for _, s := range r.subscriptions {
		if s.Topic == topic {
			return s, true
		}
	}
	return Subscription{}, false
}

type redriven struct{}

// Redriven reports whether a handler was called by Redrive.
func Redriven(ctx context.Context) bool { return ctx.Value(redriven{}) != nil }

// Redrive gives an event that was dead-lettered to its handler once more, as often and as long as a delivery would and in the
// event's own trace, which links to that of ctx. It returns what kept the event from being processed; Retryable tells whether
// that can pass by itself. Nothing is dead-lettered or published by Redrive, so the event stays with the caller.
func (r *Receiver) Redrive(ctx context.Context, topic string, e Event) error {
	s, ok := r.subscription(topic)
	if !ok || !r.Takes(topic, e.Type) {
		return Reject(fmt.Errorf("nobody here takes %s from %s", e.Type, topic))
	}
	if err := identified(e); err != nil {
		return err
	}
	e.DeadLetter = nil
	ctx = context.WithValue(ctx, redriven{}, true)
	asked := trace.LinkFromContext(ctx)
	ctx, span := otel.Tracer("waybill/platform/eventing").Start(e.Trace(ctx), "process "+e.Type, processing(s, e, asked)...)
	defer span.End()
	handle := s.Handlers[e.Type]
	if handle == nil {
		handle = func(ctx context.Context, e Event) error { return r.callBulk(ctx, s, []Event{e})[0] }
	}
	err := r.attempt(ctx, span, e, handle)
	outcome := "done"
	switch {
	case err == nil:
	case Retryable(err):
		outcome = "retry"
	default:
		outcome, err = "dead_lettered", r.final(err)
	}
	r.logger.InfoContext(ctx, "event redriven", eventAttrs(s, e), slog.String("outcome", outcome), slog.Any("error", err))
	r.count(ctx, e.Type, outcome, 1)
	return err
}
