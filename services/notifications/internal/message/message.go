// Package message holds the rules of one message over one channel: what it tells, when it may be tried, and how it comes to
// its one outcome. It does no I/O and knows neither addresses nor channels' ways.
package message

import (
	"slices"
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
}

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

// pause is how long to wait after the attempt of that number.
func (p Policy) pause(attempt int) time.Duration {
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

// Due is when the next attempt may begin, or, of a message that has its outcome, when it came to it.
func (m *Message) Due() time.Time {
	switch m.State {
	case Pending:
		return m.NextAttemptAt
	case Sending:
		return m.ClaimedUntil
	default:
		return m.FinishedAt
	}
}

// Ready reports whether an attempt may begin: the message has no outcome, its pause is over and nobody is sending it.
func (m *Message) Ready(now time.Time) bool { return !m.Final() && !now.Before(m.Due()) }

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

// Begin starts an attempt, named by, when the message is Ready. Of an earlier attempt without an end the outcome is not
// known: it is tried again, and given up when it was the last. Begin reports whether the message may be sent.
func (m *Message) Begin(by string, now, until time.Time, p Policy) bool {
	unknown := m.State == Sending
	if unknown {
		m.LastError = "An attempt did not come to its end; whether the channel took the message is not known."
	}
	if m.Attempts >= p.Attempts {
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
	m.fail(r.Code, r.Text, now)
	return true
}

// Retry records that the attempt of that name did not succeed, for the reason in text, and plans the next one, not before
// notBefore; after the last attempt it gives the message up. It reports whether that changed anything: when another attempt
// has begun since, that one decides.
func (m *Message) Retry(by, text string, now, notBefore time.Time, p Policy) bool {
	if m.State != Sending || m.ClaimedBy != by {
		return false
	}
	if m.Attempts >= p.Attempts {
		m.fail(CodeUnavailable, text, now)
		return true
	}
	m.State, m.LastError, m.ClaimedBy, m.ClaimedUntil = Pending, text, "", time.Time{}
	m.NextAttemptAt = now.Add(p.pause(m.Attempts))
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

// Outcome is the event that tells of a Final message's outcome, and its id.
func (m *Message) Outcome() (id string, payload contracts.Payload) {
	if m.State == Delivered {
		payload = contracts.NotificationDelivered{
			NotificationID: m.ID, OrderID: m.OrderID, CustomerID: m.CustomerID, Channel: m.Channel, Template: m.Template,
			Attempts: m.Attempts, DeliveredAt: m.FinishedAt.UTC(),
		}
	} else {
		payload = contracts.NotificationFailed{
			NotificationID: m.ID, OrderID: m.OrderID, CustomerID: m.CustomerID, Channel: m.Channel, Template: m.Template,
			Code: m.Code, Error: m.Error, Attempts: m.Attempts, FailedAt: m.FinishedAt.UTC(),
		}
	}
	return m.ID + ":" + payload.EventType(), payload
}
