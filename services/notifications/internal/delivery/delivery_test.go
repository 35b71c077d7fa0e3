package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"go.uber.org/goleak"

	"waybill/contracts"
	"waybill/platform/reconcile"
	"waybill/platform/state"
	"waybill/services/notifications/internal/contact"
	"waybill/services/notifications/internal/delivery"
	"waybill/services/notifications/internal/message"
	"waybill/services/notifications/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world outlives the processes of a test: the store, the channels, and the published events.
type world struct {
	t        *testing.T
	docs     state.Store
	messages *store.Messages
	contacts *store.Contacts
	channels map[string]*fake
	bus      *bus
}

// fake is a channel that records its calls and answers as the test says.
type fake struct {
	mu     sync.Mutex
	sent   []sent
	answer func(ctx context.Context, attempt int, m message.Outgoing) error
}

type sent struct {
	to contracts.Contact
	m  message.Outgoing
}

func (f *fake) Parallel() int { return 3 }

func (f *fake) Send(ctx context.Context, to contracts.Contact, m message.Outgoing) error {
	f.mu.Lock()
	f.sent = append(f.sent, sent{to, m})
	attempt, answer := 0, f.answer
	for _, s := range f.sent {
		if s.m.ID == m.ID {
			attempt++
		}
	}
	f.mu.Unlock()
	if answer == nil {
		return nil
	}
	return answer(ctx, attempt, m)
}

// times is the number of calls with the message.
func (f *fake) times(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, s := range f.sent {
		if s.m.ID == id {
			n++
		}
	}
	return n
}

type bus struct {
	mu        sync.Mutex
	fail      error
	published []contracts.Payload
	ids       []string
}

func (b *bus) announce(_ context.Context, id string, _ time.Time, payload contracts.Payload) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return b.fail
	}
	b.published, b.ids = append(b.published, payload), append(b.ids, id)
	return nil
}

func (b *bus) setFail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = err
}

func (b *bus) all() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.ids)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, docs: state.NewMemory(), bus: &bus{}, channels: map[string]*fake{}}
	w.messages, w.contacts = store.NewMessages(w.docs), store.NewContacts(w.docs)
	for _, channel := range contracts.Channels() {
		w.channels[channel] = &fake{}
	}
	// A customer whose contact was deleted: messages fail at once.
	if _, err := w.contacts.Update(t.Context(), "CUST-456", func(known *contact.Contact) bool {
		known.Remove(time.Now())
		return true
	}); err != nil {
		t.Fatal(err)
	}
	w.setContact(contracts.Contact{
		Name: "Test Customer", Email: "cust-123@example.com", Phone: "+12065550123", Push: &contracts.PushAddress{Endpoint: "https://push.example.com/1"},
	})
	return w
}

func (w *world) setContact(c contracts.Contact) {
	w.t.Helper()
	_, err := w.contacts.Update(w.t.Context(), "CUST-123", func(known *contact.Contact) bool {
		known.Set(c, time.Now())
		return true
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

var policy = message.Policy{Attempts: 4, First: time.Second, Last: time.Minute}

const addressWait = 10 * time.Minute

// process returns a courier on the store.
func (w *world) process(docs state.Store) *delivery.Courier {
	w.t.Helper()
	return w.processWith(docs, reconcile.NewPending(docs, "notifications", ulid.Make().String()))
}

func (w *world) processWith(docs state.Store, pending delivery.Pending) *delivery.Courier {
	w.t.Helper()
	channels := map[string]delivery.Channel{}
	for name, channel := range w.channels {
		channels[name] = channel
	}
	c, err := delivery.New(delivery.Options{
		Messages: store.NewMessages(docs), Contacts: store.NewContacts(docs),
		Pending:  pending,
		Waits:    reconcile.NewPending(docs, "address-waits", ulid.Make().String()),
		Arrivals: reconcile.NewPending(docs, "address-arrivals", ulid.Make().String()), AddressWait: addressWait,
		Channels: channels, Announce: w.bus.announce,
		Operators: contracts.Contact{Email: "operators@example.com"}, Policy: policy, SendTimeout: 10 * time.Second,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// during runs a process for the given time of the bubble, after start.
func (w *world) during(c *delivery.Courier, length time.Duration, start func()) {
	w.t.Helper()
	ctx, stop := context.WithCancel(w.t.Context())
	ended := make(chan struct{})
	go func() { // owned: waited for below
		defer close(ended)
		c.Run(ctx)
	}()
	synctest.Wait()
	if start != nil {
		start()
	}
	time.Sleep(length) // of the bubble's clock
	stop()
	<-ended
}

func (w *world) accept(c *delivery.Courier, m message.Message) {
	w.t.Helper()
	if err := c.Accept(w.t.Context(), m); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) read(id string) message.Message {
	w.t.Helper()
	m, err := w.messages.Get(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

func shipped(t *testing.T, channel string) message.Message {
	t.Helper()
	return shippedOf(t, "ORD-1001", channel)
}

func shippedOf(t *testing.T, order, channel string) message.Message {
	t.Helper()
	m, err := message.Requested(contracts.NotificationRequested{
		NotificationID: order + ":order_shipped:" + channel, OrderID: order, CustomerID: "CUST-123", Channel: channel,
		Template: contracts.TemplateOrderShipped, TrackingNumber: "TRK-1001", RequestedAt: time.Now(),
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// settled fails the test unless the message has this state, was announced, and was sent this many times.
func (w *world) settled(id string, want message.State, sends int) message.Message {
	w.t.Helper()
	m := w.read(id)
	if m.State != want {
		w.t.Errorf("%s is %s (code %s), want %s", id, m.State, m.Code, want)
	}
	if !w.announced(&m) {
		w.t.Errorf("%s is not announced", id)
	}
	if got := w.channels[m.Channel].times(id); got != sends {
		w.t.Errorf("%s was sent %d times, want %d", id, got, sends)
	}
	return m
}

// announced reports whether the outcome of the message was published. It fails the test if another outcome was.
func (w *world) announced(m *message.Message) (announced bool) {
	w.t.Helper()
	want, _ := m.Outcome()
	for _, id := range w.bus.all() {
		announced = announced || id == want
		if strings.HasPrefix(id, m.ID+":") && id != want {
			w.t.Errorf("published %s for a message that is %s", id, m.State)
		}
	}
	return announced
}

func TestEachChannelIsDelivered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.process(w.docs)
		w.during(c, time.Second, func() {
			for _, channel := range contracts.Channels() {
				w.accept(c, shipped(t, channel))
			}
		})
		for _, channel := range contracts.Channels() {
			m := w.settled("ORD-1001:order_shipped:"+channel, message.Delivered, 1)
			if m.Attempts != 1 {
				t.Errorf("%d attempts", m.Attempts)
			}
		}
		if got := w.channels[contracts.ChannelEmail].sent[0]; got.to.Email != "cust-123@example.com" || got.m.Subject != "Your order ORD-1001 has shipped" {
			t.Errorf("%+v", got)
		}
		if len(w.bus.all()) != 3 {
			t.Errorf("published %v", w.bus.all())
		}
		if left := w.pending(); len(left) != 0 {
			t.Errorf("the pending set holds %v", left)
		}
	})
}

func (w *world) pending() []string {
	w.t.Helper()
	var ids []string
	err := reconcile.NewPending(w.docs, "notifications", "reader").Visit(w.t.Context(), func(_ context.Context, found []string) ([]string, error) {
		ids = append(ids, found...)
		return nil, nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return ids
}

func TestADuplicateRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.process(w.docs)
		m := shipped(t, contracts.ChannelEmail)
		other := m
		other.Facts.TrackingNumber = "TRK-2002"
		w.during(c, time.Minute, func() {
			w.accept(c, m)
			w.accept(c, m)
			time.Sleep(time.Second)
			w.accept(c, m)
			w.accept(c, other)
		})
		// A process that starts later.
		again := w.process(w.docs)
		w.during(again, time.Minute, func() { w.accept(again, m); w.accept(again, other) })
		if got := w.settled(m.ID, message.Delivered, 1); got.Facts.TrackingNumber != "TRK-1001" {
			t.Error("the first content was replaced")
		}
		// Once for the message, and once for each request that found it delivered.
		if len(w.bus.all()) != 5 {
			t.Errorf("published %v", w.bus.all())
		}
	})
}

// overtaken is a pending set whose first Add takes a second. Later ones are not delayed.
type overtaken struct {
	delivery.Pending

	calls atomic.Int32
}

func (o *overtaken) Add(ctx context.Context, ids ...string) error {
	if o.calls.Add(1) == 1 {
		time.Sleep(time.Second)
	}
	return o.Pending.Add(ctx, ids...)
}

// The same request arrives after the first one was stored and before it is queued.
func TestAConcurrentDuplicateRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.processWith(w.docs, &overtaken{Pending: reconcile.NewPending(w.docs, "notifications", "writer")})
		m := shipped(t, contracts.ChannelEmail)
		w.during(c, 5*time.Second, func() {
			var first sync.WaitGroup
			first.Go(func() { w.accept(c, m) })
			synctest.Wait()
			w.accept(c, m)
			first.Wait()
		})
		if got := w.settled(m.ID, message.Delivered, 1); got.Attempts != 1 {
			t.Errorf("%+v", got)
		}
	})
}

func TestARetrySucceeds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.channels[contracts.ChannelSMS].answer = func(_ context.Context, attempt int, _ message.Outgoing) error {
			if attempt < 3 {
				return errors.New("down")
			}
			return nil
		}
		c := w.process(w.docs)
		m := shipped(t, contracts.ChannelSMS)
		w.during(c, 10*time.Second, func() {
			w.accept(c, m)
			time.Sleep(500 * time.Millisecond)
			if got := w.read(m.ID); got.State != message.Pending || got.Attempts != 1 || got.LastError == "" {
				t.Errorf("between attempts: %+v", got)
			}
		})
		if got := w.settled(m.ID, message.Delivered, 3); got.Attempts != 3 || got.LastError != "" {
			t.Errorf("%+v", got)
		}
	})
}

// A message that its channel never accepts is given up. Meanwhile other messages are delivered.
func TestAFailingMessageBlocksNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		broken := shippedOf(t, "ORD-1", contracts.ChannelEmail)
		w.channels[contracts.ChannelEmail].answer = func(ctx context.Context, _ int, m message.Outgoing) error {
			if m.ID == broken.ID {
				<-ctx.Done() // hangs
				return ctx.Err()
			}
			return nil
		}
		w.channels[contracts.ChannelPush].answer = func(context.Context, int, message.Outgoing) error { panic("by the test") }
		c := w.process(w.docs)
		w.during(c, 5*time.Minute, func() {
			w.accept(c, broken)
			w.accept(c, shippedOf(t, "ORD-2", contracts.ChannelEmail))
			w.accept(c, shippedOf(t, "ORD-1", contracts.ChannelSMS))
			w.accept(c, shippedOf(t, "ORD-1", contracts.ChannelPush))
			time.Sleep(time.Second)
			w.settled("ORD-2:order_shipped:email", message.Delivered, 1)
			w.settled("ORD-1:order_shipped:sms", message.Delivered, 1)
		})
		m := w.settled(broken.ID, message.Failed, policy.Attempts)
		if m.Code != message.CodeUnavailable || m.Error != "The channel did not answer in time; it is not known whether it accepted the message." {
			t.Errorf("%+v", m)
		}
		w.settled("ORD-1:order_shipped:push", message.Failed, policy.Attempts)
		if left := w.pending(); len(left) != 0 {
			t.Errorf("the pending set holds %v", left)
		}
	})
}

func TestRefusedMessagesFailAtOnce(t *testing.T) {
	t.Parallel()
	off := contracts.Preferences{Email: true}
	for name, test := range map[string]struct {
		contact contracts.Contact
		code    string
	}{
		"opted out": {contracts.Contact{Phone: "+12065550123", Preferences: &off}, message.CodeOptedOut},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.setContact(test.contact)
				c := w.process(w.docs)
				m := shipped(t, contracts.ChannelSMS)
				w.during(c, time.Second, func() { w.accept(c, m) })
				if got := w.settled(m.ID, message.Failed, 0); got.Code != test.code || got.Attempts != 0 {
					t.Errorf("%+v", got)
				}
			})
		})
	}
	t.Run("deleted contact", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			c := w.process(w.docs)
			m := shipped(t, contracts.ChannelEmail)
			m.CustomerID = "CUST-456"
			w.during(c, time.Second, func() { w.accept(c, m) })
			if got := w.settled(m.ID, message.Failed, 0); got.Code != message.CodeNoAddress {
				t.Errorf("%+v", got)
			}
		})
	})
}

func TestAnExpiredSubscriptionIsRemoved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.channels[contracts.ChannelPush].answer = func(context.Context, int, message.Outgoing) error {
			return &message.Refusal{Code: message.CodeSubscriptionGone, Text: "Unknown."}
		}
		c := w.process(w.docs)
		w.during(c, time.Second, func() {
			w.accept(c, shippedOf(t, "ORD-1", contracts.ChannelPush))
			time.Sleep(100 * time.Millisecond)
			w.accept(c, shippedOf(t, "ORD-2", contracts.ChannelPush))
		})
		if m := w.settled("ORD-1:order_shipped:push", message.Failed, 1); m.Code != message.CodeSubscriptionGone {
			t.Errorf("%+v", m)
		}
		if m := w.read("ORD-2:order_shipped:push"); m.State != message.Waiting {
			t.Errorf("%+v", m)
		}
		known, err := w.contacts.Get(t.Context(), "CUST-123")
		if err != nil || known.Push != nil || known.Email == "" {
			t.Errorf("%+v %v", known, err)
		}
	})
}

func TestAMessageWaitsForThePauseOfItsChannel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.channels[contracts.ChannelPush].answer = func(_ context.Context, attempt int, _ message.Outgoing) error {
			if attempt == 1 {
				return &message.Later{Text: "The push service answered 429.", After: time.Minute}
			}
			return nil
		}
		c := w.process(w.docs)
		m := shipped(t, contracts.ChannelPush)
		w.during(c, 2*time.Minute, func() {
			w.accept(c, m)
			time.Sleep(50 * time.Second)
			if n := w.channels[contracts.ChannelPush].times(m.ID); n != 1 {
				t.Errorf("%d attempts before the pause ended", n)
			}
		})
		w.settled(m.ID, message.Delivered, 2)
	})
}

func TestOperatorsNeedNoContact(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.process(w.docs)
		m, _, err := message.Stock("PROD-001:stock:7", contracts.StockChanged{ProductID: "PROD-001", PreviousStock: 10, CurrentStock: 9}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		w.during(c, time.Second, func() { w.accept(c, m) })
		w.settled(m.ID, message.Delivered, 1)
		if to := w.channels[contracts.ChannelEmail].sent[0].to.Email; to != "operators@example.com" {
			t.Errorf("sent to %s", to)
		}
	})
}

// The bus is unavailable when the message has its outcome: it is sent once and announced later.
func TestAnOutcomeIsAnnouncedWhenTheBusIsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.bus.setFail(errors.New("unavailable"))
		c := w.process(w.docs)
		m := shipped(t, contracts.ChannelEmail)
		w.during(c, time.Minute, func() {
			w.accept(c, m)
			time.Sleep(10 * time.Second)
			if got := w.read(m.ID); got.State != message.Delivered || len(w.bus.all()) != 0 {
				t.Errorf("%+v", got)
			}
			w.bus.setFail(nil)
		})
		w.settled(m.ID, message.Delivered, 1)
	})
}

// A refusal is announced before its event is acknowledged, or stays pending.
func TestARefusalIsAnnouncedWhenTheBusIsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.bus.setFail(errors.New("unavailable"))
		first := w.process(w.docs)
		m := shipped(t, contracts.ChannelEmail)
		m.CustomerID = "CUST-456"
		w.during(first, 30*time.Second, func() { w.accept(first, m) })
		if got := w.read(m.ID); got.State != message.Failed || len(w.bus.all()) != 0 || len(w.pending()) != 1 {
			t.Errorf("%+v, published %v, the pending set holds %v", got, w.bus.all(), w.pending())
		}
		w.bus.setFail(nil)
		w.during(w.process(w.docs), time.Minute, nil)
		w.settled(m.ID, message.Failed, 0)
		if left := w.pending(); len(left) != 0 {
			t.Errorf("the pending set holds %v", left)
		}
	})
}

// The process that records an outcome announces it. Other processes do so only if that process ended.
func TestEachProcessAnnouncesItsOwnOutcomes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m, lost := shippedOf(t, "ORD-1", contracts.ChannelEmail), shippedOf(t, "ORD-2", contracts.ChannelEmail)
		c, other := w.process(w.docs), w.process(w.docs)
		w.during(other, 5*time.Minute, func() {
			w.during(c, time.Minute, func() {
				time.Sleep(9 * time.Second) // the other process makes its pass before this one
				w.accept(c, m)
			})
			lost.Begin("dead", time.Now(), time.Now(), policy)
			lost.Accept(time.Now())
			if _, _, err := w.messages.Create(t.Context(), lost); err != nil {
				t.Fatal(err)
			}
			if err := reconcile.NewPending(w.docs, "notifications", "dead").Add(t.Context(), lost.ID); err != nil {
				t.Fatal(err)
			}
		})
		w.settled(m.ID, message.Delivered, 1)
		w.settled(lost.ID, message.Delivered, 0)
		if len(w.bus.all()) != 2 || len(w.pending()) != 0 {
			t.Errorf("published %v, the pending set holds %v", w.bus.all(), w.pending())
		}
	})
}

// A claim that waited too long for its worker is extended. That is no second attempt.
func TestAClaimIsExtended(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		gate := &gate{Store: w.docs}
		w.channels[contracts.ChannelEmail].answer = func(_ context.Context, _ int, m message.Outgoing) error {
			if left := time.Until(w.read(m.ID).ClaimedUntil); left < 15*time.Second {
				t.Errorf("sent with %s of the claim left", left)
			}
			return nil
		}
		c := w.process(gate)
		m := shipped(t, contracts.ChannelEmail)
		// Accepted before a worker runs. By then the cached contact has expired.
		w.accept(c, m)
		time.Sleep(25 * time.Second)
		other := w.process(w.docs)
		w.during(other, 10*time.Second, func() {
			gate.set(true)
			w.during(c, 4*time.Second, func() { time.Sleep(2 * time.Second); gate.set(false) })
		})
		if got := w.settled(m.ID, message.Delivered, 1); got.Attempts != 1 {
			t.Errorf("%+v", got)
		}
	})
}

// counting is a store that counts its calls.
type counting struct {
	state.Store
	reads, writes atomic.Int32
}

func (s *counting) Get(ctx context.Context, key string, doc any) (state.ETag, error) {
	s.reads.Add(1)
	return s.Store.Get(ctx, key, doc)
}

func (s *counting) GetMany(ctx context.Context, keys []string) (map[string][]byte, error) {
	s.reads.Add(1)
	return s.Store.GetMany(ctx, keys)
}

func (s *counting) Create(ctx context.Context, key string, doc any, options ...state.Option) error {
	s.writes.Add(1)
	return s.Store.Create(ctx, key, doc, options...)
}

func (s *counting) Replace(ctx context.Context, key string, doc any, etag state.ETag, options ...state.Option) error {
	s.writes.Add(1)
	return s.Store.Replace(ctx, key, doc, etag, options...)
}

// Calls of the store are the main cost of a message.
func TestStoreCallsPerMessage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		customer      string
		reads, writes int32
	}{
		// For three messages: the contact once, and the order's document for each.
		"refused": {"CUST-456", 4, 3},
		// The contact, the order's document for each, one entry of the waits, and the contact for each, which is written once.
		"waiting": {"CUST-789", 8, 5},
		// In addition the pending set and the outcome for each.
		"sent": {"CUST-123", 10, 9},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				docs := &counting{Store: w.docs}
				c := w.process(docs)
				accept := func(order string) {
					for _, channel := range contracts.Channels() {
						m := shippedOf(t, order, channel)
						m.CustomerID = test.customer
						w.accept(c, m)
						synctest.Wait()
					}
				}
				w.during(c, time.Second, func() {
					accept("ORD-1") // begins a page of the pending set
					time.Sleep(2 * time.Second)
					docs.reads.Store(0)
					docs.writes.Store(0)
					accept("ORD-2")
					if reads, writes := docs.reads.Load(), docs.writes.Load(); reads != test.reads || writes != test.writes {
						t.Errorf("%d reads and %d writes, want %d and %d", reads, writes, test.reads, test.writes)
					}
				})
			})
		})
	}
}

// The next process continues what a killed process has left.
func TestTheNextProcessContinues(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		leave func(m *message.Message)
		sends int
	}{
		"accepted":                    {func(*message.Message) {}, 1},
		"while sending":               {func(m *message.Message) { m.Begin("dead", time.Now(), time.Now().Add(30*time.Second), policy) }, 1},
		"waiting for the next try":    {func(m *message.Message) { m.NextAttemptAt = time.Now().Add(20 * time.Second); m.Attempts = 1 }, 1},
		"delivered and not announced": {func(m *message.Message) { m.Begin("dead", time.Now(), time.Now(), policy); m.Accept(time.Now()) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				m := shipped(t, contracts.ChannelEmail)
				test.leave(&m)
				if _, _, err := w.messages.Create(t.Context(), m); err != nil {
					t.Fatal(err)
				}
				if err := reconcile.NewPending(w.docs, "notifications", "dead").Add(t.Context(), m.ID); err != nil {
					t.Fatal(err)
				}
				w.during(w.process(w.docs), time.Second, nil)
				if m.State == message.Sending && w.channels[m.Channel].times(m.ID) > 0 {
					t.Error("sent while another process may be sending it")
				}
				w.during(w.process(w.docs), time.Minute, nil)
				w.settled(m.ID, message.Delivered, test.sends)
			})
		})
	}
	t.Run("created and not pending", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			m := shipped(t, contracts.ChannelEmail)
			if _, _, err := w.messages.Create(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			c := w.process(w.docs)
			w.during(c, time.Second, func() { w.accept(c, m) }) // the event was not acknowledged, so it is delivered again
			w.settled(m.ID, message.Delivered, 1)
		})
	})
}

// mortal is a store that fails for good from one call on. That call fails before or after its effect.
type mortal struct {
	state.Store
	mu    sync.Mutex
	left  int
	after bool
}

var errDead = fmt.Errorf("the process is dead: %w", state.ErrUnavailable)

func (s *mortal) call(effect func() error) error {
	s.mu.Lock()
	s.left--
	left := s.left
	s.mu.Unlock()
	switch {
	case left > 0:
		return effect()
	case left == 0 && s.after:
		_ = effect()
	}
	return errDead
}

func (s *mortal) Get(ctx context.Context, key string, doc any) (etag state.ETag, err error) {
	err = s.call(func() error { etag, err = s.Store.Get(ctx, key, doc); return err })
	return etag, err
}

func (s *mortal) GetMany(ctx context.Context, keys []string) (docs map[string][]byte, err error) {
	err = s.call(func() error { docs, err = s.Store.GetMany(ctx, keys); return err })
	return docs, err
}

func (s *mortal) Create(ctx context.Context, key string, doc any, options ...state.Option) error {
	return s.call(func() error { return s.Store.Create(ctx, key, doc, options...) })
}

func (s *mortal) Replace(ctx context.Context, key string, doc any, etag state.ETag, options ...state.Option) error {
	return s.call(func() error { return s.Store.Replace(ctx, key, doc, etag, options...) })
}

// A process dies at each call of the store in turn. If its event was not acknowledged, the event is delivered again. The next process
// continues: there is one outcome, and the message is sent again only if the first process did not record that it was sent.
func TestKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	alert, _, err := message.NeedsAttention("f1", contracts.FulfillmentFailed{OrderID: "ORD-1001", NotUndone: []string{contracts.StepRefundPayment}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	unknown := shipped(t, contracts.ChannelEmail)
	unknown.CustomerID = "CUST-456"
	accept := func(m message.Message) step {
		return func(w *world, c *delivery.Courier) error { return c.Accept(w.t.Context(), m) }
	}
	// The messages of an order are accepted together.
	acceptAll := func(customer string) step {
		return func(w *world, c *delivery.Courier) error {
			all := make([]message.Message, 0, len(contracts.Channels()))
			for _, channel := range contracts.Channels() {
				all = append(all, toCustomer(w.t, customer, "ORD-1001", channel))
			}
			return errors.Join(c.AcceptAll(w.t.Context(), all...)...)
		}
	}
	arrive := func(w *world, c *delivery.Courier) error {
		_, err := c.UpdateContact(w.t.Context(), "CUST-789", func(known *contact.Contact) bool {
			return known.Learn(contracts.Contact{Email: "cust-789@example.com"}, time.Unix(1, 0), time.Now())
		})
		return err
	}
	waiting := shipped(t, contracts.ChannelEmail)
	waiting.CustomerID = "CUST-789"
	failed := shipped(t, contracts.ChannelEmail)
	failed.Refuse(&message.Refusal{Code: message.CodeUnavailable, Text: "Down."}, time.Unix(1, 0))
	for kind, test := range map[string]struct {
		message message.Message
		want    message.State
		// before runs in a process that lives. by runs in the process that dies, and again in the next one if it failed.
		before, by step
		// after runs in the next process.
		after step
	}{
		"an order's":    {shipped(t, contracts.ChannelEmail), message.Delivered, nil, accept(shipped(t, contracts.ChannelEmail)), nil},
		"an alert":      {alert, message.Delivered, nil, accept(alert), nil},
		"refused":       {unknown, message.Failed, nil, accept(unknown), nil},
		"waiting":       {waiting, message.Delivered, nil, accept(waiting), arrive},
		"arrival":       {waiting, message.Delivered, accept(waiting), arrive, nil},
		"together":      {shipped(t, contracts.ChannelPush), message.Delivered, nil, acceptAll("CUST-123"), nil},
		"wait together": {waiting, message.Delivered, nil, acceptAll("CUST-789"), arrive},
		"expiry": {waiting, message.Failed, func(w *world, c *delivery.Courier) error {
			err := c.Accept(w.t.Context(), waiting)
			time.Sleep(addressWait + time.Minute)
			return err
		}, func(*world, *delivery.Courier) error { return nil }, nil},
		"resend": {failed, message.Delivered, func(w *world, _ *delivery.Courier) error {
			_, _, err := w.messages.Create(w.t.Context(), failed)
			return err
		}, func(w *world, c *delivery.Courier) error {
			_, err := c.Resend(w.t.Context(), failed.ID, "operator@example.com", "The mail server is back.", false)
			return err
		}, nil},
	} {
		for _, after := range []bool{false, true} {
			for at := 1; ; at++ {
				lived := false
				t.Run(fmt.Sprintf("%s, call %d, after its effect: %t", kind, at, after), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						lived = killedAt(t, test.message, test.want, [3]step{test.before, test.by, test.after}, at, after)
					})
				})
				if lived {
					break
				}
			}
		}
	}
}

// step is an action of a process.
type step func(w *world, c *delivery.Courier) error

// killedAt lets the first process die at the given call. It reports whether the process never made that call.
func killedAt(t *testing.T, m message.Message, end message.State, steps [3]step, at int, after bool) (lived bool) {
	t.Helper()
	w := newWorld(t)
	if steps[0] != nil {
		if err := steps[0](w, w.process(w.docs)); err != nil {
			t.Fatal(err)
		}
	}
	dying := &mortal{Store: w.docs, left: at, after: after}
	first := w.process(dying)
	var failed error
	w.during(first, 15*time.Second, func() { failed = steps[1](w, first) })
	lived = dying.left > 0
	sentByFirst := w.channels[m.Channel].times(m.ID)
	recorded := false
	if got, err := w.messages.Get(t.Context(), m.ID); err == nil {
		recorded = got.Final() && (end == message.Failed || got.State == end)
	}
	second := w.process(w.docs)
	w.during(second, 2*time.Minute, func() {
		if failed != nil {
			if err := steps[1](w, second); err != nil {
				t.Fatal(err)
			}
		}
		if steps[2] != nil {
			if err := steps[2](w, second); err != nil {
				t.Fatal(err)
			}
		}
	})
	want := sentByFirst
	if !recorded && end == message.Delivered {
		want++
	}
	if sentByFirst > 1 || want > 2 {
		t.Errorf("sent %d times by the first process", sentByFirst)
	}
	w.settled(m.ID, end, want)
	if left := w.pending(); len(left) != 0 {
		t.Errorf("the pending set holds %v", left)
	}
	return lived
}

// counted counts the calls of the store.
type counted struct {
	state.Store

	reads, writes atomic.Int32
}

func (s *counted) Get(ctx context.Context, key string, doc any) (state.ETag, error) {
	s.reads.Add(1)
	return s.Store.Get(ctx, key, doc)
}

func (s *counted) Create(ctx context.Context, key string, doc any, options ...state.Option) error {
	s.writes.Add(1)
	return s.Store.Create(ctx, key, doc, options...)
}

func (s *counted) Replace(ctx context.Context, key string, doc any, etag state.ETag, options ...state.Option) error {
	s.writes.Add(1)
	return s.Store.Replace(ctx, key, doc, etag, options...)
}

// Messages of an order that are requested together need as many calls of the store as one message.
func TestMessagesTogetherCostAsMuchAsOne(t *testing.T) {
	t.Parallel()
	for _, customer := range []string{"CUST-123", "CUST-456", "CUST-789"} { // has addresses, was deleted, has no address yet
		cost := func(channels ...string) (reads, writes int32) {
			w, docs := newWorld(t), &counted{}
			docs.Store = w.docs
			c := w.process(docs) // that does not run, so that the messages are not sent
			all := make([]message.Message, 0, len(channels))
			for _, channel := range channels {
				all = append(all, toCustomer(t, customer, "ORD-1", channel))
			}
			if err := errors.Join(c.AcceptAll(t.Context(), all...)...); err != nil {
				t.Fatal(err)
			}
			return docs.reads.Load(), docs.writes.Load()
		}
		oneRead, oneWritten := cost(contracts.ChannelEmail)
		if reads, writes := cost(contracts.Channels()...); reads != oneRead || writes != oneWritten {
			t.Errorf("three messages to %s need %d reads and %d writes, one needs %d and %d", customer, reads, writes, oneRead, oneWritten)
		}
	}
}

// A message that is refused does not affect the others that are requested with it, also if they belong to other orders and places, or
// are repeated.
func TestMessagesTogetherAreIndependent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.process(w.docs)
	elsewhere := func(n int) message.Message {
		m := shippedOf(t, "ORD-2", contracts.ChannelEmail)
		m.ID = fmt.Sprintf("ORD-2:reminder-%d:email", n)
		return m
	}
	for n := range 499 { // one less than the limit
		if err := c.Accept(t.Context(), elsewhere(n)); err != nil {
			t.Fatal(err)
		}
	}
	misplaced := func(channel string) message.Message {
		m := shippedOf(t, "ORD-1", channel)
		m.OrderID = "ORD-2"
		return m
	}
	const refused = 4 // exceeds the limit
	all := []message.Message{
		shippedOf(t, "ORD-1", contracts.ChannelEmail), shippedOf(t, "ORD-3", contracts.ChannelEmail), misplaced(contracts.ChannelPush),
		shippedOf(t, "ORD-1", contracts.ChannelEmail), misplaced(contracts.ChannelSMS),
	}
	for i, err := range c.AcceptAll(t.Context(), all...) {
		if (err != nil) != (i == refused) {
			t.Errorf("message %d: %v", i, err)
		}
		if i != refused {
			w.read(all[i].ID)
		}
	}
	if errs := c.AcceptAll(t.Context()); len(errs) != 0 {
		t.Errorf("no messages: %v", errs)
	}
}

// The store is unavailable right after a message was sent: the result is recorded later, and the message not sent again.
func TestTheStoreFailsAfterSending(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		gate := &gate{Store: w.docs}
		w.channels[contracts.ChannelEmail].answer = func(context.Context, int, message.Outgoing) error {
			gate.set(true)
			return nil
		}
		c := w.process(gate)
		m := shipped(t, contracts.ChannelEmail)
		w.during(c, 5*time.Minute, func() {
			w.accept(c, m)
			time.Sleep(2 * time.Minute) // longer than the claim
			gate.set(false)
		})
		w.settled(m.ID, message.Delivered, 1)
	})
}

// A process that must stop before it can record a result does not send the message again. The next process does.
func TestAStopWhileTheStoreIsUnavailable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		gate := &gate{Store: w.docs}
		w.channels[contracts.ChannelEmail].answer = func(context.Context, int, message.Outgoing) error {
			gate.set(true)
			return nil
		}
		c := w.process(gate)
		m := shipped(t, contracts.ChannelEmail)
		w.during(c, time.Second, func() { w.accept(c, m) })
		if got := w.read(m.ID); got.State != message.Sending || w.channels[m.Channel].times(m.ID) != 1 {
			t.Errorf("%+v", got)
		}
		// This is the only case in which a message is sent twice.
		w.during(w.process(w.docs), time.Minute, nil)
		w.settled(m.ID, message.Delivered, 2)
	})
}

// gate is a store that is unavailable while it is shut.
type gate struct {
	state.Store
	mu   sync.Mutex
	shut bool
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
}

func (g *gate) fault() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return state.ErrUnavailable
	}
	return nil
}

func (g *gate) Get(ctx context.Context, key string, doc any) (state.ETag, error) {
	if err := g.fault(); err != nil {
		return "", err
	}
	return g.Store.Get(ctx, key, doc)
}

func (g *gate) Replace(ctx context.Context, key string, doc any, etag state.ETag, options ...state.Option) error {
	if err := g.fault(); err != nil {
		return err
	}
	return g.Store.Replace(ctx, key, doc, etag, options...)
}

// A process that stops finishes the attempt in progress and records its result.
func TestAStopWaitsForTheAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.channels[contracts.ChannelEmail].answer = func(context.Context, int, message.Outgoing) error {
			time.Sleep(3 * time.Second)
			return nil
		}
		c := w.process(w.docs)
		m := shipped(t, contracts.ChannelEmail)
		w.during(c, time.Second, func() { w.accept(c, m) })
		w.settled(m.ID, message.Delivered, 1)
	})
}

// Three processes share the store, and each gets every message several times at once: each message is sent once. This test runs on the
// real clock, for the race detector.
func TestConcurrentDuplicatesAreSentOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const orders, copies, processes, workers = 20, 5, 3, 3
	// The first attempts last until every worker of every process makes one.
	var under atomic.Int32
	allBusy := make(chan struct{})
	w.channels[contracts.ChannelPush].answer = func(ctx context.Context, _ int, _ message.Outgoing) error {
		if under.Add(1) == processes*workers {
			close(allBusy)
		}
		select {
		case <-allBusy:
		case <-ctx.Done():
		}
		return nil
	}
	all := make([]message.Message, 0, orders)
	for i := range orders {
		all = append(all, shippedOf(t, fmt.Sprint("ORD-", i), contracts.ChannelPush))
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running, accepting sync.WaitGroup
	for range processes {
		c := w.process(w.docs)
		running.Go(func() { c.Run(ctx) })
		for range copies {
			for _, m := range all {
				accepting.Go(func() {
					if err := c.Accept(ctx, m); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
	accepting.Wait()
	deadline := time.Now().Add(30 * time.Second)
	for !w.allSettled(all) && time.Now().Before(deadline) {
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	stop()
	running.Wait()
	for _, m := range all {
		if got := w.settled(m.ID, message.Delivered, 1); got.Attempts != 1 {
			t.Errorf("%+v", got)
		}
	}
}

func (w *world) allSettled(all []message.Message) bool {
	for _, m := range all {
		if stored := w.read(m.ID); !stored.Final() || !w.announced(&stored) {
			return false
		}
	}
	return true
}

// spoil replaces a document by one of another shape.
func (w *world) spoil(key string) {
	w.t.Helper()
	if _, err := state.Update(w.t.Context(), w.docs, key, func(doc *any, exists bool) error {
		if !exists {
			w.t.Fatalf("there is no %s", key)
		}
		*doc = "spoiled"
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
}

// A document that cannot be decoded, of a message, a contact or a page of the pending set, blocks no other message. Its own message
// stays pending.
func TestAnUnreadableDocumentBlocksNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		left := func(order, customer string) string {
			m := shippedOf(t, order, contracts.ChannelEmail)
			m.CustomerID = customer
			if _, _, err := w.messages.Create(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			if err := reconcile.NewPending(w.docs, "notifications", "left-"+order).Add(t.Context(), m.ID); err != nil {
				t.Fatal(err)
			}
			return m.ID
		}
		first, broken, unlisted, last := left("ORD-1", "CUST-123"), left("ORD-2", "CUST-123"), left("ORD-3", "CUST-123"), left("ORD-4", "CUST-123")
		w.spoil("order-messages:ORD-2")
		w.spoil("backlog:notifications:left-ORD-3:0")
		// Two customers whose messages wait for an address.
		w.during(w.process(w.docs), time.Second, nil)
		waiting := w.process(w.docs)
		for _, customer := range []string{"CUST-1", "CUST-2"} {
			m := shippedOf(t, "ORD-OF-"+customer, contracts.ChannelEmail)
			m.CustomerID = customer
			w.accept(waiting, m)
		}
		w.spoil("contact:CUST-1")
		w.during(w.process(w.docs), 2*addressWait, nil)
		w.settled(first, message.Delivered, 1)
		w.settled(last, message.Delivered, 1)
		w.settled("ORD-OF-CUST-2:order_shipped:email", message.Failed, 0)
		if n := w.channels[contracts.ChannelEmail].times(broken) + w.channels[contracts.ChannelEmail].times(unlisted); n != 0 {
			t.Errorf("%d unreadable messages were sent", n)
		}
		var listed []string
		err := reconcile.NewPending(w.docs, "notifications", "reader").Visit(t.Context(), func(_ context.Context, ids []string) ([]string, error) {
			listed = append(listed, ids...)
			return nil, nil
		})
		if !errors.Is(err, state.ErrUnreadable) || !slices.Contains(listed, broken) {
			t.Errorf("the pending set holds %v, %v; want %s in it", listed, err, broken)
		}
	})
}
