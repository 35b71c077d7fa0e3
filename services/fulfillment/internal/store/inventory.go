package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"waybill/contracts"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/partner"
)

// Inventory stores stock and reservations. It is safe for many goroutines and many replicas: the conditional write of a product's
// stock makes it safe, the queue in this process only saves writes. A change that waits too long in the queue of a product fails with
// partner.ErrBusy.
type Inventory struct {
	store  state.Store
	queues queues
	now    func() time.Time
	ended  []state.Option // of writes that end a reservation
}

// NewInventory returns an Inventory that announces changes through announce. It announces changes that were written together as one.
func NewInventory(store state.Store, announce func(context.Context, inventory.Stock) error, now func() time.Time) *Inventory {
	return &Inventory{store: store, now: now, queues: queues{store: state.WithPriority(store), announce: announce, now: now}}
}

// KeepFor makes every reservation expire some time after it was shipped, released or refused; with 0 it never expires. A reservation
// that has not ended never expires, because the stock depends on it. KeepFor returns i; call it before any other method.
func (i *Inventory) KeepFor(retention time.Duration) *Inventory {
	if retention > 0 {
		i.ended = []state.Option{state.TTL(retention)}
	}
	return i
}

// Measure exports how many changes of stock are queued.
func (i *Inventory) Measure() error {
	_, err := otel.Meter("waybill/services/fulfillment").Int64ObservableGauge("waybill.fulfillment.stock.waiting",
		metric.WithDescription("Changes of stock that are queued, by kind: start, finish."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			starting, finishing := i.queues.lengths()
			o.Observe(int64(starting), metric.WithAttributes(attribute.String("kind", "start")))
			o.Observe(int64(finishing), metric.WithAttributes(attribute.String("kind", "finish")))
			return nil
		}))
	if err != nil {
		return fmt.Errorf("measure stock: %w", err)
	}
	return nil
}

// Wait returns when all writes have ended. The Inventory must not be used after it.
func (i *Inventory) Wait() { i.queues.running.Wait() }

// Get returns a product's stock. The error is a *partner.Reason if there is no such product.
func (i *Inventory) Get(ctx context.Context, product string) (inventory.Stock, error) {
	var s inventory.Stock
	if _, err := i.store.Get(ctx, stockKey(product), &s); errors.Is(err, state.ErrNotFound) {
		return s, inventory.Unknown(product)
	} else if err != nil {
		return s, fmt.Errorf("read stock: %w", err)
	}
	return s, nil
}

// Set sets how many pieces of a product the warehouse holds, if the stock meets every condition. The error is a *partner.Reason if it
// does not, or if orders hold more.
func (i *Inventory) Set(ctx context.Context, product string, onHand int, conditions ...inventory.Condition) (inventory.Stock, error) {
	var now inventory.Stock
	err := i.change(ctx, product, change{apply: func(s *inventory.Stock, _ *inventory.Reservation) (effect, error) {
		if refused := s.Check(product, conditions); refused != nil {
			return effect{}, refused
		}
		s.ProductID = product
		if refused := s.Set(onHand, i.now()); refused != nil {
			return effect{}, refused
		}
		now = *s
		now.Held = maps.Clone(s.Held)
		return effect{announce: true}, nil
	}})
	return now, err
}

// Adjust changes by delta how many pieces of a product the warehouse holds. Calls with the same key within inventory.KeyLifetime apply
// once and return the adjustment as it was first applied. The error is a *partner.Reason if the adjustment is refused.
func (i *Inventory) Adjust(ctx context.Context, product, key string, delta int, reason string) (inventory.Adjustment, error) {
	var applied inventory.Adjustment
	err := i.change(ctx, product, change{apply: func(s *inventory.Stock, _ *inventory.Reservation) (effect, error) {
		if s.ProductID == "" {
			return effect{}, inventory.Unknown(product)
		}
		a, _, refused := s.Adjust(key, delta, reason, i.now())
		if refused != nil {
			return effect{}, refused
		}
		applied = a
		return effect{announce: true}, nil
	}})
	return applied, err
}

// change queues one change and waits for it.
func (i *Inventory) change(ctx context.Context, product string, c change) error {
	ctx, cancel := context.WithTimeout(ctx, queueTimeout)
	defer cancel()
	return i.queues.do(ctx, product, &c)
}

// changeEach applies an order's change to its products one after the other, in the same sequence for every order. It never waits in
// one queue while it holds a place in another.
func (i *Inventory) changeEach(ctx context.Context, order string, lines inventory.Quantities, starts bool,
	apply func(s *inventory.Stock, r *inventory.Reservation, product string) (effect, error),
) error {
	ctx, cancel := context.WithTimeout(ctx, queueTimeout)
	defer cancel()
	for _, product := range lines.Products() {
		c := change{order: order, starts: starts, apply: func(s *inventory.Stock, r *inventory.Reservation) (effect, error) {
			return apply(s, r, product)
		}}
		if err := i.queues.do(ctx, product, &c); err != nil {
			return err
		}
	}
	return nil
}

// errDecided ends a Reserve that finds a reservation of the order: it says how an earlier run ended, or that it was released.
var errDecided = errors.New("the reservation was decided before")

// Reserve reserves every line of the order or none. A refusal is a result: the lines reserved so far are released, and a repeated
// call returns the same. After an error the outcome is unknown; call Reserve again, or Release.
func (i *Inventory) Reserve(ctx context.Context, o contracts.Order) (*partner.Reason, error) {
	order, lines := o.OrderID, inventory.Wanted(o.Items)
	if invalid := inventory.Check(order, lines); invalid != nil {
		return invalid, nil
	}
	refused, err := i.lacks(ctx, order, lines)
	if err == nil && refused == nil {
		err = i.hold(ctx, order, lines)
		if reason, ok := errors.AsType[*partner.Reason](err); ok {
			refused, err = reason, nil
		}
	}
	if err != nil && !errors.Is(err, errDecided) {
		return nil, err
	}
	if err == nil {
		result, options := inventory.Reservation{OrderID: order, State: inventory.Reserved, Lines: lines, Derives: true}, []state.Option(nil)
		if refused != nil {
			// Recorded before anything is released, so that another run of this step does not reserve it again.
			result = inventory.Reservation{OrderID: order, State: inventory.Refused, Refused: refused}
			options = i.ended
		}
		err = i.store.Create(ctx, reservationKey(order), result, options...)
		switch {
		case err == nil && refused == nil:
			return nil, nil
		case err == nil:
			return refused, i.releaseHolds(ctx, order, lines, false)
		case !errors.Is(err, state.ErrConflict):
			return nil, fmt.Errorf("record reservation: %w", err)
		}
	}
	// An earlier or concurrent run of this step, or a release that overtook it, has written the reservation.
	var known inventory.Reservation
	if _, err := i.store.Get(ctx, reservationKey(order), &known); err != nil {
		return nil, fmt.Errorf("read reservation: %w", err)
	}
	switch known.State {
	case inventory.Releasing, inventory.Released:
		return &partner.Reason{Code: inventory.CodeReleased, Message: "The reservation was released before, so nothing is reserved any more.", Undone: true}, nil
	case inventory.Refused:
		return known.Refused, i.releaseHolds(ctx, order, lines, true) // the earlier run may have ended before it released
	default:
		return nil, nil
	}
}

// lacks checks all products before any is reserved, so that a refused order seldom has something to release.
func (i *Inventory) lacks(ctx context.Context, order string, lines inventory.Quantities) (*partner.Reason, error) {
	if len(lines) == 1 {
		return nil, nil // reserving the only line checks the same
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

// hold reserves the lines one after the other. The error is a *partner.Reason if a product has too few pieces.
func (i *Inventory) hold(ctx context.Context, order string, lines inventory.Quantities) error {
	return i.changeEach(ctx, order, lines, true, func(s *inventory.Stock, r *inventory.Reservation, product string) (effect, error) {
		if r != nil {
			return effect{}, errDecided
		}
		if s.ProductID == "" {
			return effect{}, inventory.Unknown(product)
		}
		changed, lack, err := s.Hold(order, r, lines[product], i.now())
		if lack != nil {
			err = lack
		}
		return effect{announce: err == nil && !changed}, err
	})
}

// releaseHolds releases what an ended reservation holds, if anything. It always writes every product's stock: a concurrent hold that read
// the stock before then fails to write, reads the reservation, and is not written.
func (i *Inventory) releaseHolds(ctx context.Context, order string, lines inventory.Quantities, again bool) error {
	return i.changeEach(ctx, order, lines, false, func(s *inventory.Stock, r *inventory.Reservation, _ string) (effect, error) {
		switch {
		case s.ProductID == "":
			return effect{}, nil
		case r == nil || !r.State.Ended():
			return effect{}, fmt.Errorf("the reservation of %s has not ended", order)
		}
		_, err := s.Release(order, r, i.now())
		return effect{fence: err == nil, announce: err == nil && again}, err
	})
}

// Release releases what the order holds; after it the order can reserve nothing more, even if Reserve was never called. It reports
// whether there was a reservation to release.
func (i *Inventory) Release(ctx context.Context, o contracts.Order) (bool, error) {
	order, lines := o.OrderID, inventory.Wanted(o.Items)
	if invalid := inventory.Check(order, lines); invalid != nil {
		return false, nil //nolint:nilerr // nothing was ever reserved for such an order
	}
	r, err := state.Update(ctx, i.store, reservationKey(order), func(r *inventory.Reservation, exists bool) error {
		if r.State.Ended() {
			return state.ErrUnchanged
		}
		r.Never = !exists || r.Never
		r.OrderID, r.Lines = order, lines
		r.Become(inventory.Releasing)
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("record release: %w", err)
	}
	if r.State == inventory.Released {
		return !r.Never, nil
	}
	if err := i.releaseHolds(ctx, order, lines, true); err != nil || r.State == inventory.Refused {
		return false, err
	}
	_, err = state.Update(ctx, i.store, reservationKey(order), func(r *inventory.Reservation, _ bool) error {
		r.State = inventory.Released
		return nil
	}, i.ended...)
	if err != nil {
		return false, fmt.Errorf("record release: %w", err)
	}
	return !r.Never, nil
}

// Ship turns the order's reserved pieces into shipped ones.
func (i *Inventory) Ship(ctx context.Context, o contracts.Order) error {
	order := o.OrderID
	var r inventory.Reservation
	etag, err := i.store.Get(ctx, reservationKey(order), &r)
	if err != nil {
		return fmt.Errorf("read reservation: %w", err)
	}
	if r.State == inventory.Shipped {
		return nil
	}
	if r.State != inventory.Reserved {
		return notReserved(&r)
	}
	err = i.changeEach(ctx, order, r.Lines, false, func(s *inventory.Stock, r *inventory.Reservation, _ string) (effect, error) {
		switch {
		case r != nil && r.State == inventory.Shipped: // by another run of this step
			return effect{}, nil
		case r == nil || r.State != inventory.Reserved:
			return effect{}, notReserved(r)
		}
		_, err := s.Ship(order, r, i.now())
		return effect{}, err
	})
	if err != nil {
		return err
	}
	// With the ETag from before: if the reservation was released or unshipped in the meantime, so was what this run shipped.
	r.State, r.Derives = inventory.Shipped, true
	if err := i.store.Replace(ctx, reservationKey(order), r, etag, i.ended...); err != nil {
		return fmt.Errorf("record shipping: %w", err)
	}
	return nil
}

func notReserved(r *inventory.Reservation) error {
	if r == nil {
		return errors.New("there is no reservation")
	}
	return fmt.Errorf("the reservation must be %s to be shipped, got %s", inventory.Reserved, r.State)
}

// Unship reverts a Ship that was done in full or in part: the order holds its lines again.
func (i *Inventory) Unship(ctx context.Context, o contracts.Order) error {
	order := o.OrderID
	// Written first, so that a concurrent or late Ship is not recorded.
	r, err := state.Update(ctx, i.store, reservationKey(order), func(r *inventory.Reservation, exists bool) error {
		if !exists || r.State.Ended() {
			return state.ErrUnchanged
		}
		r.Become(inventory.Unshipping)
		r.Unships++
		return nil
	})
	if err != nil {
		return fmt.Errorf("record unshipping: %w", err)
	}
	if r.State != inventory.Unshipping {
		return nil
	}
	mine := func(now *inventory.Reservation) bool {
		return now != nil && now.State == inventory.Unshipping && now.Unships == r.Unships
	}
	err = i.changeEach(ctx, order, r.Lines, false, func(s *inventory.Stock, r *inventory.Reservation, _ string) (effect, error) {
		if !mine(r) {
			return effect{}, nil // another run continues, or a release
		}
		_, err := s.Unship(order, r, i.now())
		return effect{fence: err == nil}, err
	})
	if err != nil {
		return err
	}
	_, err = state.Update(ctx, i.store, reservationKey(order), func(now *inventory.Reservation, _ bool) error {
		if !mine(now) {
			return state.ErrUnchanged
		}
		now.State, now.Was, now.Derives = inventory.Reserved, "", true
		return nil
	})
	if err != nil {
		return fmt.Errorf("record unshipping: %w", err)
	}
	return nil
}

// Audit adds the order's reservation to a, and reports whether there is one.
func (i *Inventory) Audit(ctx context.Context, orderID string, a *partner.Audit) (known bool, err error) {
	var r inventory.Reservation
	switch _, err := i.store.Get(ctx, reservationKey(orderID), &r); {
	case errors.Is(err, state.ErrNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read reservation of %s: %w", orderID, err)
	}
	a.Reservation = &partner.Reservation{State: string(r.State), Lines: r.Lines}
	return true, nil
}
