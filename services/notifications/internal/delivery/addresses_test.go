package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"waybill/contracts"
	"waybill/platform/reconcile"
	"waybill/services/notifications/internal/contact"
	"waybill/services/notifications/internal/delivery"
	"waybill/services/notifications/internal/message"
)

// reach sets the contact of a customer.
func (w *world) reach(c *delivery.Courier, customer string, said contracts.Contact) {
	w.t.Helper()
	if _, err := c.UpdateContact(w.t.Context(), customer, func(known *contact.Contact) bool {
		known.Set(said, time.Now())
		return true
	}); err != nil {
		w.t.Fatal(err)
	}
}

func toCustomer(t *testing.T, customer, order, channel string) message.Message {
	t.Helper()
	m := shippedOf(t, order, channel)
	m.CustomerID = customer
	return m
}

func TestMessagesWaitForAnAddress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.process(w.docs)
		w.during(c, 2*addressWait, func() {
			for _, channel := range contracts.Channels() {
				w.accept(c, toCustomer(t, "CUST-789", "ORD-1", channel))
				w.accept(c, toCustomer(t, "CUST-789", "ORD-1", channel)) // again
			}
			time.Sleep(addressWait / 2)
			for _, channel := range contracts.Channels() {
				if m := w.read("ORD-1:order_shipped:" + channel); m.State != message.Waiting || m.LastError == "" || m.Attempts != 0 {
					t.Errorf("%+v", m)
				}
			}
			if len(w.bus.all()) != 0 {
				t.Errorf("published %v", w.bus.all())
			}
			w.reach(c, "CUST-789", contracts.Contact{Email: "cust-789@example.com", Phone: "+12065550123"})
			time.Sleep(time.Second)
			for _, channel := range []string{contracts.ChannelEmail, contracts.ChannelSMS} {
				w.settled("ORD-1:order_shipped:"+channel, message.Delivered, 1)
			}
			// A further contact sends nothing again.
			w.reach(c, "CUST-789", contracts.Contact{Email: "cust-789@example.net", Phone: "+12065550123"})
			time.Sleep(time.Minute)
			if m := w.read("ORD-1:order_shipped:push"); m.State != message.Waiting {
				t.Errorf("%+v", m)
			}
		})
		w.settled("ORD-1:order_shipped:email", message.Delivered, 1)
		w.settled("ORD-1:order_shipped:sms", message.Delivered, 1)
		m := w.settled("ORD-1:order_shipped:push", message.Failed, 0)
		if late := m.FinishedAt.Sub(m.WaitsUntil); m.Code != message.CodeNoAddress || late < 0 || late > addressWait/50+time.Second {
			t.Errorf("%s late: %+v", late, m)
		}
		if len(w.bus.all()) != 3 || len(w.pending()) != 0 {
			t.Errorf("published %v, the pending set holds %v", w.bus.all(), w.pending())
		}
	})
}

// A wait also ends when the customer opts out or the contact is deleted.
func TestAWaitEndsWithoutAnAddress(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(c *contact.Contact, now time.Time)
		code   string
	}{
		"opted out": {func(c *contact.Contact, now time.Time) {
			c.Set(contracts.Contact{Phone: "+12065550123", Preferences: &contracts.Preferences{Email: true}}, now)
		}, message.CodeOptedOut},
		"deleted": {(*contact.Contact).Remove, message.CodeNoAddress},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c := w.process(w.docs)
				m := toCustomer(t, "CUST-789", "ORD-1", contracts.ChannelSMS)
				w.during(c, time.Minute, func() {
					w.accept(c, m)
					if _, err := c.UpdateContact(t.Context(), "CUST-789", func(c *contact.Contact) bool { test.change(c, time.Now()); return true }); err != nil {
						t.Fatal(err)
					}
				})
				if got := w.settled(m.ID, message.Failed, 0); got.Code != test.code {
					t.Errorf("%+v", got)
				}
			})
		})
	}
}

// The address is removed before a retry: the message waits, and a second wait ends with the first.
func TestAnAddressIsRemoved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.channels[contracts.ChannelEmail].answer = func(context.Context, int, message.Outgoing) error { return errors.New("down") }
		c := w.process(w.docs)
		m := shipped(t, contracts.ChannelEmail)
		w.during(c, 2*addressWait, func() {
			w.accept(c, m)
			time.Sleep(500 * time.Millisecond)
			w.reach(c, "CUST-123", contracts.Contact{})
			time.Sleep(addressWait / 2)
			first := w.read(m.ID)
			if first.State != message.Waiting || first.Attempts != 1 {
				t.Errorf("%+v", first)
			}
			w.reach(c, "CUST-123", contracts.Contact{Email: "cust-123@example.com"})
			time.Sleep(100 * time.Millisecond)
			w.reach(c, "CUST-123", contracts.Contact{})
			time.Sleep(time.Minute)
			if again := w.read(m.ID); again.State != message.Waiting || !again.WaitsUntil.Equal(first.WaitsUntil) {
				t.Errorf("%+v", again)
			}
		})
		if got := w.settled(m.ID, message.Failed, 2); got.Code != message.CodeNoAddress {
			t.Errorf("%+v", got)
		}
	})
}

// A replica of an earlier release drops the list of waiting messages. They are sent when their time is over.
func TestAMissedAddress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.process(w.docs)
		m := toCustomer(t, "CUST-789", "ORD-1", contracts.ChannelEmail)
		w.during(c, 2*addressWait, func() {
			w.accept(c, m)
			if _, err := w.contacts.Update(t.Context(), "CUST-789", func(c *contact.Contact) bool {
				*c = contact.Contact{Contact: contracts.Contact{Email: "cust-789@example.com"}, At: time.Now()} // as an earlier release writes it
				return true
			}); err != nil {
				t.Fatal(err)
			}
		})
		w.settled(m.ID, message.Delivered, 1)
	})
}

func TestTheNumberOfWaitingMessagesIsLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.process(w.docs)
		w.during(c, time.Minute, func() {
			for i := range 201 {
				w.accept(c, toCustomer(t, "CUST-789", fmt.Sprint("ORD-", i), contracts.ChannelEmail))
			}
		})
		if m := w.read("ORD-199:order_shipped:email"); m.State != message.Waiting {
			t.Errorf("%+v", m)
		}
		if m := w.settled("ORD-200:order_shipped:email", message.Failed, 0); m.Code != message.CodeNoAddress {
			t.Errorf("%+v", m)
		}
		w.during(c, time.Minute, func() { w.reach(c, "CUST-789", contracts.Contact{Email: "cust-789@example.com"}) })
		for i := range 200 {
			w.settled(fmt.Sprintf("ORD-%d:order_shipped:email", i), message.Delivered, 1)
		}
	})
}

func TestResend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		down := true
		w.channels[contracts.ChannelEmail].answer = func(context.Context, int, message.Outgoing) error {
			if down {
				return errors.New("down")
			}
			return nil
		}
		c := w.process(w.docs)
		m := shipped(t, contracts.ChannelEmail)
		resend := func(reason string, even bool) (message.Message, error) {
			return c.Resend(t.Context(), m.ID, "operator@example.com", reason, even)
		}
		refused := func(code, reason string, even bool) {
			t.Helper()
			_, err := resend(reason, even)
			if e, ok := errors.AsType[*message.Error](err); !ok || e.Kind != message.Conflict || e.Code != code {
				t.Errorf("got %v, want %s", err, code)
			}
		}
		w.during(c, time.Hour, func() {
			w.accept(c, m)
			refused("notification_pending", "Now.", false)
			time.Sleep(5 * time.Minute)
			w.settled(m.ID, message.Failed, policy.Attempts)
			// The message gets as many attempts again, and is given up again.
			for range 2 {
				if got, err := resend("The mail server is back.", false); err != nil || got.State == message.Failed || len(got.Resends) != 1 {
					t.Errorf("%+v %v", got, err)
				}
			}
			refused("notification_pending", "Another reason.", false)
			time.Sleep(5 * time.Minute)
			if got := w.read(m.ID); got.State != message.Failed || got.Attempts != 2*policy.Attempts {
				t.Errorf("%+v", got)
			}
			down = false
			if _, err := resend("Now it is back.", false); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
			// The client repeats a request whose answer was lost: nothing is sent.
			for range 2 {
				if got, err := resend("Now it is back.", true); err != nil || got.State != message.Delivered {
					t.Errorf("%+v %v", got, err)
				}
			}
			time.Sleep(time.Minute)
			refused("notification_delivered", "Once more.", false)
			if got := w.channels[m.Channel].times(m.ID); got != 2*policy.Attempts+1 {
				t.Errorf("sent %d times", got)
			}
			if _, err := resend("The customer has another address.", true); err != nil {
				t.Error(err)
			}
		})
		got := w.read(m.ID)
		if w.channels[m.Channel].times(m.ID) != 2*policy.Attempts+2 || got.State != message.Delivered || len(got.Resends) != 3 || got.Resends[2].Earlier.State != message.Delivered {
			t.Errorf("%+v", got)
		}
		want := []string{m.ID + ":Notification.Failed", m.ID + ":Notification.Failed:1", m.ID + ":Notification.Delivered:2", m.ID + ":Notification.Delivered:3"}
		if published := w.bus.all(); !slices.Equal(published, want) {
			t.Errorf("published %v", published)
		}
		if _, err := c.Resend(t.Context(), "ORD-9:order_shipped:email", "a", "b", false); err == nil {
			t.Error("a message that does not exist was resent")
		}
	})
}

// A message without an address that an earlier release gave up, as it is in its store.
func TestResendOfAMessageOfAnEarlierRelease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := toCustomer(t, "CUST-789", "ORD-1", contracts.ChannelEmail)
		m.State, m.FinishedAt, m.Code, m.Error = message.Failed, time.Now(), message.CodeNoAddress, "No contact of the customer is known."
		if _, _, err := w.messages.Create(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		c := w.process(w.docs)
		w.during(c, time.Hour, func() {
			if _, err := c.Resend(t.Context(), m.ID, "operator@example.com", "The customer registered.", false); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if got := w.read(m.ID); got.State != message.Waiting { // there is no contact yet
				t.Errorf("%+v", got)
			}
			w.reach(c, "CUST-789", contracts.Contact{Email: "cust-789@example.com"})
		})
		if got := w.read(m.ID); got.State != message.Delivered || w.channels[m.Channel].times(m.ID) != 1 {
			t.Errorf("%+v", got)
		}
	})
}

// Concurrent requests of the same operator resend the message once.
func TestConcurrentResends(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := shipped(t, contracts.ChannelEmail)
	m.Refuse(&message.Refusal{Code: message.CodeUnavailable, Text: "Down."}, time.Now())
	if _, _, err := w.messages.Create(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running, asking sync.WaitGroup
	for range 3 {
		c := w.process(w.docs)
		running.Go(func() { c.Run(ctx) })
		for range 5 {
			asking.Go(func() {
				if _, err := c.Resend(ctx, m.ID, "operator@example.com", "Again.", true); err != nil {
					t.Error(err)
				}
			})
		}
	}
	asking.Wait()
	for got := w.read(m.ID); !got.Final() || !slices.Contains(w.bus.all(), m.ID+":Notification.Delivered:1"); got = w.read(m.ID) {
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	stop()
	running.Wait()
	if got := w.read(m.ID); len(got.Resends) != 1 || w.channels[m.Channel].times(m.ID) != 1 {
		t.Errorf("sent %d times: %+v", w.channels[m.Channel].times(m.ID), got)
	}
}

// event is one step of a plan.
type event struct {
	Kind    string
	Process int
	Order   int
	Channel int
	// Has has a bit for each channel with an address.
	Has   int
	Pause time.Duration
}

// Requests, contacts, pauses and restarts in any order, on two replicas: a message is sent once if its customer had an address for its
// channel while it waited, and otherwise never. It has one outcome.
func TestWaitingProperty(t *testing.T) {
	t.Parallel()
	plans := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) event {
		return event{
			Kind:    rapid.SampledFrom([]string{"request", "request", "contact", "both at once", "pause", "restart"}).Draw(t, "kind"),
			Process: rapid.IntRange(0, 1).Draw(t, "process"), Order: rapid.IntRange(1, 2).Draw(t, "order"),
			Channel: rapid.IntRange(0, 2).Draw(t, "channel"), Has: rapid.IntRange(0, 7).Draw(t, "has"),
			Pause: rapid.SampledFrom([]time.Duration{time.Millisecond, 2 * time.Second, 20 * time.Second, 2 * time.Minute, 4 * time.Minute}).Draw(t, "pause"),
		}
	}), 1, 12)
	rapid.Check(t, func(r *rapid.T) {
		plan := plans.Draw(r, "plan")
		var wrong []string
		if !t.Run("plan", func(t *testing.T) { synctest.Test(t, func(t *testing.T) { wrong = carryOut(t, plan) }) }) {
			r.Fatal("the plan could not be carried out")
		}
		if len(wrong) > 0 {
			r.Fatal(strings.Join(wrong, "\n"))
		}
	})
}

// carryOut runs the plan and returns what is wrong in the end.
func carryOut(t *testing.T, plan []event) (wrong []string) {
	t.Helper()
	w := newWorld(t)
	type replica struct {
		courier *delivery.Courier
		stop    context.CancelFunc
		ended   chan struct{}
	}
	run := func() *replica {
		ctx, stop := context.WithCancel(t.Context())
		// Each replica has its own cache.
		r := &replica{w.process(w.docs), stop, make(chan struct{})}
		go func() { // owned: waited for in end
			defer close(r.ended)
			r.courier.Run(ctx)
		}()
		return r
	}
	end := func(r *replica) { r.stop(); <-r.ended }
	replicas := []*replica{run(), run()}

	type span struct {
		from time.Time
		has  int
	}
	contacts := []span{{time.Now(), 0}}
	requested := map[string]time.Time{}
	channels := contracts.Channels()
	request := func(e event) {
		w.accept(replicas[e.Process].courier, toCustomer(t, "CUST-789", fmt.Sprint("ORD-", e.Order), channels[e.Channel]))
	}
	reach := func(e event, process int) {
		var said contracts.Contact
		if e.Has&1 != 0 {
			said.Email = "cust-789@example.com"
		}
		if e.Has&2 != 0 {
			said.Phone = "+12065550123"
		}
		if e.Has&4 != 0 {
			said.Push = &contracts.PushAddress{Endpoint: "https://push.example.com/1"}
		}
		w.reach(replicas[process].courier, "CUST-789", said)
	}
	for _, e := range plan {
		id := fmt.Sprintf("ORD-%d:order_shipped:%s", e.Order, channels[e.Channel])
		asked := func() {
			if _, again := requested[id]; !again {
				requested[id] = time.Now()
			}
		}
		switch e.Kind {
		case "request":
			asked()
			request(e)
		case "contact":
			reach(e, e.Process)
			contacts = append(contacts, span{time.Now(), e.Has})
		case "both at once":
			asked()
			var both sync.WaitGroup
			both.Go(func() { request(e) })
			both.Go(func() { reach(e, 1-e.Process) })
			both.Wait()
			contacts = append(contacts, span{time.Now(), e.Has})
		case "pause":
			time.Sleep(e.Pause)
		case "restart":
			end(replicas[e.Process])
			replicas[e.Process] = run()
		}
		// Time for the steps in progress, and for cached contacts to expire.
		time.Sleep(2 * time.Second)
	}
	time.Sleep(addressWait + 2*time.Minute)
	for _, r := range replicas {
		end(r)
	}

	for id, from := range requested {
		m := w.read(id)
		bit := 1 << slices.Index(channels, m.Channel)
		could, perhaps := false, false
		for i, c := range contacts {
			until := time.Now()
			if i+1 < len(contacts) {
				until = contacts[i+1].from
			}
			if c.has&bit == 0 || until.Before(from) {
				continue
			}
			// A contact that is replaced at once, or that arrives just when the time is over, may be missed.
			perhaps = perhaps || c.from.Before(from.Add(addressWait+time.Minute))
			could = could || until.Sub(from) > 3*time.Second && until.Sub(c.from) > time.Second && c.from.Before(from.Add(addressWait-time.Second))
		}
		sent := w.channels[m.Channel].times(id)
		outcome, _ := m.Outcome()
		announced := 0
		for _, published := range w.bus.all() {
			switch {
			case published == outcome:
				announced++
			case strings.HasPrefix(published, id+":"):
				wrong = append(wrong, published+" for a message that is "+string(m.State))
			}
		}
		switch {
		case !m.Final(), announced == 0:
			wrong = append(wrong, fmt.Sprintf("%s is %s and was announced %d times", id, m.State, announced))
		case m.State == message.Delivered && sent != 1, m.State == message.Failed && sent != 0:
			wrong = append(wrong, fmt.Sprintf("%s is %s and was sent %d times", id, m.State, sent))
		case m.State == message.Delivered && !perhaps, m.State == message.Failed && could:
			wrong = append(wrong, fmt.Sprintf("%s is %s (%s)", id, m.State, m.Code))
		}
	}
	if left := w.pending(); len(left) != 0 {
		wrong = append(wrong, fmt.Sprintf("the pending set holds %v", left))
	}
	for _, name := range []string{"address-waits", "address-arrivals"} {
		if err := reconcile.NewPending(w.docs, name, "reader").Visit(t.Context(), func(_ context.Context, found []string) ([]string, error) {
			wrong = append(wrong, fmt.Sprintf("%s holds %v", name, found))
			return nil, nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return wrong
}
