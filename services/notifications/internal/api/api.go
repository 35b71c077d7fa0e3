// Package api is the REST API of the service. It translates requests into calls of the domain and of the parts that main passes in,
// and errors into problems. It does not know how anything is stored or sent.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"waybill/platform/rest"
	"waybill/services/notifications/internal/contact"
	"waybill/services/notifications/internal/message"
)

// Courier changes contacts and sends messages again.
type Courier interface {
	// UpdateContact changes a contact and sends the messages that waited for an address.
	UpdateContact(ctx context.Context, customerID string, change func(c *contact.Contact) bool) (contact.Contact, error)
	// Resend sends a message with an outcome again.
	Resend(ctx context.Context, id, actor, reason string, evenIfDelivered bool) (message.Message, error)
}

// Messages reads messages.
type Messages interface {
	Get(ctx context.Context, id string) (message.Message, error)
	OfOrder(ctx context.Context, orderID string) ([]message.Message, error)
}

// Contacts reads contacts.
type Contacts interface {
	Get(ctx context.Context, customerID string) (contact.Contact, error)
}

// API has the parts that the routes use.
type API struct {
	Courier  Courier
	Messages Messages
	Contacts Contacts
	// PushKey returns the public key with which browsers subscribe to push messages.
	PushKey func(ctx context.Context) (string, error)
	// Loopback allows push endpoints on this machine.
	Loopback bool
	Logger   *slog.Logger
}

// version is the version of this API. It changes when the API does, and not with the data version of the events.
const version = "1.0"

// Info describes the API.
func Info() rest.Info {
	return rest.Info{
		Title: "Waybill notifications", Version: version,
		Description: "The messages to customers and operators with their channels and outcomes, and the contacts of customers.",
	}
}

// Mount adds the REST routes.
func (a API) Mount(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "list-notifications", Method: http.MethodGet, Path: "/v1/notifications", Tags: []string{"notifications"},
		Summary: "List the notifications of an order", Description: "Notifications to the customer and to the operators, sorted by the time of their request.",
		Errors: []int{422, 503},
	}, a.list)
	huma.Register(api, huma.Operation{
		OperationID: "get-notification", Method: http.MethodGet, Path: "/v1/notifications/{id}", Tags: []string{"notifications"},
		Summary: "Get a notification", Errors: []int{404, 503},
	}, a.get)
	huma.Register(api, huma.Operation{
		OperationID: "resend-notification", Method: http.MethodPost, Path: "/v1/notifications/{id}/resend", Tags: []string{"notifications"},
		Summary: "Send a notification again",
		Description: "Sends a failed notification again, to the address that is known now. The notification keeps a record of actor and reason. Repeating the same request sends nothing more. " +
			"The answer is 409 notification_pending if the notification has no outcome yet, and 409 notification_delivered if it was delivered, unless even_if_delivered is true. " +
			"Without an address the notification waits for one.",
		DefaultStatus: http.StatusAccepted, MaxBodyBytes: rest.MaxBody, Errors: []int{400, 404, 409, 413, 415, 422, 503},
	}, a.resend)
	huma.Register(api, huma.Operation{
		OperationID: "get-contact", Method: http.MethodGet, Path: "/v1/customers/{customer_id}/contact", Tags: []string{"contacts"},
		Summary: "Get the contact of a customer", Errors: []int{404, 422, 503},
		Responses: map[string]*huma.Response{"304": {Description: "The contact has one of the ETags in If-None-Match."}},
	}, a.getContact)
	huma.Register(api, huma.Operation{
		OperationID: "set-contact", Method: http.MethodPut, Path: "/v1/customers/{customer_id}/contact", Tags: []string{"contacts"},
		Summary:      "Set the contact of a customer",
		Description:  "Replaces the whole contact: fields that are left out are deleted. A channel is used if it has an address and preferences do not switch it off. Messages that wait for an address are sent. With If-Match the answer is 412 if the contact has changed since it was read.",
		MaxBodyBytes: rest.MaxBody, Errors: []int{400, 412, 413, 415, 422, 503},
	}, a.setContact)
	huma.Register(api, huma.Operation{
		OperationID: "delete-contact", Method: http.MethodDelete, Path: "/v1/customers/{customer_id}/contact", Tags: []string{"contacts"},
		Summary: "Delete the contact of a customer", Description: "Succeeds also if there is no contact. Messages that are not sent yet will fail, including those that wait for an address.",
		DefaultStatus: http.StatusNoContent, Errors: []int{412, 422, 503},
	}, a.deleteContact)
	huma.Register(api, huma.Operation{
		OperationID: "get-push-key", Method: http.MethodGet, Path: "/v1/push/key", Tags: []string{"contacts"},
		Summary: "Get the key for push subscriptions", Description: "The applicationServerKey of the Push API (VAPID, RFC 8292).",
		Errors: []int{503},
	}, a.pushKey)
	describe(api.OpenAPI())
}

func now() time.Time { return time.Now().UTC() }

// problem turns an error into an answer. It is the only place that does.
func (a API) problem(ctx context.Context, err error) error {
	if p, ok := errors.AsType[*rest.Problem](err); ok {
		return p
	}
	if refused, ok := errors.AsType[*message.Error](err); ok {
		p := &rest.Problem{Status: http.StatusUnprocessableEntity, Code: refused.Code, Detail: refused.Text}
		switch refused.Kind {
		case message.NotFound:
			p.Status = http.StatusNotFound
		case message.Conflict:
			p.Status = http.StatusConflict
		default:
		}
		return p
	}
	if faults, ok := errors.AsType[contact.Faults](err); ok {
		p := &rest.Problem{Status: http.StatusUnprocessableEntity, Code: "invalid_contact", Detail: "The contact is invalid; nothing was changed."}
		for _, fault := range faults {
			p.Errors = append(p.Errors, rest.Fault{Location: "body." + fault.Path, Message: fault.Expectation})
		}
		return p
	}
	return rest.Failed(ctx, a.Logger, err)
}
