// Package channel sends messages: email and SMS through Dapr's output bindings, push messages to the push services of the browsers.
// Its errors contain no addresses.
package channel

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	dapr "github.com/dapr/go-sdk/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waybill/contracts"
	"waybill/services/notifications/internal/contact"
	"waybill/services/notifications/internal/message"
)

// Binding is the part of Dapr's client that this package uses.
type Binding interface {
	InvokeBinding(ctx context.Context, in *dapr.InvokeBindingRequest) (*dapr.BindingEvent, error)
}

// createOperation is the operation of both bindings that sends a message.
const createOperation = "create"

// Email sends mail through Dapr's SMTP binding. The binding accepts no headers, so a mail cannot have a stable Message-ID. Instead, the
// last line of the mail names the message (docs/adr/0010).
type Email struct {
	binding   Binding
	component string
	// slot is held during a call of the binding. The binding (components-contrib v1.18.3, bindings/smtp) writes the recipient and
	// the subject of a request into metadata that all requests share. Of two concurrent mails, one could go to the recipient of
	// the other.
	slot chan struct{}
}

// NewEmail returns the email channel on the named component.
func NewEmail(b Binding, component string) *Email {
	return &Email{binding: b, component: component, slot: make(chan struct{}, 1)}
}

// Parallel is 1: the binding cannot send two mails at once, see Email.
func (*Email) Parallel() int { return 1 }

// Send returns nil when the mail server has accepted the message. It sends to the ASCII form of the address. An address that breaks
// a rule, such as one that was stored before the rule existed, is a Refusal.
func (c *Email) Send(ctx context.Context, to contracts.Contact, m message.Outgoing) error {
	address, err := contact.MailAddress(to.Email)
	if err != nil {
		return &message.Refusal{Code: message.CodeInvalidAddress, Text: "The known email address cannot be used: it " + err.Error() + "."}
	}
	select {
	case c.slot <- struct{}{}:
		defer func() { <-c.slot }()
	case <-ctx.Done():
		return ctx.Err()
	}
	// Every variable key must be set each time: the binding keeps the value of the previous request for a missing one.
	_, err = invoke(ctx, c.binding, &dapr.InvokeBindingRequest{
		Name: c.component, Operation: createOperation, Data: []byte(m.Body),
		Metadata: map[string]string{"emailTo": address, "subject": m.Subject},
	})
	if refusal := mailRefusal(err); refusal != nil {
		return refusal
	}
	return err
}

// SMS sends text messages through Dapr's Twilio binding, or through its HTTP binding to a simulated provider.
type SMS struct {
	binding   Binding
	component string
}

// NewSMS returns the SMS channel on the named component.
func NewSMS(b Binding, component string) *SMS { return &SMS{b, component} }

// Parallel is the number of concurrent calls.
func (*SMS) Parallel() int { return 4 }

// Send returns nil when the provider has accepted the message. The HTTP binding sends metadata that begin with a capital letter as
// headers; the Twilio binding ignores them. A number that is not in E.164 form is a Refusal.
func (c *SMS) Send(ctx context.Context, to contracts.Contact, m message.Outgoing) error {
	if !contact.ValidPhone(to.Phone) {
		return &message.Refusal{Code: message.CodeInvalidAddress, Text: "The known phone number cannot be used: it is not in E.164 form, such as +12065550123."}
	}
	answer, err := invoke(ctx, c.binding, &dapr.InvokeBindingRequest{
		Name: c.component, Operation: createOperation, Data: []byte(m.Body),
		Metadata: map[string]string{
			"toNumber": to.Phone, "To-Number": to.Phone, "Notification-Id": m.ID, "Content-Type": "text/plain; charset=utf-8",
			// With this the HTTP binding returns status and headers, instead of an error without them.
			"errorIfNot2XX": "false",
		},
	})
	return smsResult(answer, err)
}

// invoke calls the binding and returns the metadata of its answer. The HTTP binding returns status and headers in them.
func invoke(ctx context.Context, b Binding, in *dapr.InvokeBindingRequest) (map[string]string, error) {
	answer, err := b.InvokeBinding(ctx, in)
	switch {
	case err == nil && answer == nil:
		return nil, nil
	case err == nil:
		return answer.Metadata, nil
	case ctx.Err() != nil, status.Code(err) == codes.DeadlineExceeded:
		return nil, noAnswer()
	default:
		return nil, fmt.Errorf("call binding %s: %w", in.Name, redacted(err))
	}
}

// noAnswer is the fault of a call that timed out.
func noAnswer() error {
	return &message.Later{Text: "The channel did not answer in time; it is not known whether it accepted the message.", Stalled: true}
}

// addresses matches personal data: mail addresses, phone numbers, URLs.
var addresses = regexp.MustCompile(`[^\s<>"':;,]+@[^\s<>"':;,]+|\+?[0-9]{7,}|https?://[^\s"]+`)

// redacted returns the error without addresses in its text and without the errors that it wraps.
func redacted(err error) error { return errors.New(addresses.ReplaceAllString(err.Error(), "***")) }
