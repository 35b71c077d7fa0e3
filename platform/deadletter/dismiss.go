package deadletter

import (
	"context"
	"crypto/rand"
	"log/slog"
	"slices"
	"time"

	"waybill/platform/state"
)

// disposable refuses an entry that cannot be dismissed now.
func (l *Letters) disposable(e *entry) error {
	if e.State == dismissed {
		return refusal{alreadyGone, "it was dismissed before"}
	}
	return l.busy(e)
}

// dismiss closes an entry whose event is not to be processed; it stays on record, and may still be redriven by its id. An
// error says that the store could not be asked, or that its answer was lost.
func (l *Letters) dismiss(ctx context.Context, topic, eventID string, o order) (result, error) {
	key := entryKey(topic, eventID)
	r := result{EventID: eventID, Outcome: letGo}
	a := attempt{ID: rand.Text(), Actor: o.actor, Reason: o.reason, At: time.Now().UTC(), Outcome: letGo}
	a.EndedAt = a.At
	e, err := l.update(ctx, key, func(e *entry) error {
		r.Type = e.Type
		if slices.ContainsFunc(e.Attempts, func(known attempt) bool { return known.ID == a.ID }) {
			return state.ErrUnchanged // a lost reply: it was this one
		}
		if err := l.disposable(e); err != nil {
			return err
		}
		if o.dryRun {
			r.Outcome = wouldDismiss
			return state.ErrUnchanged
		}
		e.release(a.At)
		e.State, e.Attempts = dismissed, newest(append(e.Attempts, a))
		return nil
	})
	if err != nil {
		return r.refused(err)
	}
	if o.dryRun {
		return r, nil
	}
	asked := slog.Group("dismissal", slog.String("topic", topic), slog.String("event_id", eventID), slog.String("actor", o.actor), slog.String("reason", o.reason))
	l.logger.InfoContext(ctx, "dead letter dismissed", asked)
	if e.Page >= 0 {
		if err := l.strike(ctx, topic, e.Page, key, e.Opening, dismissed); err != nil {
			l.logger.WarnContext(ctx, "the list shows a dismissed dead letter as open until somebody reads it", asked, slog.Any("error", err))
		}
	}
	return r, nil
}
