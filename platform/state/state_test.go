package state_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waybill/platform/health"
	"waybill/platform/internal/fakedapr"
	"waybill/platform/state"
	"waybill/platform/state/statetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	t.Parallel()
	statetest.Run(t, func(*testing.T) state.Store { return state.NewMemory() })
}

func TestDapr(t *testing.T) {
	t.Parallel()
	statetest.Run(t, func(t *testing.T) state.Store {
		t.Helper()
		return state.NewDapr(new(fakedapr.Server).Client(t), "statestore")
	})
}

func TestMemoryTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := state.NewMemory()
		if err := m.Create(t.Context(), "k", 1, state.TTL(1500*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		var n int
		time.Sleep(2*time.Second - time.Nanosecond)
		if _, err := m.Get(t.Context(), "k", &n); err != nil {
			t.Errorf("just before it expires, rounded up to whole seconds: %v", err)
		}
		time.Sleep(time.Nanosecond)
		if _, err := m.Get(t.Context(), "k", &n); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("when it has expired: %v", err)
		}
	})
}

func TestMemoryDoesNotShareItsDocuments(t *testing.T) {
	t.Parallel()
	m := state.NewMemory()
	if err := m.Create(t.Context(), "k", "text"); err != nil {
		t.Fatal(err)
	}
	found, err := m.GetMany(t.Context(), []string{"k"})
	if err != nil {
		t.Fatal(err)
	}
	found["k"][1] = 'X'
	var text string
	if _, err := m.Get(t.Context(), "k", &text); err != nil || text != "text" {
		t.Errorf("the store now has %q, %v", text, err)
	}
}

func TestDaprErrors(t *testing.T) {
	t.Parallel()
	answers := []struct {
		answer error
		want   error
	}{
		{status.Error(codes.Aborted, "failed saving state: possible etag mismatch. error from state store"), state.ErrConflict},
		{status.Error(codes.Internal, "possible etag mismatch. error from state store"), state.ErrConflict},
		{status.Error(codes.InvalidArgument, "failed saving state: invalid etag value: strconv.ParseUint"), state.ErrConflict},
		{status.Error(codes.Unavailable, "connection refused"), state.ErrUnavailable},
		{status.Error(codes.Internal, "database is locked"), state.ErrUnavailable},
		{status.Error(codes.FailedPrecondition, "state store is not configured"), state.ErrUnavailable},
		{status.Error(codes.InvalidArgument, "state store statestore is not found"), state.ErrUnavailable},
		{status.Error(codes.DeadlineExceeded, "too slow"), state.ErrUnavailable},
		{status.Error(codes.PermissionDenied, "not this app"), state.ErrInvalid},
		{status.Error(codes.Unimplemented, "no such method"), state.ErrInvalid},
	}
	for _, a := range answers {
		t.Run(status.Convert(a.answer).Message(), func(t *testing.T) {
			t.Parallel()
			var server fakedapr.Server
			server.Fail(func(context.Context, fakedapr.Call) error { return a.answer })
			s := state.NewDapr(server.Client(t), "statestore")
			var d any
			_, read := s.Get(t.Context(), "k", &d)
			_, readMany := s.GetMany(t.Context(), []string{"k"})
			for what, err := range map[string]error{
				"read": read, "read many": readMany, "create": s.Create(t.Context(), "k", 1),
				"replace": s.Replace(t.Context(), "k", 1, "1"),
			} {
				if !errors.Is(err, a.want) {
					t.Errorf("%s: %v, want %v", what, err, a.want)
				}
			}
		})
	}
}

func TestWritable(t *testing.T) {
	t.Parallel()
	var server fakedapr.Server
	s := state.NewDapr(server.Client(t), "statestore")
	for range 100 {
		if err := s.Writable(t.Context()); err != nil {
			t.Fatalf("an empty store: %v", err)
		}
	}
	if n := len(server.Calls("SaveState")); n != 1 {
		t.Errorf("%d writes for 100 checks on an idle service, want 1", n)
	}
}

// Writable detects a store that can be read but not written, such as one on a full disk.
func TestWritableDetectsAReadOnlyStore(t *testing.T) {
	t.Parallel()
	var server fakedapr.Server
	s := state.NewDapr(server.Client(t), "statestore")
	var d any
	if err := s.Create(t.Context(), "k", 1); err != nil {
		t.Fatal(err)
	}
	server.Fail(func(_ context.Context, c fakedapr.Call) error {
		if c.Method == "SaveState" {
			return status.Error(codes.Internal, "failed saving state: database or disk is full (13)")
		}
		return nil
	})
	if _, err := s.Get(t.Context(), "k", &d); err != nil {
		t.Errorf("reading: %v", err)
	}
	if err := s.Create(t.Context(), "other", 1); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("writing: %v", err)
	}
	if err := s.Writable(t.Context()); health.Cause(err) != health.DiskFull {
		t.Errorf("Writable returned %v", err)
	}
	server.Fail(nil)
	if err := s.Create(t.Context(), "third", 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Writable(t.Context()); err != nil {
		t.Errorf("after a write that succeeded: %v", err)
	}
}

// Neither a conflict nor a caller that gives up says anything about the store.
func TestWritableIgnoresConflictsAndCancelledCallers(t *testing.T) {
	t.Parallel()
	var server fakedapr.Server
	s := state.NewDapr(server.Client(t), "statestore")
	if err := s.Create(t.Context(), "k", 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(t.Context(), "k", 2); !errors.Is(err, state.ErrConflict) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Create(ctx, "other", 1); err == nil {
		t.Fatal("a write of a cancelled caller succeeded")
	}
	before := len(server.Calls("SaveState"))
	if err := s.Writable(t.Context()); err != nil || len(server.Calls("SaveState")) != before {
		t.Errorf("%v after %d probe writes", err, len(server.Calls("SaveState"))-before)
	}
}

func TestUpdateGivesUp(t *testing.T) {
	t.Parallel()
	var server fakedapr.Server
	server.Fail(func(_ context.Context, c fakedapr.Call) error {
		if c.Method == "SaveState" {
			return status.Error(codes.Aborted, "possible etag mismatch")
		}
		return nil
	})
	s := state.NewDapr(server.Client(t), "statestore")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := state.Update(ctx, s, "k", func(*int, bool) error { return nil })
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("endless conflicts and a deadline: %v", err)
	}
	_, err = state.Update(t.Context(), s, "k", func(*int, bool) error { return nil })
	if !errors.Is(err, state.ErrConflict) {
		t.Errorf("endless conflicts: %v", err)
	}
}

func TestEachWriteDecidesTheTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := state.NewMemory()
		there := func(key string, want bool) {
			t.Helper()
			var doc int
			if _, err := m.Get(t.Context(), key, &doc); (err == nil) != want {
				t.Errorf("%s: %v", key, err)
			}
		}
		// Only the second write sets a TTL.
		count := func(key string) {
			t.Helper()
			var ttl time.Duration
			_, err := state.Update(t.Context(), m, key, func(n *int, _ bool) error {
				*n++
				if ttl = 0; *n == 2 {
					ttl = time.Minute
				}
				return nil
			}, state.TTLFunc(func() time.Duration { return ttl }))
			if err != nil {
				t.Fatal(err)
			}
		}
		count("a")
		time.Sleep(time.Hour)
		there("a", true)
		count("a")
		time.Sleep(time.Minute)
		there("a", false)

		s := state.NewExpiring(m, time.Minute, func(key string) bool { return key != "kept" })
		for _, key := range []string{"kept", "expired", "longer"} {
			var options []state.Option
			if key == "longer" {
				options = append(options, state.TTL(time.Hour))
			}
			if err := s.Create(t.Context(), key, 1, options...); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		there("kept", true)
		there("expired", false)
		there("longer", true)
		var n int
		etag, err := s.Get(t.Context(), "kept", &n)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Replace(t.Context(), "kept", 2, etag); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Minute)
		there("kept", true)
		there("longer", false)
		if same := state.NewExpiring(m, 0, nil); same != state.Store(m) {
			t.Error("a TTL of 0 returned another store")
		}
	})
}
