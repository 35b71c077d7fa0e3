// Package supervise keeps child processes running: it starts them, checks when they are ready, restarts those that end, and stops
// them in order. It does not know what they do.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"waybill/devrun/internal/child"
)

// Spec describes how to run a process and how to check that it is ready.
type Spec struct {
	Name string
	Kind string
	Path string
	Args []string
	Dir  string
	Env  []string // the whole environment

	Stdout, Stderr io.Writer
	// LastLine, if set, returns the output line that explains why the process ended.
	LastLine func() string
	// Ready returns nil when the process can do its work. It is called repeatedly, also after the first nil.
	Ready func(ctx context.Context) error
	// Gently is for a process that loses much by SIGKILL: it gets SIGTERM instead when the runner dies, and Kill waits half a
	// second for it to end after SIGTERM.
	Gently bool
	// StopWithin is the time after which a process that does not stop is killed.
	StopWithin time.Duration
}

// Status is the state of a process.
type Status struct {
	Name     string
	Kind     string
	PID      int // 0 while it is not running
	Ready    bool
	Restarts int
}

// Reporter receives what happens. Its methods are called from several goroutines.
type Reporter interface {
	// Ready: the process can do its work, took after its start.
	Ready(name string, took time.Duration)
	// Died: the process ended without a request and starts again after the pause.
	Died(name string, pid int, why, lastLine string, pause time.Duration)
	// NotReady: the process has not been ready for some time, and why. It is repeated with growing pauses.
	NotReady(name string, waited time.Duration, why error)
	// Lost: the process was ready and no longer is.
	Lost(name string, why error)
	// Regained: the process is ready again, after this time since Lost.
	Regained(name string, after time.Duration)
	// Stopping: the process still runs some time after the request to stop. After within it is killed.
	Stopping(name string, waited, within time.Duration)
	// Stopped: the process ended on request; killed reports that it did not end in time.
	Stopped(name string, took time.Duration, killed bool)
	// Changed: Statuses returns something else now.
	Changed()
}

// Timing of the supervisor. New replaces zero values by defaults.
type Timing struct {
	FirstPause      time.Duration // before the first restart; it doubles with each
	LongestPause    time.Duration
	ResetAfter      time.Duration // a process that was ready for this long restarts after FirstPause again
	Poll            time.Duration // interval of readiness checks until a process is ready
	PollReady       time.Duration // interval of readiness checks after that
	ReportAfter     time.Duration // a longer wait is reported
	ReportAgain     time.Duration // and reported again after this time, which then doubles
	MaxFailedStarts int           // after this many starts in a row that never became ready, WaitReady gives up
}

// Supervisor owns a set of processes. Its methods are safe for concurrent use.
type Supervisor struct {
	starter  *child.Starter
	reporter Reporter
	timing   Timing

	mu    sync.Mutex
	procs []*process
	tasks sync.WaitGroup
}

// New returns a supervisor that starts its processes through starter.
func New(starter *child.Starter, reporter Reporter, timing Timing) *Supervisor {
	set := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	set(&timing.FirstPause, 250*time.Millisecond)
	set(&timing.LongestPause, 5*time.Second)
	set(&timing.ResetAfter, 10*time.Second)
	set(&timing.Poll, 50*time.Millisecond)
	set(&timing.PollReady, 2*time.Second)
	set(&timing.ReportAfter, 3*time.Second)
	set(&timing.ReportAgain, 10*time.Second)
	if timing.MaxFailedStarts == 0 {
		timing.MaxFailedStarts = 5
	}
	return &Supervisor{starter: starter, reporter: reporter, timing: timing}
}

// process is one supervised child with all its restarts.
type process struct {
	spec Spec
	// stop is closed to end it without a restart; done is closed when it has ended.
	stop     chan struct{}
	stopOnce sync.Once
	done     chan struct{}
	// kill is closed to end it at once.
	kill     chan struct{}
	killOnce sync.Once

	mu       sync.Mutex
	pid      int
	ready    bool
	restarts int
	trouble  error // the result of the last readiness check
	failures int   // starts in a row that ended before it was ready
	failed   death // how the last of them ended
}

// Start starts a process and keeps it running until Stop.
func (s *Supervisor) Start(spec Spec) {
	p := &process{spec: spec, stop: make(chan struct{}), done: make(chan struct{}), kill: make(chan struct{})}
	s.mu.Lock()
	s.procs = append(s.procs, p)
	s.mu.Unlock()
	s.tasks.Go(func() {
		defer close(p.done)
		s.run(p)
	})
}

// Statuses lists the processes in the order in which they were started.
func (s *Supervisor) Statuses() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Status, 0, len(s.procs))
	for _, p := range s.procs {
		p.mu.Lock()
		all = append(all, Status{Name: p.spec.Name, Kind: p.spec.Kind, PID: p.pid, Ready: p.ready, Restarts: p.restarts})
		p.mu.Unlock()
	}
	return all
}

// WaitReady waits until every named process (without names, all) is ready at the same time. It fails when ctx ends first or a
// process ends repeatedly without getting ready; the error says which are not ready, and why.
func (s *Supervisor) WaitReady(ctx context.Context, names ...string) error {
	tick := time.NewTicker(s.timing.Poll)
	defer tick.Stop()
	for {
		var waiting, failed []error
		for _, p := range s.named(names) {
			p.mu.Lock()
			if p.failures >= s.timing.MaxFailedStarts {
				failed = append(failed, fmt.Errorf("%s started %d times and ended each time before it was ready: %s",
					p.spec.Name, p.failures, p.failed))
			}
			if !p.ready {
				waiting = append(waiting, fmt.Errorf("%s: %w", p.spec.Name, orStarting(p.trouble)))
			}
			p.mu.Unlock()
		}
		if len(waiting) == 0 {
			return nil
		}
		if len(failed) > 0 {
			return errors.Join(failed...)
		}
		select {
		case <-ctx.Done():
			return errors.Join(append([]error{context.Cause(ctx)}, waiting...)...)
		case <-tick.C:
		}
	}
}

func orStarting(err error) error {
	if err == nil {
		return errors.New("starting")
	}
	return err
}

// Stop stops the named processes (without names, all) at the same time and returns when they have ended.
func (s *Supervisor) Stop(names ...string) {
	procs := s.named(names)
	for _, p := range procs {
		p.stopOnce.Do(func() { close(p.stop) })
	}
	for _, p := range procs {
		<-p.done
	}
}

// Kill ends every process immediately. It does not wait; Wait does.
func (s *Supervisor) Kill() {
	for _, p := range s.named(nil) {
		p.killOnce.Do(func() { close(p.kill) })
		p.stopOnce.Do(func() { close(p.stop) })
	}
}

// Wait returns when every process has been stopped and has ended.
func (s *Supervisor) Wait() { s.tasks.Wait() }

func (s *Supervisor) named(names []string) []*process {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(names) == 0 {
		return append([]*process(nil), s.procs...)
	}
	var found []*process
	for _, p := range s.procs {
		for _, name := range names {
			if p.spec.Name == name {
				found = append(found, p)
			}
		}
	}
	return found
}

// run starts the process, waits for its end, pauses, and starts it again, until it is stopped.
func (s *Supervisor) run(p *process) {
	pause := s.timing.FirstPause
	for {
		lived, stopped, end := s.live(p)
		if stopped {
			return
		}
		if lived >= s.timing.ResetAfter {
			pause = s.timing.FirstPause
		}
		p.mu.Lock()
		p.failures++
		if lived > 0 {
			p.failures = 0
		}
		p.failed = end
		p.mu.Unlock()
		s.reporter.Died(p.spec.Name, end.pid, end.why, end.lastLine, pause)
		s.reporter.Changed()
		select {
		case <-p.stop:
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, s.timing.LongestPause)
		p.mu.Lock()
		p.restarts++
		p.mu.Unlock()
	}
}

type death struct {
	pid      int
	why      string
	lastLine string
}

func (d death) String() string {
	if d.lastLine == "" {
		return d.why
	}
	return d.why + "; last output: " + d.lastLine
}

// live runs the process once. It returns for how long the process was ready, whether it was stopped, and otherwise how it ended.
func (s *Supervisor) live(p *process) (lived time.Duration, stopped bool, end death) {
	cmd := child.Command(context.Background(), p.spec.Path, p.spec.Args...)
	cmd.Dir, cmd.Env = p.spec.Dir, p.spec.Env
	cmd.Stdout, cmd.Stderr = p.spec.Stdout, p.spec.Stderr
	// A grandchild that keeps the output open must not delay the end of Wait.
	cmd.WaitDelay = time.Second
	began := time.Now()
	if err := s.starter.Start(cmd, p.spec.Gently); err != nil {
		p.note(0, false, err)
		return 0, false, death{why: "cannot start: " + err.Error()}
	}
	p.note(cmd.Process.Pid, false, nil)
	s.reporter.Changed()

	var exit error
	exited := make(chan struct{})
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() {
		exit = cmd.Wait()
		close(exited)
	})

	ctx, cancel := context.WithCancel(context.Background())
	var readySince time.Time
	var readyMu sync.Mutex
	tasks.Go(func() {
		s.watch(ctx, p, began, func() {
			readyMu.Lock()
			readySince = time.Now()
			readyMu.Unlock()
			s.reporter.Ready(p.spec.Name, time.Since(began))
		})
	})
	over := func() {
		cancel()
		p.note(0, false, nil)
		s.reporter.Changed()
	}

	select {
	case <-exited:
		over()
		readyMu.Lock()
		defer readyMu.Unlock()
		if !readySince.IsZero() {
			lived = time.Since(readySince)
		}
		end = death{pid: cmd.Process.Pid, why: reason(exit)}
		// A process that was killed from outside did not log the reason.
		if p.spec.LastLine != nil && !signaled(exit) {
			end.lastLine = p.spec.LastLine()
		}
		return lived, false, end
	case <-p.stop:
		cancel()
		took, killed := s.end(p, cmd, exited)
		over()
		s.reporter.Stopped(p.spec.Name, took, killed)
		return 0, true, death{}
	}
}

// end requests the process to stop and kills it when it does not.
func (s *Supervisor) end(p *process, cmd *exec.Cmd, exited <-chan struct{}) (took time.Duration, killed bool) {
	began := time.Now()
	within := p.spec.StopWithin
	if within == 0 {
		within = 10 * time.Second
	}
	// An error means that it has ended already.
	_ = child.Terminate(cmd.Process)
	late, slow := time.NewTimer(within), time.NewTimer(s.timing.ReportAfter)
	defer late.Stop()
	defer slow.Stop()
	for waiting := true; waiting; {
		select {
		case <-exited:
			// Kill also what may be left in its process group.
			_ = child.Kill(cmd.Process)
			return time.Since(began), false
		case <-slow.C:
			s.reporter.Stopping(p.spec.Name, time.Since(began), within)
		case <-late.C:
			waiting = false
		case <-p.kill:
			waiting = false
			if p.spec.Gently {
				select {
				case <-exited:
					return time.Since(began), false
				case <-time.After(gentleKill):
				}
			}
		}
	}
	_ = child.Kill(cmd.Process)
	<-exited
	return time.Since(began), true
}

// gentleKill is how long Kill waits for a process with Spec.Gently.
const gentleKill = 500 * time.Millisecond

// watch checks until ctx ends whether the process, started at began, is ready, and calls first when it is for the first time. A
// ready process becomes unready after three failed checks in a row.
func (s *Supervisor) watch(ctx context.Context, p *process, began time.Time, first func()) {
	const enough = 3
	wasReady, failures := false, 0
	unready, reportAfter := began, s.timing.ReportAfter // since when it is not ready, and the wait after which that is reported
	for {
		var err error
		if p.spec.Ready != nil {
			ask, cancel := context.WithTimeout(ctx, 2*time.Second)
			err = p.spec.Ready(ask)
			cancel()
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			failures = 0
		} else {
			failures++
		}
		ready := err == nil || p.isReady() && failures < enough
		switch changed := p.readiness(ready, err); {
		case changed && ready && !wasReady:
			s.reporter.Changed()
			wasReady = true
			first()
		case changed && ready:
			s.reporter.Changed()
			s.reporter.Regained(p.spec.Name, time.Since(unready))
		case changed:
			s.reporter.Changed()
			unready, reportAfter = time.Now(), s.timing.ReportAgain
			s.reporter.Lost(p.spec.Name, err)
		case !ready && time.Since(unready) >= reportAfter:
			s.reporter.NotReady(p.spec.Name, time.Since(unready), err)
			reportAfter = max(s.timing.ReportAgain, 2*reportAfter)
		}
		wait := s.timing.Poll
		switch {
		case err == nil:
			wait = s.timing.PollReady
		case wasReady:
			wait = s.timing.PollReady / 4
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (p *process) note(pid int, ready bool, trouble error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pid, p.ready, p.trouble = pid, ready, trouble
}

func (p *process) isReady() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ready
}

// readiness records whether a running process is ready, and reports whether that has changed.
func (p *process) readiness(ready bool, trouble error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid == 0 {
		return false
	}
	p.trouble = trouble
	changed := p.ready != ready
	p.ready = ready
	return changed
}

func signaled(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled()
}

// reason describes how a process ended.
func reason(err error) string {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "ended with code 0"
	case errors.As(err, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return fmt.Sprintf("killed by signal %d (%s)", status.Signal(), status.Signal())
		}
		return fmt.Sprintf("ended with code %d", exit.ExitCode())
	case errors.Is(err, os.ErrProcessDone), errors.Is(err, exec.ErrWaitDelay):
		return "ended"
	default:
		return err.Error()
	}
}
