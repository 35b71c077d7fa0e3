// Package build makes the programs the runner starts: the Dapr runtime, from the module that pins it, and the services.
package build

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/semver"

	"waybill/devrun/internal/child"
	"waybill/devrun/internal/datadir"
)

const (
	// RuntimeVersion is the Dapr version that is pinned in devrun/runtime/go.mod, and the only installed one that will do.
	RuntimeVersion = "1.18.2"
	// sqliteDriver is what a sidecar reaches SQLite by, and oldestDriver its oldest version that will do: those before it keep
	// a view of old data after a read that was given up, as ADR 20 says. Dapr's own build has such a one.
	sqliteDriver = "modernc.org/sqlite"
	oldestDriver = "v1.42.2"
)

// Runtime holds the paths of the Dapr programs.
type Runtime struct {
	Daprd     string
	Placement string
	Scheduler string
	// Installed says that they were found on this machine and not built.
	Installed bool
}

// Builder builds the Dapr runtime into <root>/.waybill/bin, whatever the data folder is: it is the same for all of them.
type Builder struct {
	Root string
	// Services is the existing folder for the services, which change from one run to the next.
	Services string
	Starter  *child.Starter
	// Progress is told in a short sentence what is being done.
	Progress func(format string, args ...any)
}

func (b *Builder) runtimeBin() string { return filepath.Join(b.Root, ".waybill", "bin") }

// program is one of the three Dapr programs and how to build it in devrun/runtime.
type program struct {
	name string
	pkg  string
	tags string
}

var programs = []program{
	{name: "daprd", pkg: "./daprd", tags: "stablecomponents"},
	{name: "placement", pkg: "github.com/dapr/dapr/cmd/placement"},
	{name: "scheduler", pkg: "github.com/dapr/dapr/cmd/scheduler"},
}

// Runtime returns an installed Dapr runtime of RuntimeVersion or, if there is none, the one built from the pinned modules.
func (b *Builder) Runtime(ctx context.Context) (Runtime, error) {
	if found, ok := b.installed(ctx); ok {
		return found, nil
	}
	bin := b.runtimeBin()
	if err := os.MkdirAll(bin, 0o750); err != nil {
		return Runtime{}, fmt.Errorf("create folder for Dapr: %w", err)
	}
	built := Runtime{
		Daprd:     filepath.Join(bin, "daprd"+suffix()),
		Placement: filepath.Join(bin, "placement"+suffix()),
		Scheduler: filepath.Join(bin, "scheduler"+suffix()),
	}
	release, err := b.lock(ctx, bin)
	if err != nil {
		return Runtime{}, err
	}
	defer release()

	source := filepath.Join(b.Root, "devrun", "runtime")
	key, err := sourceKey(source)
	if err != nil {
		return Runtime{}, fmt.Errorf("find the Dapr runtime's source: %w", err)
	}
	for _, p := range programs {
		if err := b.program(ctx, source, p, key); err != nil {
			return Runtime{}, err
		}
	}
	return built, nil
}

// program builds one program unless the one that is there was built from the same source.
func (b *Builder) program(ctx context.Context, source string, p program, key string) error {
	bin := b.runtimeBin()
	target := filepath.Join(bin, p.name+suffix())
	keyFile := filepath.Join(bin, p.name+".key")
	if have, err := fs.ReadFile(os.DirFS(bin), p.name+".key"); err == nil && string(have) == key {
		if _, err := os.Stat(target); err == nil {
			return nil
		}
	}
	if err := os.Remove(keyFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("build %s: %w", p.name, err)
	}
	flags := []string{"-trimpath", "-ldflags", "-s -w -X github.com/dapr/dapr/pkg/buildinfo.version=" + RuntimeVersion}
	if p.tags != "" {
		flags = append(flags, "-tags", p.tags)
	}
	b.Progress("building Dapr's %s %s from source: minutes the first time, never again for this version", p.name, RuntimeVersion)
	// The pinned runtime is no part of the workspace: its hundreds of dependencies must not decide the services' versions.
	// Without C they are static, and so the same programs go into images that hold nothing else.
	env := []string{"GOWORK=off", "CGO_ENABLED=0"}
	// The list comes first because it also downloads the modules, and because a build cannot say how long it will be.
	var list strings.Builder
	err := b.goRun(ctx, p.name, source, append([]string{"list", "-deps", "-tags", p.tags}, p.pkg), env, &buildWatch{doing: "finding its packages, "}, &list)
	if err != nil {
		return err
	}
	watch := &buildWatch{total: strings.Count(list.String(), "\n")}
	args := append([]string{"build", "-v", "-o", target}, append(flags, p.pkg)...)
	if err := b.goRun(ctx, p.name, source, args, env, watch, nil); err != nil {
		return err
	}
	if err := os.WriteFile(keyFile, []byte(key), 0o600); err != nil {
		return fmt.Errorf("build %s: %w", p.name, err)
	}
	return nil
}

// Service builds the package in dir into Services and returns the program's path.
func (b *Builder) Service(ctx context.Context, name, dir string) (string, error) {
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	release, err := b.lock(ctx, b.Services)
	if err != nil {
		return "", err
	}
	defer release()
	target := filepath.Join(b.Services, name+suffix())
	// The old program may be running; go build puts a new file in its place, or leaves it when nothing has changed.
	return target, b.goRun(ctx, name, dir, []string{"build", "-v", "-o", target, "."}, nil, &buildWatch{}, nil)
}

// Release builds pkg of the module in dir into target as it is given away: static, without symbols, and without the paths of
// this machine.
func (b *Builder) Release(ctx context.Context, name, dir, pkg, target string) error {
	args := []string{"build", "-v", "-trimpath", "-ldflags", "-s -w", "-o", target, pkg}
	return b.goRun(ctx, name, dir, args, []string{"GOWORK=off", "CGO_ENABLED=0"}, &buildWatch{}, nil)
}

// lock keeps two runners from building into the same folder at once; the second waits for the first.
func (b *Builder) lock(ctx context.Context, dir string) (release func(), err error) {
	release, err = datadir.WaitLock(ctx, dir, ".lock", func(holder int) {
		b.Progress("waiting for process %d, which builds into %s too", holder, dir)
	})
	if err != nil {
		return nil, fmt.Errorf("lock folder for programs: %w", err)
	}
	return release, nil
}

// goRun runs the go command in dir and reports its progress. What it writes to its standard output goes to out, or, if that
// is nil, is watched like its standard error.
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
	// A compiler that outlived the go command must not keep this one waiting.
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

// hints are the causes that have nothing to do with the code, by what the go command says.
var hints = []struct{ says, hint string }{
	{"no space left on device", "The disk is full: Go's build cache (go env GOCACHE), its modules (go env GOMODCACHE) and the data folder need a few GB."},
	{"read-only file system", "A folder is read-only: Go writes to its build cache (go env GOCACHE), its modules (go env GOMODCACHE) and the data folder."},
	{"requires go >=", "This Go is too old, and may not download a newer one (go env GOTOOLCHAIN): install the version that is named above, from https://go.dev/dl."},
	{"dial tcp", "Modules could not be downloaded. The first build needs the network, or a proxy for modules (go env GOPROXY)."},
	{"module lookup disabled", "Modules are missing, and downloading them is disabled (go env GOPROXY, GOFLAGS). The first build needs them."},
	{"cannot find module", "Modules are missing. The first build needs the network, or a proxy for modules (go env GOPROXY)."},
}

// hint says what to do about a failed build, when it is none of the code's faults.
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
	tick := time.NewTicker(3 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			elapsed := time.Since(began).Round(time.Second)
			compiled, downloaded := watch.compiled.Load(), watch.downloaded.Load()
			switch {
			case compiled > 0:
				b.Progress("building %s: %d %spackages compiled, %s", name, compiled, watch.of(), elapsed)
			case downloaded > 0:
				b.Progress("building %s: %d modules downloaded, %s", name, downloaded, elapsed)
			default:
				b.Progress("building %s: %s%s", name, watch.doing, elapsed)
			}
		}
	}
}

// buildWatch reads what `go build -v` says: names of packages as they are compiled, downloads, and faults.
type buildWatch struct {
	doing      string // before anything was downloaded or compiled
	total      int    // packages in the program, 0 if nobody counted
	compiled   atomic.Int64
	downloaded atomic.Int64
	faults     strings.Builder
}

// of says how many packages there are to compile at most; those in Go's build cache are not compiled again.
func (w *buildWatch) of() string {
	if w.total == 0 {
		return ""
	}
	return fmt.Sprintf("of at most %d ", w.total)
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

// errors is what the compiler said, once the build has ended.
func (w *buildWatch) errors() string { return strings.TrimSuffix(w.faults.String(), "\n") }

// sourceKey changes with everything a program in dir is built from: its source, its pinned modules, and the toolchain.
func sourceKey(dir string) (string, error) {
	sum := sha256.New()
	add := func(format string, args ...any) { sum.Write(fmt.Appendf(nil, format, args...)) }
	add("%s %s/%s %s static\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, RuntimeVersion)
	source := os.DirFS(dir)
	err := fs.WalkDir(source, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := fs.ReadFile(source, path)
		if err != nil {
			return err
		}
		add("%s %d\n%s", path, len(text), text)
		return nil
	})
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// installed looks for daprd on the PATH and where the Dapr CLI puts it. Placement and scheduler cannot tell their version,
// so they count only beside a daprd of the right one, as `dapr init --slim` installs them.
func (b *Builder) installed(ctx context.Context) (Runtime, bool) {
	var candidates []string
	if path, err := exec.LookPath("daprd"); err == nil {
		candidates = append(candidates, path)
	}
	if home, err := os.UserHomeDir(); err == nil {
		candidates = append(candidates, filepath.Join(home, ".dapr", "bin", "daprd"+suffix()))
	}
	for _, daprd := range candidates {
		found := Runtime{
			Daprd:     daprd,
			Placement: filepath.Join(filepath.Dir(daprd), "placement"+suffix()),
			Scheduler: filepath.Join(filepath.Dir(daprd), "scheduler"+suffix()),
			Installed: true,
		}
		ask, cancel := context.WithTimeout(ctx, 5*time.Second)
		out, err := child.Command(ask, daprd, "--version").Output()
		cancel()
		if err != nil || strings.TrimSpace(string(out)) != RuntimeVersion {
			continue
		}
		if !isProgram(found.Placement) || !isProgram(found.Scheduler) {
			continue
		}
		info, err := buildinfo.ReadFile(daprd)
		if err != nil {
			b.Progress("the installed %s is not used: what it was built from cannot be read: %v", daprd, err)
			continue
		}
		if driver := driverOf(info); !showsNoOldData(driver) {
			b.Progress("the installed %s is not used: its %s is %s, and before %s it can show old data", daprd, sqliteDriver, cmp.Or(driver, "not there"), oldestDriver)
			continue
		}
		return found, true
	}
	return Runtime{}, false
}

// showsNoOldData says so of a version of the SQLite driver.
func showsNoOldData(driver string) bool { return semver.Compare(driver, oldestDriver) >= 0 }

// driverOf is the version of a sidecar's SQLite driver, empty when it has none.
func driverOf(info *debug.BuildInfo) string {
	for _, module := range info.Deps {
		if module.Path != sqliteDriver {
			continue
		}
		if module.Replace != nil {
			module = module.Replace
		}
		return module.Version
	}
	return ""
}

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
