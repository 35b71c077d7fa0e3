package saga_test

import (
	"testing"

	"waybill/contracts"
)

// While two activities of a workflow are at work, their results can arrive in one turn. Dapr's engine then puts the workflow's actor
// away although it still runs, and whatever was waiting for that actor waits for another second
// (DaprBuiltInActorNotFoundRetries in the sidecar's log). So a saga never has two activities at work.
func TestASagaHasOneActivityAtWork(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(o *contracts.Order){
		"fulfilled":       func(*contracts.Order) {},
		"declined":        func(o *contracts.Order) { o.PaymentToken = "tok_declined" },
		"carrier refuses": func(o *contracts.Order) { o.ShipTo.Zip = "X-REFUSED" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, order := newWorld(t, quick), anOrder("ORDER-1")
			change(&order)
			w.fulfill(order)
			history, err := w.client.GetInstanceHistory(t.Context(), order.OrderID)
			if err != nil {
				t.Fatal(err)
			}
			atWork := map[int32]string{}
			for _, e := range history.Events {
				switch {
				case e.GetTaskScheduled() != nil:
					atWork[e.GetEventId()] = e.GetTaskScheduled().GetName()
				case e.GetTaskCompleted() != nil:
					delete(atWork, e.GetTaskCompleted().GetTaskScheduledId())
				case e.GetTaskFailed() != nil:
					delete(atWork, e.GetTaskFailed().GetTaskScheduledId())
				}
				if len(atWork) > 1 {
					t.Fatalf("at work at the same time: %v", atWork)
				}
			}
		})
	}
}
