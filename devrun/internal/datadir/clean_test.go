//go:build unix

package datadir

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// `make clean` asks the locks: what runs keeps its data.
func TestCleanRefusesWhileSomethingRuns(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("flock"); err != nil {
		t.Skip("without flock(1) the script looks for processes named devrun, which this test is not")
	}
	script, err := os.ReadFile("../../../hack/clean")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "hack"), 0o700); err != nil {
		t.Fatal(err)
	}
	clean := filepath.Join(root, "hack", "clean")
	if err := os.WriteFile(clean, script, 0o700); err != nil {
		t.Fatal(err)
	}
	run := func() (string, error) {
		said, err := exec.CommandContext(t.Context(), clean).CombinedOutput()
		return string(said), err
	}
	if said, err := run(); err != nil {
		t.Errorf("with nothing to remove: %v: %s", err, said)
	}
	dir, err := Open(filepath.Join(root, ".waybill"))
	if err != nil {
		t.Fatal(err)
	}
	for _, lock := range []string{"lock", "broker.lock", "inbox.lock", "bin/.lock"} {
		release, err := dir.Lock(lock, "a process")
		if err != nil {
			t.Fatal(err)
		}
		said, err := run()
		if err == nil || !strings.Contains(said, fmt.Sprintf("process %d runs on", os.Getpid())) || !strings.Contains(said, fmt.Sprint("kill ", os.Getpid())) {
			t.Errorf("with %s held: %v: %s", lock, err, said)
		}
		if _, err := os.Stat(dir.State()); err != nil {
			t.Errorf("with %s held the data are gone: %v", lock, err)
		}
		release()
	}
	if said, err := run(); err != nil {
		t.Errorf("with nothing running: %v: %s", err, said)
	}
	if _, err := os.Stat(string(dir)); !os.IsNotExist(err) {
		t.Errorf("with nothing running the folder stays: %v", err)
	}
}
