package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"waybill/tests/internal/program"
	"waybill/tests/internal/system"
)

const (
	// stoppedFor is how long a process is stopped, fullFor how long its disk is full.
	stoppedFor = 40 * time.Second
	fullFor    = 30 * time.Second
)

// atStep is where the orders are when a process is stopped or its disk fills: where they need it.
func atStep(process string) string {
	switch {
	case strings.HasPrefix(process, "orders"):
		return "ValidatePayment"
	case strings.HasPrefix(process, "notifications"):
		return "UpdateOrderStatus"
	default:
		return "ProcessShipment"
	}
}

// Each process in turn is stopped (SIGSTOP) for a while with orders in flight (-matrix stop), or finds the disk under its data
// full (-matrix disk). Afterwards all orders come to their end, as after a kill, without anybody's help. It takes a minute or
// more for each process, so neither is part of a usual run: -run 'TestStoppedAndFull/broker$' tries one process alone.
func TestStoppedAndFull(t *testing.T) {
	if *matrix != "stop" && *matrix != "disk" {
		t.Skip("takes minutes: -matrix stop, -matrix disk")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute)
	defer cancel()
	out := &program.Tail{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the runner said:\n%s", out)
		}
	})
	start := system.Start
	if *matrix == "disk" {
		start = system.StartOnDisks
	}
	s, err := start(ctx, runner, t.TempDir(), out, "STEP_ATTEMPTS=9", "STEP_LAST_RETRY=5s", "SEND_FIRST_RETRY=200ms", "SEND_LAST_RETRY=2s")
	if errors.Is(err, system.ErrNoDisks) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	follow := followBus(ctx, t, s)
	var table strings.Builder
	for _, process := range processes {
		if *matrix == "disk" && !system.HasDisk(process) {
			fmt.Fprintf(&table, "| %s | – | it writes nothing to a disk | | | | |\n", process)
			continue
		}
		t.Run(process, func(t *testing.T) {
			for _, m := range moments(s) {
				if m.step != atStep(process) {
					continue
				}
				row, err := hitAt(ctx, s, follow, process, m, func(ctx context.Context, process string) (time.Time, error) {
					if *matrix == "disk" {
						return s.Fill(ctx, process, fullFor)
					}
					return s.Pause(ctx, process, stoppedFor)
				})
				if err != nil {
					t.Fatal(err)
				}
				told := "each once"
				if row.resent > 0 {
					told = fmt.Sprintf("%d again", row.resent)
				}
				fmt.Fprintf(&table, "| %s | %s | %.1f s | %.1f s | `%s` | balance | %s |\n", process, row.step, row.back.Seconds(), row.whole.Seconds(), row.status, told)
			}
		})
	}
	t.Logf("times are from the end of the fault:\n| process | at | back | whole | status | ledgers | messages |\n| --- | --- | ---: | ---: | --- | --- | --- |\n%s", table.String())
}
