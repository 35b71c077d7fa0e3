package reconcile_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/platform/reconcile"
	"waybill/platform/state"
)

// seen returns the ids that one Visit finds, sorted. done says which of them it then removes.
func seen(t *testing.T, b *reconcile.Pending, done func(id string) bool) []string {
	t.Helper()
	var all []string
	if err := b.Visit(t.Context(), func(_ context.Context, ids []string) ([]string, error) {
		all = append(all, ids...)
		return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !done(id) }), nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

func none(string) bool { return false }

func all(string) bool { return true }

func add(t *testing.T, b *reconcile.Pending, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := b.Add(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
}

func pages(t *testing.T, s state.Store, name string) []string {
	t.Helper()
	var directory struct{ Pages []string }
	if _, err := s.Get(t.Context(), "backlog:"+name, &directory); err != nil && !errors.Is(err, state.ErrNotFound) {
		t.Fatal(err)
	}
	return directory.Pages
}

func TestPendingKeepsAnIDThatIsAddedAgainWhileItIsRemoved(t *testing.T) {
	t.Parallel()
	b := reconcile.NewPending(state.NewMemory(), "orders", "w1")
	add(t, b, "a", "b")
	visit := func(_ context.Context, ids []string) ([]string, error) {
		add(t, b, "a")
		return ids, nil
	}
	if err := b.Visit(t.Context(), visit); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a"}, seen(t, b, none)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

func TestPendingRemovesDoneIDsBesideAnError(t *testing.T) {
	t.Parallel()
	b := reconcile.NewPending(state.NewMemory(), "orders", "w1")
	add(t, b, "a", "b")
	failure := errors.New("b is not reconciled")
	err := b.Visit(t.Context(), func(context.Context, []string) ([]string, error) { return []string{"a"}, failure })
	if !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff([]string{"b"}, seen(t, b, none)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

// Pages that are closed: full ones, those of writers that died, and those that were listed and never written.
func TestPendingClosesPages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := state.NewMemory()
		dead, alive := reconcile.NewPending(memory, "orders", "dead"), reconcile.NewPending(memory, "orders", "alive")
		for n := range 450 {
			add(t, dead, strconv.Itoa(n))
		}
		add(t, alive, "a")
		unwritten := reconcile.NewPending(&pageless{memory}, "orders", "unwritten")
		if err := unwritten.Add(t.Context(), "never"); !errors.Is(err, state.ErrUnavailable) {
			t.Fatalf("got %v", err)
		}
		if got := pages(t, memory, "orders"); len(got) != 5 {
			t.Fatalf("pages %v", got)
		}
		if got := seen(t, alive, all); len(got) != 451 {
			t.Fatalf("a visit finds %d ids", len(got))
		}
		if diff := cmp.Diff([]string{"backlog:orders:dead:2", "backlog:orders:alive:0"}, pages(t, memory, "orders")); diff != "" {
			t.Errorf("after the visit that empties them (-want +got):\n%s", diff)
		}
		seen(t, alive, none)
		if got := pages(t, memory, "orders"); len(got) != 0 {
			t.Errorf("after the visit that finds them empty: %v", got)
		}
		// A writer starts a new page after its page was closed, and after the closed page expired.
		add(t, alive, "b")
		time.Sleep(2 * time.Hour)
		add(t, dead, "c")
		if diff := cmp.Diff([]string{"b", "c"}, seen(t, unwritten, none)); diff != "" {
			t.Errorf("left (-want +got):\n%s", diff)
		}
		for _, closed := range []string{"dead:0", "dead:1", "dead:2", "alive:0", "unwritten:0"} {
			if _, err := memory.Get(t.Context(), "backlog:orders:"+closed, new(any)); !errors.Is(err, state.ErrNotFound) {
				t.Errorf("the closed page %s still exists: %v", closed, err)
			}
		}
	})
}

// pageless is a store whose pages cannot be written.
type pageless struct{ *state.Memory }

func (p *pageless) Create(ctx context.Context, key string, doc any, options ...state.Option) error {
	if key != "backlog:orders" {
		return state.ErrUnavailable
	}
	return p.Memory.Create(ctx, key, doc, options...)
}

// slow is a store whose reads wait until a test closes hold.
type slow struct {
	*state.Memory
	hold chan struct{}
}

func (s *slow) Get(ctx context.Context, key string, doc any) (state.ETag, error) {
	select {
	case <-s.hold:
		return s.Memory.Get(ctx, key, doc)
	case <-ctx.Done():
		return "", fmt.Errorf("%w: %w", state.ErrUnavailable, ctx.Err())
	}
}

func TestPendingCancelledAddsDoNotBlockOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &slow{state.NewMemory(), make(chan struct{})}
		b := reconcile.NewPending(store, "orders", "w1")
		cancelled := make([]context.CancelFunc, 2)
		errs := make([]error, 4)
		var group sync.WaitGroup
		for i := range errs {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i < len(cancelled) {
				cancelled[i] = cancel
			}
			group.Go(func() { errs[i] = b.Add(ctx, strconv.Itoa(i)) })
			synctest.Wait() // 0 writes; 1, 2 and 3 wait for the next write
		}
		for _, cancel := range cancelled {
			cancel()
		}
		synctest.Wait()
		close(store.hold)
		group.Wait()
		if errs[0] != nil || !errors.Is(errs[1], context.Canceled) || errs[2] != nil || errs[3] != nil {
			t.Errorf("got %v; want an error only for the one that waited and was cancelled", errs)
		}
		if diff := cmp.Diff([]string{"0", "1", "2", "3"}, seen(t, b, none)); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.Add(ended, "4"); !errors.Is(err, context.Canceled) {
			t.Errorf("with a context that ended: %v", err)
		}
	})
}

func TestPendingWriteTimesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := reconcile.NewPending(&slow{state.NewMemory(), nil}, "orders", "w1")
		began := time.Now()
		if err := b.Add(t.Context(), "a"); !errors.Is(err, state.ErrUnavailable) || time.Since(began) != 10*time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}

// unsteady is a store whose writes fail at times, before or after their effect.
type unsteady struct{ *state.Memory }

var errUnsteady = fmt.Errorf("unsteady: %w", state.ErrUnavailable)

func (u unsteady) Create(ctx context.Context, key string, doc any, options ...state.Option) error {
	return failAtTimes(func() error { return u.Memory.Create(ctx, key, doc, options...) })
}

func (u unsteady) Replace(ctx context.Context, key string, doc any, etag state.ETag, options ...state.Option) error {
	return failAtTimes(func() error { return u.Memory.Replace(ctx, key, doc, etag, options...) })
}

func failAtTimes(effect func() error) error {
	switch rand.N(20) {
	case 0:
		return errUnsteady
	case 1:
		return errors.Join(effect(), errUnsteady)
	default:
		return effect()
	}
}

// Writers add ids, some of them again after they were done, while visitors finish and remove them, on a store that fails at
// times. Every id that is not done in the end must be in the set.
func TestPendingLosesNothing(t *testing.T) {
	t.Parallel()
	const writers, visitors, ids, rounds = 4, 3, 60, 40
	memory := state.NewMemory()
	var (
		mu   sync.Mutex
		open = map[string]bool{}
	)
	finish := func(chance int) func(context.Context, []string) ([]string, error) {
		return func(_ context.Context, visited []string) ([]string, error) {
			mu.Lock()
			defer mu.Unlock()
			var done []string
			for _, id := range visited {
				if open[id] && rand.N(chance) == 0 {
					delete(open, id)
				}
				if !open[id] {
					done = append(done, id)
				}
			}
			return done, nil
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var adding, visiting sync.WaitGroup
	for w := range writers {
		b := reconcile.NewPending(unsteady{memory}, "orders", fmt.Sprint("writer-", w))
		for n := range ids {
			adding.Go(func() {
				id := fmt.Sprint(w, "-", n)
				for range rounds {
					mu.Lock()
					open[id] = true
					mu.Unlock()
					for b.Add(t.Context(), id) != nil {
						continue // as a service does that must not lose the id
					}
				}
			})
		}
	}
	for v := range visitors {
		b := reconcile.NewPending(unsteady{memory}, "orders", fmt.Sprint("visitor-", v))
		visiting.Go(func() {
			for ctx.Err() == nil {
				if err := b.Visit(ctx, finish(2)); err != nil && !errors.Is(err, state.ErrUnavailable) && !errors.Is(err, state.ErrConflict) && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	adding.Wait()
	stop()
	visiting.Wait()

	last := reconcile.NewPending(memory, "orders", "last")
	for range 2 {
		if err := last.Visit(t.Context(), finish(1)); err != nil {
			t.Fatal(err)
		}
	}
	if len(open) > 0 {
		t.Errorf("%d ids are not done and not in the set: %v", len(open), open)
	}
	if left := pages(t, memory, "orders"); len(left) > 0 {
		t.Errorf("empty pages are left: %v", left)
	}
}

// An unreadable document does not hide others: neither a page of the set nor a record.
func TestPendingVisitsTheOthersOfAnUnreadableDocument(t *testing.T) {
	t.Parallel()
	store := state.NewMemory()
	for writer := range 3 {
		add(t, reconcile.NewPending(store, "orders", "w"+strconv.Itoa(writer)), "a"+strconv.Itoa(writer))
	}
	broken := pages(t, store, "orders")[1]
	corrupt(t, store, broken)
	b := reconcile.NewPending(store, "orders", "w9")
	var visited []string
	failures := 0
	visit := func(_ context.Context, ids []string) ([]string, error) {
		visited = append(visited, ids...)
		if failures > 0 {
			failures--
			return nil, fmt.Errorf("read %s: %w", ids[0], state.ErrUnreadable)
		}
		return ids, nil
	}
	failures = 1
	for range 2 {
		if err := b.Visit(t.Context(), visit); !errors.Is(err, state.ErrUnreadable) || errors.Is(err, state.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	}
	if diff := cmp.Diff([]string{"a0", "a2", "a0"}, visited); diff != "" {
		t.Errorf("visited (-want +got):\n%s", diff)
	}
	if left := pages(t, store, "orders"); !slices.Contains(left, broken) {
		t.Errorf("the unreadable page left the directory: %v", left)
	}
	// A retryable error ends the visit.
	add(t, b, "a9")
	away := fmt.Errorf("publish: %w", state.ErrUnavailable)
	if err := b.Visit(t.Context(), func(context.Context, []string) ([]string, error) { return nil, away }); !errors.Is(err, away) {
		t.Errorf("got %v", err)
	}
	corrupt(t, store, "backlog:orders")
	if err := b.Visit(t.Context(), visit); err == nil || errors.Is(err, state.ErrUnreadable) {
		t.Errorf("without its directory the set has no ids, and the error is %v", err)
	}
}

// corrupt replaces a document by one of another shape.
func corrupt(t *testing.T, store state.Store, key string) {
	t.Helper()
	if _, err := state.Update(t.Context(), store, key, func(doc *any, exists bool) error {
		if !exists {
			t.Fatalf("no document %s", key)
		}
		*doc = "corrupt"
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// The keys and documents of the store never change: a new release continues with those of an earlier one, and the other way round.
func TestPendingDocuments(t *testing.T) {
	t.Parallel()
	store := state.NewMemory()
	for key, doc := range map[string]string{
		"backlog:orders":      `{"pages":["backlog:orders:w0:0","backlog:orders:w0:1"]}`,
		"backlog:orders:w0:0": `{"entries":[{"n":3,"id":"a"},{"n":199,"id":"b"}],"taken":200}`,
		"backlog:orders:w0:1": `{"entries":[],"taken":7,"retired":true}`,
	} {
		if err := store.Create(t.Context(), key, json.RawMessage(doc)); err != nil {
			t.Fatal(err)
		}
	}
	p := reconcile.NewPending(store, "orders", "w1")
	add(t, p, "c")
	if diff := cmp.Diff([]string{"a", "b", "c"}, seen(t, p, func(id string) bool { return id == "a" })); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	for key, want := range map[string]string{
		"backlog:orders":      `{"pages":["backlog:orders:w0:0","backlog:orders:w1:0"]}`,
		"backlog:orders:w0:0": `{"entries":[{"n":199,"id":"b"}],"taken":200}`,
		"backlog:orders:w1:0": `{"entries":[{"n":0,"id":"c"}],"taken":1}`,
	} {
		var got json.RawMessage
		if _, err := store.Get(t.Context(), key, &got); err != nil || string(got) != want {
			t.Errorf("%s is %s, %v; want %s", key, got, err, want)
		}
	}
}
