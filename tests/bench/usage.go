package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// measured is something with processes of its own.
type measured interface {
	// processes are those that work on what is measured, and their ids.
	processes() ([]process, error)
}

// process is one that is measured.
type process struct {
	name string
	pid  int
}

// usage is what processes used of the machine: since their start, or between two looks. It is empty on other systems than
// Linux.
type usage struct {
	of []processUsage
	// busy is what everybody on the machine used.
	busy time.Duration
}

type processUsage struct {
	process
	cpu  time.Duration
	peak int64 // bytes, of memory that was resident at once since the process started
}

// self is this program, which hands in the work, and is the bare workflow's worker and the bare subscriber.
const self = "this program"

// everythingElse is what others on the machine used.
const everythingElse = "everything else"

// takeUsage looks at the subject's processes and at this one.
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
		cpu, err := cpuOf(p.pid)
		if err != nil {
			return u, fmt.Errorf("look at %s: %w", p.name, err)
		}
		peak, err := peakOf(p.pid)
		if err != nil {
			return u, fmt.Errorf("look at %s: %w", p.name, err)
		}
		u.of = append(u.of, processUsage{p, cpu, peak})
	}
	u.busy, err = busy()
	return u, err
}

// since is what was used between two looks.
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

// tick is the unit of processor time in /proc, the same on every architecture that Go runs on.
const tick = time.Second / 100

// cpuOf is the processor time of a process, as proc_pid_stat(5) has it: utime and stime, fields 14 and 15.
func cpuOf(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is a name in parentheses that may hold anything.
	rest := text[bytes.LastIndexByte(text, ')')+1:]
	return ticks(strings.Fields(string(rest)), 11, 12)
}

// busy is the processor time that was not idle, as proc_stat(5) has it.
func busy() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return ticks(strings.Fields(line), 1, 2, 3, 6, 7) // user, nice, system, irq, softirq
}

func ticks(fields []string, at ...int) (time.Duration, error) {
	var sum int64
	for _, i := range at {
		if i >= len(fields) {
			return 0, errors.New("the kernel's statistics are shorter than known")
		}
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return time.Duration(sum) * tick, nil
}

// peakOf is the most memory that was resident at once.
func peakOf(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kB, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kB << 10, err
		}
	}
	return 0, errors.New("no VmHWM")
}
