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

const patience = 4 * time.Second

func TestPatient(t *testing.T) {
	t.Parallel()
	statetest.Run(t, func(*testing.T) state.Store { return state.WithRetry(state.NewMemory(), patience) })
}

// shaky is a store whose next calls fail, after their effect if lost is set, before it otherwise.
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

func TestPatientRidesOutFailures(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			s := &shaky{Memory: state.NewMemory(), lost: lost}
			p := state.WithRetry(s, patience)
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

// TestPatientTellsAnothersDocument: a conflict after a failure is another writer's unless the document is just the same.
func TestPatientTellsAnothersDocument(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s := &shaky{Memory: state.NewMemory()}
		p := state.WithRetry(s, patience)
		s.failures, s.meanwhile = 1, func() {
			if err := s.Memory.Create(ctx, "k", note{"another's", 1}); err != nil {
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
			if err := s.Memory.Replace(ctx, "k", note{"another's again", 1}, etag); err != nil {
				t.Error(err)
			}
		}
		if err := p.Replace(ctx, "k", note{"mine", 1}, etag); !errors.Is(err, state.ErrConflict) {
			t.Errorf("replace: %v", err)
		}
		if s.failures, s.meanwhile = 1, nil; p.Create(ctx, "k", note{"another's", 1}) == nil {
			t.Error("it takes an older document of its own for the one that is there")
		}
		if err := p.Replace(ctx, "missing", note{"mine", 1}, etag); !errors.Is(err, state.ErrConflict) {
			t.Errorf("replacing nothing: %v", err)
		}
		calls := s.calls
		if err := p.Create(ctx, "k", note{"another's again", 1}); !errors.Is(err, state.ErrConflict) || s.calls != calls+1 {
			t.Errorf("without a failure before, the same document conflicts as ever: %v after %d calls", err, s.calls-calls)
		}
	})
}

func TestPatientGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &shaky{Memory: state.NewMemory(), failures: 1_000_000}
		p := state.WithRetry(s, patience)
		for given, want := range map[time.Duration]time.Duration{time.Hour: patience, time.Second: time.Second} {
			ctx, cancel := context.WithTimeout(t.Context(), given)
			began := time.Now()
			if err := p.Create(ctx, "k", 1); !errors.Is(err, state.ErrUnavailable) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(began); took != want {
				t.Errorf("given %s it took %s, want %s", given, took, want)
			}
			cancel()
		}
		if s.calls < 10 || s.calls > 40 {
			t.Errorf("the store was asked %d times in five seconds", s.calls)
		}
	})
}

// silent takes a call and does not answer until the caller gives up.
type silent struct{ *state.Memory }

func (silent) Get(ctx context.Context, _ string, _ any) (state.ETag, error) {
	<-ctx.Done()
	return "", fmt.Errorf("%w: %w", state.ErrUnavailable, ctx.Err())
}

func TestPatientEndsACallThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := state.WithRetry(silent{state.NewMemory()}, patience).Get(t.Context(), "k", new(int))
		if !errors.Is(err, state.ErrUnavailable) || time.Since(began) != patience {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
	})
}
