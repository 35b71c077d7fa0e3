//go:build unix

package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"waybill/services/analytics/internal/store/sqlite"
)

// limitedVariable names the file that this program, started by a test as a process of its own, may not make larger than limit.
const limitedVariable = "SQLITE_TEST_LIMITED_FILE"

// A store whose file cannot grow reports it, keeps what it acknowledged, and goes on by itself when there is space again. The
// limit on a process's files needs no rights, which a full file system would.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "analytics.db")
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), limitedVariable+"="+path)
	said, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(said)) != "<nil>" {
		t.Errorf("%v: %s", err, said)
	}
}

func fillAndGoOn(path string) error {
	ctx := context.Background()
	s, err := sqlite.Open(ctx, path)
	if err != nil {
		return err
	}
	if err := s.Writable(ctx); err != nil {
		return fmt.Errorf("a new store is not writable: %w", err)
	}
	// The kernel would end the process by a signal.
	signal.Ignore(syscall.SIGXFSZ)
	var unlimited syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &unlimited); err != nil {
		return err
	}
	limited := syscall.Rlimit{Cur: 2 << 20, Max: unlimited.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limited); err != nil {
		return err
	}
	acknowledged := 0
	for ; ; acknowledged++ {
		if _, err = s.Append(ctx, batchOf(acknowledged, "limited")); err != nil {
			break
		}
	}
	if err := s.Writable(ctx); err == nil {
		return errors.New("a store that stores nothing is writable")
	}
	counts, err := s.Counts(ctx)
	if err != nil || counts.Events != int64(acknowledged*batchSize) {
		return fmt.Errorf("%d batches were acknowledged, and %d events are stored: %w", acknowledged, counts.Events, err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &unlimited); err != nil {
		return err
	}
	fresh, err := s.Append(ctx, batchOf(acknowledged, "limited"))
	if err != nil || len(fresh) != batchSize || !fresh[0] {
		return fmt.Errorf("with space again: %w", err)
	}
	if err := s.Writable(ctx); err != nil {
		return fmt.Errorf("with space again it is not writable: %w", err)
	}
	return s.Close()
}
