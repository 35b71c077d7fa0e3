// Package message holds the rules of one message over one channel: what it tells, when it may be tried, and how it comes to
// its one outcome. It does no I/O and knows neither addresses nor channels' ways.
package message

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"waybill/contracts"
)

// State is where a message stands.
type State string

const (
	// Pending says that the message waits for its next attempt.
	Pending State = "pending"
	// Sending says that somebody hands the message to its channel, or died doing so.
	Sending State = "sending"
	// Waiting says that the customer has no address for the channel, and that the message is sent once there is one.
	Waiting State = "waiting_for_address"
	// Delivered says that the channel took the message.
	Delivered State = "delivered"
	// Failed says that the message was given up.
	Failed State = "failed"
)

// Message is one message over one channel, to a customer or, without one, to the operators.
type Message struct {
	ID         string `json:"id"`
	OrderID    string `json:"order_id,omitempty"`
	CustomerID string `json:"customer_id,omitempty"`
	Channel    string `json:"channel"`
	Template   string `json:"template"`
	Facts      Facts  `json:"facts"`
	// RequestedAt is when whoever asked for the message did.
	RequestedAt time.Time `json:"requested_at"`
	// TraceParent is the W3C trace context of the request, so that sending belongs to its trace.
	TraceParent string `json:"trace_parent,omitempty"`

	State State `json:"state"`
	// Attempts counts the calls of the channel, one that is under way included.
	Attempts      int       `json:"attempts"`
	LastAttemptAt time.Time `json:"last_attempt_at,omitzero"`
	NextAttemptAt time.Time `json:"next_attempt_at,omitzero"`
	// LastError is a sentence about the latest attempt that did not succeed.
	LastError string `json:"last_error,omitempty"`
	// ClaimedBy names the attempt under way, unlike any other one; until ClaimedUntil nobody else may begin one.
	ClaimedBy    string    `json:"claimed_by,omitempty"`
	ClaimedUntil time.Time `json:"claimed_until,omitzero"`

	// FinishedAt is when the message came to its outcome; Code and Error say why when that is Failed.
	FinishedAt time.Time `json:"finished_at,omitzero"`
	Code       string    `json:"code,omitempty"`
	Error      string    `json:"error,omitempty"`

	// WaitsUntil is when a message that waits for an address is given up. It stays when the message is released, so that it
	// does not wait longer the second time.
	WaitsUntil time.Time `json:"waits_until,omitzero"`
	// Round counts how often the message began again: after it waited, and with every resend. Earlier entries of the backlog say
	// nothing about it.
	Round int `json:"round,omitempty"`
	// EarlierAttempts is how many of the Attempts were made before the last resend.
	EarlierAttempts int `json:"earlier_attempts,omitempty"`
	// Resends are the operators' orders to send the message again, oldest first.
	Resends []Resend `json:"resends,omitempty"`
}

// Resend is an operator's order to send a message again.
type Resend struct {
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	// Earlier is the outcome that the message had.
	Earlier Earlier `json:"earlier"`
}

// Earlier is an outcome that a resend replaced.
type Earlier struct {
	State State     `json:"state"`
	At    time.Time `json:"at"`
	Code  string    `json:"code,omitempty"`
	Error string    `json:"error,omitempty"`
}

// MaxResends is how often a message can be sent again.
const MaxResends = 20

// Facts are what a template may tell.
type Facts struct {
	TotalAmount       contracts.Amount `json:"total_amount,omitempty"`
	Currency          string           `json:"currency,omitempty"`
	Carrier           string           `json:"carrier,omitempty"`
	TrackingNumber    string           `json:"tracking_number,omitempty"`
	EstimatedDelivery time.Time        `json:"estimated_delivery,omitzero"`
	Reason            string           `json:"reason,omitempty"`
	Refunded          bool             `json:"refunded,omitempty"`
	ExpiresAt         time.Time        `json:"expires_at,omitzero"`
	NotUndone         []string         `json:"not_undone,omitempty"`
	ProductID         string           `json:"product_id,omitempty"`
	Stock             int              `json:"stock,omitempty"`
	Warehouse         string           `json:"warehouse,omitempty"`
}

// Policy is how often a message is tried, and how long the pauses between are: First, doubled each time, at most Last.
type Policy struct {
	Attempts    int
	First, Last time.Duration
}

// Pause is how long to wait after the attempt of that number.
func (p Policy) Pause(attempt int) time.Duration {
	pause := p.First
	for ; attempt > 1 && pause < p.Last; attempt-- {
		pause *= 2
	}
	return min(pause, p.Last)
}

// ToOperators reports whether the message is for the operators and no customer.
func (m *Message) ToOperators() bool { return m.CustomerID == "" }

// Final reports whether the message has its outcome.
func (m *Message) Final() bool { return m.State == Delivered || m.State == Failed }

// Due is when the next attempt may begin, or, of a message that waits for an address, until when it does, or, of a message that has its outcome, when it came to it.
func (m *Message) Due() time.Time {
	switch m.State {
	case Pending:
		return m.NextAttemptAt
	case Sending:
		return m.ClaimedUntil
	case Waiting:
		return m.WaitsUntil
	default:
		return m.FinishedAt
	}
}

// Ready reports whether an attempt may begin: the message has no outcome and an address, its pause is over and nobody is
// sending it. Now is the time on the clock that wrote Due.
func (m *Message) Ready(now time.Time) bool {
	return (m.State == Pending || m.State == Sending) && !now.Before(m.Due())
}

// Pause is how long the pause before the next attempt was when it was planned, by the clock that planned it; zero without one.
func (m *Message) Pause() time.Duration {
	if m.NextAttemptAt.IsZero() || m.LastAttemptAt.IsZero() {
		return 0
	}
	return max(0, m.NextAttemptAt.Sub(m.LastAttemptAt))
}

// SameContent reports whether both messages tell the same to the same recipient over the same channel.
func (m *Message) SameContent(other *Message) bool {
	a, b := m.Facts, other.Facts
	return m.ID == other.ID && m.OrderID == other.OrderID && m.CustomerID == other.CustomerID && m.Channel == other.Channel &&
		m.Template == other.Template && slices.Equal(a.NotUndone, b.NotUndone) && a.comparable() == b.comparable()
}

// comparable is the facts without their slice, and with their times in one zone.
func (f Facts) comparable() any {
	type plain struct {
		amount                                                        contracts.Amount
		currency, carrier, tracking, reason, product, warehouse, when string
		refunded                                                      bool
		stock                                                         int
	}
	return plain{
		f.TotalAmount, f.Currency, f.Carrier, f.TrackingNumber, f.Reason, f.ProductID, f.Warehouse,
		f.EstimatedDelivery.UTC().String() + f.ExpiresAt.UTC().String(), f.Refunded, f.Stock,
	}
}

// tried is how many attempts count: those since the last resend.
func (m *Message) tried() int { return m.Attempts - m.EarlierAttempts }

// Begin starts an attempt, named by, when the message is Ready. Of an earlier attempt without an end the outcome is not
// known: it is tried again, and given up when it was the last. Begin reports whether the message may be sent.
func (m *Message) Begin(by string, now, until time.Time, p Policy) bool {
	unknown := m.State == Sending
	if unknown {
		m.LastError = "An attempt did not come to its end; whether the channel took the message is not known."
	}
	if m.tried() >= p.Attempts {
		code := CodeUnavailable
		if unknown {
			code = CodeOutcomeUnknown
		}
		m.fail(code, m.LastError, now)
		return false
	}
	m.State, m.NextAttemptAt = Sending, time.Time{}
	m.Attempts++
	m.LastAttemptAt, m.ClaimedBy, m.ClaimedUntil = now, by, until
	return true
}

// Renew prolongs the attempt of that name, and reports whether it is the one under way.
func (m *Message) Renew(by string, until time.Time) bool {
	if m.State != Sending || m.ClaimedBy != by {
		return false
	}
	m.ClaimedUntil = until
	return true
}

// Accept records that the channel took the message. It reports whether that changed anything: the first outcome stands.
func (m *Message) Accept(now time.Time) bool {
	if m.Final() {
		return false
	}
	m.finish(Delivered, now)
	m.LastError = ""
	return true
}

// Refuse gives the message up, and reports whether that changed anything: the first outcome stands.
func (m *Message) Refuse(r *Refusal, now time.Time) bool {
	if m.Final() {
		return false
	}
	if m.State == Waiting {
		m.Round++
	}
	m.fail(r.Code, r.Text, now)
	return true
}

// Wait has the message wait until then for an address, for the lack that r names, and reports whether that changed anything.
// A message that has waited before waits until the time of then, and is given up when that is over.
func (m *Message) Wait(r *Refusal, now, until time.Time) bool {
	if m.Final() || m.State == Waiting {
		return false
	}
	if m.WaitsUntil.IsZero() {
		m.WaitsUntil = until
	}
	if !now.Before(m.WaitsUntil) {
		m.fail(r.Code, r.Text, now)
		return true
	}
	m.State, m.LastError = Waiting, r.Text
	m.ClaimedBy, m.ClaimedUntil, m.NextAttemptAt = "", time.Time{}, time.Time{}
	return true
}

// Release ends the wait, for there is an address, and reports whether the message waited.
func (m *Message) Release() bool {
	if m.State != Waiting {
		return false
	}
	m.State, m.LastError = Pending, ""
	m.Round++
	return true
}

// Resend has a message that has its outcome sent again, and reports whether that changed anything: the same order again is no
// other one, while the message is on its way and when it was delivered. A message that was delivered is sent again only if the
// order says so.
func (m *Message) Resend(actor, reason string, evenIfDelivered bool, now time.Time) (bool, error) {
	n := len(m.Resends)
	same := n > 0 && m.Resends[n-1].Actor == actor && m.Resends[n-1].Reason == reason
	switch {
	case same && m.State != Failed:
		return false, nil
	case !m.Final():
		return false, ErrPending(m.State)
	case m.State == Delivered && !evenIfDelivered:
		return false, &Error{Kind: Conflict, Code: "notification_delivered", Text: "The notification was delivered; even_if_delivered must be true to send it a second time."}
	case n >= MaxResends:
		return false, &Error{Kind: Conflict, Code: "too_many_resends", Text: fmt.Sprintf("A notification can be sent again at most %d times.", MaxResends)}
	}
	m.Resends = append(slices.Clone(m.Resends), Resend{Actor: actor, Reason: reason, At: now.UTC(), Earlier: Earlier{m.State, m.FinishedAt.UTC(), m.Code, m.Error}})
	m.State, m.EarlierAttempts = Pending, m.Attempts
	m.FinishedAt, m.WaitsUntil, m.Code, m.Error, m.LastError = time.Time{}, time.Time{}, "", "", ""
	m.Round++
	return true, nil
}

// Retry records that the attempt of that name did not succeed, for the reason in text, and plans the next one, not before
// notBefore; after the last attempt it gives the message up. It reports whether that changed anything: when another attempt
// has begun since, that one decides. An attempt that was untried, because nothing was called, does not count.
func (m *Message) Retry(by, text string, untried bool, now, notBefore time.Time, p Policy) bool {
	if m.State != Sending || m.ClaimedBy != by {
		return false
	}
	if untried {
		m.Attempts--
	}
	if m.tried() >= p.Attempts {
		m.fail(CodeUnavailable, text, now)
		return true
	}
	m.State, m.LastError, m.ClaimedBy, m.ClaimedUntil = Pending, text, "", time.Time{}
	m.NextAttemptAt = now.Add(p.Pause(m.tried()))
	if m.NextAttemptAt.Before(notBefore) {
		m.NextAttemptAt = notBefore
	}
	return true
}

func (m *Message) fail(code, text string, now time.Time) {
	m.finish(Failed, now)
	m.Code, m.Error = code, text
}

func (m *Message) finish(s State, now time.Time) {
	m.State, m.FinishedAt = s, now
	m.ClaimedBy, m.ClaimedUntil, m.NextAttemptAt = "", time.Time{}, time.Time{}
}

// Outcome is the event that tells of a Final message's outcome, and its id. Each resend has an outcome of its own.
func (m *Message) Outcome() (id string, payload contracts.Payload) {
	if m.State == Delivered {
		payload = contracts.NotificationDelivered{
			NotificationID: m.ID, OrderID: m.OrderID, CustomerID: m.CustomerID, Channel: m.Channel, Template: m.Template,
			Attempts: m.Attempts, Resends: len(m.Resends), DeliveredAt: m.FinishedAt.UTC(),
		}
	} else {
		payload = contracts.NotificationFailed{
			NotificationID: m.ID, OrderID: m.OrderID, CustomerID: m.CustomerID, Channel: m.Channel, Template: m.Template,
			Code: m.Code, Error: m.Error, Attempts: m.Attempts, Resends: len(m.Resends), FailedAt: m.FinishedAt.UTC(),
		}
	}
	id = m.ID + ":" + payload.EventType()
	if n := len(m.Resends); n > 0 {
		id += ":" + strconv.Itoa(n)
	}
	return id, payload
}
