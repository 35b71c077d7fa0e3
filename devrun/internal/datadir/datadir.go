// Package datadir owns the folder everything the runner writes lies in: its layout and the lock that lets one runner at a
// time use it.
package datadir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
	for _, sub := range []string{path, d.State(), d.Logs(), d.Broker(), d.Scheduler(), d.Components()} {
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return "", fmt.Errorf("create data folder: %w", err)
		}
	}
	return d, nil
}

// State holds the SQLite files of the state stores.
func (d Dir) State() string { return filepath.Join(string(d), "state") }

// Logs holds one file per process.
func (d Dir) Logs() string { return filepath.Join(string(d), "logs") }

// Broker holds the embedded broker's topics and offsets.
func (d Dir) Broker() string { return filepath.Join(string(d), "broker") }

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
	path := filepath.Join(string(d), name)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := tryLock(file); err != nil {
		held := &InUseError{Dir: d, What: what}
		if text, readErr := os.ReadFile(path); readErr == nil {
			held.PID, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		file.Close()
		if errors.Is(err, errHeld) {
			return nil, held
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := file.Truncate(0); err == nil {
		_, err = file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		if err != nil {
			file.Close()
			return nil, fmt.Errorf("write lock: %w", err)
		}
	}
	// The file stays: removing it would let a third process lock a new file of the same name beside a waiting second one.
	return func() { file.Close() }, nil
}

var errHeld = errors.New("held by another process")
