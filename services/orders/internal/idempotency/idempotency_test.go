package idempotency_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"waybill/platform/state"
	"waybill/services/orders/internal/idempotency"
)

func process(s state.Store, name string) *idempotency.Keys {
	return idempotency.New(s, name, time.Hour, slog.New(slog.DiscardHandler))
}

var request = []byte("request")

// made is what work that succeeds was done on.
type made []string

// work is such work, and shows that it was done.
func (m *made) work() idempotency.Work {
	return idempotency.Work{Do: m.do, Done: func(_ context.Context, subject string) (bool, error) { return slices.Contains(*m, subject), nil }}
}

// hidden is such work, and never shows that it was done.
func (m *made) hidden() idempotency.Work { return unseen(m.do) }

func (m *made) do(_ context.Context, subject string) error {
	*m = append(*m, subject)
	return nil
}

func unseen(do func(ctx context.Context, subject string) error) idempotency.Work {
	return idempotency.Work{Do: do, Done: func(context.Context, string) (bool, error) { return false, nil }}
}

func TestWorkIsDoneOnce(t *testing.T) {
	t.Parallel()
	s := state.NewMemory()
	var m made
	for _, keys := range []*idempotency.Keys{process(s, "a"), process(s, "a"), process(s, "b")} {
		for _, subject := range []string{"one", "two"} {
			if got, err := keys.Do(t.Context(), "key", request, subject, m.work()); err != nil || got != "one" {
				t.Errorf("got %s, %v, want the first subject", got, err)
			}
		}
		if _, err := keys.Do(t.Context(), "key", []byte("another"), "three", m.work()); !errors.Is(err, idempotency.ErrOtherRequest) {
			t.Errorf("another request: %v", err)
		}
	}
	if len(m) != 1 {
		t.Errorf("worked on %v", m)
	}
}

// TestSubject finds what the key stands for, and stores nothing.
func TestSubject(t *testing.T) {
	t.Parallel()
	s := state.NewMemory()
	for range 2 {
		if subject, known, err := process(s, "a").Subject(t.Context(), "key", request); subject != "" || known || err != nil {
			t.Errorf("a key that was not used: %q, %v, %v", subject, known, err)
		}
	}
	var m made
	if _, err := process(s, "a").Do(t.Context(), "key", request, "one", m.work()); err != nil {
		t.Fatal(err)
	}
	if subject, known, err := process(s, "b").Subject(t.Context(), "key", request); subject != "one" || !known || err != nil {
		t.Errorf("got %q, %v, %v", subject, known, err)
	}
	if _, known, err := process(s, "b").Subject(t.Context(), "key", []byte("another")); known || !errors.Is(err, idempotency.ErrOtherRequest) {
		t.Errorf("another request: %v, %v", known, err)
	}
}

func TestFailedWorkCanBeRepeatedAtOnceByAnyProcess(t *testing.T) {
	t.Parallel()
	failure := errors.New("the bus is away")
	for _, second := range []string{"a", "b"} {
		s := state.NewMemory()
		var m made
		_, err := process(s, "a").Do(t.Context(), "key", request, "one", unseen(func(ctx context.Context, subject string) error {
			return errors.Join(m.do(ctx, subject), failure)
		}))
		if !errors.Is(err, failure) {
			t.Errorf("got %v", err)
		}
		if got, err := process(s, second).Do(t.Context(), "key", request, "two", m.hidden()); err != nil || got != "one" {
			t.Errorf("process %s: %s, %v", second, got, err)
		}
		if len(m) != 2 || m[1] != "one" {
			t.Errorf("process %s worked on %v", second, m)
		}
	}
}

// TestTheWorkOfADeadProcess: during its lease no other process may continue, because it may be alive. The same process may, because it
// knows that it does not run.
func TestTheWorkOfADeadProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := state.NewMemory()
		dies := func(keys *idempotency.Keys) {
			defer func() { _ = recover() }()
			_, _ = keys.Do(t.Context(), "key", request, "one", unseen(func(context.Context, string) error { panic("dead") }))
		}
		a, b := process(s, "a"), process(s, "b")
		dies(a)
		var m made
		if _, err := b.Do(t.Context(), "key", request, "two", m.work()); !errors.Is(err, idempotency.ErrRunning) {
			t.Errorf("within the lease: %v", err)
		}
		dies(a)
		time.Sleep(idempotency.Lease + time.Millisecond)
		if got, err := b.Do(t.Context(), "key", request, "two", m.work()); err != nil || got != "one" {
			t.Errorf("after the lease: %s, %v", got, err)
		}
		if got, err := a.Do(t.Context(), "key", request, "three", m.work()); err != nil || got != "one" || len(m) != 1 {
			t.Errorf("when another one has done it: %s, %v, worked on %v", got, err, m)
		}
	})
}

// elsewhere is the store as a process writes to it whose clock is not this one's.
type elsewhere struct {
	*state.Memory
	ahead time.Duration
}

func (e elsewhere) Create(ctx context.Context, key string, doc any, options ...state.Option) error {
	text, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	var record map[string]any
	if err := json.Unmarshal(text, &record); err != nil {
		return err
	}
	record["running_until"] = time.Now().Add(idempotency.Lease + e.ahead)
	return e.Memory.Create(ctx, key, record, options...)
}

// A lease lasts no longer than a lease, whatever the clock was of the process that died.
func TestALeaseOfAWrongClock(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{5 * time.Hour, -5 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			s := state.NewMemory()
			func() {
				defer func() { _ = recover() }()
				_, _ = process(elsewhere{s, ahead}, "a").Do(t.Context(), "key", request, "one", unseen(func(context.Context, string) error { panic("dead") }))
			}()
			b := process(s, "b")
			var m made
			if ahead > 0 {
				if _, err := b.Do(t.Context(), "key", request, "two", m.work()); !errors.Is(err, idempotency.ErrRunning) {
					t.Errorf("%v ahead, at first sight: %v", ahead, err)
				}
				time.Sleep(idempotency.Lease)
			}
			if got, err := b.Do(t.Context(), "key", request, "two", m.work()); err != nil || got != "one" {
				t.Errorf("%v ahead, after the lease: %s, %v", ahead, got, err)
			}
		})
	}
}

// TestAProcessThatWasSlow: the note of one that lost its lease does not touch the record of the one that took over.
func TestAProcessThatWasSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := state.NewMemory()
		a, b := process(s, "a"), process(s, "b")
		_, err := a.Do(t.Context(), "key", request, "one", unseen(func(ctx context.Context, _ string) error {
			time.Sleep(idempotency.Lease + time.Second)
			_, err := b.Do(ctx, "key", request, "two", unseen(func(context.Context, string) error {
				return errors.New("b failed")
			}))
			if err == nil {
				t.Error("b did not run")
			}
			return nil
		}))
		if err != nil {
			t.Error(err)
		}
		var m made
		if _, err := b.Do(t.Context(), "key", request, "three", m.hidden()); err != nil || len(m) != 1 || m[0] != "one" {
			t.Errorf("b worked on %v, %v", m, err)
		}
	})
}

func TestOneAtATime(t *testing.T) {
	t.Parallel()
	s := state.NewMemory()
	a, b := process(s, "a"), process(s, "b")
	var m made
	_, err := a.Do(t.Context(), "key", request, "one", unseen(func(ctx context.Context, subject string) error {
		for _, keys := range []*idempotency.Keys{a, b} {
			if _, err := keys.Do(ctx, "key", request, "two", m.work()); !errors.Is(err, idempotency.ErrRunning) {
				t.Errorf("meanwhile: %v", err)
			}
			if _, err := keys.Do(ctx, "key", []byte("another"), "two", m.work()); !errors.Is(err, idempotency.ErrOtherRequest) {
				t.Errorf("meanwhile, another request: %v", err)
			}
			if _, err := keys.Do(ctx, "another key", request, "two", m.work()); err != nil {
				t.Errorf("meanwhile, another key: %v", err)
			}
		}
		return m.do(ctx, subject)
	}))
	if err != nil || len(m) != 2 {
		t.Errorf("worked on %v, %v", m, err)
	}
}

// TestWorkThatDoesNotShow: the process that did it knows, in bounded memory; any other one waits until no process can be
// running it, and then does it again on the same subject.
func TestWorkThatDoesNotShow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := state.NewMemory()
		a, b := process(s, "a"), process(s, "b")
		var m made
		for range 2 {
			if got, err := a.Do(t.Context(), "key", request, "one", m.hidden()); err != nil || got != "one" || len(m) != 1 {
				t.Errorf("its own process: %s, %v, worked on %v", got, err, m)
			}
		}
		if _, err := b.Do(t.Context(), "key", request, "two", m.hidden()); !errors.Is(err, idempotency.ErrRunning) {
			t.Errorf("another process, within the lease: %v", err)
		}
		if _, err := a.Do(t.Context(), "key", []byte("another"), "two", m.hidden()); !errors.Is(err, idempotency.ErrOtherRequest) {
			t.Errorf("another request: %v", err)
		}
		time.Sleep(idempotency.Lease + time.Millisecond)
		if got, err := b.Do(t.Context(), "key", request, "two", m.hidden()); err != nil || got != "one" || len(m) != 2 {
			t.Errorf("another process, after the lease: %s, %v, worked on %v", got, err, m)
		}
		// What it knew was of its own record, and there is another one now.
		if got, err := a.Do(t.Context(), "key", request, "three", m.hidden()); !errors.Is(err, idempotency.ErrRunning) {
			t.Errorf("the first process, within the other's lease: %s, %v", got, err)
		}
		time.Sleep(time.Hour)
		if got, err := a.Do(t.Context(), "key", request, "four", m.hidden()); err != nil || got != "four" {
			t.Errorf("when the key is forgotten: %s, %v", got, err)
		}
	})
}

// The result of the work cannot be read: then it does not count as done, and is not done again.
func TestWorkThatCannotBeRead(t *testing.T) {
	t.Parallel()
	s := state.NewMemory()
	away := errors.New("the store is away")
	var m made
	work := m.work()
	work.Do = func(context.Context, string) error { return away }
	if _, err := process(s, "a").Do(t.Context(), "key", request, "one", work); !errors.Is(err, away) {
		t.Fatalf("got %v", err)
	}
	work = m.work()
	work.Done = func(context.Context, string) (bool, error) { return false, away }
	if _, err := process(s, "a").Do(t.Context(), "key", request, "two", work); !errors.Is(err, away) || len(m) > 0 {
		t.Errorf("got %v, worked on %v", err, m)
	}
	if got, err := process(s, "b").Do(t.Context(), "key", request, "three", m.work()); err != nil || got != "one" {
		t.Errorf("once it can be read: %s, %v", got, err)
	}
}

// counting counts the calls of a store.
type counting struct {
	*state.Memory
	reads, writes int
}

func (c *counting) Get(ctx context.Context, key string, doc any) (state.ETag, error) {
	c.reads++
	return c.Memory.Get(ctx, key, doc)
}

func (c *counting) Create(ctx context.Context, key string, doc any, options ...state.Option) error {
	c.writes++
	return c.Memory.Create(ctx, key, doc, options...)
}

func (c *counting) Replace(ctx context.Context, key string, doc any, etag state.ETag, options ...state.Option) error {
	c.writes++
	return c.Memory.Replace(ctx, key, doc, etag, options...)
}

// TestARequestIsOneWrite: it is what most requests cost, so it is held.
func TestARequestIsOneWrite(t *testing.T) {
	t.Parallel()
	s := &counting{Memory: state.NewMemory()}
	var m made
	if _, err := process(s, "a").Do(t.Context(), "key", request, "one", m.work()); err != nil {
		t.Fatal(err)
	}
	if s.reads != 0 || s.writes != 1 {
		t.Errorf("%d reads and %d writes", s.reads, s.writes)
	}
}

// TestSubjectReadsSeldomForUnknownKeys asks for a thousand unused keys, as a shop under overload does.
func TestSubjectReadsSeldomForUnknownKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &counting{Memory: state.NewMemory()}
		keys := process(s, "a")
		var m made
		if _, err := keys.Do(t.Context(), "mine", request, "one", m.work()); err != nil {
			t.Fatal(err)
		}
		for i := range 1000 {
			if _, known, err := keys.Subject(t.Context(), fmt.Sprint("key-", i), request); known || err != nil {
				t.Fatalf("an unused key is known: %v, %v", known, err)
			}
		}
		if s.reads > 20 {
			t.Errorf("%d reads for a thousand unused keys, at most 20 are expected", s.reads)
		}
		if got, known, err := keys.Subject(t.Context(), "mine", request); got != "one" || !known || err != nil {
			t.Errorf("a key of this process: %s, %v, %v", got, known, err)
		}
		time.Sleep(time.Second)
		if got, known, err := process(s, "b").Subject(t.Context(), "mine", request); got != "one" || !known || err != nil {
			t.Errorf("a key of another process: %s, %v, %v", got, known, err)
		}
	})
}
