package record

import "time"

// State is what an order's saga is about at a moment, for people.
type State string

const (
	// Running sagas are at work, or at a retry.
	Running State = "running"
	// Waiting sagas wait for an approval.
	Waiting State = "waiting"
	// Stuck sagas should have ended by now and wait for nobody.
	Stuck State = "stuck"
	// NeedsAttention sagas stand still until a person has them repaired.
	NeedsAttention State = "needs_attention"
	// Ended sagas have an outcome.
	Ended State = "ended"
)

// States lists every state.
func States() []State { return []State{Running, Waiting, Stuck, NeedsAttention, Ended} }

// Wait is what a saga waits for.
type Wait struct {
	For   string
	Since time.Time
	// Until is when it stops waiting by itself, zero when it does not.
	Until time.Time
	// MovedBy says, to a person, what would move it.
	MovedBy string
}

// Step is what the engine did for one step of a saga.
type Step struct {
	Name      string
	StartedAt time.Time
	// EndedAt is zero while the step is at work, or between two attempts.
	EndedAt  time.Time
	Attempts int
	// Done says that it succeeded; Error is why its last attempt did not.
	Done  bool
	Error string
}

// State is the saga's state, when nothing has happened for the time idle since LastMoved. A saga that has been idle for longer
// than stuckAfter, and does not wait for a person, is stuck.
func (e *Saga) State(idle, stuckAfter time.Duration) State {
	switch {
	case e.Ended():
		return Ended
	case e.Halted():
		return NeedsAttention
	case e.AwaitsApproval():
		return Waiting
	case idle > stuckAfter:
		return Stuck
	default:
		return Running
	}
}

// LastMoved is the last time at which something happened that the journal knows of. It may be later than now: several processes
// wrote those times.
func (e *Saga) LastMoved() time.Time {
	moved := e.LastStarted()
	if e.Approval != nil && e.Approval.Decision != nil && e.Approval.Decision.At.After(moved) {
		moved = e.Approval.Decision.At
	}
	if e.Cancelled() && e.Cancellation.At.After(moved) {
		moved = e.Cancellation.At
	}
	if n := len(e.Repairs); n > 0 && e.Repairs[n-1].At.After(moved) {
		moved = e.Repairs[n-1].At
	}
	return moved
}

// Wait says what the saga waits for, with the times of State; nil when it has ended.
func (e *Saga) Wait(idle, stuckAfter time.Duration) *Wait {
	switch e.State(idle, stuckAfter) {
	case NeedsAttention:
		return &Wait{
			For: "repair", Since: e.Halt.Since,
			MovedBy: "POST /v1/fulfillments/" + e.Order.OrderID + "/repair with actor and reason, once what kept the undo from being done is mended",
		}
	case Waiting:
		return &Wait{
			For: "approval", Since: e.Approval.RequestedAt, Until: e.Approval.ExpiresAt,
			MovedBy: "POST /v1/approvals/" + e.Order.OrderID + " with approved, approver and reason, or the customer's cancellation",
		}
	case Stuck:
		return &Wait{
			For: "the workflow engine", Since: e.LastMoved(),
			MovedBy: "a partner that answers again, or the watchdog, which wakes the saga and runs one anew that the engine lost or ended without an outcome",
		}
	case Running:
		return &Wait{For: "its next step", Since: e.LastMoved(), MovedBy: "the saga itself; a step that fails is retried"}
	default:
		return nil
	}
}
