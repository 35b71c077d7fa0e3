package config

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// These types check their own values, so that one parse finds all faults.
type (
	// Port is a TCP port; 0 is any free one.
	Port uint16
	// LogFormat is json or text.
	LogFormat string
	// EventRetries is SidecarRetries or BrokerRetries.
	EventRetries string
	// Duration is a length of time of more than 0.
	Duration time.Duration
	// Retention is how long something is kept after its end; 0 is for ever.
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
	// SidecarRetries is for a sidecar with a resiliency policy that retries without limit.
	SidecarRetries EventRetries = "sidecar"
	// BrokerRetries is for a sidecar without such a policy, which returns an event to the broker.
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
		return fmt.Errorf("a duration is not more than %s, so that a time that far from now can be stored", maxDuration)
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

// originProblem says why text is not an origin as browsers send it; it is empty for one that is. An origin is compared as text,
// so one in another form would match no browser.
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
