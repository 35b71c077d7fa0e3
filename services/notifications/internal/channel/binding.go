// Package channel hands messages to the outside: email and text messages through Dapr's output bindings, push messages to
// the browsers' push services. What it returns as errors holds no address of anybody.
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

// Binding is the part of Dapr's client that is used here.
type Binding interface {
	InvokeBinding(ctx context.Context, in *dapr.InvokeBindingRequest) (*dapr.BindingEvent, error)
}

// createOperation is what both bindings call sending.
const createOperation = "create"

// Email sends mail through Dapr's SMTP binding. That takes no header of ours, so a message cannot carry a stable Message-ID:
// the mail's last line names the message instead (docs/adr/0010).
type Email struct {
	binding   Binding
	component string
	// turn is held while the binding is called. The binding (components-contrib v1.18.3, bindings/smtp) writes a request's
	// recipient and subject into the metadata that all requests share, so of two at once one could reach the other's
	// recipient.
	turn chan struct{}
}

// NewEmail sends through the named component.
func NewEmail(b Binding, component string) *Email {
	return &Email{binding: b, component: component, turn: make(chan struct{}, 1)}
}

// Parallel is one, for the reason given at Email.
func (*Email) Parallel() int { return 1 }

// Send returns when the mail server took the message. It sends to the ASCII form of the address. An address that breaks a rule,
// such as one that was stored before the rule existed, is a Refusal.
func (c *Email) Send(ctx context.Context, to contracts.Contact, m message.Outgoing) error {
	address, err := contact.MailAddress(to.Email)
	if err != nil {
		return &message.Refusal{Code: message.CodeInvalidAddress, Text: "The known email address cannot be used: it " + err.Error() + "."}
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	// Every key that can differ is given each time: what is left out keeps the value of the request before.
	_, err = invoke(ctx, c.binding, &dapr.InvokeBindingRequest{
		Name: c.component, Operation: createOperation, Data: []byte(m.Body),
		Metadata: map[string]string{"emailTo": address, "subject": m.Subject},
	})
	if refusal := mailRefusal(err); refusal != nil {
		return refusal
	}
	return err
}

// SMS sends text messages through Dapr's Twilio binding, or through its HTTP binding to a receiver that stands for Twilio.
type SMS struct {
	binding   Binding
	component string
}

// NewSMS sends through the named component.
func NewSMS(b Binding, component string) *SMS { return &SMS{b, component} }

// Parallel is what the sidecar is asked at a time.
func (*SMS) Parallel() int { return 4 }

// Send returns when the provider took the message. The HTTP binding turns metadata with a capital letter into headers;
// the Twilio binding ignores them. A number that is not in E.164 form is a Refusal.
func (c *SMS) Send(ctx context.Context, to contracts.Contact, m message.Outgoing) error {
	if !contact.ValidPhone(to.Phone) {
		return &message.Refusal{Code: message.CodeInvalidAddress, Text: "The known phone number cannot be used: it is not in E.164 form, such as +12065550123."}
	}
	answer, err := invoke(ctx, c.binding, &dapr.InvokeBindingRequest{
		Name: c.component, Operation: createOperation, Data: []byte(m.Body),
		Metadata: map[string]string{
			"toNumber": to.Phone, "To-Number": to.Phone, "Notification-Id": m.ID, "Content-Type": "text/plain; charset=utf-8",
			// The HTTP binding answers with status and headers instead of an error without them.
			"errorIfNot2XX": "false",
		},
	})
	return textVerdict(answer, err)
}

// invoke calls the binding and returns its answer's metadata, in which the HTTP binding has the status and the headers.
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

// noAnswer is the fault of a call that did not come to its end in time.
func noAnswer() error {
	return &message.Later{Text: "The channel did not answer in time; whether it took the message is not known.", Stalled: true}
}

// addresses finds what may be a customer's: mail addresses, numbers that can be called, URLs.
var addresses = regexp.MustCompile(`[^\s<>"':;,]+@[^\s<>"':;,]+|\+?[0-9]{7,}|https?://[^\s"]+`)

// redacted is the error without any address in its text, and without what it wraps.
func redacted(err error) error { return errors.New(addresses.ReplaceAllString(err.Error(), "***")) }
