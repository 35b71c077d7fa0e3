package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
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

func opened(t *testing.T) Dir {
	t.Helper()
	dir, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAUsableFolderPasses(t *testing.T) {
	t.Parallel()
	dir := opened(t)
	put(t, filepath.Join(dir.State(), "new.db"), "")
	put(t, filepath.Join(dir.State(), "old.db"), "SQLite format 3\x00 and more")
	if err := os.Symlink(filepath.Join(t.TempDir(), "elsewhere.db"), filepath.Join(dir.State(), "linked.db")); err != nil {
		t.Fatal(err)
	}
	if err := dir.Check(); err != nil {
		t.Error(err)
	}
	for _, folder := range []string{string(dir), dir.State(), dir.Scheduler()} {
		if left, err := filepath.Glob(filepath.Join(folder, ".check-*")); err != nil || len(left) > 0 {
			t.Errorf("%v was left behind, %v", left, err)
		}
	}
}

func TestFaultsOfAFolderAreNamedTogether(t *testing.T) {
	t.Parallel()
	dir := opened(t)
	if err := errors.Join(os.Remove(dir.Broker()), os.Remove(dir.Inbox())); err != nil {
		t.Fatal(err)
	}
	put(t, dir.Broker(), "a file where a folder should be")
	database := filepath.Join(dir.State(), "orders.statestore.db")
	put(t, database, "something else that is long enough")
	err := dir.Check()
	var unusable *UnusableError
	if !errors.As(err, &unusable) {
		t.Fatalf("error is %v", err)
	}
	for _, want := range []string{
		"the data folder " + string(dir) + " cannot be used",
		dir.Broker() + " is no folder; a folder is expected that this user can write to, with at least 32 MB free",
		dir.Inbox() + " cannot be read: no such file or directory; a folder is expected",
		database + " is not a SQLite database",
		"--data",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if _, err := Open(string(dir)); !errors.As(err, &unusable) || !strings.Contains(err.Error(), dir.Broker()+" cannot be made") {
		t.Errorf("opening it: %v", err)
	}
}

func TestTooLittleSpaceIsNamed(t *testing.T) {
	t.Parallel()
	dir := opened(t)
	if _, known := freeSpace(string(dir)); !known {
		t.Skip("the free space is not known on this system")
	}
	err := checkFolder(dir.Scheduler(), 1<<40)
	if err == nil || !strings.Contains(err.Error(), dir.Scheduler()+" has ") || !strings.Contains(err.Error(), "at least 1099511627776 MB free") {
		t.Errorf("error is %v", err)
	}
}

func TestAFolderThatMayNotBeWritten(t *testing.T) {
	t.Parallel()
	folder, want := opened(t).State(), "permission denied"
	if os.Geteuid() == 0 {
		folder, want = "/proc", "" // root may write to every other folder
		if _, err := os.Stat(folder); err != nil {
			t.Skip("there is no folder that root may not write to")
		}
	} else {
		if err := os.Chmod(folder, 0o500); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Chmod(folder, 0o700) })
	}
	if err := checkFolder(folder, 0); err == nil || !strings.Contains(err.Error(), folder+" cannot be written: "+want) {
		t.Errorf("error is %v", err)
	}
}

func TestVanished(t *testing.T) {
	t.Parallel()
	dir := opened(t)
	info, err := os.Stat(string(dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.Vanished(info); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(dir.State()); err != nil {
		t.Fatal(err)
	}
	if err := dir.Vanished(info); err == nil || !strings.Contains(err.Error(), dir.State()) {
		t.Errorf("without its state: %v", err)
	}
	aside := string(dir) + ".aside"
	if err := os.Rename(string(dir), aside); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(string(dir)); err != nil {
		t.Fatal(err)
	}
	if err := dir.Vanished(info); err == nil || !strings.Contains(err.Error(), string(dir)) {
		t.Errorf("another folder of the same name: %v", err)
	}
}
