package sqlite_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waybill/contracts"
	"waybill/services/analytics/internal/store"
	"waybill/services/analytics/internal/store/sqlite"
	"waybill/services/analytics/internal/store/storetest"
)

// fileVariable names the file that this program, started by a test as a process of its own, writes to until it is killed.
const fileVariable = "SQLITE_TEST_FILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(limitedVariable); path != "" {
		fmt.Fprintln(os.Stderr, fillAndGoOn(path))
		os.Exit(0)
	}
	if path := os.Getenv(fileVariable); path != "" {
		fmt.Fprintln(os.Stderr, writeForever(path))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func open(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) store.Store {
		t.Helper()
		return open(t, filepath.Join(t.TempDir(), "an ana?ly%tics#.db"))
	})
}

const batchSize = 500

// batchOf is a batch whose events name it.
func batchOf(n int, who string) []store.Event {
	now := time.Date(2026, 3, 1, 0, 0, n, 0, time.UTC)
	events := make([]store.Event, batchSize)
	for i := range events {
		events[i] = store.Event{ID: fmt.Sprintf("%s/%d/%d", who, n, i), Type: contracts.TypeProductViewed, Timestamp: now, ProcessedAt: now, ProductID: "PROD-001"}
	}
	return events
}

// writeForever stores batch after batch and says of each that it is stored.
func writeForever(path string) error {
	s, err := sqlite.Open(context.Background(), path)
	if err != nil {
		return err
	}
	who := strconv.Itoa(os.Getpid())
	for n := 0; ; n++ {
		if _, err := s.Append(context.Background(), batchOf(n, who)); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(os.Stdout, who, n); err != nil {
			return err
		}
	}
}

// TestKilledWriters kills two processes that write to one file, at no chosen moment, again and again.
func TestKilledWriters(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "analytics.db")
	stored := map[string]int{} // who said of how many batches that they are stored
	for range 4 {
		var wait sync.WaitGroup
		var mu sync.Mutex
		for w := range 2 {
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), fileVariable+"="+path)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			wait.Go(func() {
				lines := bufio.NewScanner(out)
				for seen := 0; lines.Scan(); {
					who, n, _ := strings.Cut(lines.Text(), " ")
					last, err := strconv.Atoi(n)
					if err != nil {
						t.Errorf("the writer says %q", lines.Text())
					}
					mu.Lock()
					stored[who] = last + 1
					mu.Unlock()
					// The batch that follows is on its way by now.
					if seen++; seen == 3+2*w {
						if err := cmd.Process.Kill(); err != nil {
							t.Errorf("kill the writer: %v", err)
						}
					}
				}
				// A writer that ended by itself was not killed in the middle of anything.
				if err := cmd.Wait(); cmd.ProcessState.ExitCode() != -1 {
					t.Errorf("the writer was to be killed, and ended with %v", err)
				}
			})
		}
		wait.Wait()

		s := open(t, path)
		have := map[string]int{}
		for e, err := range s.Events(t.Context(), time.Time{}) {
			if err != nil {
				t.Fatal(err)
			}
			have[e.ID[:strings.LastIndexByte(e.ID, '/')]]++
		}
		for batch, n := range have {
			if n != batchSize {
				t.Errorf("batch %s has %d of %d events", batch, n, batchSize)
			}
		}
		for who, n := range stored {
			for i := range n {
				if key := fmt.Sprintf("%s/%d", who, i); have[key] == 0 {
					t.Errorf("batch %s was reported as stored and is lost", key)
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		whole(t, path)
	}
	if len(stored) != 8 {
		t.Errorf("%d writers stored something, want 8", len(stored))
	}
}

// whole checks the file itself.
func whole(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var verdict string
	if err := db.QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		t.Errorf("integrity check: %q, %v", verdict, err)
	}
}

// TestTwoStores has two stores on one file: whether an event is new is exact for both.
func TestTwoStores(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "analytics.db")
	stores := []*sqlite.Store{open(t, path), open(t, path)}
	var mu sync.Mutex
	news := map[string]int{}
	var wait sync.WaitGroup
	for _, s := range stores {
		wait.Go(func() {
			for n := range 10 {
				events := batchOf(n, "both")
				fresh, err := s.Append(t.Context(), events)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for i, f := range fresh {
					if f {
						news[events[i].ID]++
					}
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if len(news) != 10*batchSize {
		t.Errorf("%d events were new, want %d", len(news), 10*batchSize)
	}
	for id, n := range news {
		if n != 1 {
			t.Errorf("event %s was new %d times", id, n)
		}
	}
}

func TestReopened(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "analytics.db")
	s := open(t, path)
	if _, err := s.Append(t.Context(), batchOf(1, "a")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), batchOf(2, "a")); !errors.Is(err, sqlite.ErrClosed) {
		t.Errorf("append to a closed store: %v", err)
	}
	s = open(t, path)
	fresh, err := s.Append(t.Context(), batchOf(1, "a"))
	if err != nil || fresh[0] {
		t.Errorf("an event of an earlier run: new %v, %v", fresh[0], err)
	}
}

func TestNewerFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "analytics.db")
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if _, err := sqlite.Open(t.Context(), path); err == nil || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("a file of a newer version: %v", err)
	}
}

// TestClosedWhileBusy closes the store under its writers: each append is stored or refused.
func TestClosedWhileBusy(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "analytics.db")
	s := open(t, path)
	var mu sync.Mutex
	done := 0
	var wait sync.WaitGroup
	started := make(chan struct{}, 8)
	for w := range 8 {
		wait.Go(func() {
			for n := 0; ; n++ {
				_, err := s.Append(t.Context(), batchOf(n, strconv.Itoa(w)))
				if errors.Is(err, sqlite.ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				done++
				mu.Unlock()
				if n == 0 {
					started <- struct{}{}
				}
			}
		})
	}
	<-started
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	wait.Wait()
	c, err := open(t, path).Counts(t.Context())
	if err != nil || c.Events != int64(done*batchSize) {
		t.Errorf("%d events are stored (%v), and %d were reported as stored", c.Events, err, done*batchSize)
	}
}
