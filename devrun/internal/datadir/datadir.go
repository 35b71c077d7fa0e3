// Package datadir owns the data folder of the runner: its layout, and the lock that lets one runner at a time use it.
package datadir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Dir is the absolute path of a data folder.
type Dir string

// Open makes sure that the folder and its parts exist.
func Open(path string) (Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("resolve data folder %s: %w", path, err)
	}
	d := Dir(path)
	for _, sub := range []string{path, d.State(), d.Logs(), d.Broker(), d.Scheduler(), d.Components(), d.Bin(), d.Inbox()} {
		if err := os.MkdirAll(sub, 0o750); err != nil {
			return "", &UnusableError{Dir: d, Faults: fmt.Errorf("%s cannot be made: %w; a folder is expected that this user can write to", sub, reason(err))}
		}
	}
	return d, nil
}

// Bin holds the services as they were built for this data.
func (d Dir) Bin() string { return filepath.Join(string(d), "bin") }

// State holds the SQLite files of the state stores.
func (d Dir) State() string { return filepath.Join(string(d), "state") }

// Logs holds one file per process.
func (d Dir) Logs() string { return filepath.Join(string(d), "logs") }

// Broker holds the embedded broker's topics and offsets.
func (d Dir) Broker() string { return filepath.Join(string(d), "broker") }

// Inbox holds the messages that customers would have received, and the keys of push subscriptions.
func (d Dir) Inbox() string { return filepath.Join(string(d), "inbox") }

// Scheduler holds the Dapr scheduler's embedded etcd.
func (d Dir) Scheduler() string { return filepath.Join(string(d), "scheduler") }

// Leadership remembers the scheduler's last leadership in its etcd.
func (d Dir) Leadership() string { return filepath.Join(string(d), "leadership.json") }

// Components holds the component files as this run's sidecars see them.
func (d Dir) Components() string { return filepath.Join(string(d), "components") }

// SystemFile describes the running system to other processes.
func (d Dir) SystemFile() string { return filepath.Join(string(d), "system.json") }

// InUseError says that another process works on the same data.
type InUseError struct {
	Dir  Dir
	What string // "the runner", "the embedded broker"
	PID  int    // 0 when unknown
}

func (e *InUseError) Error() string {
	who := "another process"
	if e.PID > 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("%s of %s is already running as %s: stop it, or choose another folder with --data", e.What, e.Dir, who)
}

// Lock takes the exclusive right to be what (for the error text) under the file name, until the returned function is
// called or the process ends, however it ends. It fails with an *InUseError while another process holds the right.
func (d Dir) Lock(name, what string) (release func(), err error) {
	release, holder, err := tryLock(string(d), name)
	if errors.Is(err, errHeld) {
		return nil, &InUseError{Dir: d, What: what, PID: holder}
	}
	return release, err
}

// WaitLock takes the exclusive right to the file name in the existing folder dir, until the returned function is called or
// the process ends. While another process has it, waiting is called once with that process's id, or 0 if it is unknown.
func WaitLock(ctx context.Context, dir, name string, waiting func(holder int)) (release func(), err error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	told := false
	for {
		release, holder, err := tryLock(dir, name)
		if !errors.Is(err, errHeld) {
			return release, err
		}
		if !told {
			waiting(holder)
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

var errHeld = errors.New("held by another process")

// tryLock locks the file name in dir and writes this process's id into it. It fails with errHeld and the holder's id while
// another process has the lock.
func tryLock(dir, name string) (release func(), holder int, err error) {
	folder, err := os.OpenRoot(dir)
	if err != nil {
		return nil, 0, fmt.Errorf("open lock: %w", err)
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	file, err := folder.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("open lock: %w", err)
	}
	if err := lock(file); err != nil {
		if text, readErr := folder.ReadFile(name); readErr == nil {
			holder, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		return nil, holder, errors.Join(fmt.Errorf("lock %s: %w", file.Name(), err), file.Close())
	}
	if err := errors.Join(file.Truncate(0), write(file, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		return nil, 0, errors.Join(fmt.Errorf("write lock: %w", err), file.Close())
	}
	// Closing gives the lock up whatever it answers. The file stays: removing it would let a third process lock a new file
	// of the same name beside a waiting second one.
	return func() { _ = file.Close() }, 0, nil
}

func write(file *os.File, text string) error {
	_, err := file.WriteAt([]byte(text), 0)
	return err
}
