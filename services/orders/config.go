package main

import (
	"errors"
	"fmt"
	"time"

	"waybill/platform/config"
)

// Config is everything that the environment decides.
type Config struct {
	config.Service

	// IdempotencyTTL is how long an Idempotency-Key is remembered.
	IdempotencyTTL config.Duration `env:"IDEMPOTENCY_TTL" envDefault:"24h"`
	// ReceivedTTL is how long an order is kept that was stored and never confirmed.
	ReceivedTTL config.Duration `env:"RECEIVED_TTL" envDefault:"24h"`
	// OrderRetention is how long an order is kept after its end.
	OrderRetention config.Retention `env:"ORDER_RETENTION" envDefault:"0"`
	// ReconcileInterval is how often the open orders are read. An order that has not moved for ReconcileAfter is announced
	// again.
	ReconcileInterval config.Duration `env:"RECONCILE_INTERVAL" envDefault:"10s" formerly:"SWEEP_INTERVAL"`
	ReconcileAfter    config.Duration `env:"RECONCILE_AFTER" envDefault:"15s" formerly:"SWEEP_PATIENCE"`

	// AdmissionOpen bounds the orders in fulfilment, AdmissionWaiting those that wait for a person; 0 is no bound. New orders
	// are also refused when many of the open ones are older than AdmissionAge.
	AdmissionOpen    uint            `env:"ADMISSION_OPEN" envDefault:"200"`
	AdmissionWaiting uint            `env:"ADMISSION_WAITING" envDefault:"20000"`
	AdmissionAge     config.Duration `env:"ADMISSION_AGE" envDefault:"60s"`
}

// parse reads and checks the environment. Its error names every setting that is wrong.
func parse(environ []string) (Config, error) {
	c, err := config.Parse[Config](environ)
	faults := []error{err}
	// The store counts whole seconds.
	for _, ttl := range []struct {
		name  string
		value config.Duration
	}{{"IDEMPOTENCY_TTL", c.IdempotencyTTL}, {"RECEIVED_TTL", c.ReceivedTTL}} {
		if time.Duration(ttl.value) < time.Second {
			faults = append(faults, fmt.Errorf("%s is %v: at least 1s is expected", ttl.name, time.Duration(ttl.value)))
		}
	}
	return c, errors.Join(faults...)
}
