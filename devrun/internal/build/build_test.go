package build

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"waybill/devrun/internal/child"
)

func builder(t *testing.T) (b *Builder, dir string) {
	t.Helper()
	starter := child.NewStarter()
	t.Cleanup(starter.Close)
	b = &Builder{Root: t.TempDir(), Services: t.TempDir(), Starter: starter, Progress: t.Logf}
	dir = filepath.Join(b.Root, "services", "x")
	put(t, filepath.Join(dir, "go.mod"), "module example/x\n\ngo 1.26\n")
	return b, dir
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestService(t *testing.T) {
	t.Parallel()
	b, dir := builder(t)
	put(t, filepath.Join(dir, "main.go"), "package main\n\nfunc main() { println(1) }\n")
	program, err := b.Service(t.Context(), "x", dir)
	if err != nil {
		t.Fatal(err)
	}
	if !isProgram(program) || filepath.Dir(program) != b.Services {
		t.Errorf("built %s", program)
	}
}

func TestAFailedBuildSaysWhatTheCompilerSaid(t *testing.T) {
	t.Parallel()
	b, dir := builder(t)
	put(t, filepath.Join(dir, "main.go"), "package main\n\nfunc main() { nothing() }\n")
	_, err := b.Service(t.Context(), "x", dir)
	if err == nil || !strings.Contains(err.Error(), "./main.go:3:15: undefined: nothing") {
		t.Errorf("error: %v", err)
	}
}

func TestAFailedBuildHintsAtItsCause(t *testing.T) {
	t.Parallel()
	b, dir := builder(t)
	put(t, filepath.Join(dir, "go.mod"), "module example/x\n\ngo 9.99\n")
	put(t, filepath.Join(dir, "main.go"), "package main\n\nfunc main() {}\n")
	ctx := t.Context()
	err := b.goRun(ctx, "x", dir, []string{"build", "-o", os.DevNull, "."}, []string{"GOWORK=off", "GOTOOLCHAIN=local"}, &buildWatch{}, nil)
	if err == nil || !strings.Contains(err.Error(), "go 9.99") && !strings.Contains(err.Error(), "go >= 9.99") || !strings.Contains(err.Error(), "too old") {
		t.Errorf("a Go that is too old: %v", err)
	}
	put(t, filepath.Join(dir, "go.mod"), "module example/x\n\ngo 1.26\n\nrequire example.com/nowhere v1.0.0\n")
	put(t, filepath.Join(dir, "main.go"), "package main\n\nimport _ \"example.com/nowhere\"\n\nfunc main() {}\n")
	env := []string{"GOWORK=off", "GOFLAGS=-mod=mod", "GOSUMDB=off", "GOPROXY=http://127.0.0.1:1"}
	err = b.goRun(ctx, "x", dir, []string{"build", "-o", os.DevNull, "."}, env, &buildWatch{}, nil)
	if err == nil || !strings.Contains(err.Error(), "needs the network") {
		t.Errorf("without a network: %v", err)
	}
}

func TestProgressIsReadFromTheBuild(t *testing.T) {
	t.Parallel()
	var watch buildWatch
	watch.read(strings.NewReader(`go: downloading example.com/a v1.0.0
go: downloading example.com/b v1.0.0
internal/cpu
example.com/a
example.com/b/c
# example.com/b/d
./d.go:1:1: wrong
`))
	if watch.downloaded.Load() != 2 || watch.compiled.Load() != 3 {
		t.Errorf("%d downloaded, %d compiled", watch.downloaded.Load(), watch.compiled.Load())
	}
	if got, want := watch.errors(), "# example.com/b/d\n./d.go:1:1: wrong"; got != want {
		t.Errorf("errors: %q, want %q", got, want)
	}
}

func TestTheKeyFollowsTheSource(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "go.mod"), "module a\n")
	first, err := sourceKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "daprd", "main.go"), "package main\n")
	second, err := sourceKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if first == second {
		t.Error("new source, same key")
	}
}

// An installed sidecar of the right version of which nobody knows what it was built from is not used.
func TestAnInstalledSidecarSaysWhatItWasBuiltFrom(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the sidecar is a shell script")
	}
	dir := t.TempDir()
	for _, name := range []string{"daprd", "placement", "scheduler"} {
		put(t, filepath.Join(dir, name), "#!/bin/sh\necho "+RuntimeVersion+"\n")
		if err := os.Chmod(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("HOME", dir)
	var said []string
	b := &Builder{Progress: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }}
	if _, ok := b.installed(t.Context()); ok || len(said) != 1 || !strings.Contains(said[0], "cannot be read") {
		t.Errorf("a script counts as a sidecar, %q", said)
	}
}

// Nor is one whose SQLite driver is not known to show no old data.
func TestAnInstalledSidecarNeedsItsDriver(t *testing.T) {
	t.Parallel()
	module := func(path, version string) *debug.Module { return &debug.Module{Path: path, Version: version} }
	replaced := module(sqliteDriver, "v1.34.5")
	replaced.Replace = module("example.com/sqlite", "v1.61.1")
	for _, c := range []struct {
		modules []*debug.Module
		want    bool
	}{
		{nil, false},
		{[]*debug.Module{module("modernc.org/libc", "v1.79.0")}, false},
		{[]*debug.Module{module("modernc.org/libc", "v1.79.0"), module(sqliteDriver, "v1.34.5")}, false},
		{[]*debug.Module{module(sqliteDriver, "(devel)")}, false},
		{[]*debug.Module{module(sqliteDriver, oldestDriver)}, true},
		{[]*debug.Module{module(sqliteDriver, "v1.100.0")}, true},
		{[]*debug.Module{replaced}, true},
	} {
		driver := driverOf(&debug.BuildInfo{Deps: c.modules})
		if got := showsNoOldData(driver); got != c.want {
			t.Errorf("%v: %q is new enough: %v", c.modules, driver, got)
		}
	}
}
