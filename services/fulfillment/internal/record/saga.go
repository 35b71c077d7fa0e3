// Package journal holds what is kept of an order's saga beside the workflow engine: the order, what people decided about
// it, what it waits for, and how it ended. The engine forgets a finished workflow after a while, and an event raised to it
// carries no proof of who raised it; a decision counts when it stands here. The package does no I/O.
package record

import (
	"encoding/json"
	"time"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/partner"
)

// Change alters an order's entry unless alter reports that nothing changed, and returns it as it then is. It may call alter again.
type Change func(alter func(e *Saga) (bool, error)) (Saga, error)

// Entry is one order's saga. Its methods are its rules: each reports whether it changed the entry, and an *Error is a
// refusal.
type Saga struct {
	Order contracts.Order `json:"order"`
	// StartedAt is zero as long as only a cancellation came, ahead of the order itself.
	StartedAt    time.Time     `json:"started_at,omitzero"`
	Cancellation *Cancellation `json:"cancellation,omitempty"`
	Approval     *Approval     `json:"approval,omitempty"`
	// BookedAt is when the carrier was known to have the parcel. A cancellation that is recorded before it wins, one that is
	// recorded after it is too late.
	BookedAt time.Time `json:"booked_at,omitzero"`
	Halt     *Halt     `json:"halt,omitempty"`
	// Repairs are all that were ever ordered; the n-th answers the n-th halt.
	Repairs []Repair `json:"repairs,omitempty"`
	// Restarts is how often the saga was run anew because the engine had lost it, RestartedAt when it was last.
	Restarts    int       `json:"restarts,omitempty"`
	RestartedAt time.Time `json:"restarted_at,omitzero"`
	EndedAt     time.Time `json:"ended_at,omitzero"`
	Outcome     Outcome   `json:"outcome,omitempty"`
	// Announced is the event that told the outcome, to be told again to whoever missed it.
	Announced *Announcement `json:"announced,omitempty"`
}

// Cancellation is a customer's wish that the order be cancelled.
type Cancellation struct {
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
	// Late says that the parcel was booked, or the order shipped, when the wish was recorded.
	Late bool `json:"late,omitempty"`
}

// Approval is a request that a person approve the order, and the decision once there is one.
type Approval struct {
	RequestedAt time.Time `json:"requested_at"`
	ExpiresAt   time.Time `json:"expires_at"`
	Decision    *Decision `json:"decision,omitempty"`
}

// Decision ends an approval. Code is why it was not approved; nobody is the Approver of one that ran out of time or was
// overtaken by a cancellation.
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

// Halt is a saga that stands still because an undo could not be done.
type Halt struct {
	// Round is 1 for the order's first halt.
	Round int       `json:"round"`
	Since time.Time `json:"since"`
	// Failure is why the saga was undoing what it had done.
	Failure   partner.Reason `json:"failure"`
	Undone    []string       `json:"undone,omitempty"`
	NotUndone []string       `json:"not_undone"`
}

// Repair is a person's order to try again what could not be undone.
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

// Started reports whether the order's saga was asked for.
func (e *Saga) Started() bool { return !e.StartedAt.IsZero() }

// LastStarted is when the saga was started, for the last time if it was started again. The clock of the process that started it
// first may have been ahead, so the two times are not compared.
func (e *Saga) LastStarted() time.Time {
	if !e.RestartedAt.IsZero() {
		return e.RestartedAt
	}
	return e.StartedAt
}

// Ended reports whether the saga has ended.
func (e *Saga) Ended() bool { return !e.EndedAt.IsZero() }

// AwaitsApproval reports whether a person has yet to decide.
func (e *Saga) AwaitsApproval() bool {
	return !e.Ended() && !e.Cancelled() && e.Approval != nil && e.Approval.Decision == nil
}

// Cancelled reports whether a cancellation was recorded in time. Then the order is cancelled: nothing is charged, reserved,
// approved or shipped any more, and what was done is undone.
func (e *Saga) Cancelled() bool { return e.Cancellation != nil && !e.Cancellation.Late }

// Halted reports whether a person has yet to order a repair.
func (e *Saga) Halted() bool { return !e.Ended() && e.Halt != nil && len(e.Repairs) < e.Halt.Round }

// Begin records that the order's saga is to run.
func (e *Saga) Begin(order contracts.Order, now time.Time) bool {
	if e.Started() {
		return false
	}
	e.Order, e.StartedAt = order, now.UTC()
	return true
}

// Restart records that the saga is run anew.
func (e *Saga) Restart(now time.Time) bool {
	if !e.Started() || e.Ended() {
		return false
	}
	e.Restarts, e.RestartedAt = e.Restarts+1, now.UTC()
	return true
}

// Cancel records the customer's wish. The first one stays. After the end it changes nothing, and is kept only of an order
// that has shipped, for the customer is owed an answer.
func (e *Saga) Cancel(reason string, at time.Time) bool {
	if e.Cancellation != nil || e.Ended() && e.Outcome != Completed {
		return false
	}
	e.Cancellation = &Cancellation{Reason: reason, At: at.UTC(), Late: e.Booked() || e.Ended()}
	return true
}

// Booked reports whether the carrier has the parcel, as far as is recorded.
func (e *Saga) Booked() bool { return !e.BookedAt.IsZero() }

// Book records that the carrier has the parcel, unless a cancellation was recorded first: then it changes nothing, and the
// parcel has to be called back.
func (e *Saga) Book(now time.Time) bool {
	if e.Booked() || e.Cancelled() {
		return false
	}
	e.BookedAt = now.UTC()
	return true
}

// RequestApproval records that a person must decide. A repeated request changes nothing.
func (e *Saga) RequestApproval(at, expires time.Time) bool {
	if e.Approval != nil {
		return false
	}
	e.Approval = &Approval{RequestedAt: at.UTC(), ExpiresAt: expires.UTC()}
	return true
}

// Decide records a person's decision. The same decision of the same person again changes nothing; another one is refused, and
// so is every decision on an order that was cancelled before. The approval's ExpiresAt is the workflow engine's time, so it is not
// compared with now: the time is up when the saga has recorded that, by Settle.
func (e *Saga) Decide(approved bool, approver, reason string, now time.Time) (bool, error) {
	if e.Approval == nil {
		return false, &Error{Kind: NotFound, Code: "no_approval", Text: "No approval of this order was asked for."}
	}
	if first := e.Approval.Decision; first != nil {
		if first.Approved == approved && first.Approver == approver && first.Reason == reason {
			return false, nil
		}
		return false, &Error{Kind: Conflict, Code: "already_decided", Text: first.sentence(), Decision: first}
	}
	if e.Cancelled() {
		d := &Decision{Code: CodeCancelled, Reason: e.Cancellation.Reason, At: e.Cancellation.At}
		return false, &Error{Kind: Conflict, Code: CodeCancelled, Text: d.sentence(), Decision: d}
	}
	d := Decision{Approved: approved, Approver: approver, Reason: reason, At: now.UTC()}
	if !approved {
		d.Code = CodeDenied
	}
	e.Approval.Decision = &d
	return true, nil
}

func (d *Decision) sentence() string {
	at := d.At.Format(time.RFC3339)
	switch {
	case d.Approved:
		return "The order was approved by " + d.Approver + " at " + at + "."
	case d.Code == CodeDenied:
		return "The order was refused by " + d.Approver + " at " + at + "."
	case d.Code == CodeTimedOut:
		return "The approval ran out at " + at + " without a decision."
	default:
		return "The order was cancelled by its customer at " + at + "."
	}
}

// Settle ends the approval if it can be: by a cancellation, or because the saga says that the time is up, which the workflow
// engine's clock decides. An approval that was decided is not changed.
func (e *Saga) Settle(expired bool, now time.Time) bool {
	if e.Approval == nil || e.Approval.Decision != nil {
		return false
	}
	switch {
	case e.Cancelled():
		e.Approval.Decision = &Decision{Code: CodeCancelled, Reason: e.Cancellation.Reason, At: now.UTC()}
	case expired:
		e.Approval.Decision = &Decision{Code: CodeTimedOut, At: now.UTC()}
	default:
		return false
	}
	return true
}

// Stop records that the saga stands still. A repetition changes nothing.
func (e *Saga) Stop(halt Halt) bool {
	if e.Halt != nil && e.Halt.Round >= halt.Round {
		return false
	}
	e.Halt = &halt
	return true
}

// Repair records a person's order to go on. Of two orders for one halt the first counts, and the same again changes nothing.
func (e *Saga) Repair(actor, reason string, now time.Time) (bool, error) {
	if !e.Halted() {
		if n := len(e.Repairs); n > 0 && e.Repairs[n-1].Actor == actor && e.Repairs[n-1].Reason == reason {
			return false, nil
		}
		return false, &Error{Kind: Conflict, Code: "nothing_to_repair", Text: "This order's fulfilment does not wait for a repair."}
	}
	e.Repairs = append(e.Repairs, Repair{Actor: actor, Reason: reason, At: now.UTC()})
	return true, nil
}

// Repaired is the order to repair that answers the halt of a round, nil as long as nobody gave it.
func (e *Saga) Repaired(round int) *Repair {
	if len(e.Repairs) < round {
		return nil
	}
	return &e.Repairs[round-1]
}

// Conclude is the outcome with which a saga ends that came to the given one: an order whose cancellation was recorded before
// the saga's end is cancelled, whatever else kept it from being shipped.
func (e *Saga) Conclude(outcome Outcome) Outcome {
	if outcome == Failed && e.Cancelled() {
		return Cancelled
	}
	return outcome
}

// End records how the saga ended. The first outcome stays.
func (e *Saga) End(outcome Outcome, announced Announcement, now time.Time) bool {
	if e.Ended() {
		return false
	}
	e.EndedAt, e.Outcome, e.Announced, e.Halt = now.UTC(), outcome, &announced, nil
	return true
}
