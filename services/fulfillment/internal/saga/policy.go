package saga

import (
	"time"

	"github.com/dapr/durabletask-go/workflow"
)

// Limits is how long the saga's steps may take. Changing a limit changes sagas that start afterwards and the later steps
// of those that run.
type Limits struct {
	// Reservation bounds ReserveInventory over all its retries.
	Reservation time.Duration `env:"RESERVATION_TIMEOUT" envDefault:"5m"`
	// FirstRetry is the pause after a step's first failure; each further pause doubles, up to LastRetry.
	FirstRetry time.Duration `env:"STEP_FIRST_RETRY" envDefault:"200ms"`
	LastRetry  time.Duration `env:"STEP_LAST_RETRY" envDefault:"30s"`
	// Attempts is how often a step is tried before it counts as failed and what was done is undone.
	Attempts int `env:"STEP_ATTEMPTS" envDefault:"30"`
	// ReportAttempts is how often an undo, or the report of the outcome, is tried. It outlasts long outages, for after it
	// comes only a person.
	ReportAttempts int `env:"UNDO_ATTEMPTS" envDefault:"200"`
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
	policy.MaxAttempts = l.ReportAttempts
	return policy
}
