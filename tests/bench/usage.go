package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	proc "waybill/tests/internal/process"
)

// measured is a system with its own processes.
type measured interface {
	// processes are the names and ids of the measured processes.
	processes() ([]process, error)
}

// process is one measured process.
type process struct {
	name string
	pid  int
}

// usage is what processes used of the machine, since their start or between two readings. It is empty on systems other than
// Linux.
type usage struct {
	of []processUsage
	// busy is the processor time of all processes on the machine.
	busy time.Duration
}

type processUsage struct {
	process
	cpu  time.Duration
	peak int64 // bytes, of memory that was resident at once since the process started
}

// self is this program, which hands in the work and is the worker of the bare workflow and the bare subscriber.
const self = "this program"

// everythingElse is what other processes on the machine used.
const everythingElse = "everything else"

// takeUsage reads the usage of the subject's processes and of this one.
func takeUsage(s measured) (usage, error) {
	if runtime.GOOS != "linux" {
		return usage{}, nil
	}
	all, err := s.processes()
	if err != nil {
		return usage{}, err
	}
	var u usage
	for _, p := range append(all, process{self, os.Getpid()}) {
		cpu, err := proc.CPU(p.pid)
		if err != nil {
			return u, fmt.Errorf("look at %s: %w", p.name, err)
		}
		peak, err := proc.Peak(p.pid)
		if err != nil {
			return u, fmt.Errorf("look at %s: %w", p.name, err)
		}
		u.of = append(u.of, processUsage{p, cpu, peak})
	}
	u.busy, err = proc.Busy()
	return u, err
}

// since is the usage between two readings.
func (u usage) since(before usage) (usage, error) {
	if len(u.of) != len(before.of) {
		return usage{}, errors.New("processes came or went during a measurement")
	}
	var d usage
	d.busy = u.busy - before.busy
	others := d.busy
	for i, p := range u.of {
		if p.process != before.of[i].process {
			return usage{}, fmt.Errorf("%s was started again during a measurement", p.name)
		}
		cpu := p.cpu - before.of[i].cpu
		others -= cpu
		d.of = append(d.of, processUsage{p.process, cpu, p.peak})
	}
	if len(d.of) > 0 {
		d.of = append(d.of, processUsage{process: process{name: everythingElse}, cpu: max(others, 0)})
	}
	return d, nil
}
