package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/platform/reconcile"
	"waybill/platform/state"
	"waybill/services/orders/internal/order"
	"waybill/services/orders/internal/store"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 123_000_000, time.UTC)

func newOrder(t *testing.T, id, customer string) *order.Order {
	t.Helper()
	o, err := order.New(order.Draft{
		ID: id, CustomerID: customer, Total: "99.98", PaymentToken: "tok", Currency: "EUR",
		Lines:  []order.DraftLine{{ProductID: "P", Name: "Mug", Quantity: "2", Price: "49.99"}},
		ShipTo: contracts.Address{Street: "A", City: "B", State: "C", Zip: "D", Country: "E"},
	}, at)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// save stores the order as it is, for good.
func save(t *testing.T, s *store.Store, o *order.Order) {
	t.Helper()
	if err := s.Update(t.Context(), o.ID(), func(*order.Order) (*order.Order, error) { return o, nil }); err != nil {
		t.Fatal(err)
	}
}

// TestNothingIsLost: an order with everything there can be of it comes back as it was.
func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	s := store.New(state.NewMemory(), "writer", time.Hour)
	o := newOrder(t, "o-1", "c-1")
	o.Place()
	o.Confirm(order.Cause{EventID: "e-1", Source: "/shop", Time: at}, at)
	o.Step(order.Cause{EventID: "e-2", Source: "/f", Time: at}, contracts.StepCompleted{
		Step: contracts.StepProcessShipment, Outcome: contracts.OutcomeDone, Code: "c", Message: "m", Amount: 9_9900, Currency: "EUR",
		TransactionID: "t", Carrier: "UPS", TrackingNumber: "n", EstimatedDelivery: at, CompletedAt: at,
	}, at)
	if _, err := o.RequestCancellation("r", at); err == nil {
		t.Error("a shipped order can be cancelled")
	}
	o.Step(order.Cause{EventID: "e-3", Source: "/f", Time: at}, contracts.StepCompleted{
		Step: contracts.StepCancelShipment, Outcome: contracts.OutcomeDone, Actor: "a", CompletedAt: at,
	}, at)
	o.AwaitApproval(order.Cause{EventID: "e-4", Source: "/f", Time: at}, contracts.ApprovalRequested{TotalAmount: 100, ExpiresAt: at}, at)
	if _, err := o.RequestCancellation("r", at); err != nil {
		t.Error(err)
	}
	o.Fail(order.Cause{EventID: "e-5", Source: "/f", Time: at}, contracts.FulfillmentFailed{
		Code: "c", Error: "e", Undone: []string{"A"}, NotUndone: []string{"B"}, FailedAt: at,
	}, at)
	save(t, s, o)
	got, err := s.Get(t.Context(), "o-1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(o.Snapshot(), got.Snapshot()); diff != "" {
		t.Error(diff)
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := store.New(state.NewMemory(), "writer", time.Hour)
		ctx := t.Context()
		var refused *order.Error
		if _, err := s.Get(ctx, "o-1"); !errors.As(err, &refused) || refused.Kind != order.NotFound {
			t.Errorf("before it is there: %v", err)
		}
		if err := s.Create(ctx, newOrder(t, "o-1", "c-1")); err != nil {
			t.Fatal(err)
		}
		if err := s.Create(ctx, newOrder(t, "o-1", "c-2")); !errors.As(err, &refused) || refused.Kind != order.Taken {
			t.Errorf("twice: %v", err)
		}
		time.Sleep(time.Hour)
		if err := s.Create(ctx, newOrder(t, "o-1", "c-2")); err != nil {
			t.Errorf("after its time: %v", err)
		}
		confirmed := newOrder(t, "o-1", "c-2")
		confirmed.Confirm(order.Cause{EventID: "e"}, at)
		save(t, s, confirmed)
		time.Sleep(24 * time.Hour)
		if _, err := s.Get(ctx, "o-1"); err != nil {
			t.Errorf("once confirmed: %v", err)
		}
	})
}

// pending returns the ids of the pending set, sorted, and those of stored orders. It removes the ids in done.
func pending(t *testing.T, s *store.Store, done ...order.ID) (ids, found []order.ID) {
	t.Helper()
	err := s.Pending().Visit(t.Context(), func(ctx context.Context, listed []string) (removed []string, err error) {
		for _, id := range listed {
			ids = append(ids, order.ID(id))
			if slices.Contains(done, order.ID(id)) {
				removed = append(removed, id)
			}
		}
		stored, unreadable, err := s.GetMany(ctx, ids)
		if len(unreadable) > 0 {
			t.Errorf("unreadable: %v", unreadable)
		}
		found = slices.AppendSeq(found, maps.Keys(stored))
		return removed, err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ids)
	slices.Sort(found)
	return slices.Compact(ids), slices.Compact(found)
}

// A confirmed order is in the pending set, also for the next process. An order that ended need not be.
func TestPending(t *testing.T) {
	t.Parallel()
	documents := state.NewMemory()
	s := store.New(documents, "writer", time.Hour)
	confirm := func(o *order.Order) *order.Order {
		o.Confirm(order.Cause{EventID: "e"}, at)
		return o
	}
	received, cancelled := newOrder(t, "received", "c-1"), newOrder(t, "cancelled", "c-1")
	for _, o := range []*order.Order{received, cancelled} {
		if err := s.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	if ids, _ := pending(t, s); len(ids) > 0 {
		t.Errorf("the pending set holds %v before any order was added", ids)
	}
	if _, err := cancelled.RequestCancellation("", at); err != nil {
		t.Fatal(err)
	}
	save(t, s, cancelled)
	save(t, s, confirm(received))
	save(t, s, confirm(newOrder(t, "new", "c-1")))
	for _, id := range []string{"new", "missing"} {
		if err := s.AddPending(t.Context(), newOrder(t, id, "c-1")); err != nil {
			t.Fatal(err)
		}
	}
	// The next process finds what this one left.
	s = store.New(documents, "another writer", time.Hour)
	ids, found := pending(t, s, "new")
	if diff := cmp.Diff([]order.ID{"missing", "new", "received"}, ids); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]order.ID{"new", "received"}, found); diff != "" {
		t.Error(diff)
	}
	if ids, _ := pending(t, s); !slices.Equal(ids, []order.ID{"missing", "received"}) {
		t.Errorf("the pending set holds %v", ids)
	}

	// An order that cannot be added to the pending set is not confirmed.
	for failAt := 1; failAt <= 2; failAt++ {
		broken := &brittle{Memory: state.NewMemory(), failAt: failAt}
		s := store.New(broken, "writer", time.Hour)
		err := s.Update(t.Context(), "o-1", func(*order.Order) (*order.Order, error) { return confirm(newOrder(t, "o-1", "c-1")), nil })
		if _, missing := s.Get(t.Context(), "o-1"); !errors.Is(err, errBroken) || missing == nil {
			t.Errorf("write %d: %v, and it is stored", failAt, err)
		}
	}
}

// additions returns every id in the pending set, also those that it holds twice.
func additions(t *testing.T, documents state.Store) []string {
	t.Helper()
	var ids []string
	err := reconcile.NewPending(documents, "orders", "reader").Visit(t.Context(), func(_ context.Context, listed []string) ([]string, error) {
		ids = append(ids, listed...)
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func confirm(o *order.Order) (*order.Order, error) {
	if !o.Confirm(order.Cause{EventID: "e"}, at) {
		return nil, nil
	}
	return o, nil
}

// The request and the event of an order share one addition, also if they come at the same time. Another process adds the order
// again.
func TestOneProcessAddsAnOrderOnce(t *testing.T) {
	t.Parallel()
	documents := state.NewMemory()
	s := store.New(documents, "writer", time.Hour)
	const orders = 30
	want := make([]string, 0, orders+1)
	for n := range orders {
		o := newOrder(t, fmt.Sprint("o-", n), "c-1")
		if err := s.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		request := func() {
			if err := s.AddPending(t.Context(), o); err != nil {
				t.Error(err)
			}
		}
		event := func() {
			if err := s.Update(t.Context(), o.ID(), confirm); err != nil {
				t.Error(err)
			}
		}
		var both sync.WaitGroup
		switch n % 3 {
		case 0:
			request()
			event()
		case 1:
			event()
			request()
		default:
			both.Go(request)
			both.Go(event)
		}
		both.Wait()
		want = append(want, string(o.ID()))
	}
	if diff := cmp.Diff(want, additions(t, documents)); diff != "" {
		t.Error(diff)
	}
	o := newOrder(t, "o-0", "c-1")
	if err := store.New(documents, "another writer", time.Hour).AddPending(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(append(want, "o-0"), additions(t, documents)); diff != "" {
		t.Errorf("another process: %s", diff)
	}
}

// The event of an order may come after the order expired and left the pending set. It makes the order again.
func TestAnOrderThatExpiredIsMadeAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		documents := state.NewMemory()
		s := store.New(documents, "writer", time.Hour)
		o := newOrder(t, "o-1", "c-1")
		if err := errors.Join(s.Create(t.Context(), o), s.AddPending(t.Context(), o)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		pending(t, s, "o-1")
		if left := additions(t, documents); len(left) > 0 {
			t.Fatalf("left %v", left)
		}
		err := s.Update(t.Context(), "o-1", func(*order.Order) (*order.Order, error) { return confirm(newOrder(t, "o-1", "c-1")) })
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"o-1"}, additions(t, documents)); diff != "" {
			t.Error(diff)
		}
	})
}

// held is a store in which the first write of a page of the pending set waits, and then fails.
type held struct {
	*state.Memory
	reached, release chan struct{}
	once             sync.Once
}

func (h *held) Create(ctx context.Context, key string, doc any, options ...state.Option) (err error) {
	if strings.HasPrefix(key, "backlog:orders:") {
		h.once.Do(func() {
			close(h.reached)
			<-h.release
			err = errBroken
		})
	}
	if err != nil {
		return err
	}
	return h.Memory.Create(ctx, key, doc, options...)
}

// If an addition fails, a caller that waited for it makes its own.
func TestAnAdditionThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		documents := &held{Memory: state.NewMemory(), reached: make(chan struct{}), release: make(chan struct{})}
		s := store.New(documents, "writer", time.Hour)
		o := newOrder(t, "o-1", "c-1")
		if err := s.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		var first, second, third error
		given, giveUp := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { first = s.AddPending(t.Context(), o) })
		<-documents.reached
		all.Go(func() { second = s.Update(t.Context(), "o-1", confirm) })
		all.Go(func() { third = s.AddPending(given, o) })
		synctest.Wait()
		giveUp()
		synctest.Wait()
		if !errors.Is(third, context.Canceled) {
			t.Errorf("the caller that was cancelled: %v", third)
		}
		close(documents.release)
		all.Wait()
		if !errors.Is(first, errBroken) || second != nil {
			t.Errorf("got %v and %v", first, second)
		}
		if diff := cmp.Diff([]string{"o-1"}, additions(t, documents)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestUpdateLosesNothingToOthers(t *testing.T) {
	t.Parallel()
	s := store.New(state.NewMemory(), "writer", time.Hour)
	o := newOrder(t, "o-1", "c-1")
	o.Confirm(order.Cause{EventID: "e"}, at)
	save(t, s, o)
	var all sync.WaitGroup
	for i := range 30 {
		all.Go(func() {
			err := s.Update(t.Context(), "o-1", func(o *order.Order) (*order.Order, error) {
				o.Step(order.Cause{EventID: fmt.Sprint("step ", i)}, contracts.StepCompleted{Step: "S"}, at)
				return o, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	got, err := s.Get(t.Context(), "o-1")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(got.Snapshot().Timeline); n != 2+30+1 {
		t.Errorf("%d events, want all 33", n)
	}
}

func TestUpdateKeepsAndPassesErrorsOn(t *testing.T) {
	t.Parallel()
	s := store.New(state.NewMemory(), "writer", time.Hour)
	refusal := errors.New("no")
	for _, err := range []error{nil, refusal} {
		got := s.Update(t.Context(), "o-1", func(o *order.Order) (*order.Order, error) {
			if o != nil {
				t.Errorf("got %v of an order that does not exist", o)
			}
			return nil, err
		})
		if !errors.Is(got, err) {
			t.Errorf("got %v, want %v", got, err)
		}
	}
	if _, err := s.Get(t.Context(), "o-1"); err == nil {
		t.Error("an order was stored")
	}
}

// listAll pages through a customer's whole list.
func listAll(t *testing.T, s *store.Store, customer string, status order.Status, limit int) []string {
	t.Helper()
	ids := []string{}
	for before := 0; ; {
		orders, next, err := s.List(t.Context(), customer, status, limit, before)
		if err != nil {
			t.Fatal(err)
		}
		if len(orders) > limit {
			t.Fatalf("%d orders, want at most %d", len(orders), limit)
		}
		for _, o := range orders {
			ids = append(ids, string(o.ID()))
		}
		if next == 0 {
			return ids
		}
		if before > 0 && next >= before {
			t.Fatalf("from %d on to %d", before, next)
		}
		before = next
	}
}

// TestIndex adds orders twice, the second time after up to a hundred others, across several pages.
func TestIndex(t *testing.T) {
	t.Parallel()
	for _, delay := range []int{1, 100} {
		s := store.New(state.NewMemory(), "writer", time.Hour)
		var want []string
		index := func(id string) {
			if err := s.Index(t.Context(), "c-1", order.ID(id)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 430 {
			id := fmt.Sprint("o-", i)
			save(t, s, newOrder(t, id, "c-1"))
			index(id)
			if i >= delay {
				index(fmt.Sprint("o-", i-delay))
			}
			want = append([]string{id}, want...)
		}
		for _, limit := range []int{1, 33, 100} {
			if diff := cmp.Diff(want, listAll(t, s, "c-1", "", limit)); diff != "" {
				t.Errorf("repeated after %d, limit %d: %s", delay, limit, diff)
			}
		}
	}
}

func TestIndexByManyAtOnce(t *testing.T) {
	t.Parallel()
	s := store.New(state.NewMemory(), "writer", time.Hour)
	var all sync.WaitGroup
	for worker := range 10 {
		all.Go(func() {
			for i := range 25 {
				id := fmt.Sprintf("o-%d-%d", worker, i)
				if err := s.Index(t.Context(), "c-1", order.ID(id)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for worker := range 10 {
		for i := range 25 {
			save(t, s, newOrder(t, fmt.Sprintf("o-%d-%d", worker, i), "c-1"))
		}
	}
	ids := listAll(t, s, "c-1", "", 100)
	slices.Sort(ids)
	if n := len(slices.Compact(ids)); n != 250 {
		t.Errorf("%d orders are listed, want all 250", n)
	}
}

// brittle fails one write, before or after its effect.
type brittle struct {
	*state.Memory
	failAt, writes int
	after          bool
}

var errBroken = errors.New("broken")

func (b *brittle) write(effect func() error) error {
	b.writes++
	if b.writes != b.failAt {
		return effect()
	}
	if b.after {
		if err := effect(); err != nil {
			return err
		}
	}
	return errBroken
}

func (b *brittle) Create(ctx context.Context, key string, doc any, options ...state.Option) error {
	return b.write(func() error { return b.Memory.Create(ctx, key, doc, options...) })
}

func (b *brittle) Replace(ctx context.Context, key string, doc any, etag state.ETag, options ...state.Option) error {
	return b.write(func() error { return b.Memory.Replace(ctx, key, doc, etag, options...) })
}

// reading counts what is read.
type reading struct {
	*state.Memory
	reads int
}

func (r *reading) Get(ctx context.Context, key string, doc any) (state.ETag, error) {
	r.reads++
	return r.Memory.Get(ctx, key, doc)
}

// TestIndexReadsTheHeadOnly, however many orders the customer has: every order does it.
func TestIndexReadsTheHeadOnly(t *testing.T) {
	t.Parallel()
	documents := &reading{Memory: state.NewMemory()}
	s := store.New(documents, "writer", time.Hour)
	for n := range 450 {
		documents.reads = 0
		if err := s.Index(t.Context(), "c-1", order.ID(fmt.Sprint("o-", n))); err != nil || documents.reads != 1 {
			t.Errorf("order %d: %d reads, %v", n, documents.reads, err)
		}
	}
}

// The test fails each write around those that add a page, and repeats it.
func TestIndexFailsWhileAPageIsAdded(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		for _, failAt := range []int{198, 199, 200, 201, 202, 203, 300, 301, 302, 303, 304} {
			documents := &brittle{Memory: state.NewMemory(), failAt: failAt, after: after}
			s := store.New(documents, "writer", time.Hour)
			var want []string
			for i := range 303 {
				id := fmt.Sprint("o-", i)
				err := s.Index(t.Context(), "c-1", order.ID(id))
				if errors.Is(err, errBroken) {
					err = s.Index(t.Context(), "c-1", order.ID(id))
				}
				if err != nil {
					t.Fatal(err)
				}
				want = append([]string{id}, want...)
			}
			documents.failAt = 0
			for _, id := range want {
				save(t, s, newOrder(t, id, "c-1"))
			}
			if diff := cmp.Diff(want, listAll(t, s, "c-1", "", 100)); diff != "" {
				t.Errorf("write %d, after its effect %v: %s", failAt, after, diff)
			}
		}
	}
}

func TestListShowsOnlyTheCustomersOwn(t *testing.T) {
	t.Parallel()
	s := store.New(state.NewMemory(), "writer", time.Hour)
	for _, id := range []order.ID{"kept", "vanished", "anothers"} {
		if err := s.Index(t.Context(), "c-1", id); err != nil {
			t.Fatal(err)
		}
	}
	save(t, s, newOrder(t, "kept", "c-1"))
	save(t, s, newOrder(t, "anothers", "c-2"))
	if diff := cmp.Diff([]string{"kept"}, listAll(t, s, "c-1", "", 1)); diff != "" {
		t.Error(diff)
	}
}

func TestListReadsABoundedNumber(t *testing.T) {
	t.Parallel()
	s := store.New(state.NewMemory(), "writer", time.Hour)
	for i := range 1001 {
		id := fmt.Sprint("o-", i)
		o := newOrder(t, id, "c-1")
		if i == 0 {
			o.Confirm(order.Cause{EventID: "e"}, at)
		}
		save(t, s, o)
		if err := s.Index(t.Context(), "c-1", o.ID()); err != nil {
			t.Fatal(err)
		}
	}
	orders, next, err := s.List(t.Context(), "c-1", order.Confirmed, 10, 0)
	if err != nil || len(orders) != 0 || next <= 0 || next >= 1001-400 {
		t.Errorf("got %d orders, next %d, %v", len(orders), next, err)
	}
	if diff := cmp.Diff([]string{"o-0"}, listAll(t, s, "c-1", order.Confirmed, 10)); diff != "" {
		t.Error(diff)
	}
}

// An order that cannot be decoded does not hide others, does not count as missing, and stays pending.
func TestAnOrderThatCannotBeDecodedHidesNoOther(t *testing.T) {
	t.Parallel()
	documents := state.NewMemory()
	s := store.New(documents, "writer", time.Hour)
	for _, id := range []order.ID{"o-1", "o-2", "o-3"} {
		o := newOrder(t, string(id), "c-1")
		if err := s.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if err := s.Update(t.Context(), id, confirm); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := state.Update(t.Context(), documents, "order:o-2", func(doc *any, _ bool) error { *doc = "corrupt"; return nil }); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		open, more, err := s.Open(t.Context(), 10)
		if !errors.Is(err, state.ErrUnreadable) || !strings.Contains(err.Error(), "order:o-2") || more {
			t.Errorf("got %v, %v", more, err)
		}
		ids := make([]order.ID, 0, len(open))
		for _, o := range open {
			ids = append(ids, o.ID())
		}
		if diff := cmp.Diff([]order.ID{"o-1", "o-3"}, ids); diff != "" {
			t.Error(diff)
		}
		found, unreadable, err := s.GetMany(t.Context(), []order.ID{"o-1", "o-2", "o-3", "missing"})
		if err != nil || len(found) != 2 || len(unreadable) != 1 || unreadable["o-2"] == nil {
			t.Errorf("read %v, %v, %v", found, unreadable, err)
		}
	}
	if diff := cmp.Diff([]string{"o-1", "o-2", "o-3"}, additions(t, documents)); diff != "" {
		t.Errorf("pending: %s", diff)
	}
}
