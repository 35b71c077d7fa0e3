//go:build unix && !linux

package child

import (
	"os/exec"
	"syscall"
)

func bind(cmd *exec.Cmd, _ bool) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}
