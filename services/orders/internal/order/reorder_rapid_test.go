package order_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"waybill/contracts"
	"waybill/services/orders/internal/order"
)

// event is one event of an order as the bus delivers it.
type event struct {
	name string
	take func(o *order.Order, now time.Time) bool
}

// stream gathers the events that an order's saga publishes, in their order.
type stream struct{ events []event }

func (s *stream) add(name string, take func(o *order.Order, cause order.Cause, now time.Time) bool) {
	cause := order.Cause{EventID: fmt.Sprintf("%d:%s", len(s.events), name), Source: "/waybill/fulfillment", Time: at}
	s.events = append(s.events, event{name, func(o *order.Order, now time.Time) bool { return take(o, cause, now) }})
}

func (s *stream) step(step, outcome string) {
	s.add(step+" "+outcome, func(o *order.Order, cause order.Cause, now time.Time) bool {
		e := contracts.StepCompleted{Step: step, Outcome: outcome, CompletedAt: at}
		if step == contracts.StepProcessShipment {
			e.TrackingNumber = "TRK-1"
		}
		return o.Step(cause, e, now)
	})
}

// drawStream draws one way that a saga can take, and with it the status that an order ends in which learns all of it.
func drawStream(t *rapid.T) (*stream, order.Status) {
	s := &stream{}
	s.add("Order.Created", func(o *order.Order, _ order.Cause, now time.Time) bool {
		return o.Confirm(order.Cause{EventID: "ord-1:Order.Created", Source: order.Source, Time: at}, now)
	})
	const done, refused = contracts.OutcomeDone, contracts.OutcomeRefused
	steps := []string{contracts.StepValidatePayment, contracts.StepReserveInventory}
	if rapid.Bool().Draw(t, "needs approval") {
		steps = append(steps, contracts.StepApproval)
	}
	steps = append(steps, contracts.StepProcessShipment)
	undoOf := map[string]string{
		contracts.StepValidatePayment: contracts.StepRefundPayment, contracts.StepReserveInventory: contracts.StepReleaseInventory,
		contracts.StepProcessShipment: contracts.StepCancelShipment,
	}
	// Every step before the broken one is done. That one is refused, or is where the customer's cancellation is seen.
	broken := rapid.IntRange(0, len(steps)).Draw(t, "broken step")
	cancelled := broken < len(steps) && rapid.Bool().Draw(t, "cancelled")
	if cancelled && rapid.Bool().Draw(t, "answered first") {
		s.step(contracts.StepCancel, done)
	}
	var undos []string
	for i, step := range steps[:min(broken+1, len(steps))] {
		waits := step == contracts.StepApproval
		if i == broken && cancelled && (!waits || rapid.Bool().Draw(t, "before the wait")) {
			break
		}
		if waits {
			s.add("ApprovalRequested", func(o *order.Order, cause order.Cause, now time.Time) bool {
				return o.AwaitApproval(cause, contracts.ApprovalRequested{TotalAmount: 6000_0000, Currency: "EUR", RequestedAt: at, ExpiresAt: at.AddDate(0, 0, 1)}, now)
			})
		}
		switch {
		case i < broken:
			s.step(step, done)
		case !cancelled && rapid.Bool().Draw(t, "refused"):
			s.step(step, refused)
		case !waits && rapid.Bool().Draw(t, "done and given up"):
			s.step(step, done) // its effect and its event are out, its answer is lost
		default: // given up for technical reasons, without an event
		}
		if undo := undoOf[step]; undo != "" {
			undos = append([]string{undo}, undos...)
		}
	}
	if broken == len(steps) {
		if rapid.Bool().Draw(t, "cancelled too late") {
			s.step(contracts.StepCancel, refused)
		}
		s.add("Fulfillment.Completed", func(o *order.Order, cause order.Cause, now time.Time) bool {
			return o.Complete(cause, contracts.FulfillmentCompleted{TrackingNumber: "TRK-1"}, now)
		})
		return s, order.Fulfilled
	}
	failed := func(notUndone []string) {
		s.add(fmt.Sprint("Fulfillment.Failed ", notUndone), func(o *order.Order, cause order.Cause, now time.Time) bool {
			return o.Fail(cause, contracts.FulfillmentFailed{Code: "declined", Error: "No.", NotUndone: notUndone}, now)
		})
	}
	for i, undo := range undos {
		for range rapid.IntRange(0, 2).Draw(t, "standstills") {
			failed(undos[i:])
			s.step(contracts.StepRepair, done)
		}
		s.step(undo, done)
	}
	if cancelled && rapid.Bool().Draw(t, "answered last") {
		s.step(contracts.StepCancel, done)
	}
	if cancelled {
		s.add("Fulfillment.Cancelled", func(o *order.Order, cause order.Cause, now time.Time) bool {
			return o.Cancel(cause, contracts.FulfillmentCancelled{Reason: "Ordered twice.", Undone: undos}, now)
		})
		return s, order.Cancelled
	}
	failed(nil)
	return s, order.FulfillmentFailed
}

// outcome is what must not depend on the order in which events arrive.
type outcome struct {
	Status    order.Status
	Shipment  order.Shipment
	Failure   order.Failure
	Announced []string
}

// TestAnyOrder delivers a saga's events, or as many of them as were published so far, twice and in any order: the order
// never leaves the table, and it ends as one that learns each event once and in order.
func TestAnyOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		saga, end := drawStream(t)
		events := saga.events
		unfinished := rapid.Bool().Draw(t, "unfinished")
		if unfinished {
			events = events[:len(events)-rapid.IntRange(0, len(events)-1).Draw(t, "not published yet")]
		}
		learn := func(events []event) outcome {
			o, err := order.New(draft(), at)
			if err != nil {
				t.Fatal(err)
			}
			o.Place()
			for i, e := range events {
				before := o.Status()
				e.take(o, at.Add(time.Duration(i)))
				if o.Status() != before && !before.CanBecome(o.Status()) {
					t.Fatalf("%s moved the order from %s to %s, which the table forbids", e.name, before, o.Status())
				}
				consistent(t, o)
			}
			s := o.Snapshot()
			got := outcome{Status: s.Status, Shipment: s.Shipment, Failure: s.Failure}
			for _, e := range s.Timeline {
				if e.Previous != "" && e.Status.Final() {
					got.Announced = append(got.Announced, e.EventID)
				}
			}
			return got
		}
		want := learn(events)
		if !unfinished && want.Status != end {
			t.Fatalf("in order the events lead to %s, want %s", want.Status, end)
		}
		if diff := cmp.Diff(want, learn(rapid.Permutation(slices.Concat(events, events)).Draw(t, "delivered"))); diff != "" {
			t.Fatalf("twice and in another order: %s", diff)
		}
	})
}
