package saga

import (
	"math"
	"time"

	"github.com/dapr/durabletask-go/workflow"

	"waybill/contracts"
)

// Limits says how long the saga's steps may take and which orders need an approval. A saga keeps the limits that it was started with,
// because a replay with other limits would schedule other steps.
type Limits struct {
	// ApprovalAboveIn is, for each currency, the largest total that needs no approval. In a currency that it does not list, every order
	// needs one. It is nil for sagas that started before there was a threshold for each currency; for them ApprovalAbove counts in every
	// currency. ApprovalAbove must stay, so that their histories replay.
	ApprovalAboveIn map[string]contracts.Amount `json:"approval_above_in,omitempty"`
	ApprovalAbove   contracts.Amount            `json:"approval_above"`
	// Approval is how long a person has to decide.
	Approval time.Duration `json:"approval"`
	// Reservation bounds ReserveInventory with all its retries, counted from its first failure.
	Reservation time.Duration `json:"reservation"`
	// FirstRetry is the backoff after a step's first failure. It doubles up to LastRetry.
	FirstRetry time.Duration `json:"first_retry"`
	LastRetry  time.Duration `json:"last_retry"`
	// Attempts is how often a step is attempted before it fails and the saga compensates.
	Attempts int `json:"attempts"`
	// LastingAttempts is how often a compensation, or the report of the outcome, is attempted. It outlasts long outages, because after
	// it only a person can help.
	LastingAttempts int `json:"lasting_attempts"`
}

// needsApproval reports whether a person must approve the order.
func (l Limits) needsApproval(o contracts.Order) bool {
	threshold, ok := l.ApprovalAbove, true
	if l.ApprovalAboveIn != nil {
		threshold, ok = l.ApprovalAboveIn[o.Currency]
	}
	return !ok || o.TotalAmount > threshold
}

// stepPolicy is the retry policy of forward steps.
func (l Limits) stepPolicy() *workflow.RetryPolicy {
	return &workflow.RetryPolicy{
		MaxAttempts: l.Attempts, InitialRetryInterval: l.FirstRetry, BackoffCoefficient: 2, MaxRetryInterval: l.LastRetry,
	}
}

// reservationPolicy is bounded by time only: the first attempt that fails after that time is the last. Its pauses are short compared with
// that time, so the last attempt is not much later.
func (l Limits) reservationPolicy() *workflow.RetryPolicy {
	const pauses = 20
	policy := l.stepPolicy()
	policy.MaxAttempts, policy.RetryTimeout = math.MaxInt32, l.Reservation
	policy.MaxRetryInterval = max(l.FirstRetry, min(l.LastRetry, l.Reservation/pauses))
	return policy
}

// lastingPolicy is the retry policy of compensations and reports.
func (l Limits) lastingPolicy() *workflow.RetryPolicy {
	policy := l.stepPolicy()
	policy.MaxAttempts = l.LastingAttempts
	return policy
}

// busyBackoff is the pause after the n-th answer that the service is busy. It grows like the pause after a failure, without a limit of
// attempts.
func (l Limits) busyBackoff(n int) time.Duration {
	policy := l.stepPolicy()
	policy.MaxAttempts = math.MaxInt
	next, _ := backoff(policy, n, time.Time{}, time.Time{})
	return next
}

// backoff returns the pause after the attempt that was the failed-th to fail, or false if there is no further attempt. The attempts began
// at the time began. It computes the same as the engine does for its own retries.
func backoff(policy *workflow.RetryPolicy, failed int, began, now time.Time) (time.Duration, bool) {
	if failed >= policy.MaxAttempts || policy.RetryTimeout > 0 && now.After(began.Add(policy.RetryTimeout)) {
		return 0, false
	}
	next := float64(policy.InitialRetryInterval) * math.Pow(policy.BackoffCoefficient, float64(failed-1))
	if next < float64(policy.MaxRetryInterval) {
		return time.Duration(next), true
	}
	return policy.MaxRetryInterval, true
}
