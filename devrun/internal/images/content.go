package images

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// tree writes files below dir with exactly the requested modes, and keeps the first error.
type tree struct {
	dir string
	err error
}

func (t *tree) folder(name string, mode fs.FileMode) {
	if t.err != nil {
		return
	}
	path := filepath.Join(t.dir, filepath.FromSlash(name))
	if t.err = os.MkdirAll(path, 0o755); t.err == nil { //nolint:gosec // what lies in an image is read by the image's own user
		t.err = os.Chmod(path, mode)
	}
}

func (t *tree) write(name string, text []byte) {
	t.folder(filepath.ToSlash(filepath.Dir(name)), 0o755)
	if t.err != nil {
		return
	}
	t.put(name, text, 0o644)
}

func (t *tree) copy(name, source string, mode fs.FileMode) {
	t.folder(filepath.ToSlash(filepath.Dir(name)), 0o755)
	if t.err != nil {
		return
	}
	text, err := os.ReadFile(source) //nolint:gosec // programs that were just built, and the toolchain's own files
	if err != nil {
		t.err = err
		return
	}
	t.put(name, text, mode)
}

func (t *tree) put(name string, text []byte, mode fs.FileMode) {
	path := filepath.Join(t.dir, filepath.FromSlash(name))
	if t.err = os.WriteFile(path, text, mode); t.err == nil { //nolint:gosec // the names are this package's own
		t.err = os.Chmod(path, mode) // whatever the umask is
	}
}

// readable makes everything below dir readable for all users.
func readable(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.Chmod(path, 0o755) //nolint:gosec // what lies in an image is read by the image's own user
		}
		return os.Chmod(path, 0o644) //nolint:gosec // the same
	})
}

// checkStatic refuses a program that an image without a C library could not run: one for another system, or one that wants
// a dynamic loader.
func checkStatic(path string) error {
	file, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("%s is no program for Linux: %w", path, err)
	}
	defer func() { _ = file.Close() }()
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is not static: build it with CGO_ENABLED=0", path)
		}
	}
	return nil
}

// certificates is Mozilla's list of root certificates, as golang.org/x/crypto publishes it, in the form Go's crypto/x509
// reads. A root that is trusted for older certificates only is left out: the form cannot say so.
func certificates() []byte {
	var all bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		_ = pem.Encode(&all, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a buffer takes everything
	}
	return all.Bytes()
}

// timeZones is the path of the Go toolchain's own time zone database.
func timeZones(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find the Go toolchain: %w", err)
	}
	path := filepath.Join(strings.TrimSpace(string(out)), "lib", "time", "zoneinfo.zip")
	if _, err := os.Stat(path); err != nil {
		return "", errors.Join(errors.New("the Go toolchain has no time zones"), err)
	}
	return path, nil
}
