// Package telemetry sets up a service's logs, traces and metrics. Spans always exist, so every log line and every error has a trace
// id. Traces and metrics are exported if OTEL_EXPORTER_OTLP_ENDPOINT, or the variable of one signal, names a collector.
package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
)

// Options configure the telemetry of one service.
type Options struct {
	// Service is the OpenTelemetry service name; OTEL_SERVICE_NAME overrides it.
	Service string
	Log     io.Writer
	// Format is "json" or "text".
	Format string
	Level  slog.Level
}

// Telemetry is the running telemetry. Stop ends it.
type Telemetry struct {
	Logger *slog.Logger
	stops  []func(context.Context) error
}

// Start sets the process's OpenTelemetry providers and propagator and creates its logger. The exporters use the
// standard OTEL_* variables; OTEL_EXPORTER_OTLP_PROTOCOL is "http/protobuf" (the default) or "grpc".
func Start(ctx context.Context, o Options) (*Telemetry, error) {
	t := &Telemetry{Logger: slog.New(newLogHandler(o))}
	res, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(serviceName(o.Service)), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("describe the service to telemetry: %w", err)
	}
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		t.Logger.Warn("telemetry was not exported", slog.Any("error", err))
	}))

	traces := []trace.TracerProviderOption{trace.WithResource(res)}
	if configured("TRACES") {
		exporter, err := newTraceExporter(ctx)
		if err != nil {
			return nil, fmt.Errorf("start the trace exporter: %w", err)
		}
		traces = append(traces, trace.WithBatcher(exporter))
	}
	tracerProvider := trace.NewTracerProvider(traces...)
	otel.SetTracerProvider(tracerProvider)
	t.stops = append(t.stops, tracerProvider.Shutdown)

	if configured("METRICS") {
		exporter, err := newMetricExporter(ctx)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("start the metric exporter: %w", err), t.Stop(ctx))
		}
		meterProvider := metric.NewMeterProvider(metric.WithResource(res), metric.WithReader(metric.NewPeriodicReader(exporter)))
		otel.SetMeterProvider(meterProvider)
		t.stops = append(t.stops, meterProvider.Shutdown)
	}
	return t, nil
}

// Stop exports what is still buffered and ends the exporters. ctx limits the time.
func (t *Telemetry) Stop(ctx context.Context) error {
	errs := make([]error, 0, len(t.stops))
	for _, stop := range t.stops {
		errs = append(errs, stop(ctx))
	}
	return errors.Join(errs...)
}

func configured(signal string) bool {
	return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
}

func overGRPC(signal string) bool {
	return cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_PROTOCOL"), os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL")) == "grpc"
}

func newTraceExporter(ctx context.Context) (trace.SpanExporter, error) {
	if overGRPC("TRACES") {
		return otlptracegrpc.New(ctx)
	}
	return otlptracehttp.New(ctx)
}

func newMetricExporter(ctx context.Context) (metric.Exporter, error) {
	if overGRPC("METRICS") {
		return otlpmetricgrpc.New(ctx)
	}
	return otlpmetrichttp.New(ctx)
}
