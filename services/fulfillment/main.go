// Command fulfillment takes confirmed orders through payment, stock and shipment, or undoes what was done. The saga is
// in internal/saga; this file only puts the parts together.
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

	"github.com/dapr/durabletask-go/workflow"
	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"waybill/contracts"
	"waybill/platform/config"
	"waybill/platform/deadletter"
	"waybill/platform/eventing"
	"waybill/platform/rest"
	"waybill/platform/serve"
	"waybill/platform/service"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/api"
	"waybill/services/fulfillment/internal/bulkhead"
	"waybill/services/fulfillment/internal/saga"
	"waybill/services/fulfillment/internal/simulator"
	"waybill/services/fulfillment/internal/store"
	"waybill/services/fulfillment/internal/worker"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Environ(), os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fulfillment:", err)
		os.Exit(1)
	}
}

// letterPatience is how long the list of dead letters waits for a sidecar or a store that is away for a moment.
const letterPatience = 4 * time.Second

// run is the service from its start until ctx ends.
func run(ctx context.Context, environ []string, stdout io.Writer) (err error) {
	c, err := parse(environ)
	if err != nil {
		return err
	}
	svc, err := service.Start(ctx, contracts.AppFulfillment, c.Service, stdout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, svc.Stop(ctx)) }()
	dapr, logger := svc.Sidecar, svc.Logger
	publisher, err := eventing.NewPublisher(dapr.Client, contracts.OrderBus)
	if err != nil {
		return err
	}

	stateStore := state.NewDapr(dapr.Client, contracts.StateStore)
	docs := state.WithConcurrencyLimit(stateStore, int(c.StateCalls))
	events := events{publisher}
	orderDocs := state.NewExpiring(docs, c.orderTTL(), simulator.OfOrder)
	stock := store.NewInventory(docs, events.announceStock(c.Warehouse), time.Now).KeepFor(c.orderTTL())
	defer stock.Wait() // before the sidecar's connection closes
	if err := stock.Measure(); err != nil {
		return err
	}
	sagas := store.NewSagas(docs, ulid.Make().String(), time.Now).KeepFor(time.Duration(c.SagaRetention))
	engine := workflow.NewClientWithLogger(dapr.Conn, engineLog{logger})
	registry := workflow.NewRegistry()
	provider, shipper := simulator.NewPayments(orderDocs, time.Now), simulator.NewCarrier(orderDocs, time.Now)
	payments, err := bulkhead.Payments(provider, int(c.PartnerCalls))
	if err != nil {
		return err
	}
	carrier, err := bulkhead.Carrier(shipper, int(c.PartnerCalls))
	if err != nil {
		return err
	}
	if err := saga.Register(registry, saga.Partners{
		Payments: payments, Inventory: stock, Carrier: carrier,
		Records: sagas, Events: events, Logger: logger, Now: time.Now,
	}); err != nil {
		return err
	}
	control := saga.NewControl(saga.ControlOptions{
		Engine: engine, Records: sagas, Events: events, Limits: c.limits(), StuckAfter: time.Duration(c.StuckAfter), Logger: logger, Now: time.Now,
	})

	edge := api.API{Audited: []api.Audited{provider, stock, shipper}, Inventory: stock, Sagas: control, Logger: logger}
	letters := deadletter.New(state.WithRetry(docs, letterPatience), logger, "payment_token").KeepFor(time.Duration(c.DeadLetterRetention))
	receiver, err := eventing.NewReceiver(eventing.ReceiverOptions{
		App: contracts.AppFulfillment, Token: string(c.APIToken), Publisher: publisher, Logger: logger,
		BrokerRetries: c.EventRetries == config.BrokerRetries,
	}, letters.Watch(edge.Subscriptions()...)...)
	if err != nil {
		return err
	}
	router, restAPI := rest.New(rest.Info{
		Title: "Waybill fulfillment", Version: "1.0.0",
		Description: "Stock, approvals, and the saga that pays, reserves and ships an order or undoes what it did.",
	}, logger, c.CORSOrigins...)
	edge.Mount(restAPI)
	letters.Register(restAPI, receiver)
	receiver.Mount(router)
	svc.Server.MountHealth(router, service.SidecarCheck(dapr), service.StateCheck(stateStore),
		serve.Check{Name: "workflow_engine", Ask: worker.EngineProbe(engine).Check})

	group, ctx := errgroup.WithContext(ctx)
	working, stopWorker := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error {
		// The worker outlives the requests in flight; what it is doing when it stops runs again.
		defer stopWorker()
		return svc.Server.Run(ctx, router)
	})
	group.Go(func() error {
		open := func(ctx context.Context) error { return engine.StartWorker(ctx, registry) }
		worker.Run(working, dapr, open, logger)
		return nil
	})
	group.Go(func() error {
		if dapr.WaitHealthy(ctx) == nil { // else ctx ended first
			saga.NewWatchdog(control, time.Duration(c.WatchdogGrace), time.Duration(c.LostAfter)).Run(ctx, time.Duration(c.WatchdogInterval))
		}
		return nil
	})
	group.Go(func() error {
		saga.NewPurger(engine, time.Duration(c.WorkflowPurge), logger, time.Now).Run(ctx)
		return nil
	})
	return group.Wait()
}
