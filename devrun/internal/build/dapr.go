package build

import (
	"cmp"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/semver"

	"waybill/devrun/internal/child"
)

const (
	// RuntimeVersion is the Dapr version that devrun/runtime/go.mod pins. An installed runtime of another version is not used.
	RuntimeVersion = "1.18.2"
	// sqliteDriver is the module by which a sidecar reaches SQLite, and oldestDriver its oldest usable version: an older one can
	// return old data after a canceled read (docs/adr/0020). Dapr's own build has an older one.
	sqliteDriver = "modernc.org/sqlite"
	oldestDriver = "v1.42.2"
)

// Runtime holds the paths of the Dapr programs.
type Runtime struct {
	Daprd     string
	Placement string
	Scheduler string
	// Installed reports that they were found on this machine and not built.
	Installed bool
}

// daprProgram is one of the Dapr programs and its package in devrun/runtime.
type daprProgram struct {
	name string
	pkg  string
	tags string
}

var (
	daprd     = daprProgram{name: "daprd", pkg: "./daprd"}
	stable    = daprProgram{name: "daprd-stable", pkg: "./daprd-stable", tags: "stablecomponents"}
	placement = daprProgram{name: "placement", pkg: "github.com/dapr/dapr/cmd/placement"}
	scheduler = daprProgram{name: "scheduler", pkg: "github.com/dapr/dapr/cmd/scheduler"}
)

func (b *Builder) runtimeBin() string { return filepath.Join(b.Root, ".waybill", "bin") }

func (b *Builder) runtimeSource() string { return filepath.Join(b.Root, "devrun", "runtime") }

// localRuntime returns an installed Dapr runtime of RuntimeVersion or builds one whose sidecar has the components of the local
// files alone. It needs the lock.
func (b *Builder) localRuntime(ctx context.Context, components map[string]string) (Runtime, error) {
	if found, ok := b.installed(ctx); ok {
		return found, nil
	}
	// Before the build, because it takes minutes.
	if err := checkComponents(b.runtimeSource(), components); err != nil {
		return Runtime{}, err
	}
	return b.buildRuntime(ctx, daprd)
}

// ImageRuntime returns the Dapr runtime of the container images, whose sidecar has all of Dapr's stable components: an installed
// one of RuntimeVersion, or one that it builds.
func (b *Builder) ImageRuntime(ctx context.Context) (Runtime, error) {
	if found, ok := b.installed(ctx); ok {
		return found, nil
	}
	release, err := b.lock(ctx, b.runtimeBin())
	if err != nil {
		return Runtime{}, err
	}
	defer release()
	return b.buildRuntime(ctx, stable)
}

// buildRuntime builds those of the three programs that were not built from the present source. One go command builds them all,
// so that it compiles and links at the same time.
func (b *Builder) buildRuntime(ctx context.Context, sidecar daprProgram) (Runtime, error) {
	bin, source := b.runtimeBin(), b.runtimeSource()
	path := func(p daprProgram) string { return filepath.Join(bin, p.name+suffix()) }
	built := Runtime{Daprd: path(sidecar), Placement: path(placement), Scheduler: path(scheduler)}
	key, err := sourceKey(source)
	if err != nil {
		return Runtime{}, fmt.Errorf("find the source of the Dapr runtime: %w", err)
	}
	keyFile := func(p daprProgram) string { return filepath.Join(bin, p.name+".key") }
	var missing []daprProgram
	var pkgs []string
	for _, p := range []daprProgram{sidecar, placement, scheduler} {
		have, err := fs.ReadFile(os.DirFS(bin), p.name+".key")
		if err == nil && string(have) == key && isProgram(path(p)) {
			continue
		}
		if err := os.Remove(keyFile(p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Runtime{}, fmt.Errorf("build %s: %w", p.name, err)
		}
		missing, pkgs = append(missing, p), append(pkgs, p.pkg)
	}
	if len(missing) == 0 {
		return built, nil
	}
	flags := []string{"-tags=" + sidecar.tags, "-trimpath", "-ldflags=-s -w -X github.com/dapr/dapr/pkg/buildinfo.version=" + RuntimeVersion}
	// The pinned runtime is not part of the workspace: its hundreds of dependencies must not decide the services' versions.
	// Without C the programs are static and run in images that hold nothing else.
	env := []string{"GOWORK=off", "CGO_ENABLED=0"}
	name := "Dapr " + RuntimeVersion
	b.Progress("building %s from source: up to four minutes on two processors, once for this version", name)
	began := time.Now()
	// The list also downloads the modules. It says how many packages are not in Go's build cache, which go build does not.
	var list strings.Builder
	args := slices.Concat([]string{"list", "-deps", "-f", "{{if .Stale}}{{.ImportPath}}{{end}}"}, flags, pkgs)
	if err := b.goRun(ctx, name, source, args, env, &buildWatch{listing: true}, &list); err != nil {
		return Runtime{}, err
	}
	watch := &buildWatch{total: len(strings.Fields(list.String()))}
	args = slices.Concat([]string{"build", "-v", "-o", bin + string(filepath.Separator)}, flags, pkgs)
	if err := b.goRun(ctx, name, source, args, env, watch, nil); err != nil {
		return Runtime{}, err
	}
	for _, p := range missing {
		if err := os.WriteFile(keyFile(p), []byte(key), 0o600); err != nil {
			return Runtime{}, fmt.Errorf("build %s: %w", p.name, err)
		}
	}
	b.Progress("built %s in %s", name, time.Since(began).Round(100*time.Millisecond))
	return built, nil
}

// checkComponents fails when a component file names a type that the local sidecar does not have. files holds a file for each
// type.
func checkComponents(source string, files map[string]string) error {
	registered, err := registeredComponents(source)
	if err != nil {
		return fmt.Errorf("read the components of the local sidecar: %w", err)
	}
	var errs []error
	for _, kind := range slices.Sorted(maps.Keys(files)) {
		if !slices.Contains(registered, kind) {
			errs = append(errs, fmt.Errorf("%s: the local sidecar has no component %s, only %s; register it in %s",
				files[kind], kind, strings.Join(registered, ", "), componentsFile(source)))
		}
	}
	return errors.Join(errs...)
}

func componentsFile(source string) string { return filepath.Join(source, "daprd", "components.go") }

// registeredComponents reads the component types of the local sidecar from its source: the keys of the map `components`.
func registeredComponents(source string) ([]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), componentsFile(source), nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var types []string
	ast.Inspect(file, func(node ast.Node) bool {
		pair, ok := node.(*ast.KeyValueExpr)
		if !ok {
			return true
		}
		if key, ok := pair.Key.(*ast.BasicLit); ok && key.Kind == token.STRING {
			if text, err := strconv.Unquote(key.Value); err == nil {
				types = append(types, text)
			}
		}
		return false
	})
	if len(types) == 0 {
		return nil, fmt.Errorf("%s registers no component", componentsFile(source))
	}
	slices.Sort(types)
	return types, nil
}

// sourceKey is a hash of everything that the programs in dir are built from: source, pinned modules, and the toolchain.
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

// installed finds daprd on the PATH or where the Dapr CLI puts it. Placement and scheduler do not report a version, so they
// count only beside a daprd of the right one, as `dapr init --slim` installs them.
func (b *Builder) installed(ctx context.Context) (Runtime, bool) {
	var candidates []string
	if path, err := exec.LookPath("daprd"); err == nil {
		candidates = append(candidates, path)
	}
	if home, err := os.UserHomeDir(); err == nil {
		candidates = append(candidates, filepath.Join(home, ".dapr", "bin", "daprd"+suffix()))
	}
	for _, path := range candidates {
		found := Runtime{
			Daprd:     path,
			Placement: filepath.Join(filepath.Dir(path), "placement"+suffix()),
			Scheduler: filepath.Join(filepath.Dir(path), "scheduler"+suffix()),
			Installed: true,
		}
		ask, cancel := context.WithTimeout(ctx, 5*time.Second)
		out, err := child.Command(ask, path, "--version").Output()
		cancel()
		if err != nil || strings.TrimSpace(string(out)) != RuntimeVersion {
			continue
		}
		if !isProgram(found.Placement) || !isProgram(found.Scheduler) {
			continue
		}
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			b.Progress("not using the installed %s: cannot read what it was built from: %v", path, err)
			continue
		}
		if driver := driverOf(info); !isSafeDriver(driver) {
			b.Progress("not using the installed %s: %s must be %s or newer, got %s; an older one can return old data", path, sqliteDriver, oldestDriver, cmp.Or(driver, "none"))
			continue
		}
		return found, true
	}
	return Runtime{}, false
}

// isSafeDriver reports whether this version of the SQLite driver never returns old data.
func isSafeDriver(driver string) bool { return semver.Compare(driver, oldestDriver) >= 0 }

// driverOf returns the version of a sidecar's SQLite driver, empty if it has none.
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
