// Package store keeps orders, an index of them for each customer, and the pending set of those that have not ended, as
// documents in a state.Store. It owns the keys and the form of the documents, and knows no rules of orders.
package store

import (
	"context"
	"errors"
	"time"

	"waybill/contracts"
	"waybill/platform/reconcile"
	"waybill/platform/state"
	"waybill/services/orders/internal/order"
)

// Store keeps orders. Many goroutines may use it. Its errors are the domain's (not found, taken) or package state's.
type Store struct {
	state       state.Store
	pending     *pending
	receivedTTL time.Duration
	// retention is how long an order is kept after its end; 0 means for ever.
	retention time.Duration
}

// New returns a Store on s. No other process may ever have had the writer name. An order that is never confirmed expires after
// receivedTTL.
func New(s state.Store, writer string, receivedTTL time.Duration) *Store {
	return &Store{state: s, pending: newPending(s, writer), receivedTTL: receivedTTL}
}

// KeepFor makes every order that has ended expire after the retention, counted from its last write; 0 keeps orders for ever. It
// returns s. Call it before any other method.
func (s *Store) KeepFor(retention time.Duration) *Store {
	s.retention = retention
	return s
}

// document is a stored order with its timeline, so one write saves an event and its effect.
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

// Create saves an order that was just received. The error is order.ErrTaken if the id is taken.
func (s *Store) Create(ctx context.Context, o *order.Order) error {
	err := s.state.Create(ctx, orderKey(o.ID()), toDocument(o), state.TTL(s.receivedTTL))
	if errors.Is(err, state.ErrConflict) {
		return order.ErrTaken(o.ID())
	}
	return err
}

// Get reads an order. The error is order.ErrNotFound if it does not exist.
func (s *Store) Get(ctx context.Context, id order.ID) (*order.Order, error) {
	var d document
	if _, err := s.state.Get(ctx, orderKey(id), &d); err != nil {
		return nil, missing(id, err)
	}
	return d.order(), nil
}

// Update reads an order, gives it to change (nil if it does not exist), and saves what change returns; it saves nothing if change
// returns nil. After a conflict it calls change again with the newer order, so change must have no other effects than
// repeatable ones. The saved order stays for ever or, if it has ended, for the retention. Before the save that confirms an
// order, Update adds it to its customer's index and, unless it has ended, to the pending set.
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
		// Before the save: if the process died after it, nothing would show that this is still to do.
		if !d.Status.Final() {
			if exists {
				err = s.pending.addStored(ctx, current)
			} else {
				err = s.pending.addNew(ctx, id)
			}
			if err != nil {
				return err
			}
		}
		return s.Index(ctx, changed.CustomerID(), id)
	}, state.TTLFunc(func() time.Duration { return ttl }))
	return err
}

// AddPending adds a stored order that has not ended to the pending set. It may be called again.
func (s *Store) AddPending(ctx context.Context, o *order.Order) error {
	return s.pending.addStored(ctx, o)
}

// Pending is the set of the orders that are not known to have ended. It may hold an order that has ended, and one that is about to
// be saved.
func (s *Store) Pending() reconcile.Set { return s.pending }

// errEnough ends a Visit.
var errEnough = errors.New("enough")

// Open returns orders that have not ended, at most limit, in no particular order; more says that there are others. An order that
// is stored and cannot be decoded is missing; the error is then state.ErrUnreadable, and the others are returned.
func (s *Store) Open(ctx context.Context, limit int) (orders []*order.Order, more bool, err error) {
	seen := map[order.ID]bool{} // the set can hold an id twice
	err = s.pending.Visit(ctx, func(ctx context.Context, listed []string) ([]string, error) {
		ids := make([]order.ID, len(listed))
		for i, id := range listed {
			ids[i] = order.ID(id)
		}
		found, unreadable, err := s.GetMany(ctx, ids)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			o := found[id]
			if o == nil || seen[id] || o.Status().Final() {
				continue
			}
			if seen[id] = true; len(orders) == limit {
				return nil, errEnough
			}
			orders = append(orders, o)
		}
		return nil, joined(unreadable)
	})
	if errors.Is(err, errEnough) {
		return orders, true, nil
	}
	return orders, false, err
}

func missing(id order.ID, err error) error {
	if errors.Is(err, state.ErrNotFound) {
		return order.ErrNotFound(string(id))
	}
	return err
}
