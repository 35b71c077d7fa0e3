// Package config reads a service's environment, once, and names every variable that is wrong.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/caarlos0/env/v11"

	"waybill/platform/sidecar"
)

// Service is what every service is told. A service embeds it in its own configuration.
type Service struct {
	Host string `env:"APP_HOST" envDefault:"127.0.0.1"`
	// Port has no default: Dapr gives it, and two services that share one would be hard to tell apart.
	Port Port `env:"APP_PORT,required"`
	// APIToken is what the sidecar shows when it delivers events.
	APIToken sidecar.Secret `env:"APP_API_TOKEN"`
	Sidecar  sidecar.Config

	// EventRetries says who delivers an event again that this service gives back.
	EventRetries EventRetries `env:"EVENT_RETRIES" envDefault:"sidecar"`

	// StateCalls is how many calls to the state store may be under way at a time, none or 0 for any number.
	StateCalls uint `env:"STATE_CALLS"`

	LogFormat LogFormat  `env:"LOG_FORMAT" envDefault:"json"`
	LogLevel  slog.Level `env:"LOG_LEVEL" envDefault:"info"`

	// DebugPort shows Go's profiles on this port of the loopback interface, 0 being any free one; unset, which is usual, not
	// at all.
	DebugPort *Port `env:"DEBUG_PORT"`
}

// Parse reads T, a struct with env tags, from an environment such as os.Environ gives it.
func Parse[T any](environ []string) (T, error) {
	c, err := env.ParseAsWithOptions[T](env.Options{Environment: env.ToMap(environ)})
	if err != nil {
		return c, fmt.Errorf("read the configuration: %w", err)
	}
	return c, nil
}

// The types below check themselves, so that all faults come out of one parse.
type (
	// Port is a TCP port; 0 stands for any free one.
	Port uint16
	// LogFormat is json or text.
	LogFormat string
	// EventRetries is SidecarRetries or BrokerRetries.
	EventRetries string
	// Duration is a length of time that is longer than nothing.
	Duration time.Duration
	// Count is a number of at least one.
	Count int
)

// UnmarshalText reads a port.
func (p *Port) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 16)
	if err != nil {
		return errors.New("a port is a number from 0 (any free one) to 65535")
	}
	*p = Port(n)
	return nil
}

// UnmarshalText reads a log format.
func (f *LogFormat) UnmarshalText(text []byte) error {
	*f = LogFormat(text)
	if *f != "json" && *f != "text" {
		return errors.New("the log format is json or text")
	}
	return nil
}

const (
	// SidecarRetries is for a sidecar with a resiliency policy that retries without end.
	SidecarRetries EventRetries = "sidecar"
	// BrokerRetries is for a sidecar without one, which gives an event back to the broker.
	BrokerRetries EventRetries = "broker"
)

// UnmarshalText reads who retries.
func (r *EventRetries) UnmarshalText(text []byte) error {
	*r = EventRetries(text)
	if *r != SidecarRetries && *r != BrokerRetries {
		return errors.New("events are retried by the sidecar or by the broker")
	}
	return nil
}

// UnmarshalText reads a duration such as 24h.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil || parsed <= 0 {
		return errors.New("a duration is positive and has a unit, such as 5m or 24h")
	}
	*d = Duration(parsed)
	return nil
}

// UnmarshalText reads a count.
func (c *Count) UnmarshalText(text []byte) error {
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 1 {
		return errors.New("a count is a whole number of at least 1")
	}
	*c = Count(n)
	return nil
}
