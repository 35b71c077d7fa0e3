package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"waybill/platform/config"
	"waybill/platform/sidecar"
	"waybill/services/notifications/internal/contact"
	"waybill/services/notifications/internal/message"
	"waybill/services/notifications/internal/vapid"
)

// Config is everything that the environment decides.
type Config struct {
	config.Service

	// OperatorsEmail gets the alerts.
	OperatorsEmail emailAddress `env:"OPERATORS_EMAIL" envDefault:"operators@example.com"`

	// The keys that identify this service to push services, in base64url. Without them a pair is generated and kept in the state
	// store, readable for everyone with access to that store.
	VAPIDPublicKey  string         `env:"VAPID_PUBLIC_KEY"`
	VAPIDPrivateKey sidecar.Secret `env:"VAPID_PRIVATE_KEY"`
	// VAPIDSubject is the address at which a push service's operators reach the operators of this service.
	VAPIDSubject string `env:"VAPID_SUBJECT" envDefault:"mailto:operators@example.com"`
	// AllowLoopbackPush lets push endpoints be on this machine, for tests and laptops.
	AllowLoopbackPush bool `env:"ALLOW_LOOPBACK_PUSH" envDefault:"false"`

	// SendAttempts is how many times a message is tried. The pauses double from SendFirstRetry to SendLastRetry: with the defaults
	// two hours in all.
	SendAttempts   config.Count    `env:"SEND_ATTEMPTS" envDefault:"30"`
	SendFirstRetry config.Duration `env:"SEND_FIRST_RETRY" envDefault:"1s"`
	SendLastRetry  config.Duration `env:"SEND_LAST_RETRY" envDefault:"5m"`
	// SendTimeout bounds one call of a channel.
	SendTimeout config.Duration `env:"SEND_TIMEOUT" envDefault:"10s"`
	// AddressWait is how long a message to a customer without an address for its channel waits for one.
	AddressWait config.Duration `env:"ADDRESS_WAIT" envDefault:"24h"`
	// MessageRetention is how long a message is kept after its outcome.
	MessageRetention config.Retention `env:"MESSAGE_RETENTION" envDefault:"2160h"`
}

type emailAddress string

// UnmarshalText reads one bare email address.
func (a *emailAddress) UnmarshalText(text []byte) error {
	*a = emailAddress(text)
	if _, err := contact.MailAddress(string(text)); err != nil {
		return fmt.Errorf("an email address is expected, such as operators@example.com: it %w", err)
	}
	return nil
}

// parse reads and checks the environment. Its error names every setting that is wrong.
func parse(environ []string) (Config, error) {
	c, err := config.Parse[Config](environ)
	faults := []error{err}
	var ok bool
	if c.VAPIDPublicKey != "" || c.VAPIDPrivateKey != "" {
		if _, err := vapid.Parse(c.VAPIDPublicKey, string(c.VAPIDPrivateKey)); err != nil {
			faults = append(faults, fmt.Errorf("VAPID_PUBLIC_KEY and VAPID_PRIVATE_KEY: both or neither are expected, a pair of P-256 keys in base64url: %w", err))
		}
	}
	if c.VAPIDSubject, ok = subject(c.VAPIDSubject); !ok {
		faults = append(faults, fmt.Errorf("VAPID_SUBJECT is %q: an address that begins with mailto: or https:// is expected", c.VAPIDSubject))
	}
	if c.SendFirstRetry > c.SendLastRetry {
		faults = append(faults, fmt.Errorf("SEND_FIRST_RETRY is %v: not more than SEND_LAST_RETRY is expected", time.Duration(c.SendFirstRetry)))
	}
	return c, errors.Join(faults...)
}

// subject returns the address in the form for a push service's token (RFC 8292), and whether it is valid.
func subject(address string) (string, bool) {
	if name, isMail := strings.CutPrefix(address, "mailto:"); isMail {
		ascii, err := contact.MailAddress(name)
		if err != nil {
			return address, false
		}
		return "mailto:" + ascii, true
	}
	return address, contact.EndpointAllowed(address, false)
}

func (c Config) policy() message.Policy {
	return message.Policy{Attempts: int(c.SendAttempts), First: time.Duration(c.SendFirstRetry), Last: time.Duration(c.SendLastRetry)}
}
