// Package config reads a service's environment, once, and names every variable that is wrong.
package config

import (
	"encoding"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"waybill/platform/sidecar"
)

// Service is what every service is told. A service embeds it in its own configuration.
type Service struct {
	Host string `env:"APP_HOST" envDefault:"127.0.0.1"`
	// Port has no default: Dapr gives it, and two services that share one would be hard to tell apart.
	Port Port `env:"APP_PORT,required,notEmpty"`
	// APIToken is what the sidecar shows when it delivers events.
	APIToken sidecar.Secret `env:"APP_API_TOKEN"`
	Sidecar  sidecar.Config

	// EventRetries says who delivers an event again that this service gives back.
	EventRetries EventRetries `env:"EVENT_RETRIES" envDefault:"sidecar"`

	// StateCalls is how many calls to the state store may be under way at a time, none or 0 for any number.
	StateCalls uint `env:"STATE_CALLS"`

	// DeadLetterRetention is how long a dead letter is kept that was redriven or dismissed.
	DeadLetterRetention Retention `env:"DEAD_LETTER_RETENTION" envDefault:"2160h"`

	// CORSOrigins are the origins whose pages may use the API in a browser, none by default.
	CORSOrigins Origins `env:"CORS_ORIGINS"`

	LogFormat LogFormat  `env:"LOG_FORMAT" envDefault:"json"`
	LogLevel  slog.Level `env:"LOG_LEVEL" envDefault:"info"`

	// Collector is where traces and metrics go; OpenTelemetry reads it by itself, and goes on without it when it is no address.
	Collector Address `env:"OTEL_EXPORTER_OTLP_ENDPOINT"`

	// DebugPort shows Go's profiles on this port of the loopback interface, 0 being any free one; unset, which is usual, not
	// at all.
	DebugPort *Port `env:"DEBUG_PORT"`
}

// Parse reads T, a struct with env tags, from an environment such as os.Environ gives it. The error has a line for each
// variable that is missing or wrong, which says what is expected of it. T then has those variables' defaults, so that its own
// checks find nothing but their own faults.
func Parse[T any](environ []string) (T, error) {
	variables := env.ToMap(environ)
	c, err := env.ParseAsWithOptions[T](env.Options{Environment: variables})
	var all env.AggregateError
	if !errors.As(err, &all) {
		return c, err
	}
	fields := fieldsOf(reflect.TypeFor[T]())
	faults := make([]error, 0, len(all.Errors))
	for _, err := range all.Errors {
		var wrong env.ParseError
		var missing env.VarIsNotSetError
		var empty env.EmptyVarError
		switch {
		case errors.As(err, &wrong):
			name := fields.variable(wrong.Name, wrong.Type)
			faults = append(faults, fmt.Errorf("%s is %q: %s", name, variables[name], expected(wrong.Type, wrong.Err)))
			delete(variables, name)
		case errors.As(err, &missing):
			faults = append(faults, fmt.Errorf("%s is missing: %s", missing.Key, fields.expectation(missing.Key)))
		case errors.As(err, &empty):
			faults = append(faults, fmt.Errorf("%s is empty: %s", empty.Key, fields.expectation(empty.Key)))
		default:
			faults = append(faults, err)
		}
	}
	c, _ = env.ParseAsWithOptions[T](env.Options{Environment: variables}) // what is missing still is
	return c, errors.Join(faults...)
}

// Checked names the variables of T that are checked when they are read, because not every text is a value of their type.
func Checked[T any]() []string {
	var names []string
	for _, f := range fieldsOf(reflect.TypeFor[T]()) {
		kind := f.kind
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		if _, checksItself := reflect.TypeAssert[encoding.TextUnmarshaler](reflect.New(kind)); checksItself || kind.Kind() != reflect.String {
			names = append(names, f.variable)
		}
	}
	return names
}

// fields are those of a configuration, those of its parts included.
type fields []field

type field struct {
	name, variable string
	kind           reflect.Type
}

func fieldsOf(t reflect.Type) fields {
	var all fields
	for _, f := range reflect.VisibleFields(t) {
		variable, _, _ := strings.Cut(f.Tag.Get("env"), ",")
		switch {
		case variable != "":
			all = append(all, field{f.Name, variable, f.Type})
		case f.Type.Kind() == reflect.Struct && !f.Anonymous:
			all = append(all, fieldsOf(f.Type)...)
		}
	}
	return all
}

func (all fields) variable(name string, kind reflect.Type) string {
	for _, f := range all {
		if f.name == name && f.kind == kind {
			return f.variable
		}
	}
	return name
}

// expectation is what the variable's type says of a value that it does not take.
func (all fields) expectation(variable string) string {
	for _, f := range all {
		if text, ok := reflect.TypeAssert[encoding.TextUnmarshaler](reflect.New(f.kind)); ok && f.variable == variable {
			if err := text.UnmarshalText(nil); err != nil {
				return err.Error()
			}
		}
	}
	return "it must be set"
}

// expected is what a value of that type looks like.
func expected(kind reflect.Type, err error) string {
	if kind.Kind() == reflect.Pointer {
		kind = kind.Elem()
	}
	switch kind {
	case reflect.TypeFor[time.Duration]():
		return "a duration has a unit, such as 5m or 24h"
	case reflect.TypeFor[slog.Level]():
		return "the log level is debug, info, warn or error"
	}
	switch kind.Kind() {
	case reflect.Bool:
		return "it is true or false"
	case reflect.Uint:
		if _, checksItself := reflect.TypeAssert[encoding.TextUnmarshaler](reflect.New(kind)); !checksItself {
			return "it is a whole number that is not negative"
		}
	default:
	}
	return err.Error()
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
	// Retention is how long something is kept that has come to its end; 0 is for ever.
	Retention time.Duration
	// Count is a number of at least one.
	Count int
	// Address is an http or https URL, or empty.
	Address string
	// Origins are web origins as browsers send them, such as https://shop.example.com.
	Origins []string
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

// maxDuration is a hundred years of 365 days.
const maxDuration = 100 * 365 * 24 * time.Hour

// UnmarshalText reads a duration such as 24h.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil || parsed <= 0 {
		return errors.New("a duration is positive and has a unit, such as 5m or 24h")
	}
	if parsed > maxDuration {
		return fmt.Errorf("a duration is not more than %s, so that a time that much from now can be stored", maxDuration)
	}
	*d = Duration(parsed)
	return nil
}

// UnmarshalText reads a retention such as 2160h, or 0.
func (r *Retention) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	switch {
	case err != nil || parsed != 0 && parsed < time.Second:
		// The store counts whole seconds.
		return errors.New("a retention is 0 (for ever) or a duration of at least 1s with a unit, such as 2160h")
	case parsed > maxDuration:
		return fmt.Errorf("a retention is 0 (for ever) or not more than %s", maxDuration)
	}
	*r = Retention(parsed)
	return nil
}

// UnmarshalText reads an address.
func (a *Address) UnmarshalText(text []byte) error {
	*a = Address(text)
	if u, err := url.Parse(string(text)); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("an address begins with http:// or https:// and names a host, such as http://127.0.0.1:4318")
	}
	return nil
}

// UnmarshalText reads origins, separated by commas.
func (o *Origins) UnmarshalText(text []byte) error {
	*o = nil
	for origin := range strings.SplitSeq(string(text), ",") {
		if origin = strings.TrimSpace(origin); origin == "" && len(text) == 0 {
			return nil
		}
		if problem := originProblem(origin); problem != "" {
			return fmt.Errorf("origins are exact and separated by commas, such as https://shop.example.com,http://localhost:3000, and %q %s", origin, problem)
		}
		*o = append(*o, origin)
	}
	return nil
}

// originProblem is what keeps text from being an origin as a browser sends it, empty when nothing does. Browsers compare
// origins by every letter, so one that they never send would allow nothing.
func originProblem(text string) string {
	if strings.Contains(text, "*") {
		return "must not contain a wildcard: name each origin"
	}
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return "must be http:// or https:// and a host"
	case u.User != nil, text != u.Scheme+"://"+u.Host:
		return "must have nothing but a scheme, a host and a port: no path, no slash at the end, no query"
	case text != strings.ToLower(text):
		return "must be in lower case, as browsers send it"
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "must be in ASCII: a host beyond it is written in punycode"
	case strings.HasSuffix(u.Host, ":"), u.Scheme == "http" && u.Port() == "80", u.Scheme == "https" && u.Port() == "443":
		return "must leave the scheme's own port out, as browsers do"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "must have a port from 1 to 65535"
		}
	}
	return ""
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
