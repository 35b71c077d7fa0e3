package deadletter

import (
	"context"
	"crypto/rand"
	"log/slog"
	"slices"
	"time"

	"waybill/platform/state"
)

// dismissible refuses an entry that cannot be dismissed now.
func (q *Queue) dismissible(e *entry) error {
	if e.State == dismissed {
		return refusal{alreadyDismissed, "it was already dismissed"}
	}
	return q.busy(e)
}

// dismiss closes an entry whose event will not be processed. The entry stays on record and can still be redriven by its id. With
// an error it is not known whether the entry was closed.
func (q *Queue) dismiss(ctx context.Context, topic, eventID string, o request) (result, error) {
	key := entryKey(topic, eventID)
	r := result{EventID: eventID, Outcome: outcomeDismissed}
	a := attempt{ID: rand.Text(), Actor: o.actor, Reason: o.reason, At: time.Now().UTC(), Outcome: outcomeDismissed}
	a.EndedAt = a.At
	e, err := q.update(ctx, key, func(e *entry) error {
		r.Type = e.Type
		if slices.ContainsFunc(e.Attempts, func(known attempt) bool { return known.ID == a.ID }) {
			return state.ErrUnchanged // an earlier try of this write succeeded, but its reply was lost
		}
		if err := q.dismissible(e); err != nil {
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
	q.logger.InfoContext(ctx, "dead letter dismissed", asked)
	if e.Page >= 0 {
		if err := q.strike(ctx, topic, e.Page, key, e.Opening, dismissed); err != nil {
			q.logger.WarnContext(ctx, "list not updated; it counts a dismissed dead letter as open until the list is read", asked, slog.Any("error", err))
		}
	}
	return r, nil
}
