package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"waybill/contracts"
	"waybill/platform/rest"
	"waybill/services/notifications/internal/contact"
)

// CustomerPath is the path parameter. It is exported because huma reads embedded parameters from exported types only.
type CustomerPath struct {
	CustomerID string `path:"customer_id" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" patternDescription:"1 to 64 letters, digits, dots, underscores and hyphens, the first a letter or digit" example:"CUST-123"`
}

type contactBody struct {
	Name        string       `json:"name,omitempty" example:"Test Customer"`
	Email       string       `json:"email,omitempty" doc:"One address. The domain may contain non-ASCII characters (mail goes to its A-label form); the part before the @ must be ASCII." example:"cust-123@example.com"`
	Phone       string       `json:"phone,omitempty" doc:"In E.164 form." example:"+12065550123"`
	Push        *pushAddress `json:"push,omitempty" doc:"A browser's push subscription."`
	Preferences *preferences `json:"preferences,omitempty" doc:"The channels that the customer wants; without them, all."`
}

type pushAddress struct {
	Endpoint string `json:"endpoint" doc:"The https address that the browser was given, in ASCII characters."`
	P256DH   string `json:"p256dh" doc:"The browser's public key in base64url."`
	Auth     string `json:"auth" doc:"The browser's authentication secret in base64url."`
}

type preferences struct {
	Email bool `json:"email"`
	SMS   bool `json:"sms"`
	Push  bool `json:"push"`
}

// describe adds the rules of contact.Check to the schema of the contact.
func describe(doc *huma.OpenAPI) {
	type schema = map[string]any
	ref := doc.Paths["/v1/customers/{customer_id}/contact"].Put.RequestBody.Content["application/json"].Schema.Ref
	properties := doc.Components.Schemas.SchemaFromRef(ref).Properties
	properties["name"].Extensions = schema{"pattern": `^[^\x00-\x1f\x7f-\x9f]*$`, "maxLength": 200}
	properties["email"].Extensions = schema{"anyOf": []schema{{"maxLength": 0}, {"format": "email", "maxLength": 254}}}
	properties["phone"].Extensions = schema{"pattern": `^(\+[1-9][0-9]{6,14})?$`}
	push := doc.Components.Schemas.SchemaFromRef(properties["push"].Ref).Properties
	push["endpoint"].Extensions = schema{"pattern": `^https?://`, "maxLength": 2000}
	push["p256dh"].Extensions = schema{"pattern": `^[A-Za-z0-9_-]{87}=?$`}
	push["auth"].Extensions = schema{"pattern": `^[A-Za-z0-9_-]{22}(==)?$`}
}

func (b contactBody) contact() contracts.Contact {
	return contracts.Contact{
		Name: b.Name, Email: b.Email, Phone: b.Phone, Push: (*contracts.PushAddress)(b.Push), Preferences: (*contracts.Preferences)(b.Preferences),
	}
}

type shownContact struct {
	CustomerID  string       `json:"customer_id"`
	Name        string       `json:"name,omitempty"`
	Email       string       `json:"email,omitempty"`
	Phone       string       `json:"phone,omitempty" doc:"In E.164 form."`
	Push        *pushAddress `json:"push,omitempty" doc:"A browser's push subscription."`
	Preferences *preferences `json:"preferences,omitempty" doc:"The channels that the customer wants; without them, all."`
	UpdatedAt   time.Time    `json:"updated_at" doc:"The time of this contact. Older events do not change it."`
}

type contactOutput struct {
	Status int
	ETag   string `header:"ETag" doc:"The version of the contact, for If-Match."`
	Body   *shownContact
}

// etagOf derives the ETag of a contact from its content. It is empty if there is no contact.
func etagOf(c *contact.Contact) (string, error) {
	if !c.Known() {
		return "", nil
	}
	visible := *c
	visible.Waiting = nil
	content, err := json.Marshal(visible)
	if err != nil {
		return "", fmt.Errorf("encode a contact for its ETag: %w", err)
	}
	sum := sha256.Sum256(content)
	return `"` + hex.EncodeToString(sum[:16]) + `"`, nil
}

func (a API) shownOf(ctx context.Context, customerID string, c contact.Contact) (*contactOutput, error) {
	etag, err := etagOf(&c)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &contactOutput{http.StatusOK, etag, &shownContact{
		customerID, c.Name, c.Email, c.Phone, (*pushAddress)(c.Push), (*preferences)(c.Preferences), c.At.UTC(),
	}}, nil
}

type getContactInput struct {
	CustomerPath

	IfNoneMatch string `header:"If-None-Match" doc:"The ETags that the client knows. The answer is 304 if the contact has one of them."`
}

func (a API) getContact(ctx context.Context, in *getContactInput) (*contactOutput, error) {
	c, err := a.Contacts.Get(ctx, in.CustomerID)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	if !c.Known() {
		return nil, &rest.Problem{Status: http.StatusNotFound, Code: "contact_not_found", Detail: "The customer has no contact."}
	}
	out, err := a.shownOf(ctx, in.CustomerID, c)
	if err == nil && rest.NotModified(in.IfNoneMatch, out.ETag) {
		out.Status, out.Body = http.StatusNotModified, nil
	}
	return out, err
}

type setContactInput struct {
	CustomerPath
	rest.Preconditions

	Body contactBody
}

func (a API) setContact(ctx context.Context, in *setContactInput) (*contactOutput, error) {
	said := in.Body.contact()
	if faults := contact.Check(said, a.Loopback); len(faults) > 0 {
		return nil, a.problem(ctx, faults)
	}
	c, err := a.changeContact(ctx, in.CustomerID, in.Preconditions, func(c *contact.Contact) { c.Set(said, now()) })
	if err != nil {
		return nil, err
	}
	return a.shownOf(ctx, in.CustomerID, c)
}

type deleteContactInput struct {
	CustomerPath

	IfMatch string `header:"If-Match" doc:"The ETag that the contact must have, or * for any existing contact."`
}

func (a API) deleteContact(ctx context.Context, in *deleteContactInput) (*struct{}, error) {
	_, err := a.changeContact(ctx, in.CustomerID, rest.Preconditions{IfMatch: in.IfMatch}, func(c *contact.Contact) { c.Remove(now()) })
	return nil, err
}

// changeContact changes a contact if the preconditions hold.
func (a API) changeContact(ctx context.Context, customerID string, asked rest.Preconditions, change func(c *contact.Contact)) (contact.Contact, error) {
	var refused error
	c, err := a.Courier.UpdateContact(ctx, customerID, func(c *contact.Contact) bool {
		etag, err := etagOf(c)
		if err == nil && !asked.Hold(etag) {
			err = &rest.Problem{
				Status: http.StatusPreconditionFailed, Code: "precondition_failed",
				Detail: "The contact does not have the ETag that If-Match or If-None-Match requires. Read it again.",
			}
		}
		if refused = err; err != nil {
			return false
		}
		change(c)
		return true
	})
	if err = errors.Join(err, refused); err != nil {
		return c, a.problem(ctx, err)
	}
	return c, nil
}

type pushKeyOutput struct{ Body pushKeyBody }

type pushKeyBody struct {
	PublicKey string `json:"public_key" doc:"In base64url."`
}

func (a API) pushKey(ctx context.Context, _ *struct{}) (*pushKeyOutput, error) {
	key, err := a.PushKey(ctx)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &pushKeyOutput{pushKeyBody{key}}, nil
}
