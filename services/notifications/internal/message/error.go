package message

import "time"

// Codes of the reasons for which a message is given up. They are API.
const (
	// CodeNoAddress says that the recipient has no address for the channel, or is not known at all.
	CodeNoAddress = "no_address"
	// CodeInvalidAddress says that the address that is known for the channel breaks a rule, so no message can be sent there.
	CodeInvalidAddress = "invalid_address"
	// CodeOptedOut says that the customer does not want messages over the channel.
	CodeOptedOut = "opted_out"
	// CodeSubscriptionGone says that the push service does not know the browser any more.
	CodeSubscriptionGone = "subscription_gone"
	// CodeEndpointNotAllowed says that the push endpoint is none that this service may call.
	CodeEndpointNotAllowed = "endpoint_not_allowed"
	// CodeTooLarge says that the channel takes no message of this size.
	CodeTooLarge = "too_large"
	// CodeRejected says that the provider, or the recipient's mail server, refused the message for good.
	CodeRejected = "rejected"
	// CodeNoTemplate says that the message cannot be written.
	CodeNoTemplate = "no_template"
	// CodeUnavailable says that the channel failed at every attempt.
	CodeUnavailable = "channel_unavailable"
	// CodeOutcomeUnknown says that the last attempt never came to its end: the channel may have taken the message.
	CodeOutcomeUnknown = "outcome_unknown"
)

// Refusal is a reason for which no further attempt can succeed. Its text is a sentence without an address in it.
type Refusal struct{ Code, Text string }

func (r *Refusal) Error() string { return r.Code + ": " + r.Text }

// Later is a fault that will pass, and for which the channel named a time before which nobody should try.
type Later struct {
	Text  string
	After time.Duration
	// Channel says that the time is meant for every message of the channel, and not for this one alone.
	Channel bool
	// Stalled says that the channel did not answer: another call would be one more that waits.
	Stalled bool
	// Untried says that nothing was called, so that there was no attempt.
	Untried bool
}

func (l *Later) Error() string { return l.Text }

// Kind says what sort of thing went wrong, so that an edge can answer accordingly.
type Kind int

const (
	// Invalid says that what was asked for can never be a message.
	Invalid Kind = iota + 1
	// NotFound says that there is no such message.
	NotFound
	// Conflict says that the message is in no state for what was asked.
	Conflict
)

// Error is what this package refuses with. Its code is stable, its text safe to show.
type Error struct {
	Kind Kind
	Code string
	Text string
}

func (e *Error) Error() string { return e.Text }

// ErrNotFound is the refusal for a message that does not exist.
func ErrNotFound() error {
	return &Error{Kind: NotFound, Code: "notification_not_found", Text: "There is no notification of that id."}
}

// ErrPending is the refusal to send a message again that has not come to its outcome.
func ErrPending(s State) error {
	return &Error{Kind: Conflict, Code: "notification_pending", Text: "The notification was not given up: its state is " + string(s) + "."}
}
