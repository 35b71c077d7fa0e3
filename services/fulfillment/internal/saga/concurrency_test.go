package saga_test

import (
	"testing"

	"waybill/contracts"
)

// If two activities of a workflow run at the same time, their results can arrive in one run of the workflow. Dapr's engine then
// deactivates the workflow's actor although it still runs, and every call that waits for that actor waits for another second
// (DaprBuiltInActorNotFoundRetries in the sidecar's log). So a saga never runs two activities at the same time.
func TestASagaRunsOneActivityAtATime(t *testing.T) {
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
			running := map[int32]string{}
			for _, e := range history.Events {
				switch {
				case e.GetTaskScheduled() != nil:
					running[e.GetEventId()] = e.GetTaskScheduled().GetName()
				case e.GetTaskCompleted() != nil:
					delete(running, e.GetTaskCompleted().GetTaskScheduledId())
				case e.GetTaskFailed() != nil:
					delete(running, e.GetTaskFailed().GetTaskScheduledId())
				}
				if len(running) > 1 {
					t.Fatalf("activities at the same time: %v", running)
				}
			}
		})
	}
}
