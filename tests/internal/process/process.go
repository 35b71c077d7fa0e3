// Package process reads the kernel's figures for a process: processor time and memory. It works on Linux only.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of processor time in /proc, the same on every architecture that Go runs on.
const tick = time.Second / 100

// CPU is the processor time that a process has used: utime and stime, fields 14 and 15 of proc_pid_stat(5).
func CPU(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is a name in parentheses that may hold anything.
	rest := text[bytes.LastIndexByte(text, ')')+1:]
	return ticks(strings.Fields(string(rest)), 11, 12)
}

// Busy is the processor time that the whole machine has used, as proc_stat(5) has it.
func Busy() (time.Duration, error) {
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

// RSS is a process's resident memory in bytes.
func RSS(pid int) (int64, error) { return memory(pid, "VmRSS") }

// Peak is the most memory, in bytes, that was resident at once since the process started.
func Peak(pid int) (int64, error) { return memory(pid, "VmHWM") }

func memory(pid int, field string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			kB, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kB << 10, err
		}
	}
	return 0, fmt.Errorf("no %s of process %d", field, pid)
}
