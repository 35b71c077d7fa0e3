// Package supervise keeps child processes running: it starts them, finds out when they are ready, restarts the ones that
// die, and stops them in order. It knows nothing of what they do.
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

// Spec says how to run a process and how to see that it is ready.
type Spec struct {
	Name string
	Kind string
	Path string
	Args []string
	Dir  string
	Env  []string // the whole environment

	Stdout, Stderr io.Writer
	// LastLine, if set, is asked why the process ended.
	LastLine func() string
	// Ready answers nil when the process can do its work. It is asked again and again, also after the first nil.
	Ready func(ctx context.Context) error
	// Gently is for a process that pays dearly for SIGKILL: when the runner dies it gets SIGTERM instead, and Kill gives it
	// half a second to follow one.
	Gently bool
	// StopWithin is how long it may take to stop before it is killed.
	StopWithin time.Duration
}

// Status is what is known about a process.
type Status struct {
	Name     string
	Kind     string
	PID      int // 0 while it is not running
	Ready    bool
	Restarts int
}

// Reporter is told what happens, from several goroutines.
type Reporter interface {
	// Ready: the process can do its work, took after its start.
	Ready(name string, took time.Duration)
	// Died: the process ended unasked, and will be started again after the pause.
	Died(name string, pid int, why, lastLine string, pause time.Duration)
	// NotReady: the process has not been able to do its work for some time, and why; told again and again, less and less often.
	NotReady(name string, waited time.Duration, why error)
	// Lost: the process could do its work and no longer can.
	Lost(name string, why error)
	// Regained: the process can do its work again, so long after Lost.
	Regained(name string, after time.Duration)
	// Stopping: the process was asked to stop some time ago and runs still; after within it is killed.
	Stopping(name string, waited, within time.Duration)
	// Stopped: the process ended because it was asked to; killed if it did not in time.
	Stopped(name string, took time.Duration, killed bool)
	// Changed: Statuses would now answer something else.
	Changed()
}

// Timing of the supervisor; New sets what is not set.
type Timing struct {
	FirstPause   time.Duration // before the first restart; doubles with each
	LongestPause time.Duration
	Forgive      time.Duration // ready for this long, and the pause starts afresh
	Ask          time.Duration // between questions until a process is ready
	AskAgain     time.Duration // between questions afterwards
	Speak        time.Duration // a wait that is longer is reported
	SpeakAgain   time.Duration // and again after so long, then after twice as long
	Hopeless     int           // ended so often without having been ready once, it will not become ready by being started again
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
	set(&timing.Forgive, 10*time.Second)
	set(&timing.Ask, 50*time.Millisecond)
	set(&timing.AskAgain, 2*time.Second)
	set(&timing.Speak, 3*time.Second)
	set(&timing.SpeakAgain, 10*time.Second)
	if timing.Hopeless == 0 {
		timing.Hopeless = 5
	}
	return &Supervisor{starter: starter, reporter: reporter, timing: timing}
}

// process is one supervised child over all its lives.
type process struct {
	spec Spec
	// stop is closed to ask it to end for good, done when it has.
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
	trouble  error // why it was not ready when last asked
	failures int   // lives in a row that ended before it was ready
	failed   death // the last of them
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

// WaitReady waits until every named process (all of them if none is named) is ready at the same time. If ctx ends first,
// or one of them ends again and again without getting ready, the error says which are not, and why.
func (s *Supervisor) WaitReady(ctx context.Context, names ...string) error {
	tick := time.NewTicker(s.timing.Ask)
	defer tick.Stop()
	for {
		var waiting, hopeless []error
		for _, p := range s.named(names) {
			p.mu.Lock()
			if p.failures >= s.timing.Hopeless {
				hopeless = append(hopeless, fmt.Errorf("%s was started %d times and each time ended before it was ready: %s",
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
		if len(hopeless) > 0 {
			return errors.Join(hopeless...)
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

// Stop stops the named processes (all of them if none is named) side by side and returns when they have ended.
func (s *Supervisor) Stop(names ...string) {
	procs := s.named(names)
	for _, p := range procs {
		p.stopOnce.Do(func() { close(p.stop) })
	}
	for _, p := range procs {
		<-p.done
	}
}

// Kill ends every process at once. It does not wait; Wait does.
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

// run is the process's whole story: start, wait for the end, pause, start again.
func (s *Supervisor) run(p *process) {
	pause := s.timing.FirstPause
	for {
		lived, stopped, end := s.live(p)
		if stopped {
			return
		}
		if lived >= s.timing.Forgive {
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
	return d.why + "; it said: " + d.lastLine
}

// live is one life of the process: for how long it was ready, whether it ended because it was asked to, and else why.
func (s *Supervisor) live(p *process) (lived time.Duration, stopped bool, end death) {
	cmd := child.Command(context.Background(), p.spec.Path, p.spec.Args...)
	cmd.Dir, cmd.Env = p.spec.Dir, p.spec.Env
	cmd.Stdout, cmd.Stderr = p.spec.Stdout, p.spec.Stderr
	// A grandchild that keeps the output open must not keep a dead process alive.
	cmd.WaitDelay = time.Second
	began := time.Now()
	if err := s.starter.Start(cmd, p.spec.Gently); err != nil {
		p.note(0, false, err)
		return 0, false, death{why: "cannot be started: " + err.Error()}
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
		// Who was killed from outside had nothing to say about it.
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

// end asks the process to stop and kills it when it does not.
func (s *Supervisor) end(p *process, cmd *exec.Cmd, exited <-chan struct{}) (took time.Duration, killed bool) {
	began := time.Now()
	within := p.spec.StopWithin
	if within == 0 {
		within = 10 * time.Second
	}
	// An error means that it is gone already.
	_ = child.Terminate(cmd.Process)
	late, slow := time.NewTimer(within), time.NewTimer(s.timing.Speak)
	defer late.Stop()
	defer slow.Stop()
	for waiting := true; waiting; {
		select {
		case <-exited:
			// What it may have left in its group goes with it.
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

// gentleKill is the last chance of a process that pays dearly for SIGKILL.
const gentleKill = 500 * time.Millisecond

// watch asks whether the process, started at began, is ready until ctx ends, and calls first when it is for the first time.
// One unanswered question does not make a ready process unready, three in a row do.
func (s *Supervisor) watch(ctx context.Context, p *process, began time.Time, first func()) {
	const enough = 3
	wasReady, failures := false, 0
	waits, speak := began, s.timing.Speak // since when it is not ready, and after how long that is said
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
			s.reporter.Regained(p.spec.Name, time.Since(waits))
		case changed:
			s.reporter.Changed()
			waits, speak = time.Now(), s.timing.SpeakAgain
			s.reporter.Lost(p.spec.Name, err)
		case !ready && time.Since(waits) >= speak:
			s.reporter.NotReady(p.spec.Name, time.Since(waits), err)
			speak = max(s.timing.SpeakAgain, 2*speak)
		}
		wait := s.timing.Ask
		switch {
		case err == nil:
			wait = s.timing.AskAgain
		case wasReady:
			wait = s.timing.AskAgain / 4
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

// readiness records whether a running process is ready, and reports whether that is news.
func (p *process) readiness(ready bool, trouble error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid == 0 {
		return false
	}
	p.trouble = trouble
	news := p.ready != ready
	p.ready = ready
	return news
}

func signaled(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled()
}

// reason says in words how a process ended.
func reason(err error) string {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "ended by itself, with code 0"
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
