package saga_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/record"
)

// untilAStepFailed waits until an attempt of a step has failed.
func (w *world) untilAStepFailed(order contracts.Order) {
	w.t.Helper()
	for {
		_, steps, err := w.sagas.Show(w.t.Context(), order.OrderID)
		if err == nil && len(steps) > 0 && steps[len(steps)-1].Error != "" {
			return
		}
		select {
		case <-w.t.Context().Done():
			w.t.Fatalf("no step failed: %+v, %v", steps, err)
		case <-time.After(time.Millisecond):
		}
	}
}

// A failed step is retried after an hour. A cancellation ends it before that, and the effect of the failed attempt is compensated.
func TestACancellationEndsAStepThatWaitsForARetry(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		call  string
		after bool
		want  holdings
	}{
		{"Charge", false, holdings{}},
		{"Charge", true, holdings{charges: 1, refunds: 1}},
		{"Reserve", false, holdings{charges: 1, refunds: 1, reservation: inventory.Released}},
		{"Reserve", true, holdings{charges: 1, refunds: 1, reservation: inventory.Released}},
		{"Book", false, holdings{charges: 1, refunds: 1, cancelled: true, reservation: inventory.Released}},
		{"Book", true, holdings{charges: 1, refunds: 1, parcels: 1, cancelled: true, reservation: inventory.Released}},
	} {
		t.Run(fmt.Sprintf("%s fails after=%v", c.call, c.after), func(t *testing.T) {
			t.Parallel()
			hourly := quick
			hourly.FirstRetry, hourly.LastRetry, hourly.Reservation = time.Hour, time.Hour, 24*time.Hour
			w := newWorld(t, hourly)
			w.faults.set(c.call, -1, c.after)
			order := anOrder("ORDER-1")
			w.start(order)
			w.untilAStepFailed(order)
			w.wake(order) // a signal without a cancellation ends nothing
			if err := w.cancel(order); err != nil {
				t.Fatal(err)
			}
			if result := w.end(order); result.Outcome != record.Cancelled || result.Error != "Ordered twice." {
				t.Errorf("result %+v, want it cancelled", result)
			}
			w.wantHoldings(order, c.want)
			w.wantMessages(order, contracts.TemplateOrderCancelled)
			w.wantStock("PROD-001", 0)
		})
	}
}

// Each attempt checks for a cancellation itself, because it can run long after the workflow scheduled it, and the signal can be lost.
func TestEveryAttemptChecksForACancellation(t *testing.T) {
	t.Parallel()
	for call, want := range map[string]holdings{
		"Charge":  {},
		"Reserve": {charges: 1, refunds: 1, reservation: inventory.Released},
		"Book":    {charges: 1, refunds: 1, cancelled: true, reservation: inventory.Released},
	} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, quick)
			order := anOrder("ORDER-1")
			w.faults.hook(call, func() error { // the first attempt fails; a cancellation is recorded during it, and its signal is lost
				_, err := w.records.Change(t.Context(), order.OrderID, func(s *record.Saga) (bool, error) {
					return s.Cancel("Ordered twice.", time.Now()), nil
				})
				return errors.Join(err, planned(call))
			})
			if result := w.fulfill(order); result.Outcome != record.Cancelled {
				t.Errorf("result %+v, want it cancelled", result)
			}
			w.wantHoldings(order, want)
		})
	}
}

// A cancellation that is recorded before the saga has ended counts, also if the saga fails for another reason.
func TestACancellationDuringCompensation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	order := anOrder("ORDER-1")
	order.ShipTo.Zip = "X-REFUSED"
	w.faults.hook("Refund", func() error { return w.cancel(order) })
	if result := w.fulfill(order); result.Outcome != record.Cancelled || result.Error != "Ordered twice." {
		t.Errorf("result %+v, want it cancelled", result)
	}
	w.wantMessages(order, contracts.TemplateOrderCancelled)
	w.wantHoldings(order, holdings{charges: 1, refunds: 1, reservation: inventory.Released})
	w.until(order, "an end", (*record.Saga).Ended)
	want := []string{"ValidatePayment done", "ReserveInventory done", "ProcessShipment refused", "ReleaseInventory done", "Cancel done", "RefundPayment done", "Fulfillment.Cancelled"}
	if diff := cmp.Diff(want, w.announced()); diff != "" {
		t.Errorf("announced (-want +got):\n%s", diff)
	}
}

// A saga of a cancelled order that needs attention ends cancelled after its repair.
func TestARepairedSagaOfACancelledOrderEndsCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	order := anOrder("ORDER-1")
	w.faults.set("Release", -1, false)
	w.faults.hook("Book", func() error { return w.cancel(order) })
	w.start(order)
	w.until(order, "that the saga is blocked", (*record.Saga).AwaitsRepair)
	w.faults.set("Release", 0, false)
	if _, err := w.sagas.Repair(t.Context(), order.OrderID, "operator@example.com", "The warehouse answers again."); err != nil {
		t.Fatal(err)
	}
	if result := w.end(order); result.Outcome != record.Cancelled {
		t.Errorf("result %+v, want it cancelled", result)
	}
	w.wantHoldings(order, holdings{charges: 1, refunds: 1, parcels: 1, cancelled: true, reservation: inventory.Released})
}

// A cancellation wins over an approval until the parcel is booked, whichever comes first.
func TestACancellationBeatsAnApproval(t *testing.T) {
	t.Parallel()
	for _, approved := range []string{"after the cancellation", "before it"} {
		t.Run(approved, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, quick)
			order := aLargeOrder("ORDER-1")
			w.start(order)
			w.until(order, "an approval", (*record.Saga).AwaitsApproval)
			if approved == "before it" {
				w.faults.hook("Book", func() error { return w.cancel(order) })
				if err := w.decide(order, true, "approver@example.com"); err != nil {
					t.Fatal(err)
				}
			} else {
				if err := w.cancel(order); err != nil {
					t.Fatal(err)
				}
				refused, ok := errors.AsType[*record.Error](w.decide(order, true, "approver@example.com"))
				if !ok || refused.Kind != record.Conflict || refused.Decision == nil || refused.Decision.Code != record.CodeCancelled || refused.Decision.Reason != "Ordered twice." {
					t.Errorf("an approval after the cancellation: %+v", refused)
				}
			}
			if result := w.end(order); result.Outcome != record.Cancelled {
				t.Errorf("result %+v, want it cancelled", result)
			}
			got := w.holdings(order.OrderID)
			if got.charges != got.refunds || got.parcels > 0 && !got.cancelled || got.reservation != inventory.Released {
				t.Errorf("holdings %+v, want everything compensated", got)
			}
		})
	}
}

// Every cancellation gets an answer, because an earlier answer may have been lost.
func TestARepeatedCancellationIsAnsweredAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	order := anOrder("ORDER-1")
	if err := errors.Join(w.cancel(order), w.cancel(order)); err != nil {
		t.Fatal(err)
	}
	answer, _ := w.payload(order.OrderID + ":Cancel:done").(contracts.StepCompleted)
	if answer.Step != contracts.StepCancel || answer.Outcome != contracts.OutcomeDone || answer.OrderID != order.OrderID || answer.CustomerID != order.CustomerID {
		t.Errorf("the answer to a cancellation before the order is %+v", answer)
	}
	w.mu.Lock()
	w.events = nil
	w.mu.Unlock()
	if err := w.cancel(order); err != nil || w.payload(order.OrderID+":Cancel:done") == nil {
		t.Errorf("a repeated cancellation was not answered: %v", err)
	}
	if result := w.fulfill(order); result.Outcome != record.Cancelled {
		t.Errorf("result %+v, want it cancelled", result)
	}
	w.wantHoldings(order, holdings{})
}

// A free order has no payment step, so a card that would be declined does not matter.
func TestAFreeOrderIsNeverChargedOrRefunded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		zip      string
		outcome  record.Outcome
		template string
		want     holdings
		events   []string
	}{
		{"12345", record.Completed, contracts.TemplateOrderShipped, holdings{parcels: 1, reservation: inventory.Shipped},
			[]string{"ReserveInventory done", "ProcessShipment done", "Fulfillment.Completed"}},
		{"X-REFUSED", record.Failed, contracts.TemplateOrderFailed, holdings{reservation: inventory.Released},
			[]string{"ReserveInventory done", "ProcessShipment refused", "ReleaseInventory done", "Fulfillment.Failed"}},
	} {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s lost=%v", c.outcome, lost), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, quick)
				order := anOrder("ORDER-1", contracts.Line{ProductID: "PROD-001", Quantity: 2})
				order.PaymentToken, order.ShipTo.Zip = "tok_declined", c.zip
				lostNow := make(chan struct{})
				if lost {
					w.faults.hook("Book", func() error {
						defer close(lostNow)
						return w.lose(order)
					})
				}
				w.start(order)
				if lost {
					<-lostNow
					if err := newReconciler(w.sagas, 0, time.Minute).Pass(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if result := w.end(order); result.Outcome != c.outcome {
					t.Errorf("result %+v, want %s", result, c.outcome)
				}
				w.until(order, "an end", (*record.Saga).Ended)
				w.wantMessages(order, c.template)
				w.mu.Lock()
				defer w.mu.Unlock()
				for _, e := range w.events {
					switch p := e.payload.(type) {
					case contracts.NotificationRequested:
						if p.Refunded {
							t.Errorf("the message mentions a refund: %+v", p)
						}
					case contracts.StepCompleted:
						if p.Amount != 0 || p.TransactionID != "" {
							t.Errorf("a step moved money: %+v", p)
						}
					case contracts.FulfillmentFailed:
						for _, undone := range p.Undone {
							if undone == contracts.StepRefundPayment {
								t.Errorf("a refund is announced: %+v", p)
							}
						}
					}
				}
				if lost {
					return
				}
				w.mu.Unlock()
				w.wantHoldings(order, c.want)
				got := w.announced()
				w.mu.Lock()
				if diff := cmp.Diff(c.events, got); diff != "" {
					t.Errorf("announced (-want +got):\n%s", diff)
				}
			})
		}
	}
}
