package delivery_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"waybill/contracts"
	"waybill/platform/reconcile"
	"waybill/platform/state"
	"waybill/services/notifications/internal/message"
)

// The process that planned or made an attempt may have a clock that is hours ahead or behind.
func TestAWrongClockOfAnotherProcess(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		change        func(m *message.Message, skew time.Duration)
		within, after time.Duration // a process that finds the message sends it within this time, and not before that
	}{
		{
			name: "a planned attempt",
			change: func(m *message.Message, skew time.Duration) {
				m.State, m.Attempts, m.LastAttemptAt = message.Pending, 1, time.Now().Add(skew)
				m.NextAttemptAt = m.LastAttemptAt.Add(30 * time.Second)
			},
			within: time.Minute,
		},
		{
			// The other process may still be sending: it has a whole lease, and no more.
			name: "an attempt in progress",
			change: func(m *message.Message, skew time.Duration) {
				m.State, m.Attempts, m.LastAttemptAt = message.Sending, 1, time.Now().Add(skew)
				m.ClaimedBy, m.ClaimedUntil = "another process's", m.LastAttemptAt.Add(30*time.Second)
			},
			after: 29 * time.Second, within: time.Minute,
		},
		{
			name: "an outcome that is perhaps not announced",
			change: func(m *message.Message, skew time.Duration) {
				m.State, m.FinishedAt = message.Delivered, time.Now().Add(skew)
			},
			within: 2 * time.Minute,
		},
	} {
		for _, skew := range []time.Duration{0, 5 * time.Hour, -5 * time.Hour} {
			t.Run(c.name+" "+skew.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					m := shipped(t, contracts.ChannelEmail)
					c.change(&m, skew)
					sends := 1
					if m.Final() {
						sends = 0
					}
					if _, _, err := w.messages.Create(t.Context(), m); err != nil {
						t.Fatal(err)
					}
					if err := reconcile.NewPending(w.docs, "notifications", "another process").Add(t.Context(), m.ID); err != nil {
						t.Fatal(err)
					}
					if c.after > 0 {
						w.during(w.process(w.docs), c.after, nil)
						if got := w.channels[m.Channel].times(m.ID); got != 0 {
							t.Fatalf("within %v sent %d times beside the attempt in progress", c.after, got)
						}
					}
					w.during(w.process(w.docs), c.within, nil)
					w.settled(m.ID, message.Delivered, sends)
				})
			})
		}
	}
}

// A channel that asks for a pause is not called for any of its messages. The other channels are.
func TestAPauseHoldsForTheWholeChannel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		began := time.Now()
		var calls atomic.Int32
		w.channels[contracts.ChannelSMS].answer = func(context.Context, int, message.Outgoing) error {
			calls.Add(1)
			if time.Since(began) < 2*time.Minute {
				return &message.Later{Text: "The SMS provider answered 429.", After: 2*time.Minute - time.Since(began), Channel: true}
			}
			return nil
		}
		c := w.process(w.docs)
		const orders = 16
		w.during(c, 5*time.Minute, func() {
			for n := range orders {
				for _, channel := range contracts.Channels() {
					w.accept(c, shippedOf(t, "ORD-"+string(rune('A'+n)), channel))
				}
			}
			time.Sleep(time.Second)
			for n := range orders {
				for _, channel := range []string{contracts.ChannelEmail, contracts.ChannelPush} {
					w.settled("ORD-"+string(rune('A'+n))+":order_shipped:"+channel, message.Delivered, 1)
				}
			}
		})
		for n := range orders {
			if m := w.read("ORD-" + string(rune('A'+n)) + ":order_shipped:sms"); m.State != message.Delivered {
				t.Errorf("%s is %s", m.ID, m.State)
			}
		}
		// Before the first answer of the provider, each worker of the channel may have made a call.
		if got, most := int(calls.Load()), orders+w.channels[contracts.ChannelSMS].Parallel(); got > most {
			t.Errorf("%d calls for %d messages, want at most %d", got, orders, most)
		}
	})
}

// Each call that times out doubles the pause of the channel, until a call gets an answer.
func TestTimeoutsPauseTheChannel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		began := time.Now()
		var calls atomic.Int32
		w.channels[contracts.ChannelEmail].answer = func(ctx context.Context, _ int, _ message.Outgoing) error {
			calls.Add(1)
			if time.Since(began) > 10*time.Minute {
				return nil
			}
			<-ctx.Done()
			return &message.Later{Text: "The channel did not answer in time.", Stalled: true}
		}
		c := w.process(w.docs)
		w.during(c, 20*time.Minute, func() {
			for n := range 26 {
				w.accept(c, shippedOf(t, "ORD-"+string(rune('A'+n)), contracts.ChannelEmail))
			}
			w.accept(c, shipped(t, contracts.ChannelSMS))
			time.Sleep(time.Second)
			w.settled("ORD-1001:order_shipped:sms", message.Delivered, 1)
			time.Sleep(10*time.Minute - 2*time.Second)
			// Three workers, ten seconds a call, and pauses of 1, 2, 4 ... 60 seconds between them.
			if got := calls.Load(); got > 45 {
				t.Errorf("a channel that does not answer got %d calls in ten minutes", got)
			}
		})
		for n := range 26 {
			m := w.read("ORD-" + string(rune('A'+n)) + ":order_shipped:email")
			if used := m.State == message.Failed && m.Attempts == policy.Attempts; m.State != message.Delivered && !used {
				t.Errorf("%s is %s after %d attempts: %s", m.ID, m.State, m.Attempts, m.LastError)
			}
		}
	})
}

// An attempt that called nothing does not count.
func TestAnUntriedAttemptDoesNotCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.channels[contracts.ChannelPush].answer = func(_ context.Context, attempt int, _ message.Outgoing) error {
			if attempt < 10 {
				return &message.Later{Text: "The push service asked for a pause.", After: time.Minute, Untried: true}
			}
			return nil
		}
		c := w.process(w.docs)
		w.during(c, time.Hour, func() { w.accept(c, shipped(t, contracts.ChannelPush)) })
		if m := w.settled("ORD-1001:order_shipped:push", message.Delivered, 10); m.Attempts != 1 {
			t.Errorf("counted %d attempts, want 1", m.Attempts)
		}
	})
}

// readOnly is a store that refuses changes of messages permanently.
type readOnly struct {
	state.Store
	refusals atomic.Int32
}

func (s *readOnly) Replace(ctx context.Context, key string, doc any, etag state.ETag, options ...state.Option) error {
	if !strings.HasPrefix(key, "backlog:") {
		s.refusals.Add(1)
		return errors.Join(state.ErrInvalid, errors.New("the document is too large"))
	}
	return s.Store.Replace(ctx, key, doc, etag, options...)
}

// If the store refuses an outcome permanently, this process neither retries nor sends the message again.
func TestAPermanentFailureOfTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		docs := &readOnly{Store: w.docs}
		c := w.process(docs)
		m := shipped(t, contracts.ChannelEmail)
		w.during(c, time.Hour, func() { w.accept(c, m) })
		if got := docs.refusals.Load(); got == 0 || got > 2 {
			t.Errorf("the store got %d writes, want one or two", got)
		}
		if got := w.channels[m.Channel].times(m.ID); got != 1 {
			t.Errorf("sent %d times, want once", got)
		}
		// The next process delivers it.
		w.during(w.process(w.docs), time.Hour, nil)
		w.settled(m.ID, message.Delivered, 2)
	})
}
