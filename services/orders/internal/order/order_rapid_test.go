package order_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"waybill/contracts"
	"waybill/services/orders/internal/order"
)

// history feeds an order its events, repeated and out of order, as a bus may.
type history struct {
	order *order.Order
	// events are those delivered, by id, so that they can come again.
	events map[string]func(*order.Order) bool
	clock  time.Time
}

func (h *history) deliver(t *rapid.T, id string, event func(*order.Order) bool) {
	_, repeated := h.events[id]
	h.events[id] = event
	before := h.order.Snapshot()
	changed := event(h.order)
	after := h.order.Snapshot()
	if repeated && changed {
		t.Fatalf("%s changed the order when it came again", id)
	}
	if !changed {
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("%s changed the order and denies it: %s", id, cmp.Diff(before, after))
		}
	}
	if before.Status.Final() && after.Status != before.Status {
		t.Fatalf("%s moved the order from %s, which is final, to %s", id, before.Status, after.Status)
	}
	if after.Status != before.Status && !before.Status.CanBecome(after.Status) {
		t.Fatalf("%s moved the order from %s to %s, which the table forbids", id, before.Status, after.Status)
	}
	if !slices.EqualFunc(before.Timeline, after.Timeline[:len(before.Timeline)], func(a, b order.Entry) bool { return reflect.DeepEqual(a, b) }) {
		t.Fatalf("%s changed what had happened before", id)
	}
}

func (h *history) tick() time.Time {
	h.clock = h.clock.Add(time.Millisecond)
	return h.clock
}

func TestAnyHistory(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o, err := order.New(draft(), at)
		if err != nil {
			t.Fatal(err)
		}
		h := &history{order: o, events: map[string]func(*order.Order) bool{}, clock: at}
		if rapid.Bool().Draw(t, "over REST") {
			o.Place()
		}
		cause := func(name string) order.Cause {
			return order.Cause{EventID: fmt.Sprintf("%s-%d", name, rapid.IntRange(1, 3).Draw(t, "event")), Source: "/waybill/fulfillment", Time: at}
		}
		t.Repeat(map[string]func(*rapid.T){
			"created": func(t *rapid.T) {
				c := order.Cause{EventID: rapid.SampledFrom([]string{"ord-1:Order.Created", "elsewhere-1"}).Draw(t, "event"), Source: order.Source, Time: at}
				now := h.tick()
				h.deliver(t, c.EventID, func(o *order.Order) bool { return o.Confirm(c, now) })
			},
			"step": func(t *rapid.T) {
				c, now := cause("step"), h.tick()
				e := contracts.StepCompleted{
					Step:    rapid.SampledFrom(contracts.Steps()).Draw(t, "step"),
					Outcome: rapid.SampledFrom([]string{contracts.OutcomeDone, contracts.OutcomeRefused}).Draw(t, "outcome"),
				}
				h.deliver(t, c.EventID, func(o *order.Order) bool { return o.Step(c, e, now) })
			},
			"complete": func(t *rapid.T) {
				c, now := cause("completed"), h.tick()
				h.deliver(t, c.EventID, func(o *order.Order) bool {
					return o.Complete(c, contracts.FulfillmentCompleted{TrackingNumber: "T"}, now)
				})
			},
			"fail": func(t *rapid.T) {
				c, now := cause("failed"), h.tick()
				e := contracts.FulfillmentFailed{Code: "declined", NotUndone: rapid.SampledFrom([][]string{nil, {"RefundPayment"}}).Draw(t, "not undone")}
				h.deliver(t, c.EventID, func(o *order.Order) bool { return o.Fail(c, e, now) })
			},
			"await approval": func(t *rapid.T) {
				c, now := cause("approval"), h.tick()
				h.deliver(t, c.EventID, func(o *order.Order) bool {
					return o.AwaitApproval(c, contracts.ApprovalRequested{TotalAmount: 6000_0000, Currency: "USD"}, now)
				})
			},
			"cancel": func(t *rapid.T) {
				c, now := cause("cancelled"), h.tick()
				h.deliver(t, c.EventID, func(o *order.Order) bool {
					return o.Cancel(c, contracts.FulfillmentCancelled{Reason: "Ordered twice."}, now)
				})
			},
			"request cancellation": func(t *rapid.T) {
				before := h.order.Snapshot()
				changed, err := h.order.RequestCancellation("Ordered twice.", h.tick())
				after := h.order.Snapshot()
				switch {
				case err != nil && changed, !changed && !reflect.DeepEqual(before, after):
					t.Fatalf("the request was refused or repeated (%v), and changed the order: %s", err, cmp.Diff(before, after))
				case before.Status == order.Received && after.Status != order.Cancelled:
					t.Fatalf("an order that is received is not cancelled but %s", after.Status)
				case before.Status != order.Received && after.Status != before.Status:
					t.Fatalf("the request moved the order from %s to %s; that is for the saga", before.Status, after.Status)
				case err == nil && after.Status != order.Cancelled && !h.order.CancellationPending():
					t.Fatal("the request was accepted and is not pending")
				}
			},
			"repeat": func(t *rapid.T) {
				if len(h.events) == 0 {
					t.Skip("nothing to repeat")
				}
				ids := make([]string, 0, len(h.events))
				for id := range h.events {
					ids = append(ids, id)
				}
				slices.Sort(ids)
				id := rapid.SampledFrom(ids).Draw(t, "event")
				h.deliver(t, id, h.events[id])
			},
			"": func(t *rapid.T) { consistent(t, h.order) },
		})
	})
}

// consistent checks what must hold of an order at any time.
func consistent(t *rapid.T, o *order.Order) {
	s := o.Snapshot()
	seen := map[string]bool{}
	status, finals := order.Received, 0
	for _, e := range s.Timeline {
		if seen[e.EventID] {
			t.Fatalf("%s is on the timeline twice", e.EventID)
		}
		seen[e.EventID] = true
		if e.Status != status && !status.CanBecome(e.Status) {
			t.Fatalf("the timeline goes from %s to %s", status, e.Status)
		}
		status = e.Status
		if e.Source == order.Source && o.Announcement(e) == nil {
			t.Fatalf("%s has nothing to announce", e.EventID)
		}
		if e.Previous == "" {
			continue
		}
		if !e.Previous.CanBecome(e.Status) {
			t.Fatalf("%s announces %s → %s, which the table forbids", e.EventID, e.Previous, e.Status)
		}
		if e.Status.Final() {
			finals++
		}
		again := o.Outstanding()
		if e.CausedBy != "" {
			if !seen[e.CausedBy] {
				t.Fatalf("%s is before %s, which caused it", e.EventID, e.CausedBy)
			}
			again = o.Unsettled(order.Cause{EventID: e.CausedBy})
		}
		if !slices.ContainsFunc(again, func(u order.Entry) bool { return u.EventID == e.EventID }) {
			t.Fatalf("%s is not announced again when %q comes again", e.EventID, e.CausedBy)
		}
	}
	if s.Status.Final() != (finals == 1) || finals > 1 {
		t.Fatalf("an order that is %s announced %d ends", s.Status, finals)
	}
	if (s.Failure != order.Failure{}) != (s.Status == order.FulfillmentFailed || s.Status == order.NeedsAttention) {
		t.Fatalf("an order that is %s shows the failure %+v", s.Status, s.Failure)
	}
	if s.Status == order.Fulfilled && s.Shipment.TrackingNumber == "" {
		t.Fatal("a fulfilled order has no tracking number")
	}
	if (s.Status == order.Cancelled || s.Status == order.FulfillmentFailed) && s.Shipment != (order.Shipment{}) {
		t.Fatalf("an order that is %s shows a shipment", s.Status)
	}
	if known, err := o.CancellationAnswer(); known && err == nil && s.Status.Final() && s.Status != order.Cancelled {
		t.Fatalf("the cancellation of an order that is %s is accepted", s.Status)
	}
	if status != s.Status {
		t.Fatalf("the timeline ends at %s, the order is %s", status, s.Status)
	}
}
