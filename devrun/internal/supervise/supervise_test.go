//go:build unix

package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"waybill/devrun/internal/child"
)

// TestMain runs the test program also as the supervised process: a small server whose behavior WAYBILL_CHILD selects.
func TestMain(m *testing.M) {
	switch os.Getenv("WAYBILL_CHILD") {
	case "":
		os.Exit(m.Run())
	case "serve":
		serve()
	case "serve stubbornly":
		signal.Ignore(syscall.SIGTERM)
		serve()
	case "fail":
		fmt.Fprintln(os.Stderr, "panic: no such luck")
		os.Exit(3)
	}
}

func serve() {
	l, err := net.Listen("tcp", os.Getenv("WAYBILL_ADDR"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	err = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, os.Getpid())
	}))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

type report struct {
	mu      sync.Mutex
	died    []string
	stopped map[string]bool // name → killed
	said    []string        // reported waits
}

func (r *report) sayf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

func (r *report) heard(what string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.said, func(s string) bool { return strings.Contains(s, what) })
}

func (r *report) NotReady(name string, _ time.Duration, why error) {
	r.sayf("%s is not ready: %v", name, why)
}
func (r *report) Lost(name string, why error)           { r.sayf("%s is lost: %v", name, why) }
func (r *report) Regained(name string, _ time.Duration) { r.sayf("%s is regained", name) }

func (r *report) Stopping(name string, _, within time.Duration) {
	r.sayf("%s is stopping, within %s", name, within)
}

func (r *report) Ready(string, time.Duration) {}
func (r *report) Changed()                    {}

func (r *report) Died(name string, _ int, why, lastLine string, _ time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.died = append(r.died, name+": "+why+": "+lastLine)
}

func (r *report) Stopped(name string, _ time.Duration, killed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped[name] = killed
}

func (r *report) deaths() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.died...)
}

func newSupervisor(t *testing.T) (*Supervisor, *report) {
	t.Helper()
	starter := child.NewStarter()
	r := &report{stopped: map[string]bool{}}
	s := New(starter, r, Timing{
		FirstPause: time.Millisecond, LongestPause: 5 * time.Millisecond, Poll: time.Millisecond, PollReady: 10 * time.Millisecond,
		ReportAfter: 20 * time.Millisecond, ReportAgain: 20 * time.Millisecond,
	})
	t.Cleanup(func() {
		s.Kill()
		s.Wait()
		starter.Close()
	})
	return s, r
}

func spec(t *testing.T, name, behaviour string) Spec {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	return Spec{
		Name: name, Kind: "test", Path: self,
		Env:    append(os.Environ(), "WAYBILL_CHILD="+behaviour, "WAYBILL_ADDR="+addr),
		Stdout: io.Discard, Stderr: io.Discard,
		Ready: func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr, nil)
			if err != nil {
				return err
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			return resp.Body.Close()
		},
		StopWithin: 10 * time.Second,
	}
}

// eventually polls until ok returns true, and fails the test when it never does.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("never happened: %s", what)
		}
	}
}

func waitReady(t *testing.T, s *Supervisor) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestAKilledProcessIsStartedAgain(t *testing.T) {
	t.Parallel()
	s, r := newSupervisor(t)
	s.Start(spec(t, "server", "serve"))
	waitReady(t, s)

	first := s.Statuses()[0]
	if first.PID == 0 || !first.Ready || first.Restarts != 0 {
		t.Fatalf("after the start: %+v", first)
	}
	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ready in a second life", func() bool {
		now := s.Statuses()[0]
		return now.Ready && now.PID != first.PID && now.Restarts == 1
	})
	if died := r.deaths(); len(died) != 1 || !strings.Contains(died[0], "server: killed by signal 9") {
		t.Errorf("reported deaths: %q", died)
	}
}

func TestAFailingProcessIsReportedWithItsLastLine(t *testing.T) {
	t.Parallel()
	s, r := newSupervisor(t)
	failing := spec(t, "failing", "fail")
	failing.LastLine = func() string { return "panic: no such luck" }
	s.Start(failing)
	eventually(t, "third death", func() bool { return len(r.deaths()) >= 3 })
	if got, want := r.deaths()[0], "failing: ended with code 3: panic: no such luck"; got != want {
		t.Errorf("reported %q, want %q", got, want)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough waited")
	cancel(cause)
	if err := s.WaitReady(ctx); !errors.Is(err, cause) || !strings.Contains(err.Error(), "failing: ") {
		t.Errorf("waiting for it: %v", err)
	}

	// The wait for a process that cannot start ends.
	err := s.WaitReady(t.Context())
	if err == nil || !strings.Contains(err.Error(), "failing started") || !strings.Contains(err.Error(), "last output: panic: no such luck") {
		t.Errorf("waiting for it for ever: %v", err)
	}
}

func TestAMissingProgramIsReported(t *testing.T) {
	t.Parallel()
	s, r := newSupervisor(t)
	s.Start(Spec{Name: "ghost", Path: "/does/not/exist", Stdout: io.Discard, Stderr: io.Discard})
	eventually(t, "a report", func() bool { return len(r.deaths()) > 0 })
	if got := r.deaths()[0]; !strings.Contains(got, "ghost: cannot start") {
		t.Errorf("reported %q", got)
	}
}

func TestStopEndsProcessesForGood(t *testing.T) {
	t.Parallel()
	s, r := newSupervisor(t)
	s.Start(spec(t, "meek", "serve"))
	stubborn := spec(t, "stubborn", "serve stubbornly")
	stubborn.StopWithin = 50 * time.Millisecond
	s.Start(stubborn)
	waitReady(t, s)
	pids := []int{s.Statuses()[0].PID, s.Statuses()[1].PID}

	s.Stop()
	s.Wait()
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d: %v, want ESRCH", pid, err)
		}
	}
	if killed, ok := r.stopped["meek"]; !ok || killed {
		t.Error("meek should have stopped when asked")
	}
	if !r.stopped["stubborn"] {
		t.Error("stubborn should have been killed")
	}
	if len(r.deaths()) > 0 {
		t.Errorf("stopping was reported as dying: %q", r.deaths())
	}
}

func TestKillDoesNotWaitForAnyProcess(t *testing.T) {
	t.Parallel()
	s, r := newSupervisor(t)
	stubborn := spec(t, "stubborn", "serve stubbornly")
	stubborn.StopWithin = time.Hour
	s.Start(stubborn)
	waitReady(t, s)
	s.Kill()
	s.Wait()
	if !r.stopped["stubborn"] {
		t.Error("stubborn should have been killed")
	}
}

// The supervisor reports a process that does not get ready, one that no longer is ready, and one that does not stop.
func TestWaitsAreReported(t *testing.T) {
	t.Parallel()
	s, r := newSupervisor(t)
	p := spec(t, "waiting", "serve stubbornly")
	p.StopWithin = 100 * time.Millisecond
	answers := p.Ready
	var fault atomic.Pointer[error]
	set := func(text string) { fault.Store(new(errors.New(text))) }
	set("its disk is full")
	p.Ready = func(ctx context.Context) error {
		if err := fault.Load(); err != nil {
			return *err
		}
		return answers(ctx)
	}
	s.Start(p)
	eventually(t, "said that it does not get ready", func() bool { return r.heard("waiting is not ready: its disk is full") })
	fault.Store(nil)
	waitReady(t, s)
	set("it hangs")
	eventually(t, "said that it is lost", func() bool { return r.heard("waiting is lost: it hangs") })
	eventually(t, "said that it is still not ready", func() bool { return r.heard("waiting is not ready: it hangs") })
	fault.Store(nil)
	eventually(t, "said that it is regained", func() bool { return r.heard("waiting is regained") })
	s.Stop("waiting")
	if !r.heard("waiting is stopping, within 100ms") {
		t.Error("the process did not stop for 100 ms, and that was not reported")
	}
}
