package main

import (
	"errors"
	"fmt"
	"time"

	"waybill/contracts"
	"waybill/platform/config"
	"waybill/services/fulfillment/internal/saga"
)

// Config is everything the environment decides.
type Config struct {
	config.Service

	// Warehouse is named in stock events.
	Warehouse string `env:"WAREHOUSE_ID" envDefault:"WH-001"`

	// The saga's limits; saga.Limits says what they bound.
	ApprovalThreshold  Amount          `env:"APPROVAL_THRESHOLD" envDefault:"5000.00"`
	ApprovalTimeout    config.Duration `env:"APPROVAL_TIMEOUT" envDefault:"24h"`
	ReservationTimeout config.Duration `env:"RESERVATION_TIMEOUT" envDefault:"5m"`
	StepFirstRetry     config.Duration `env:"STEP_FIRST_RETRY" envDefault:"200ms"`
	StepLastRetry      config.Duration `env:"STEP_LAST_RETRY" envDefault:"30s"`
	StepAttempts       config.Count    `env:"STEP_ATTEMPTS" envDefault:"30"`
	UndoAttempts       config.Count    `env:"UNDO_ATTEMPTS" envDefault:"200"`

	// The watchdog looks at every saga that has not ended, but not at those younger than the grace period.
	WatchdogInterval config.Duration `env:"WATCHDOG_INTERVAL" envDefault:"30s"`
	WatchdogGrace    config.Duration `env:"WATCHDOG_GRACE" envDefault:"30s"`
	// LostAfter is how long something that a saga waits for may be overdue until the engine counts as having lost it, and the
	// saga is run anew. An activity takes half a minute at most, and waits for its turn where there are many.
	LostAfter config.Duration `env:"LOST_AFTER" envDefault:"2m"`
	// StuckAfter is how long a saga may run without waiting for anybody until it is reported as stuck. Steps retry for some
	// eleven minutes.
	StuckAfter config.Duration `env:"STUCK_AFTER" envDefault:"15m"`
}

// parse reads and checks the environment and names everything that is wrong with it.
func parse(environ []string) (Config, error) {
	c, err := config.Parse[Config](environ)
	faults := []error{err}
	if c.StepFirstRetry > c.StepLastRetry {
		faults = append(faults, fmt.Errorf("STEP_FIRST_RETRY is %v: not more than STEP_LAST_RETRY is expected", time.Duration(c.StepFirstRetry)))
	}
	return c, errors.Join(faults...)
}

// Amount is an amount of money such as 5000.00.
type Amount contracts.Amount

// UnmarshalText reads an amount.
func (a *Amount) UnmarshalText(text []byte) error {
	parsed, err := contracts.ParseAmount(string(text))
	if err != nil || parsed < 0 {
		return errors.New("an amount is a number that is not negative, with at most two places, such as 5000.00")
	}
	*a = Amount(parsed)
	return nil
}

func (c Config) limits() saga.Limits {
	return saga.Limits{
		ApprovalAbove: contracts.Amount(c.ApprovalThreshold), Approval: time.Duration(c.ApprovalTimeout),
		Reservation: time.Duration(c.ReservationTimeout),
		FirstRetry:  time.Duration(c.StepFirstRetry), LastRetry: time.Duration(c.StepLastRetry),
		Attempts: int(c.StepAttempts), LastingAttempts: int(c.UndoAttempts),
	}
}
