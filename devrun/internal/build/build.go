// Package build builds the programs that the runner starts: the Dapr runtime, from the module that pins its version, and the
// services.
package build

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"waybill/devrun/internal/child"
	"waybill/devrun/internal/datadir"
)

// Builder builds programs with the go command. Dapr's go to <Root>/.waybill/bin for every data folder, because they depend on
// the repository alone.
type Builder struct {
	Root string
	// Services is the existing folder for the services.
	Services string
	Starter  *child.Starter
	// Progress receives short sentences about the work in progress. It must be safe for concurrent use.
	Progress func(format string, args ...any)
}

// Service is a service to build.
type Service struct {
	Name string // of the program
	Dir  string // of its Go package
}

// System builds everything that runs on this machine: the Dapr runtime, unless it is installed, and the services. components
// holds the component types that the sidecars must have, each with a file that names it. It returns the services' programs by
// name.
func (b *Builder) System(ctx context.Context, components map[string]string, services []Service) (Runtime, map[string]string, error) {
	release, err := b.lock(ctx, b.runtimeBin(), b.Services)
	if err != nil {
		return Runtime{}, nil, err
	}
	defer release()
	// Both builds at the same time: each ends with steps that use one processor.
	group, ctx := errgroup.WithContext(ctx)
	var dapr Runtime
	group.Go(func() (err error) {
		dapr, err = b.localRuntime(ctx, components)
		return err
	})
	programs := map[string]string{}
	group.Go(func() error {
		for _, s := range services {
			began := time.Now()
			program, err := b.service(ctx, s)
			if err != nil {
				return err
			}
			programs[s.Name] = program
			b.Progress("built %s in %s", s.Name, time.Since(began).Round(100*time.Millisecond))
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return Runtime{}, nil, err
	}
	return dapr, programs, nil
}

func (b *Builder) service(ctx context.Context, s Service) (string, error) {
	if _, err := os.Stat(s.Dir); err != nil {
		return "", fmt.Errorf("build %s: %w", s.Name, err)
	}
	target := filepath.Join(b.Services, s.Name+suffix())
	// The old program may be running; go build puts a new file in its place, or leaves it when nothing has changed.
	return target, b.goRun(ctx, s.Name, s.Dir, []string{"build", "-v", "-o", target, "."}, nil, &buildWatch{}, nil)
}

// Release builds pkg of the module in dir into target for distribution: static, without symbols, and without paths of this
// machine.
func (b *Builder) Release(ctx context.Context, name, dir, pkg, target string) error {
	args := []string{"build", "-v", "-trimpath", "-ldflags", "-s -w", "-o", target, pkg}
	return b.goRun(ctx, name, dir, args, []string{"GOWORK=off", "CGO_ENABLED=0"}, &buildWatch{}, nil)
}

// lock creates the folders and keeps two runners from building into one of them at the same time; the second waits.
func (b *Builder) lock(ctx context.Context, dirs ...string) (release func(), err error) {
	dirs = slices.Compact(slices.Sorted(slices.Values(dirs))) // in one order, so that two runners cannot wait for each other
	var held []func()
	release = func() {
		for _, r := range held {
			r()
		}
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			release()
			return nil, fmt.Errorf("create folder for programs: %w", err)
		}
		r, err := datadir.WaitLock(ctx, dir, ".lock", func(holder int) {
			b.Progress("waiting for process %d, which also builds into %s", holder, dir)
		})
		if err != nil {
			release()
			return nil, fmt.Errorf("lock folder for programs: %w", err)
		}
		held = append(held, r)
	}
	return release, nil
}

// goRun runs the go command in dir and reports its progress. Its standard output goes to out, or to watch like its standard
// error if out is nil.
func (b *Builder) goRun(ctx context.Context, name, dir string, args, env []string, watch *buildWatch, out io.Writer) error {
	cmd := child.Command(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	read, write := io.Pipe()
	cmd.Stdout, cmd.Stderr = out, write
	if out == nil {
		cmd.Stdout = write
	}
	cmd.Cancel = func() error { return child.Kill(cmd.Process) }
	// Do not wait for a compiler that outlives the go command.
	cmd.WaitDelay = time.Second
	if err := b.Starter.Start(cmd, false); err != nil {
		return fmt.Errorf("build %s: %w", name, err)
	}

	var tasks sync.WaitGroup
	tasks.Go(func() { watch.read(read) })
	done := make(chan struct{})
	tasks.Go(func() { b.report(done, name, watch) })
	err := cmd.Wait()
	err = errors.Join(err, write.Close())
	close(done)
	tasks.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("build %s: %w", name, context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("build %s in %s failed (%w):\n%s%s", name, dir, err, watch.errors(), hint(watch.errors()))
	}
	return nil
}

// hints explain failures that the code does not cause, by what the go command says.
var hints = []struct{ says, hint string }{
	{"no space left on device", "The disk is full: Go's build cache (go env GOCACHE), its modules (go env GOMODCACHE) and the data folder need a few GB."},
	{"read-only file system", "A folder is read-only: Go writes to its build cache (go env GOCACHE), its modules (go env GOMODCACHE) and the data folder."},
	{"requires go >=", "This Go is too old and must not download a newer one (go env GOTOOLCHAIN): install the version named above from https://go.dev/dl."},
	{"dial tcp", "Modules could not be downloaded. The first build needs the network, or a proxy for modules (go env GOPROXY)."},
	{"module lookup disabled", "Modules are missing, and downloading them is disabled (go env GOPROXY, GOFLAGS). The first build needs them."},
	{"cannot find module", "Modules are missing. The first build needs the network, or a proxy for modules (go env GOPROXY)."},
}

// hint says how to fix a failed build whose cause is not the code, or nothing.
func hint(said string) string {
	for _, h := range hints {
		if strings.Contains(said, h.says) {
			return "\n" + h.hint
		}
	}
	return ""
}

// report says every few seconds how far the build is.
func (b *Builder) report(done <-chan struct{}, name string, watch *buildWatch) {
	began := time.Now()
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			b.Progress("building %s: %s, %s", name, watch, time.Since(began).Round(time.Second))
		}
	}
}

// buildWatch reads the output of `go build -v`: names of packages that it compiles, downloads, and errors.
type buildWatch struct {
	listing    bool // the go command lists packages and compiles none
	total      int  // packages to compile, 0 if unknown
	compiled   atomic.Int64
	downloaded atomic.Int64
	faults     strings.Builder
}

// String says how far the build is.
func (w *buildWatch) String() string {
	compiled, downloaded := int(w.compiled.Load()), w.downloaded.Load()
	switch {
	case w.total > 0 && compiled >= w.total:
		return fmt.Sprintf("%d of %d packages compiled, linking", w.total, w.total)
	case w.total > 0 && compiled > 0:
		return fmt.Sprintf("%d of %d packages compiled", compiled, w.total)
	case compiled > 0:
		return fmt.Sprintf("%d packages compiled", compiled)
	case downloaded > 0:
		return fmt.Sprintf("%d modules downloaded", downloaded)
	case w.listing:
		return "listing packages"
	}
	return "checking what is in the build cache, linking"
}

func (w *buildWatch) read(out io.Reader) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	failing := false
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "go: downloading "):
			w.downloaded.Add(1)
		case !failing && !strings.ContainsAny(line, " :#\t"):
			w.compiled.Add(1)
		default:
			failing = true
			w.faults.WriteString(line + "\n")
		}
	}
	_, _ = io.Copy(io.Discard, out)
}

// errors is the compiler's output, once the build has ended.
func (w *buildWatch) errors() string { return strings.TrimSuffix(w.faults.String(), "\n") }

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && (runtime.GOOS == "windows" || info.Mode()&0o111 != 0)
}

func suffix() string {
	if runtime.GOOS == "windows" {
		return ".exe"
	}
	return ""
}
