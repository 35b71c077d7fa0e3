package message

import "time"

// Codes of the reasons why a message is given up. They are part of the API.
const (
	// CodeNoAddress: the recipient is unknown or has no address for the channel.
	CodeNoAddress = "no_address"
	// CodeInvalidAddress: the known address for the channel breaks a rule, so nothing can be sent to it.
	CodeInvalidAddress = "invalid_address"
	// CodeOptedOut: the customer does not want messages over the channel.
	CodeOptedOut = "opted_out"
	// CodeSubscriptionGone: the push service no longer knows the subscription.
	CodeSubscriptionGone = "subscription_gone"
	// CodeEndpointNotAllowed: this service must not call the push endpoint.
	CodeEndpointNotAllowed = "endpoint_not_allowed"
	// CodeTooLarge: the message is too large for the channel.
	CodeTooLarge = "too_large"
	// CodeRejected: the provider or the mail server rejected the message permanently.
	CodeRejected = "rejected"
	// CodeNoTemplate: the message cannot be rendered.
	CodeNoTemplate = "no_template"
	// CodeUnavailable: every attempt failed.
	CodeUnavailable = "channel_unavailable"
	// CodeOutcomeUnknown: the last attempt did not record its result. The channel may have accepted the message.
	CodeOutcomeUnknown = "outcome_unknown"
)

// Refusal is the reason why no further attempt can succeed. Its text is a sentence without an address.
type Refusal struct{ Code, Text string }

func (r *Refusal) Error() string { return r.Code + ": " + r.Text }

// Later is a retryable fault. After is the minimum pause before the next attempt.
type Later struct {
	Text  string
	After time.Duration
	// Channel says that the pause holds for every message of the channel, not only for this one.
	Channel bool
	// Stalled says that the channel did not answer in time.
	Stalled bool
	// Untried says that nothing was called, so the attempt does not count.
	Untried bool
}

func (l *Later) Error() string { return l.Text }

// Kind classifies an Error for the edges of the service.
type Kind int

const (
	// Invalid means that the request can never become a message.
	Invalid Kind = iota + 1
	// NotFound means that there is no such message.
	NotFound
	// Conflict means that the state of the message does not allow the request.
	Conflict
)

// Error is the error of this package. Its code is stable and its text is safe to show.
type Error struct {
	Kind Kind
	Code string
	Text string
}

func (e *Error) Error() string { return e.Text }

// ErrNotFound is the error for a message that does not exist.
func ErrNotFound() error {
	return &Error{Kind: NotFound, Code: "notification_not_found", Text: "There is no notification with this id."}
}

// ErrPending refuses to resend a message that has no outcome yet.
func ErrPending(s State) error {
	return &Error{Kind: Conflict, Code: "notification_pending", Text: "The notification has no outcome yet: its state is " + string(s) + "."}
}
