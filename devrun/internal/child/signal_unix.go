//go:build unix

package child

import (
	"os"
	"syscall"
)

// Terminate asks the process and everything in its group to stop.
func Terminate(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGTERM) }

// Kill ends the process and everything in its group at once.
func Kill(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGKILL) }
