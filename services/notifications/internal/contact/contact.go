// Package contact holds the rules of how a customer can be reached: what an address looks like, which of two contacts is
// the newer, and which channels a customer wants. It does no I/O.
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

// Contact is what is known of a customer. The zero value is that of a customer nobody told of.
type Contact struct {
	contracts.Contact

	// At is when the customer could be reached this way; an older contact changes nothing.
	At time.Time `json:"at"`
	// Removed says that the contact was deleted. It stays as a mark, so that an older event does not bring it back.
	Removed bool `json:"removed,omitempty"`

	// Waiting says where messages may be that wait for an address of this customer. What is known of the customer changes
	// together with it, in one document, so that no message can miss an address.
	Waiting []Waiting `json:"waiting,omitempty"`
}

// Waiting is a place where messages may wait for an address, until a time at the latest. It stays in the list until then, also
// when they wait no longer.
type Waiting struct {
	Place string    `json:"place"`
	Until time.Time `json:"until"`
}

const (
	// maxWaiting bounds the list, and so the work that a new address causes: one place is one order.
	maxWaiting = 200
	// waitingGrace is how long a place stays in the list after its time, and by how much another message there may wait longer.
	waitingGrace = time.Minute
)

// Await notes that a message waits at the place until then. Changed says whether that was news, ok is false when the list is
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

// Lacks reports whether the channel lacks nothing but an address, which may come. A contact that was deleted is not waited for:
// its customer asked to be forgotten.
func (c *Contact) Lacks(channel string) bool {
	refusal := c.Refusal(channel)
	return refusal != nil && refusal.Code == message.CodeNoAddress && !c.Removed
}

// Known reports whether there is a contact.
func (c *Contact) Known() bool { return !c.At.IsZero() && !c.Removed }

// clockSlack is by how much the clocks of two replicas may differ so that their times can be compared.
const clockSlack = time.Minute

// Learn takes what an event said at that time, unless something newer is known, and reports whether it did. A time to come
// counts as now: else nothing true could follow. When what is known is from a time to come, a replica wrote it whose clock is
// ahead, or was: then the event that comes last counts.
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

// Set makes said the contact from now on, whatever was known.
func (c *Contact) Set(said contracts.Contact, now time.Time) {
	*c = Contact{Contact: said, At: c.later(now), Waiting: c.Waiting}
}

// Remove forgets every address.
func (c *Contact) Remove(now time.Time) {
	*c = Contact{At: c.later(now), Removed: true, Waiting: c.Waiting}
}

// later is now, unless a clock elsewhere is ahead of this one.
func (c *Contact) later(now time.Time) time.Time {
	if now.Before(c.At) {
		return c.At
	}
	return now
}

// ForgetPush drops the push subscription if it is still the one with that endpoint, and reports whether it did.
func (c *Contact) ForgetPush(endpoint string) bool {
	if c.Push == nil || c.Push.Endpoint != endpoint {
		return false
	}
	c.Push = nil
	return true
}

// Refusal says why the channel cannot be used for the customer, or nil when it can.
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

// Fault is one faulty field: its JSON path within the contact, and what was expected there. It does not repeat the value,
// which is a customer's.
type Fault struct{ Path, Expectation string }

// Faults is everything wrong with a contact.
type Faults []Fault

func (f Faults) Error() string {
	all := make([]string, len(f))
	for i, fault := range f {
		all[i] = fault.Path + " " + fault.Expectation
	}
	return "the contact is faulty: " + strings.Join(all, "; ")
}

const (
	maxName     = 200
	maxEndpoint = 2000
	// authLength is the length, in bytes, of a subscription's authentication secret (RFC 8291, section 3.2).
	authLength = 16
)

var phoneForm = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)

// Check returns everything wrong with the contact. Push endpoints are https; with loopback also http on this machine.
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

// breaksLine reports whether the character ends a line, or is not a character of a text at all.
func breaksLine(r rune) bool { return unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp) }

// ValidPhone reports whether s is a number in E.164 form.
func ValidPhone(s string) bool { return phoneForm.MatchString(s) }

// ValidKeys reports whether a message can be encrypted for the subscription.
func ValidKeys(p contracts.PushAddress) bool { return validKey(p.P256DH) && validAuth(p.Auth) }

func validKey(s string) bool {
	key, err := decodeKey(s)
	return err == nil && onCurve(key)
}

func validAuth(s string) bool {
	secret, err := decodeKey(s)
	return err == nil && len(secret) == authLength
}

// EndpointAllowed reports whether a push service may be called there as far as the address itself tells: which machine a
// name stands for is checked when it is called.
func EndpointAllowed(endpoint string, loopback bool) bool {
	u, err := url.Parse(endpoint)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.Opaque != "" || len(endpoint) > maxEndpoint {
		return false
	}
	// A browser gives the ASCII form of a host. Of another form the name that is signed (RFC 8292) and the name that is called
	// would differ.
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

// decodeKey reads base64url with or without padding.
func decodeKey(s string) ([]byte, error) {
	return base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(s, "="))
}

func onCurve(key []byte) bool {
	_, err := ecdh.P256().NewPublicKey(key)
	return err == nil
}
