package saga_test

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/dapr/durabletask-go/api"
	"github.com/dapr/durabletask-go/workflow"

	"waybill/services/fulfillment/internal/operations"
	"waybill/services/fulfillment/internal/record"
)

// Workflows that the engine keeps too long are removed: a completed one and its compensation after a day, a terminated one a week later,
// and a running one never.
func TestThePurgerRemovesWorkflowsThatTheEngineKeeps(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	shipped, refused, waiting, terminated := anOrder("ORD-1"), anOrder("ORD-2"), aLargeOrder("ORD-3"), aLargeOrder("ORD-4")
	refused.ShipTo.Zip = "X-REFUSED"
	w.fulfill(shipped)
	w.fulfill(refused)
	w.start(waiting)
	w.start(terminated)
	w.until(waiting, "an approval", (*record.Saga).AwaitsApproval)
	w.until(terminated, "an approval", (*record.Saga).AwaitsApproval)
	if err := w.client.TerminateWorkflow(t.Context(), terminated.OrderID); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.WaitForWorkflowCompletion(t.Context(), terminated.OrderID); err != nil {
		t.Fatal(err)
	}

	var passed time.Duration
	p := operations.NewPurger(w.client, 24*time.Hour, slog.New(slog.DiscardHandler), func() time.Time { return time.Now().Add(passed) })
	for _, step := range []struct {
		passed time.Duration
		purged int
		left   []string
	}{
		{0, 0, []string{"ORD-1", "ORD-2", "ORD-2:compensation", "ORD-3", "ORD-4"}},
		{23 * time.Hour, 0, []string{"ORD-1", "ORD-2", "ORD-2:compensation", "ORD-3", "ORD-4"}},
		{25 * time.Hour, 3, []string{"ORD-3", "ORD-4"}},
		{7 * 24 * time.Hour, 0, []string{"ORD-3", "ORD-4"}},
		{9 * 24 * time.Hour, 1, []string{"ORD-3"}},
	} {
		passed = step.passed
		purged, err := p.Purge(t.Context())
		if err != nil || purged != step.purged {
			t.Errorf("after %s %d workflows were removed, want %d: %v", passed, purged, step.purged, err)
		}
		found, err := w.client.ListInstanceIDs(t.Context())
		if err != nil || len(found.InstanceIds) != len(step.left) {
			t.Errorf("after %s there are %v, want %v: %v", passed, found.InstanceIds, step.left, err)
		}
	}

	// The engine may be about to remove a workflow that is found for the first time.
	w.fulfill(anOrder("ORD-5"))
	if purged, err := p.Purge(t.Context()); err != nil || purged != 0 {
		t.Errorf("%d workflows were removed that the last purge did not find: %v", purged, err)
	}
	if purged, err := p.Purge(t.Context()); err != nil || purged != 1 {
		t.Errorf("%d workflows were removed, want 1: %v", purged, err)
	}
	if _, err := w.client.FetchWorkflowMetadata(t.Context(), "ORD-5"); !errors.Is(err, api.ErrInstanceNotFound) {
		t.Error(err)
	}
	if m, err := w.client.FetchWorkflowMetadata(t.Context(), "ORD-3"); err != nil || m.RuntimeStatus != workflow.StatusRunning {
		t.Errorf("the waiting saga: %v, %v", m, err)
	}
}
