package state_test

import (
	"context"
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

	"waybill/platform/state"
)

// seen is what one sweep shows, sorted; done says which ids it then forgets.
func seen(t *testing.T, b *state.Backlog, done func(id string) bool) []string {
	t.Helper()
	var all []string
	if err := b.Sweep(t.Context(), func(_ context.Context, ids []string) ([]string, error) {
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

func add(t *testing.T, b *state.Backlog, ids ...string) {
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

func TestBacklogKeepsAnIDThatComesBackWhileItIsForgotten(t *testing.T) {
	t.Parallel()
	b := state.NewBacklog(state.NewMemory(), "orders", "w1")
	add(t, b, "a", "b")
	visit := func(_ context.Context, ids []string) ([]string, error) {
		add(t, b, "a")
		return ids, nil
	}
	if err := b.Sweep(t.Context(), visit); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a"}, seen(t, b, none)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

func TestBacklogForgetsWhatIsDoneBesideAnError(t *testing.T) {
	t.Parallel()
	b := state.NewBacklog(state.NewMemory(), "orders", "w1")
	add(t, b, "a", "b")
	failure := errors.New("b cannot be looked at")
	err := b.Sweep(t.Context(), func(context.Context, []string) ([]string, error) { return []string{"a"}, failure })
	if !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff([]string{"b"}, seen(t, b, none)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

// TestBacklogRetiresPages: full ones, those of writers that died, and those that were listed and never written.
func TestBacklogRetiresPages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := state.NewMemory()
		store := &shaky{Memory: memory}
		dead, alive := state.NewBacklog(store, "orders", "dead"), state.NewBacklog(store, "orders", "alive")
		for n := range 450 {
			add(t, dead, strconv.Itoa(n))
		}
		add(t, alive, "a")
		unwritten := state.NewBacklog(&pageless{memory}, "orders", "unwritten")
		if err := unwritten.Add(t.Context(), "never"); !errors.Is(err, state.ErrUnavailable) {
			t.Fatalf("got %v", err)
		}
		if got := pages(t, memory, "orders"); len(got) != 5 {
			t.Fatalf("pages %v", got)
		}
		if got := seen(t, alive, all); len(got) != 451 {
			t.Fatalf("a sweep sees %d ids", len(got))
		}
		if diff := cmp.Diff([]string{"backlog:orders:dead:2", "backlog:orders:alive:0"}, pages(t, memory, "orders")); diff != "" {
			t.Errorf("after the sweep that empties them (-want +got):\n%s", diff)
		}
		seen(t, alive, none)
		if got := pages(t, memory, "orders"); len(got) != 0 {
			t.Errorf("after the sweep that finds them empty: %v", got)
		}
		// A writer goes on after its page was retired, and after that vanished.
		add(t, alive, "b")
		time.Sleep(2 * time.Hour)
		add(t, dead, "c")
		if diff := cmp.Diff([]string{"b", "c"}, seen(t, unwritten, none)); diff != "" {
			t.Errorf("left (-want +got):\n%s", diff)
		}
		for _, gone := range []string{"dead:0", "dead:1", "dead:2", "alive:0", "unwritten:0"} {
			if _, err := memory.Get(t.Context(), "backlog:orders:"+gone, new(any)); !errors.Is(err, state.ErrNotFound) {
				t.Errorf("the retired page %s is still there: %v", gone, err)
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

// slow is a store that a test holds up.
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

func TestBacklogAdditionsThatNobodyWaitsForHoldNobodyUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &slow{state.NewMemory(), make(chan struct{})}
		b := state.NewBacklog(store, "orders", "w1")
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
			synctest.Wait() // 0 writes, 1 is the first to wait, 2 and 3 wait with it
		}
		for _, cancel := range cancelled {
			cancel()
		}
		synctest.Wait()
		close(store.hold)
		group.Wait()
		if errs[0] != nil || !errors.Is(errs[1], context.Canceled) || errs[2] != nil || errs[3] != nil {
			t.Errorf("got %v; want only the one that waited and was cancelled to fail", errs)
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

func TestBacklogGivesUpAWriteThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := state.NewBacklog(&slow{state.NewMemory(), nil}, "orders", "w1")
		began := time.Now()
		if err := b.Add(t.Context(), "a"); !errors.Is(err, state.ErrUnavailable) || time.Since(began) != 10*time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}

// unsteady is a store of which every few calls fail, before or after their effect.
type unsteady struct{ *state.Memory }

var errShaken = fmt.Errorf("unsteady: %w", state.ErrUnavailable)

func (u unsteady) Create(ctx context.Context, key string, doc any, options ...state.Option) error {
	return shake(func() error { return u.Memory.Create(ctx, key, doc, options...) })
}

func (u unsteady) Replace(ctx context.Context, key string, doc any, etag state.ETag, options ...state.Option) error {
	return shake(func() error { return u.Memory.Replace(ctx, key, doc, etag, options...) })
}

func shake(effect func() error) error {
	switch rand.N(20) {
	case 0:
		return errShaken
	case 1:
		return errors.Join(effect(), errShaken)
	default:
		return effect()
	}
}

// TestBacklogLosesNothing lets writers add ids, some of them again after they were done, while sweepers finish and forget
// them, on a store that fails at times. Whatever is not done in the end must be in the backlog.
func TestBacklogLosesNothing(t *testing.T) {
	t.Parallel()
	const writers, sweepers, ids, rounds = 4, 3, 60, 40
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
	var adding, sweeping sync.WaitGroup
	for w := range writers {
		b := state.NewBacklog(unsteady{memory}, "orders", fmt.Sprint("writer-", w))
		for n := range ids {
			adding.Go(func() {
				id := fmt.Sprint(w, "-", n)
				for range rounds {
					mu.Lock()
					open[id] = true
					mu.Unlock()
					for b.Add(t.Context(), id) != nil {
						continue // as whoever must not lose the id does
					}
				}
			})
		}
	}
	for s := range sweepers {
		b := state.NewBacklog(unsteady{memory}, "orders", fmt.Sprint("sweeper-", s))
		sweeping.Go(func() {
			for ctx.Err() == nil {
				if err := b.Sweep(ctx, finish(2)); err != nil && !errors.Is(err, state.ErrUnavailable) && !errors.Is(err, state.ErrConflict) && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	adding.Wait()
	stop()
	sweeping.Wait()

	last := state.NewBacklog(memory, "orders", "last")
	for range 2 {
		if err := last.Sweep(t.Context(), finish(1)); err != nil {
			t.Fatal(err)
		}
	}
	if len(open) > 0 {
		t.Errorf("%d ids are not done and not in the backlog: %v", len(open), open)
	}
	if left := pages(t, memory, "orders"); len(left) > 0 {
		t.Errorf("empty pages are left: %v", left)
	}
}

// One document that cannot be decoded hides no other: neither a page of the backlog, nor what an id stands for.
func TestBacklogVisitsTheOthersOfWhatCannotBeDecoded(t *testing.T) {
	t.Parallel()
	store := state.NewMemory()
	for writer := range 3 {
		add(t, state.NewBacklog(store, "orders", "w"+strconv.Itoa(writer)), "a"+strconv.Itoa(writer))
	}
	broken := pages(t, store, "orders")[1]
	spoil(t, store, broken)
	b := state.NewBacklog(store, "orders", "w9")
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
		if err := b.Sweep(t.Context(), visit); !errors.Is(err, state.ErrUnreadable) || errors.Is(err, state.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	}
	if diff := cmp.Diff([]string{"a0", "a2", "a0"}, visited); diff != "" {
		t.Errorf("visited (-want +got):\n%s", diff)
	}
	if left := pages(t, store, "orders"); !slices.Contains(left, broken) {
		t.Errorf("the page that cannot be decoded was given up: %v", left)
	}
	// Of an error that passes the sweep says at once that it broke off.
	add(t, b, "a9")
	away := fmt.Errorf("publish: %w", state.ErrUnavailable)
	if err := b.Sweep(t.Context(), func(context.Context, []string) ([]string, error) { return nil, away }); !errors.Is(err, away) {
		t.Errorf("got %v", err)
	}
	spoil(t, store, "backlog:orders")
	if err := b.Sweep(t.Context(), visit); err == nil || errors.Is(err, state.ErrUnreadable) {
		t.Errorf("without its directory the backlog shows nothing, and the error is %v", err)
	}
}

// spoil replaces a document by one of another shape.
func spoil(t *testing.T, store state.Store, key string) {
	t.Helper()
	if _, err := state.Update(t.Context(), store, key, func(doc *any, exists bool) error {
		if !exists {
			t.Fatalf("there is no %s", key)
		}
		*doc = "spoiled"
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
