package sweep_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"waybill/contracts"
	"waybill/platform/state"
	"waybill/services/orders/internal/order"
	"waybill/services/orders/internal/store"
	"waybill/services/orders/internal/sweep"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a store and processes that sweep it one after the other, in a test's own time.
type world struct {
	t         *testing.T
	documents *slowStore
	orders    *store.Store
	began     time.Time
	stop      context.CancelFunc
	running   sync.WaitGroup
	asked     []asked
	counted   counter
	// fault, when set, is what asking about an order fails with.
	fault func(o *order.Order) error
}

// asked is one announcement: of which order, what, and how long after the beginning.
type asked struct {
	ID    order.ID
	Types string
	After time.Duration
}

// slowStore is a store that takes its time to save a new order.
type slowStore struct {
	*state.Memory
	takes time.Duration
}

func (s *slowStore) Create(ctx context.Context, key string, doc any, options ...state.Option) error {
	if strings.HasPrefix(key, "order:") {
		time.Sleep(s.takes)
	}
	return s.Memory.Create(ctx, key, doc, options...)
}

// counter remembers what was observed in the last complete pass, and how many there were.
type counter struct {
	mu       sync.Mutex
	pass     []order.ID
	complete []order.ID
	passes   int
	// never says that it is not counted.
	never bool
}

// found is what the last complete pass observed.
func (c *counter) found() []order.ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.complete)
	return c.complete
}

func (c *counter) Begin() { c.mu.Lock(); defer c.mu.Unlock(); c.pass = nil }

func (c *counter) Observe(o *order.Order) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pass = append(c.pass, o.ID())
}

func (c *counter) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.complete = c.pass
	c.passes++
}

func (c *counter) Failed(error) {}

func (c *counter) Counted() bool { return !c.never }

func inWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, documents: &slowStore{Memory: state.NewMemory()}, began: time.Now()}
		w.start("process 1")
		defer func() { w.kill() }()
		test(w)
	})
}

func (w *world) start(process string) {
	w.orders = store.New(w.documents, process, 24*time.Hour)
	s := &sweep.Sweeper{Orders: w.orders, Remind: w.remind, Interval: 10 * time.Second, Patience: 15 * time.Second, Counter: &w.counted, Logger: slog.New(slog.DiscardHandler)}
	ctx, stop := context.WithCancel(w.t.Context())
	w.stop = stop
	w.running.Go(func() { s.Run(ctx) })
}

func (w *world) kill() {
	w.stop()
	w.running.Wait()
}

func (w *world) remind(_ context.Context, o *order.Order) error {
	if w.fault != nil {
		if err := w.fault(o); err != nil {
			return err
		}
	}
	var types []string
	for _, e := range o.Outstanding() {
		types = append(types, e.Type)
	}
	w.asked = append(w.asked, asked{o.ID(), strings.Join(types, " "), time.Since(w.began)})
	return nil
}

// pass lets time go by and returns what was asked meanwhile.
func (w *world) pass(d time.Duration) []asked {
	time.Sleep(d)
	synctest.Wait()
	got := w.asked
	w.asked = nil
	return got
}

// order is a new order of the id.
func (w *world) order(id string) *order.Order {
	w.t.Helper()
	o, err := order.New(order.Draft{
		ID: id, CustomerID: "CUST-123", Total: "5", Lines: []order.DraftLine{{ProductID: "PROD-001", Quantity: "1", Price: "5"}},
		ShipTo: contracts.Address{Street: "A", City: "B", Zip: "C"},
	}, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

// learn makes the order, if need be, and stores what it became.
func (w *world) learn(id string, learn func(o *order.Order)) {
	w.t.Helper()
	err := w.orders.Update(w.t.Context(), order.ID(id), func(o *order.Order) (*order.Order, error) {
		if o == nil {
			o = w.order(id)
			o.Confirm(order.Cause{EventID: id + ":created", Time: time.Now()}, time.Now())
		}
		if learn != nil {
			learn(o)
		}
		return o, nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) confirm(id string) { w.t.Helper(); w.learn(id, nil) }

// open lists what the backlog holds.
func (w *world) open() []order.ID {
	w.t.Helper()
	all := []order.ID{}
	if err := w.orders.Sweep(w.t.Context(), func(_ context.Context, ids []order.ID, _ map[order.ID]*order.Order) ([]order.ID, error) {
		all = append(all, ids...)
		return nil, nil
	}); err != nil {
		w.t.Fatal(err)
	}
	return all
}

func (w *world) want(what string, want, got []asked) {
	w.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("%s: %s", what, diff)
	}
}

const confirmed = contracts.TypeOrderConfirmed

func cause(id string) order.Cause { return order.Cause{EventID: id, Source: "/f", Time: time.Now()} }

func ship(o *order.Order) {
	o.Complete(cause("done"), contracts.FulfillmentCompleted{TrackingNumber: "T"}, time.Now())
}

func TestAskingGrowsRarer(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.confirm("o-1")
		// Looked at every 10 seconds; due after 15 seconds, then 30, 60, 120, 240 and from then on 300 later.
		want := make([]asked, 0, 7)
		for _, after := range []string{"20s", "50s", "1m50s", "3m50s", "7m50s", "12m50s", "17m50s"} {
			d, err := time.ParseDuration(after)
			if err != nil {
				w.t.Fatal(err)
			}
			want = append(want, asked{"o-1", confirmed, d})
		}
		w.want("for twenty minutes", want, w.pass(20*time.Minute))
	})
}

// The process that last changed an order may have had a clock that was hours ahead, or behind.
func TestAnOrderThatAWrongClockChanged(t *testing.T) {
	t.Parallel()
	for skew, want := range map[time.Duration][]time.Duration{
		// Looked at every 10 seconds, and asked about 15 seconds after it was first seen; or at once, and 30 seconds after that.
		5 * time.Hour:  {30 * time.Second, time.Minute},
		-5 * time.Hour: {10 * time.Second, 40 * time.Second},
	} {
		inWorld(t, func(w *world) {
			w.learn("o-1", func(o *order.Order) {
				o.Step(cause("step"), contracts.StepCompleted{Step: contracts.StepValidatePayment}, time.Now().Add(skew))
			})
			got := make([]time.Duration, 0, len(want))
			for _, a := range w.pass(75 * time.Second) {
				got = append(got, a.After)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				w.t.Errorf("a clock that is %v ahead: asked after (-want +got):\n%s", skew, diff)
			}
		})
	}
}

func TestAnOrderThatMovesIsNotAskedAbout(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.confirm("o-1")
		for _, step := range contracts.Steps() {
			w.want(step, nil, w.pass(12*time.Second))
			w.learn("o-1", func(o *order.Order) { o.Step(cause(step), contracts.StepCompleted{Step: step}, time.Now()) })
		}
		began := time.Since(w.began)
		// Once it stands still, it is asked about as early as any.
		if got := w.pass(30 * time.Second); len(got) != 1 || got[0].After > began+25*time.Second {
			t.Errorf("asked %v, want once after %s", got, began+15*time.Second)
		}
		w.learn("o-1", ship)
		w.pass(time.Hour)
		if left := w.open(); len(left) > 0 {
			t.Errorf("ended, and still in the backlog: %v", left)
		}
	})
}

// TestANewProcess finds what an earlier one left, and what it cannot remember it asks at once.
func TestANewProcess(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.confirm("o-1")
		w.confirm("o-2")
		w.pass(time.Minute)
		w.kill()
		w.want("while nobody runs", nil, w.pass(time.Hour))
		w.start("process 2")
		w.learn("o-2", ship)
		began := time.Since(w.began)
		w.want("after a restart", []asked{{"o-1", confirmed, began + 10*time.Second}, {"o-2", "", began + 10*time.Second}}, w.pass(15*time.Second))
		if diff := cmp.Diff([]order.ID{"o-1"}, w.open()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestWhatWaitsForAPerson(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		await := func(o *order.Order) { o.AwaitApproval(cause("approval"), contracts.ApprovalRequested{}, time.Now()) }
		w.learn("attention", func(o *order.Order) {
			o.Fail(cause("failed"), contracts.FulfillmentFailed{NotUndone: []string{"RefundPayment"}}, time.Now())
		})
		w.learn("awaits", await)
		w.learn("cancel", await)
		w.learn("cancel", func(o *order.Order) {
			if changed, err := o.RequestCancellation("", time.Now()); !changed || err != nil {
				t.Error(changed, err)
			}
		})
		both := confirmed + " " + contracts.TypeOrderCancellationRequested
		want := []asked{{"cancel", both, 20 * time.Second}, {"cancel", both, 50 * time.Second}, {"cancel", both, 110 * time.Second}, {"cancel", both, 230 * time.Second}}
		w.want("before five minutes are over", want, w.pass(299*time.Second))
		w.want("after five", []asked{{"attention", confirmed, 5 * time.Minute}, {"awaits", confirmed, 5 * time.Minute}}, w.pass(2*time.Second))
		w.learn("cancel", func(o *order.Order) {
			o.Step(cause("refused"), contracts.StepCompleted{Step: contracts.StepCancel, Outcome: contracts.OutcomeRefused}, time.Now())
		})
		w.want("once the cancellation was refused", []asked{{"cancel", confirmed, 320 * time.Second}}, w.pass(20*time.Second))
	})
}

// place makes an order that is received and announced.
func (w *world) place(id string) {
	w.t.Helper()
	o := w.order(id)
	o.Place()
	if err := errors.Join(w.orders.Create(w.t.Context(), o), w.orders.Watch(w.t.Context(), o)); err != nil {
		w.t.Fatal(err)
	}
}

// TestAnIDThatComesBack: the process that put an order into the backlog, and saw it vanish, does not take the next order of
// that id for the one that it knows.
func TestAnIDThatComesBack(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.place("o-1")
		w.pass(25 * time.Hour)
		if left := w.open(); len(left) > 0 {
			t.Fatalf("the backlog still holds %v", left)
		}
		w.place("o-1")
		if diff := cmp.Diff([]order.ID{"o-1"}, w.open()); diff != "" {
			t.Errorf("the backlog: %s", diff)
		}
	})
}

// TestAReceivedOrder is announced again until it is confirmed, or vanishes.
func TestAReceivedOrder(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.place("o-1")
		w.place("o-2")
		created := contracts.TypeOrderCreated
		w.want("received", []asked{{"o-1", created, 20 * time.Second}, {"o-2", created, 20 * time.Second}}, w.pass(25*time.Second))
		w.learn("o-1", func(o *order.Order) {
			if changed, err := o.RequestCancellation("", time.Now()); !changed || err != nil {
				t.Error(changed, err)
			}
		})
		w.want("cancelled", []asked{{"o-1", contracts.TypeOrderCancelled, 30 * time.Second}}, w.pass(10*time.Second))
		w.pass(25 * time.Hour)
		if left := w.open(); len(left) > 0 {
			t.Errorf("the backlog still holds %v", left)
		}
	})
}

// TestAnOrderThatIsNotSavedYet: sweeps that come between its entry in the backlog and its own document do not lose it.
func TestAnOrderThatIsNotSavedYet(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		if err := w.orders.Watch(w.t.Context(), w.order("never")); err != nil {
			t.Fatal(err)
		}
		w.documents.takes = 45 * time.Second
		w.confirm("late")
		if got := w.pass(10 * time.Minute); len(got) == 0 || got[0].ID != "late" {
			t.Errorf("asked about %v, want the order that was saved late", got)
		}
		if diff := cmp.Diff([]order.ID{"late"}, w.open()); diff != "" {
			t.Errorf("the backlog: %s", diff)
		}
	})
}

// TestOneThatCannotBeAskedAboutHoldsUpNobody, and when the bus is away nothing is forgotten.
func TestOneThatCannotBeAskedAboutHoldsUpNobody(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		broken := errors.New("broken")
		w.fault = func(o *order.Order) error {
			if strings.HasPrefix(string(o.ID()), "bad") {
				return broken
			}
			return nil
		}
		for _, id := range []string{"bad-1", "bad-2", "bad-3", "bad-4", "good"} {
			w.confirm(id)
		}
		if got := w.pass(time.Minute); len(got) == 0 || got[0].ID != "good" {
			t.Errorf("asked about %v, want the one that can be", got)
		}
		w.fault = func(*order.Order) error { return broken }
		w.learn("bad-1", ship)
		w.want("the bus is away", nil, w.pass(10*time.Minute))
		w.fault = nil
		asked := map[order.ID]bool{}
		for _, a := range w.pass(10 * time.Minute) {
			asked[a.ID] = true
		}
		if len(asked) != 5 || len(w.open()) != 4 {
			t.Errorf("asked about %v, left %v", asked, w.open())
		}
	})
}

// TestAStoreThatIsAway ends a sweep, not the sweeping.
func TestAStoreThatIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		orders := &flaky{}
		s := &sweep.Sweeper{Orders: orders, Interval: time.Second, Patience: time.Second, Counter: &counter{}, Logger: slog.New(slog.DiscardHandler)}
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx) })
		time.Sleep(5500 * time.Millisecond)
		stop()
		running.Wait()
		if orders.sweeps != 1+5 {
			t.Errorf("%d sweeps in five seconds, want one at once and one in each", orders.sweeps)
		}
	})
}

// TestCounting: the open orders are counted at once, before any is asked about, and again in each sweep.
func TestCounting(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		for _, id := range []string{"a", "b"} {
			w.confirm(id)
		}
		w.kill()
		w.start("process 2")
		w.pass(0)
		if diff := cmp.Diff([]order.ID{"a", "b"}, w.counted.found()); diff != "" || len(w.asked) > 0 {
			t.Errorf("%s%v", diff, w.asked)
		}
		passes := w.counted.passes
		w.learn("a", func(o *order.Order) {
			o.Complete(order.Cause{EventID: "end", Time: time.Now()}, contracts.FulfillmentCompleted{}, time.Now())
		})
		w.pass(10 * time.Second) // the end is found, and the order forgotten
		w.pass(10 * time.Second)
		if diff := cmp.Diff([]order.ID{"b"}, w.counted.found()); diff != "" || w.counted.passes != passes+2 {
			t.Errorf("%s%d passes", diff, w.counted.passes-passes)
		}
	})
}

// TestCountingIsRepeated until the store answers, and no order is asked about before.
func TestCountingIsRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		orders, counted := &flaky{}, &counter{never: true}
		s := &sweep.Sweeper{Orders: orders, Interval: time.Hour, Counter: counted, Logger: slog.New(slog.DiscardHandler)}
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx) })
		time.Sleep(4500 * time.Millisecond)
		stop()
		running.Wait()
		if orders.sweeps != 5 || counted.passes != 0 {
			t.Errorf("counted %d times in 4.5 seconds, %d of them to the end", orders.sweeps, counted.passes)
		}
	})
}

type flaky struct{ sweeps int }

func (f *flaky) Sweep(context.Context, func(context.Context, []order.ID, map[order.ID]*order.Order) ([]order.ID, error)) error {
	f.sweeps++
	return state.ErrUnavailable
}
