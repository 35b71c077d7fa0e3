// Command analytics takes what customers look at and buy, counts it once, keeps it, finds what is unusual, and answers
// queries. This file only puts the parts together.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"waybill/contracts"
	"waybill/platform/config"
	"waybill/platform/deadletter"
	"waybill/platform/eventing"
	"waybill/platform/rest"
	"waybill/platform/serve"
	"waybill/platform/service"
	"waybill/platform/state"
	"waybill/services/analytics/internal/api"
	"waybill/services/analytics/internal/events"
	"waybill/services/analytics/internal/ingest"
	"waybill/services/analytics/internal/processor"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Environ(), os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "analytics:", err)
		os.Exit(1)
	}
}

// statePatience is how long a call waits for a sidecar or a state store that is away for a moment.
const statePatience = 4 * time.Second

// run is the service from its start until ctx ends.
func run(ctx context.Context, environ []string, stdout io.Writer) (err error) {
	c, err := parse(environ)
	if err != nil {
		return err
	}
	svc, err := service.Start(ctx, contracts.AppAnalytics, c.Service, stdout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, svc.Stop(ctx)) }()
	dapr, logger := svc.Sidecar, svc.Logger
	bus, err := eventing.NewPublisher(dapr.Client, contracts.TelemetryBus)
	if err != nil {
		return err
	}
	rows, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()

	batches := c.ingest()
	batches.Publish = events.ToBus(bus)
	buffer, err := ingest.New(batches)
	if err != nil {
		return err
	}
	publisher := &events.Publisher{Bus: bus, Buffer: buffer}
	processing := c.processor()
	processing.Store, processing.PublishAlerts, processing.Logger = rows, publisher.PublishAlerts, logger
	windows, err := processor.New(processing)
	if err != nil {
		return err
	}
	handlers, err := events.New(c.events(windows, publisher))
	if err != nil {
		return err
	}

	group, ctx := errgroup.WithContext(ctx)
	edge := &api.API{
		Publisher: publisher, Live: windows, History: rows, MaxAhead: time.Duration(c.MaxAhead), PublishTimeout: time.Duration(c.IngestWait),
		LiveInterval: time.Duration(c.LiveInterval), MaxLiveStreams: int(c.LiveStreams), Stopping: ctx.Done(), Logger: logger,
	}
	stateStore := state.NewDapr(dapr.Client, contracts.StateStore)
	letters := deadletter.New(state.WithRetry(state.WithConcurrencyLimit(stateStore, int(c.StateCalls)), statePatience), logger).KeepFor(time.Duration(c.DeadLetterRetention))
	receiver, err := eventing.NewReceiver(eventing.ReceiverOptions{
		App: contracts.AppAnalytics, Token: string(c.APIToken), Publisher: bus, Logger: logger,
		BrokerRetries: c.EventRetries == config.BrokerRetries,
	}, letters.Watch(handlers.Subscriptions()...)...)
	if err != nil {
		return err
	}
	router, surface := rest.New(api.Info(), logger, c.CORSOrigins...)
	edge.Mount(router, surface)
	letters.Register(surface, receiver)
	receiver.Mount(router)
	checks := []serve.Check{service.SidecarCheck(dapr), service.StateCheck(stateStore), {Name: "windows", Ask: windows.Ready}}
	if file, ok := rows.(interface {
		Writable(ctx context.Context) error
	}); ok { // Azure Data Explorer has no write that is cheap
		checks = append(checks, serve.Check{Name: "analytics_store", Ask: file.Writable})
	}
	svc.Server.MountHealth(router, checks...)

	// Events are published until the last request has its answer; then nobody waits for them.
	publishing, enough := context.WithCancel(context.WithoutCancel(ctx))
	defer enough()
	group.Go(func() error {
		defer enough()
		defer buffer.Close()
		return svc.Server.Run(ctx, router)
	})
	group.Go(func() error { buffer.Run(publishing); return nil })
	group.Go(func() error { windows.Run(ctx); return nil })
	return group.Wait()
}
