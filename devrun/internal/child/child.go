// Package child starts child processes that never outlive the runner, in process groups of their own, so that a Ctrl-C in
// the terminal reaches the runner alone and the runner decides who stops when.
package child

import (
	"context"
	"os/exec"
	"runtime"
	"sync"
)

// Starter starts processes from one OS thread that lives until Close. Linux delivers a parent-death signal when the
// starting thread ends, not when the parent does, so a process started from any goroutine could be killed by the Go
// scheduler retiring a thread.
type Starter struct {
	requests chan request
	owner    sync.WaitGroup
}

type request struct {
	cmd *exec.Cmd
	err chan error
}

// NewStarter returns a Starter that must be closed, after every process it started has ended.
func NewStarter() *Starter {
	s := &Starter{requests: make(chan request)}
	s.owner.Go(func() {
		// Never unlocked: the thread ends with this goroutine, and nothing else runs on it.
		runtime.LockOSThread()
		for r := range s.requests {
			r.err <- r.cmd.Start()
		}
	})
	return s
}

// Command is exec.CommandContext. The runner creates every command with it.
func Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, name, args...) //nolint:gosec // to run what dapr.yaml names and what was built from it is what the runner is for
}

// Start is cmd.Start, with the process in its own group and bound to the runner's life. If the runner dies without stopping it,
// the process is killed or, if gently is set, gets SIGTERM. Systems other than Linux have no parent-death signal, so the binding
// is missing there.
func (s *Starter) Start(cmd *exec.Cmd, gently bool) error {
	bind(cmd, gently)
	r := request{cmd: cmd, err: make(chan error, 1)}
	s.requests <- r
	return <-r.err
}

// Close ends the starting thread. No Start may follow.
func (s *Starter) Close() {
	close(s.requests)
	s.owner.Wait()
}
