package build

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	program, err := b.service(t.Context(), Service{Name: "x", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if !isProgram(program) || filepath.Dir(program) != b.Services {
		t.Errorf("built %s", program)
	}
}

func TestAFailedBuildReportsTheCompilersOutput(t *testing.T) {
	t.Parallel()
	b, dir := builder(t)
	put(t, filepath.Join(dir, "main.go"), "package main\n\nfunc main() { nothing() }\n")
	_, err := b.service(t.Context(), Service{Name: "x", Dir: dir})
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

func TestProgressNamesWhatRemains(t *testing.T) {
	t.Parallel()
	watch := &buildWatch{total: 2}
	for _, want := range []string{"1 of 2 packages compiled", "2 of 2 packages compiled, linking"} {
		watch.compiled.Add(1)
		if got := watch.String(); got != want {
			t.Errorf("progress: %q, want %q", got, want)
		}
	}
}

// Two runners that build into the same folders wait for each other, whatever the folders are.
func TestLocksOfTwoFoldersAndOfOne(t *testing.T) {
	t.Parallel()
	b, _ := builder(t)
	for _, dirs := range [][]string{{b.Root, b.Services}, {b.Services, b.Root}, {b.Root, b.Root}} {
		release, err := b.lock(t.Context(), dirs...)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if _, err := b.lock(ctx, b.Root); err == nil {
			t.Errorf("%v: a second lock of %s was granted", dirs, b.Root)
		}
		cancel()
		release()
		again, err := b.lock(t.Context(), b.Root, b.Services)
		if err != nil {
			t.Fatalf("%v: the folders are locked after release: %v", dirs, err)
		}
		again()
	}
}
