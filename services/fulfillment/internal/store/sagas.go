package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"waybill/contracts"
	"waybill/platform/reconcile"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/record"
)

// Sagas stores saga records, and the ids of two pending sets: sagas that may not have ended, and sagas that requested an approval.
type Sagas struct {
	store     state.Store
	open      *reconcile.Pending
	approvals *reconcile.Pending
	now       func() time.Time
	// retention is how long a record is kept after its saga has ended; 0 is for ever.
	retention time.Duration
}

// NewSagas returns the saga records in store. No other process may ever have had the same writer name.
func NewSagas(store state.Store, writer string, now func() time.Time) *Sagas {
	return &Sagas{
		store: store, now: now,
		open: reconcile.NewPending(store, "sagas", writer), approvals: reconcile.NewPending(store, "approvals", writer),
	}
}

// KeepFor makes every record expire some time after its saga has ended and it was last written; with 0 it never expires. After it has
// expired, nothing shows that the saga ever ran: the event that starts the saga must not arrive again after that. KeepFor returns s;
// call it before any other method.
func (s *Sagas) KeepFor(retention time.Duration) *Sagas {
	s.retention = retention
	return s
}

// Begin records that the order's saga starts, and reports whether this call was the first. Of many concurrent calls exactly one is. When
// Begin returns, the id is in the pending set.
func (s *Sagas) Begin(ctx context.Context, order contracts.Order) (saga record.Saga, first bool, err error) {
	saga.Begin(order, s.now())
	group, both := errgroup.WithContext(ctx)
	group.Go(func() error { return s.open.Add(both, order.OrderID) })
	var exists bool
	group.Go(func() error {
		err := s.store.Create(both, sagaKey(order.OrderID), saga)
		if exists = errors.Is(err, state.ErrConflict); exists {
			return nil
		}
		return err
	})
	if err := group.Wait(); err != nil {
		return saga, false, fmt.Errorf("begin saga: %w", err)
	}
	if !exists {
		return saga, true, nil
	}
	saga, err = state.Update(ctx, s.store, sagaKey(order.OrderID), func(saga *record.Saga, _ bool) error {
		if first = saga.Begin(order, s.now()); !first {
			return state.ErrUnchanged
		}
		return nil
	})
	if err != nil {
		return saga, false, fmt.Errorf("begin saga: %w", err)
	}
	return saga, first, nil
}

// Get reads the record of an order's saga. The error is a *record.Error if there is none.
func (s *Sagas) Get(ctx context.Context, orderID string) (record.Saga, error) {
	saga, _, err := s.Read(ctx, orderID)
	return saga, err
}

// Read is Get, and also returns a function that changes the record without reading it again.
func (s *Sagas) Read(ctx context.Context, orderID string) (saga record.Saga, change record.Change, err error) {
	etag, err := s.store.Get(ctx, sagaKey(orderID), &saga)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return saga, nil, record.ErrUnknown(orderID)
	case err != nil:
		return saga, nil, fmt.Errorf("read saga: %w", err)
	}
	known := state.Known[record.Saga]{Doc: saga, ETag: etag}
	return saga, func(change func(*record.Saga) (bool, error)) (record.Saga, error) {
		return s.change(orderID, change, func(update func(*record.Saga, bool) error, options ...state.Option) (record.Saga, error) {
			return state.UpdateKnown(ctx, s.store, sagaKey(orderID), known, update, options...)
		})
	}, nil
}

// Change calls change with the order's record, which may be new, and writes it if change returns true. It may call change several
// times. It returns the record as it is stored then, and errors of change as they are.
func (s *Sagas) Change(ctx context.Context, orderID string, change func(*record.Saga) (bool, error)) (record.Saga, error) {
	return s.change(orderID, change, func(update func(*record.Saga, bool) error, options ...state.Option) (record.Saga, error) {
		return state.Update(ctx, s.store, sagaKey(orderID), update, options...)
	})
}

func (s *Sagas) change(orderID string, change func(*record.Saga) (bool, error),
	update func(func(*record.Saga, bool) error, ...state.Option) (record.Saga, error),
) (record.Saga, error) {
	var ttl time.Duration
	saga, err := update(func(saga *record.Saga, _ bool) error {
		saga.Order.OrderID = orderID
		changed, err := change(saga)
		if err == nil && !changed {
			err = state.ErrUnchanged
		}
		if ttl = 0; saga.Ended() {
			ttl = s.retention
		}
		return err
	}, state.TTLFunc(func() time.Duration { return ttl }))
	if err != nil {
		if _, refused := errors.AsType[*record.Error](err); refused {
			return saga, err
		}
		return saga, fmt.Errorf("change saga: %w", err)
	}
	return saga, nil
}

// ListApproval adds the order to the list of sagas that requested an approval.
func (s *Sagas) ListApproval(ctx context.Context, orderID string) error {
	if err := s.approvals.Add(ctx, orderID); err != nil {
		return fmt.Errorf("list approval: %w", err)
	}
	return nil
}

// PendingSagas is the pending set of the sagas that may not have ended.
func (s *Sagas) PendingSagas() reconcile.Set { return s.open }

// PendingApprovals is the pending set of the sagas that requested an approval.
func (s *Sagas) PendingApprovals() reconcile.Set { return s.approvals }

// Open calls visit with the sagas that may not have ended, in batches. A record that cannot be decoded is left out; after all others,
// Open then returns an error that is record.ErrUnreadable.
func (s *Sagas) Open(ctx context.Context, visit func([]record.Saga) error) error {
	return s.each(ctx, s.open, visit)
}

// Approvals is Open for the sagas that requested an approval.
func (s *Sagas) Approvals(ctx context.Context, visit func([]record.Saga) error) error {
	return s.each(ctx, s.approvals, visit)
}

// MaxBatch is the largest number of ids for GetMany: an answer of the sidecar is limited to 4 MiB.
const MaxBatch = 25

// GetMany reads the records of at most MaxBatch orders. A record that does not exist is in neither map; one that cannot be decoded is in
// unreadable, with an error that is record.ErrUnreadable.
func (s *Sagas) GetMany(ctx context.Context, orderIDs []string) (sagas map[string]record.Saga, unreadable map[string]error, err error) {
	keys := make([]string, len(orderIDs))
	for i, id := range orderIDs {
		keys[i] = sagaKey(id)
	}
	docs, err := s.store.GetMany(ctx, keys)
	if err != nil {
		return nil, nil, fmt.Errorf("read sagas: %w", err)
	}
	sagas, unreadable = map[string]record.Saga{}, map[string]error{}
	for i, key := range keys {
		doc, exists := docs[key]
		if !exists {
			continue
		}
		var saga record.Saga
		if err := state.Decode(key, doc, &saga); err != nil {
			unreadable[orderIDs[i]] = fmt.Errorf("%w: %w", record.ErrUnreadable, err)
			continue
		}
		sagas[orderIDs[i]] = saga
	}
	return sagas, unreadable, nil
}

// each calls visit with the records of a pending set, and removes nothing from it.
func (s *Sagas) each(ctx context.Context, pending *reconcile.Pending, visit func([]record.Saga) error) error {
	var unreadable []error // the others are visited first
	err := pending.Visit(ctx, func(ctx context.Context, ids []string) (done []string, err error) {
		for batch := range slices.Chunk(ids, MaxBatch) {
			found, faults, err := s.GetMany(ctx, batch)
			if err != nil {
				return nil, err
			}
			sagas := make([]record.Saga, 0, len(found))
			for _, id := range batch {
				if saga, exists := found[id]; exists {
					sagas = append(sagas, saga)
				}
			}
			unreadable = slices.AppendSeq(unreadable, maps.Values(faults))
			if err := visit(sagas); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
	if err == nil {
		err = errors.Join(unreadable...)
	}
	return err
}
