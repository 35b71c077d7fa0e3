package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"waybill/tests/internal/figures"
	"waybill/tests/internal/program"
	"waybill/tests/internal/system"
)

const (
	// stoppedFor is how long a process is stopped, fullFor how long its disk stays full.
	stoppedFor = 40 * time.Second
	fullFor    = 30 * time.Second
	// The same in a normal run, at least.
	quicklyStoppedFor = 15 * time.Second
	quicklyFullFor    = 10 * time.Second
)

// atStep is the step that orders have reached when a process is stopped or its disk fills: one at which they need it.
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

// startForFaults starts a system for these tests and stops it when the test ends. If disks is set, each process that stores data has a
// disk of its own. The error is system.ErrNoDisks where the machine does not allow that.
func startForFaults(ctx context.Context, t *testing.T, disks bool) (*system.System, error) {
	t.Helper()
	out := &program.Tail{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the runner said:\n%s", out)
		}
	})
	start := system.Start
	if disks {
		start = system.StartOnDisks
	}
	s, err := start(ctx, runner, t.TempDir(), out, "STEP_ATTEMPTS=9", "STEP_LAST_RETRY=5s", "SEND_FIRST_RETRY=200ms", "SEND_LAST_RETRY=2s")
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s, nil
}

// injectFault brings orders to the step at which they need the process, lets the fault last until during returns, and checks how the
// orders end.
func injectFault(ctx context.Context, s *system.System, follow *bus, process string, during func(ctx context.Context) error,
	fault func(ctx context.Context, process string, during func(ctx context.Context) error) (time.Time, error),
) (result, error) {
	for _, m := range moments(s) {
		if m.step == atStep(process) {
			return hitAt(ctx, s, follow, process, m, func(ctx context.Context, process string) (time.Time, error) {
				return fault(ctx, process, during)
			})
		}
	}
	return result{}, fmt.Errorf("there is no step %s", atStep(process))
}

// lasting returns when d is over and everything that must happen meanwhile has happened.
func lasting(d time.Duration, meanwhile ...func(ctx context.Context) error) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		all, ctx := errgroup.WithContext(ctx)
		all.Go(func() error {
			if !wait(ctx, d) {
				return ctx.Err()
			}
			return nil
		})
		for _, f := range meanwhile {
			all.Go(func() error { return f(ctx) })
		}
		return all.Wait()
	}
}

// unready reports whether the service says that it is not ready, with all these words in its answer.
func unready(ctx context.Context, s *system.System, service string, words ...string) bool {
	code, _, answer, err := call(ctx, http.MethodGet, s.App(service).URL+"/readyz", nil)
	there := err == nil && code == http.StatusServiceUnavailable
	for _, word := range words {
		there = there && strings.Contains(string(answer), word)
	}
	return there
}

// The sidecar of fulfillment is stopped (SIGSTOP) with orders in flight. Fulfillment is not ready, orders accepts one more order,
// and all of them end when the sidecar continues. Then the disk with the stores of orders is full: orders is not ready, and an
// order that is placed meanwhile is either refused without being stored, or accepted and fulfilled.
func TestAStoppedSidecarAndAFullDisk(t *testing.T) {
	t.Parallel()
	if *matrix != "quick" {
		t.Skip("TestStoppedAndFull does more")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*testTimeout)
	defer cancel()
	s, noDisks := startForFaults(ctx, t, true)
	if errors.Is(noDisks, system.ErrNoDisks) {
		var err error
		if s, err = startForFaults(ctx, t, false); err != nil {
			t.Fatal(err)
		}
	} else if noDisks != nil {
		t.Fatal(noDisks)
	}
	follow := followBus(ctx, t, s)

	t.Run("stopped sidecar", func(t *testing.T) {
		setStock(t, s, "PROD-STOP", 1)
		var id string
		row, err := injectFault(ctx, s, follow, "fulfillment-sidecar", lasting(quicklyStoppedFor,
			func(ctx context.Context) error {
				for !unready(ctx, s, "fulfillment") {
					if !wait(ctx, 50*time.Millisecond) {
						return errors.New("fulfillment stays ready while its sidecar is stopped")
					}
				}
				return nil
			},
			func(ctx context.Context) (err error) {
				id, err = place(ctx, s, "stop", orderBody("CUST-STOP", 10, line("PROD-STOP", 1, 10)))
				return err
			}), s.Pause)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := await(ctx, s, id, "fulfilled"); err != nil {
			t.Fatal(err)
		}
		wantBooks(t, s, id, fulfilledBooks)
		t.Logf("back after %s, whole after %s", row.back, row.whole)
	})

	t.Run("full disk", func(t *testing.T) {
		if noDisks != nil {
			t.Skip(noDisks)
		}
		const onHand = 1000
		run := rand.Text()[:8]
		setStock(t, s, "PROD-FULL", onHand)
		body := func(id string) map[string]any {
			b := orderBody("CUST-FULL", 10, line("PROD-FULL", 1, 10))
			b["order_id"] = id
			return b
		}
		var accepted, refused []string
		row, err := injectFault(ctx, s, follow, "orders-sidecar", lasting(quicklyFullFor, func(ctx context.Context) error {
			// The first order may be accepted: SQLite still has space in its log.
			for n, said := 0, false; !said || len(refused) == 0; n++ {
				var placing errgroup.Group // together, because orders tries each for some seconds before it refuses it
				ids, codes := make([]string, 5), make([]int, 5)
				for i := range ids {
					ids[i] = fmt.Sprintf("full-%s-%d-%d", run, n, i)
					placing.Go(func() error {
						code, _, answer, err := call(ctx, http.MethodPost, s.App("orders").URL+"/v1/orders", body(ids[i]), "Idempotency-Key", ids[i])
						if err != nil || code != http.StatusAccepted && code/100 != 5 {
							return errors.Join(fmt.Errorf("an order on a full disk: %d %s, want 202 or 5xx", code, answer), err)
						}
						codes[i] = code
						return nil
					})
				}
				if err := placing.Wait(); err != nil {
					return err
				}
				for i, id := range ids {
					if codes[i] == http.StatusAccepted {
						accepted = append(accepted, id)
					} else {
						refused = append(refused, id)
					}
				}
				said = said || unready(ctx, s, "orders", "state_store", "disk")
				if !wait(ctx, 200*time.Millisecond) {
					return fmt.Errorf("%d orders were accepted and %d refused; orders said that it is not ready: %t", len(accepted), len(refused), said)
				}
			}
			return nil
		}), s.Fill)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("back after %s, whole after %s; of the orders placed meanwhile %d were accepted and %d refused", row.back, row.whole, len(accepted), len(refused))
		for _, id := range refused {
			if o, code, err := read(ctx, s, id); err != nil || code != http.StatusNotFound {
				t.Errorf("%s was refused and is there: %d %+v %v", id, code, o, err)
			}
			if _, err := place(ctx, s, id, body(id)); err != nil {
				t.Fatal(err)
			}
		}
		all := slices.Concat(accepted, refused)
		for _, id := range all {
			if _, err := await(ctx, s, id, "fulfilled"); err != nil {
				t.Fatal(err)
			}
			wantBooks(t, s, id, fulfilledBooks)
		}
		if got, want := stockOf(t, s, "PROD-FULL"), (stock{OnHand: onHand - len(all), Shipped: len(all)}); got != want {
			t.Errorf("stock %+v, want %+v", got, want)
		}
	})
}

// Each process in turn is stopped (SIGSTOP) with orders in flight (-matrix stop), or the disk with its data is full (-matrix
// disk). Afterwards all orders end as they do after a kill, without help. One process takes a minute or more, so neither is part
// of a normal run. -run 'TestStoppedAndFull/broker$' tries one process alone.
func TestStoppedAndFull(t *testing.T) {
	if *matrix != "stop" && *matrix != "disk" {
		t.Skip("takes minutes: -matrix stop, -matrix disk")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute)
	defer cancel()
	full := *matrix == "disk"
	s, err := startForFaults(ctx, t, full)
	if errors.Is(err, system.ErrNoDisks) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	follow := followBus(ctx, t, s)
	fault, during, part := s.Pause, lasting(stoppedFor), "stops"
	said := fmt.Sprintf("Each process stops for %s", stoppedFor)
	if full {
		fault, during, part = s.Fill, lasting(fullFor), "disks"
		said = fmt.Sprintf("Each disk is full for %s", fullFor)
	}
	var table strings.Builder
	fmt.Fprintf(&table, "%s, with %d orders. Run on %s.\n\n| process | at | back | whole | status | ledgers | messages |\n| --- | --- | ---: | ---: | --- | --- | --- |\n",
		said, *matrixGrain, machine())
	complete := true
	for _, process := range processes {
		if full && !system.HasDisk(process) {
			continue
		}
		tried := false
		t.Run(process, func(t *testing.T) {
			row, err := injectFault(ctx, s, follow, process, during, fault)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&table, "| %s | %s | %s |\n", process, row.step, row.outcome())
			tried = true
		})
		complete = complete && tried
	}
	t.Logf("times are from the end of the fault\n%s", table.String())
	if *matrixPage != "" && complete && !t.Failed() {
		if err := figures.Replace(*matrixPage, part, "test-faults", table.String()); err != nil {
			t.Fatal(err)
		}
	}
}

// The page has a row for every process that can stop or has a disk, and says why each other process has none.
func TestFaultsOnThePageAreComplete(t *testing.T) {
	t.Parallel()
	root, err := system.Root()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(root, "docs", "failure-matrix.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"stops", "disks"} {
		_, table, found := strings.Cut(string(content), "<!-- measured "+part+": begin (make test-faults writes this part) -->\n")
		table, _, ended := strings.Cut(table, "<!-- measured "+part+": end -->\n")
		if !found || !ended {
			t.Errorf("docs/failure-matrix.md lacks the marks of the part %s", part)
			continue
		}
		_, reasons, _ := strings.Cut(string(content), "\nThese processes have no row:\n")
		reasons, _, _ = strings.Cut(reasons, "<!--")
		for _, process := range processes {
			if part == "stops" || system.HasDisk(process) {
				if !strings.Contains(table, "\n| "+process+" | ") {
					t.Errorf("docs/failure-matrix.md, %s: no row for %s; run make test-faults", part, process)
				}
			} else if !strings.Contains(reasons, "`"+process+"`") {
				t.Errorf("docs/failure-matrix.md does not say why %s has no disk", process)
			}
		}
	}
}
