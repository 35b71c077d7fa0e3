// Package deadletter keeps what a service has dead-lettered: it reads the service's own dead-letter topics into the state
// store, lists what lies there and why, and gives events back to the service's own handlers, or dismisses them, when somebody
// asks for it, on record. It knows nothing of what the events mean.
package deadletter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"waybill/platform/clock"
	"waybill/platform/eventing"
	"waybill/platform/state"
)

// Letters are the dead-lettered events of one service. They may be used by many goroutines, and by many processes of that service.
type Letters struct {
	store  state.Store
	logger *slog.Logger
	topics []string
	secret []string
	// retention is how long a closed entry is kept; 0 is for ever.
	retention time.Duration
	// leases are the redrives under way, as this process saw them.
	leases *clock.Tracker[string]
	// receiver is set by Register, before anything is served.
	receiver *eventing.Receiver
}

// New returns the letters kept in s. The values of members named secret, wherever they stand in an event, are kept and never
// shown.
func New(s state.Store, logger *slog.Logger, secret ...string) *Letters {
	return &Letters{store: s, logger: logger, secret: secret, leases: clock.NewTracker[string](time.Now)}
}

// KeepFor has every entry vanish some time after it was redriven or dismissed, unless it was opened again; 0 keeps it. It returns
// l, and is called before anything is served.
func (l *Letters) KeepFor(retention time.Duration) *Letters {
	l.retention = retention
	return l
}

// Watch returns the subscriptions together with those to their dead-letter topics, for the service's Receiver.
func (l *Letters) Watch(subscriptions ...eventing.Subscription) []eventing.Subscription {
	watched := slices.Clone(subscriptions)
	for _, s := range subscriptions {
		l.topics = append(l.topics, s.Topic)
		watched = append(watched, eventing.Subscription{
			Component: s.Component, Topic: s.DeadLetter,
			Raw: func(ctx context.Context, m eventing.Message) error { return l.keep(ctx, s.Topic, m, time.Now()) },
		})
	}
	slices.Sort(l.topics)
	return watched
}

// keep stores a message of a dead-letter topic. It fails only while the store does: what the store refuses is cut.
func (l *Letters) keep(ctx context.Context, topic string, m eventing.Message, now time.Time) error {
	fresh := newEntry(topic, m, now)
	err := l.add(ctx, fresh)
	if errors.Is(err, state.ErrInvalid) {
		fresh.cut(m.Data)
		err = l.add(ctx, fresh)
	}
	if err != nil {
		return fmt.Errorf("keep the dead letter %s of %s: %w", fresh.EventID, topic, err)
	}
	return nil
}

var (
	// errAnother says that another event lies under the entry's id.
	errAnother = errors.New("another event has this id")
	// errMoved says that the entry was closed in between.
	errMoved = errors.New("the entry was redriven or dismissed meanwhile")
)

// add stores a new entry and lists it; or notes on the entry that is there that its event was dead-lettered once more. Every part
// of it may be repeated, for the message comes again until all is done.
func (l *Letters) add(ctx context.Context, fresh entry) error {
	stored, err := l.create(ctx, fresh)
	for id, n := fresh.EventID, 1; errors.Is(err, errAnother); n++ {
		// Ids are unique for one source only. An id of another event may look like one that is made here.
		if fresh.EventID = id + "~" + fresh.Fingerprint; n > 1 {
			fresh.EventID += "~" + strconv.Itoa(n)
		}
		stored, err = l.create(ctx, fresh)
	}
	if err != nil {
		return err
	}
	key := stored.key()
	if stored.Page < 0 {
		page, err := l.list(ctx, fresh.Topic, key)
		if err != nil {
			return err
		}
		if stored, err = l.update(ctx, key, func(e *entry) error {
			if e.Page >= 0 {
				return state.ErrUnchanged
			}
			e.Page = page
			return nil
		}); err != nil {
			return err
		}
	}
	deadLettering := fresh.DeadLetterings[0]
	for !stored.knows(deadLettering) {
		opening := stored.Opening
		if stored.State != open {
			// The list is told first: it may name an entry that is not open, never the other way round.
			opening++
			if err := l.mark(ctx, stored, opening); err != nil {
				return err
			}
		}
		stored, err = l.update(ctx, key, func(e *entry) error {
			switch {
			case e.knows(deadLettering):
				return state.ErrUnchanged
			case e.State != open && e.Opening+1 != opening:
				return errMoved
			}
			e.addDeadLettering(deadLettering)
			return nil
		})
		if err != nil && !errors.Is(err, errMoved) {
			return err
		}
	}
	return nil
}

// create stores the entry unless its event is there, and returns what is there.
func (l *Letters) create(ctx context.Context, fresh entry) (entry, error) {
	return state.Update(ctx, l.store, fresh.key(), func(e *entry, exists bool) error {
		switch {
		case !exists:
			*e = fresh
			return nil
		case e.Fingerprint != fresh.Fingerprint:
			return errAnother
		default:
			return state.ErrUnchanged
		}
	})
}

var errNoEntry = errors.New("there is no such dead letter")

// update changes an entry that exists.
func (l *Letters) update(ctx context.Context, key string, change func(e *entry) error) (entry, error) {
	var ttl time.Duration
	return state.Update(ctx, l.store, key, func(e *entry, exists bool) error {
		if !exists {
			return errNoEntry
		}
		err := change(e)
		if ttl = 0; e.State != open {
			ttl = l.retention
		}
		return err
	}, state.TTLFunc(func() time.Duration { return ttl }))
}

// get reads an entry, or returns errNoEntry.
func (l *Letters) get(ctx context.Context, key string) (e entry, err error) {
	if _, err = l.store.Get(ctx, key, &e); errors.Is(err, state.ErrNotFound) {
		err = errNoEntry
	}
	return e, err
}

// printable makes text of what may be none: some stores take nothing else.
func printable(data []byte) []byte { return bytes.ToValidUTF8(data, []byte("\uFFFD")) }
