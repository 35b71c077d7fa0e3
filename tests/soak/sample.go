package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"waybill/tests/internal/client"
	"waybill/tests/internal/stored"
	"waybill/tests/internal/system"
)

// disk is the allocated size in bytes of the parts of a data folder: a folder, or one file of state.
func disk(data string) (map[string]int64, error) {
	parts := map[string]int64{}
	err := filepath.WalkDir(data, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was removed meanwhile
		}
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		size := info.Size()
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			size = stat.Blocks * 512
		}
		relative, err := filepath.Rel(data, path)
		if err != nil {
			return err
		}
		names := strings.Split(filepath.ToSlash(relative), "/")
		switch {
		case len(names) == 1 || names[0] == "bin" || names[0] == "components":
			return nil // does not change
		case strings.HasSuffix(relative, "-shm"):
			return nil // an index of the -wal beside it, of 32 KB
		case names[0] == "state":
			parts["state/"+names[1]] += size
		case names[0] == "scheduler" && strings.Contains(relative, "wal"):
			parts["scheduler/wal"] += size
		case names[0] == "scheduler" && names[len(names)-1] == "db":
			parts["scheduler/db"] += size
		default:
			parts[names[0]] += size
		}
		return nil
	})
	return parts, err
}

var (
	profilesAt = regexp.MustCompile(`http://127\.0\.0\.1:\d+/debug/pprof/`)
	heapAlloc  = regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)$`)
	goMetric   = regexp.MustCompile(`(?m)^go_memstats_heap_alloc_bytes(?:\{[^}]*\})? ([0-9.e+]+)$`)
)

// liveHeaps reads the Go heap of every process that shows it: of a service after a garbage collection, of a Dapr process from its
// metrics, garbage included.
func liveHeaps(ctx context.Context, s *system.System, processes []system.Process) map[string]int64 {
	heaps := map[string]int64{}
	for _, p := range processes {
		if heap, ok := serviceHeap(ctx, filepath.Join(s.Data, "logs", p.Name+".log")); ok {
			heaps[p.Name] = heap
		} else if heap, ok := metricHeap(ctx, p.PID); ok {
			heaps[p.Name] = heap
		}
	}
	return heaps
}

func serviceHeap(ctx context.Context, log string) (int64, bool) {
	text, err := os.ReadFile(log) //nolint:gosec // a log of this run
	if err != nil {
		return 0, false
	}
	found := profilesAt.FindAll(text, -1)
	if len(found) == 0 {
		return 0, false
	}
	return number(ctx, string(found[len(found)-1])+"heap?gc=1&debug=1", heapAlloc)
}

func metricHeap(ctx context.Context, pid int) (int64, bool) {
	port, err := stored.Argument(pid, "--metrics-port")
	if err != nil {
		return 0, false
	}
	return number(ctx, "http://127.0.0.1:"+port+"/metrics", goMetric)
}

func number(ctx context.Context, url string, pattern *regexp.Regexp) (int64, bool) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	code, _, answer, err := client.Call(ctx, http.MethodGet, url, nil)
	if err != nil || code != http.StatusOK {
		return 0, false
	}
	found := pattern.FindSubmatch(answer)
	if found == nil {
		return 0, false
	}
	value, err := strconv.ParseFloat(string(found[1]), 64)
	return int64(value), err == nil
}

// retriesAtEndedActors counts the log line of a sidecar that says that a call waits for a second because the actor of its
// workflow was just deactivated. Rotated logs are missing, so it is a lower bound.
func retriesAtEndedActors(data string) (int, error) {
	logs, err := filepath.Glob(filepath.Join(data, "logs", "*-sidecar.log*"))
	if err != nil {
		return 0, err
	}
	count := 0
	for _, log := range logs {
		text, err := os.ReadFile(log) //nolint:gosec // a log of this run
		if err != nil {
			return 0, err
		}
		count += bytes.Count(text, []byte("DaprBuiltInActorNotFoundRetries. Retrying"))
	}
	return count, nil
}
