// Package e2e drives the whole system, real Dapr and all, over REST and the bus.
package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"waybill/tests/internal/program"
	"waybill/tests/internal/system"
)

// waybill is the system that the tests share. A test that breaks more than one process starts its own system.
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
	out := &program.Tail{}
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
