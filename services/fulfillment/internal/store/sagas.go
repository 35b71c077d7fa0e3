package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"waybill/contracts"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/record"
)

// Sagas keeps the journal: an entry for every order whose saga was asked for, and lists of those that are not known to have
// ended and of those that asked for an approval.
type Sagas struct {
	store     state.Store
	open      *state.Backlog
	approvals *state.Backlog
	now       func() time.Time
	// retention is how long an entry is kept after its saga has ended; 0 is for ever.
	retention time.Duration
}

// NewSagas returns the journal kept in store. The writer's name must be one that no other process ever had.
func NewSagas(store state.Store, writer string, now func() time.Time) *Sagas {
	return &Sagas{
		store: store, now: now,
		open: state.NewBacklog(store, "sagas", writer), approvals: state.NewBacklog(store, "approvals", writer),
	}
}

// KeepFor has every entry vanish some time after its saga has ended and it was last written; 0 keeps it. Once it has vanished,
// nothing shows that the saga ever ran: an event that starts it must not come again after that. It returns s, and is called before
// anything is read or written.
func (s *Sagas) KeepFor(retention time.Duration) *Sagas {
	s.retention = retention
	return s
}

// Begin records that the order's saga is to run, and reports whether this call was the first to say so. Of many at once
// exactly one is. The entry is on the list of open sagas when Begin returns.
func (s *Sagas) Begin(ctx context.Context, order contracts.Order) (entry record.Saga, first bool, err error) {
	entry.Begin(order, s.now())
	group, both := errgroup.WithContext(ctx)
	group.Go(func() error { return s.open.Add(both, order.OrderID) })
	var conflict bool
	group.Go(func() error {
		err := s.store.Create(both, sagaKey(order.OrderID), entry)
		if conflict = errors.Is(err, state.ErrConflict); conflict {
			return nil
		}
		return err
	})
	if err := group.Wait(); err != nil {
		return entry, false, fmt.Errorf("begin saga: %w", err)
	}
	if !conflict {
		return entry, true, nil
	}
	entry, err = state.Update(ctx, s.store, sagaKey(order.OrderID), func(e *record.Saga, _ bool) error {
		if first = e.Begin(order, s.now()); !first {
			return state.ErrUnchanged
		}
		return nil
	})
	if err != nil {
		return entry, false, fmt.Errorf("begin saga: %w", err)
	}
	return entry, first, nil
}

// Get reads an order's entry; a *record.Error says that there is none.
func (s *Sagas) Get(ctx context.Context, orderID string) (record.Saga, error) {
	e, _, err := s.Read(ctx, orderID)
	return e, err
}

// Read is Get, with a Change of the entry that begins with what was read instead of reading it once more.
func (s *Sagas) Read(ctx context.Context, orderID string) (e record.Saga, change record.Change, err error) {
	etag, err := s.store.Get(ctx, sagaKey(orderID), &e)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return e, nil, record.ErrUnknown(orderID)
	case err != nil:
		return e, nil, fmt.Errorf("read saga: %w", err)
	}
	known := state.Known[record.Saga]{Doc: e, ETag: etag}
	return e, func(change func(e *record.Saga) (bool, error)) (record.Saga, error) {
		return s.change(orderID, change, func(update func(*record.Saga, bool) error, options ...state.Option) (record.Saga, error) {
			return state.UpdateKnown(ctx, s.store, sagaKey(orderID), known, update, options...)
		})
	}, nil
}

// Change lets change alter an order's entry, which may be new, and keeps what it then is when change says so. It may run
// several times. Errors of change are returned as they are.
func (s *Sagas) Change(ctx context.Context, orderID string, change func(e *record.Saga) (bool, error)) (record.Saga, error) {
	return s.change(orderID, change, func(update func(*record.Saga, bool) error, options ...state.Option) (record.Saga, error) {
		return state.Update(ctx, s.store, sagaKey(orderID), update, options...)
	})
}

func (s *Sagas) change(orderID string, change func(e *record.Saga) (bool, error),
	update func(func(*record.Saga, bool) error, ...state.Option) (record.Saga, error),
) (record.Saga, error) {
	var ttl time.Duration
	e, err := update(func(e *record.Saga, _ bool) error {
		e.Order.OrderID = orderID
		changed, err := change(e)
		if err == nil && !changed {
			err = state.ErrUnchanged
		}
		if ttl = 0; e.Ended() {
			ttl = s.retention
		}
		return err
	}, state.TTLFunc(func() time.Duration { return ttl }))
	if err != nil {
		if _, refused := errors.AsType[*record.Error](err); refused {
			return e, err
		}
		return e, fmt.Errorf("change saga: %w", err)
	}
	return e, nil
}

// ListApproval puts an order on the list of those that asked for an approval.
func (s *Sagas) ListApproval(ctx context.Context, orderID string) error {
	if err := s.approvals.Add(ctx, orderID); err != nil {
		return fmt.Errorf("list approval: %w", err)
	}
	return nil
}

// Open shows visit the sagas that are not known to have ended, in batches, and forgets those whose order ids it returns. An
// entry that cannot be decoded is not shown and stays on the list; the error, record.ErrUnreadable's, comes after the others were shown.
func (s *Sagas) Open(ctx context.Context, visit func(context.Context, []record.Saga) (forget []string, err error)) error {
	return s.each(ctx, s.open, false, visit)
}

// Approvals shows visit the sagas that asked for an approval, in batches, and forgets those whose order ids it returns, and those
// whose entries have vanished.
func (s *Sagas) Approvals(ctx context.Context, visit func(context.Context, []record.Saga) (forget []string, err error)) error {
	return s.each(ctx, s.approvals, true, visit)
}

// maxBatch bounds one read: an answer of the sidecar is limited to 4 MiB.
const maxBatch = 25

// each shows visit the entries on a list. One that is listed and missing is not written yet or, with written, vanished after its
// retention.
func (s *Sagas) each(ctx context.Context, backlog *state.Backlog, written bool, visit func(context.Context, []record.Saga) ([]string, error)) error {
	err := backlog.Sweep(ctx, func(ctx context.Context, ids []string) (forget []string, err error) {
		var unreadable []error // the others are visited first
		for batch := range slices.Chunk(ids, maxBatch) {
			keys := make([]string, len(batch))
			for i, id := range batch {
				keys[i] = sagaKey(id)
			}
			docs, err := s.store.GetMany(ctx, keys)
			if err != nil {
				return nil, fmt.Errorf("read sagas: %w", err)
			}
			entries := make([]record.Saga, 0, len(batch))
			for i, key := range keys {
				doc, there := docs[key]
				if !there {
					if written {
						forget = append(forget, batch[i])
					}
					continue
				}
				var e record.Saga
				if err := state.Decode(key, doc, &e); err != nil {
					unreadable = append(unreadable, err)
					continue
				}
				entries = append(entries, e)
			}
			done, err := visit(ctx, entries)
			if err != nil {
				return nil, err
			}
			forget = append(forget, done...)
		}
		return forget, errors.Join(unreadable...)
	})
	if errors.Is(err, state.ErrUnreadable) {
		return fmt.Errorf("%w: %w", record.ErrUnreadable, err)
	}
	return err
}
