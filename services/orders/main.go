// Orders is the service that takes orders over REST and from the bus, keeps them, and follows their fulfilment.
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

	"github.com/oklog/ulid/v2"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/platform/rest"
	"waybill/platform/serve"
	"waybill/platform/sidecar"
	"waybill/platform/state"
	"waybill/platform/telemetry"
	"waybill/services/orders/internal/api"
	"waybill/services/orders/internal/idempotency"
	"waybill/services/orders/internal/store"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Environ(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "orders:", err)
		os.Exit(1)
	}
}

// run is the service from its start until ctx ends. It does not wait for the sidecar: until that is there the service is
// alive and not ready.
func run(ctx context.Context, environ []string, stdout io.Writer) (err error) {
	config, err := parseConfig(environ)
	if err != nil {
		return err
	}
	telemetry, err := telemetry.Start(ctx, telemetry.Options{
		Service: contracts.AppOrders, Log: stdout, Format: string(config.LogFormat), Level: config.LogLevel,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inTime(ctx, telemetry.Stop)) }()
	logger := telemetry.Logger

	server, err := serve.Listen(ctx, net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))), logger)
	if err != nil {
		return err
	}
	sidecar, err := sidecar.Dial(config.Sidecar)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sidecar.Close()) }()
	publisher, err := eventing.NewPublisher(sidecar.Client, contracts.OrderBus)
	if err != nil {
		return err
	}
	documents := state.NewDapr(sidecar.Client, contracts.StateStore)
	orders := store.New(documents, time.Duration(config.ReceivedTTL))
	service := &api.Service{
		Orders: orders, Publisher: publisher, Logger: logger,
		Keys: idempotency.New(documents, ulid.Make().String(), time.Duration(config.IdempotencyTTL), logger),
	}
	receiver, err := eventing.NewReceiver(eventing.ReceiverOptions{
		App: contracts.AppOrders, Token: string(config.APIToken), Publisher: publisher, OnParked: service.Parked, Logger: logger,
	}, service.Subscriptions()...)
	if err != nil {
		return err
	}

	router, surface := rest.New(api.Info(), logger)
	service.Register(surface)
	receiver.Mount(router)
	server.MountHealth(router, sidecar.Healthy, orders.Reachable)
	logger.InfoContext(ctx, "listening", slog.String("address", server.Address()))
	if err := server.Run(ctx, router); err != nil {
		return err
	}
	logger.InfoContext(ctx, "stopped")
	return nil
}

// stopTimeout bounds what is left to do after the last request.
const stopTimeout = 5 * time.Second

// inTime runs a last duty although ctx may be over.
func inTime(ctx context.Context, duty func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return duty(ctx)
}
