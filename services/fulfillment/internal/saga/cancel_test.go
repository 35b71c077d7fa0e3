package saga_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/operations"
	"waybill/services/fulfillment/internal/record"
)

// untilAStepFailed waits until the first attempt of one of the saga's steps has failed.
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

// A step that fails is tried again after an hour. A cancellation does not wait for that, and whatever the failed attempt did
// is undone.
func TestACancellationEndsAStepThatRetries(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		call  string
		after bool
		want  books
	}{
		{"Charge", false, books{}},
		{"Charge", true, books{charges: 1, refunds: 1}},
		{"Reserve", false, books{charges: 1, refunds: 1, reservation: inventory.Released}},
		{"Reserve", true, books{charges: 1, refunds: 1, reservation: inventory.Released}},
		{"Book", false, books{charges: 1, refunds: 1, cancelled: true, reservation: inventory.Released}},
		{"Book", true, books{charges: 1, refunds: 1, parcels: 1, cancelled: true, reservation: inventory.Released}},
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
			w.wake(order) // a signal with no cancellation behind it ends nothing
			if err := w.cancel(order); err != nil {
				t.Fatal(err)
			}
			if result := w.end(order); result.Outcome != record.Cancelled || result.Error != "Ordered twice." {
				t.Errorf("result %+v, want it cancelled", result)
			}
			w.wantLedger(order, c.want)
			w.wantMessages(order, contracts.TemplateOrderCancelled)
			w.wantStock("PROD-001", 0)
		})
	}
}

// The attempt reads the decisions itself: it can run long after the workflow scheduled it, when nobody could wake the saga.
func TestEveryAttemptLooksForACancellation(t *testing.T) {
	t.Parallel()
	for call, want := range map[string]books{
		"Charge":  {},
		"Reserve": {charges: 1, refunds: 1, reservation: inventory.Released},
		"Book":    {charges: 1, refunds: 1, cancelled: true, reservation: inventory.Released},
	} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, quick)
			order := anOrder("ORDER-1")
			w.faults.hook(call, func() error { // the first attempt fails; meanwhile the wish is recorded, and the signal is lost
				_, err := w.records.Change(t.Context(), order.OrderID, func(s *record.Saga) (bool, error) {
					return s.Cancel("Ordered twice.", time.Now()), nil
				})
				return errors.Join(err, planned(call))
			})
			if result := w.fulfill(order); result.Outcome != record.Cancelled {
				t.Errorf("result %+v, want it cancelled", result)
			}
			w.wantLedger(order, want)
		})
	}
}

// A cancellation that is recorded before the saga has ended counts, also when the saga was about to fail.
func TestACancellationDuringTheUndoing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	order := anOrder("ORDER-1")
	order.ShipTo.Zip = "X-REFUSED"
	w.faults.hook("Refund", func() error { return w.cancel(order) })
	if result := w.fulfill(order); result.Outcome != record.Cancelled || result.Error != "Ordered twice." {
		t.Errorf("result %+v, want it cancelled", result)
	}
	w.wantMessages(order, contracts.TemplateOrderCancelled)
	w.wantLedger(order, books{charges: 1, refunds: 1, reservation: inventory.Released})
	w.until(order, "an end", (*record.Saga).Ended)
	want := []string{"ValidatePayment done", "ReserveInventory done", "ProcessShipment refused", "ReleaseInventory done", "Cancel done", "RefundPayment done", "Fulfillment.Cancelled"}
	if diff := cmp.Diff(want, w.told()); diff != "" {
		t.Errorf("story (-want +got):\n%s", diff)
	}
}

// A saga that stands still for a repair ends cancelled when its customer had cancelled the order.
func TestACancelledOrderIsRepaired(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	order := anOrder("ORDER-1")
	w.faults.set("Release", -1, false)
	w.faults.hook("Book", func() error { return w.cancel(order) })
	w.start(order)
	w.until(order, "a halt", (*record.Saga).AwaitsRepair)
	w.faults.set("Release", 0, false)
	if _, err := w.sagas.Repair(t.Context(), order.OrderID, "operator@example.com", "The warehouse answers again."); err != nil {
		t.Fatal(err)
	}
	if result := w.end(order); result.Outcome != record.Cancelled {
		t.Errorf("result %+v, want it cancelled", result)
	}
	w.wantLedger(order, books{charges: 1, refunds: 1, parcels: 1, cancelled: true, reservation: inventory.Released})
}

// Of a cancellation and an approval the cancellation wins until the parcel is booked, whichever comes first.
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
			got := w.books(order.OrderID)
			if got.charges != got.refunds || got.parcels > 0 && !got.cancelled || got.reservation != inventory.Released {
				t.Errorf("books %+v, want everything undone", got)
			}
		})
	}
}

// A cancellation is answered every time it comes: the answer before may have been lost.
func TestACancellationIsAnswered(t *testing.T) {
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
	w.wantLedger(order, books{})
}

// Nothing is charged for a free order and nothing refunded; a card that would be declined is not asked.
func TestAFreeOrder(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		zip      string
		outcome  record.Outcome
		template string
		want     books
		story    []string
	}{
		{"12345", record.Completed, contracts.TemplateOrderShipped, books{parcels: 1, reservation: inventory.Shipped},
			[]string{"ReserveInventory done", "ProcessShipment done", "Fulfillment.Completed"}},
		{"X-REFUSED", record.Failed, contracts.TemplateOrderFailed, books{reservation: inventory.Released},
			[]string{"ReserveInventory done", "ProcessShipment refused", "ReleaseInventory done", "Fulfillment.Failed"}},
	} {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s lost=%v", c.outcome, lost), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, quick)
				order := anOrder("ORDER-1", contracts.Line{ProductID: "PROD-001", Quantity: 2})
				order.PaymentToken, order.ShipTo.Zip = "tok_declined", c.zip
				forgotten := make(chan struct{})
				if lost {
					w.faults.hook("Book", func() error {
						defer close(forgotten)
						return w.lose(order)
					})
				}
				w.start(order)
				if lost {
					<-forgotten
					if err := operations.NewReconciler(w.sagas, 0, time.Minute).Pass(t.Context()); err != nil {
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
							t.Errorf("the customer is told of a refund: %+v", p)
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
				w.wantLedger(order, c.want)
				story := w.told()
				w.mu.Lock()
				if diff := cmp.Diff(c.story, story); diff != "" {
					t.Errorf("story (-want +got):\n%s", diff)
				}
			})
		}
	}
}
