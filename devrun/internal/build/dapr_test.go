package build

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"waybill/devrun/internal/components"
)

const (
	source          = "../../runtime"
	localComponents = "../../../components/local"
)

// Every component that the local files name is in the local sidecar, and it has no other that it does not need.
func TestTheLocalSidecarHasTheLocalComponents(t *testing.T) {
	t.Parallel()
	types, err := components.Types([]string{localComponents})
	if err != nil {
		t.Fatal(err)
	}
	if err := checkComponents(source, types); err != nil {
		t.Error(err)
	}
	got, err := registeredComponents(source)
	if err != nil {
		t.Fatal(err)
	}
	types["nameresolution.mdns"] = "" // Dapr's default, which no file names
	if want := slices.Sorted(maps.Keys(types)); !slices.Equal(got, want) {
		t.Errorf("the local sidecar has %q, want %q", got, want)
	}
}

func TestAComponentThatTheLocalSidecarLacks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "cache.yaml"), "kind: Resiliency\n---\nkind: Component\nspec:\n  type: state.redis\n")
	types, err := components.Types([]string{localComponents, dir})
	if err != nil {
		t.Fatal(err)
	}
	err = checkComponents(source, types)
	if err == nil {
		t.Fatal("no error for state.redis")
	}
	for _, want := range []string{filepath.Join(dir, "cache.yaml"), "has no component state.redis", filepath.Join("daprd", "components.go")} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
}

// The local sidecar's app.go is Dapr's own, of the pinned version, without the import of all components.
func TestTheLocalSidecarIsDapr(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", "github.com/dapr/dapr@v"+RuntimeVersion)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("download Dapr: %v\n%s", err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	read := func(path ...string) string {
		text, err := os.ReadFile(filepath.Join(path...))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	want := read(module.Dir, "cmd", "daprd", "app", "app.go")
	for _, change := range []struct{ from, to string }{
		{"package app\n", "package main\n"},
		{"\t// Register all components\n\t_ \"github.com/dapr/dapr/cmd/daprd/components\"\n\n", ""},
	} {
		if strings.Count(want, change.from) != 1 {
			t.Fatalf("Dapr's app.go does not hold %q once", change.from)
		}
		want = strings.Replace(want, change.from, change.to, 1)
	}
	if read(source, "daprd", "app.go") != want {
		t.Errorf("devrun/runtime/daprd/app.go differs from Dapr's cmd/daprd/app/app.go %s: copy it again, as package main and without its import of components", RuntimeVersion)
	}
	if !strings.Contains(read(source, "go.mod"), "github.com/dapr/dapr v"+RuntimeVersion+"\n") {
		t.Errorf("devrun/runtime/go.mod does not pin Dapr %s", RuntimeVersion)
	}
}

func TestTheKeyChangesWithTheSource(t *testing.T) {
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

// An installed sidecar of the right version is not used when its build information cannot be read.
func TestAnInstalledSidecarNeedsBuildInformation(t *testing.T) {
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
	if _, ok := b.installed(t.Context()); ok || len(said) != 1 || !strings.Contains(said[0], "cannot read") {
		t.Errorf("a script counts as a sidecar, %q", said)
	}
}

// Nor is it used when its SQLite driver can return old data.
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
		if got := isSafeDriver(driver); got != c.want {
			t.Errorf("%v: %q is new enough: %v", c.modules, driver, got)
		}
	}
}
