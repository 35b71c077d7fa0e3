package eventing

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"waybill/platform/retryable"
)

// DeadLetter says why an event is on a dead-letter topic.
type DeadLetter struct {
	By     string // the service that dead-lettered it
	Reason string
	At     time.Time
	// Cut says that the event was too large for the topic: its data is only the beginning of its text, and it cannot be
	// processed.
	Cut bool
}

// cut is what remains of a dead-lettered event that its dead-letter topic refuses as it is.
func (e Event) cut() Event {
	short := func(text string) string { return strings.ToValidUTF8(text[:min(len(text), maxReason)], "") }
	reason := fmt.Sprintf("%s (the dead-letter topic refuses the whole event; only the beginning of its %d bytes of data is kept)", e.DeadLetter.Reason, len(e.Data))
	kept := Event{
		ID: e.ID, Type: short(e.Type), Source: short(e.Source), Subject: short(e.Subject), Time: e.Time, DataVersion: short(e.DataVersion), Key: e.Key,
		DeadLetter: &DeadLetter{By: e.DeadLetter.By, Reason: reason, At: e.DeadLetter.At, Cut: true}, traceParent: e.traceParent, traceState: e.traceState,
	}
	if len(kept.ID) > maxReason {
		kept.ID = UnknownID([]byte(e.ID))
	}
	kept.Data, _ = json.Marshal(strings.ToValidUTF8(string(e.Data[:min(len(e.Data), maxCutData)]), "")) //nolint:errchkjson // a string always encodes
	return kept
}

// Reason is the text of the error for which an event is dead-lettered, cut to the length that is stored.
func Reason(err error) string {
	text := err.Error()
	return strings.ToValidUTF8(text[:min(len(text), maxReason)], "")
}

// UnknownID is the id of a message that has none. The same message always gets the same id.
func UnknownID(message []byte) string { return fmt.Sprintf("parked-%x", sha256.Sum256(message)) }

// deadLetter publishes the event to its dead-letter topic, with the reason. An event that the topic refuses, because it is too
// large or because of one of its attributes, is cut.
func (r *Receiver) deadLetter(ctx context.Context, s Subscription, e Event, reason error) error {
	e.DeadLetter = &DeadLetter{By: r.app, Reason: Reason(reason), At: time.Now()}
	if e.ID == "" {
		e.ID = UnknownID(e.Data)
	}
	if e.Type == "" {
		e.Type = "unknown"
	}
	if e.Source == "" {
		e.Source = "unknown"
	}
	if r.onDeadLetter != nil {
		err := r.onDeadLetter(ctx, s.Topic, e)
		switch {
		case Retryable(err):
			return fmt.Errorf("announce the dead letter: %w", err)
		case err != nil:
			r.logger.ErrorContext(ctx, "dead letter could not be announced; dead-lettered without an announcement", eventAttrs(s, e), slog.Any("error", err))
		}
	}
	publisher := r.publisher.On(s.Component)
	err := publisher.Publish(ctx, s.DeadLetter, e)
	if retryable.IsPermanent(err) {
		r.logger.WarnContext(ctx, "dead-letter topic refused the event; only its beginning is kept", eventAttrs(s, e), slog.Any("error", err))
		err = publisher.Publish(ctx, s.DeadLetter, e.cut())
	}
	if err != nil {
		return err
	}
	r.logger.ErrorContext(ctx, "event dead-lettered; it waits to be redriven or dismissed", eventAttrs(s, e), slog.String("dead_letter", s.DeadLetter), slog.Any("reason", reason))
	return nil
}
