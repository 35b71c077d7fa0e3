package saga_test

import (
	"testing"
	"time"

	"github.com/dapr/durabletask-go/workflow"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/record"
	"waybill/services/fulfillment/internal/saga"
)

// untilItPauses waits until the saga waits for a timer.
func (w *world) untilItPauses(order contracts.Order) {
	w.t.Helper()
	for {
		if history, err := w.client.GetInstanceHistory(w.t.Context(), order.OrderID); err == nil {
			for _, e := range history.Events {
				if e.GetTimerCreated() != nil {
					return
				}
			}
		}
		select {
		case <-w.t.Context().Done():
			w.t.Fatal("the saga does not pause")
		case <-time.After(time.Millisecond):
		}
	}
}

// A busy step costs no attempt, however often it is busy, and none of the time for a reservation.
func TestABusyStepCostsNoAttempt(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"Charge", "Reserve", "Book", "Ship"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			limits := quick
			limits.Attempts, limits.Reservation = 2, time.Nanosecond
			w := newWorld(t, limits)
			w.faults.busy(call, 6) // more often than a step may be attempted
			order := anOrder("ORDER-1")
			if result := w.fulfill(order); result.Outcome != record.Completed {
				t.Errorf("result %+v, want it completed", result)
			}
			w.wantHoldings(order, holdings{charges: 1, parcels: 1, reservation: inventory.Shipped})
			_, steps, err := w.sagas.Show(t.Context(), order.OrderID)
			if err != nil || len(steps) < 3 || steps[0].Name != contracts.StepValidatePayment || steps[1].Name != contracts.StepReserveInventory || steps[2].Name != contracts.StepProcessShipment {
				t.Errorf("a step that was busy is shown as more than one: %+v, %v", steps, err)
			}
		})
	}
}

// The time for a reservation begins with the first failure, so a first attempt that took longer than that time is retried.
func TestTheTimeForAReservationBeginsWithTheFirstFailure(t *testing.T) {
	t.Parallel()
	limits := quick
	limits.Reservation = time.Nanosecond
	w := newWorld(t, limits)
	w.faults.set("Reserve", 1, false)
	order := anOrder("ORDER-1")
	if result := w.fulfill(order); result.Outcome != record.Completed {
		t.Errorf("result %+v, want it completed", result)
	}
	w.faults.set("Reserve", -1, false)
	order = anOrder("ORDER-2")
	if result := w.fulfill(order); result.Code != "reservation_timeout" {
		t.Errorf("result %+v, want a timeout", result)
	}
}

func TestACancellationEndsABusyStep(t *testing.T) {
	t.Parallel()
	hourly := quick
	hourly.FirstRetry, hourly.LastRetry = time.Hour, time.Hour
	w := newWorld(t, hourly)
	w.faults.busy("Reserve", 1)
	order := anOrder("ORDER-1")
	w.start(order)
	w.untilItPauses(order)
	if err := w.cancel(order); err != nil {
		t.Fatal(err)
	}
	if result := w.end(order); result.Outcome != record.Cancelled {
		t.Errorf("result %+v, want it cancelled", result)
	}
	w.wantHoldings(order, holdings{charges: 1, refunds: 1, reservation: inventory.Released})
}

// A saga of an earlier release does not know the result busy. Its step must not count as done, so it fails and is retried.
func TestBusyIsAnErrorForSagasOfEarlierReleases(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]saga.Input{
		"1.1": {OneByOne: true},
		"1.2": {OneByOne: true, Cancellable: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, quick)
			for _, call := range []string{"Charge", "Reserve", "Book"} {
				w.faults.busy(call, 1)
			}
			in.Order, in.Limits = anOrder("ORDER-1"), quick
			if _, _, err := w.records.Begin(t.Context(), in.Order); err != nil {
				t.Fatal(err)
			}
			if _, err := w.client.ScheduleWorkflow(t.Context(), "FulfillOrder", workflow.WithInstanceID(in.OrderID), workflow.WithInput(in)); err != nil {
				t.Fatal(err)
			}
			if result := w.end(in.Order); result.Outcome != record.Completed {
				t.Errorf("result %+v, want it completed", result)
			}
			w.wantHoldings(in.Order, holdings{charges: 1, parcels: 1, reservation: inventory.Shipped})
		})
	}
}
