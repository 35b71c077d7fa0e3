// Orders is the service that takes orders over REST and from the bus, keeps them, and follows their fulfilment.
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
	"waybill/services/orders/internal/admission"
	"waybill/services/orders/internal/api"
	"waybill/services/orders/internal/idempotency"
	"waybill/services/orders/internal/store"
	"waybill/services/orders/internal/sweep"
)

// Config is everything the environment decides.
type Config struct {
	config.Service

	// IdempotencyTTL is how long an Idempotency-Key is remembered.
	IdempotencyTTL config.Duration `env:"IDEMPOTENCY_TTL" envDefault:"24h"`
	// ReceivedTTL is how long an order is kept that was stored and never confirmed.
	ReceivedTTL config.Duration `env:"RECEIVED_TTL" envDefault:"24h"`
	// OrderRetention is how long an order is kept after it has ended.
	OrderRetention config.Retention `env:"ORDER_RETENTION" envDefault:"0"`
	// SweepInterval is how often the orders that have not ended are looked at, SweepPatience how long one may stand still
	// before what it waits for is asked for again.
	SweepInterval config.Duration `env:"SWEEP_INTERVAL" envDefault:"10s"`
	SweepPatience config.Duration `env:"SWEEP_PATIENCE" envDefault:"15s"`

	// AdmissionOpen bounds the orders that are being worked on, AdmissionWaiting those that wait for a person; 0 stands for no
	// bound. New orders are refused too when many of the open ones are older than AdmissionAge.
	AdmissionOpen    uint            `env:"ADMISSION_OPEN" envDefault:"200"`
	AdmissionWaiting uint            `env:"ADMISSION_WAITING" envDefault:"20000"`
	AdmissionAge     config.Duration `env:"ADMISSION_AGE" envDefault:"60s"`
}

// parse reads and checks the environment and names everything that is wrong with it.
func parse(environ []string) (Config, error) {
	c, err := config.Parse[Config](environ)
	faults := []error{err}
	// The store counts whole seconds.
	for _, ttl := range []struct {
		name  string
		value config.Duration
	}{{"IDEMPOTENCY_TTL", c.IdempotencyTTL}, {"RECEIVED_TTL", c.ReceivedTTL}} {
		if time.Duration(ttl.value) < time.Second {
			faults = append(faults, fmt.Errorf("%s is %v: at least 1s is expected", ttl.name, time.Duration(ttl.value)))
		}
	}
	return c, errors.Join(faults...)
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

// run is the service from its start until ctx ends.
func run(ctx context.Context, environ []string, stdout io.Writer) (err error) {
	c, err := parse(environ)
	if err != nil {
		return err
	}
	svc, err := service.Start(ctx, contracts.AppOrders, c.Service, stdout)
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
	documents := state.WithRetry(state.WithConcurrencyLimit(stateStore, int(c.StateCalls)), statePatience)
	process := ulid.Make().String()
	orders := store.New(documents, process, time.Duration(c.ReceivedTTL)).KeepFor(time.Duration(c.OrderRetention))
	gate, err := admission.New(admission.Options{
		Open: int(c.AdmissionOpen), Waiting: int(c.AdmissionWaiting), Age: time.Duration(c.AdmissionAge), Logger: logger,
	})
	if err != nil {
		return err
	}
	edge := &api.Service{
		Orders: orders, Publisher: publisher, Logger: logger, Admission: gate,
		Keys: idempotency.New(documents, process, time.Duration(c.IdempotencyTTL), logger),
	}
	sweeper := &sweep.Sweeper{
		Orders: orders, Remind: edge.Remind, Counter: gate, Logger: logger,
		Interval: time.Duration(c.SweepInterval), Patience: time.Duration(c.SweepPatience),
	}
	letters := deadletter.New(documents, logger, "payment_token").KeepFor(time.Duration(c.DeadLetterRetention))
	receiver, err := eventing.NewReceiver(eventing.ReceiverOptions{
		App: contracts.AppOrders, Token: string(c.APIToken), Publisher: publisher, OnDeadLetter: edge.DeadLettered, Logger: logger,
		BrokerRetries: c.EventRetries == config.BrokerRetries,
	}, letters.Watch(edge.Subscriptions()...)...)
	if err != nil {
		return err
	}

	router, surface := rest.New(api.Info(), logger, c.CORSOrigins...)
	edge.Register(surface)
	letters.Register(surface, receiver)
	receiver.Mount(router)
	svc.Server.MountHealth(router, service.SidecarCheck(dapr), service.StateCheck(stateStore), serve.Check{Name: "admission", Ask: gate.Ready})
	svc.Server.Report("admission", func() any { return gate.Status() })
	group, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, gate.Stop)()
	group.Go(func() error { return svc.Server.Run(ctx, router) })
	group.Go(func() error { sweeper.Run(ctx); return nil })
	return group.Wait()
}
