package main

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/caarlos0/env/v11"

	"waybill/platform/sidecar"
)

// Config is everything the environment decides.
type Config struct {
	Host     string         `env:"APP_HOST" envDefault:"127.0.0.1"`
	Port     port           `env:"APP_PORT" envDefault:"8001"`
	APIToken sidecar.Secret `env:"APP_API_TOKEN"`
	Sidecar  sidecar.Config

	LogFormat logFormat  `env:"LOG_FORMAT" envDefault:"json"`
	LogLevel  slog.Level `env:"LOG_LEVEL" envDefault:"info"`

	// IdempotencyTTL is how long an Idempotency-Key is remembered.
	IdempotencyTTL span `env:"IDEMPOTENCY_TTL" envDefault:"24h"`
	// ReceivedTTL is how long an order is kept that was stored and never confirmed.
	ReceivedTTL span `env:"RECEIVED_TTL" envDefault:"24h"`
}

// parseConfig reads the environment; the error names every variable that is wrong.
func parseConfig(environ []string) (Config, error) {
	var c Config
	if err := env.ParseWithOptions(&c, env.Options{Environment: env.ToMap(environ)}); err != nil {
		return Config{}, fmt.Errorf("read the configuration: %w", err)
	}
	return c, nil
}

// The types below check themselves, so that all faults come out of one parse.
type (
	port      uint16
	logFormat string
	span      time.Duration
)

func (p *port) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 16)
	if err != nil {
		return errors.New("a port is a number from 0 (any free one) to 65535")
	}
	*p = port(n)
	return nil
}

func (f *logFormat) UnmarshalText(text []byte) error {
	*f = logFormat(text)
	if *f != "json" && *f != "text" {
		return errors.New("the log format is json or text")
	}
	return nil
}

func (s *span) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	if err != nil || d < time.Second {
		return errors.New("a span is a duration of at least a second, such as 24h")
	}
	*s = span(d)
	return nil
}
