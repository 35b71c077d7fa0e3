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

const stuckAfter = 15 * time.Minute

func at(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }

func begun() *record.Saga {
	s := &record.Saga{}
	s.Begin(contracts.Order{OrderID: "ORD-1001"}, start)
	return s
}

// A saga is stuck if it has not moved for too long and waits for no person. A decision starts the time again.
func TestStates(t *testing.T) {
	t.Parallel()
	want := func(s *record.Saga, minutes int, state record.State, movedBy string) {
		t.Helper()
		if got := s.State(at(minutes).Sub(s.LastMoved()), stuckAfter); got != state {
			t.Errorf("after %d minutes it is %s, want %s", minutes, got, state)
		}
		wait := s.Wait(at(minutes).Sub(s.LastMoved()), stuckAfter)
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
	s := begun()
	want(s, 1, record.Running, "the saga itself")
	want(s, 16, record.Stuck, "the reconciler")
	s.RequestApproval(at(1), at(60*24))
	want(s, 16, record.Waiting, "POST /v1/approvals/ORD-1001")
	if _, err := s.Decide(true, "approver@example.com", "Known customer.", at(20)); err != nil {
		t.Fatal(err)
	}
	want(s, 30, record.Running, "the saga itself")
	want(s, 36, record.Stuck, "the reconciler")
	s.Block(record.Blocked{Round: 1, Since: at(40), NotUndone: []string{"RefundPayment"}})
	want(s, 400, record.NeedsAttention, "POST /v1/fulfillments/ORD-1001/repair")
	if _, err := s.Repair("operator@example.com", "The provider answers again.", at(500)); err != nil {
		t.Fatal(err)
	}
	want(s, 510, record.Running, "the saga itself")
	s.End(record.Failed, record.Announcement{ID: "ORD-1001:Fulfillment.Failed"}, at(511))
	want(s, 512, record.Ended, "")
}

func TestDecisions(t *testing.T) {
	t.Parallel()
	code := func(err error) string {
		if refused, ok := errors.AsType[*record.Error](err); ok {
			return refused.Code
		}
		return ""
	}
	s := begun()
	if _, err := s.Decide(true, "approver@example.com", "", at(1)); code(err) != "no_approval" {
		t.Errorf("a decision without a request: %v", err)
	}
	s.RequestApproval(at(1), at(10))
	if s.RequestApproval(at(5), at(100)) || !s.Approval.ExpiresAt.Equal(at(10)) {
		t.Error("a repeated request extended the approval")
	}
	if s.Settle(false, at(2)) || s.Approval.Decision != nil {
		t.Error("an approval was settled without a decision")
	}
	if s.Settle(false, at(11)) {
		t.Error("this process's clock ended an approval; only the workflow engine's may")
	}
	late := *s.Approval
	if changed, err := (&record.Saga{StartedAt: start, Approval: &late}).Decide(true, "approver@example.com", "", at(11)); err != nil || !changed {
		t.Errorf("a decision before the saga recorded the expiry: changed %v, %v", changed, err)
	}
	if !s.Settle(true, at(11)) || s.Settle(true, at(12)) {
		t.Error("an expired approval was not settled exactly once")
	}
	if _, err := s.Decide(true, "approver@example.com", "", at(9)); code(err) != "already_decided" {
		t.Errorf("a decision after the expiry: %v", err)
	}
}

// The clock of the process that started a saga first may have been hours ahead.
func TestARestartCountsEvenIfTheFirstStartIsLater(t *testing.T) {
	t.Parallel()
	s := begun()
	s.StartedAt = at(5 * 60)
	if !s.Restart(at(10)) || !s.LastStarted().Equal(at(10)) {
		t.Errorf("last started at %v, want %v", s.LastStarted(), at(10))
	}
}

func TestTheFirstCancellationAndTheFirstOutcomeStay(t *testing.T) {
	t.Parallel()
	s := begun()
	if !s.Cancel("Ordered twice.", at(1)) || s.Cancel("Changed my mind.", at(2)) || s.Cancellation.Reason != "Ordered twice." {
		t.Errorf("cancellation %+v", s.Cancellation)
	}
	if !s.End(record.Cancelled, record.Announcement{ID: "first"}, at(3)) || s.End(record.Failed, record.Announcement{ID: "second"}, at(4)) ||
		s.Outcome != record.Cancelled || s.Announced.ID != "first" {
		t.Errorf("outcome %s, %+v", s.Outcome, s.Announced)
	}
	failed := begun()
	failed.End(record.Failed, record.Announcement{}, at(1))
	if failed.Cancel("Changed my mind.", at(2)) {
		t.Error("an order that had failed was cancelled")
	}
	if failed.Begin(contracts.Order{OrderID: "ORD-1002"}, at(3)) {
		t.Error("a saga began twice")
	}
}
