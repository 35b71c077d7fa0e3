// Orders is the service that accepts orders over REST and from the bus, keeps them, and follows their fulfilment.
package main

import (
	"context"
	"io"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"

	"waybill/contracts"
	"waybill/platform/service"
	"waybill/services/orders/internal/admission"
	"waybill/services/orders/internal/api"
	"waybill/services/orders/internal/events"
	"waybill/services/orders/internal/idempotency"
	"waybill/services/orders/internal/ordering"
	"waybill/services/orders/internal/store"
)

func main() { service.Main(contracts.AppOrders, run) }

// run runs the service until ctx ends.
func run(ctx context.Context, environ []string, stdout io.Writer) error {
	c, err := parse(environ)
	if err != nil {
		return err
	}
	return service.Run(ctx, service.Options{
		Name: contracts.AppOrders, Config: c.Service, PubSub: contracts.OrderBus, StateStore: contracts.StateStore, Log: stdout,
	}, c.build)
}

// build makes the parts of this service.
func (c Config) build(_ context.Context, s *service.Service) (service.Parts, error) {
	orders := store.New(s.Documents, s.ProcessID, time.Duration(c.ReceivedTTL)).KeepFor(time.Duration(c.OrderRetention))
	gate, err := admission.New(admission.Options{
		Open: int(c.AdmissionOpen), Waiting: int(c.AdmissionWaiting), Age: time.Duration(c.AdmissionAge), Logger: s.Logger,
	})
	if err != nil {
		return service.Parts{}, err
	}
	publisher := events.Publisher{Bus: s.Publisher}
	app := &ordering.Service{Store: orders, Publisher: publisher, Admission: gate, Logger: s.Logger}
	rest := &api.Service{
		Orders: app, Reader: orders, Admission: gate, Logger: s.Logger,
		Keys: idempotency.New(s.Documents, s.ProcessID, time.Duration(c.IdempotencyTTL), s.Logger),
	}
	bus := &events.Handlers{Orders: app, Logger: s.Logger}
	reconciler, err := ordering.NewReconciler(ordering.ReconcilerOptions{
		Pending: orders.Pending(), GetMany: orders.GetMany, PublishUnanswered: app.PublishUnanswered, Counter: gate,
		Interval: time.Duration(c.ReconcileInterval), After: time.Duration(c.ReconcileAfter), Logger: s.Logger,
	})
	if err != nil {
		return service.Parts{}, err
	}
	return service.Parts{
		API:   api.Info(),
		Mount: func(_ chi.Router, surface huma.API) { rest.Register(surface) },

		Subscriptions: bus.Subscriptions(),
		OnDeadLetter:  publisher.DeadLettered,
		Secret:        []string{"payment_token"},

		Checks:  []service.Check{{Name: "admission", Ask: gate.Ready}},
		Reports: map[string]func() any{"admission": func() any { return gate.Status() }},

		Background: []service.Task{
			reconciler.Run,
			func(ctx context.Context) { <-ctx.Done(); gate.Stop() }, // so that deliveries that wait for admission end
		},
	}, nil
}
