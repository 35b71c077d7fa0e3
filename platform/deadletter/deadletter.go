// Package deadletter is the dead-letter queue of a service: it reads the service's own dead-letter topics into the state store,
// lists the dead letters with their reasons, and redrives or dismisses them on request. It records every such request. It does not
// know what the events mean.
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

// Queue are the dead letters of one service. Many goroutines, and several replicas of the service, may use it at once.
type Queue struct {
	store  state.Store
	logger *slog.Logger
	topics []string
	secret []string
	// retention is how long an entry is kept after it was closed; 0 is for ever.
	retention time.Duration
	// leases are the running redrives, as this process saw them.
	leases *clock.Tracker[string]
	// receiver is set by Register, before the first request.
	receiver *eventing.Receiver
}

// New returns the dead letters that are stored in s. Members of events that are named in secret, at any depth, are stored but never
// shown.
func New(s state.Store, logger *slog.Logger, secret ...string) *Queue {
	return &Queue{store: s, logger: logger, secret: secret, leases: clock.NewTracker[string](time.Now)}
}

// KeepFor deletes every entry some time after it was redriven or dismissed, unless it was opened again; 0 keeps it for ever. It
// returns q, and must be called before the first request.
func (q *Queue) KeepFor(retention time.Duration) *Queue {
	q.retention = retention
	return q
}

// Watch returns the subscriptions and those to their dead-letter topics, for the service's Receiver.
func (q *Queue) Watch(subscriptions ...eventing.Subscription) []eventing.Subscription {
	watched := slices.Clone(subscriptions)
	for _, s := range subscriptions {
		q.topics = append(q.topics, s.Topic)
		watched = append(watched, eventing.Subscription{
			Component: s.Component, Topic: s.DeadLetter,
			Raw: func(ctx context.Context, m eventing.Message) error { return q.keep(ctx, s.Topic, m, time.Now()) },
		})
	}
	slices.Sort(q.topics)
	return watched
}

// keep stores a message of a dead-letter topic. It fails only while the store is unavailable: a message that the store refuses is
// cut.
func (q *Queue) keep(ctx context.Context, topic string, m eventing.Message, now time.Time) error {
	fresh := newEntry(topic, m, now)
	err := q.add(ctx, fresh)
	if errors.Is(err, state.ErrInvalid) {
		fresh.cut(m.Data)
		err = q.add(ctx, fresh)
	}
	if err != nil {
		return fmt.Errorf("keep the dead letter %s of %s: %w", fresh.EventID, topic, err)
	}
	return nil
}

var (
	// errAnother says that the entry's id is the id of another event.
	errAnother = errors.New("another event has this id")
	// errMoved says that the entry was closed meanwhile.
	errMoved = errors.New("the entry was redriven or dismissed meanwhile")
)

// add stores a new entry and lists it, or records on an existing entry that its event was dead-lettered again. Every part of it is
// idempotent, because the message is delivered again until all of it is done.
func (q *Queue) add(ctx context.Context, fresh entry) error {
	stored, err := q.create(ctx, fresh)
	for id, n := fresh.EventID, 1; errors.Is(err, errAnother); n++ {
		// Ids are unique for one source only. An id that is made here may be the id of another event.
		if fresh.EventID = id + "~" + fresh.Fingerprint; n > 1 {
			fresh.EventID += "~" + strconv.Itoa(n)
		}
		stored, err = q.create(ctx, fresh)
	}
	if err != nil {
		return err
	}
	key := stored.key()
	if stored.Page < 0 {
		page, err := q.list(ctx, fresh.Topic, key)
		if err != nil {
			return err
		}
		if stored, err = q.update(ctx, key, func(e *entry) error {
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
			// The list changes first: it may list a closed entry as open, but must not list an open one as closed.
			opening++
			if err := q.mark(ctx, stored, opening); err != nil {
				return err
			}
		}
		stored, err = q.update(ctx, key, func(e *entry) error {
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

// create stores the entry unless its event has one, and returns the stored entry.
func (q *Queue) create(ctx context.Context, fresh entry) (entry, error) {
	return state.Update(ctx, q.store, fresh.key(), func(e *entry, exists bool) error {
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
func (q *Queue) update(ctx context.Context, key string, change func(e *entry) error) (entry, error) {
	var ttl time.Duration
	return state.Update(ctx, q.store, key, func(e *entry, exists bool) error {
		if !exists {
			return errNoEntry
		}
		err := change(e)
		if ttl = 0; e.State != open {
			ttl = q.retention
		}
		return err
	}, state.TTLFunc(func() time.Duration { return ttl }))
}

// get reads an entry, or returns errNoEntry.
func (q *Queue) get(ctx context.Context, key string) (e entry, err error) {
	if _, err = q.store.Get(ctx, key, &e); errors.Is(err, state.ErrNotFound) {
		err = errNoEntry
	}
	return e, err
}

// printable is data as valid UTF-8: some stores accept nothing else.
func printable(data []byte) []byte { return bytes.ToValidUTF8(data, []byte("\uFFFD")) }
