// Package store keeps orders, each customer's index of them, and the backlog of those that have not ended, as documents in
// a state.Store. It owns the documents' keys and shapes; the rules of orders are the domain's.
package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"waybill/contracts"
	"waybill/platform/state"
	"waybill/services/orders/internal/order"
)

// Store keeps orders. It may be used by many goroutines. Errors are the domain's (not found, taken) or state's.
type Store struct {
	state       state.Store
	open        *backlog
	receivedTTL time.Duration
	// retention is how long an order is kept after it has ended; 0 is for ever.
	retention time.Duration
}

// New returns a Store on s. The writer's name is one that no other process ever had. An order that is never confirmed
// vanishes after receivedTTL.
func New(s state.Store, writer string, receivedTTL time.Duration) *Store {
	return &Store{state: s, open: newBacklog(s, writer), receivedTTL: receivedTTL}
}

// KeepFor has every order vanish some time after it was last written, once it has ended; 0 keeps it. It returns s, and is called
// before anything is read or written.
func (s *Store) KeepFor(retention time.Duration) *Store {
	s.retention = retention
	return s
}

// document is an order as it lies in the store, its history included, so that one write takes an event whole.
type document struct {
	Content     contracts.Order `json:"order"`
	Status      order.Status    `json:"status"`
	CreatedAt   time.Time       `json:"created_at"`
	ProcessedAt time.Time       `json:"processed_at,omitzero"`
	UpdatedAt   time.Time       `json:"updated_at"`
	Shipment    shipment        `json:"shipment,omitzero"`
	Failure     failure         `json:"failure,omitzero"`
	Timeline    []entry         `json:"timeline"`
}

type shipment struct {
	TrackingNumber    string    `json:"tracking_number"`
	Carrier           string    `json:"carrier"`
	EstimatedDelivery time.Time `json:"estimated_delivery,omitzero"`
}

type failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

type entry struct {
	EventID           string           `json:"event_id"`
	Type              string           `json:"type"`
	Time              time.Time        `json:"time"`
	Source            string           `json:"source"`
	Status            order.Status     `json:"status"`
	Previous          order.Status     `json:"previous_status,omitempty"`
	CausedBy          string           `json:"caused_by,omitempty"`
	Step              string           `json:"step,omitempty"`
	Outcome           string           `json:"outcome,omitempty"`
	Code              string           `json:"code,omitempty"`
	Message           string           `json:"message,omitempty"`
	Amount            contracts.Amount `json:"amount,omitempty"`
	Currency          string           `json:"currency,omitempty"`
	TransactionID     string           `json:"transaction_id,omitempty"`
	Carrier           string           `json:"carrier,omitempty"`
	TrackingNumber    string           `json:"tracking_number,omitempty"`
	EstimatedDelivery time.Time        `json:"estimated_delivery,omitzero"`
	Undone            []string         `json:"undone,omitempty"`
	NotUndone         []string         `json:"not_undone,omitempty"`
	Actor             string           `json:"actor,omitempty"`
	Reason            string           `json:"reason,omitempty"`
	ExpiresAt         time.Time        `json:"expires_at,omitzero"`
}

func toDocument(o *order.Order) document {
	s := o.Snapshot()
	d := document{
		Content: s.Content, Status: s.Status, CreatedAt: s.CreatedAt, ProcessedAt: s.ProcessedAt, UpdatedAt: s.UpdatedAt,
		Shipment: shipment(s.Shipment), Failure: failure(s.Failure), Timeline: make([]entry, len(s.Timeline)),
	}
	for i, e := range s.Timeline {
		d.Timeline[i] = entry(e)
	}
	return d
}

func (d document) order() *order.Order {
	s := order.Snapshot{
		Content: d.Content, Status: d.Status, CreatedAt: d.CreatedAt, ProcessedAt: d.ProcessedAt, UpdatedAt: d.UpdatedAt,
		Shipment: order.Shipment(d.Shipment), Failure: order.Failure(d.Failure), Timeline: make([]order.Entry, len(d.Timeline)),
	}
	for i, e := range d.Timeline {
		s.Timeline[i] = order.Entry(e)
	}
	return order.Restore(s)
}

func orderKey(id order.ID) string { return "order:" + string(id) }

// Create saves an order that was just received. The error is order.ErrTaken when there is one of that id.
func (s *Store) Create(ctx context.Context, o *order.Order) error {
	err := s.state.Create(ctx, orderKey(o.ID()), toDocument(o), state.TTL(s.receivedTTL))
	if errors.Is(err, state.ErrConflict) {
		return order.ErrTaken(o.ID())
	}
	return err
}

// Get reads an order, or answers order.ErrNotFound.
func (s *Store) Get(ctx context.Context, id order.ID) (*order.Order, error) {
	var d document
	if _, err := s.state.Get(ctx, orderKey(id), &d); err != nil {
		return nil, missing(id, err)
	}
	return d.order(), nil
}

// Update reads an order (nil when there is none), lets change alter or make it, and saves what change returns, for good or, once it
// has ended, for the retention; nil leaves the store as it is. When another writer came in between, change runs again on the newer order, so whatever
// else it does must be repeatable. From the moment on that it is received no more, an order is listed among its customer's,
// and in the backlog until it has ended.
func (s *Store) Update(ctx context.Context, id order.ID, change func(o *order.Order) (*order.Order, error)) error {
	var ttl time.Duration
	_, err := state.Update(ctx, s.state, orderKey(id), func(d *document, exists bool) error {
		var current *order.Order
		if exists {
			current = d.order()
		}
		changed, err := change(current)
		switch {
		case err != nil:
			return err
		case changed == nil:
			return state.ErrUnchanged
		}
		unlisted := !exists || d.Status == order.Received
		*d = toDocument(changed)
		if ttl = 0; d.Status.Final() {
			ttl = s.retention
		}
		if !unlisted || d.Status == order.Received {
			return nil
		}
		// Before the order is saved: afterwards nothing would show that this is still to do.
		if !d.Status.Final() {
			if exists {
				err = s.open.addStored(ctx, current)
			} else {
				err = s.open.addNew(ctx, id)
			}
			if err != nil {
				return err
			}
		}
		return s.Index(ctx, changed.CustomerID(), id)
	}, state.TTLFunc(func() time.Duration { return ttl }))
	return err
}

// Watch puts an order that is stored, and has not ended, into the backlog. It may be repeated.
func (s *Store) Watch(ctx context.Context, o *order.Order) error { return s.open.addStored(ctx, o) }

// Sweep shows visit the orders of the backlog, part by part: their ids, and those of them that are in the store. It takes
// from the backlog the ids that visit returns as done, and ends with the first error. An id may be shown again, and one
// that is missing from the store may be of an order that is just about to be saved. An order that is stored and cannot be decoded
// is not shown and stays in the backlog; Sweep returns the error once it has shown the others.
func (s *Store) Sweep(ctx context.Context, visit func(ctx context.Context, ids []order.ID, found map[order.ID]*order.Order) (done []order.ID, err error)) error {
	return s.open.ids.Sweep(ctx, func(ctx context.Context, listed []string) ([]string, error) {
		ids := make([]order.ID, len(listed))
		for i, id := range listed {
			ids[i] = order.ID(id)
		}
		slices.Sort(ids)
		ids = slices.Compact(ids)
		found, unreadable, err := s.many(ctx, ids)
		if err != nil {
			return nil, err
		}
		ids = slices.DeleteFunc(ids, func(id order.ID) bool { return unreadable[id] != nil })
		ended, err := visit(ctx, ids, found)
		if err == nil {
			err = joined(unreadable)
		}
		done := make([]string, len(ended))
		for i, id := range ended {
			done[i] = string(id)
		}
		return done, err
	})
}

func missing(id order.ID, err error) error {
	if errors.Is(err, state.ErrNotFound) {
		return order.ErrNotFound(string(id))
	}
	return err
}
