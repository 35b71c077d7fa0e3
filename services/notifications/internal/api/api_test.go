package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/platform/rest"
	"waybill/platform/state"
	"waybill/services/notifications/internal/api"
	"waybill/services/notifications/internal/contact"
	"waybill/services/notifications/internal/message"
	"waybill/services/notifications/internal/store"
)

// world is the API on a store in memory, with a courier that sends nothing.
type world struct {
	t        *testing.T
	docs     *fragile
	messages *store.Messages
	contacts *store.Contacts
	courier  *courier
	handler  http.Handler
}

type fragile struct {
	state.Store

	mu          sync.Mutex
	unavailable bool
}

func (f *fragile) setUnavailable(unavailable bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unavailable = unavailable
}

func (f *fragile) Get(ctx context.Context, key string, doc any) (state.ETag, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unavailable {
		return "", state.ErrUnavailable
	}
	return f.Store.Get(ctx, key, doc)
}

type courier struct {
	messages *store.Messages
	contacts *store.Contacts
}

func (c *courier) UpdateContact(ctx context.Context, customerID string, change func(c *contact.Contact) bool) (contact.Contact, error) {
	return c.contacts.Update(ctx, customerID, change)
}

func (c *courier) Resend(ctx context.Context, id, actor, reason string, evenIfDelivered bool) (message.Message, error) {
	var refusal error
	m, err := c.messages.Update(ctx, id, func(m *message.Message) (changed bool) {
		changed, refusal = m.Resend(actor, reason, evenIfDelivered, time.Now())
		return changed
	})
	return m, errors.Join(err, refusal)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, docs: &fragile{Store: state.NewMemory()}}
	w.messages, w.contacts = store.NewMessages(w.docs), store.NewContacts(w.docs)
	w.courier = &courier{messages: w.messages, contacts: w.contacts}
	logger := slog.New(slog.DiscardHandler)
	edge := api.API{
		Courier: w.courier, Messages: w.messages, Contacts: w.contacts, Logger: logger,
		PushKey: func(ctx context.Context) (string, error) {
			_, err := w.contacts.Get(ctx, "CUST-123") // the key is in the store too
			return "BNc", err
		},
	}
	router, surface := rest.New(api.Info(), logger)
	edge.Mount(surface)
	w.handler = router
	return w
}

func (w *world) request(method, path, body string, header ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	r := httptest.NewRequestWithContext(w.t.Context(), method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer := httptest.NewRecorder()
	w.handler.ServeHTTP(answer, r)
	return answer
}

type problem struct {
	Status int
	Code   string
	Errors []rest.Fault
}

func (w *world) refused(answer *httptest.ResponseRecorder, status int) problem {
	w.t.Helper()
	var p problem
	if err := json.Unmarshal(answer.Body.Bytes(), &p); err != nil || answer.Code != status || answer.Header().Get("Content-Type") != "application/problem+json" {
		w.t.Errorf("got %d %s, want a problem of status %d", answer.Code, answer.Body, status)
	}
	return p
}

// requested stores the message that such an event requests.
func (w *world) requested(channel string) {
	w.t.Helper()
	m, err := message.Requested(contracts.NotificationRequested{
		NotificationID: "ORD-1001:order_shipped:" + channel, OrderID: "ORD-1001", CustomerID: "CUST-123", Channel: channel,
		Template: contracts.TemplateOrderShipped, RequestedAt: time.Now(),
	}, time.Now())
	w.create(m, err)
}

// alerted stores the alert that such an event causes.
func (w *world) alerted(eventID string) {
	w.t.Helper()
	m, _, err := message.NeedsAttention(eventID, contracts.FulfillmentFailed{
		OrderID: "ORD-1001", CustomerID: "CUST-123", NotUndone: []string{contracts.StepRefundPayment}, FailedAt: time.Now(),
	}, time.Now())
	w.create(m, err)
}

func (w *world) create(m message.Message, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	if _, _, err := w.messages.Create(w.t.Context(), m); err != nil {
		w.t.Fatal(err)
	}
}

func TestAnOrdersNotifications(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, channel := range contracts.Channels() {
		w.requested(channel)
		w.requested(channel)
	}
	w.alerted("e-alert")
	now := time.Now().UTC().Truncate(time.Second)
	if _, err := w.messages.Update(t.Context(), "ORD-1001:order_shipped:sms", func(m *message.Message) bool {
		m.Attempts = 1
		return m.Refuse(&message.Refusal{Code: message.CodeNoAddress, Text: "The customer has no phone number."}, now)
	}); err != nil {
		t.Fatal(err)
	}
	answer := w.request(http.MethodGet, "/v1/notifications?order_id=ORD-1001", "")
	var list struct {
		Items []map[string]any `json:"items"`
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &list); err != nil || answer.Code != http.StatusOK {
		t.Fatalf("%d %s", answer.Code, answer.Body)
	}
	lines := make([]string, 0, len(list.Items))
	for _, item := range list.Items {
		lines = append(lines, strings.Join([]string{item["notification_id"].(string), item["recipient"].(string), item["channel"].(string), item["template"].(string), item["state"].(string)}, " "))
	}
	want := []string{
		"ORD-1001:order_shipped:email customer email order_shipped pending",
		"ORD-1001:order_shipped:sms customer sms order_shipped failed",
		"ORD-1001:order_shipped:push customer push order_shipped pending",
		"alert:e-alert:email operators email needs_attention pending",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	outcome := map[string]any{"at": now.Format(time.RFC3339), "code": "no_address", "error": "The customer has no phone number."}
	if diff := cmp.Diff(outcome, list.Items[1]["outcome"]); diff != "" {
		t.Error(diff)
	}

	answer = w.request(http.MethodGet, "/v1/notifications/ORD-1001:order_shipped:sms", "")
	var one map[string]any
	if err := json.Unmarshal(answer.Body.Bytes(), &one); err != nil || answer.Code != http.StatusOK {
		t.Fatalf("%d %s", answer.Code, answer.Body)
	}
	if diff := cmp.Diff(list.Items[1], one); diff != "" {
		t.Error(diff)
	}
}

func TestResendByItsAPI(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.requested(contracts.ChannelEmail)
	const path = "/v1/notifications/ORD-1001:order_shipped:email/resend"
	const body = `{"actor":"operator@example.com","reason":"The mail server is back."}`
	change := func(change func(m *message.Message) bool) {
		t.Helper()
		if _, err := w.messages.Update(t.Context(), "ORD-1001:order_shipped:email", change); err != nil {
			t.Fatal(err)
		}
	}
	if p := w.refused(w.request(http.MethodPost, path, body), http.StatusConflict); p.Code != "notification_pending" {
		t.Errorf("%+v", p)
	}
	change(func(m *message.Message) bool {
		return m.Wait(&message.Refusal{Code: message.CodeNoAddress, Text: "No contact of the customer is known."}, time.Now(), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC))
	})
	if p := w.refused(w.request(http.MethodPost, path, body), http.StatusConflict); p.Code != "notification_pending" {
		t.Errorf("%+v", p)
	}
	if answer := w.request(http.MethodGet, "/v1/notifications?order_id=ORD-1001", ""); !strings.Contains(answer.Body.String(), `"state":"waiting_for_address"`) ||
		!strings.Contains(answer.Body.String(), `"waits_until":"2100-01-01T00:00:00Z"`) || strings.Contains(answer.Body.String(), `"outcome"`) {
		t.Errorf("%s", answer.Body)
	}
	change(func(m *message.Message) bool {
		return m.Refuse(&message.Refusal{Code: message.CodeNoAddress, Text: "No contact of the customer is known."}, time.Now())
	})
	for range 2 { // the same request again sends nothing more
		answer := w.request(http.MethodPost, path, body)
		var got map[string]any
		if err := json.Unmarshal(answer.Body.Bytes(), &got); err != nil || answer.Code != http.StatusAccepted || got["state"] != "pending" || got["outcome"] != nil {
			t.Fatalf("%d %s", answer.Code, answer.Body)
		}
		resends, ok := got["resends"].([]any)
		if !ok || len(resends) != 1 {
			t.Fatalf("%s", answer.Body)
		}
		one := resends[0].(map[string]any)
		earlier := one["earlier"].(map[string]any)
		if one["actor"] != "operator@example.com" || one["reason"] != "The mail server is back." || one["at"] == nil || earlier["state"] != "failed" || earlier["code"] != "no_address" {
			t.Errorf("%s", answer.Body)
		}
	}
	change(func(m *message.Message) bool { return m.Accept(time.Now()) })
	if p := w.refused(w.request(http.MethodPost, path, `{"actor":"a","reason":"b"}`), http.StatusConflict); p.Code != "notification_delivered" {
		t.Errorf("%+v", p)
	}
	if answer := w.request(http.MethodPost, path, `{"actor":"a","reason":"b","even_if_delivered":true}`); answer.Code != http.StatusAccepted {
		t.Errorf("%d %s", answer.Code, answer.Body)
	}
	for i := range message.MaxResends - 1 {
		change(func(m *message.Message) bool { return m.Accept(time.Now()) })
		answer := w.request(http.MethodPost, path, fmt.Sprintf(`{"actor":"a","reason":"%d","even_if_delivered":true}`, i))
		if want := http.StatusAccepted; i < message.MaxResends-2 && answer.Code != want {
			t.Errorf("%d %s", answer.Code, answer.Body)
		} else if i == message.MaxResends-2 {
			if p := w.refused(answer, http.StatusConflict); p.Code != "too_many_resends" {
				t.Errorf("%+v", p)
			}
		}
	}
	for _, id := range []string{"ORD-9:order_shipped:email", "a%7C%7Cb"} {
		if p := w.refused(w.request(http.MethodPost, "/v1/notifications/"+id+"/resend", body), http.StatusNotFound); p.Code != "notification_not_found" {
			t.Errorf("%s: %+v", id, p)
		}
	}
	for body, location := range map[string]string{
		`{"actor":" ","reason":"b"}`: "body.actor", `{"actor":"a"}`: "body.reason", `{"actor":"a","reason":"b","again":true}`: "body.again",
	} {
		if p := w.refused(w.request(http.MethodPost, path, body), http.StatusUnprocessableEntity); len(p.Errors) != 1 || p.Errors[0].Location != location {
			t.Errorf("%s: %+v", body, p)
		}
	}
}

func TestEmptyLists(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if answer := w.request(http.MethodGet, "/v1/notifications?order_id=ORD-9", ""); answer.Code != http.StatusOK || strings.TrimSpace(answer.Body.String()) != `{"items":[]}` {
		t.Errorf("%d %s", answer.Code, answer.Body)
	}
	for _, path := range []string{"/v1/notifications", "/v1/notifications?order_id=", "/v1/notifications?order_id=a%20b", "/v1/notifications?order_id=a&x=1"} {
		if p := w.refused(w.request(http.MethodGet, path, ""), http.StatusUnprocessableEntity); len(p.Errors) == 0 || !strings.HasPrefix(p.Errors[0].Location, "query.") {
			t.Errorf("%s: %+v", path, p)
		}
	}
	for _, id := range []string{"ORD-9:order_shipped:email", "a%7C%7Cb", strings.Repeat("a", 300)} {
		if p := w.refused(w.request(http.MethodGet, "/v1/notifications/"+id, ""), http.StatusNotFound); p.Code != "notification_not_found" {
			t.Errorf("%s: %+v", id, p)
		}
	}
}

// The document of an order lists an alert before the alert exists. Until then it is not shown.
func TestAListedMessageThatDoesNotExistYet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	document := map[string][]string{"elsewhere": {"alert:f1:email"}}
	if err := w.docs.Create(t.Context(), "order-messages:ORD-1001", document); err != nil {
		t.Fatal(err)
	}
	if answer := w.request(http.MethodGet, "/v1/notifications?order_id=ORD-1001", ""); answer.Code != http.StatusOK || strings.TrimSpace(answer.Body.String()) != `{"items":[]}` {
		t.Errorf("%d %s", answer.Code, answer.Body)
	}
	w.alerted("f1")
	if answer := w.request(http.MethodGet, "/v1/notifications?order_id=ORD-1001", ""); strings.Count(answer.Body.String(), "notification_id") != 1 {
		t.Errorf("%s", answer.Body)
	}
}

const customer = "/v1/customers/CUST-123/contact"

const whole = `{"name":"Test Customer","email":"cust-123@example.com","phone":"+12065550123","push":{"endpoint":"https://push.example.com/send/1",` +
	`"p256dh":"BNcRdreALRFXTkOOUHK1EtK2wtaz5Ry4YfYCA_0QTpQtUbVlUls0VJXg7A8u-Ts1XbjhazAkj7I99e8QcYP7DkM","auth":"tBHItJI5svbpez7KI4CCXg"},"preferences":{"email":true,"sms":false,"push":true}}`

func TestAContactByItsAPI(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.refused(w.request(http.MethodGet, customer, ""), http.StatusNotFound)
	for _, step := range []func() *httptest.ResponseRecorder{
		func() *httptest.ResponseRecorder { return w.request(http.MethodPut, customer, whole) },
		func() *httptest.ResponseRecorder { return w.request(http.MethodGet, customer, "") },
	} {
		answer := step()
		var got, want map[string]any
		if err := errors.Join(json.Unmarshal(answer.Body.Bytes(), &got), json.Unmarshal([]byte(whole), &want)); err != nil || answer.Code != http.StatusOK {
			t.Fatalf("%d %s", answer.Code, answer.Body)
		}
		if got["updated_at"] == nil {
			t.Error("no updated_at")
		}
		delete(got, "updated_at")
		want["customer_id"] = "CUST-123"
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	for range 2 {
		if answer := w.request(http.MethodDelete, customer, ""); answer.Code != http.StatusNoContent || answer.Body.Len() != 0 {
			t.Errorf("%d %s", answer.Code, answer.Body)
		}
	}
	w.refused(w.request(http.MethodGet, customer, ""), http.StatusNotFound)
}

func TestEveryFaultOfAContactIsReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for body, locations := range map[string][]string{
		`{"email":"not-an-address","phone":"0206","push":{"endpoint":"http://push.example.com","p256dh":"x","auth":"y"},"name":"a\nb"}`: {
			"body.email", "body.name", "body.phone", "body.push.auth", "body.push.endpoint", "body.push.p256dh",
		},
		`{"push":{"endpoint":"http://127.0.0.1:1026/","p256dh":"BNcRdreALRFXTkOOUHK1EtK2wtaz5Ry4YfYCA_0QTpQtUbVlUls0VJXg7A8u-Ts1XbjhazAkj7I99e8QcYP7DkM","auth":"tBHItJI5svbpez7KI4CCXg"}}`: {"body.push.endpoint"},
		`{"preferences":{"email":true}}`:    {"body.preferences.push", "body.preferences.sms"},
		`{"e-mail":"cust-123@example.com"}`: {"body.e-mail"},
		`{"email":5}`:                       {"body.email"},
	} {
		p := w.refused(w.request(http.MethodPut, customer, body), http.StatusUnprocessableEntity)
		got := make([]string, 0, len(p.Errors))
		for _, fault := range p.Errors {
			got = append(got, fault.Location)
		}
		slices.Sort(got)
		if diff := cmp.Diff(locations, got); diff != "" {
			t.Errorf("%s: %s", body, diff)
		}
	}
	w.refused(w.request(http.MethodPut, customer, `{`), http.StatusBadRequest)
	w.refused(w.request(http.MethodPut, "/v1/customers/a%20b/contact", `{}`), http.StatusUnprocessableEntity)
	w.refused(w.request(http.MethodGet, customer, ""), http.StatusNotFound)
}

// An address that mail servers refuse is refused by the API.
func TestInvalidAddressesAreRefused(t *testing.T) {
	t.Parallel()
	for body, rule := range map[string]string{
		`{"email":"j\u00fcrgen@example.com"}`:                     "only ASCII characters before the @",
		`{"email":"name@example.com."}`:                           "domain name",
		`{"email":"name@[192.0.2.1]"}`:                            "IP addresses",
		`{"email":"` + strings.Repeat("a", 65) + `@example.com"}`: "at most 64 bytes",
		`{"phone":"+1206555\u0660123"}`:                           "E.164",
		`{"name":"a\u2028b"}`:                                     "one line",
		`{"push":{"endpoint":"https://p\u00fcsh.example","p256dh":"BNcRdreALRFXTkOOUHK1EtK2wtaz5Ry4YfYCA_0QTpQtUbVlUls0VJXg7A8u-Ts1XbjhazAkj7I99e8QcYP7DkM","auth":"tBHItJI5svbpez7KI4CCXg"}}`: "ASCII",
	} {
		w := newWorld(t)
		p := w.refused(w.request(http.MethodPut, customer, body), http.StatusUnprocessableEntity)
		if p.Code != "invalid_contact" || len(p.Errors) != 1 || !strings.Contains(p.Errors[0].Message, rule) {
			t.Errorf("%s: %+v", body, p)
		}
		w.refused(w.request(http.MethodGet, customer, ""), http.StatusNotFound)
	}
}

// The API shows an address as the customer wrote it. Only mail uses the ASCII form.
func TestANonASCIIDomainIsShownAsWritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, method := range []string{http.MethodPut, http.MethodGet} {
		body := ""
		if method == http.MethodPut {
			body = `{"email":"name@B\u00fccher.example"}`
		}
		answer := w.request(method, customer, body)
		var got map[string]any
		if err := json.Unmarshal(answer.Body.Bytes(), &got); err != nil || answer.Code != http.StatusOK || got["email"] != "name@B\u00fccher.example" {
			t.Errorf("%s: %d %s", method, answer.Code, answer.Body)
		}
	}
}

func TestTheStoreIsUnavailable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.docs.setUnavailable(true)
	for _, r := range [][3]string{
		{http.MethodGet, "/v1/notifications?order_id=ORD-1", ""}, {http.MethodGet, "/v1/notifications/ORD-1", ""}, {http.MethodGet, customer, ""},
		{http.MethodPut, customer, "{}"}, {http.MethodDelete, customer, ""}, {http.MethodGet, "/v1/push/key", ""},
	} {
		w.refused(w.request(r[0], r[1], r[2]), http.StatusServiceUnavailable)
	}
	w.docs.setUnavailable(false)
	if answer := w.request(http.MethodGet, "/v1/push/key", ""); answer.Code != http.StatusOK || strings.TrimSpace(answer.Body.String()) != `{"public_key":"BNc"}` {
		t.Errorf("%d %s", answer.Code, answer.Body)
	}
}

// With preconditions a client cannot overwrite a contact that it has not read.
func TestPreconditionsOfContacts(t *testing.T) {
	t.Parallel()
	const path = "/v1/customers/CUST-123/contact"
	w := newWorld(t)
	if answer := w.request(http.MethodPut, path, `{"email":"a@example.com"}`, "If-Match", "*"); answer.Code != http.StatusPreconditionFailed {
		t.Errorf("a contact that does not exist: %d %s", answer.Code, answer.Body)
	}
	first := w.request(http.MethodPut, path, `{"email":"a@example.com"}`, "If-None-Match", "*")
	read := w.request(http.MethodGet, path, "")
	etag := first.Header().Get("ETag")
	if first.Code != http.StatusOK || etag == "" || read.Header().Get("ETag") != etag {
		t.Fatalf("%d, the ETag is %q and then %q", first.Code, etag, read.Header().Get("ETag"))
	}
	if answer := w.request(http.MethodGet, path, "", "If-None-Match", etag); answer.Code != http.StatusNotModified || answer.Body.Len() > 0 {
		t.Errorf("an unchanged contact: %d %s", answer.Code, answer.Body)
	}
	// A message that waits for an address does not change the ETag.
	if _, err := w.contacts.Update(t.Context(), "CUST-123", func(c *contact.Contact) bool {
		changed, _ := c.Await("ORDER-1", time.Now().Add(time.Hour), time.Now())
		return changed
	}); err != nil {
		t.Fatal(err)
	}
	second := w.request(http.MethodPut, path, `{"email":"b@example.com"}`, "If-Match", etag)
	if second.Code != http.StatusOK || second.Header().Get("ETag") == etag {
		t.Errorf("a contact that was read: %d %s", second.Code, second.Body)
	}
	for _, refused := range []*httptest.ResponseRecorder{
		w.request(http.MethodPut, path, `{"email":"c@example.com"}`, "If-Match", etag),
		w.request(http.MethodPut, path, `{"email":"c@example.com"}`, "If-None-Match", "*"),
		w.request(http.MethodDelete, path, "", "If-Match", etag),
	} {
		if p := w.refused(refused, http.StatusPreconditionFailed); p.Code != "precondition_failed" {
			t.Errorf("the code is %q", p.Code)
		}
	}
	if c, err := w.contacts.Get(t.Context(), "CUST-123"); err != nil || c.Email != "b@example.com" {
		t.Errorf("%+v, %v", c, err)
	}
	if answer := w.request(http.MethodDelete, path, "", "If-Match", second.Header().Get("ETag")); answer.Code != http.StatusNoContent {
		t.Errorf("delete a contact that was read: %d %s", answer.Code, answer.Body)
	}
}
