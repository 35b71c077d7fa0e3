// Package record defines the saga record: what fulfilment stores of an order's saga beside the workflow engine. It holds the order, the
// decisions of people, what the saga waits for, and how it ended. The engine forgets a finished workflow after a while, and an event
// that is raised to it does not prove who raised it; so a decision counts only once the record holds it. The package does no I/O.
package record

import (
	"encoding/json"
	"time"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/partner"
)

// Change calls alter with an order's record, writes it if alter returns true, and returns it as it is stored then. It may call alter
// several times.
type Change func(alter func(*Saga) (bool, error)) (Saga, error)

// Saga is the record of one order's saga. Its methods are its rules: each reports whether it changed the record, and an *Error is a
// refusal.
type Saga struct {
	Order contracts.Order `json:"order"`
	// StartedAt is zero while only a cancellation has arrived, ahead of the order itself.
	StartedAt    time.Time     `json:"started_at,omitzero"`
	Cancellation *Cancellation `json:"cancellation,omitempty"`
	Approval     *Approval     `json:"approval,omitempty"`
	// BookedAt is when the carrier confirmed the parcel. A cancellation that is recorded before it wins; one that is recorded after it
	// is too late.
	BookedAt time.Time `json:"booked_at,omitzero"`
	// Blocked says why the saga needs attention, if it does.
	Blocked *Blocked `json:"halt,omitempty"`
	// Repairs are all repairs that people ordered. The n-th belongs to the n-th time that the saga was blocked.
	Repairs []Repair `json:"repairs,omitempty"`
	// Restarts is how often the saga was started again because the engine had lost it, RestartedAt when it was last.
	Restarts    int       `json:"restarts,omitempty"`
	RestartedAt time.Time `json:"restarted_at,omitzero"`
	EndedAt     time.Time `json:"ended_at,omitzero"`
	Outcome     Outcome   `json:"outcome,omitempty"`
	// Announced is the event that announced the outcome. It is published again for a consumer that missed it.
	Announced *Announcement `json:"announced,omitempty"`
}

// Cancellation is a customer's request to cancel the order.
type Cancellation struct {
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
	// Late says that the parcel was booked, or the saga had ended, when the cancellation was recorded.
	Late bool `json:"late,omitempty"`
}

// Approval is a request that a person approve the order, and the decision once there is one.
type Approval struct {
	RequestedAt time.Time `json:"requested_at"`
	ExpiresAt   time.Time `json:"expires_at"`
	Decision    *Decision `json:"decision,omitempty"`
}

// Decision ends an approval. Code is why the order was not approved. Approver is empty if the approval expired or a cancellation
// came first.
type Decision struct {
	Approved bool      `json:"approved"`
	Code     string    `json:"code,omitempty"`
	Approver string    `json:"approver,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	At       time.Time `json:"at"`
}

// Codes of a decision that does not approve.
const (
	CodeDenied   = "approval_denied"
	CodeTimedOut = "approval_timed_out"
	// CodeCancelled also ends a saga outside an approval.
	CodeCancelled = "cancelled"
)

// Blocked describes a saga that waits for a repair because a compensation failed.
type Blocked struct {
	// Round is 1 for the first time.
	Round int       `json:"round"`
	Since time.Time `json:"since"`
	// Failure is why the saga was compensating.
	Failure   partner.Reason `json:"failure"`
	Undone    []string       `json:"undone,omitempty"`
	NotUndone []string       `json:"not_undone"`
}

// Repair is a person's order to try failed compensations again.
type Repair struct {
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// Outcome is how a saga ended.
type Outcome string

// Outcomes.
const (
	Completed Outcome = "completed"
	Failed    Outcome = "failed"
	Cancelled Outcome = "cancelled"
)

// Announcement is an event as it was published.
type Announcement struct {
	ID   string          `json:"id"`
	Type string          `json:"type"`
	At   time.Time       `json:"at"`
	Data json.RawMessage `json:"data"`
}

// Started reports whether the order's saga was started.
func (s *Saga) Started() bool { return !s.StartedAt.IsZero() }

// LastStarted is when the saga was last started. It does not compare the two times, because the clock of the process that started the
// saga first may have been ahead.
func (s *Saga) LastStarted() time.Time {
	if !s.RestartedAt.IsZero() {
		return s.RestartedAt
	}
	return s.StartedAt
}

// Ended reports whether the saga has ended.
func (s *Saga) Ended() bool { return !s.EndedAt.IsZero() }

// AwaitsApproval reports whether a person has yet to decide.
func (s *Saga) AwaitsApproval() bool {
	return !s.Ended() && !s.Cancelled() && s.Approval != nil && s.Approval.Decision == nil
}

// Cancelled reports whether a cancellation was recorded in time. Then nothing more is charged, reserved, approved or shipped, and
// completed steps are compensated.
func (s *Saga) Cancelled() bool { return s.Cancellation != nil && !s.Cancellation.Late }

// AwaitsRepair reports whether the saga is blocked and no person has ordered a repair yet.
func (s *Saga) AwaitsRepair() bool {
	return !s.Ended() && s.Blocked != nil && len(s.Repairs) < s.Blocked.Round
}

// Begin records that the order's saga starts.
func (s *Saga) Begin(order contracts.Order, now time.Time) bool {
	if s.Started() {
		return false
	}
	s.Order, s.StartedAt = order, now.UTC()
	return true
}

// Restart records that the saga is started again.
func (s *Saga) Restart(now time.Time) bool {
	if !s.Started() || s.Ended() {
		return false
	}
	s.Restarts, s.RestartedAt = s.Restarts+1, now.UTC()
	return true
}

// Cancel records the customer's cancellation. The first one stays. After the saga's end it is recorded only if the order has shipped,
// because that customer needs an answer; it then changes nothing else.
func (s *Saga) Cancel(reason string, at time.Time) bool {
	if s.Cancellation != nil || s.Ended() && s.Outcome != Completed {
		return false
	}
	s.Cancellation = &Cancellation{Reason: reason, At: at.UTC(), Late: s.Booked() || s.Ended()}
	return true
}

// Booked reports whether the carrier has confirmed the parcel.
func (s *Saga) Booked() bool { return !s.BookedAt.IsZero() }

// Book records that the carrier confirmed the parcel. If a cancellation was recorded first it changes nothing, and the parcel must be
// cancelled.
func (s *Saga) Book(now time.Time) bool {
	if s.Booked() || s.Cancelled() {
		return false
	}
	s.BookedAt = now.UTC()
	return true
}

// RequestApproval records that a person must decide. A repeated request changes nothing.
func (s *Saga) RequestApproval(at, expires time.Time) bool {
	if s.Approval != nil {
		return false
	}
	s.Approval = &Approval{RequestedAt: at.UTC(), ExpiresAt: expires.UTC()}
	return true
}

// Decide records a person's decision. The same decision of the same person again changes nothing. It refuses a different decision, and
// every decision on an order that was cancelled before. It does not compare ExpiresAt with now, because ExpiresAt is the workflow
// engine's time: the approval has expired when the saga has recorded that, with Settle.
func (s *Saga) Decide(approved bool, approver, reason string, now time.Time) (bool, error) {
	if s.Approval == nil {
		return false, &Error{Kind: NotFound, Code: "no_approval", Text: "No approval was requested for this order."}
	}
	if first := s.Approval.Decision; first != nil {
		if first.Approved == approved && first.Approver == approver && first.Reason == reason {
			return false, nil
		}
		return false, &Error{Kind: Conflict, Code: "already_decided", Text: first.sentence(), Decision: first}
	}
	if s.Cancelled() {
		d := &Decision{Code: CodeCancelled, Reason: s.Cancellation.Reason, At: s.Cancellation.At}
		return false, &Error{Kind: Conflict, Code: CodeCancelled, Text: d.sentence(), Decision: d}
	}
	d := Decision{Approved: approved, Approver: approver, Reason: reason, At: now.UTC()}
	if !approved {
		d.Code = CodeDenied
	}
	s.Approval.Decision = &d
	return true, nil
}

func (d *Decision) sentence() string {
	at := d.At.Format(time.RFC3339)
	switch {
	case d.Approved:
		return d.Approver + " approved the order at " + at + "."
	case d.Code == CodeDenied:
		return d.Approver + " refused the order at " + at + "."
	case d.Code == CodeTimedOut:
		return "The approval expired at " + at + " without a decision."
	default:
		return "The customer cancelled the order at " + at + "."
	}
}

// Settle ends the approval if a cancellation was recorded, or if the saga says that the approval has expired, which the workflow engine's
// clock decides. It does not change an approval that was decided.
func (s *Saga) Settle(expired bool, now time.Time) bool {
	if s.Approval == nil || s.Approval.Decision != nil {
		return false
	}
	switch {
	case s.Cancelled():
		s.Approval.Decision = &Decision{Code: CodeCancelled, Reason: s.Cancellation.Reason, At: now.UTC()}
	case expired:
		s.Approval.Decision = &Decision{Code: CodeTimedOut, At: now.UTC()}
	default:
		return false
	}
	return true
}

// Block records that the saga needs attention. A repeated call for a round changes nothing.
func (s *Saga) Block(b Blocked) bool {
	if s.Blocked != nil && s.Blocked.Round >= b.Round {
		return false
	}
	s.Blocked = &b
	return true
}

// Repair records a person's order to continue. Of two orders for one round the first counts; the same order again changes nothing.
func (s *Saga) Repair(actor, reason string, now time.Time) (bool, error) {
	if !s.AwaitsRepair() {
		if n := len(s.Repairs); n > 0 && s.Repairs[n-1].Actor == actor && s.Repairs[n-1].Reason == reason {
			return false, nil
		}
		return false, &Error{Kind: Conflict, Code: "nothing_to_repair", Text: "This order's saga does not wait for a repair."}
	}
	s.Repairs = append(s.Repairs, Repair{Actor: actor, Reason: reason, At: now.UTC()})
	return true, nil
}

// RepairOf returns the repair of a round, nil if a person has not ordered it yet.
func (s *Saga) RepairOf(round int) *Repair {
	if len(s.Repairs) < round {
		return nil
	}
	return &s.Repairs[round-1]
}

// Conclude returns the final outcome of a saga that reached the given one. An order that does not ship is cancelled if its
// cancellation was recorded before the saga's end, even if the saga failed for another reason.
func (s *Saga) Conclude(outcome Outcome) Outcome {
	if outcome == Failed && s.Cancelled() {
		return Cancelled
	}
	return outcome
}

// End records how the saga ended. The first outcome stays.
func (s *Saga) End(outcome Outcome, announced Announcement, now time.Time) bool {
	if s.Ended() {
		return false
	}
	s.EndedAt, s.Outcome, s.Announced, s.Blocked = now.UTC(), outcome, &announced, nil
	return true
}
