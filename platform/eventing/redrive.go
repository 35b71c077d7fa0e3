package eventing

import (
	"context"
	"fmt"
	"log/slog"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
)

// Handles reports whether this app has a handler for events of that type on that topic.
func (r *Receiver) Handles(topic, eventType string) bool {
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

// Redrive calls the handler of a dead-lettered event again, with the attempts and timeouts of a delivery, in the event's own
// trace, which links to that of ctx. It returns the error for which the event was not processed. Redrive does not dead-letter or
// publish the event: it stays with the caller.
func (r *Receiver) Redrive(ctx context.Context, topic string, e Event) error {
	s, ok := r.subscription(topic)
	if !ok || !r.Handles(topic, e.Type) {
		return Reject(fmt.Errorf("no handler for %s of topic %s", e.Type, topic))
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
