// Package contact holds the rules of contacts: which addresses are valid, which of two contacts is newer, and which channels a
// customer wants. It does no I/O.
package contact

import (
	"crypto/ecdh"
	"encoding/base64"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"waybill/contracts"
	"waybill/services/notifications/internal/message"
)

// Contact holds the addresses and preferences of a customer. The zero value is the contact of an unknown customer.
type Contact struct {
	contracts.Contact

	// At is the time of the contact. An older event does not change it.
	At time.Time `json:"at"`
	// Removed says that the contact was deleted. The mark stays, so that an older event does not restore the contact.
	Removed bool `json:"removed,omitempty"`

	// Waiting lists the places of messages that may wait for an address of this customer. It is part of the same document, so
	// that no message can miss a new address.
	Waiting []Waiting `json:"waiting,omitempty"`
}

// Waiting is a place where messages may wait for an address, until a time at the latest. It stays in the list until that time,
// even if no message there waits any more.
type Waiting struct {
	Place string    `json:"place"`
	Until time.Time `json:"until"`
}

const (
	// maxWaiting limits the list, and so the work that a new address causes. One place is one order.
	maxWaiting = 200
	// waitingGrace is how long a place stays in the list after its time. Another message there may wait half of it longer without a
	// new time in the list.
	waitingGrace = time.Minute
)

// Await adds a place where a message waits until the given time. It reports whether the list changed; ok is false if the list is
// full.
func (c *Contact) Await(place string, until, now time.Time) (changed, ok bool) {
	for i, w := range c.Waiting {
		if w.Place == place {
			if !until.After(w.Until.Add(waitingGrace / 2)) {
				return false, true
			}
			c.Waiting[i].Until = until
			return true, true
		}
	}
	c.Waiting = slices.DeleteFunc(c.Waiting, func(w Waiting) bool { return now.After(w.Until.Add(waitingGrace)) })
	if len(c.Waiting) >= maxWaiting {
		return false, false
	}
	c.Waiting = append(c.Waiting, Waiting{Place: place, Until: until})
	return true, true
}

// Lacks reports whether only an address is missing for the channel, so that a message can wait for one. For a deleted contact it is
// false: the customer asked to be forgotten.
func (c *Contact) Lacks(channel string) bool {
	refusal := c.Refusal(channel)
	return refusal != nil && refusal.Code == message.CodeNoAddress && !c.Removed
}

// Known reports whether the customer has a contact.
func (c *Contact) Known() bool { return !c.At.IsZero() && !c.Removed }

// clockSlack is the largest difference between the clocks of two replicas at which their times can be compared.
const clockSlack = time.Minute

// Learn sets the contact to what an event said at the given time, unless a newer one is known. It reports a change. A time in the
// future counts as now, otherwise no later event could change the contact. A known contact from the future was written by a
// replica whose clock was ahead; in that case the last event counts.
func (c *Contact) Learn(said contracts.Contact, at, now time.Time) bool {
	if at.After(now) {
		at = now
	}
	if !at.After(c.At) && c.At.Sub(now) <= clockSlack {
		return false
	}
	*c = Contact{Contact: said, At: at, Waiting: c.Waiting}
	return true
}

// Set replaces the contact.
func (c *Contact) Set(said contracts.Contact, now time.Time) {
	*c = Contact{Contact: said, At: c.later(now), Waiting: c.Waiting}
}

// Remove deletes the contact.
func (c *Contact) Remove(now time.Time) {
	*c = Contact{At: c.later(now), Removed: true, Waiting: c.Waiting}
}

// later returns now, or the time of the contact if that is later because of the clock of another replica.
func (c *Contact) later(now time.Time) time.Time {
	if now.Before(c.At) {
		return c.At
	}
	return now
}

// ForgetPush removes the push subscription if it still has that endpoint. It reports a change.
func (c *Contact) ForgetPush(endpoint string) bool {
	if c.Push == nil || c.Push.Endpoint != endpoint {
		return false
	}
	c.Push = nil
	return true
}

// Refusal returns why the channel cannot be used for the customer, or nil if it can.
func (c *Contact) Refusal(channel string) *message.Refusal {
	if !c.Known() {
		return &message.Refusal{Code: message.CodeNoAddress, Text: "No contact of the customer is known."}
	}
	wanted := contracts.Preferences{Email: true, SMS: true, Push: true}
	if c.Preferences != nil {
		wanted = *c.Preferences
	}
	var on, there bool
	var lacking string
	switch channel {
	case contracts.ChannelEmail:
		on, there, lacking = wanted.Email, c.Email != "", "email address"
	case contracts.ChannelSMS:
		on, there, lacking = wanted.SMS, c.Phone != "", "phone number"
	case contracts.ChannelPush:
		on, there, lacking = wanted.Push, c.Push != nil, "push subscription"
	}
	switch {
	case !on:
		return &message.Refusal{Code: message.CodeOptedOut, Text: "The customer does not want messages over this channel."}
	case !there:
		return &message.Refusal{Code: message.CodeNoAddress, Text: "The customer has no " + lacking + "."}
	default:
		return nil
	}
}

// Fault is an invalid field: its JSON path in the contact, and the expectation. It does not repeat the value, which is personal
// data.
type Fault struct{ Path, Expectation string }

// Faults lists all faults of a contact.
type Faults []Fault

func (f Faults) Error() string {
	all := make([]string, len(f))
	for i, fault := range f {
		all[i] = fault.Path + " " + fault.Expectation
	}
	return "the contact is invalid: " + strings.Join(all, "; ")
}

const (
	maxName     = 200
	maxEndpoint = 2000
	// authLength is the length of a subscription's authentication secret in bytes (RFC 8291, section 3.2).
	authLength = 16
)

var phoneForm = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)

// Check returns all faults of the contact. Push endpoints must be https. With loopback, http on this machine is allowed, too.
func Check(c contracts.Contact, loopback bool) Faults {
	var faults Faults
	add := func(path, expectation string) { faults = append(faults, Fault{path, expectation}) }
	if utf8.RuneCountInString(c.Name) > maxName || strings.ContainsFunc(c.Name, breaksLine) {
		add("name", "must be one line of at most 200 characters")
	}
	if c.Email != "" {
		if _, err := MailAddress(c.Email); err != nil {
			add("email", err.Error())
		}
	}
	if c.Phone != "" && !ValidPhone(c.Phone) {
		add("phone", "must be a number in E.164 form, with the digits 0 to 9, such as +12065550123")
	}
	if c.Push != nil {
		if !EndpointAllowed(c.Push.Endpoint, loopback) {
			add("push.endpoint", "must be the https address of a push service, in ASCII characters, without user name and fragment, at most 2000 bytes")
		}
		if !validKey(c.Push.P256DH) {
			add("push.p256dh", "must be a public key on the curve P-256, uncompressed, in base64url")
		}
		if !validAuth(c.Push.Auth) {
			add("push.auth", "must be 16 bytes in base64url")
		}
	}
	return faults
}

// breaksLine reports whether r ends a line or is a control character.
func breaksLine(r rune) bool { return unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp) }

// ValidPhone reports whether s is a phone number in E.164 form.
func ValidPhone(s string) bool { return phoneForm.MatchString(s) }

// ValidKeys reports whether messages can be encrypted for the subscription.
func ValidKeys(p contracts.PushAddress) bool { return validKey(p.P256DH) && validAuth(p.Auth) }

func validKey(s string) bool {
	key, err := decodeKey(s)
	return err == nil && onCurve(key)
}

func validAuth(s string) bool {
	secret, err := decodeKey(s)
	return err == nil && len(secret) == authLength
}

// EndpointAllowed reports whether the URL is allowed as a push endpoint. It does not resolve the host name: the channel checks the IP
// address when it connects.
func EndpointAllowed(endpoint string, loopback bool) bool {
	u, err := url.Parse(endpoint)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.Opaque != "" || len(endpoint) > maxEndpoint {
		return false
	}
	// Browsers use the ASCII form of a host. With another form, the signed name (RFC 8292) and the called name would differ.
	if strings.ContainsFunc(endpoint, func(r rune) bool { return r <= ' ' || r >= unicode.MaxASCII }) || !validPort(u.Port()) {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && loopback && isLoopback(u.Hostname())
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// decodeKey decodes base64url with or without padding.
func decodeKey(s string) ([]byte, error) {
	return base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(s, "="))
}

func onCurve(key []byte) bool {
	_, err := ecdh.P256().NewPublicKey(key)
	return err == nil
}
