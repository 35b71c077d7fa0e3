package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"waybill/contracts"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/partner"
)

// Inventory keeps stock and reservations. It may be used by many goroutines and many replicas.
type Inventory struct {
	store state.Store
	// announce publishes a product's latest change; it runs again when a step does.
	announce func(ctx context.Context, s inventory.Stock) error
	now      func() time.Time
	locks    keyLocks
}

// NewInventory returns an Inventory whose changes are announced through announce.
func NewInventory(store state.Store, announce func(context.Context, inventory.Stock) error, now func() time.Time) *Inventory {
	return &Inventory{store: store, announce: announce, now: now}
}

// Get returns a product's stock. A *partner.Reason says that there is no such product.
func (i *Inventory) Get(ctx context.Context, product string) (inventory.Stock, error) {
	var s inventory.Stock
	if _, err := i.store.Get(ctx, stockKey(product), &s); errors.Is(err, state.ErrNotFound) {
		return s, inventory.Unknown(product)
	} else if err != nil {
		return s, fmt.Errorf("read stock: %w", err)
	}
	return s, nil
}

// Set makes onHand a product's pieces in the warehouse if the stock meets every condition. A *partner.Reason says that it does
// not, or that orders hold more than that.
func (i *Inventory) Set(ctx context.Context, product string, onHand int, conditions ...inventory.Condition) (inventory.Stock, error) {
	return i.change(ctx, product, func(s *inventory.Stock) (bool, error) {
		if refused := s.Check(product, conditions); refused != nil {
			return false, refused
		}
		s.ProductID = product
		if refused := s.Set(onHand, i.now()); refused != nil {
			return false, refused
		}
		return true, nil
	})
}

// Adjust changes a product's pieces in the warehouse by delta, once however often it is called with the key within
// inventory.KeyLifetime. It returns the adjustment as it was first applied. A *partner.Reason says why it is refused.
func (i *Inventory) Adjust(ctx context.Context, product, key string, delta int, reason string) (inventory.Adjustment, error) {
	var applied inventory.Adjustment
	_, err := i.change(ctx, product, func(s *inventory.Stock) (bool, error) {
		if s.ProductID == "" {
			return false, inventory.Unknown(product)
		}
		a, changed, refused := s.Adjust(key, delta, reason, i.now())
		if refused != nil {
			return false, refused
		}
		applied = a
		return changed, nil
	})
	return applied, err
}

// Reserve holds every line of the order or none. A refusal is a result: what was held is given back, and asking again
// answers the same. An error leaves the outcome open; ask again, or Release.
func (i *Inventory) Reserve(ctx context.Context, o contracts.Order) (*partner.Reason, error) {
	order, lines := o.OrderID, inventory.Wanted(o.Items)
	var known inventory.Reservation
	_, err := i.store.Get(ctx, reservationKey(order), &known)
	switch {
	case err == nil:
		return reserved(known), nil
	case !errors.Is(err, state.ErrNotFound):
		return nil, fmt.Errorf("read reservation: %w", err)
	}

	refused, err := i.lacks(ctx, order, lines)
	if err != nil {
		return nil, err
	}
	if refused == nil {
		refused, err = i.hold(ctx, order, lines)
		if err != nil {
			return nil, err
		}
	}

	result := inventory.Reservation{OrderID: order, State: inventory.Reserved, Lines: lines}
	if refused != nil {
		if err := i.giveBack(ctx, order, lines); err != nil {
			return nil, err
		}
		result = inventory.Reservation{OrderID: order, State: inventory.Refused, Refused: refused}
	}
	err = i.store.Create(ctx, reservationKey(order), result)
	if !errors.Is(err, state.ErrConflict) {
		if err != nil {
			err = fmt.Errorf("record reservation: %w", err)
		}
		return refused, err
	}
	// Somebody was faster: this very step on its second run, or a release that did not wait for this one.
	if _, err := i.store.Get(ctx, reservationKey(order), &known); err != nil {
		return nil, fmt.Errorf("read reservation: %w", err)
	}
	if known.State.Ended() {
		if err := i.giveBack(ctx, order, lines); err != nil {
			return nil, err
		}
	}
	return reserved(known), nil
}

// reserved is the answer to an order whose claim on stock is known already.
func reserved(r inventory.Reservation) *partner.Reason {
	switch r.State {
	case inventory.Releasing, inventory.Released:
		return &partner.Reason{Code: inventory.CodeReleased, Message: "The reservation was released already, so nothing is held any more.", Undone: true}
	default:
		return r.Refused
	}
}

// lacks looks at all products before any is held, so that a refusal seldom has something to give back.
func (i *Inventory) lacks(ctx context.Context, order string, lines inventory.Quantities) (*partner.Reason, error) {
	if len(lines) == 1 {
		return nil, nil // holding the only line asks the same
	}
	keys := make([]string, 0, len(lines))
	for _, product := range lines.Products() {
		keys = append(keys, stockKey(product))
	}
	docs, err := i.store.GetMany(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("read stock: %w", err)
	}
	for _, product := range lines.Products() {
		doc, ok := docs[stockKey(product)]
		if !ok {
			return inventory.Unknown(product), nil
		}
		var s inventory.Stock
		if err := json.Unmarshal(doc, &s); err != nil {
			return nil, fmt.Errorf("read stock: %w", err)
		}
		if lack := s.Lacks(order, lines[product]); lack != nil {
			return lack, nil
		}
	}
	return nil, nil
}

func (i *Inventory) hold(ctx context.Context, order string, lines inventory.Quantities) (*partner.Reason, error) {
	for _, product := range lines.Products() {
		_, err := i.change(ctx, product, func(s *inventory.Stock) (bool, error) {
			if s.ProductID == "" {
				return false, inventory.Unknown(product)
			}
			changed, lack := s.Hold(order, lines[product], i.now())
			if lack != nil {
				return false, lack
			}
			return changed, nil
		})
		if refused, ok := errors.AsType[*partner.Reason](err); ok {
			return refused, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func (i *Inventory) giveBack(ctx context.Context, order string, lines inventory.Quantities) error {
	for _, product := range lines.Products() {
		_, err := i.change(ctx, product, func(s *inventory.Stock) (bool, error) {
			return s.GiveBack(order, i.now()), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Release gives back what the order holds and lets it hold nothing more, also when its Reserve was never heard of. It
// reports whether there was a reservation to release.
func (i *Inventory) Release(ctx context.Context, o contracts.Order) (bool, error) {
	order, lines := o.OrderID, inventory.Wanted(o.Items)
	released, err := state.Update(ctx, i.store, reservationKey(order), func(r *inventory.Reservation, exists bool) error {
		if r.State.Ended() {
			return state.Keep
		}
		never := !exists || r.Never
		*r = inventory.Reservation{OrderID: order, State: inventory.Releasing, Lines: lines, Never: never}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("record release: %w", err)
	}
	if released.State == inventory.Refused {
		return false, nil
	}
	if err := i.giveBack(ctx, order, lines); err != nil {
		return false, err
	}
	_, err = state.Update(ctx, i.store, reservationKey(order), func(r *inventory.Reservation, _ bool) error {
		r.State = inventory.Released
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("record release: %w", err)
	}
	return !released.Never, nil
}

// Ship takes what the order holds out of the warehouse.
func (i *Inventory) Ship(ctx context.Context, o contracts.Order) error {
	order := o.OrderID
	var r inventory.Reservation
	etag, err := i.store.Get(ctx, reservationKey(order), &r)
	if err != nil {
		return fmt.Errorf("read reservation: %w", err)
	}
	switch r.State {
	case inventory.Shipped:
		return nil
	case inventory.Reserved:
	default:
		return fmt.Errorf("the reservation is %s, not %s", r.State, inventory.Reserved)
	}
	var shipped []string
	for _, product := range r.Lines.Products() {
		_, err := i.change(ctx, product, func(s *inventory.Stock) (bool, error) {
			if s.Ship(order) {
				shipped = append(shipped, product)
				return true, nil
			}
			return false, nil
		})
		if err != nil {
			return err
		}
	}
	r.State = inventory.Shipped
	err = i.store.Replace(ctx, reservationKey(order), r, etag)
	if errors.Is(err, state.ErrConflict) {
		err = errors.Join(err, i.takeBack(ctx, order, r.Lines, shipped))
	}
	if err != nil {
		return fmt.Errorf("record shipping: %w", err)
	}
	return nil
}

// takeBack puts back what a Ship took out while the reservation was released, which nobody else will do.
func (i *Inventory) takeBack(ctx context.Context, order string, lines inventory.Quantities, shipped []string) error {
	var now inventory.Reservation
	if _, err := i.store.Get(ctx, reservationKey(order), &now); err != nil {
		return fmt.Errorf("read reservation: %w", err)
	}
	if !now.State.Ended() {
		return nil // the next attempt ships it, or Unship puts it back
	}
	for _, product := range shipped {
		_, err := i.change(ctx, product, func(s *inventory.Stock) (bool, error) {
			return s.Unship(order, lines[product]) && s.GiveBack(order, i.now()), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Unship takes back what Ship did, wholly or in part, so that the order holds its lines again.
func (i *Inventory) Unship(ctx context.Context, o contracts.Order) error {
	order := o.OrderID
	var r inventory.Reservation
	etag, err := i.store.Get(ctx, reservationKey(order), &r)
	if errors.Is(err, state.ErrNotFound) || err == nil && r.State.Ended() {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read reservation: %w", err)
	}
	for _, product := range r.Lines.Products() {
		_, err := i.change(ctx, product, func(s *inventory.Stock) (bool, error) {
			return s.Unship(order, r.Lines[product]), nil
		})
		if err != nil {
			return err
		}
	}
	r.State = inventory.Reserved
	if err := i.store.Replace(ctx, reservationKey(order), r, etag); err != nil {
		return fmt.Errorf("record unshipping: %w", err)
	}
	return nil
}

// change updates one product's stock and announces what it then is, also when this run changed nothing: an earlier run
// may have ended between the two. Consumers tell repetitions by the event's id, which follows from the revision.
func (i *Inventory) change(ctx context.Context, product string, apply func(s *inventory.Stock) (changed bool, err error)) (inventory.Stock, error) {
	before := 0
	lock := i.locks.of(product)
	lock.Lock()
	s, err := state.Update(ctx, i.store, stockKey(product), func(s *inventory.Stock, _ bool) error {
		before = s.Last.Revision
		changed, err := apply(s)
		switch {
		case err != nil:
			return err
		case !changed:
			before = -1
			return state.Keep
		default:
			s.Version++
			return nil
		}
	})
	lock.Unlock()
	if err != nil {
		if _, ok := errors.AsType[*partner.Reason](err); ok {
			return s, err
		}
		return s, fmt.Errorf("change stock: %w", err)
	}
	if s.Last.Revision != before && s.ProductID != "" {
		if err := i.announce(ctx, s); err != nil {
			return s, fmt.Errorf("announce stock: %w", err)
		}
	}
	return s, nil
}
