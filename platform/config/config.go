// Package config reads a service's environment, once, and names every variable that is wrong. A field of a configuration is
// described by its tags: env and envDefault as in github.com/caarlos0/env, and formerly, the name that the variable had in
// earlier releases.
package config

import (
	"errors"
	"log/slog"
	"reflect"

	"github.com/caarlos0/env/v11"

	"waybill/platform/sidecar"
)

// Service are the settings that every service has. A service embeds it in its own configuration.
type Service struct {
	// Host is the address that the service listens on.
	Host string `env:"APP_HOST" envDefault:"127.0.0.1"`
	// Port has no default: Dapr sets it, and two services with the same port are hard to tell apart.
	Port Port `env:"APP_PORT,required,notEmpty"`
	// APIToken is the token that the sidecar sends when it delivers events.
	APIToken sidecar.Secret `env:"APP_API_TOKEN"`
	Sidecar  sidecar.Config

	// EventRetries says who delivers an event again that this service could not process.
	EventRetries EventRetries `env:"EVENT_RETRIES" envDefault:"sidecar"`

	// StateCalls is how many calls to the state store may run at the same time; 0, the default, is no limit.
	StateCalls uint `env:"STATE_CALLS"`

	// DeadLetterRetention is how long a dead letter is kept after it was redriven or dismissed.
	DeadLetterRetention Retention `env:"DEAD_LETTER_RETENTION" envDefault:"2160h"`

	// CORSOrigins are the origins whose pages may use the API in a browser, none by default.
	CORSOrigins Origins `env:"CORS_ORIGINS"`

	// The format of the log is json or text; LogLevel is debug, info, warn or error.
	LogFormat LogFormat  `env:"LOG_FORMAT" envDefault:"json"`
	LogLevel  slog.Level `env:"LOG_LEVEL" envDefault:"info"`

	// Collector is where traces and metrics go. OpenTelemetry reads it by itself, and ignores a value that is not an address.
	Collector Address `env:"OTEL_EXPORTER_OTLP_ENDPOINT"`

	// DebugPort serves Go's profiles on this port of the loopback interface, 0 being any free one. By default there are none.
	DebugPort *Port `env:"DEBUG_PORT"`

	renamed []rename // what Parse found under former names
}

// Parse reads T, a struct with env tags, from an environment such as os.Environ returns. The error has a line for each
// variable that is missing or wrong, which says what is expected of it. Those variables have their defaults in T, so that T's
// own checks find only their own faults. An empty variable counts as unset. A variable that is set by its former name counts
// as set; both names with different values are a fault.
func Parse[T any](environ []string) (T, error) {
	variables := env.ToMap(environ)
	fields := fieldsOf(reflect.TypeFor[T]())
	renamed, faults := fields.applyFormer(variables)
	c, err := env.ParseAsWithOptions[T](env.Options{Environment: variables})
	if err != nil {
		faults = append(faults, fields.faults(err, variables, renamed)...)
		c, _ = env.ParseAsWithOptions[T](env.Options{Environment: variables}) // what is missing still is
	}
	if s, ok := any(&c).(interface{ setRenamed(all []rename) }); ok {
		s.setRenamed(renamed)
	}
	return c, errors.Join(faults...)
}
