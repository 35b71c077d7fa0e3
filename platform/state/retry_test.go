package state_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"waybill/platform/state"
	"waybill/platform/state/statetest"
)

const timeout = 4 * time.Second

func TestRetryIsAStore(t *testing.T) {
	t.Parallel()
	statetest.Run(t, func(*testing.T) state.Store { return state.WithRetry(state.NewMemory(), timeout) })
}

// shaky is a store whose next calls fail: after their effect if lost is set, before it otherwise.
type shaky struct {
	*state.Memory
	failures, calls int
	lost            bool
	// meanwhile runs after a call that failed.
	meanwhile func()
}

func (s *shaky) call(effect func() error) error {
	s.calls++
	if s.failures == 0 {
		return effect()
	}
	s.failures--
	err := state.ErrUnavailable
	if s.lost {
		err = errors.Join(err, effect())
	}
	if s.meanwhile != nil {
		s.meanwhile()
	}
	return fmt.Errorf("shaky: %w", err)
}

func (s *shaky) Get(ctx context.Context, key string, doc any) (etag state.ETag, err error) {
	err = s.call(func() error { etag, err = s.Memory.Get(ctx, key, doc); return err })
	return etag, err
}

func (s *shaky) GetMany(ctx context.Context, keys []string) (docs map[string][]byte, err error) {
	err = s.call(func() error { docs, err = s.Memory.GetMany(ctx, keys); return err })
	return docs, err
}

func (s *shaky) Create(ctx context.Context, key string, doc any, options ...state.Option) error {
	return s.call(func() error { return s.Memory.Create(ctx, key, doc, options...) })
}

func (s *shaky) Replace(ctx context.Context, key string, doc any, etag state.ETag, options ...state.Option) error {
	return s.call(func() error { return s.Memory.Replace(ctx, key, doc, etag, options...) })
}

type note struct {
	Text string  `json:"text"`
	Sum  float64 `json:"sum"`
}

func TestRetryHidesShortOutages(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			s := &shaky{Memory: state.NewMemory(), lost: lost}
			p := state.WithRetry(s, timeout)
			s.failures = 3
			if err := p.Create(ctx, "k", note{"first", 9.90}); err != nil {
				t.Errorf("create, lost %v: %v", lost, err)
			}
			var got note
			s.failures = 3
			etag, err := p.Get(ctx, "k", &got)
			if err != nil || got.Text != "first" {
				t.Errorf("get, lost %v: %v, %v", lost, got, err)
			}
			s.failures = 3
			if err := p.Replace(ctx, "k", note{"second", 0}, etag); err != nil {
				t.Errorf("replace, lost %v: %v", lost, err)
			}
			s.failures = 3
			if docs, err := p.GetMany(ctx, []string{"k"}); err != nil || string(docs["k"]) != `{"text":"second","sum":0}` {
				t.Errorf("get many, lost %v: %s, %v", lost, docs["k"], err)
			}
		})
	}
}

// A conflict after a failure comes from another writer, unless the stored document equals the written one.
func TestRetryReportsConflictWithAnotherWriter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s := &shaky{Memory: state.NewMemory()}
		p := state.WithRetry(s, timeout)
		s.failures, s.meanwhile = 1, func() {
			if err := s.Memory.Create(ctx, "k", note{"theirs", 1}); err != nil {
				t.Error(err)
			}
		}
		if err := p.Create(ctx, "k", note{"mine", 1}); !errors.Is(err, state.ErrConflict) || errors.Is(err, state.ErrUnavailable) {
			t.Errorf("create: %v", err)
		}
		etag, err := s.Memory.Get(ctx, "k", new(note))
		if err != nil {
			t.Fatal(err)
		}
		s.failures, s.meanwhile = 1, func() {
			if err := s.Memory.Replace(ctx, "k", note{"theirs again", 1}, etag); err != nil {
				t.Error(err)
			}
		}
		if err := p.Replace(ctx, "k", note{"mine", 1}, etag); !errors.Is(err, state.ErrConflict) {
			t.Errorf("replace: %v", err)
		}
		if s.failures, s.meanwhile = 1, nil; p.Create(ctx, "k", note{"theirs", 1}) == nil {
			t.Error("an older document of the same writer was treated as its last write")
		}
		if err := p.Replace(ctx, "missing", note{"mine", 1}, etag); !errors.Is(err, state.ErrConflict) {
			t.Errorf("replacing nothing: %v", err)
		}
		calls := s.calls
		if err := p.Create(ctx, "k", note{"theirs again", 1}); !errors.Is(err, state.ErrConflict) || s.calls != calls+1 {
			t.Errorf("without an earlier failure, an equal document must conflict: %v after %d calls", err, s.calls-calls)
		}
	})
}

func TestRetryEndsAtItsTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &shaky{Memory: state.NewMemory(), failures: 1_000_000}
		p := state.WithRetry(s, timeout)
		for given, want := range map[time.Duration]time.Duration{time.Hour: timeout, time.Second: time.Second} {
			ctx, cancel := context.WithTimeout(t.Context(), given)
			began := time.Now()
			if err := p.Create(ctx, "k", 1); !errors.Is(err, state.ErrUnavailable) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(began); took != want {
				t.Errorf("with a caller's timeout of %s it took %s, want %s", given, took, want)
			}
			cancel()
		}
		if s.calls < 10 || s.calls > 40 {
			t.Errorf("the store got %d calls in five seconds", s.calls)
		}
	})
}

// hanging is a store whose Get returns only when the context ends.
type hanging struct{ *state.Memory }

func (hanging) Get(ctx context.Context, _ string, _ any) (state.ETag, error) {
	<-ctx.Done()
	return "", fmt.Errorf("%w: %w", state.ErrUnavailable, ctx.Err())
}

func TestRetryEndsACallThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := state.WithRetry(hanging{state.NewMemory()}, timeout).Get(t.Context(), "k", new(int))
		if !errors.Is(err, state.ErrUnavailable) || time.Since(began) != timeout {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
	})
}
