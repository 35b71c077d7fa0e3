package health_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waybill/platform/health"
)

var errFull = errors.New("database or disk is full (13)")

// disk is something that can be tried, and that counts the trials.
type disk struct {
	trials atomic.Int32
	full   atomic.Bool
}

func (d *disk) try(context.Context) error {
	d.trials.Add(1)
	if d.full.Load() {
		return errFull
	}
	return nil
}

func TestAnIdleProbeTriesSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d disk
		p := health.NewProbe(d.try)
		var asking sync.WaitGroup
		for range 8 {
			asking.Go(func() {
				for range 6000 {
					if err := p.Check(t.Context()); err != nil {
						t.Error(err)
					}
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		asking.Wait()
		if n := d.trials.Load(); n < 5 || n > 7 {
			t.Errorf("%d trials in a minute with 800 questions a second, want 6", n)
		}
	})
}

func TestARecentUseIsProofEnough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d disk
		p := health.NewProbe(d.try)
		for range 60 {
			p.Used(nil)
			if err := p.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if n := d.trials.Load(); n != 0 {
			t.Errorf("%d trials although it is used every second", n)
		}
	})
}

// A trial is small and may succeed on a disk that is nearly full; the real uses fail there.
func TestTheLastUseDecides(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d disk
		p := health.NewProbe(d.try)
		if err := p.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 60 {
			p.Used(errFull)
			if err := p.Check(t.Context()); !errors.Is(err, errFull) {
				t.Fatalf("all uses fail, and the answer is %v", err)
			}
			time.Sleep(time.Second)
		}
		p.Used(nil)
		if err := p.Check(t.Context()); err != nil {
			t.Errorf("after a successful use: %v", err)
		}
		p.Used(errFull)
		time.Sleep(10 * time.Second)
		if err := p.Check(t.Context()); err != nil {
			t.Errorf("ten seconds after the last use, which failed, the trial decides: %v", err)
		}
	})
}

func TestAFailureIsTriedAgainSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d disk
		d.full.Store(true)
		p := health.NewProbe(d.try)
		for range 200 {
			if err := p.Check(t.Context()); !errors.Is(err, errFull) {
				t.Fatalf("a full disk is answered %v", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := d.trials.Load(); n < 9 || n > 11 {
			t.Errorf("%d trials in 20 s of a full disk, want 10", n)
		}
		d.full.Store(false)
		time.Sleep(2 * time.Second)
		if err := p.Check(t.Context()); err != nil {
			t.Errorf("with space again: %v", err)
		}
	})
}

func TestAHangingTrialEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := health.NewProbe(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		var asking sync.WaitGroup
		begun := time.Now()
		for range 10 {
			asking.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := p.Check(ctx); health.Cause(err) != health.Timeout {
					t.Errorf("it hangs, and the answer is %v", err)
				}
			})
		}
		asking.Wait()
		if took := time.Since(begun); took != time.Second {
			t.Errorf("the answers took %s", took)
		}
	})
}

func TestACallerThatLeavesSaysNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d disk
		hang := make(chan struct{})
		p := health.NewProbe(func(ctx context.Context) error {
			select {
			case <-hang:
				return d.try(ctx)
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		ctx, leave := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		asking.Go(func() { _ = p.Check(ctx) })
		synctest.Wait()
		leave()
		asking.Wait()
		close(hang)
		if err := p.Check(t.Context()); err != nil {
			t.Errorf("the next caller got %v", err)
		}
	})
}

func TestCauses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err   error
		cause string
	}{
		{status.Error(codes.Internal, "failed saving state: database or disk is full (13)"), health.DiskFull},
		{&fs.PathError{Op: "write", Path: "/secret/path", Err: syscall.ENOSPC}, health.DiskFull},
		{fmt.Errorf("save: %w", status.Error(codes.Internal, "ERROR: could not extend file: No space left on device (SQLSTATE 53100)")), health.DiskFull},
		{status.Error(codes.Internal, "attempt to write a readonly database (8)"), health.ReadOnly},
		{status.Error(codes.Internal, "cannot execute INSERT in a read-only transaction (SQLSTATE 25006)"), health.ReadOnly},
		{&fs.PathError{Op: "open", Path: "/secret/path", Err: syscall.EROFS}, health.ReadOnly},
		{errors.New("disk I/O error (4874)"), health.DiskError},
		{context.DeadlineExceeded, health.Timeout},
		{status.Error(codes.DeadlineExceeded, "slow"), health.Timeout},
		{status.Error(codes.Unavailable, "the connection is draining"), health.Unreachable},
		{errors.New("something else at /secret/path"), health.Other},
	} {
		if got := health.Cause(c.err); got != c.cause {
			t.Errorf("%v: %s, want %s", c.err, got, c.cause)
		}
		if reason := health.Reason(c.err); reason == "" || strings.Contains(reason, "secret") {
			t.Errorf("%v: the reason is %q", c.err, reason)
		}
	}
	if got := health.Reason(fmt.Errorf("wrapped: %w", health.Explain(errFull, "the windows are being made"))); got != "the windows are being made" {
		t.Errorf("an explained error's reason is %q", got)
	}
	if health.Explain(nil, "no fault") != nil {
		t.Error("no error became one")
	}
}
