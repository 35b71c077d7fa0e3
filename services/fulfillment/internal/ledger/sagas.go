package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"waybill/platform/state"
)

// Sagas records which orders' sagas were started and which have ended. The workflow engine forgets finished instances
// after a while and would run one again when asked to; this record does not.
type Sagas struct {
	store state.Store
	now   func() time.Time
}

// NewSagas returns the record kept in store.
func NewSagas(store state.Store, now func() time.Time) *Sagas { return &Sagas{store: store, now: now} }

type sagaEntry struct {
	OrderID   string    `json:"order_id"`
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	Outcome   string    `json:"outcome,omitempty"`
}

// Claim records that the order's saga is to be started and reports whether this call was the first to say so, and
// whether the saga has ended. Of many claims at once exactly one is the first.
func (s *Sagas) Claim(ctx context.Context, order string) (first, ended bool, err error) {
	err = s.store.Create(ctx, sagaKey(order), sagaEntry{OrderID: order, StartedAt: s.now()})
	if err == nil {
		return true, false, nil
	}
	if !errors.Is(err, state.ErrConflict) {
		return false, false, fmt.Errorf("claim saga: %w", err)
	}
	var known sagaEntry
	if _, err := s.store.Get(ctx, sagaKey(order), &known); err != nil {
		return false, false, fmt.Errorf("read saga: %w", err)
	}
	return false, !known.EndedAt.IsZero(), nil
}

// End records the saga's outcome. The first outcome stays.
func (s *Sagas) End(ctx context.Context, order, outcome string) error {
	_, err := state.Update(ctx, s.store, sagaKey(order), func(e *sagaEntry, exists bool) error {
		if !e.EndedAt.IsZero() {
			return state.Keep
		}
		if !exists {
			e.OrderID, e.StartedAt = order, s.now()
		}
		e.EndedAt, e.Outcome = s.now(), outcome
		return nil
	})
	if err != nil {
		return fmt.Errorf("end saga: %w", err)
	}
	return nil
}
