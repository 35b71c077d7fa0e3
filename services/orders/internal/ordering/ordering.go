// Package ordering places, confirms, cancels and follows orders. REST and the bus both call it. Each operation changes the
// stored order, tells admission, and then publishes what changed; each is idempotent, so a caller that lost the answer calls
// again. It does not know HTTP, the bus or the form of stored documents.
package ordering

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"waybill/contracts"
	"waybill/services/orders/internal/admission"
	"waybill/services/orders/internal/order"
)

// Store keeps orders.
type Store interface {
	// Create saves an order that was just received. The error is order.ErrTaken if the id is taken.
	Create(ctx context.Context, o *order.Order) error
	// Get reads an order. The error is order.ErrNotFound if it does not exist.
	Get(ctx context.Context, id order.ID) (*order.Order, error)
	// Update saves what change returns. It gives change nil if the order does not exist, and saves nothing if change returns nil.
	// It may call change again after a conflict.
	Update(ctx context.Context, id order.ID, change func(o *order.Order) (*order.Order, error)) error
	// AddPending adds a stored order that has not ended to the pending set. It may be called again.
	AddPending(ctx context.Context, o *order.Order) error
}

// Publisher publishes entries of an order's timeline that are this service's own. It returns nil when the broker has them.
type Publisher interface {
	Publish(ctx context.Context, o *order.Order, entries ...order.Entry) error
}

// Service runs the operations. Many goroutines may use it.
type Service struct {
	Store     Store
	Publisher Publisher
	// Admission counts the open orders and admits new ones.
	Admission *admission.Gate
	Logger    *slog.Logger
}

func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// Place stores an order, publishes it, and adds it to the pending set. An order that is already stored is published again
// until something shows that the event arrived. It returns the status of the stored order. An order that was not
// published is not pending: its client got no answer that it is accepted, and may have placed another one.
func (s *Service) Place(ctx context.Context, o *order.Order) (order.Status, error) {
	created := o.Place()
	err := s.Store.Create(ctx, o)
	var refused *order.Error
	if errors.As(err, &refused) && refused.Kind == order.Taken {
		stored, readErr := s.Store.Get(ctx, o.ID())
		if readErr != nil {
			return "", readErr
		}
		if !stored.SameContent(o) {
			return "", err
		}
		if stored.Status() != order.Received {
			if !stored.Status().Final() {
				// It is pending already, unless the pending set was lost. Placing the order again repairs that.
				if err := s.Store.AddPending(ctx, stored); err != nil {
					return "", err
				}
			}
			return stored.Status(), nil
		}
		o, created = stored, stored.Snapshot().Timeline[0]
	} else if err != nil {
		return "", err
	}
	if err := s.Publisher.Publish(ctx, o, created); err != nil {
		return "", err
	}
	if err := s.Store.AddPending(ctx, o); err != nil {
		return "", err
	}
	s.Admission.Observe(o)
	if s.Admission.BusHeld() {
		if err := s.confirmPlaced(ctx, o); err != nil {
			s.Logger.WarnContext(ctx, "order not confirmed at once; its event will confirm it", slog.String("order_id", string(o.ID())), slog.Any("error", err))
		}
	}
	return o.Status(), nil
}

// Placed reports whether this order is stored and no longer received: then it was published, or nothing waits for the
// event any more.
func (s *Service) Placed(ctx context.Context, o *order.Order) (bool, error) {
	stored, err := s.Store.Get(ctx, o.ID())
	var refused *order.Error
	if errors.As(err, &refused) && refused.Kind == order.NotFound {
		return false, nil
	}
	// The client may have chosen the id, so the order may be another request's.
	return err == nil && stored.Status() != order.Received && stored.SameContent(o), err
}

const (
	// admitTimeout is how long one attempt at a delivery waits for admission. A delivery has four attempts. They must end before a
	// service that stops cuts off the delivery; the sidecar or the broker then delivers it again.
	admitTimeout = 2 * time.Second
	admitPause   = 100 * time.Millisecond
)

// AdmitFromBus waits for a slot for an order from the bus. The slot is nil if the order is stored already. The error is an
// *admission.Refusal; the order then stays on the bus.
func (s *Service) AdmitFromBus(ctx context.Context, o *order.Order) (*admission.Slot, error) {
	slot, refusal := s.Admission.AdmitFromBus(ctx, o)
	if refusal == nil {
		return slot, nil
	}
	if _, err := s.Store.Get(ctx, o.ID()); err == nil {
		return nil, nil
	}
	for end := time.Now().Add(admitTimeout); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return nil, refusal
		case <-s.Admission.Stopped():
			return nil, refusal
		case <-time.After(admitPause):
		}
		if slot, refusal = s.Admission.AdmitFromBus(ctx, o); refusal == nil {
			return slot, nil
		}
	}
	return nil, refusal
}

// Confirm confirms an order, which it stores if it is new, and publishes that. It publishes again if nothing shows that the
// event arrived; a saga that has begun shows that. An order that was cancelled meanwhile is not confirmed. The error is
// order.ErrTaken if another order has this id.
func (s *Service) Confirm(ctx context.Context, fresh *order.Order, cause order.Cause) error {
	var o *order.Order
	err := s.Store.Update(ctx, fresh.ID(), func(stored *order.Order) (*order.Order, error) {
		if o = stored; o == nil {
			o = order.Restore(fresh.Snapshot()) // a copy, because this may run again
		} else if !o.SameContent(fresh) {
			return nil, order.ErrTaken(fresh.ID())
		}
		if !o.Confirm(cause, now()) {
			return nil, nil
		}
		return o, nil
	})
	if err != nil {
		return fmt.Errorf("confirm order %s: %w", fresh.ID(), err)
	}
	s.Admission.Observe(o)
	entries := o.Unsettled(cause)
	if o.Status() != order.Confirmed {
		entries = slices.DeleteFunc(entries, func(e order.Entry) bool { return e.Type == contracts.TypeOrderConfirmed })
	}
	return s.Publisher.Publish(ctx, o, entries...)
}

// confirmPlaced confirms an order that was placed over REST and whose Order.Created is published, as that event does.
func (s *Service) confirmPlaced(ctx context.Context, o *order.Order) error {
	created := o.Snapshot().Timeline[0]
	return s.Confirm(ctx, o, order.Cause{EventID: created.EventID, Source: created.Source, Time: created.Time})
}

// Follow applies an event of the order's saga, and publishes what that changed. It publishes again if the order knew the
// event already, because the last attempt may have ended in between. The error is order.ErrNotFound if the order does not
// exist.
func (s *Service) Follow(ctx context.Context, id order.ID, cause order.Cause, apply func(o *order.Order, now time.Time) (changed bool)) error {
	var o *order.Order
	err := s.Store.Update(ctx, id, func(stored *order.Order) (*order.Order, error) {
		if o = stored; o == nil {
			return nil, order.ErrNotFound(string(id))
		}
		if !apply(o, now()) {
			return nil, nil
		}
		return o, nil
	})
	if err != nil {
		return fmt.Errorf("follow order %s: %w", id, err)
	}
	s.Admission.Observe(o)
	return s.Publisher.Publish(ctx, o, o.Unsettled(cause)...)
}

// RequestCancellation stores and publishes that the customer wants the order cancelled, also if it was stored before. Before
// that it publishes what else of the order has no answer yet. So fulfilment knows the order that it shall cancel, whichever
// event was lost. It returns the order; the answer of fulfilment comes later.
func (s *Service) RequestCancellation(ctx context.Context, id order.ID, reason string) (*order.Order, error) {
	var o *order.Order
	err := s.Store.Update(ctx, id, func(stored *order.Order) (*order.Order, error) {
		if o = stored; o == nil {
			return nil, order.ErrNotFound(string(id))
		}
		if changed, err := o.RequestCancellation(reason, now()); err != nil || !changed {
			return nil, err
		}
		return o, nil
	})
	if err != nil {
		return nil, err
	}
	s.Admission.Observe(o)
	return o, s.PublishUnanswered(ctx, o)
}

// PublishUnanswered publishes again what of the order has no answer yet. While orders on the bus wait for admission, it
// confirms an order that was placed over REST itself: the order's own event is behind them.
func (s *Service) PublishUnanswered(ctx context.Context, o *order.Order) error {
	if err := s.Publisher.Publish(ctx, o, o.Outstanding()...); err != nil {
		return err
	}
	if o.Status() != order.Received || !s.Admission.BusMayBeHeld() {
		return nil
	}
	return s.confirmPlaced(ctx, o)
}
