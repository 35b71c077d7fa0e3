package order_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/services/orders/internal/order"
)

// did makes a step of the saga, known by its name.
func did(o *order.Order, step, outcome string) {
	o.Step(order.Cause{EventID: step, Source: "/f", Time: at}, contracts.StepCompleted{Step: step, Outcome: outcome, TrackingNumber: "T"}, at)
}

func failed(o *order.Order, id string, notUndone ...string) {
	o.Fail(order.Cause{EventID: id, Source: "/f", Time: at}, contracts.FulfillmentFailed{Code: "declined", Error: "No.", NotUndone: notUndone}, at)
}

// confirmed is an order that was placed and confirmed, and then learned more.
func confirmed(t *testing.T, more ...func(*order.Order)) *order.Order {
	t.Helper()
	o := newOrder(t)
	o.Place()
	o.Confirm(order.Cause{EventID: "ord-1:Order.Created", Source: order.Source, Time: at}, at)
	for _, learn := range more {
		learn(o)
	}
	return o
}

func awaits(o *order.Order) {
	o.AwaitApproval(order.Cause{EventID: "approval", Source: "/f", Time: at}, contracts.ApprovalRequested{
		TotalAmount: 6000_0000, Currency: "EUR", RequestedAt: at, ExpiresAt: at.AddDate(0, 0, 1),
	}, at)
}

func types(entries []order.Entry) []string {
	found := make([]string, 0, len(entries))
	for _, e := range entries {
		found = append(found, e.Type)
	}
	return found
}

func TestRequestCancellation(t *testing.T) {
	t.Parallel()
	placed := newOrder(t)
	placed.Place()
	request := func(o *order.Order) {
		if _, err := o.RequestCancellation("The first reason.", at); err != nil {
			t.Error(err)
		}
	}
	for name, test := range map[string]struct {
		order   *order.Order
		code    string
		changed bool
		status  order.Status
		pending bool
		asks    []string
	}{
		"received":            {placed, "", true, order.Cancelled, false, []string{"Order.Cancelled"}},
		"confirmed":           {confirmed(t), "", true, order.Confirmed, true, []string{"Order.Confirmed", "Order.CancellationRequested"}},
		"confirmed, again":    {confirmed(t, request), "", false, order.Confirmed, true, []string{"Order.Confirmed", "Order.CancellationRequested"}},
		"awaiting approval":   {confirmed(t, awaits), "", true, order.AwaitingApproval, true, []string{"Order.Confirmed", "Order.CancellationRequested"}},
		"fulfilling":          {confirmed(t, func(o *order.Order) { did(o, "ValidatePayment", "done") }), "", true, order.Fulfilling, true, []string{"Order.Confirmed", "Order.CancellationRequested"}},
		"shipped":             {confirmed(t, func(o *order.Order) { did(o, "ProcessShipment", "done") }), "order_shipped", false, order.Fulfilling, false, []string{"Order.Confirmed"}},
		"requested, shipped":  {confirmed(t, request, func(o *order.Order) { did(o, "ProcessShipment", "done") }), "order_shipped", false, order.Fulfilling, true, []string{"Order.Confirmed", "Order.CancellationRequested"}},
		"no carrier":          {confirmed(t, func(o *order.Order) { did(o, "ProcessShipment", "refused") }), "", true, order.Fulfilling, true, []string{"Order.Confirmed", "Order.CancellationRequested"}},
		"shipment called off": {confirmed(t, func(o *order.Order) { did(o, "ProcessShipment", "done"); did(o, "CancelShipment", "done") }), "", true, order.Fulfilling, true, []string{"Order.Confirmed", "Order.CancellationRequested"}},
		"refused":             {confirmed(t, request, func(o *order.Order) { did(o, "Cancel", "refused") }), "order_shipped", false, order.Fulfilling, false, []string{"Order.Confirmed"}},
		"needs attention":     {confirmed(t, func(o *order.Order) { failed(o, "failed", "RefundPayment") }), "order_needs_attention", false, order.NeedsAttention, false, []string{"Order.Confirmed"}},
		"failed":              {confirmed(t, func(o *order.Order) { failed(o, "failed") }), "order_final", false, order.FulfillmentFailed, false, []string{}},
		"fulfilled": {confirmed(t, func(o *order.Order) {
			o.Complete(order.Cause{EventID: "done"}, contracts.FulfillmentCompleted{TrackingNumber: "T"}, at)
		}), "order_shipped", false, order.Fulfilled, false, []string{}},
		"cancelled": {confirmed(t, func(o *order.Order) {
			o.Cancel(order.Cause{EventID: "cancelled"}, contracts.FulfillmentCancelled{}, at)
		}), "", false, order.Cancelled, false, []string{}},
	} {
		o := test.order
		changed, err := o.RequestCancellation("  Ordered twice. ", at.Add(time.Hour))
		code := ""
		if refused, ok := errors.AsType[*order.Error](err); ok {
			code = refused.Code
			if refused.Kind != order.TooLate || !strings.Contains(refused.Text, string(test.status)) {
				t.Errorf("%s: refused with %+v, which must name the status", name, refused)
			}
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if code != test.code || changed != test.changed || o.Status() != test.status || o.CancellationPending() != test.pending {
			t.Errorf("%s: got %q, changed %v, %s, pending %v", name, code, changed, o.Status(), o.CancellationPending())
		}
		if diff := cmp.Diff(test.asks, types(o.Outstanding())); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if changed && !o.Snapshot().UpdatedAt.Equal(at.Add(time.Hour)) {
			t.Errorf("%s: the order shows no change", name)
		}
		if again, err := o.RequestCancellation("Another reason.", at.Add(2*time.Hour)); again || (err != nil) != (test.code != "") {
			t.Errorf("%s: repeated, it changes the order %v, or is refused otherwise: %v", name, again, err)
		}
		if c, _ := o.Cancellation(); changed && c.Reason != "Ordered twice." {
			t.Errorf("%s: the reason became %q", name, c.Reason)
		}
	}
}

func TestACancelledOrderIsNotConfirmed(t *testing.T) {
	t.Parallel()
	o := newOrder(t)
	o.Place()
	if _, err := o.RequestCancellation("Ordered twice.", at); err != nil {
		t.Fatal(err)
	}
	created := order.Cause{EventID: "ord-1:Order.Created", Source: order.Source, Time: at}
	if o.Confirm(created, at) || o.Status() != order.Cancelled {
		t.Errorf("the order is %s", o.Status())
	}
	// No other event repeats the publication of its end.
	announced := o.Unsettled(created)
	if diff := cmp.Diff([]string{contracts.TypeOrderCancelled}, types(announced)); diff != "" {
		t.Fatal(diff)
	}
	want := contracts.OrderCancelled{OrderID: "ord-1", CustomerID: "CUST-123", Reason: "Ordered twice.", CancelledAt: at}
	if diff := cmp.Diff(contracts.Payload(want), o.Announcement(announced[0])); diff != "" {
		t.Error(diff)
	}
	if announced[0].EventID != "ord-1:Order.Cancelled" || announced[0].Previous != order.Received {
		t.Errorf("announced as %+v", announced[0])
	}
}

func TestTheReason(t *testing.T) {
	t.Parallel()
	for reason, valid := range map[string]bool{
		"": true, "  \n": true, " Ordered twice.\n": true, strings.Repeat("ü", 500): true,
		strings.Repeat("x", 501): false, "one\ntwo": false, "a\x00": false, "\xff": false,
	} {
		o := confirmed(t)
		_, err := o.RequestCancellation(reason, at)
		var refused *order.Error
		if valid && err != nil || !valid && (!errors.As(err, &refused) || refused.Kind != order.Invalid || refused.Faults[0].Path != "reason") {
			t.Errorf("%q: %v", reason, err)
		}
		if o.CancellationPending() != valid {
			t.Errorf("%q: pending is %v", reason, o.CancellationPending())
		}
	}
}

func TestTheWayOfACancelledOrder(t *testing.T) {
	t.Parallel()
	o := confirmed(t, awaits)
	if _, err := o.RequestCancellation("Ordered twice.", at.Add(1)); err != nil {
		t.Fatal(err)
	}
	did(o, contracts.StepReleaseInventory, contracts.OutcomeDone)
	cause := order.Cause{EventID: "cancelled", Source: "/f", Time: at}
	o.Cancel(cause, contracts.FulfillmentCancelled{Reason: "Ordered twice.", Undone: []string{"ReleaseInventory"}, CancelledAt: at.Add(2)}, at.Add(3))
	want := []order.Entry{
		{EventID: "approval", Type: "Fulfillment.ApprovalRequested", Time: at, Source: "/f", Status: order.AwaitingApproval, Amount: 6000_0000, Currency: "EUR", ExpiresAt: at.AddDate(0, 0, 1)},
		{EventID: "approval:Order.Updated", Type: "Order.Updated", Time: at, Source: order.Source, Status: order.AwaitingApproval, Previous: order.Confirmed, CausedBy: "approval"},
		{EventID: "ord-1:Order.CancellationRequested", Type: "Order.CancellationRequested", Time: at.Add(1), Source: order.Source, Status: order.AwaitingApproval, Reason: "Ordered twice."},
		{EventID: "ReleaseInventory", Type: "Fulfillment.StepCompleted", Time: at, Source: "/f", Status: order.Fulfilling, Step: "ReleaseInventory", Outcome: "done", TrackingNumber: "T"},
		{EventID: "ReleaseInventory:Order.Updated", Type: "Order.Updated", Time: at, Source: order.Source, Status: order.Fulfilling, Previous: order.AwaitingApproval, CausedBy: "ReleaseInventory"},
		{EventID: "cancelled", Type: "Fulfillment.Cancelled", Time: at.Add(2), Source: "/f", Status: order.Cancelled, Undone: []string{"ReleaseInventory"}, Reason: "Ordered twice."},
		{EventID: "ord-1:Order.Cancelled", Type: "Order.Cancelled", Time: at.Add(3), Source: order.Source, Status: order.Cancelled, Previous: order.Fulfilling, CausedBy: "cancelled", Reason: "Ordered twice."},
	}
	timeline := o.Snapshot().Timeline[2:]
	if diff := cmp.Diff(want, timeline); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(contracts.Payload(contracts.OrderCancellationRequested{
		OrderID: "ord-1", CustomerID: "CUST-123", Reason: "Ordered twice.", RequestedAt: at.Add(1),
	}), o.Announcement(timeline[2])); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(contracts.Payload(contracts.OrderCancelled{
		OrderID: "ord-1", CustomerID: "CUST-123", Reason: "Ordered twice.", CancelledAt: at.Add(3),
	}), o.Announcement(o.Unsettled(cause)[0])); diff != "" {
		t.Error(diff)
	}
	if c, ok := o.Cancellation(); !ok || c != (order.Cancellation{RequestedAt: at.Add(1), Reason: "Ordered twice.", Accepted: true}) {
		t.Errorf("the cancellation is %+v", c)
	}
}

func TestTheWayThroughAnApproval(t *testing.T) {
	t.Parallel()
	o := confirmed(t, awaits)
	did(o, contracts.StepReserveInventory, contracts.OutcomeDone) // late
	if o.Status() != order.AwaitingApproval {
		t.Errorf("a late step makes the order %s", o.Status())
	}
	o.Step(order.Cause{EventID: "approved", Source: "/f", Time: at}, contracts.StepCompleted{
		Step: contracts.StepApproval, Outcome: contracts.OutcomeDone, Actor: "approver@example.com", CompletedAt: at,
	}, at)
	i := slices.IndexFunc(o.Snapshot().Timeline, func(e order.Entry) bool { return e.EventID == "approved" })
	if e := o.Snapshot().Timeline[i]; o.Status() != order.Fulfilling || e.Actor != "approver@example.com" {
		t.Errorf("approved, the order is %s: %+v", o.Status(), e)
	}

	late := confirmed(t, func(o *order.Order) { did(o, contracts.StepApproval, contracts.OutcomeDone) }, awaits)
	if late.Status() != order.Fulfilling {
		t.Errorf("a late request makes an approved order %s", late.Status())
	}
}

func TestRepair(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(o *order.Order){
		"fulfillment_failed": func(o *order.Order) { failed(o, "ord-1:failed") },
		"cancelled": func(o *order.Order) {
			o.Cancel(order.Cause{EventID: "ord-1:cancelled"}, contracts.FulfillmentCancelled{}, at)
		},
	} {
		o := confirmed(t)
		failed(o, "ord-1:attention:1", contracts.StepRefundPayment)
		did(o, contracts.StepRepair, contracts.OutcomeDone)
		failed(o, "ord-1:attention:2", contracts.StepRefundPayment)
		did(o, contracts.StepRefundPayment, contracts.OutcomeDone)
		if o.Status() != order.NeedsAttention {
			t.Fatalf("%s: before its end the order is %s", name, o.Status())
		}
		end(o)
		if o.Status() != order.Status(name) || (o.Snapshot().Failure == order.Failure{}) != (o.Status() == order.Cancelled) {
			t.Errorf("%s: the order ends %s with %+v", name, o.Status(), o.Snapshot().Failure)
		}
	}
}
