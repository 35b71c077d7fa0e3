// Package message holds the rules of one message over one channel: its content, when an attempt may begin, and how it
// reaches its one outcome. It does no I/O and knows neither addresses nor how channels work.
package message

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"waybill/contracts"
)

// State is the state of a message.
type State string

const (
	// Pending messages wait for their next attempt.
	Pending State = "pending"
	// Sending messages are claimed by a process that calls the channel, or that ended during the call.
	Sending State = "sending"
	// Waiting messages have no address: the customer has none for the channel. They are sent when there is one.
	Waiting State = "waiting_for_address"
	// Delivered messages were accepted by their channel.
	Delivered State = "delivered"
	// Failed messages were given up.
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
	// RequestedAt is the time of the request, by the clock of the requester.
	RequestedAt time.Time `json:"requested_at"`
	// TraceParent is the W3C trace context of the request. The attempts belong to its trace.
	TraceParent string `json:"trace_parent,omitempty"`

	State State `json:"state"`
	// Attempts counts the calls of the channel, including one in progress.
	Attempts      int       `json:"attempts"`
	LastAttemptAt time.Time `json:"last_attempt_at,omitzero"`
	NextAttemptAt time.Time `json:"next_attempt_at,omitzero"`
	// LastError is a sentence about the last attempt that failed.
	LastError string `json:"last_error,omitempty"`
	// ClaimedBy is the unique name of the attempt in progress. Until ClaimedUntil no other attempt may begin.
	ClaimedBy    string    `json:"claimed_by,omitempty"`
	ClaimedUntil time.Time `json:"claimed_until,omitzero"`

	// FinishedAt is the time of the outcome. Code and Error say why a message is Failed.
	FinishedAt time.Time `json:"finished_at,omitzero"`
	Code       string    `json:"code,omitempty"`
	Error      string    `json:"error,omitempty"`

	// WaitsUntil is when a message that waits for an address is given up. It stays when the wait ends, so that a second wait
	// ends at the same time.
	WaitsUntil time.Time `json:"waits_until,omitzero"`
	// Round counts how often the message started again: after each wait and with each resend. Each round has its own pending
	// entry.
	Round int `json:"round,omitempty"`
	// EarlierAttempts is the number of Attempts before the last resend.
	EarlierAttempts int `json:"earlier_attempts,omitempty"`
	// Resends are the operators' requests to send the message again, oldest first.
	Resends []Resend `json:"resends,omitempty"`
}

// Resend is an operator's request to send a message again.
type Resend struct {
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	// Earlier is the outcome that the message had before.
	Earlier Earlier `json:"earlier"`
}

// Earlier is an outcome that a resend replaced.
type Earlier struct {
	State State     `json:"state"`
	At    time.Time `json:"at"`
	Code  string    `json:"code,omitempty"`
	Error string    `json:"error,omitempty"`
}

// MaxResends limits how often a message can be sent again.
const MaxResends = 20

// Facts are the values that templates can show.
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

// Policy limits the attempts of a message. The pause after the first attempt is First; it doubles with each attempt up to Last.
type Policy struct {
	Attempts    int
	First, Last time.Duration
}

// Pause is the pause after the attempt with this number, counted from 1.
func (p Policy) Pause(attempt int) time.Duration {
	pause := p.First
	for ; attempt > 1 && pause < p.Last; attempt-- {
		pause *= 2
	}
	return min(pause, p.Last)
}

// ToOperators reports whether the message is for the operators and not for a customer.
func (m *Message) ToOperators() bool { return m.CustomerID == "" }

// Final reports whether the message has its outcome.
func (m *Message) Final() bool { return m.State == Delivered || m.State == Failed }

// Due is when the state of the message may change next: when the next attempt may begin, or when the wait for an address ends. For
// a message with an outcome it is the time of the outcome.
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

// Ready reports whether an attempt may begin: the message has no outcome and does not wait for an address, and its pause or the
// claim of another attempt is over. Now is the time on the clock that wrote Due.
func (m *Message) Ready(now time.Time) bool {
	return (m.State == Pending || m.State == Sending) && !now.Before(m.Due())
}

// Pause is the length of the planned pause before the next attempt, by the clock that planned it. It is zero without one.
func (m *Message) Pause() time.Duration {
	if m.NextAttemptAt.IsZero() || m.LastAttemptAt.IsZero() {
		return 0
	}
	return max(0, m.NextAttemptAt.Sub(m.LastAttemptAt))
}

// SameContent reports whether both messages have the same content, recipient and channel.
func (m *Message) SameContent(other *Message) bool {
	a, b := m.Facts, other.Facts
	return m.ID == other.ID && m.OrderID == other.OrderID && m.CustomerID == other.CustomerID && m.Channel == other.Channel &&
		m.Template == other.Template && slices.Equal(a.NotUndone, b.NotUndone) && a.comparable() == b.comparable()
}

// comparable returns the facts as a value for ==: without the slice, and with all times in UTC.
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

// tried is the number of attempts since the last resend.
func (m *Message) tried() int { return m.Attempts - m.EarlierAttempts }

// Begin claims a Ready message for the attempt with the name by. If an earlier attempt did not record its result, that result is
// unknown: the message is tried again, or given up after the last attempt. Begin reports whether the message may be sent.
func (m *Message) Begin(by string, now, until time.Time, p Policy) bool {
	unknown := m.State == Sending
	if unknown {
		m.LastError = "An attempt did not end; it is not known whether the channel accepted the message."
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

// Renew extends the claim of the attempt with the name by. It reports whether that attempt is in progress.
func (m *Message) Renew(by string, until time.Time) bool {
	if m.State != Sending || m.ClaimedBy != by {
		return false
	}
	m.ClaimedUntil = until
	return true
}

// Accept records that the channel accepted the message. It reports a change: the first outcome of a message is final.
func (m *Message) Accept(now time.Time) bool {
	if m.Final() {
		return false
	}
	m.finish(Delivered, now)
	m.LastError = ""
	return true
}

// Refuse gives the message up. It reports a change: the first outcome of a message is final.
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

// Wait makes the message wait for an address; r says which address is missing. It reports a change. A message that has waited
// before keeps the end of its first wait instead of until, and is given up if that time is over.
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

// Release ends the wait because there is an address. It reports whether the message waited.
func (m *Message) Release() bool {
	if m.State != Waiting {
		return false
	}
	m.State, m.LastError = Pending, ""
	m.Round++
	return true
}

// Resend starts a new round for a message with an outcome. It reports a change: the same request (actor and reason) again changes
// nothing unless the message has failed since. A delivered message is sent again only with evenIfDelivered.
func (m *Message) Resend(actor, reason string, evenIfDelivered bool, now time.Time) (bool, error) {
	n := len(m.Resends)
	same := n > 0 && m.Resends[n-1].Actor == actor && m.Resends[n-1].Reason == reason
	switch {
	case same && m.State != Failed:
		return false, nil
	case !m.Final():
		return false, ErrPending(m.State)
	case m.State == Delivered && !evenIfDelivered:
		return false, &Error{Kind: Conflict, Code: "notification_delivered", Text: "The notification was delivered. To send it again, even_if_delivered must be true."}
	case n >= MaxResends:
		return false, &Error{Kind: Conflict, Code: "too_many_resends", Text: fmt.Sprintf("A notification can be resent at most %d times.", MaxResends)}
	}
	m.Resends = append(slices.Clone(m.Resends), Resend{Actor: actor, Reason: reason, At: now.UTC(), Earlier: Earlier{m.State, m.FinishedAt.UTC(), m.Code, m.Error}})
	m.State, m.EarlierAttempts = Pending, m.Attempts
	m.FinishedAt, m.WaitsUntil, m.Code, m.Error, m.LastError = time.Time{}, time.Time{}, "", "", ""
	m.Round++
	return true, nil
}

// Retry records that the attempt with the name by failed, for the reason in text. It plans the next attempt, not before
// notBefore, or gives the message up after the last one. It reports a change: if another attempt has begun since, the result of
// that one counts. An untried attempt called nothing and does not count.
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

// Outcome returns the event that announces the outcome of a Final message, and the event's id. Each resend has its own outcome.
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
