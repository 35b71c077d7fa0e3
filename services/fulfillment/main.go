// Command fulfillment pays, reserves and ships confirmed orders, or compensates the completed steps. The saga is
// in internal/saga.
package main

import (
	"context"
	"io"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/dapr/durabletask-go/workflow"
	"github.com/go-chi/chi/v5"

	"waybill/contracts"
	"waybill/platform/service"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/api"
	"waybill/services/fulfillment/internal/bulkhead"
	"waybill/services/fulfillment/internal/events"
	"waybill/services/fulfillment/internal/operations"
	"waybill/services/fulfillment/internal/saga"
	"waybill/services/fulfillment/internal/simulator"
	"waybill/services/fulfillment/internal/store"
	"waybill/services/fulfillment/internal/worker"
)

func main() { service.Main(contracts.AppFulfillment, run) }

// run runs the service until ctx ends.
func run(ctx context.Context, environ []string, stdout io.Writer) error {
	c, err := parse(environ)
	if err != nil {
		return err
	}
	return service.Run(ctx, service.Options{
		Name: contracts.AppFulfillment, Config: c.Service, PubSub: contracts.OrderBus, StateStore: contracts.StateStore, Log: stdout,
	}, c.build)
}

// build makes the parts of this service.
func (c Config) build(_ context.Context, s *service.Service) (service.Parts, error) {
	publisher := events.Publisher{Bus: s.Publisher}
	stock := store.NewInventory(s.State, publisher.AnnounceStock(c.Warehouse), time.Now).KeepFor(c.orderTTL())
	s.OnStop(func() error { stock.Wait(); return nil })
	if err := stock.Measure(); err != nil {
		return service.Parts{}, err
	}
	records := store.NewSagas(s.State, s.ProcessID, time.Now).KeepFor(time.Duration(c.SagaRetention))
	documents := state.NewExpiring(s.State, c.orderTTL(), simulator.OfOrder)
	provider, shipper := simulator.NewPayments(documents, time.Now), simulator.NewCarrier(documents, time.Now)
	payments, err := bulkhead.Payments(provider, int(c.PartnerCalls))
	if err != nil {
		return service.Parts{}, err
	}
	carrier, err := bulkhead.Carrier(shipper, int(c.PartnerCalls))
	if err != nil {
		return service.Parts{}, err
	}
	registry := workflow.NewRegistry()
	if err := saga.Register(registry, saga.Partners{
		Payments: payments, Inventory: stock, Carrier: carrier,
		Records: records, Events: publisher, Logger: s.Logger, Now: time.Now,
	}); err != nil {
		return service.Parts{}, err
	}
	engine := worker.NewClient(s.Sidecar.Conn, s.Logger)
	sagas := operations.New(operations.Options{
		Engine: engine, Records: records, Events: publisher, Limits: c.limits(), StuckAfter: time.Duration(c.StuckAfter), Logger: s.Logger, Now: time.Now,
	})
	reconciler, err := operations.NewReconciler(sagas, operations.ReconcilerOptions{
		Interval: time.Duration(c.ReconcileInterval), Grace: time.Duration(c.ReconcileGrace), LostAfter: time.Duration(c.LostAfter),
	})
	if err != nil {
		return service.Parts{}, err
	}
	edge := api.API{Audited: []api.Audited{provider, stock, shipper}, Inventory: stock, Sagas: sagas, Logger: s.Logger}
	return service.Parts{
		API:   api.Info(),
		Mount: func(_ chi.Router, surface huma.API) { edge.Mount(surface) },

		Subscriptions: events.Subscriptions(sagas),
		Secret:        []string{"payment_token"},

		Checks: []service.Check{{Name: "workflow_engine", Ask: worker.EngineProbe(engine).Check}},

		Background: []service.Task{
			func(ctx context.Context) {
				if s.Sidecar.WaitHealthy(ctx) == nil { // otherwise ctx ended
					reconciler.Run(ctx)
				}
			},
			operations.NewPurger(engine, time.Duration(c.WorkflowPurge), s.Logger, time.Now).Run,
		},
		// An activity that runs when the worker ends runs again at the next start.
		UntilServed: []service.Task{func(ctx context.Context) {
			connect := func(ctx context.Context) error { return engine.StartWorker(ctx, registry) }
			worker.Run(ctx, s.Sidecar, connect, s.Logger)
		}},
	}, nil
}
