package telemetry

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"
)

func serviceName(name string) attribute.KeyValue { return semconv.ServiceName(name) }

func newLogHandler(o Options) slog.Handler {
	options := &slog.HandlerOptions{Level: o.Level}
	if o.Format == "text" {
		return tracing{slog.NewTextHandler(o.Log, options)}
	}
	return tracing{slog.NewJSONHandler(o.Log, options).WithAttrs([]slog.Attr{slog.String("service", o.Service)})}
}

// tracing adds the ids of the context's span to every record.
type tracing struct{ slog.Handler }

func (h tracing) Handle(ctx context.Context, r slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		r.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h tracing) WithAttrs(attrs []slog.Attr) slog.Handler {
	return tracing{h.Handler.WithAttrs(attrs)}
}
func (h tracing) WithGroup(name string) slog.Handler { return tracing{h.Handler.WithGroup(name)} }
