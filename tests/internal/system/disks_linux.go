package system

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// diskMB is the size of the disk of each process that keeps data.
var diskMB = map[string]int{"orders-sidecar": 64, "fulfillment-sidecar": 64, "notifications-sidecar": 64, "scheduler": 320, "broker": 96}

// StartOnDisks is Start with a small disk of its own for each process that stores data. The disks are mounted in a user
// namespace, which needs no privileges; ErrNoDisks means that this machine does not allow that.
func StartOnDisks(ctx context.Context, runner, data string, out io.Writer, environment ...string) (*System, error) {
	top, err := Root()
	if err != nil {
		return nil, err
	}
	mount := []string{"set -e"}
	for name, mb := range diskMB {
		if err := os.MkdirAll(disk(data, name), 0o750); err != nil {
			return nil, err
		}
		mount = append(mount, fmt.Sprintf("mount -t tmpfs -o size=%dm none '%s'", mb, disk(data, name)))
	}
	if err := os.MkdirAll(filepath.Join(data, "state"), 0o750); err != nil {
		return nil, err
	}
	for _, app := range []string{"orders", "fulfillment", "notifications"} {
		for _, store := range []string{"statestore", "workflowstore"} {
			file := app + "." + store + ".db"
			if err := os.Symlink(filepath.Join(disk(data, app+"-sidecar"), file), filepath.Join(data, "state", file)); err != nil {
				return nil, err
			}
		}
	}
	inNamespace := func(script string, args ...string) *System {
		cmd := command(context.Background(), "sh", append([]string{"-c", script, "sh"}, args...)...)
		cmd.Dir = top
		cmd.Env = append(os.Environ(), environment...)
		cmd.Stdout, cmd.Stderr = out, out
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Setpgid: true, Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		return &System{runner: cmd}
	}
	script := strings.Join(mount, "\n") + "\n"
	if err := inNamespace(script).runner.Run(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoDisks, err)
	}
	return start(ctx, inNamespace(script+`exec "$@"`+"\n", runner, "up", "--free-ports", "--data", data).runner, data)
}

// ErrNoDisks means that file systems cannot be mounted here.
var ErrNoDisks = errors.New("no disks can be mounted in a user namespace")

func disk(data, process string) string {
	if process == "scheduler" || process == "broker" {
		return filepath.Join(data, process)
	}
	return filepath.Join(data, "disks", process)
}

// HasDisk reports whether StartOnDisks gives the process a disk.
func HasDisk(process string) bool { return diskMB[process] > 0 }

// Fill keeps the disk of a process full until during returns, and returns when everything is ready again. Ended is the time at
// which there was space again.
func (s *System) Fill(ctx context.Context, process string, during func(ctx context.Context) error) (ended time.Time, err error) {
	path := filepath.Join("/proc", strconv.Itoa(s.PID()), "root", disk(s.Data, process), "fill")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600) //nolint:gosec // a disk that StartOnDisks mounted
	if err != nil {
		return time.Time{}, err
	}
	fill := func() error {
		for size := 1 << 20; size > 0; {
			if _, err := file.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
				size /= 4
			} else if err != nil {
				return err
			}
		}
		return nil
	}
	err = fill()
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	over := make(chan error, 1)
	go func() { over <- during(watching) }() // owned: the loop ends when it has ended
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for full := true; full; {
		if err != nil {
			cancel()
		}
		select {
		case <-again.C: // what the process gave back is taken at once
			err = errors.Join(err, fill())
		case watched := <-over:
			err, full = errors.Join(err, watched), false
		}
	}
	ended = time.Now()
	if err := errors.Join(err, file.Close(), os.Remove(path)); err != nil {
		return ended, err
	}
	return ended, s.WaitAnswering(ctx)
}
