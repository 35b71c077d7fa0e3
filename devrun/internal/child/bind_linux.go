package child

import (
	"os/exec"
	"syscall"
)

func bind(cmd *exec.Cmd, gently bool) {
	signal := syscall.SIGKILL
	if gently {
		signal = syscall.SIGTERM
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: signal}
}
