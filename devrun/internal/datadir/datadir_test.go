package datadir

import (
	"errors"
	"os"
	"testing"
)

func TestLockIsExclusive(t *testing.T) {
	t.Parallel()
	dir, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	release, err := dir.Lock("lock", "the runner")
	if err != nil {
		t.Fatal(err)
	}
	var held *InUseError
	if _, err := dir.Lock("lock", "the runner"); !errors.As(err, &held) || held.PID != os.Getpid() {
		t.Fatalf("second lock: %v, want an InUseError with this process's id", err)
	}
	release()
	again, err := dir.Lock("lock", "the runner")
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	again()
}
