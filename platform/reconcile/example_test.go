package reconcile_test

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"waybill/platform/reconcile"
	"waybill/platform/state"
)

// A service reconciles its shipments until they are delivered.
func Example() {
	type shipment struct{ Asked, Delivered bool }
	ctx, store := context.Background(), state.NewMemory()
	pending := reconcile.NewPending(store, "shipments", "01JZ7XJ8T0") // a new name for each process

	reconcileShipment := func(ctx context.Context, id string) (reconcile.Result, error) {
		s, err := state.Update(ctx, store, "shipment:"+id, func(s *shipment, _ bool) error {
			s.Delivered = s.Asked // it is delivered after we asked once
			s.Asked = true
			return nil
		})
		if err != nil {
			return reconcile.Result{}, fmt.Errorf("ask about shipment %s: %w", id, err) // retried with a backoff
		}
		fmt.Printf("%s is delivered: %t\n", id, s.Delivered)
		return reconcile.Result{Done: s.Delivered, RequeueAfter: reconcile.NextPass}, nil
	}
	loop, err := reconcile.New(reconcile.Options{
		Name: "shipments", Pending: pending, Reconcile: reconcileShipment, Interval: 10 * time.Second, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	// First the id, then the record: if the process dies in between, no record is forgotten.
	if err := pending.Add(ctx, "SHIP-001"); err != nil {
		fmt.Println(err)
		return
	}
	if err := store.Create(ctx, "shipment:SHIP-001", shipment{}); err != nil {
		fmt.Println(err)
		return
	}
	for range 3 {
		if err := loop.Pass(ctx); err != nil { // a service calls loop.Run(ctx)
			fmt.Println(err)
		}
	}
	// Output:
	// SHIP-001 is delivered: false
	// SHIP-001 is delivered: true
}
