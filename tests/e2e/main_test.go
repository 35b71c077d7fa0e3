// Package e2e drives the whole system, real Dapr and all, over REST and the bus.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"waybill/tests/internal/system"
)

// waybill is the system that the tests share; a test that needs to break more than a process starts its own.
var (
	waybill *system.System
	runner  string
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx := context.Background()
	work, err := os.MkdirTemp("", "waybill-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := 1
	defer func() {
		if code != 0 {
			fmt.Fprintln(os.Stderr, "logs and state are kept in", work)
			return
		}
		os.RemoveAll(work)
	}()
	if runner, err = system.Build(ctx, work); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	out := &output{}
	if waybill, err = system.Start(ctx, runner, filepath.Join(work, "data"), out); err != nil {
		fmt.Fprintf(os.Stderr, "%v\nthe runner said:\n%s", err, out)
		return 1
	}
	code = m.Run()
	if err := waybill.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the system:", err)
		code = 1
	}
	if code != 0 {
		fmt.Fprintf(os.Stderr, "the runner said:\n%s", out)
	}
	return code
}

// output keeps the end of what the runner prints, to be shown when something failed.
type output struct {
	mu   sync.Mutex
	tail bytes.Buffer
}

const keptOutput = 64 << 10

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tail.Write(p)
	if over := o.tail.Len() - keptOutput; over > 0 {
		o.tail.Next(over)
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tail.String()
}
