// Command analytics counts once what customers view and buy, keeps it, finds what is unusual, and answers queries.
package main

import (
	"context"
	"io"
	"time"

	"waybill/contracts"
	"waybill/platform/service"
	"waybill/services/analytics/internal/api"
	"waybill/services/analytics/internal/events"
	"waybill/services/analytics/internal/ingest"
	"waybill/services/analytics/internal/processor"
)

func main() { service.Main(contracts.AppAnalytics, run) }

// run runs the service until ctx ends.
func run(ctx context.Context, environ []string, stdout io.Writer) error {
	c, err := parse(environ)
	if err != nil {
		return err
	}
	return service.Run(ctx, service.Options{
		Name: contracts.AppAnalytics, Config: c.Service, PubSub: contracts.TelemetryBus, StateStore: contracts.StateStore, Log: stdout,
	}, c.build)
}

// build makes the parts of this service.
func (c Config) build(ctx context.Context, s *service.Service) (service.Parts, error) {
	rows, err := c.open(ctx)
	if err != nil {
		return service.Parts{}, err
	}
	s.OnStop(rows.Close)
	batches := c.ingest()
	batches.Publish = events.ToBus(s.Publisher)
	buffer, err := ingest.New(batches)
	if err != nil {
		return service.Parts{}, err
	}
	publisher := &events.Publisher{Bus: s.Publisher, Buffer: buffer}
	processing := c.processor()
	processing.Store, processing.PublishAlerts, processing.Logger = rows, publisher.PublishAlerts, s.Logger
	windows, err := processor.New(processing)
	if err != nil {
		return service.Parts{}, err
	}
	handlers, err := events.New(c.events(windows, publisher))
	if err != nil {
		return service.Parts{}, err
	}
	edge := &api.API{
		Publisher: publisher, Live: windows, History: rows, MaxAhead: time.Duration(c.MaxAhead), PublishTimeout: time.Duration(c.IngestWait),
		LiveInterval: time.Duration(c.LiveInterval), MaxLiveStreams: int(c.LiveStreams), Stopping: ctx.Done(), Logger: s.Logger,
	}
	checks := []service.Check{{Name: "windows", Ask: windows.Ready}}
	if file, ok := rows.(interface {
		Writable(ctx context.Context) error
	}); ok { // Azure Data Explorer has no write that is cheap
		checks = append(checks, service.Check{Name: "analytics_store", Ask: file.Writable})
	}
	return service.Parts{
		API:           api.Info(),
		Mount:         edge.Mount,
		Subscriptions: handlers.Subscriptions(),
		Checks:        checks,
		Background:    []service.Task{windows.Run},
		// Requests wait until their events are published.
		UntilServed: []service.Task{func(ctx context.Context) {
			defer context.AfterFunc(ctx, buffer.Close)()
			buffer.Run(ctx)
		}},
	}, nil
}
