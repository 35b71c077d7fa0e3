package record_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/record"
)

var start = time.Date(2026, time.March, 14, 9, 0, 0, 0, time.UTC)

const patience = 15 * time.Minute

func at(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }

func begun() *record.Saga {
	e := &record.Saga{}
	e.Begin(contracts.Order{OrderID: "ORD-1001"}, start)
	return e
}

// A saga is stuck when it has run for longer than it should and waits for nobody; waiting for a person is not being stuck,
// however long it lasts, and a decision starts the clock anew.
func TestStates(t *testing.T) {
	t.Parallel()
	want := func(e *record.Saga, minutes int, state record.State, movedBy string) {
		t.Helper()
		if got := e.State(at(minutes).Sub(e.LastMoved()), patience); got != state {
			t.Errorf("after %d minutes it is %s, want %s", minutes, got, state)
		}
		wait := e.Wait(at(minutes).Sub(e.LastMoved()), patience)
		if movedBy == "" {
			if wait != nil {
				t.Errorf("after %d minutes it waits for %s", minutes, wait.For)
			}
			return
		}
		if wait == nil || !strings.Contains(wait.MovedBy, movedBy) || wait.Since.IsZero() {
			t.Errorf("after %d minutes it waits %+v, want it moved by %s", minutes, wait, movedBy)
		}
	}
	e := begun()
	want(e, 1, record.Running, "the saga itself")
	want(e, 16, record.Stuck, "the reconciler")
	e.RequestApproval(at(1), at(60*24))
	want(e, 16, record.Waiting, "POST /v1/approvals/ORD-1001")
	if _, err := e.Decide(true, "approver@example.com", "Known customer.", at(20)); err != nil {
		t.Fatal(err)
	}
	want(e, 30, record.Running, "the saga itself")
	want(e, 36, record.Stuck, "the reconciler")
	e.Block(record.Blocked{Round: 1, Since: at(40), NotUndone: []string{"RefundPayment"}})
	want(e, 400, record.NeedsAttention, "POST /v1/fulfillments/ORD-1001/repair")
	if _, err := e.Repair("operator@example.com", "Mended.", at(500)); err != nil {
		t.Fatal(err)
	}
	want(e, 510, record.Running, "the saga itself")
	e.End(record.Failed, record.Announcement{ID: "ORD-1001:Fulfillment.Failed"}, at(511))
	want(e, 512, record.Ended, "")
}

func TestDecisions(t *testing.T) {
	t.Parallel()
	code := func(err error) string {
		if refused, ok := errors.AsType[*record.Error](err); ok {
			return refused.Code
		}
		return ""
	}
	e := begun()
	if _, err := e.Decide(true, "approver@example.com", "", at(1)); code(err) != "no_approval" {
		t.Errorf("a decision nobody asked for: %v", err)
	}
	e.RequestApproval(at(1), at(10))
	if e.RequestApproval(at(5), at(100)) || !e.Approval.ExpiresAt.Equal(at(10)) {
		t.Error("a repeated request prolonged the approval")
	}
	if e.Settle(false, at(2)) || e.Approval.Decision != nil {
		t.Error("an approval was settled that nobody decided")
	}
	if e.Settle(false, at(11)) {
		t.Error("this process's clock ended an approval, want the workflow engine's")
	}
	late := *e.Approval
	if changed, err := (&record.Saga{StartedAt: start, Approval: &late}).Decide(true, "approver@example.com", "", at(11)); err != nil || !changed {
		t.Errorf("a decision that comes before the saga recorded that the time is up: changed %v, %v", changed, err)
	}
	if !e.Settle(true, at(11)) || e.Settle(true, at(12)) {
		t.Error("an approval that ran out was not settled once")
	}
	if _, err := e.Decide(true, "approver@example.com", "", at(9)); code(err) != "already_decided" {
		t.Errorf("a decision after it had run out: %v", err)
	}
}

// The process that started a saga first may have had a clock that was hours ahead.
func TestARestartCountsWhateverTheFirstStartSays(t *testing.T) {
	t.Parallel()
	e := begun()
	e.StartedAt = at(5 * 60)
	if !e.Restart(at(10)) || !e.LastStarted().Equal(at(10)) {
		t.Errorf("last started at %v, want %v", e.LastStarted(), at(10))
	}
}

func TestTheFirstCancellationAndTheFirstOutcomeStay(t *testing.T) {
	t.Parallel()
	e := begun()
	if !e.Cancel("Ordered twice.", at(1)) || e.Cancel("Changed my mind.", at(2)) || e.Cancellation.Reason != "Ordered twice." {
		t.Errorf("cancellation %+v", e.Cancellation)
	}
	if !e.End(record.Cancelled, record.Announcement{ID: "first"}, at(3)) || e.End(record.Failed, record.Announcement{ID: "second"}, at(4)) ||
		e.Outcome != record.Cancelled || e.Announced.ID != "first" {
		t.Errorf("outcome %s, %+v", e.Outcome, e.Announced)
	}
	failed := begun()
	failed.End(record.Failed, record.Announcement{}, at(1))
	if failed.Cancel("Too late.", at(2)) {
		t.Error("an order that had failed was cancelled")
	}
	if failed.Begin(contracts.Order{OrderID: "ORD-1002"}, at(3)) {
		t.Error("a saga began twice")
	}
}
