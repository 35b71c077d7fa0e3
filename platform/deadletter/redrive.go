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

// Outcomes of a request for an entry, and of an attempt. They are stored and part of the API.
const (
	// outcomeRedriven: the handler processed the event, and the entry is closed.
	outcomeRedriven = "redriven"
	// outcomeDismissed: the entry is closed, and the event will not be processed.
	outcomeDismissed = "dismissed"
	// wouldRedrive and wouldDismiss are the outcomes of a dry run.
	wouldRedrive = "would_redrive"
	wouldDismiss = "would_dismiss"
	// failed: the handler did not process the event, and the entry stays as it was.
	failed = "failed"
	// running: another request redrives the entry now.
	running = "running"
	// interrupted: the process ended during the attempt, so its outcome is unknown.
	interrupted      = "interrupted"
	alreadyRedriven  = "already_redriven"
	alreadyDismissed = "already_dismissed"
	notFound         = "not_found"
	// notRedrivable: the message is not a CloudEvent, or the service has no handler for it.
	notRedrivable = "not_redrivable"
)

const (
	// attemptTimeout bounds the redrive of one entry, including all attempts of its handler.
	attemptTimeout = 130 * time.Second
	// leaseTime is longer by the time that recording the outcome may take.
	leaseTime = attemptTimeout + 20*time.Second
)

// request says who asks to redrive or dismiss entries, and why.
type request struct {
	actor, reason string
	dryRun        bool
}

// result is the outcome of a request for one entry.
type result struct {
	EventID string `json:"event_id"`
	Type    string `json:"type,omitempty"`
	Outcome string `json:"outcome" enum:"redriven,dismissed,would_redrive,would_dismiss,failed,running,already_redriven,already_dismissed,not_found,not_redrivable"`
	Handler string `json:"handler,omitempty" doc:"The handler that processes the event when it is redriven."`
	Error   string `json:"error,omitempty"`
}

// refusal is the outcome of a request that does nothing with an entry. It is not a fault.
type refusal struct{ outcome, text string }

func (r refusal) Error() string { return r.text }

// refused is the result of a request that did nothing with its entry because of err: a refusal, or a fault.
func (r result) refused(err error) (result, error) {
	var refusal refusal
	switch {
	case errors.Is(err, errNoEntry):
		r.Outcome, r.Error = notFound, "there is no dead letter with this id"
	case errors.As(err, &refusal):
		r.Outcome, r.Error = refusal.outcome, refusal.text
	default:
		return r, fmt.Errorf("dead letter %s: %w", r.EventID, err)
	}
	return r, nil
}

// busy refuses an entry that is being redriven, or was redriven.
func (q *Queue) busy(e *entry) error {
	switch {
	case e.State == redriven:
		return refusal{alreadyRedriven, "it was already redriven"}
	case q.leased(e):
		return refusal{running, "another redrive of it is running"}
	default:
		return nil
	}
}

// leased reports whether a redrive of the entry may still be running. A lease from a process whose clock is ahead ends a leaseTime
// after this process first saw it. If a lease ends early, two redrives may run at once: handlers are idempotent.
func (q *Queue) leased(e *entry) bool {
	return e.Lease != nil && q.leases.Remaining(e.Lease.Attempt, e.Lease.Until, leaseTime) > 0
}

// ready refuses an entry that cannot be redriven now.
func (q *Queue) ready(e *entry) error {
	switch {
	case e.State == redriven: // busy refuses it
	case e.Event == nil:
		return refusal{notRedrivable, "it is not a CloudEvent, or was too large to store"}
	case !q.receiver.Handles(e.Topic, e.Type):
		return refusal{notRedrivable, "this service has no handler for it"}
	}
	return q.busy(e)
}

// redrive calls the handler of the entry's event and records the outcome. Once begun it does not end with ctx, so that the outcome
// is always the handler's. An error says that it did not begin.
func (q *Queue) redrive(ctx context.Context, topic, eventID string, o request) (result, error) {
	key := entryKey(topic, eventID)
	r := result{EventID: eventID}
	if o.dryRun {
		e, err := q.get(ctx, key)
		if err == nil {
			r.Type = e.Type
			err = q.ready(&e)
		}
		if err != nil {
			return r.refused(err)
		}
		r.Outcome, r.Handler = wouldRedrive, handlerOf(e)
		return r, nil
	}
	a := attempt{ID: rand.Text(), Actor: o.actor, Reason: o.reason, At: time.Now().UTC(), Outcome: running}
	e, err := q.update(ctx, key, func(e *entry) error {
		r.Type = e.Type
		if e.Lease != nil && e.Lease.Attempt == a.ID {
			return nil // an earlier try of this write succeeded, but its reply was lost
		}
		if err := q.ready(e); err != nil {
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
	handlerErr := q.handle(attempting, e)
	r.Outcome = outcomeRedriven
	if handlerErr != nil {
		r.Outcome, r.Error = failed, eventing.Reason(handlerErr)
	}
	asked := slog.Group("redrive", slog.String("topic", topic), slog.String("event_id", eventID), slog.String("actor", o.actor), slog.String("outcome", r.Outcome))
	if err := q.record(lasting, e, a, r, handlerErr); err != nil {
		q.logger.ErrorContext(ctx, "outcome of a redrive could not be recorded; the dead letter stays open as interrupted", asked, slog.Any("error", err))
		r.Error = strings.TrimPrefix(r.Error+"; the outcome could not be recorded, so the event stays open as interrupted", "; ")
		return r, nil
	}
	q.logger.InfoContext(ctx, "dead letter redriven", asked)
	return r, nil
}

func handlerOf(e entry) string { return e.Topic + "/" + e.Type }

func (q *Queue) handle(ctx context.Context, e entry) error {
	var event eventing.Event
	if err := json.Unmarshal(e.Event, &event); err != nil {
		return fmt.Errorf("the event cannot be decoded: %w", err)
	}
	event.Key = e.Key
	return q.receiver.Redrive(ctx, e.Topic, event)
}

// record closes the entry, or records why it stays open. A retryable error says nothing about the event, so then the reason of its
// dead-lettering stays.
func (q *Queue) record(ctx context.Context, begun entry, a attempt, r result, handlerErr error) error {
	key := begun.key()
	e, err := q.update(ctx, key, func(e *entry) error {
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
	return q.strike(ctx, e.Topic, e.Page, key, e.Opening, redriven)
}
