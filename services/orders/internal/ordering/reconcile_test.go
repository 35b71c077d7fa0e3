package ordering_test

import (
	"context"
	"errors"
	"fmt"
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
	"waybill/platform/reconcile"
	"waybill/platform/reconcile/reconciletest"
	"waybill/platform/state"
	"waybill/services/orders/internal/order"
	"waybill/services/orders/internal/ordering"
	"waybill/services/orders/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a store and processes that reconcile its orders one after the other, in a test's own time.
type world struct {
	t         *testing.T
	documents *slowStore
	orders    *store.Store
	began     time.Time
	stop      context.CancelFunc
	running   sync.WaitGroup

	mu        sync.Mutex // guards what follows
	published []published
	counted   counter
	// fault, if set, is the error of a publication.
	fault func(o *order.Order) error
}

// published is what was published again for an order, and how long after the beginning.
type published struct {
	ID    order.ID
	Types string
	After time.Duration
}

// slowStore is a store that needs some time to save a new order.
type slowStore struct {
	*state.Memory
	delay time.Duration
}

func (s *slowStore) Create(ctx context.Context, key string, doc any, options ...state.Option) error {
	if strings.HasPrefix(key, "order:") {
		time.Sleep(s.delay)
	}
	return s.Memory.Create(ctx, key, doc, options...)
}

// counter remembers what the last complete pass observed, and counts the passes.
type counter struct {
	mu       sync.Mutex
	pass     []order.ID
	complete []order.ID
	passes   int
	// never: it always answers that it has not counted.
	never bool
}

// found returns what the last complete pass observed.
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
	loop := w.loop(w.orders.Pending(), &w.counted, 10*time.Second, 15*time.Second)
	ctx, stop := context.WithCancel(w.t.Context())
	w.stop = stop
	w.running.Go(func() { loop.Run(ctx) })
	synctest.Wait() // the survey is complete
}

func (w *world) loop(pending reconcile.Set, counted *counter, interval, after time.Duration) *reconcile.Loop {
	w.t.Helper()
	loop, err := ordering.NewReconciler(ordering.ReconcilerOptions{
		Pending: pending, GetMany: w.orders.GetMany, PublishUnanswered: w.publish, Counter: counted,
		Interval: interval, After: after, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return loop
}

func (w *world) kill() {
	w.stop()
	w.running.Wait()
}

func (w *world) publish(_ context.Context, o *order.Order) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fault != nil {
		if err := w.fault(o); err != nil {
			return err
		}
	}
	var types []string
	for _, e := range o.Outstanding() {
		types = append(types, e.Type)
	}
	w.published = append(w.published, published{o.ID(), strings.Join(types, " "), time.Since(w.began)})
	return nil
}

// fails makes publications fail with the errors of fault.
func (w *world) fails(fault func(o *order.Order) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = fault
}

// pass lets time pass and returns what was published meanwhile.
func (w *world) pass(d time.Duration) []published {
	time.Sleep(d)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	got := w.published
	w.published = nil
	return got
}

// order returns a new order with that id.
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

// learn changes the order, which it makes if it does not exist, and stores it.
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

// open returns the ids in the pending set.
func (w *world) open() []order.ID {
	w.t.Helper()
	all := []order.ID{}
	if err := w.orders.Pending().Visit(w.t.Context(), func(_ context.Context, ids []string) ([]string, error) {
		for _, id := range ids {
			all = append(all, order.ID(id))
		}
		return nil, nil
	}); err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (w *world) want(what string, want, got []published) {
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

func TestBackoffOfAnOrderThatDoesNotMove(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.confirm("o-1")
		// Read every 10 seconds. Due after 15 seconds, then after 30, 60, 120, 240 and from then on 300.
		want := make([]published, 0, 7)
		for _, after := range []string{"20s", "50s", "1m50s", "3m50s", "7m50s", "12m50s", "17m50s"} {
			d, err := time.ParseDuration(after)
			if err != nil {
				w.t.Fatal(err)
			}
			want = append(want, published{"o-1", confirmed, d})
		}
		w.want("for twenty minutes", want, w.pass(20*time.Minute))
	})
}

// The process that last changed an order may have had a wrong clock.
func TestAnOrderThatAWrongClockChanged(t *testing.T) {
	t.Parallel()
	for skew, want := range map[time.Duration][]time.Duration{
		// Read every 10 seconds, and published 15 seconds after it was first seen; or at once, and 30 seconds after that.
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
				w.t.Errorf("a clock that is %v ahead: published after (-want +got):\n%s", skew, diff)
			}
		})
	}
}

func TestAnOrderThatMovesIsNotPublishedAgain(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.confirm("o-1")
		for _, step := range contracts.Steps() {
			w.want(step, nil, w.pass(12*time.Second))
			w.learn("o-1", func(o *order.Order) { o.Step(cause(step), contracts.StepCompleted{Step: step}, time.Now()) })
		}
		began := time.Since(w.began)
		// When it stops, it is published as early as any other.
		if got := w.pass(30 * time.Second); len(got) != 1 || got[0].After > began+25*time.Second {
			t.Errorf("published %v, want once after %s", got, began+15*time.Second)
		}
		w.learn("o-1", ship)
		w.pass(time.Hour)
		if left := w.open(); len(left) > 0 {
			t.Errorf("ended, and still pending: %v", left)
		}
	})
}

// A new process finds what an earlier one left. It does not know the backoff, so it publishes at once.
func TestANewProcess(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.confirm("o-1")
		w.confirm("o-2")
		w.pass(time.Minute)
		w.kill()
		w.want("while no process runs", nil, w.pass(time.Hour))
		w.start("process 2")
		w.learn("o-2", ship)
		began := time.Since(w.began)
		w.want("after a restart", []published{{"o-1", confirmed, began + 10*time.Second}, {"o-2", "", began + 10*time.Second}}, w.pass(15*time.Second))
		if diff := cmp.Diff([]order.ID{"o-1"}, w.open()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestOrdersThatWaitForAPerson(t *testing.T) {
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
		want := []published{{"cancel", both, 20 * time.Second}, {"cancel", both, 50 * time.Second}, {"cancel", both, 110 * time.Second}, {"cancel", both, 230 * time.Second}}
		w.want("before five minutes are over", want, w.pass(299*time.Second))
		w.want("after five", []published{{"attention", confirmed, 5 * time.Minute}, {"awaits", confirmed, 5 * time.Minute}}, w.pass(2*time.Second))
		w.learn("cancel", func(o *order.Order) {
			o.Step(cause("refused"), contracts.StepCompleted{Step: contracts.StepCancel, Outcome: contracts.OutcomeRefused}, time.Now())
		})
		w.want("once the cancellation was refused", []published{{"cancel", confirmed, 320 * time.Second}}, w.pass(20*time.Second))
	})
}

// place makes an order that is received and published.
func (w *world) place(id string) {
	w.t.Helper()
	o := w.order(id)
	o.Place()
	if err := errors.Join(w.orders.Create(w.t.Context(), o), w.orders.AddPending(w.t.Context(), o)); err != nil {
		w.t.Fatal(err)
	}
}

// An id can name a new order after the old one expired. The process that added the old one adds the new one too.
func TestAnIDThatIsUsedAgain(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.place("o-1")
		w.pass(25 * time.Hour)
		if left := w.open(); len(left) > 0 {
			t.Fatalf("still pending: %v", left)
		}
		w.place("o-1")
		if diff := cmp.Diff([]order.ID{"o-1"}, w.open()); diff != "" {
			t.Errorf("pending: %s", diff)
		}
	})
}

// A received order is published again until it is confirmed or expires.
func TestAReceivedOrder(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.place("o-1")
		w.place("o-2")
		created := contracts.TypeOrderCreated
		w.want("received", []published{{"o-1", created, 20 * time.Second}, {"o-2", created, 20 * time.Second}}, w.pass(25*time.Second))
		w.learn("o-1", func(o *order.Order) {
			if changed, err := o.RequestCancellation("", time.Now()); !changed || err != nil {
				t.Error(changed, err)
			}
		})
		w.want("cancelled", []published{{"o-1", contracts.TypeOrderCancelled, 30 * time.Second}}, w.pass(10*time.Second))
		w.pass(25 * time.Hour)
		if left := w.open(); len(left) > 0 {
			t.Errorf("still pending: %v", left)
		}
	})
}

// A pass between the entry in the pending set and the save of the order does not lose the order.
func TestAnOrderThatIsNotSavedYet(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		if err := w.orders.AddPending(w.t.Context(), w.order("never")); err != nil {
			t.Fatal(err)
		}
		w.documents.delay = 45 * time.Second
		w.confirm("late")
		if got := w.pass(10 * time.Minute); len(got) == 0 || got[0].ID != "late" {
			t.Errorf("published %v, want the order that was saved late", got)
		}
		if diff := cmp.Diff([]order.ID{"late"}, w.open()); diff != "" {
			t.Errorf("pending: %s", diff)
		}
	})
}

// An order that cannot be published does not delay the others. While the bus is away, no order leaves the pending set.
func TestOrdersThatCannotBePublished(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		broken, away := errors.New("broken"), fmt.Errorf("publish: %w", state.ErrUnavailable)
		w.fails(func(o *order.Order) error {
			if strings.HasPrefix(string(o.ID()), "bad") {
				return broken
			}
			return nil
		})
		for _, id := range []string{"bad-1", "bad-2", "bad-3", "bad-4", "good"} {
			w.confirm(id)
		}
		if got := w.pass(time.Minute); len(got) == 0 || got[0].ID != "good" {
			t.Errorf("published %v, want the one that can be", got)
		}
		w.fails(func(*order.Order) error { return away })
		w.learn("bad-1", ship)
		w.want("the bus is away", nil, w.pass(10*time.Minute))
		w.fails(nil)
		ids := map[order.ID]bool{}
		for _, a := range w.pass(10 * time.Minute) {
			ids[a.ID] = true
		}
		if len(ids) != 5 || len(w.open()) != 4 {
			t.Errorf("published %v, pending %v", ids, w.open())
		}
	})
}

// A store that is away ends a pass, not the loop.
func TestAStoreThatIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		set := &away{}
		s := storeless(t).loop(set, &counter{}, time.Second, time.Second)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx) })
		time.Sleep(5500 * time.Millisecond)
		stop()
		running.Wait()
		if set.visits != 1+5 {
			t.Errorf("%d passes in five seconds, want one at once and one in each", set.visits)
		}
	})
}

// The open orders are counted at once, before any is published, and again in each pass.
func TestCounting(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		for _, id := range []string{"a", "b"} {
			w.confirm(id)
		}
		w.kill()
		w.start("process 2")
		w.pass(0)
		if diff := cmp.Diff([]order.ID{"a", "b"}, w.counted.found()); diff != "" || len(w.published) > 0 {
			t.Errorf("%s%v", diff, w.published)
		}
		passes := w.counted.passes
		w.learn("a", func(o *order.Order) {
			o.Complete(order.Cause{EventID: "end", Time: time.Now()}, contracts.FulfillmentCompleted{}, time.Now())
		})
		w.pass(10 * time.Second) // the end is found, and the order leaves the pending set
		w.pass(10 * time.Second)
		if diff := cmp.Diff([]order.ID{"b"}, w.counted.found()); diff != "" || w.counted.passes != passes+2 {
			t.Errorf("%s%d passes", diff, w.counted.passes-passes)
		}
	})
}

// The count is repeated until the store answers. No order is published before.
func TestCountingIsRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		set, counted := &away{}, &counter{never: true}
		s := storeless(t).loop(set, counted, time.Hour, time.Second)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx) })
		time.Sleep(4500 * time.Millisecond)
		stop()
		running.Wait()
		if set.visits != 5 || counted.passes != 0 {
			t.Errorf("counted %d times in 4.5 seconds, %d of them to the end", set.visits, counted.passes)
		}
	})
}

// away is a pending set whose store is away.
type away struct{ visits int }

func (a *away) Visit(context.Context, func(context.Context, []string) ([]string, error)) error {
	a.visits++
	return state.ErrUnavailable
}

// storeless is a world without a process.
func storeless(t *testing.T) *world {
	t.Helper()
	return &world{t: t, orders: store.New(state.NewMemory(), "process", time.Hour)}
}

func TestReconcilerSuite(t *testing.T) {
	t.Parallel()
	reconciletest.RunReconciler(t, func(t *testing.T, s state.Store, process string) reconciletest.Service {
		t.Helper()
		w := &world{t: t, orders: store.New(s, process, 24*time.Hour), began: time.Now()}
		return reconciletest.Service{
			Loop: w.loop(w.orders.Pending(), &counter{}, 10*time.Second, 15*time.Second), Set: "orders",
			Key: func(id string) string { return "order:" + id }, Interval: 10 * time.Second, SettlesIn: 10 * time.Minute,
			Begin: func(_ context.Context, n int) (string, error) {
				id := fmt.Sprint("ord-", n)
				w.confirm(id)
				return id, nil
			},
			End: func(_ context.Context, id string) error { w.learn(id, ship); return nil },
		}
	})
}
