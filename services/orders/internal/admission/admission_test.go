package admission_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"waybill/contracts"
	"waybill/platform/state"
	"waybill/services/orders/internal/admission"
	"waybill/services/orders/internal/order"
)

// world is a Gate and the orders that it observes, in a test's own time.
type world struct {
	t *testing.T
	*admission.Gate
	orders map[string]*order.Order
}

// inWorld runs the test with a Gate that has counted an empty pending set.
func inWorld(t *testing.T, o admission.Options, test func(w *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, o)
		w.Begin()
		w.End()
		test(w)
	})
}

func newWorld(t *testing.T, o admission.Options) *world {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	if o.Age == 0 {
		o.Age = time.Minute
	}
	g, err := admission.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, g, map[string]*order.Order{}}
}

// order is a new order of the customer, which came over REST unless its id begins with "bus".
func (w *world) order(id, customer string) *order.Order {
	w.t.Helper()
	o, err := order.New(order.Draft{
		ID: id, CustomerID: customer, Total: "5", Lines: []order.DraftLine{{ProductID: "PROD-001", Quantity: "1", Price: "5"}},
		ShipTo: contracts.Address{Street: "A", City: "B", Zip: "C"},
	}, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

// place lets the customer place an order that is confirmed, if there is room, and returns why there was none.
func (w *world) place(id, customer string) *admission.Refusal {
	w.t.Helper()
	o := w.order(id, customer)
	slot, err := w.Admit(w.t.Context(), o)
	return w.accept(slot, err, o, order.Source)
}

// take lets an order come from the bus.
func (w *world) take(id, customer string) *admission.Refusal {
	w.t.Helper()
	o := w.order(id, customer)
	slot, err := w.AdmitFromBus(w.t.Context(), o)
	return w.accept(slot, err, o, "/another/system")
}

func (w *world) accept(slot *admission.Slot, err error, o *order.Order, source string) *admission.Refusal {
	w.t.Helper()
	if err != nil {
		refusal, ok := errors.AsType[*admission.Refusal](err)
		if !ok {
			w.t.Fatal(err)
		}
		return refusal
	}
	defer slot.Release()
	w.orders[string(o.ID())] = o
	o.Confirm(order.Cause{EventID: string(o.ID()), Source: source, Time: time.Now()}, time.Now())
	w.Observe(o)
	return nil
}

func (w *world) mustPlace(id, customer string) {
	w.t.Helper()
	if refusal := w.place(id, customer); refusal != nil {
		w.t.Fatalf("%s at %s: %v", id, time.Now().Format(time.TimeOnly), refusal)
	}
}

func (w *world) refused(refusal *admission.Refusal, cause admission.Cause) {
	w.t.Helper()
	switch {
	case refusal == nil:
		w.t.Errorf("admitted, want it refused for %s", cause)
	case refusal.Cause != cause || refusal.RetryAfter < 1 || refusal.RetryAfter > 60:
		w.t.Errorf("refused for %+v, want %s and 1 to 60 seconds", refusal, cause)
	}
}

// end lets the saga of the order end.
func (w *world) end(id string) {
	o := w.orders[id]
	o.Complete(order.Cause{EventID: id + ":end", Source: "/f"}, contracts.FulfillmentCompleted{}, time.Now())
	w.Observe(o)
}

// ask lets the order wait for an approval, decide ends the wait.
func (w *world) ask(id string) {
	w.orders[id].AwaitApproval(order.Cause{EventID: id + ":ask", Source: "/f"}, contracts.ApprovalRequested{}, time.Now())
	w.Observe(w.orders[id])
}

func (w *world) decide(id string) {
	step := contracts.StepCompleted{Step: contracts.StepApproval, Outcome: contracts.OutcomeDone}
	w.orders[id].Step(order.Cause{EventID: id + ":decide", Source: "/f"}, step, time.Now())
	w.Observe(w.orders[id])
}

// id names an order, and a customer of its own.
func id(n int) (string, string) { return fmt.Sprint("ord-", n), fmt.Sprint("CUST-", n) }

func TestTheBoundClosesAndOpensLater(t *testing.T) {
	inWorld(t, admission.Options{Open: 10}, func(w *world) {
		for n := range 10 {
			w.mustPlace(id(n))
		}
		w.refused(w.place("more", "CUST-more"), admission.Full)
		if s := w.Status(); s.State != "closed" || s.Cause != admission.Full || s.Open != 10 || s.InFlight != 0 || s.Limit != 10 {
			t.Errorf("got %+v", s)
		}
		w.end("ord-0")
		w.refused(w.place("more", "CUST-more"), admission.Full)
		time.Sleep(time.Second)
		since := time.Now()
		w.end("ord-1") // four fifths are left
		if s := w.Status(); s.State != "open" || !s.Since.Equal(since.Truncate(time.Millisecond)) {
			t.Errorf("got %+v", s)
		}
		w.mustPlace("more", "CUST-more")
		w.end("ord-2")
		w.end("ord-2")
		if s := w.Status(); s.Open != 8 {
			t.Errorf("an order ended twice counts %d", s.Open)
		}
	})
}

func TestNoBound(t *testing.T) {
	inWorld(t, admission.Options{}, func(w *world) {
		for n := range 1000 {
			w.mustPlace(fmt.Sprint(n), "CUST-123")
			if refusal := w.take(fmt.Sprint("bus-", n), "CUST-123"); refusal != nil {
				t.Fatal(refusal)
			}
		}
		time.Sleep(time.Hour)
		w.mustPlace("last", "CUST-123")
		if s := w.Status(); s.Open != 2001 || s.State != "open" || s.OldestAge != 3600 {
			t.Errorf("got %+v", s)
		}
	})
}

// TestABoundOfOne: the smallest bound lets work go on, over both ways.
func TestABoundOfOne(t *testing.T) {
	inWorld(t, admission.Options{Open: 1}, func(w *world) {
		w.mustPlace("a", "CUST-1")
		w.refused(w.place("b", "CUST-2"), admission.Full)
		w.end("a")
		if refusal := w.take("bus-b", "CUST-2"); refusal != nil {
			t.Error(refusal)
		}
		w.end("bus-b")
		w.mustPlace("c", "CUST-1")
	})
}

func TestOrdersThatWaitForAPerson(t *testing.T) {
	inWorld(t, admission.Options{Open: 2, Waiting: 5}, func(w *world) {
		for n := range 5 {
			name, customer := id(n)
			w.mustPlace(name, customer)
			w.ask(name)
		}
		if s := w.Status(); s.Open != 0 || s.Waiting != 5 || s.Cause != admission.Waiting {
			t.Errorf("got %+v", s)
		}
		w.refused(w.place("more", "CUST-more"), admission.Waiting)
		if w.take("bus-more", "CUST-more") == nil {
			t.Error("an order from the bus was admitted")
		}
		time.Sleep(time.Hour)
		w.decide("ord-0")
		if s := w.Status(); s.Open != 1 || s.Waiting != 4 || s.State != "open" || s.OldestAge != 0 {
			t.Errorf("the time of the decision counts as work: %+v", s)
		}
		w.mustPlace("more", "CUST-more")
	})
}

// stuck places orders that will never end and lets them grow old.
func (w *world) stuck(n int) {
	w.t.Helper()
	for n := range n {
		w.mustPlace(id(n))
	}
	time.Sleep(2 * time.Minute)
}

func TestAge(t *testing.T) {
	inWorld(t, admission.Options{Open: 50}, func(w *world) {
		w.stuck(5)
		// One order is let in to see whether it ends.
		w.mustPlace("probe", "CUST-probe")
		w.refused(w.place("more", "CUST-more"), admission.Slow)
		if s := w.Status(); s.Cause != admission.Slow || s.OldestAge != 120 {
			t.Errorf("got %+v", s)
		}
		time.Sleep(5 * time.Second)
		w.refused(w.place("more", "CUST-more"), admission.Slow)
		time.Sleep(5 * time.Second)
		w.mustPlace("probe-2", "CUST-probe")
		w.refused(w.place("more", "CUST-more"), admission.Slow)
		w.end("probe-2") // the old ones are stuck, the others are not
		w.mustPlace("more", "CUST-more")
		time.Sleep(61 * time.Second)
		w.mustPlace("probe-3", "CUST-probe")
		w.refused(w.place("last", "CUST-more"), admission.Slow)
		for n := range 5 {
			w.end(fmt.Sprint("ord-", n))
		}
		w.end("more")
		w.end("probe")
		time.Sleep(time.Second)
		w.mustPlace("last", "CUST-more")
	})
}

// TestFewStuckOrdersCloseNothing, even if nothing else ends.
func TestFewStuckOrdersCloseNothing(t *testing.T) {
	inWorld(t, admission.Options{Open: 50}, func(w *world) {
		w.stuck(4)
		w.mustPlace("a", "CUST-a")
		w.mustPlace("b", "CUST-b")
	})
}

// TestACancellationShowsNothing: an order that its customer cancelled before its saga started does not show that the system keeps up.
func TestACancellationShowsNothing(t *testing.T) {
	inWorld(t, admission.Options{Open: 50}, func(w *world) {
		w.stuck(5)
		w.mustPlace("probe", "CUST-probe")
		o := w.orders["probe"]
		o.Cancel(order.Cause{EventID: "c", Source: "/f"}, contracts.FulfillmentCancelled{}, time.Now())
		w.Observe(o)
		w.refused(w.place("more", "CUST-more"), admission.Slow)
	})
}

// TestFairShare: a customer who sends 200 orders a second never has one refused that sends one, with 10 that end a second.
func TestFairShare(t *testing.T) {
	inWorld(t, admission.Options{Open: 100}, func(w *world) {
		var queue []string
		refusals := 0
		place := func(name, customer string) bool {
			if w.place(name, customer) != nil {
				return false
			}
			queue = append(queue, name)
			return true
		}
		for second := range 120 {
			for n := range 200 {
				if !place(fmt.Sprintf("a-%d-%d", second, n), "CUST-A") {
					refusals++
				}
				if n == 100 && second >= 60 && !place(fmt.Sprint("b-", second), "CUST-B") {
					t.Errorf("B was refused in second %d: %+v", second, w.Status())
				}
				if n%20 == 0 && len(queue) > 0 {
					w.end(queue[0])
					queue = queue[1:]
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
		if refusals < 120*180 {
			t.Errorf("only %d refusals of A", refusals)
		}
		refusal := w.place("a", "CUST-A")
		w.refused(refusal, admission.Share)
		if refusal != nil && refusal.RetryAfter > 5 {
			t.Errorf("A is to wait for %d seconds, with ten orders that end a second", refusal.RetryAfter)
		}
	})
}

// TestManyCustomersShareTheBound: each gets in, and all together do not exceed it.
func TestManyCustomersShareTheBound(t *testing.T) {
	inWorld(t, admission.Options{Open: 20}, func(w *world) {
		admitted := map[string]int{}
		for n := range 400 {
			customer := fmt.Sprint("CUST-", n%8)
			if w.place(fmt.Sprint(n), customer) == nil {
				admitted[customer]++
			}
		}
		if s := w.Status(); len(admitted) != 8 || s.Open > 20 || s.Open < 16 {
			t.Errorf("got %v, %+v", admitted, s)
		}
	})
}

// No customer is refused for a few orders, even if there are many customers.
func TestASmallShare(t *testing.T) {
	inWorld(t, admission.Options{Open: 100}, func(w *world) {
		for n := range 80 {
			w.mustPlace(id(n))
		}
		for n := range 4 {
			w.mustPlace(fmt.Sprint("more-", n), "CUST-0")
		}
		w.refused(w.place("too-many", "CUST-0"), admission.Share)
		w.mustPlace("another", "CUST-1")
	})
}

// TestTheBusLeavesRoomForREST, and REST for the bus, also while both have more than can be done.
func TestTheBusLeavesRoomForREST(t *testing.T) {
	inWorld(t, admission.Options{Open: 100}, func(w *world) {
		n := 0
		from := func(enter func(string, string) *admission.Refusal, prefix string) bool {
			n++
			return enter(fmt.Sprint(prefix, n), fmt.Sprint("CUST-", n)) == nil
		}
		for from(w.take, "bus-") {
		}
		if s := w.Status(); s.Open != 75 || !s.BusHeld || s.State != "open" {
			t.Errorf("got %+v", s)
		}
		for range 20 {
			if !from(w.place, "rest-") {
				t.Error("a queue on the bus closes REST")
			}
		}
		// Now both offer as much as they can, and what came first ends first.
		var queue []string
		for name := range w.orders {
			queue = append(queue, name)
		}
		counts := map[string]int{}
		for range 1000 {
			for range 5 {
				for prefix, enter := range map[string]func(string, string) *admission.Refusal{"bus-": w.take, "rest-": w.place} {
					if from(enter, prefix) {
						queue = append(queue, fmt.Sprint(prefix, n))
						counts[prefix]++
					}
				}
			}
			if s := w.Status(); s.Open > 100 {
				t.Fatalf("got %+v", s)
			}
			w.end(queue[0])
			queue = queue[1:]
			time.Sleep(100 * time.Millisecond)
		}
		if counts["bus-"] < 150 || counts["rest-"] < 150 {
			t.Errorf("of 1000 orders there were %v", counts)
		}
	})
}

// TestReceivedOrdersDoNotHoldTheBus: what confirms them may be behind the delivery that waits.
func TestReceivedOrdersDoNotHoldTheBus(t *testing.T) {
	inWorld(t, admission.Options{Open: 10}, func(w *world) {
		for n := range 10 {
			name, customer := id(n)
			o := w.order(name, customer)
			slot, err := w.Admit(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			o.Place()
			w.Observe(o)
			slot.Release()
		}
		w.refused(w.place("more", "CUST-more"), admission.Full)
		if refusal := w.take("bus", "CUST-more"); refusal != nil {
			t.Error(refusal)
		}
	})
}

func TestSlotsAreGivenBack(t *testing.T) {
	inWorld(t, admission.Options{Open: 10}, func(w *world) {
		for range 100 {
			slot, err := w.Admit(t.Context(), w.order("ord-1", "CUST-123"))
			if err != nil {
				t.Fatal(err)
			}
			bus, err := w.AdmitFromBus(t.Context(), w.order("ord-1", "CUST-123"))
			if err != nil {
				t.Fatal(err)
			}
			if s := w.Status(); s.InFlight != 2 {
				t.Fatalf("got %+v", s)
			}
			slot.Release()
			slot.Release()
			bus.Release()
		}
		if s := w.Status(); s.InFlight != 0 || s.Open != 0 {
			t.Errorf("got %+v", s)
		}
		var none *admission.Slot
		none.Release()
	})
}

// TestPasses: what other processes did is known after the next pass over the pending set, and what this one did at once.
func TestPasses(t *testing.T) {
	inWorld(t, admission.Options{Open: 10}, func(w *world) {
		for n := range 10 {
			w.mustPlace(id(n))
		}
		w.Begin()
		for n := range 5 {
			w.Observe(w.orders[fmt.Sprint("ord-", n)])
		}
		before := *w.orders["ord-0"]
		w.end("ord-0")
		w.Observe(&before)    // read before it ended, by the pass
		w.mustPlaceLater("x") // accepted after the pass had read that part of the pending set
		if s := w.Status(); s.Open != 10 {
			t.Errorf("during the pass %d are open, want 10", s.Open)
		}
		w.End() // five ended elsewhere
		if s := w.Status(); s.Open != 5 || s.State != "open" {
			t.Errorf("got %+v", s)
		}
		w.Begin() // fails
		w.Begin()
		w.Observe(w.orders["ord-1"])
		w.End()
		if s := w.Status(); s.Open != 1 {
			t.Errorf("got %+v", s)
		}
	})
}

// mustPlaceLater observes an order that needed no slot, as one that another process admitted.
func (w *world) mustPlaceLater(id string) {
	o := w.order(id, "CUST-later")
	o.Confirm(order.Cause{EventID: id, Source: order.Source, Time: time.Now()}, time.Now())
	w.Observe(o)
}

func TestNothingIsAdmittedBeforeTheFirstCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, admission.Options{Open: 10})
		w.refused(w.place("a", "CUST-123"), admission.Starting)
		if w.take("bus", "CUST-123") == nil || w.Ready(context.Background()) == nil || w.Status().State != "starting" {
			t.Errorf("got %+v", w.Status())
		}
		w.Failed(fmt.Errorf("read the pending set: %w", state.ErrUnavailable))
		if w.Counted() {
			t.Error("a store that is away for a moment ends the count")
		}
		w.Failed(errors.New("a document cannot be read"))
		if !w.Counted() || w.Ready(context.Background()) != nil {
			t.Error("a document that cannot be read keeps admission closed")
		}
		w.mustPlace("a", "CUST-123")
	})
}

// TestRetryAfterFollowsTheDrain: half full of what ends at two a second, it is the time until four fifths are left.
func TestRetryAfterFollowsTheDrain(t *testing.T) {
	inWorld(t, admission.Options{Open: 100}, func(w *world) {
		for n := range 60 {
			name, customer := id(n)
			w.mustPlace(name, customer)
			time.Sleep(500 * time.Millisecond)
			w.end(name)
		}
		for n := range 100 {
			w.mustPlace(id(1000 + n))
		}
		seen := map[int]bool{}
		for range 200 {
			refusal := w.place("more", "CUST-more")
			w.refused(refusal, admission.Full)
			seen[refusal.RetryAfter] = true
			if refusal.RetryAfter < 10 || refusal.RetryAfter > 14 {
				t.Fatalf("got %d seconds, want 10 to 14", refusal.RetryAfter)
			}
		}
		if len(seen) < 3 {
			t.Errorf("clients come back together: %v", seen)
		}
		time.Sleep(time.Minute) // nothing ended
		if refusal := w.place("more", "CUST-more"); refusal == nil || refusal.RetryAfter < 45 {
			t.Errorf("got %+v", refusal)
		}
	})
}
