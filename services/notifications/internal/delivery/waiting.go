package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/errgroup"

	"waybill/platform/state"
	"waybill/services/notifications/internal/contact"
	"waybill/services/notifications/internal/message"
)

// A message whose customer has no address for its channel waits for one. Three documents know of it:
//
//   - the message itself: its state, and until when it waits;
//   - the customer's contact, which lists the places (documents) where messages may wait. It is written after the message and
//     read, by its ETag, as part of the same write. So either the one who has the message wait sees the new address, or
//     the one who writes the address sees the place;
//   - Expiries, an entry for each place, by which the message is given up when its time is over, or is sent when a new address
//     was missed.
//
// Whoever ends the wait adds the message to the backlog first, and then changes its state by its ETag. Of many who try, one
// succeeds, and from then on the message is a pending one like any other.

const (
	// arrivalGrace is for how long a contact that changed is looked at again, for a reader may see documents of another replica
	// a moment late.
	arrivalGrace = 30 * time.Second
	// expiryParallel is how many places are looked at at a time.
	expiryParallel = 8
	// notedMargin is how long before its time an entry of Expiries is no longer relied upon: another replica's clock may be ahead.
	notedMargin = time.Minute
	maxNoted    = 10_000
)

// expiryWidth is how exactly the end of a wait is kept, and how often Expiries is looked through: a hundredth of the wait, in
// whole seconds, as its entries have.
func (c *Courier) expiryWidth() time.Duration {
	return min(max((c.AddressWait/100).Truncate(time.Second), time.Second), 15*time.Minute)
}

// await makes sure that messages of one customer and one place which wait are found when an address comes, and when their time
// is over. It returns the messages as they then stand: released, when an address has come meanwhile.
func (c *Courier) await(ctx context.Context, ms ...message.Message) ([]message.Message, error) {
	customerID, place := ms[0].CustomerID, c.Messages.Place(ms[0].ID)
	for i := range ms {
		if err := c.noteExpiry(ctx, customerID, place, ms[i].WaitsUntil); err != nil {
			return ms, fmt.Errorf("note that it waits: %w", err)
		}
	}
	lacks, unlisted := make([]bool, len(ms)), map[string]bool{}
	known, err := c.Contacts.Update(ctx, customerID, func(known *contact.Contact) (changed bool) {
		clear(unlisted)
		for i := range ms {
			if lacks[i] = known.Lacks(ms[i].Channel); !lacks[i] {
				continue
			}
			news, listed := known.Await(place, ms[i].WaitsUntil, time.Now())
			if changed = changed || news; !listed {
				unlisted[ms[i].ID] = true
			}
		}
		return changed
	})
	if err != nil {
		return ms, fmt.Errorf("note that it waits: %w", err)
	}
	if !slices.Contains(lacks, false) && len(unlisted) == 0 {
		return ms, nil
	}
	changed, err := c.decide(ctx, customerID, place, func(other *message.Message, now time.Time) func(*message.Message) bool {
		if unlisted[other.ID] {
			return refuse(&message.Refusal{Code: message.CodeNoAddress, Text: "The customer has no address for this channel, and too many of their messages wait for one."}, now)
		}
		return verdict(&known, other, now, time.Time{})
	})
	for _, other := range changed {
		for i := range ms {
			if ms[i].ID == other.ID {
				ms[i] = other
			}
		}
	}
	return ms, err
}

func refuse(r *message.Refusal, now time.Time) func(*message.Message) bool {
	return func(m *message.Message) bool { return m.Refuse(r, now) }
}

// verdict is what happens to a message that waits, now that this is known of its customer; nil when it goes on waiting. Waits
// until the time expired are over; it is zero unless lookAtExpiries asks.
func verdict(known *contact.Contact, m *message.Message, now, expired time.Time) func(*message.Message) bool {
	refusal := known.Refusal(m.Channel)
	switch {
	case refusal == nil:
		return (*message.Message).Release
	case !known.Lacks(m.Channel):
		return refuse(refusal, now)
	case !expired.Before(m.WaitsUntil):
		return refuse(&message.Refusal{Code: refusal.Code, Text: refusal.Text + " The time that the message waits for one is over."}, now)
	default:
		return nil
	}
}

// decide ends the wait of the customer's messages at the place for which verdict says so, and returns them.
func (c *Courier) decide(ctx context.Context, customerID, place string, verdict func(m *message.Message, now time.Time) func(*message.Message) bool) ([]message.Message, error) {
	waiting := func(m *message.Message) bool { return m.State == message.Waiting && m.CustomerID == customerID }
	messages, err := c.Messages.At(ctx, place)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	ended := map[round]bool{}
	for _, m := range messages {
		if !waiting(&m) || verdict(&m, now) == nil {
			continue
		}
		if err := c.Backlog.Add(ctx, entryOf(m.ID, m.Round+1, now)); err != nil {
			return nil, err
		}
		ended[round{m.ID, m.Round}] = true
	}
	if len(ended) == 0 {
		return nil, nil
	}
	changed, err := c.Messages.UpdateAt(ctx, place, func(m *message.Message) bool {
		if !waiting(m) || !ended[round{m.ID, m.Round}] {
			return false
		}
		change := verdict(m, now)
		return change != nil && change(m)
	})
	if err != nil {
		return nil, err
	}
	for _, m := range changed {
		if m.Final() {
			c.finished(ctx, &m)
		}
		if q := c.queues[m.Channel]; q != nil {
			q.put(job{id: m.ID, due: now, message: &m})
		}
	}
	return changed, nil
}

func (c *Courier) beganToWait(ctx context.Context, m *message.Message) {
	c.waits.Add(ctx, 1, metric.WithAttributes(attribute.String("channel", m.Channel)))
	c.Logger.DebugContext(ctx, "notification waits for an address", slog.String("notification_id", m.ID), slog.String("channel", m.Channel),
		slog.Time("until", m.WaitsUntil))
}

// UpdateContact changes what is known of a customer, as Contacts.Update does, and has the messages that wait for an address
// looked at: also if this process ends right after the change.
func (c *Courier) UpdateContact(ctx context.Context, customerID string, change func(c *contact.Contact) bool) (contact.Contact, error) {
	for noted := false; ; noted = true {
		postponed := false
		known, err := c.Contacts.Update(ctx, customerID, func(known *contact.Contact) bool {
			if postponed = len(known.Waiting) > 0 && !noted; postponed {
				return false
			}
			return change(known)
		})
		if err != nil {
			return known, err
		}
		if !postponed {
			if noted {
				select {
				case c.arrived <- struct{}{}:
				default:
				}
			}
			return known, nil
		}
		if err := c.Arrivals.Add(ctx, strconv.FormatInt(time.Now().Unix(), 10)+" "+customerID); err != nil {
			return known, err
		}
	}
}

// lookForArrivals looks at the customers whose contact changed while messages waited, at once and then now and again.
func (c *Courier) lookForArrivals(ctx context.Context) {
	for ctx.Err() == nil {
		pause := sweepPause
		if err := c.Arrivals.Sweep(ctx, c.lookAtArrivals); err != nil && ctx.Err() == nil {
			c.Logger.WarnContext(ctx, "messages that wait for an address could not be looked at; will retry", slog.Any("error", err))
			pause = storePause
		}
		select {
		case <-ctx.Done():
		case <-c.arrived:
		case <-time.After(pause):
		}
	}
}

func (c *Courier) lookAtArrivals(ctx context.Context, entries []string) (done []string, err error) {
	seen := map[string]bool{}
	var failed error // of a customer whose documents cannot be read; the others are looked at all the same
	for _, e := range entries {
		at, customerID, ok := timed(e)
		if !ok {
			done = append(done, e)
			continue
		}
		// The time is taken before the documents are read.
		over := c.entries.SinceFirstSeen(e, at) >= arrivalGrace
		if !seen[customerID] {
			if err := c.lookAtCustomer(ctx, customerID); errors.Is(err, state.ErrUnreadable) {
				failed = err
				continue
			} else if err != nil {
				return done, err
			}
			seen[customerID] = true
		}
		if over {
			done = append(done, e)
		}
	}
	return done, failed
}

func (c *Courier) lookAtCustomer(ctx context.Context, customerID string) error {
	known, err := c.Contacts.Get(ctx, customerID)
	if err != nil {
		return err
	}
	var failed error // of a place that cannot be read
	for _, w := range known.Waiting {
		_, err := c.decide(ctx, customerID, w.Place, func(m *message.Message, now time.Time) func(*message.Message) bool {
			return verdict(&known, m, now, time.Time{})
		})
		switch {
		case errors.Is(err, state.ErrUnreadable):
			failed = err
		case err != nil:
			return err
		}
	}
	return failed
}

// timed reads an entry that begins with a time.
func timed(e string) (at time.Time, rest string, ok bool) {
	seconds, rest, _ := strings.Cut(e, " ")
	unix, err := strconv.ParseInt(seconds, 10, 64)
	return time.Unix(unix, 0), rest, err == nil && rest != ""
}

// noteExpiry adds an entry to Expiries, unless this process did so a moment ago: the messages of one order come together.
func (c *Courier) noteExpiry(ctx context.Context, customerID, place string, until time.Time) error {
	width := c.expiryWidth()
	due := until.Truncate(width).Add(width)
	e := strconv.FormatInt(due.Unix(), 10) + " " + customerID + " " + place
	now := time.Now()
	c.mu.Lock()
	known := now.Before(c.noted[e])
	c.mu.Unlock()
	if known {
		return nil
	}
	if err := c.Expiries.Add(ctx, e); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.noted) >= maxNoted {
		clear(c.noted)
	}
	c.noted[e] = due.Add(-notedMargin)
	return nil
}

// lookForExpiries gives up the messages whose time is over, at once and then now and again. Each look reads every entry, and
// there are about a hundred looks in the time that an entry is there, at two hundred entries a page: less than one read for each.
func (c *Courier) lookForExpiries(ctx context.Context) {
	for ctx.Err() == nil {
		pause := c.expiryWidth()
		if err := c.Expiries.Sweep(ctx, c.lookAtExpiries); err != nil && ctx.Err() == nil {
			c.Logger.WarnContext(ctx, "messages that waited for an address could not be given up; will retry", slog.Any("error", err))
			pause = storePause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (c *Courier) lookAtExpiries(ctx context.Context, entries []string) (done []string, err error) {
	looked := make([]bool, len(entries))
	var failed atomic.Pointer[error]
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(expiryParallel)
	for i, e := range entries {
		due, rest, ok := timed(e)
		customerID, place, _ := strings.Cut(rest, " ")
		if !ok || place == "" {
			looked[i] = true
			continue
		}
		// The entry comes after the end of every wait that it is for.
		if c.entries.Remaining(e, due, c.AddressWait+2*c.expiryWidth()) > 0 {
			continue
		}
		group.Go(func() error {
			known, err := c.Contacts.Get(ctx, customerID)
			if err == nil {
				_, err = c.decide(ctx, customerID, place, func(m *message.Message, now time.Time) func(*message.Message) bool {
					return verdict(&known, m, now, due)
				})
			}
			if errors.Is(err, state.ErrUnreadable) {
				failed.Store(&err) // the others are looked at all the same
				return nil
			}
			looked[i] = err == nil
			return err
		})
	}
	err = group.Wait()
	if unreadable := failed.Load(); err == nil && unreadable != nil {
		err = *unreadable
	}
	for i, e := range entries {
		if looked[i] {
			done = append(done, e)
		}
	}
	return done, err
}

// Resend has a message that has its outcome sent again, on record in the message. The same order again is no other one while
// the message is on its way, and when it was delivered.
func (c *Courier) Resend(ctx context.Context, id, actor, reason string, evenIfDelivered bool) (message.Message, error) {
	now := time.Now()
	m, err := c.Messages.Get(ctx, id)
	if err != nil {
		return m, err
	}
	next := m
	if changed, err := next.Resend(actor, reason, evenIfDelivered, now); err != nil || !changed {
		return m, err
	}
	// Before the round begins: if this process ends in between, another one finds it.
	if err := c.Backlog.Add(ctx, entryOf(id, next.Round, now)); err != nil {
		return m, fmt.Errorf("resend notification %s: %w", id, err)
	}
	var refusal error
	var changed bool
	m, err = c.Messages.Update(ctx, id, func(m *message.Message) bool {
		if m.Round >= next.Round {
			// Another order came first: it is this one, or this one comes too late.
			last := m.Resends[max(0, len(m.Resends)-1):]
			changed, refusal = false, message.ErrPending(m.State)
			if len(last) == 1 && last[0].Actor == actor && last[0].Reason == reason {
				refusal = nil
			}
			return false
		}
		changed, refusal = m.Resend(actor, reason, evenIfDelivered, now)
		return changed
	})
	if err != nil {
		return m, fmt.Errorf("resend notification %s: %w", id, err)
	}
	if refusal != nil || !changed {
		return m, refusal
	}
	c.resends.Add(ctx, 1, metric.WithAttributes(attribute.String("channel", m.Channel)))
	c.Logger.InfoContext(ctx, "notification is sent again", slog.String("notification_id", id), slog.String("channel", m.Channel), slog.Int("resends", len(m.Resends)))
	if q := c.queues[m.Channel]; q != nil {
		q.put(job{id: id, due: now, message: &m})
	}
	return m, nil
}
