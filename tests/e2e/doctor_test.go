package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	_ "modernc.org/sqlite" // plants differences in the files of the state stores

	"waybill/tests/internal/program"
	"waybill/tests/internal/system"
)

// doctorProgram is built once for all tests.
var doctorProgram = sync.OnceValues(func() (string, error) {
	top, err := system.Root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(runner), "doctor")
	build := exec.Command("go", "build", "-o", path, "./doctor")
	build.Dir = filepath.Join(top, "devrun")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the doctor: %w\n%s", err, out)
	}
	return path, nil
})

// diagnosis is what the tests read of the doctor's report.
type diagnosis struct {
	Running     bool           `json:"running"`
	Counts      map[string]int `json:"counts"`
	InFlight    int            `json:"in_flight"`
	Notes       []string       `json:"notes"`
	Differences []struct {
		Code    string   `json:"code"`
		Order   string   `json:"order_id"`
		Product string   `json:"product_id"`
		What    string   `json:"what"`
		Where   []string `json:"where"`
		Mend    string   `json:"mend"`
	} `json:"differences"`
}

func (d *diagnosis) names() []string {
	names := make([]string, 0, len(d.Differences))
	for _, f := range d.Differences {
		names = append(names, f.Code+" "+f.Order+f.Product)
	}
	slices.Sort(names)
	return names
}

// doctor runs the doctor and checks that its exit code agrees with its report.
func doctor(ctx context.Context, t *testing.T, args ...string) *diagnosis {
	t.Helper()
	path, err := doctorProgram()
	if err != nil {
		t.Fatal(err)
	}
	var out, progress bytes.Buffer
	cmd := exec.CommandContext(ctx, path, append([]string{"--json"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &progress
	err = cmd.Run()
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	var d diagnosis
	if err := json.Unmarshal(out.Bytes(), &d); err != nil {
		t.Fatalf("the doctor ended with %d: %v\n%s%s", code, err, &out, &progress)
	}
	if want := min(1, len(d.Differences)); code != want {
		t.Errorf("the doctor ended with %d, want %d; it said\n%s%s", code, want, &out, &progress)
	}
	return &d
}

func wantHealthy(t *testing.T, d *diagnosis) {
	t.Helper()
	for _, f := range d.Differences {
		t.Errorf("%s %s%s: %s (%v)", f.Code, f.Order, f.Product, f.What, f.Where)
	}
	if d.Counts["orders"] == 0 || d.Counts["sagas"] == 0 {
		t.Errorf("nothing was compared: %v", d.Counts)
	}
}

// graceOfRunning is long enough for events that are on their way on a busy machine.
const graceOfRunning = "10s"

// On a healthy system the doctor finds no difference, while it runs and after it was stopped. Then differences are planted in the
// stores: the doctor finds and names each of them and nothing else. When the system runs again, it repairs what can be repaired.
func TestTheDoctorFindsEachPlantedDifference(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*testTimeout)
	defer cancel()
	out := &program.Tail{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the runner said:\n%s", out)
		}
	})
	environment := []string{"RECONCILE_INTERVAL=2s", "RECONCILE_GRACE=2s", "STUCK_AFTER=20s", "STEP_ATTEMPTS=5"}
	data := t.TempDir()
	s, err := system.Start(ctx, runner, data, out, environment...)
	if err != nil {
		t.Fatal(err)
	}
	setStock(t, s, "PROD-DOC", 100)
	setStock(t, s, "PROD-DOC-2", 5)
	ids := make([]string, 13)
	for i := range ids {
		body := orderBody(fmt.Sprintf("CUST-DOC-%d", i), 10, line("PROD-DOC", 1, 10))
		if i == 6 || i == 10 {
			body["shipping_address"] = map[string]any{"street": "123 Test St", "city": "Test City", "state": "TS", "zip": "X-REFUSED"}
		}
		if ids[i], err = place(ctx, s, fmt.Sprintf("doc-%d", i), body); err != nil {
			t.Fatal(err)
		}
	}
	forgotten, deleted, lost := aLargeOrder(ctx, t, s, "doc-forgotten"), aLargeOrder(ctx, t, s, "doc-deleted"), aLargeOrder(ctx, t, s, "doc-lost")
	for i, id := range ids {
		status := "fulfilled"
		if i == 6 || i == 10 {
			status = "fulfillment_failed"
		}
		if _, err := await(ctx, s, id, status); err != nil {
			t.Fatal(err)
		}
	}
	running := doctor(ctx, t, "--data", data, "--grace", graceOfRunning)
	wantHealthy(t, running)
	if !running.Running {
		t.Error("the doctor took a running system for one that is stopped")
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	stopped := doctor(ctx, t, "--data", data, "--grace", "0s")
	wantHealthy(t, stopped)
	if stopped.Running {
		t.Error("the doctor took a system that is stopped for one that runs")
	}

	p := &planter{t: t, data: data}
	f, o, n := "fulfillment.statestore", "orders.statestore", "notifications.statestore"
	p.sql(f, "DELETE FROM state WHERE key = ?", "fulfillment||saga:"+ids[1])
	p.sql(o, "DELETE FROM state WHERE key = ?", "orders||order:"+ids[2])
	p.sql(o, "UPDATE state SET value = json_set(value, '$.status', 'cancelled') WHERE key = ?", "orders||order:"+ids[3])
	p.sql(o, "UPDATE state SET value = json_set(value, '$.status', 'confirmed', '$.timeline', json_array(json_extract(value, '$.timeline[0]'), json_extract(value, '$.timeline[1]'))) WHERE key = ?", "orders||order:"+ids[4])
	p.sql(o, "UPDATE state SET value = json_set(value, '$.entries', json_array()) WHERE key LIKE 'orders||backlog:orders:%'")
	p.sql(o, "UPDATE state SET value = json_set(value, '$.entries', json_array(json_object('n', 0, 'id', ?), json_object('n', 1, 'id', ?), json_object('n', 2, 'id', ?))) WHERE key = (SELECT min(key) FROM state WHERE key LIKE 'orders||backlog:orders:%')", forgotten, deleted, lost)
	p.sql(f, "UPDATE state SET value = json_remove(value, '$.approval') WHERE key = ?", "fulfillment||saga:"+forgotten)
	p.sql(f, "DELETE FROM state WHERE key = ?", "fulfillment||saga:"+deleted)
	// It waits for a person, so it is reconciled only every five minutes.
	p.sql(o, "UPDATE state SET value = json_set(value, '$.updated_at', '2026-01-01T00:00:00Z') WHERE key = ?", "orders||order:"+deleted)
	p.sql(f, "UPDATE state SET value = json_remove(value, '$.refunds') WHERE key = ?", "fulfillment||payment:"+ids[6])
	p.sql(f, "UPDATE state SET value = json_set(value, '$.refunds', json_extract(value, '$.charges')) WHERE key = ?", "fulfillment||payment:"+ids[7])
	p.sql(f, "UPDATE state SET value = json_insert(value, '$.charges[#]', json_extract(value, '$.charges[0]')) WHERE key = ?", "fulfillment||payment:"+ids[8])
	p.sql(n, "DELETE FROM state WHERE key = ?", "notifications||order-messages:"+ids[9])
	p.sql(f, "UPDATE state SET value = json_set(value, '$.state', 'reserved', '$.derives', json('true')) WHERE key = ?", "fulfillment||reservation:"+ids[10])
	p.sql(f, "UPDATE state SET value = json_set(value, '$.held', json_object(':settled', 3)) WHERE key = ?", "fulfillment||stock:PROD-DOC")
	p.sql(f, "UPDATE state SET value = json_set(value, '$.on_hand', -3) WHERE key = ?", "fulfillment||stock:PROD-DOC-2")
	p.sql(o, "DELETE FROM state WHERE key = ?", "orders||customer:CUST-DOC-11")
	p.sql(o, `UPDATE state SET value = '"spoiled"' WHERE key = ?`, "orders||order:"+ids[12])
	p.sql("fulfillment.workflowstore", "DELETE FROM state WHERE key LIKE '%||' || ? || '||%'", lost)
	p.sql(f, "INSERT INTO state (key, value, is_binary, etag) VALUES ('fulfillment||shipment:GHOST-1', ?, 0, 'e')", `{"order_id":"GHOST-1","booked":[{"key":"k","shipment":{"tracking_number":"UPS-GHOST"}}]}`)
	want := []string{
		"order_without_saga " + ids[1], "order_without_saga " + deleted, "saga_without_order " + ids[2], "outcome_differs " + ids[3], "outcome_not_told " + ids[4], "order_not_in_backlog " + ids[4],
		"approval_missing " + forgotten, "charged_not_refunded " + ids[6], "refunded_and_shipped " + ids[7], "charged_twice " + ids[8], "message_missing " + ids[9],
		"reservation_of_ended_order " + ids[10], "reserved_differs PROD-DOC", "on_hand_negative PROD-DOC-2", "not_in_customers_list " + ids[11],
		"document_unreadable " + ids[12], "lost_in_engine " + lost, "shipment_without_order GHOST-1",
	}
	slices.Sort(want)
	found := doctor(ctx, t, "--data", data, "--grace", "0s")
	if diff := cmp.Diff(want, found.names()); diff != "" {
		t.Errorf("differences (-planted +found):\n%s", diff)
	}
	for _, d := range found.Differences {
		if d.What == "" || d.Mend == "" || len(d.Where) == 0 {
			t.Errorf("something is missing of %+v", d)
		}
	}

	// The system runs again and repairs what it can.
	if s, err = system.Start(ctx, runner, data, out, environment...); err != nil {
		t.Fatal(err)
	}
	mended := []string{"saga_without_order " + ids[2], "outcome_not_told " + ids[4], "order_not_in_backlog " + ids[4], "approval_missing " + forgotten, "order_without_saga " + deleted, "lost_in_engine " + lost}
	doctor(ctx, t, "--data", data, "--grace", "1s", "--recreate")
	for _, id := range []string{ids[2], ids[4]} {
		if _, err := await(ctx, s, id, "fulfilled"); err != nil {
			t.Error(err)
		}
	}
	for _, id := range []string{forgotten, deleted, lost} {
		for {
			code, _, answer, err := call(ctx, http.MethodPost, s.App("fulfillment").URL+"/v1/approvals/"+id, decision(true, "approver@example.com"))
			if err == nil && code == http.StatusAccepted {
				break
			}
			if !wait(ctx, 100*time.Millisecond) {
				t.Fatalf("approve %s: %d %s %v", id, code, answer, err)
			}
		}
		if _, err := await(ctx, s, id, "fulfilled"); err != nil {
			t.Error(err)
		}
		wantBooks(t, s, id, fulfilledBooks)
	}
	left := slices.DeleteFunc(want, func(name string) bool { return slices.Contains(mended, name) })
	if diff := cmp.Diff(left, doctor(ctx, t, "--data", data, "--grace", graceOfRunning).names()); diff != "" {
		t.Errorf("differences of the system that runs again (-want +got):\n%s", diff)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
}

// planter changes the stores of a stopped system.
type planter struct {
	t    *testing.T
	data string
}

func (p *planter) sql(store, query string, args ...any) {
	p.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(p.data, "state", store+".db"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer db.Close()
	result, err := db.ExecContext(p.t.Context(), query, args...)
	if err != nil {
		p.t.Fatal(err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		p.t.Fatalf("nothing was planted by %s: %d, %v", strings.TrimSpace(query), n, err)
	}
}
