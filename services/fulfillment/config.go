package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"waybill/contracts"
	"waybill/platform/config"
	"waybill/services/fulfillment/internal/saga"
)

// Config is everything that the environment decides.
type Config struct {
	config.Service

	// Warehouse is the warehouse's id in stock events.
	Warehouse string `env:"WAREHOUSE_ID" envDefault:"WH-001"`

	// ApprovalThreshold is, for each currency, the largest total that needs no approval, such as 5000.00 USD,4600.00 EUR. In a currency
	// without a threshold every order needs an approval.
	ApprovalThreshold Thresholds `env:"APPROVAL_THRESHOLD" envDefault:"5000.00 USD"`
	// ApprovalTimeout is how long a person has to decide. Then the order fails and is compensated.
	ApprovalTimeout config.Duration `env:"APPROVAL_TIMEOUT" envDefault:"24h"`
	// ReservationTimeout bounds the reservation of stock with all its retries, counted from its first failure.
	ReservationTimeout config.Duration `env:"RESERVATION_TIMEOUT" envDefault:"5m"`
	// StepFirstRetry is the backoff after the first failure of a step. It doubles up to StepLastRetry.
	StepFirstRetry config.Duration `env:"STEP_FIRST_RETRY" envDefault:"200ms"`
	// StepLastRetry is the longest backoff of a step.
	StepLastRetry config.Duration `env:"STEP_LAST_RETRY" envDefault:"30s"`
	// StepAttempts is how often a step is attempted before it fails and the order is compensated.
	StepAttempts config.Count `env:"STEP_ATTEMPTS" envDefault:"30"`
	// UndoAttempts is how often a compensation, or the report of the outcome, is attempted before the order needs attention.
	UndoAttempts config.Count `env:"UNDO_ATTEMPTS" envDefault:"200"`

	// PartnerCalls is how many calls that start something may run at a partner at the same time, and as many that compensate.
	PartnerCalls config.Count `env:"PARTNER_CALLS" envDefault:"100"`

	// ReconcileInterval is the pause between two passes over the sagas that have not ended.
	ReconcileInterval config.Duration `env:"RECONCILE_INTERVAL" envDefault:"30s" formerly:"WATCHDOG_INTERVAL"`
	// ReconcileGrace is how long a saga is left alone after its start.
	ReconcileGrace config.Duration `env:"RECONCILE_GRACE" envDefault:"30s" formerly:"WATCHDOG_GRACE"`
	// LostAfter is how long a saga's pending task may be overdue before the saga counts as lost and is started again. An activity
	// runs for half a minute at most, and may wait for a free slot before.
	LostAfter config.Duration `env:"LOST_AFTER" envDefault:"2m"`
	// StuckAfter is how long a saga may run, without waiting for a person, before it is reported as stuck. Steps retry for about
	// eleven minutes.
	StuckAfter config.Duration `env:"STUCK_AFTER" envDefault:"15m"`

	// SagaRetention is how long a saga record is kept after the saga's end. The order's payment, reservation and shipment are kept
	// for longestSaga longer, counted from their last change.
	SagaRetention config.Retention `env:"SAGA_RETENTION" envDefault:"0"`
	// WorkflowPurge is how long after its end a workflow is removed, if the engine did not remove it. It must be longer than the
	// engine's own retention, which is in components/*/config.yaml.
	WorkflowPurge config.Duration `env:"WORKFLOW_PURGE_AFTER" envDefault:"24h"`
}

// parse reads and checks the environment. Its error names every setting that is wrong.
func parse(environ []string) (Config, error) {
	c, err := config.Parse[Config](environ)
	faults := []error{err}
	if c.StepFirstRetry > c.StepLastRetry {
		faults = append(faults, fmt.Errorf("STEP_FIRST_RETRY is %v: not more than STEP_LAST_RETRY is expected", time.Duration(c.StepFirstRetry)))
	}
	return c, errors.Join(faults...)
}

// longestSaga is the longest time that a saga may wait for people.
const longestSaga = 30 * 24 * time.Hour

// orderTTL is how long an order's documents other than its saga record are kept; 0 is for ever.
func (c Config) orderTTL() time.Duration {
	if c.SagaRetention == 0 {
		return 0
	}
	return time.Duration(c.SagaRetention) + longestSaga
}

// Thresholds is, for each currency, the largest total that needs no approval.
type Thresholds struct{ in map[string]contracts.Amount }

// UnmarshalText reads thresholds such as "5000.00 USD,4600.00 EUR,750000 JPY". An amount without a currency is in the default
// one, as in former releases. The error names every fault.
func (t *Thresholds) UnmarshalText(text []byte) error {
	in := map[string]contracts.Amount{}
	var faults []string
	for item := range strings.SplitSeq(string(text), ",") {
		item = strings.TrimSpace(item)
		fault := func(rule string) { faults = append(faults, fmt.Sprintf("%q %s", item, rule)) }
		fields := strings.Fields(item)
		if len(fields) == 1 {
			fields = append(fields, contracts.DefaultCurrency)
		}
		if len(fields) != 2 {
			fault("must be an amount and a currency")
			continue
		}
		currency := fields[1]
		amount, err := contracts.ParseAmount(fields[0])
		_, known := contracts.CurrencyPlaces(currency)
		switch {
		case err != nil || amount < 0:
			fault("must begin with a decimal number of at least 0")
		case !known:
			fault("must end with a current ISO 4217 currency with minor units, in upper case")
		case !amount.Fits(currency):
			fault(contracts.PlacesRule(currency))
		default:
			if _, twice := in[currency]; twice {
				fault("must be the only threshold in " + currency)
			}
			in[currency] = amount
		}
	}
	if len(faults) > 0 {
		return fmt.Errorf("thresholds such as 5000.00 USD,4600.00 EUR are expected: %s", strings.Join(faults, "; "))
	}
	t.in = in
	return nil
}

func (c Config) limits() saga.Limits {
	return saga.Limits{
		ApprovalAboveIn: c.ApprovalThreshold.in, ApprovalAbove: c.ApprovalThreshold.in[contracts.DefaultCurrency], Approval: time.Duration(c.ApprovalTimeout),
		Reservation: time.Duration(c.ReservationTimeout),
		FirstRetry:  time.Duration(c.StepFirstRetry), LastRetry: time.Duration(c.StepLastRetry),
		Attempts: int(c.StepAttempts), LastingAttempts: int(c.UndoAttempts),
	}
}
