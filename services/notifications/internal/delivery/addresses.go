package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"waybill/platform/reconcile"
	"waybill/platform/state"
	"waybill/services/notifications/internal/contact"
	"waybill/services/notifications/internal/message"
)

// A message waits for an address if its customer has none for its channel. Three documents record the wait:
//
//   - The message: its state, and until when it waits.
//   - The contact of the customer: the places (documents) of waiting messages. It is written after the message, with its ETag. So
//     either the writer of the wait sees a new address, or the writer of the address sees the place.
//   - An entry of Waits for each place, with which the message is given up when its time is over, or is sent if a new address was
//     missed.
//
// To end a wait, a process first adds the message to the pending set and then changes its state, with its ETag. If several processes
// try, one succeeds. From then on the message is pending like any other.

const (
	// arrivalGrace is how long a changed contact is checked again: a reader may see the documents of another replica late.
	arrivalGrace = 30 * time.Second
	// waitsConcurrency is the number of places that are checked at the same time.
	waitsConcurrency = 8
	// notedMargin is how long before its time an entry of Waits is no longer relied upon: the clock of another replica may be ahead.
	notedMargin = time.Minute
	maxNoted    = 10_000
)

// waitPrecision is how late a wait may end, and the interval at which Waits are checked: a hundredth of the wait, in whole seconds
// like the times in the entries. So an entry is read about a hundred times, in pages of 200: less than one read per entry.
func (c *Courier) waitPrecision() time.Duration {
	return min(max((c.AddressWait/100).Truncate(time.Second), time.Second), 15*time.Minute)
}

// deliverWaiting makes sure that a message waits for an address. If its wait is over already, it is delivered at once.
func (c *Courier) deliverWaiting(ctx context.Context, j *job, m *message.Message) (reconcile.Result, error) {
	waiting := []message.Message{*m}
	if err := c.awaitAddress(ctx, waiting); err != nil {
		return reconcile.Result{}, err
	}
	if waiting[0].State == message.Waiting {
		c.settle(m)
		return done, nil
	}
	j.message = &waiting[0]
	return after(0), nil
}

// awaitAddress makes sure that waiting messages of one customer and one place are found when an address arrives, and when their time
// is over. It replaces messages whose wait has ended meanwhile.
func (c *Courier) awaitAddress(ctx context.Context, ms []message.Message) error {
	if len(ms) == 0 {
		return nil
	}
	customerID, place := ms[0].CustomerID, c.Messages.Place(ms[0].ID)
	for i := range ms {
		if err := c.noteWait(ctx, customerID, place, ms[i].WaitsUntil); err != nil {
			return fmt.Errorf("note the wait for an address: %w", err)
		}
	}
	lacks, unlisted := make([]bool, len(ms)), map[string]bool{}
	known, err := c.Contacts.Update(ctx, customerID, func(known *contact.Contact) (changed bool) {
		clear(unlisted)
		for i := range ms {
			if lacks[i] = known.Lacks(ms[i].Channel); !lacks[i] {
				continue
			}
			added, listed := known.Await(place, ms[i].WaitsUntil, time.Now())
			if changed = changed || added; !listed {
				unlisted[ms[i].ID] = true
			}
		}
		return changed
	})
	if err != nil {
		return fmt.Errorf("note the wait for an address: %w", err)
	}
	if !slices.Contains(lacks, false) && len(unlisted) == 0 {
		return nil
	}
	ended, err := c.endWaits(ctx, customerID, place, func(m *message.Message, now time.Time) change {
		if unlisted[m.ID] {
			return refusal(&message.Refusal{Code: message.CodeNoAddress, Text: "The customer has no address for this channel, and too many of their messages wait for one."}, now)
		}
		return endOfWait(&known, m, now, time.Time{})
	})
	for _, m := range ended {
		for i := range ms {
			if ms[i].ID == m.ID {
				ms[i] = m
			}
		}
	}
	return err
}

// change changes a message and reports a change.
type change func(m *message.Message) bool

func refusal(r *message.Refusal, now time.Time) change {
	return func(m *message.Message) bool { return m.Refuse(r, now) }
}

// endOfWait returns how the wait of a message ends with this contact, or nil if it continues. Waits until the time expired are over;
// it is zero if only the contact is checked.
func endOfWait(known *contact.Contact, m *message.Message, now, expired time.Time) change {
	r := known.Refusal(m.Channel)
	switch {
	case r == nil:
		return (*message.Message).Release
	case !known.Lacks(m.Channel):
		return refusal(r, now)
	case !expired.Before(m.WaitsUntil):
		return refusal(&message.Refusal{Code: r.Code, Text: r.Text + " The message waited for one until its time was over."}, now)
	default:
		return nil
	}
}

// endWaits ends the waits of the customer's messages at the place for which end returns a change. It returns the changed messages.
func (c *Courier) endWaits(ctx context.Context, customerID, place string, end func(m *message.Message, now time.Time) change) ([]message.Message, error) {
	messages, err := c.Messages.At(ctx, place)
	if err != nil {
		return nil, err
	}
	waits := func(m *message.Message) bool { return m.State == message.Waiting && m.CustomerID == customerID }
	now, ending := time.Now(), map[round]bool{}
	for _, m := range messages {
		if !waits(&m) || end(&m, now) == nil {
			continue
		}
		if err := c.Pending.Add(ctx, entryOf(m.ID, m.Round+1, now)); err != nil {
			return nil, err
		}
		ending[round{m.ID, m.Round}] = true
	}
	if len(ending) == 0 {
		return nil, nil
	}
	changed, err := c.Messages.UpdateAt(ctx, place, func(m *message.Message) bool {
		if !waits(m) || !ending[round{m.ID, m.Round}] {
			return false
		}
		apply := end(m, now)
		return apply != nil && apply(m)
	})
	if err != nil {
		return nil, err
	}
	for _, m := range changed {
		c.count(ctx, &m)
		c.putNow(&m)
	}
	return changed, nil
}

// putNow puts a message into the queue of its channel, if this version knows the channel.
func (c *Courier) putNow(m *message.Message) {
	if q := c.queues[m.Channel]; q != nil {
		q.put(job{id: m.ID, due: time.Now(), message: m})
	}
}

// UpdateContact changes a contact as Contacts.Update does, and makes sure that messages which wait for an address are checked, also if
// this process ends right after the change.
func (c *Courier) UpdateContact(ctx context.Context, customerID string, change func(c *contact.Contact) bool) (contact.Contact, error) {
	arrival := ""
	for {
		postponed := false
		known, err := c.Contacts.Update(ctx, customerID, func(known *contact.Contact) bool {
			if postponed = len(known.Waiting) > 0 && arrival == ""; postponed {
				return false // the arrival must be pending before the contact changes
			}
			return change(known)
		})
		if err != nil {
			return known, err
		}
		if !postponed {
			if arrival != "" {
				c.arrivals.Trigger(arrival)
			}
			return known, nil
		}
		arrival = timed(time.Now(), customerID)
		if err := c.Arrivals.Add(ctx, arrival); err != nil {
			return known, err
		}
	}
}

// arrivalsPass has the customers that were checked for the entries of a page.
type arrivalsPass struct{ checked map[string]bool }

// prefetchArrivals begins a page. A customer with several entries in it is checked once.
func (c *Courier) prefetchArrivals(context.Context, []string) (map[string]reconcile.Record, error) {
	c.arrivalsPass = arrivalsPass{map[string]bool{}}
	return nil, nil
}

// reconcileArrival checks the messages that wait for an address of the customer of the entry. The entry is done after the grace
// period.
func (c *Courier) reconcileArrival(ctx context.Context, entry string) (reconcile.Result, error) {
	at, customerID, ok := parseTimed(entry)
	if !ok {
		return done, nil
	}
	over := c.entries.SinceFirstSeen(entry, at) >= arrivalGrace // before the documents are read
	if checked := c.arrivalsPass.checked; !checked[customerID] {
		if err := c.checkCustomer(ctx, customerID); err != nil {
			return reconcile.Result{}, err
		}
		checked[customerID] = true
	}
	if over {
		return done, nil
	}
	return after(0), nil
}

// checkCustomer ends the waits of the customer's messages that the contact allows to end.
func (c *Courier) checkCustomer(ctx context.Context, customerID string) error {
	known, err := c.Contacts.Get(ctx, customerID)
	if err != nil {
		return err
	}
	var unreadable error // the other places are checked all the same
	for _, w := range known.Waiting {
		_, err := c.endWaits(ctx, customerID, w.Place, func(m *message.Message, now time.Time) change {
			return endOfWait(&known, m, now, time.Time{})
		})
		switch {
		case errors.Is(err, state.ErrUnreadable):
			unreadable = err
		case err != nil:
			return err
		}
	}
	return unreadable
}

// noteWait adds an entry to Waits, unless this process did so a moment ago: the messages of one order are requested together.
func (c *Courier) noteWait(ctx context.Context, customerID, place string, until time.Time) error {
	precision := c.waitPrecision()
	due := until.Truncate(precision).Add(precision)
	entry := timed(due, customerID+" "+place)
	now := time.Now()
	c.mu.Lock()
	exists := now.Before(c.noted[entry])
	c.mu.Unlock()
	if exists {
		return nil
	}
	if err := c.Waits.Add(ctx, entry); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.noted) >= maxNoted {
		clear(c.noted)
	}
	c.noted[entry] = due.Add(-notedMargin)
	return nil
}

// reconcileWait ends the waits at the place of the entry when their time is over. The time of the entry is after the end of every wait
// that it is for.
func (c *Courier) reconcileWait(ctx context.Context, entry string) (reconcile.Result, error) {
	due, rest, ok := parseTimed(entry)
	customerID, place, _ := strings.Cut(rest, " ")
	if !ok || place == "" {
		return done, nil
	}
	if left := c.entries.Remaining(entry, due, c.AddressWait+2*c.waitPrecision()); left > 0 {
		return after(left), nil
	}
	known, err := c.Contacts.Get(ctx, customerID)
	if err != nil {
		return reconcile.Result{}, err
	}
	if _, err := c.endWaits(ctx, customerID, place, func(m *message.Message, now time.Time) change {
		return endOfWait(&known, m, now, due)
	}); err != nil {
		return reconcile.Result{}, err
	}
	return done, nil
}

// timed returns an entry that begins with a time.
func timed(at time.Time, rest string) string { return strconv.FormatInt(at.Unix(), 10) + " " + rest }

func parseTimed(entry string) (at time.Time, rest string, ok bool) {
	seconds, rest, _ := strings.Cut(entry, " ")
	unix, err := strconv.ParseInt(seconds, 10, 64)
	return time.Unix(unix, 0), rest, err == nil && rest != ""
}
