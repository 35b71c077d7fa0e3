package idempotency_test

import (
	"context"
	"errors"
	"log/slog"
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

// made is work that succeeds and notes on what.
type made []string

func (m *made) work(_ context.Context, subject string) error {
	*m = append(*m, subject)
	return nil
}

func TestWorkIsDoneOnce(t *testing.T) {
	t.Parallel()
	s := state.NewMemory()
	var m made
	for _, keys := range []*idempotency.Keys{process(s, "a"), process(s, "a"), process(s, "b")} {
		for _, subject := range []string{"one", "two"} {
			if got, err := keys.Do(t.Context(), "key", request, subject, m.work); err != nil || got != "one" {
				t.Errorf("got %s, %v, want the first subject", got, err)
			}
		}
		if _, err := keys.Do(t.Context(), "key", []byte("another"), "three", m.work); !errors.Is(err, idempotency.ErrOtherRequest) {
			t.Errorf("another request: %v", err)
		}
	}
	if len(m) != 1 {
		t.Errorf("worked on %v", m)
	}
}

func TestFailedWorkCanBeRepeatedAtOnceByAnyProcess(t *testing.T) {
	t.Parallel()
	failure := errors.New("the bus is away")
	for _, second := range []string{"a", "b"} {
		s := state.NewMemory()
		var m made
		_, err := process(s, "a").Do(t.Context(), "key", request, "one", func(ctx context.Context, subject string) error {
			return errors.Join(m.work(ctx, subject), failure)
		})
		if !errors.Is(err, failure) {
			t.Errorf("got %v", err)
		}
		if got, err := process(s, second).Do(t.Context(), "key", request, "two", m.work); err != nil || got != "one" {
			t.Errorf("process %s: %s, %v", second, got, err)
		}
		if len(m) != 2 || m[1] != "one" {
			t.Errorf("process %s worked on %v", second, m)
		}
	}
}

// TestTheWorkOfADeadProcess: while its lease lasts nobody else may go on, for it may be alive; the same process may, for it
// knows that it does not.
func TestTheWorkOfADeadProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := state.NewMemory()
		dies := func(keys *idempotency.Keys) {
			defer func() { _ = recover() }()
			_, _ = keys.Do(t.Context(), "key", request, "one", func(context.Context, string) error { panic("dead") })
		}
		a, b := process(s, "a"), process(s, "b")
		dies(a)
		var m made
		if _, err := b.Do(t.Context(), "key", request, "two", m.work); !errors.Is(err, idempotency.ErrRunning) {
			t.Errorf("within the lease: %v", err)
		}
		dies(a)
		time.Sleep(idempotency.Lease + time.Millisecond)
		if got, err := b.Do(t.Context(), "key", request, "two", m.work); err != nil || got != "one" {
			t.Errorf("after the lease: %s, %v", got, err)
		}
		if got, err := a.Do(t.Context(), "key", request, "three", m.work); err != nil || got != "one" || len(m) != 1 {
			t.Errorf("when another one has done it: %s, %v, worked on %v", got, err, m)
		}
	})
}

// TestAProcessThatWasSlow: the note of one that lost its lease does not touch the record of the one that took over.
func TestAProcessThatWasSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := state.NewMemory()
		a, b := process(s, "a"), process(s, "b")
		_, err := a.Do(t.Context(), "key", request, "one", func(ctx context.Context, _ string) error {
			time.Sleep(idempotency.Lease + time.Second)
			_, err := b.Do(ctx, "key", request, "two", func(context.Context, string) error {
				return errors.New("b failed")
			})
			if err == nil {
				t.Error("b did not run")
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		var m made
		if _, err := b.Do(t.Context(), "key", request, "three", m.work); err != nil || len(m) != 1 || m[0] != "one" {
			t.Errorf("b worked on %v, %v", m, err)
		}
	})
}

func TestOneAtATime(t *testing.T) {
	t.Parallel()
	s := state.NewMemory()
	a, b := process(s, "a"), process(s, "b")
	var m made
	_, err := a.Do(t.Context(), "key", request, "one", func(ctx context.Context, subject string) error {
		for _, keys := range []*idempotency.Keys{a, b} {
			if _, err := keys.Do(ctx, "key", request, "two", m.work); !errors.Is(err, idempotency.ErrRunning) {
				t.Errorf("meanwhile: %v", err)
			}
			if _, err := keys.Do(ctx, "key", []byte("another"), "two", m.work); !errors.Is(err, idempotency.ErrOtherRequest) {
				t.Errorf("meanwhile, another request: %v", err)
			}
			if _, err := keys.Do(ctx, "another key", request, "two", m.work); err != nil {
				t.Errorf("meanwhile, another key: %v", err)
			}
		}
		return m.work(ctx, subject)
	})
	if err != nil || len(m) != 2 {
		t.Errorf("worked on %v, %v", m, err)
	}
}
