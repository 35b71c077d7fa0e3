// Package statetest is the conformance suite of state.Store. The unit tests run it against the store in memory, and the end-to-end
// tests run it against real Dapr.
//
//nolint:thelper // its tests are separate functions; as helpers they would hide the line that fails
package statetest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/platform/state"
)

type doc struct {
	Name  string   `json:"name"`
	Count int      `json:"count"`
	Tags  []string `json:"tags,omitempty"`
}

const (
	// writers is the number of goroutines in the tests with concurrent writers.
	writers = 20
	// ttl suits a store that counts whole seconds. expiry is how late a store may remove an expired document.
	ttl    = 2 * time.Second
	expiry = 30 * time.Second
)

// Readers that cancel their calls, as a killed process does.
const (
	readers = 8
	reads   = 1000                 // per reader
	maxWait = 2 * time.Millisecond // longest timeout of a read
)

// Run runs the suite. open returns a store: it may return the same one each time, and the store may have documents.
func Run(t *testing.T, open func(t *testing.T) state.Store) {
	for name, test := range map[string]func(*testing.T, state.Store){
		"create, read, replace":                       lifecycle,
		"an old ETag conflicts":                       oldETags,
		"an empty ETag conflicts":                     emptyETags,
		"one of many concurrent creates succeeds":     racingCreates,
		"one of many concurrent replaces succeeds":    racingReplaces,
		"concurrent updates lose nothing":             racingUpdates,
		"update creates, changes or leaves unchanged": updates,
		"a document with a TTL expires":               ttlSet,
		"a later write removes the TTL":               ttlDropped,
		"many are read at once":                       many,
		"large and unicode documents":                 contents,
		"invalid keys and documents":                  refusals,
		"a context that ended":                        endedContext,
		"cancelled reads":                             cancelledReads,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// newKey returns a key that no other test and no earlier run has used.
func newKey(name string) string { return "statetest:" + name + ":" + rand.Text() }

func create(t *testing.T, s state.Store, key string, d any, options ...state.Option) state.ETag {
	t.Helper()
	if err := s.Create(t.Context(), key, d, options...); err != nil {
		t.Fatal(err)
	}
	var written json.RawMessage
	etag, err := s.Get(t.Context(), key, &written)
	if err != nil {
		t.Fatal(err)
	}
	return etag
}

func wantDoc(t *testing.T, s state.Store, key string, want doc) state.ETag {
	t.Helper()
	var got doc
	etag, err := s.Get(t.Context(), key, &got)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the document differs (-want +got):\n%s", diff)
	}
	return etag
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
	for _, other := range []error{state.ErrNotFound, state.ErrConflict, state.ErrUnavailable, state.ErrInvalid} {
		if !errors.Is(want, other) && errors.Is(err, other) {
			t.Errorf("%s: %v is also %v", what, err, other)
		}
	}
}

func lifecycle(t *testing.T, s state.Store) {
	key := newKey("lifecycle")
	var d doc
	_, err := s.Get(t.Context(), key, &d)
	wantError(t, "reading a missing document", err, state.ErrNotFound)

	first := create(t, s, key, doc{Name: "first"})
	if first == "" {
		t.Fatal("the document has no ETag")
	}
	if again := wantDoc(t, s, key, doc{Name: "first"}); again != first {
		t.Errorf("reading changed the ETag from %s to %s", first, again)
	}
	wantError(t, "creating it again", s.Create(t.Context(), key, doc{Name: "other"}), state.ErrConflict)

	if err := s.Replace(t.Context(), key, doc{Name: "second"}, first); err != nil {
		t.Fatal(err)
	}
	second := wantDoc(t, s, key, doc{Name: "second"})
	if second == first {
		t.Error("a write did not change the ETag")
	}
}

func oldETags(t *testing.T, s state.Store) {
	key := newKey("old")
	old := create(t, s, key, doc{Count: 1})
	if err := s.Replace(t.Context(), key, doc{Count: 2}, old); err != nil {
		t.Fatal(err)
	}
	wantError(t, "replacing", s.Replace(t.Context(), key, doc{Count: 3}, old), state.ErrConflict)
	wantError(t, "replacing a missing document", s.Replace(t.Context(), newKey("missing"), doc{}, old), state.ErrConflict)
	wantDoc(t, s, key, doc{Count: 2})
}

func emptyETags(t *testing.T, s state.Store) {
	key := newKey("empty")
	create(t, s, key, doc{Count: 1})
	for what, k := range map[string]string{"an existing document": key, "a missing document": newKey("missing")} {
		wantError(t, "replacing "+what, s.Replace(t.Context(), k, doc{Count: 2}, ""), state.ErrConflict)
	}
	wantDoc(t, s, key, doc{Count: 1})
}

// race calls write concurrently in many goroutines and returns the number of the one that succeeded. The others must get ErrConflict.
func race(t *testing.T, write func(n int) error) int {
	t.Helper()
	errs := make([]error, writers)
	start := make(chan struct{})
	var running sync.WaitGroup
	for n := range writers {
		running.Go(func() {
			<-start
			errs[n] = write(n)
		})
	}
	close(start)
	running.Wait()
	winner := -1
	for n, err := range errs {
		switch {
		case err == nil && winner < 0:
			winner = n
		case err == nil:
			t.Errorf("writers %d and %d both succeeded", winner, n)
		default:
			wantError(t, "losing the race", err, state.ErrConflict)
		}
	}
	if winner < 0 {
		t.Fatal("no writer succeeded")
	}
	return winner
}

func racingCreates(t *testing.T, s state.Store) {
	key := newKey("creates")
	winner := race(t, func(n int) error { return s.Create(t.Context(), key, doc{Count: n}) })
	wantDoc(t, s, key, doc{Count: winner})
}

func racingReplaces(t *testing.T, s state.Store) {
	key := newKey("replaces")
	etag := create(t, s, key, doc{Count: -1})
	winner := race(t, func(n int) error { return s.Replace(t.Context(), key, doc{Count: n}, etag) })
	wantDoc(t, s, key, doc{Count: winner})
}

func racingUpdates(t *testing.T, s state.Store) {
	const each = 5
	key := newKey("updates")
	var running sync.WaitGroup
	for range writers {
		running.Go(func() {
			for range each {
				_, err := state.Update(t.Context(), s, key, func(d *doc, _ bool) error {
					d.Count++
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
	wantDoc(t, s, key, doc{Count: writers * each})
}

func updates(t *testing.T, s state.Store) {
	key := newKey("update")
	set := func(name string, wantExists bool, result error) func(*doc, bool) error {
		return func(d *doc, exists bool) error {
			if exists != wantExists {
				t.Errorf("%s: exists is %v", name, exists)
			}
			d.Name = name
			return result
		}
	}
	_, err := state.Update(t.Context(), s, key, set("kept", false, state.ErrUnchanged))
	wantError(t, "keeping a missing document", err, nil)
	var d doc
	_, err = s.Get(t.Context(), key, &d)
	wantError(t, "reading what was not written", err, state.ErrNotFound)

	got, err := state.Update(t.Context(), s, key, set("created", false, nil))
	if err != nil || got.Name != "created" {
		t.Errorf("creating by an update returned %+v, %v", got, err)
	}
	got, err = state.Update(t.Context(), s, key, set("changed", true, nil))
	if err != nil || got.Name != "changed" {
		t.Errorf("changing by an update returned %+v, %v", got, err)
	}
	mine := errors.New("mine")
	if _, err = state.Update(t.Context(), s, key, set("refused", true, mine)); err != mine { //nolint:errorlint // Update returns it unchanged
		t.Errorf("the update returned %v, want the function's own error", err)
	}
	wantDoc(t, s, key, doc{Name: "changed"})
}

// waitExpired waits until the document under key has expired.
func waitExpired(t *testing.T, s state.Store, key string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), expiry)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var d doc
		_, err := s.Get(ctx, key, &d)
		if errors.Is(err, state.ErrNotFound) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the document is still there %v after it was written", expiry)
		case <-tick.C:
		}
	}
}

func ttlSet(t *testing.T, s state.Store) {
	key, other := newKey("ttl"), newKey("ttl")
	etag := create(t, s, other, doc{Name: "first"})
	if err := s.Replace(t.Context(), other, doc{Name: "second"}, etag, state.TTL(ttl)); err != nil {
		t.Fatal(err)
	}
	old := create(t, s, key, doc{Name: "short"}, state.TTL(ttl))
	wantDoc(t, s, key, doc{Name: "short"})
	waitExpired(t, s, key)
	waitExpired(t, s, other)

	found, err := s.GetMany(t.Context(), []string{key})
	if err != nil || len(found) != 0 {
		t.Errorf("an expired document is among many: %q, %v", found, err)
	}
	wantError(t, "replacing an expired document", s.Replace(t.Context(), key, doc{}, old), state.ErrConflict)
	create(t, s, key, doc{Name: "again"})
	wantDoc(t, s, key, doc{Name: "again"})
}

func ttlDropped(t *testing.T, s state.Store) {
	kept, updated, clock := newKey("kept"), newKey("updated"), newKey("clock")
	etag := create(t, s, kept, doc{Name: "short"}, state.TTL(ttl))
	create(t, s, updated, doc{Name: "short"}, state.TTL(ttl))
	// Each write decides again whether the document expires.
	if err := s.Replace(t.Context(), kept, doc{Name: "long"}, etag); err != nil {
		t.Fatal(err)
	}
	if _, err := state.Update(t.Context(), s, updated, func(d *doc, _ bool) error { d.Name = "long"; return nil }); err != nil {
		t.Fatal(err)
	}
	create(t, s, clock, doc{}, state.TTL(ttl))
	waitExpired(t, s, clock) // it was written last, so it expires last
	wantDoc(t, s, kept, doc{Name: "long"})
	wantDoc(t, s, updated, doc{Name: "long"})
}

func many(t *testing.T, s state.Store) {
	want := map[string]doc{}
	const count = 40
	keys := make([]string, 0, count)
	for n := range count {
		key := newKey("many")
		keys = append(keys, key)
		if n%2 == 0 {
			want[key] = doc{Name: key, Count: n}
			create(t, s, key, want[key])
		}
	}
	found, err := s.GetMany(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]doc{}
	for key, value := range found {
		var d doc
		if err := json.Unmarshal(value, &d); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		got[key] = d
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the documents differ (-want +got):\n%s", diff)
	}
	for _, none := range [][]string{nil, {newKey("missing")}} {
		if found, err := s.GetMany(t.Context(), none); err != nil || found == nil || len(found) != 0 {
			t.Errorf("reading %d missing documents: %q, %v; want an empty map", len(none), found, err)
		}
	}
}

func contents(t *testing.T, s state.Store) {
	for name, d := range map[string]doc{
		"unicode":             {Name: "Zoë 한 🚚 \u2028 <a href=\"x\">&amp;</a> \\ \" '", Tags: []string{"", " ", "\n\t\x01"}},
		"Schlüssel🚚":          {Name: "the key is unicode"},
		"spaces and: (signs)": {Name: "the key has signs"},
		"large":               {Name: strings.Repeat("0123456789", 100_000)},
	} {
		key := newKey(name)
		create(t, s, key, d)
		wantDoc(t, s, key, d)
		found, err := s.GetMany(t.Context(), []string{key})
		if err != nil {
			t.Fatal(err)
		}
		var got doc
		if err := json.Unmarshal(found[key], &got); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(d, got); diff != "" {
			t.Errorf("among many the document differs (-want +got):\n%s", diff)
		}
	}
}

func refusals(t *testing.T, s state.Store) {
	for _, key := range []string{"", "a||b"} {
		var d doc
		_, err := s.Get(t.Context(), key, &d)
		wantError(t, "reading", err, state.ErrInvalid)
		_, err = s.GetMany(t.Context(), []string{newKey("missing"), key})
		wantError(t, "reading many", err, state.ErrInvalid)
		wantError(t, "creating", s.Create(t.Context(), key, d), state.ErrInvalid)
		wantError(t, "replacing", s.Replace(t.Context(), key, d, "1"), state.ErrInvalid)
	}
	key := newKey("too large")
	wantError(t, "a document that is too large", s.Create(t.Context(), key, strings.Repeat("x", state.MaxDocument)), state.ErrInvalid)
	if err := s.Create(t.Context(), key, func() {}); err == nil {
		t.Error("a function was stored")
	}
	var d doc
	create(t, s, key, "a text")
	if _, err := s.Get(t.Context(), key, &d); err == nil || errors.Is(err, state.ErrUnavailable) {
		t.Errorf("reading a text as an object: %v, want an error that is not retryable", err)
	}
}

// cancelledReads cancels many reads and checks that the store still works: a single writer never gets a conflict, and reads return
// the last write. In a store with several connections, a cancelled read could leave one connection with an old view.
func cancelledReads(t *testing.T, s state.Store) {
	keys := make([]string, 20)
	for i := range keys {
		keys[i] = newKey("cancelled")
		create(t, s, keys[i], doc{Count: i})
	}
	var reading sync.WaitGroup
	for range readers {
		reading.Go(func() {
			for i := range reads {
				ctx, cancel := context.WithTimeout(t.Context(), maxWait*time.Duration(i%100)/100)
				var d doc
				_, err := s.Get(ctx, keys[i%len(keys)], &d)
				if err == nil {
					_, err = s.GetMany(ctx, keys)
				}
				cancel()
				if err != nil {
					wantError(t, "a cancelled read", err, state.ErrUnavailable)
				}
			}
		})
	}
	over := make(chan struct{})
	go func() { reading.Wait(); close(over) }() // owned: the loop below waits for it

	key := newKey("written")
	want := doc{}
	etag := create(t, s, key, want)
	for going := true; going; {
		select {
		case <-over:
			going = false
		default:
		}
		want.Count++
		if err := s.Replace(t.Context(), key, want, etag); err != nil {
			t.Errorf("replacing, as the only writer: %v", err)
		}
		// Read once on each connection that the store may have.
		etags := make([]state.ETag, readers)
		var checking sync.WaitGroup
		for i := range etags {
			checking.Go(func() {
				var d doc
				var err error
				if etags[i], err = s.Get(t.Context(), key, &d); err != nil || d.Count != want.Count {
					t.Errorf("read %d, %v; written was %d", d.Count, err, want.Count)
				}
			})
		}
		checking.Wait()
		if etag = etags[0]; t.Failed() {
			break
		}
	}
	<-over
}

func endedContext(t *testing.T, s state.Store) {
	key := newKey("ended")
	etag := create(t, s, key, doc{Count: 1})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var d doc
	_, err := s.Get(ctx, key, &d)
	wantError(t, "reading", err, state.ErrUnavailable)
	_, err = s.GetMany(ctx, []string{key})
	wantError(t, "reading many", err, state.ErrUnavailable)
	wantError(t, "creating", s.Create(ctx, newKey("ended"), doc{}), state.ErrUnavailable)
	wantError(t, "replacing", s.Replace(ctx, key, doc{Count: 2}, etag), state.ErrUnavailable)
	wantDoc(t, s, key, doc{Count: 1})
}
