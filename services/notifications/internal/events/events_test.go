package events_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	dapr "github.com/dapr/go-sdk/client"
	"github.com/go-chi/chi/v5"
	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/platform/state"
	"waybill/services/notifications/internal/contact"
	"waybill/services/notifications/internal/events"
	"waybill/services/notifications/internal/message"
	"waybill/services/notifications/internal/store"
)

// world is the handlers on a store in memory, with a courier that stores what it accepts and sends nothing.
type world struct {
	t        *testing.T
	docs     *fragile
	messages *store.Messages
	contacts *store.Contacts
	courier  *courier
	bus      *bus
	handler  http.Handler
}

// fragile is a store that can be unavailable.
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
	accepted []message.Message
}

func (c *courier) AcceptAll(ctx context.Context, ms ...message.Message) []error {
	errs := make([]error, len(ms))
	for i, m := range ms {
		_, created, err := c.messages.Create(ctx, m)
		if errs[i] = err; err == nil && created[0] {
			c.accepted = append(c.accepted, m)
		}
	}
	return errs
}

func (c *courier) UpdateContact(ctx context.Context, customerID string, change func(c *contact.Contact) bool) (contact.Contact, error) {
	return c.contacts.Update(ctx, customerID, change)
}

// bus records the dead letters.
type bus struct {
	dapr.Client

	topics       []string
	deadLettered []eventing.Event
}

func (b *bus) PublishEvent(_ context.Context, _, topic string, data any, _ ...dapr.PublishEventOption) error {
	var e eventing.Event
	if err := json.Unmarshal(data.([]byte), &e); err != nil {
		return err
	}
	b.topics, b.deadLettered = append(b.topics, topic), append(b.deadLettered, e)
	return nil
}

const token = "token of the sidecar"

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, docs: &fragile{Store: state.NewMemory()}, bus: &bus{}}
	w.messages, w.contacts = store.NewMessages(w.docs), store.NewContacts(w.docs)
	w.courier = &courier{messages: w.messages, contacts: w.contacts}
	logger := slog.New(slog.DiscardHandler)
	publisher, err := eventing.NewPublisher(w.bus, contracts.OrderBus)
	if err != nil {
		t.Fatal(err)
	}
	receiver, err := eventing.NewReceiver(eventing.ReceiverOptions{
		App: contracts.AppNotifications, Token: token, Publisher: publisher, Logger: logger,
	}, events.Handlers{Courier: w.courier}.Subscriptions()...)
	if err != nil {
		t.Fatal(err)
	}
	router := chi.NewRouter()
	receiver.Mount(router)
	w.handler = router
	return w
}

// deliver delivers an event as the sidecar does, and returns the answer for it.
func (w *world) deliver(topic, id string, payload contracts.Payload) string {
	w.t.Helper()
	e, err := eventing.New(id, "/waybill/fulfillment", contracts.Version, time.Now(), payload)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.deliverEvent(topic, e)
}

func (w *world) deliverEvent(topic string, e eventing.Event) string {
	w.t.Helper()
	body, err := json.Marshal(e)
	if err != nil {
		w.t.Fatal(err)
	}
	batch := `{"entries": [{"entryId": "1", "event": ` + string(body) + `}]}`
	request := httptest.NewRequestWithContext(w.t.Context(), http.MethodPost, "/events/"+topic+"/bulk", strings.NewReader(batch))
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Dapr-Api-Token", token)
	answer := httptest.NewRecorder()
	w.handler.ServeHTTP(answer, request)
	var verdicts struct{ Statuses []struct{ Status string } }
	if err := json.Unmarshal(answer.Body.Bytes(), &verdicts); err != nil || len(verdicts.Statuses) != 1 {
		w.t.Fatalf("%s: %v", answer.Body, err)
	}
	return verdicts.Statuses[0].Status
}

// accepted fails the test unless the event is acknowledged.
func (w *world) accepted(topic, id string, payload contracts.Payload) {
	w.t.Helper()
	if verdict := w.deliver(topic, id, payload); verdict != "SUCCESS" || len(w.bus.deadLettered) != 0 {
		w.t.Errorf("%s: %s, dead-lettered %v", id, verdict, w.bus.deadLettered)
	}
}

func request(channel string) contracts.NotificationRequested {
	return contracts.NotificationRequested{
		NotificationID: "ORD-1001:order_shipped:" + channel, OrderID: "ORD-1001", CustomerID: "CUST-123", Channel: channel,
		Template: contracts.TemplateOrderShipped, RequestedAt: time.Now(),
	}
}

// An event of another source under an id of fulfillment's causes an alert of its own.
func TestEachSourceHasItsOwnAlerts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	requested := contracts.ApprovalRequested{OrderID: "ORD-1", CustomerID: "CUST-123", TotalAmount: 6000_0000, Currency: "USD", RequestedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}
	for _, source := range []string{"https://shop.example", "/waybill/fulfillment", "/waybill/fulfillment"} {
		e, err := eventing.New("ORD-1:"+contracts.TypeApprovalRequested, source, contracts.Version, time.Now(), requested)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.deliverEvent(contracts.TopicFulfillment, e); got != "SUCCESS" {
			t.Errorf("the event of %s: %s", source, got)
		}
	}
	ids := map[string]bool{}
	for _, m := range w.courier.accepted {
		ids[m.ID] = true
	}
	if len(ids) != 2 || !ids["alert:ORD-1:"+contracts.TypeApprovalRequested+":email"] {
		t.Errorf("the messages are %v, want one for each source", ids)
	}
}

func TestAlertsForTheOperators(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	at := time.Now()
	stock := func(previous, current, revision int) contracts.StockChanged {
		return contracts.StockChanged{ProductID: "PROD-001", PreviousStock: previous, CurrentStock: current, Change: current - previous, Revision: revision, Timestamp: at}
	}
	w.accepted(contracts.TopicInventory, "PROD-001:stock:1", stock(12, 9, 1))
	w.accepted(contracts.TopicInventory, "PROD-001:stock:1", stock(12, 9, 1)) // again
	w.accepted(contracts.TopicInventory, "PROD-001:stock:2", stock(9, 8, 2))
	w.accepted(contracts.TopicInventory, "PROD-001:stock:3", stock(8, 0, 3))
	w.accepted(contracts.TopicInventory, "PROD-001:stock:4", stock(0, 5, 4))
	w.accepted(contracts.TopicFulfillment, "a1", contracts.ApprovalRequested{OrderID: "ORD-1", CustomerID: "CUST-123", TotalAmount: 6000_0000, Currency: "USD", RequestedAt: at, ExpiresAt: at.Add(time.Hour)})
	w.accepted(contracts.TopicFulfillment, "a2", contracts.ApprovalRequested{OrderID: "ORD-2", CustomerID: "CUST-123", TotalAmount: 6000_0000, Currency: "USD", RequestedAt: at, ExpiresAt: at.Add(-25 * time.Hour)})
	w.accepted(contracts.TopicFulfillment, "f1", contracts.FulfillmentFailed{OrderID: "ORD-3", CustomerID: "CUST-123", FailedAt: at})
	w.accepted(contracts.TopicFulfillment, "f2", contracts.FulfillmentFailed{OrderID: "ORD-3", CustomerID: "CUST-123", NotUndone: []string{contracts.StepRefundPayment}, FailedAt: at})
	got := make([]string, 0, len(w.courier.accepted))
	for _, m := range w.courier.accepted {
		got = append(got, m.ID+" "+m.Template)
		if !m.ToOperators() || m.Channel != contracts.ChannelEmail {
			t.Errorf("%+v", m)
		}
	}
	want := []string{
		"alert:PROD-001:stock:1:email low_stock", "alert:PROD-001:stock:3:email depleted", "alert:a1:email approval_requested", "alert:f2:email needs_attention",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestInvalidEventsAreDeadLettered(t *testing.T) {
	t.Parallel()
	fax := request("fax")
	for name, test := range map[string]struct {
		topic   string
		payload contracts.Payload
	}{
		"no such channel":      {contracts.TopicNotifications, fax},
		"no order":             {contracts.TopicFulfillment, contracts.ApprovalRequested{}},
		"no product":           {contracts.TopicInventory, contracts.StockChanged{PreviousStock: 1}},
		"no customer":          {contracts.TopicNotifications, contracts.CustomerRegistered{RegisteredAt: time.Now()}},
		"an invalid contact":   {contracts.TopicNotifications, contracts.CustomerUpdated{CustomerID: "CUST-123", Contact: contracts.Contact{Email: "private-text"}, UpdatedAt: time.Now()}},
		"a forbidden endpoint": {contracts.TopicNotifications, contracts.CustomerUpdated{CustomerID: "CUST-123", Contact: contracts.Contact{Push: &contracts.PushAddress{Endpoint: "http://127.0.0.1/private-text"}}, UpdatedAt: time.Now()}},
	} {
		w := newWorld(t)
		if verdict := w.deliver(test.topic, "e", test.payload); verdict != "SUCCESS" || len(w.bus.deadLettered) != 1 || w.bus.topics[0] != test.topic+".notifications.dead" {
			t.Errorf("%s: %s, dead-lettered %v on %v", name, verdict, w.bus.deadLettered, w.bus.topics)
			continue
		}
		if reason := w.bus.deadLettered[0].DeadLetter.Reason; strings.Contains(reason, "private-text") {
			t.Errorf("%s: the reason repeats personal data: %s", name, reason)
		}
	}
}

func TestEventsAreRetriedWhileTheStoreIsUnavailable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.docs.setUnavailable(true)
	if verdict := w.deliver(contracts.TopicNotifications, "e", request(contracts.ChannelEmail)); verdict != "RETRY" || len(w.bus.deadLettered) != 0 {
		t.Errorf("%s, dead-lettered %v", verdict, w.bus.deadLettered)
	}
	w.docs.setUnavailable(false)
	w.accepted(contracts.TopicNotifications, "e", request(contracts.ChannelEmail))
}

func TestContactsFromEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	at := time.Now().Add(-time.Hour)
	update := func(after time.Duration, email string) contracts.CustomerUpdated {
		return contracts.CustomerUpdated{CustomerID: "CUST-123", Contact: contracts.Contact{Email: email}, UpdatedAt: at.Add(after)}
	}
	known := func(want string) {
		t.Helper()
		c, err := w.contacts.Get(t.Context(), "CUST-123")
		if err != nil || c.Email != want {
			t.Errorf("%q is known, want %q: %v", c.Email, want, err)
		}
	}
	w.accepted(contracts.TopicNotifications, "u2", update(2*time.Minute, "second@example.com"))
	known("second@example.com")
	w.accepted(contracts.TopicNotifications, "r", contracts.CustomerRegistered{CustomerID: "CUST-123", Contact: contracts.Contact{Email: "first@example.com"}, RegisteredAt: at})
	w.accepted(contracts.TopicNotifications, "u1", update(time.Minute, "between@example.com"))
	known("second@example.com")
	w.accepted(contracts.TopicNotifications, "u3", update(3*time.Minute, "third@example.com"))
	w.accepted(contracts.TopicNotifications, "u2", update(2*time.Minute, "second@example.com"))
	known("third@example.com")
	// If the data has no time, the event's time counts. Without both the event is dead-lettered.
	w.accepted(contracts.TopicNotifications, "u4", contracts.CustomerUpdated{CustomerID: "CUST-123", Contact: contracts.Contact{Email: "fourth@example.com"}})
	known("fourth@example.com")
	e, err := eventing.New("u5", "/test", contracts.Version, time.Time{}, contracts.CustomerUpdated{CustomerID: "CUST-123"})
	if err != nil {
		t.Fatal(err)
	}
	e.Time = time.Time{}
	if w.deliverEvent(contracts.TopicNotifications, e); len(w.bus.deadLettered) != 1 {
		t.Error("an update without a time was accepted")
	}
	known("fourth@example.com")
	// An event from before the deletion does not restore a deleted contact.
	if _, err := w.contacts.Update(t.Context(), "CUST-123", func(c *contact.Contact) bool { c.Remove(time.Now()); return true }); err != nil {
		t.Fatal(err)
	}
	old := contracts.CustomerRegistered{CustomerID: "CUST-123", Contact: contracts.Contact{Email: "first@example.com"}, RegisteredAt: at}
	if verdict := w.deliver(contracts.TopicNotifications, "r2", old); verdict != "SUCCESS" {
		t.Error(verdict)
	}
	if c, err := w.contacts.Get(t.Context(), "CUST-123"); err != nil || c.Known() {
		t.Errorf("%+v, %v", c, err)
	}
}

// Addresses that mail servers, providers and push services refuse are dead-lettered, as the API refuses them.
func TestContactsWithInvalidAddressesAreDeadLettered(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"email":"j\u00fcrgen@example.com"}`,
		`{"email":"name@example.com."}`,
		`{"email":"name@[192.0.2.1]"}`,
		`{"email":"` + strings.Repeat("a", 65) + `@example.com"}`,
		`{"phone":"+1206555\u0660123"}`,
		`{"name":"a\u2028b"}`,
		`{"push":{"endpoint":"https://p\u00fcsh.example","p256dh":"BNcRdreALRFXTkOOUHK1EtK2wtaz5Ry4YfYCA_0QTpQtUbVlUls0VJXg7A8u-Ts1XbjhazAkj7I99e8QcYP7DkM","auth":"tBHItJI5svbpez7KI4CCXg"}}`,
	} {
		w := newWorld(t)
		var said contracts.Contact
		if err := json.Unmarshal([]byte(body), &said); err != nil {
			t.Fatal(err)
		}
		for i, payload := range []contracts.Payload{
			contracts.CustomerRegistered{CustomerID: "CUST-123", Contact: said, RegisteredAt: time.Now()},
			contracts.CustomerUpdated{CustomerID: "CUST-123", Contact: said, UpdatedAt: time.Now()},
		} {
			if verdict := w.deliver(contracts.TopicNotifications, fmt.Sprint("e", i), payload); verdict != "SUCCESS" || len(w.bus.deadLettered) != i+1 {
				t.Errorf("%s: %s, dead-lettered %v", body, verdict, w.bus.deadLettered)
			}
		}
		if c, err := w.contacts.Get(t.Context(), "CUST-123"); err != nil || c.Known() {
			t.Errorf("%s: %+v, %v", body, c, err)
		}
	}
}

func TestTheNumberOfMessagesOfAnOrderIsLimited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := make([]string, 500)
	for i := range ids {
		ids[i] = "ORD-1001:" + strings.Repeat("x", i+1)[:min(i+1, 100)]
	}
	if err := w.docs.Create(t.Context(), "order-messages:ORD-1001", map[string][]string{"elsewhere": ids}); err != nil {
		t.Fatal(err)
	}
	w.accepted(contracts.TopicNotifications, "e", request(contracts.ChannelEmail))
	named := request(contracts.ChannelEmail)
	named.NotificationID = "a-name-of-its-own"
	if verdict := w.deliver(contracts.TopicNotifications, "e", named); verdict != "SUCCESS" || len(w.bus.deadLettered) != 1 {
		t.Errorf("%s, dead-lettered %v", verdict, w.bus.deadLettered)
	}
}
