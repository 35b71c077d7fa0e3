package record

import "time"

// State is what people see of a saga at a moment.
type State string

const (
	// Running sagas run a step, or wait for its next attempt.
	Running State = "running"
	// Waiting sagas wait for an approval.
	Waiting State = "waiting"
	// Stuck sagas should have ended by now, and wait for no person.
	Stuck State = "stuck"
	// NeedsAttention sagas wait for a repair.
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
	// Until is when the wait ends by itself; zero if it does not.
	Until time.Time
	// MovedBy tells a person what would end the wait.
	MovedBy string
}

// Step is what the engine knows of one step of a saga.
type Step struct {
	Name      string
	StartedAt time.Time
	// EndedAt is zero while the step runs, or waits for its next attempt.
	EndedAt  time.Time
	Attempts int
	// Done says that the step succeeded. Error is why its last attempt failed.
	Done  bool
	Error string
}

// State returns the saga's state if nothing has happened for the duration idle. A saga that does not wait for a person is stuck after
// stuckAfter.
func (s *Saga) State(idle, stuckAfter time.Duration) State {
	switch {
	case s.Ended():
		return Ended
	case s.AwaitsRepair():
		return NeedsAttention
	case s.AwaitsApproval():
		return Waiting
	case idle > stuckAfter:
		return Stuck
	default:
		return Running
	}
}

// LastMoved is the latest time in the record at which something happened. It may be later than now, because several processes wrote
// these times.
func (s *Saga) LastMoved() time.Time {
	moved := s.LastStarted()
	if s.Approval != nil && s.Approval.Decision != nil && s.Approval.Decision.At.After(moved) {
		moved = s.Approval.Decision.At
	}
	if s.Cancelled() && s.Cancellation.At.After(moved) {
		moved = s.Cancellation.At
	}
	if n := len(s.Repairs); n > 0 && s.Repairs[n-1].At.After(moved) {
		moved = s.Repairs[n-1].At
	}
	return moved
}

// Wait returns what the saga waits for, with the parameters of State; nil if it has ended.
func (s *Saga) Wait(idle, stuckAfter time.Duration) *Wait {
	switch s.State(idle, stuckAfter) {
	case NeedsAttention:
		return &Wait{
			For: "repair", Since: s.Blocked.Since,
			MovedBy: "POST /v1/fulfillments/" + s.Order.OrderID + "/repair with actor and reason, after the cause of the failed compensation is fixed",
		}
	case Waiting:
		return &Wait{
			For: "approval", Since: s.Approval.RequestedAt, Until: s.Approval.ExpiresAt,
			MovedBy: "POST /v1/approvals/" + s.Order.OrderID + " with approved, approver and reason, or the customer's cancellation",
		}
	case Stuck:
		return &Wait{
			For: "the workflow engine", Since: s.LastMoved(),
			MovedBy: "a partner that answers again, or the reconciler, which wakes the saga, and starts it again if the engine lost it or ended it without an outcome",
		}
	case Running:
		return &Wait{For: "its next step", Since: s.LastMoved(), MovedBy: "the saga itself; it retries a step that fails"}
	default:
		return nil
	}
}
