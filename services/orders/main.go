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
	"waybill/platform/config"
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

// Config is everything the environment decides.
type Config struct {
	config.Service

	// IdempotencyTTL is how long an Idempotency-Key is remembered.
	IdempotencyTTL config.Duration `env:"IDEMPOTENCY_TTL" envDefault:"24h"`
	// ReceivedTTL is how long an order is kept that was stored and never confirmed.
	ReceivedTTL config.Duration `env:"RECEIVED_TTL" envDefault:"24h"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Environ(), os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "orders:", err)
		os.Exit(1)
	}
}

// statePatience is how long a call waits for a sidecar or a store that is away for a moment: long enough for a restart, and
// a second less than a client's order may take, so that something of that is left to announce it.
const statePatience = 4 * time.Second

// run is the service from its start until ctx ends. It does not wait for the sidecar: until that is there the service is
// alive and not ready.
func run(ctx context.Context, environ []string, stdout io.Writer) (err error) {
	c, err := config.Parse[Config](environ)
	if err != nil {
		return err
	}
	telemetry, err := telemetry.Start(ctx, telemetry.Options{
		Service: contracts.AppOrders, Log: stdout, Format: string(c.LogFormat), Level: c.LogLevel,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inTime(ctx, telemetry.Stop)) }()
	logger := telemetry.Logger

	server, err := serve.Listen(ctx, net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), logger)
	if err != nil {
		return err
	}
	sidecar, err := sidecar.Dial(c.Sidecar)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sidecar.Close()) }()
	publisher, err := eventing.NewPublisher(sidecar.Client, contracts.OrderBus)
	if err != nil {
		return err
	}
	stateStore := state.NewDapr(sidecar.Client, contracts.StateStore)
	documents := state.NewPatient(stateStore, statePatience)
	orders := store.New(documents, time.Duration(c.ReceivedTTL))
	service := &api.Service{
		Orders: orders, Publisher: publisher, Logger: logger,
		Keys: idempotency.New(documents, ulid.Make().String(), time.Duration(c.IdempotencyTTL), logger),
	}
	receiver, err := eventing.NewReceiver(eventing.ReceiverOptions{
		App: contracts.AppOrders, Token: string(c.APIToken), Publisher: publisher, OnParked: service.Parked, Logger: logger,
	}, service.Subscriptions()...)
	if err != nil {
		return err
	}

	router, surface := rest.New(api.Info(), logger)
	service.Register(surface)
	receiver.Mount(router)
	server.MountHealth(router, sidecar.Healthy, stateStore.Reachable)
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
