package saga

import (
	"math"
	"time"

	"github.com/dapr/durabletask-go/workflow"

	"waybill/contracts"
)

// Limits is how long the saga's steps may take and what needs a person's approval. A saga takes its limits with it from its
// start to its end: a workflow function that found other ones on a replay would not retrace its steps.
type Limits struct {
	// ApprovalAboveIn is, for each currency, the largest total that needs no approval. In a currency that it does not list
	// every order needs one. Sagas that started before there were thresholds for each currency have none; for them
	// ApprovalAbove counts, whatever the currency. It must stay, so that their histories replay.
	ApprovalAboveIn map[string]contracts.Amount `json:"approval_above_in,omitempty"`
	ApprovalAbove   contracts.Amount            `json:"approval_above"`
	// Approval is how long a person has to decide.
	Approval time.Duration `json:"approval"`
	// Reservation bounds ReserveInventory over all its retries, from its first failure.
	Reservation time.Duration `json:"reservation"`
	// FirstRetry is the pause after a step's first failure; each further pause doubles, up to LastRetry.
	FirstRetry time.Duration `json:"first_retry"`
	LastRetry  time.Duration `json:"last_retry"`
	// Attempts is how often a step is tried before it counts as failed and what was done is undone.
	Attempts int `json:"attempts"`
	// LastingAttempts is how often an undo, or the report of the outcome, is tried. It outlasts long outages, for after it
	// comes only a person.
	LastingAttempts int `json:"lasting_attempts"`
}

// needsApproval reports whether a person has to approve the order.
func (l Limits) needsApproval(o contracts.Order) bool {
	threshold, ok := l.ApprovalAbove, true
	if l.ApprovalAboveIn != nil {
		threshold, ok = l.ApprovalAboveIn[o.Currency]
	}
	return !ok || o.TotalAmount > threshold
}

func (l Limits) step() *workflow.RetryPolicy {
	return &workflow.RetryPolicy{
		MaxAttempts: l.Attempts, InitialRetryInterval: l.FirstRetry, BackoffCoefficient: 2, MaxRetryInterval: l.LastRetry,
	}
}

// reservation is bounded by time alone: the first attempt that fails after it is the last. Its pauses are short beside it,
// so that it is not exceeded by much.
func (l Limits) reservation() *workflow.RetryPolicy {
	const pauses = 20
	policy := l.step()
	policy.MaxAttempts, policy.RetryTimeout = math.MaxInt32, l.Reservation
	policy.MaxRetryInterval = max(l.FirstRetry, min(l.LastRetry, l.Reservation/pauses))
	return policy
}

// busy is the pause after the times-th answer that the service is busy. It grows like the pause after a failure, and there is
// always another run.
func (l Limits) busy(times int) time.Duration {
	policy := l.step()
	policy.MaxAttempts = math.MaxInt
	next, _ := pause(policy, times, time.Time{}, time.Time{})
	return next
}

// lasting is the policy of undos and reports.
func (l Limits) lasting() *workflow.RetryPolicy {
	policy := l.step()
	policy.MaxAttempts = l.LastingAttempts
	return policy
}

// pause is how long to wait after an attempt that failed, of those that began at a time, until the next one; false says that
// there is none. It is what the engine makes of the policy.
func pause(policy *workflow.RetryPolicy, failed int, began, now time.Time) (time.Duration, bool) {
	if failed >= policy.MaxAttempts || policy.RetryTimeout > 0 && now.After(began.Add(policy.RetryTimeout)) {
		return 0, false
	}
	next := float64(policy.InitialRetryInterval) * math.Pow(policy.BackoffCoefficient, float64(failed-1))
	if next < float64(policy.MaxRetryInterval) {
		return time.Duration(next), true
	}
	return policy.MaxRetryInterval, true
}
