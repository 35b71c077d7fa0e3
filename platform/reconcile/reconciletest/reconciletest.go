// Package reconciletest holds every pending set and every service's reconciler to the same behaviour.
package reconciletest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/platform/reconcile"
	"waybill/platform/retryable"
	"waybill/platform/state"
)

// RunPending runs the suite of reconcile.Pending on stores that open returns. A store may be shared with others.
func RunPending(t *testing.T, open func(t *testing.T) state.Store) {
	t.Helper()
	for name, test := range map[string]func(t *testing.T, s state.Store, set string){
		"several writers":        severalWriters,
		"an empty set":           emptySet,
		"more ids than a page":   manyIDs,
		"an id that comes again": addedAgain,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t), "reconciletest-"+rand.Text())
		})
	}
}

// severalWriters add and remove ids at the same time; every id that is not done must be found in the end.
func severalWriters(t *testing.T, s state.Store, set string) {
	t.Helper()
	const writers = 8
	var running sync.WaitGroup
	for n := range writers {
		running.Go(func() {
			p := reconcile.NewPending(s, set, strconv.Itoa(n))
			for _, id := range []string{"done", "open", "done"} {
				if err := p.Add(t.Context(), id+"-"+strconv.Itoa(n)); err != nil {
					t.Error(err)
				}
			}
			if err := p.Visit(t.Context(), func(_ context.Context, ids []string) ([]string, error) {
				return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return strings.HasPrefix(id, "open") }), nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	left := pendingIDs(t, s, set)
	for n := range writers {
		if id := "open-" + strconv.Itoa(n); !slices.Contains(left, id) {
			t.Errorf("%s is lost", id)
		}
	}
}

func emptySet(t *testing.T, s state.Store, set string) {
	t.Helper()
	if left := pendingIDs(t, s, set); len(left) > 0 {
		t.Errorf("found %v", left)
	}
}

func manyIDs(t *testing.T, s state.Store, set string) {
	t.Helper()
	p := reconcile.NewPending(s, set, "w")
	want := make([]string, 450)
	for i := range want {
		want[i] = fmt.Sprintf("%03d", i)
	}
	for batch := range slices.Chunk(want, 150) {
		if err := p.Add(t.Context(), batch...); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, pendingIDs(t, s, set)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for range 2 {
		if err := p.Visit(t.Context(), func(_ context.Context, ids []string) ([]string, error) { return ids, nil }); err != nil {
			t.Fatal(err)
		}
	}
	if left := pendingIDs(t, s, set); len(left) > 0 {
		t.Errorf("all are done, and %d are left", len(left))
	}
}

func addedAgain(t *testing.T, s state.Store, set string) {
	t.Helper()
	p := reconcile.NewPending(s, set, "w")
	if err := p.Add(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := p.Visit(t.Context(), func(_ context.Context, ids []string) ([]string, error) { return ids, p.Add(t.Context(), "a") }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a"}, pendingIDs(t, s, set)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// pendingIDs reads a pending set and changes nothing in it. The ids are sorted.
func pendingIDs(t *testing.T, s state.Store, set string) []string {
	t.Helper()
	var found []string
	if err := reconcile.NewPending(s, set, "reader-"+rand.Text()).Visit(t.Context(), func(_ context.Context, ids []string) ([]string, error) {
		found = append(found, ids...)
		return nil, nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// Service is one process of a service that runs a reconciler, as its main builds it, on a store of the suite.
type Service struct {
	// Loop is its *reconcile.Loop, or a type that makes the passes of several.
	Loop interface {
		Pass(ctx context.Context) error
	}
	// Set is the name of its pending set.
	Set string
	// Begin adds a record that has not ended, as the service does, and returns its id in the pending set. Each n has a document of
	// its own. The record does not end by itself within SettlesIn.
	Begin func(ctx context.Context, n int) (id string, err error)
	// End brings the record of that id to its end, as the service does, without telling the loop.
	End func(ctx context.Context, id string) error
	// Key is the key of the document of the record of that id.
	Key func(id string) string
	// Interval is the pause between the passes that the suite makes, SettlesIn how long an ended record may stay in the set.
	Interval, SettlesIn time.Duration
}

// RunReconciler runs the suite of a service's reconciler. Start builds a process on a store; no other one has its name. The
// suite runs in a synctest bubble: time passes only when every goroutine waits. A process may start goroutines that end with
// t.Context.
func RunReconciler(t *testing.T, start func(t *testing.T, s state.Store, process string) Service) {
	t.Helper()
	for name, test := range map[string]func(w *world){
		"ended records leave, others stay":      endedLeave,
		"the next process finds what was left":  nextProcess,
		"two processes at the same time":        twoProcesses,
		"an unreadable record blocks no other":  unreadable,
		"nothing is lost while the store fails": storeAway,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := &world{T: t, store: &faulty{Memory: state.NewMemory()}, boot: start}
				w.Service = w.start()
				test(w)
			})
		})
	}
}

type world struct {
	*testing.T
	Service

	store     *faulty
	boot      func(t *testing.T, s state.Store, process string) Service
	processes int
}

func (w *world) start() Service {
	w.Helper()
	w.processes++
	return w.boot(w.T, w.store, "process-"+strconv.Itoa(w.processes))
}

func (w *world) begin(n int) string {
	w.Helper()
	id, err := w.Begin(w.Context(), n)
	if err != nil {
		w.Fatal(err)
	}
	return id
}

func (w *world) end(ids ...string) {
	w.Helper()
	for _, id := range ids {
		if err := w.End(w.Context(), id); err != nil {
			w.Fatal(err)
		}
	}
}

// settle makes passes until an ended record must have left the set, and returns the last error.
func (w *world) settle(s Service) (err error) {
	for began := time.Now(); time.Since(began) <= w.SettlesIn; time.Sleep(w.Interval) {
		err = s.Loop.Pass(w.Context())
	}
	return err
}

func (w *world) want(ids ...string) {
	w.Helper()
	slices.Sort(ids)
	if diff := cmp.Diff(ids, pendingIDs(w.T, w.store, w.Set)); diff != "" {
		w.Errorf("pending (-want +got):\n%s", diff)
	}
}

func endedLeave(w *world) {
	a, b, c := w.begin(1), w.begin(2), w.begin(3)
	w.want(a, b, c)
	w.end(a, c)
	if err := w.settle(w.Service); err != nil {
		w.Error(err)
	}
	w.want(b)
	w.end(b)
	if err := w.settle(w.Service); err != nil {
		w.Error(err)
	}
	w.want()
}

func nextProcess(w *world) {
	a, b := w.begin(1), w.begin(2)
	w.end(a)
	next := w.start()
	if err := w.settle(next); err != nil {
		w.Error(err)
	}
	w.want(b)
	w.end(b)
	if err := w.settle(next); err != nil {
		w.Error(err)
	}
	w.want()
}

func twoProcesses(w *world) {
	other := w.start()
	a, b, c := w.begin(1), w.begin(2), w.begin(3)
	w.end(a, b)
	var running sync.WaitGroup
	for _, s := range []Service{w.Service, other} {
		running.Go(func() {
			if err := w.settle(s); err != nil {
				w.Error(err)
			}
		})
	}
	running.Wait()
	w.want(c)
}

func unreadable(w *world) {
	a, b, c := w.begin(1), w.begin(2), w.begin(3)
	w.end(a, c)
	w.corrupt(w.Key(b))
	if err := w.settle(w.Service); retryable.Is(err) {
		w.Errorf("the error %v says that a retry helps", err)
	}
	w.want(b)
}

// corrupt replaces a document by one of another shape.
func (w *world) corrupt(key string) {
	w.Helper()
	var doc json.RawMessage
	etag, err := w.store.Get(w.Context(), key, &doc)
	if err == nil {
		err = w.store.Replace(w.Context(), key, "corrupt", etag)
	}
	if err != nil {
		w.Fatal(err)
	}
}

func storeAway(w *world) {
	a, b := w.begin(1), w.begin(2)
	w.end(a)
	w.store.away.Store(true)
	if err := w.Loop.Pass(w.Context()); !retryable.Is(err) {
		w.Errorf("a pass without the store: %v", err)
	}
	w.store.away.Store(false)
	// Now every other call fails, so a pass breaks off at every place once.
	for n := range 40 {
		w.store.calls.Store(0)
		w.store.failAt.Store(int64(n + 1))
		if err := w.Loop.Pass(w.Context()); err != nil && !retryable.Is(err) {
			w.Error(err)
		}
		time.Sleep(w.Interval)
	}
	w.store.failAt.Store(0)
	if err := w.settle(w.Service); err != nil {
		w.Error(err)
	}
	w.want(b)
}

// faulty is a store that can be away, or fail one call.
type faulty struct {
	*state.Memory

	away          atomic.Bool
	calls, failAt atomic.Int64
}

var errAway = fmt.Errorf("the suite: %w", state.ErrUnavailable)

func (f *faulty) fails() bool { return f.away.Load() || f.calls.Add(1) == f.failAt.Load() }

// Get makes it a state.Store.
func (f *faulty) Get(ctx context.Context, key string, doc any) (state.ETag, error) {
	if f.fails() {
		return "", errAway
	}
	return f.Memory.Get(ctx, key, doc)
}

// GetMany makes it a state.Store.
func (f *faulty) GetMany(ctx context.Context, keys []string) (map[string][]byte, error) {
	if f.fails() {
		return nil, errAway
	}
	return f.Memory.GetMany(ctx, keys)
}

// Create makes it a state.Store. A call that fails has its effect: an answer was lost.
func (f *faulty) Create(ctx context.Context, key string, doc any, options ...state.Option) error {
	return f.write(func() error { return f.Memory.Create(ctx, key, doc, options...) })
}

// Replace makes it a state.Store. A call that fails has its effect.
func (f *faulty) Replace(ctx context.Context, key string, doc any, etag state.ETag, options ...state.Option) error {
	return f.write(func() error { return f.Memory.Replace(ctx, key, doc, etag, options...) })
}

func (f *faulty) write(effect func() error) error {
	switch {
	case f.away.Load():
		return errAway
	case f.fails():
		return errors.Join(errAway, effect())
	default:
		return effect()
	}
}
