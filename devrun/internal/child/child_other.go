//go:build !unix

package child

import (
	"os"
	"os/exec"
)

func bind(*exec.Cmd, bool) {}

// Terminate ends the process at once: this system has no request to stop.
func Terminate(p *os.Process) error { return p.Kill() }

// Kill ends the process at once.
func Kill(p *os.Process) error { return p.Kill() }
