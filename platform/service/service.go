// Package service runs a service: it starts what every service needs, in the order in which it must start, and stops it in
// the order in which it must stop. A service's main keeps its configuration and its own parts. This package knows nothing of
// what a service does.
package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"
	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"waybill/platform/config"
	"waybill/platform/deadletter"
	"waybill/platform/eventing"
	"waybill/platform/rest"
	"waybill/platform/sidecar"
	"waybill/platform/state"
	"waybill/platform/telemetry"
)

const (
	// stateTimeout is how long a call of Service.Documents is retried: long enough for a restart of the sidecar, and short
	// enough for a request to end before its client stops waiting.
	stateTimeout = 4 * time.Second
	// telemetryTimeout bounds how long the last spans and metrics may take to export.
	telemetryTimeout = 5 * time.Second
)

// Options are what main tells Run about its service.
type Options struct {
	// Name is the service's app id. Logs, spans and dead letters carry it.
	Name   string
	Config config.Service
	// PubSub and StateStore are the Dapr components that Service.Publisher and the stores use.
	PubSub, StateStore string
	// Log is where log lines go.
	Log io.Writer
}

// Service is what Run started before it asks main for its parts.
type Service struct {
	Logger    *slog.Logger
	Sidecar   *sidecar.Sidecar
	Publisher *eventing.Publisher
	// State is the state store with the configured concurrency limit. It fails at once while the store is unavailable: it is
	// for callers that retry by themselves, such as workflow activities.
	State state.Store
	// Documents is State with retries: for requests and event handlers.
	Documents state.Store
	// ProcessID is an id that no other process has or had.
	ProcessID string

	options   Options
	store     *state.Dapr
	server    *server
	telemetry *telemetry.Telemetry
	profiles  *profiles // nil unless configured
	waiting   sync.WaitGroup
	stopWait  context.CancelFunc
	onStop    []func() error
}

// Task is work that a service does beside its requests. It returns soon after its context ends.
type Task func(ctx context.Context)

// Parts are what makes one service different from another.
type Parts struct {
	// API describes the REST API, and Mount adds its routes. What is no part of the OpenAPI document goes on the router.
	API   rest.Info
	Mount func(router chi.Router, api huma.API)
	// Subscriptions are the topics that the service reads. Run subscribes to their dead-letter topics as well, and adds the
	// API that lists and redrives dead letters.
	Subscriptions []eventing.Subscription
	// OnDeadLetter, when set, is called for each event that the service dead-letters; see eventing.ReceiverOptions.
	OnDeadLetter func(ctx context.Context, topic string, e eventing.Event) error
	// Secret names the members of events whose values the API of dead letters hides.
	Secret []string
	// Checks decide about /readyz, besides those of the sidecar and the state store.
	Checks []Check
	// Reports are further members of the body of /readyz. They do not decide whether the service is ready.
	Reports map[string]func() any
	// Background tasks end as soon as the service is to stop.
	Background []Task
	// UntilServed tasks end after the last request in flight got its answer, because requests depend on them.
	UntilServed []Task
}

// Run runs a service until ctx ends. It listens and connects to the sidecar, calls build for the service's own parts, and
// serves them. It does not wait for the sidecar: the service is alive at once, and ready when the sidecar is. The context of
// build ends when the service is to stop.
//
// When ctx ends, or serving fails, the service stops in this order: it is no longer ready; Background tasks end while the
// requests in flight get up to ten seconds; UntilServed tasks end; what build gave to OnStop is called; the connection to the
// sidecar closes; telemetry is exported.
func Run(ctx context.Context, o Options, build func(ctx context.Context, s *Service) (Parts, error)) (err error) {
	s, err := start(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop(ctx)) }()
	stopping, stop := context.WithCancel(ctx)
	defer stop()
	group, stopping := errgroup.WithContext(stopping)
	parts, err := build(stopping, s)
	if err != nil {
		return err
	}
	router, err := s.mount(parts)
	if err != nil {
		return err
	}
	serving, served := context.WithCancel(context.WithoutCancel(stopping))
	group.Go(func() error {
		defer served()
		return s.server.run(stopping, router)
	})
	for _, task := range parts.Background {
		group.Go(func() error { task(stopping); return nil })
	}
	for _, task := range parts.UntilServed {
		group.Go(func() error { task(serving); return nil })
	}
	return group.Wait()
}

// OnStop calls release when the service stops: after its requests and tasks, before the connection to the sidecar closes,
// and also if build fails. What was given last is called first.
func (s *Service) OnStop(release func() error) { s.onStop = append(s.onStop, release) }

// start starts what every service needs.
func start(ctx context.Context, o Options) (*Service, error) {
	c := o.Config
	tel, err := telemetry.Start(ctx, telemetry.Options{Service: o.Name, Log: o.Log, Format: string(c.LogFormat), Level: c.LogLevel})
	if err != nil {
		return nil, err
	}
	s := &Service{Logger: tel.Logger, ProcessID: ulid.Make().String(), options: o, telemetry: tel}
	if err := s.connect(ctx); err != nil {
		return nil, errors.Join(err, s.stop(ctx))
	}
	s.Logger.InfoContext(ctx, "listening", slog.String("address", s.server.address()))
	c.LogRenamed(ctx, s.Logger)
	var waiting context.Context
	waiting, s.stopWait = context.WithCancel(ctx)
	s.waiting.Go(func() { s.Sidecar.LogWait(waiting, s.Logger) })
	return s, nil
}

// connect listens, and prepares the connection to the sidecar and what uses it.
func (s *Service) connect(ctx context.Context) (err error) {
	c := s.options.Config
	if s.server, err = listen(ctx, net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), s.Logger); err != nil {
		return fmt.Errorf("APP_HOST and APP_PORT, %s and %d: a free address of this machine is expected: %w", c.Host, c.Port, err)
	}
	if s.Sidecar, err = sidecar.Dial(c.Sidecar); err != nil {
		return err
	}
	if s.Publisher, err = eventing.NewPublisher(s.Sidecar.Client, s.options.PubSub); err != nil {
		return err
	}
	s.Publisher = s.Publisher.WithLogger(s.Logger)
	s.store = state.NewDapr(s.Sidecar.Client, s.options.StateStore)
	s.State = state.WithConcurrencyLimit(s.store, int(c.StateCalls))
	s.Documents = state.WithRetry(s.State, stateTimeout)
	if c.DebugPort != nil {
		s.profiles, err = startProfiles(ctx, uint16(*c.DebugPort), s.Logger)
	}
	return err
}

// mount puts everything that the service answers on one router.
func (s *Service) mount(p Parts) (chi.Router, error) {
	c := s.options.Config
	dead := deadletter.New(s.Documents, s.Logger, p.Secret...).KeepFor(time.Duration(c.DeadLetterRetention))
	receiver, err := eventing.NewReceiver(eventing.ReceiverOptions{
		App: s.options.Name, Token: string(c.APIToken), Publisher: s.Publisher, OnDeadLetter: p.OnDeadLetter,
		BrokerRetries: c.EventRetries == config.BrokerRetries, Logger: s.Logger,
	}, dead.Watch(p.Subscriptions...)...)
	if err != nil {
		return nil, err
	}
	router, api := rest.New(p.API, s.Logger, c.CORSOrigins...)
	p.Mount(router, api)
	dead.Register(api, receiver)
	receiver.Mount(router)
	s.server.mountHealth(router, p.Reports, append([]Check{
		{Name: "sidecar", Ask: s.Sidecar.Healthy}, {Name: "state_store", Ask: s.store.Writable},
	}, p.Checks...)...)
	return router, nil
}

// stop ends what start began, and what OnStop was given. It continues after ctx ended.
func (s *Service) stop(ctx context.Context) error {
	var errs []error
	for _, release := range slices.Backward(s.onStop) {
		errs = append(errs, release())
	}
	if s.stopWait != nil {
		s.stopWait()
		s.waiting.Wait()
	}
	if s.server != nil {
		errs = append(errs, s.server.close())
	}
	if s.profiles != nil {
		errs = append(errs, s.profiles.stop())
	}
	if s.Sidecar != nil {
		errs = append(errs, s.Sidecar.Close())
	}
	s.Logger.InfoContext(ctx, "stopped")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), telemetryTimeout)
	defer cancel()
	return errors.Join(append(errs, s.telemetry.Stop(ctx))...)
}
