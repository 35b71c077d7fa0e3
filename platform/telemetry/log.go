package telemetry

import (
	"context"
	"log/slog"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"
)

func serviceName(name string) attribute.KeyValue { return semconv.ServiceName(name) }

func newLogHandler(o Options) slog.Handler {
	options := &slog.HandlerOptions{Level: o.Level}
	if o.Format == "text" {
		return tracing{Handler: slog.NewTextHandler(o.Log, options)}
	}
	options.ReplaceAttr = readableDuration
	return tracing{Handler: slog.NewJSONHandler(o.Log, options).WithAttrs([]slog.Attr{slog.String("service", o.Service)})}
}

// readableDuration makes a duration a text such as 22.6s. A JSON log has nanoseconds otherwise.
func readableDuration(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// tracing adds the ids of the context's span to every record. They are always at the top level, also if the logger has a group, so
// that a search for a trace finds them.
type tracing struct {
	slog.Handler
	// outside is the handler before its first group, and inside what was done to it since; nil without a group.
	outside slog.Handler
	inside  []func(slog.Handler) slog.Handler
}

// Handle adds trace_id and span_id if ctx has a span.
func (h tracing) Handle(ctx context.Context, r slog.Record) error {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return h.Handler.Handle(ctx, r)
	}
	ids := []slog.Attr{slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String())}
	if h.outside == nil {
		r = r.Clone() // the caller's record may share its attributes with others
		r.AddAttrs(ids...)
		return h.Handler.Handle(ctx, r)
	}
	handler := h.outside.WithAttrs(ids)
	for _, step := range h.inside {
		handler = step(handler)
	}
	return handler.Handle(ctx, r)
}

// WithAttrs returns a handler that adds the ids too.
func (h tracing) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	return h.then(h.outside, func(inner slog.Handler) slog.Handler { return inner.WithAttrs(attrs) })
}

// WithGroup puts later attributes, but not the ids, into the group.
func (h tracing) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	outside := h.outside
	if outside == nil {
		outside = h.Handler
	}
	return h.then(outside, func(inner slog.Handler) slog.Handler { return inner.WithGroup(name) })
}

// then returns h after another step. Inside a group, it also records the step.
func (h tracing) then(outside slog.Handler, step func(slog.Handler) slog.Handler) tracing {
	next := tracing{Handler: step(h.Handler), outside: outside}
	if outside != nil {
		next.inside = append(slices.Clip(h.inside), step)
	}
	return next
}
