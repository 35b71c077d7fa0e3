package saga_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/record"
)

// Partners refuse and fail, calls fail before or after their effect, the customer cancels at any time, people decide anything, the order is
// started several times, and the engine loses the saga at any step. The saga still ends, what partners hold matches its outcome, and the
// customer gets one message.
func TestEverySagaEndsConsistently(t *testing.T) {
	t.Parallel()
	limits := quick
	limits.Reservation, limits.Approval = 50*time.Millisecond, 500*time.Millisecond
	// More than all planned faults of one report: the engine in this process, unlike Dapr's, does not start an id again, so a workflow
	// must not fail here.
	limits.LastingAttempts = 16
	w := newWorld(t, limits)
	// The engine in this process can lose a pending task when a saga is terminated while an activity runs.
	reconciler := newReconciler(w.sagas, 0, 3*time.Second)
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		n++
		order := drawnOrder(r, fmt.Sprintf("ORDER-%d", n))
		product := order.Items[0].ProductID
		if _, err := w.stock.Set(t.Context(), product, initialStock); err != nil {
			r.Fatal(err)
		}
		for _, call := range []string{"Charge", "Refund", "Reserve", "Release", "Book", "Ship", "Cancel", "Unship", "Publish", "Change"} {
			if rapid.IntRange(0, 3).Draw(r, "fails "+call) == 0 {
				// Up to five times in a row: a step gives up after four.
				w.faults.set(of(order.OrderID, call), rapid.IntRange(1, 5).Draw(r, "times"), rapid.Bool().Draw(r, "after"))
			}
		}
		cancels := rapid.SampledFrom([]string{"", "", "before", "Charge", "Reserve", "Book", "Ship", "Refund", "Publish", "Change", "later"}).Draw(r, "cancelled during")
		switch cancels {
		case "", "later":
		case "before":
			if err := again(func() error { return w.cancel(order) }); err != nil {
				r.Fatal(err)
			}
		default:
			w.faults.hook(of(order.OrderID, cancels), func() error { return w.cancel(order) })
		}
		if lost := rapid.SampledFrom([]string{"", "", "Charge", "Reserve", "Book", "Ship", "Cancel", "Release", "Refund", "Publish", "Change"}).Draw(r, "lost during"); lost != "" && lost != cancels {
			// The engine loses the saga during this call; the reconciler finds it.
			w.faults.hook(of(order.OrderID, lost), func() error { return w.lose(order) })
		}
		starts := rapid.IntRange(1, 3).Draw(r, "starts")
		for range starts {
			if err := again(func() error { return w.sagas.Start(t.Context(), order) }); err != nil {
				r.Fatal(err)
			}
		}
		decision := rapid.SampledFrom([]string{"approve", "deny", "none", "both"}).Draw(r, "decision")
		cancelFirst := rapid.Bool().Draw(r, "cancelled before the decision")
		decided := false
		for round, deadline := 1, time.Now().Add(30*time.Second); ; round++ {
			e, err := w.records.Get(t.Context(), order.OrderID)
			if err != nil {
				r.Fatal(err)
			}
			if e.Ended() {
				break
			}
			if time.Now().After(deadline) {
				r.Fatalf("the saga does not end: %+v", e)
			}
			if e.AwaitsApproval() && !decided && cancels == "later" && cancelFirst {
				cancels = ""
				if err := again(func() error { return w.cancel(order) }); err != nil {
					r.Fatal(err)
				}
			}
			if e.AwaitsApproval() && !decided && decision != "none" {
				decided = true
				w.decideAsDrawn(order, decision)
			}
			if e.AwaitsApproval() && cancels == "later" {
				cancels = ""
				if err := again(func() error { return w.cancel(order) }); err != nil {
					r.Fatal(err)
				}
			}
			if e.AwaitsRepair() {
				if _, err := w.sagas.Repair(t.Context(), order.OrderID, "operator@example.com", "The cause is fixed."); err != nil && !refusedDecision(err) && !errors.As(err, new(planned)) {
					r.Fatal(err)
				}
			}
			if round%20 == 0 {
				_ = reconciler.Pass(t.Context()) // it may meet planned faults
			}
			time.Sleep(time.Millisecond) // polling interval
		}
		if cancels == "later" { // it ended without requesting an approval
			if err := again(func() error { return w.cancel(order) }); err != nil {
				r.Fatal(err)
			}
		}
		w.checkConsistent(r, order)
	})
}

func (w *world) decideAsDrawn(order contracts.Order, decision string) {
	if decision == "both" {
		_ = w.decide(order, false, "first@example.com")
		_ = w.decide(order, true, "second@example.com")
		return
	}
	_ = w.decide(order, decision == "approve", "approver@example.com")
}

func refusedDecision(err error) bool {
	_, refused := errors.AsType[*record.Error](err)
	return refused
}

// again repeats do until it succeeds, as the bus redelivers an event.
func again(do func() error) error {
	for attempt := 0; ; attempt++ {
		err := do()
		if err == nil || attempt == 20 {
			return err
		}
	}
}

func drawnOrder(r *rapid.T, id string) contracts.Order {
	order := anOrder(id, contracts.Line{ProductID: "PROD-" + id, Quantity: rapid.SampledFrom([]int{1, 5, initialStock, initialStock + 1}).Draw(r, "quantity"), Price: 1_0000})
	switch rapid.SampledFrom([]string{"small", "large", "large", "free"}).Draw(r, "total") {
	case "large":
		order.Items[0].Price = 6000_0000
	case "free":
		order.Items[0].Price = 0
	}
	order.TotalAmount = order.Items[0].Price * contracts.Amount(order.Items[0].Quantity)
	order.PaymentToken = rapid.SampledFrom([]string{"", "", "", "tok_declined", "tok_fail_1", "tok_fail_3", "tok_down"}).Draw(r, "token")
	order.ShipTo.Zip = rapid.SampledFrom([]string{"12345", "12345", "12345", "X-REFUSED", "X-FAIL-1", "X-FAIL-3", "X-DOWN"}).Draw(r, "zip")
	return order
}

// checkConsistent checks what partners hold against the outcome of an ended saga.
func (w *world) checkConsistent(r *rapid.T, order contracts.Order) {
	e, err := w.records.Get(w.t.Context(), order.OrderID)
	if err != nil {
		r.Fatal(err)
	}
	got := w.holdings(order.OrderID)
	stock, err := w.stock.Get(w.t.Context(), order.Items[0].ProductID)
	if err != nil {
		r.Fatal(err)
	}
	charges := 1
	if order.TotalAmount == 0 {
		charges = 0
	}
	if e.Cancelled() != (e.Outcome == record.Cancelled) {
		r.Errorf("the cancellation is %+v and the order %s", e.Cancellation, e.Outcome)
	}
	accepted, tooLate := w.payload(order.OrderID+":Cancel:done") != nil, w.payload(order.OrderID+":Cancel") != nil
	if accepted && e.Outcome != record.Cancelled || tooLate && e.Outcome == record.Cancelled || accepted && tooLate {
		r.Errorf("the cancellation was answered as recorded: %v, as too late: %v, and the order is %s", accepted, tooLate, e.Outcome)
	}
	if tooLate && got.parcels == 0 {
		r.Error("a cancellation was too late for a parcel that was never booked")
	}
	shipped, template := 0, contracts.TemplateOrderFailed
	switch e.Outcome {
	case record.Completed:
		shipped, template = order.Items[0].Quantity, contracts.TemplateOrderShipped
		if diff := cmp.Diff(holdings{charges: charges, parcels: 1, reservation: inventory.Shipped}, got, cmp.AllowUnexported(holdings{})); diff != "" {
			r.Errorf("holdings of a shipped order (-want +got):\n%s", diff)
		}
	case record.Cancelled:
		template = contracts.TemplateOrderCancelled
		fallthrough
	default:
		if got.charges != got.refunds || got.charges > charges {
			r.Errorf("%d charges and %d refunds of an order that was not shipped", got.charges, got.refunds)
		}
		if got.parcels > 0 && !got.cancelled {
			r.Errorf("a parcel is booked for an order that is %s", e.Outcome)
		}
		if got.reservation != "" && got.reservation != inventory.Refused && got.reservation != inventory.Released {
			r.Errorf("the reservation of an order that is %s is %s", e.Outcome, got.reservation)
		}
	}
	if stock.OnHand != initialStock-shipped || stock.Shipped != shipped || stock.Reserved() != 0 {
		r.Errorf("stock: on hand %d, shipped %d, reserved %d; want %d, %d, 0", stock.OnHand, stock.Shipped, stock.Reserved(), initialStock-shipped, shipped)
	}
	messages := 0
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, event := range w.events {
		if m, ok := event.payload.(contracts.NotificationRequested); ok && m.OrderID == order.OrderID {
			if messages++; m.Template != template {
				r.Errorf("the customer of an order that is %s gets the message %s", e.Outcome, m.Template)
			}
			if m.Refunded != (got.refunds > 0) {
				r.Errorf("the message mentions a refund: %v; there were %d refunds", m.Refunded, got.refunds)
			}
		}
	}
	if messages > 3 {
		r.Errorf("the customer gets %d messages", messages)
	}
}
