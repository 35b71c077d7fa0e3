package main

import (
	"time"

	"waybill/platform/config"
	"waybill/services/fulfillment/internal/saga"
)

// Config is everything the environment decides.
type Config struct {
	config.Service

	// Warehouse is named in stock events.
	Warehouse string `env:"WAREHOUSE_ID" envDefault:"WH-001"`

	// The saga's limits; saga.Limits says what they bound.
	ReservationTimeout config.Duration `env:"RESERVATION_TIMEOUT" envDefault:"5m"`
	StepFirstRetry     config.Duration `env:"STEP_FIRST_RETRY" envDefault:"200ms"`
	StepLastRetry      config.Duration `env:"STEP_LAST_RETRY" envDefault:"30s"`
	StepAttempts       config.Count    `env:"STEP_ATTEMPTS" envDefault:"30"`
	UndoAttempts       config.Count    `env:"UNDO_ATTEMPTS" envDefault:"200"`
}

func (c Config) limits() saga.Limits {
	return saga.Limits{
		Reservation: time.Duration(c.ReservationTimeout),
		FirstRetry:  time.Duration(c.StepFirstRetry), LastRetry: time.Duration(c.StepLastRetry),
		Attempts: int(c.StepAttempts), LastingAttempts: int(c.UndoAttempts),
	}
}
