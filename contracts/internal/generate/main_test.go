package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// root is the contracts folder, as seen from this package.
var root = filepath.Join("..", "..")

func TestGeneratedFilesAreCurrent(t *testing.T) {
	t.Parallel()
	files, err := render(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(name)
		if err != nil {
			t.Errorf("%s is missing: run make generate", name)
			continue
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the catalogue gives: run make generate", name)
		}
	}
	stale, err := staleFiles(root, files)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range stale {
		t.Errorf("%s belongs to no event type: run make generate", name)
	}
}

func TestRunRemovesFilesOfDeletedEventTypes(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "contracts")
	stale := filepath.Join(folder, schemasFolder, "Order.Forgotten.json")
	if err := os.MkdirAll(filepath.Dir(stale), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(stale, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := run(folder); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("%s is still there (%v)", stale, err)
	}
	if _, err := os.Stat(filepath.Join(folder, schemasFolder, "Order.Created.json")); err != nil {
		t.Error(err)
	}
}
