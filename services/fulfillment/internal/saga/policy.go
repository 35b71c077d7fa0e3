package saga

import (
	"time"

	"github.com/dapr/durabletask-go/workflow"
)

// Limits is how long the saga's steps may take. Changing a limit changes sagas that start afterwards and the later steps
// of those that run.
type Limits struct {
	// Reservation bounds ReserveInventory over all its retries.
	Reservation time.Duration
	// FirstRetry is the pause after a step's first failure; each further pause doubles, up to LastRetry.
	FirstRetry, LastRetry time.Duration
	// Attempts is how often a step is tried before it counts as failed and what was done is undone.
	Attempts int
	// LastingAttempts is how often an undo, or the report of the outcome, is tried. It outlasts long outages, for after it
	// comes only a person.
	LastingAttempts int
}

func (l Limits) step() *workflow.RetryPolicy {
	return &workflow.RetryPolicy{
		MaxAttempts: l.Attempts, InitialRetryInterval: l.FirstRetry, BackoffCoefficient: 2, MaxRetryInterval: l.LastRetry,
	}
}

func (l Limits) reservation() *workflow.RetryPolicy {
	policy := l.step()
	policy.RetryTimeout = l.Reservation
	return policy
}

// lasting is the policy of undos and reports.
func (l Limits) lasting() *workflow.RetryPolicy {
	policy := l.step()
	policy.MaxAttempts = l.LastingAttempts
	return policy
}
