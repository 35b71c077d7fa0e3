package deadletter

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"waybill/platform/eventing"
)

// What became of an entry that was to be redriven or dismissed, and of an attempt.
const (
	// done: the handler took the event, and the entry is closed.
	done = "redriven"
	// letGo: the entry is closed, and the event will not be processed.
	letGo = "dismissed"
	// wouldRedrive and wouldDismiss are a dry run's answers.
	wouldRedrive = "would_redrive"
	wouldDismiss = "would_dismiss"
	// failed: the handler did not take the event, and the entry stays as it was.
	failed = "failed"
	// running: somebody else redrives the entry just now.
	running = "running"
	// interrupted: the process ended during the attempt, and nobody knows how far it came.
	interrupted = "interrupted"
	alreadyDone = "already_redriven"
	alreadyGone = "already_dismissed"
	notFound    = "not_found"
	// impossible: the message is no event, or nobody takes events like it.
	impossible = "not_redrivable"
)

const (
	// attemptTimeout bounds the redrive of one entry, all its handler's attempts included.
	attemptTimeout = 130 * time.Second
	// leaseTime is longer, by what recording the outcome may take.
	leaseTime = attemptTimeout + 20*time.Second
)

// order is somebody's wish to redrive or to dismiss.
type order struct {
	actor, reason string
	dryRun        bool
}

// result is what became of one entry.
type result struct {
	EventID string `json:"event_id"`
	Type    string `json:"type,omitempty"`
	Outcome string `json:"outcome" enum:"redriven,dismissed,would_redrive,would_dismiss,failed,running,already_redriven,already_dismissed,not_found,not_redrivable"`
	Handler string `json:"handler,omitempty" doc:"The handler that takes the event, when it is redriven."`
	Error   string `json:"error,omitempty"`
}

// refusal says why nothing is done with an entry, by an outcome; it is no fault.
type refusal struct{ outcome, text string }

func (r refusal) Error() string { return r.text }

// refused is what became of an entry with which nothing was done, or the error for which that is so.
func (r result) refused(err error) (result, error) {
	var refusal refusal
	switch {
	case errors.Is(err, errNoEntry):
		r.Outcome, r.Error = notFound, "there is no such event"
	case errors.As(err, &refusal):
		r.Outcome, r.Error = refusal.outcome, refusal.text
	default:
		return r, fmt.Errorf("dead letter %s: %w", r.EventID, err)
	}
	return r, nil
}

// busy refuses an entry that is being redriven, or was.
func (l *Letters) busy(e *entry) error {
	switch {
	case e.State == redriven:
		return refusal{alreadyDone, "it was redriven before"}
	case l.leased(e):
		return refusal{running, "another redrive of it has not ended"}
	default:
		return nil
	}
}

// leased reports whether a redrive of the entry is believed to be under way. A lease that a clock ahead of this one wrote ends a
// leaseTime after this process first saw it. Where a lease ends early, two redrives may be under way: handlers are idempotent.
func (l *Letters) leased(e *entry) bool {
	return e.Lease != nil && l.leases.Remaining(e.Lease.Attempt, e.Lease.Until, leaseTime) > 0
}

// ready refuses an entry that cannot be redriven now.
func (l *Letters) ready(e *entry) error {
	switch {
	case e.State == redriven: // whatever it is
	case e.Event == nil:
		return refusal{impossible, "it is no CloudEvent, or too large to have been kept"}
	case !l.receiver.Handles(e.Topic, e.Type):
		return refusal{impossible, "this service has no handler for it"}
	}
	return l.busy(e)
}

// redrive gives the entry's event to its handler and records the outcome. Once begun it does not end with ctx: it is for the
// handler to say how it ends. An error says that it did not begin.
func (l *Letters) redrive(ctx context.Context, topic, eventID string, o order) (result, error) {
	key := entryKey(topic, eventID)
	r := result{EventID: eventID}
	if o.dryRun {
		e, err := l.get(ctx, key)
		if err == nil {
			r.Type = e.Type
			err = l.ready(&e)
		}
		if err != nil {
			return r.refused(err)
		}
		r.Outcome, r.Handler = wouldRedrive, handlerOf(e)
		return r, nil
	}
	a := attempt{ID: rand.Text(), Actor: o.actor, Reason: o.reason, At: time.Now().UTC(), Outcome: running}
	e, err := l.update(ctx, key, func(e *entry) error {
		r.Type = e.Type
		if e.Lease != nil && e.Lease.Attempt == a.ID {
			return nil // a lost reply: the lease is this attempt's
		}
		if err := l.ready(e); err != nil {
			return err
		}
		e.begin(a, a.At.Add(leaseTime))
		return nil
	})
	if err != nil {
		return r.refused(err)
	}
	r.Handler = handlerOf(e)

	lasting := context.WithoutCancel(ctx)
	attempting, cancel := context.WithTimeout(lasting, attemptTimeout)
	defer cancel()
	handlerErr := l.handle(attempting, e)
	r.Outcome = done
	if handlerErr != nil {
		r.Outcome, r.Error = failed, eventing.Reason(handlerErr)
	}
	asked := slog.Group("redrive", slog.String("topic", topic), slog.String("event_id", eventID), slog.String("actor", o.actor), slog.String("outcome", r.Outcome))
	if err := l.record(lasting, e, a, r, handlerErr); err != nil {
		l.logger.ErrorContext(ctx, "the outcome of a redrive could not be recorded", asked, slog.Any("error", err))
		r.Error = strings.TrimPrefix(r.Error+"; the outcome could not be recorded, so the event stays open as interrupted", "; ")
		return r, nil
	}
	l.logger.InfoContext(ctx, "dead letter redriven", asked)
	return r, nil
}

func handlerOf(e entry) string { return e.Topic + "/" + e.Type }

func (l *Letters) handle(ctx context.Context, e entry) error {
	var event eventing.Event
	if err := json.Unmarshal(e.Event, &event); err != nil {
		return fmt.Errorf("the event cannot be read: %w", err)
	}
	event.Key = e.Key
	return l.receiver.Redrive(ctx, e.Topic, event)
}

// record closes the entry, or notes why it stays open. A retryable failure says nothing about the event, so the reason for
// which it was dead-lettered stays.
func (l *Letters) record(ctx context.Context, begun entry, a attempt, r result, handlerErr error) error {
	key := begun.key()
	e, err := l.update(ctx, key, func(e *entry) error {
		e.finish(a.ID, time.Now().UTC(), r.Outcome, r.Error)
		switch {
		case handlerErr == nil:
			e.State = redriven
		case e.State == open && !eventing.Retryable(handlerErr):
			e.Reason = r.Error
		}
		return nil
	})
	if err != nil || handlerErr != nil {
		return err
	}
	return l.strike(ctx, e.Topic, e.Page, key, e.Opening, redriven)
}
