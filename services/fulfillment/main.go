// Command fulfillment takes confirmed orders through payment, stock and shipment, or undoes what was done. The saga is
// in internal/saga; this file only puts the parts together.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/dapr/durabletask-go/workflow"
	"golang.org/x/sync/errgroup"

	"waybill/contracts"
	"waybill/platform/config"
	"waybill/platform/eventing"
	"waybill/platform/rest"
	"waybill/platform/serve"
	"waybill/platform/sidecar"
	"waybill/platform/state"
	"waybill/platform/telemetry"
	"waybill/services/fulfillment/internal/api"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/ledger"
	"waybill/services/fulfillment/internal/partner"
	"waybill/services/fulfillment/internal/saga"
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

// source is the CloudEvents source of what this service publishes.
const source = "/waybill/fulfillment"

// run is the service from its start until ctx ends. It does not wait for the sidecar: until that is there the service is
// alive and not ready.
func run(ctx context.Context, environ []string, stdout io.Writer) (err error) {
	c, err := config.Parse[Config](environ)
	if err != nil {
		return err
	}
	tel, err := telemetry.Start(ctx, telemetry.Options{
		Service: contracts.AppFulfillment, Log: stdout, Format: string(c.LogFormat), Level: c.LogLevel,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopTelemetry(ctx, tel)) }()
	logger := tel.Logger
	server, err := serve.Listen(ctx, net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), logger)
	if err != nil {
		return err
	}
	dapr, err := sidecar.Dial(c.Sidecar)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dapr.Close()) }()
	publisher, err := eventing.NewPublisher(dapr.Client, contracts.OrderBus)
	if err != nil {
		return err
	}

	store := state.NewDapr(dapr.Client, contracts.StateStore)
	events := events{publisher}
	stock := ledger.NewInventory(store, events.announceStock(c.Warehouse), time.Now)
	sagas := ledger.NewSagas(store, time.Now)
	engine := workflow.NewClientWithLogger(dapr.Conn, engineLog{logger})
	registry := workflow.NewRegistry()
	if err := saga.Register(registry, c.limits(), saga.Partners{
		Payments: ledger.NewPayments(store, time.Now), Inventory: stock, Carrier: ledger.NewCarrier(store, time.Now),
		Sagas: sagas, Events: events, Now: time.Now,
	}); err != nil {
		return err
	}

	edge := api.API{Inventory: stock, Sagas: saga.NewStarter(engine, sagas, time.Now), Logger: logger}
	receiver, err := eventing.NewReceiver(eventing.ReceiverOptions{
		App: contracts.AppFulfillment, Token: string(c.APIToken), Publisher: publisher, Logger: logger,
	}, edge.Subscriptions()...)
	if err != nil {
		return err
	}
	router, restAPI := rest.New(rest.Info{
		Title: "Waybill fulfillment", Version: "1.0.0",
		Description: "Stock, and the saga that pays, reserves and ships an order or undoes what it did.",
	}, logger)
	edge.Mount(restAPI)
	receiver.Mount(router)
	server.MountHealth(router, dapr.Healthy, func(ctx context.Context) error {
		_, err := stock.Get(ctx, "readiness")
		if _, unknown := errors.AsType[*partner.Reason](err); unknown {
			return nil // the store answered
		}
		return err
	})

	group, ctx := errgroup.WithContext(ctx)
	worker, stopWorker := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error {
		// The worker outlives the requests in flight; what it is doing when it stops runs again.
		defer stopWorker()
		return server.Run(ctx, router)
	})
	group.Go(func() error { return work(worker, dapr, engine, registry) })
	logger.InfoContext(ctx, "listening", slog.String("address", server.Address()))
	if err := group.Wait(); err != nil {
		return err
	}
	logger.InfoContext(ctx, "stopped")
	return nil
}

// work connects the workflow worker as soon as the sidecar is there, and keeps it until ctx ends. The worker itself
// reconnects when the sidecar goes away.
func work(ctx context.Context, dapr *sidecar.Sidecar, engine *workflow.Client, registry *workflow.Registry) error {
	for ctx.Err() == nil {
		if err := dapr.WaitHealthy(ctx); err != nil {
			continue
		}
		if err := engine.StartWorker(ctx, registry); err == nil {
			<-ctx.Done()
		}
	}
	return nil
}

func stopTelemetry(ctx context.Context, tel *telemetry.Telemetry) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), serve.StopTimeout)
	defer cancel()
	return tel.Stop(ctx)
}

// events publishes fulfilment's facts to the topics it owns.
type events struct{ publisher *eventing.Publisher }

func (e events) Publish(ctx context.Context, id string, payload contracts.Payload) error {
	return e.publish(ctx, contracts.TopicFulfillment, id, payload)
}

func (e events) announceStock(warehouse string) func(context.Context, inventory.Stock) error {
	return func(ctx context.Context, s inventory.Stock) error {
		return e.publish(ctx, contracts.TopicInventory, fmt.Sprintf("%s:stock:%d", s.ProductID, s.Last.Revision), contracts.StockChanged{
			ProductID: s.ProductID, CurrentStock: s.Last.Current, PreviousStock: s.Last.Previous,
			Change: s.Last.Current - s.Last.Previous, WarehouseID: warehouse, Revision: s.Last.Revision, Timestamp: s.Last.At.UTC(),
		})
	}
}

func (e events) publish(ctx context.Context, topic, id string, payload contracts.Payload) error {
	event, err := eventing.New(id, source, contracts.Version, time.Now(), payload)
	if err != nil {
		return err
	}
	return e.publisher.Publish(ctx, topic, event)
}
