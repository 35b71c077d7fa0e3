package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/platform/strictjson"
	"waybill/platform/timestamp"
	"waybill/services/orders/internal/admission"
	"waybill/services/orders/internal/order"
)

// createdData is an Order.Created as anybody may have written it.
type createdData struct {
	newOrder
	CreatedAt json.RawMessage `json:"created_at"`
}

// created takes an order from the bus, ours or another system's, confirms it and publishes that it did, also when it had
// been confirmed before and nothing shows that this was heard. An order that was cancelled meanwhile is not confirmed.
func (s *Service) created(ctx context.Context, e eventing.Event) error {
	o, err := decodeCreated(e)
	if err != nil {
		return eventing.Reject(err)
	}
	slot, err := s.wait(ctx, e, o)
	if err != nil {
		return err
	}
	defer slot.Release()
	return s.confirm(ctx, o, causeOf(e))
}

const (
	// longestHold is how long one attempt at a delivery waits for room. A delivery has four attempts, which must be over before
	// a service that stops cuts it off; then the sidecar or the broker delivers it again.
	longestHold = 2 * time.Second
	holdPause   = 100 * time.Millisecond
)

// wait gets the room that an order of another system needs, as long as it is not stored; until then the order stays on the bus.
// An order of this service's own was admitted before its event was published, and what an operator redrives is not refused.
func (s *Service) wait(ctx context.Context, e eventing.Event, o *order.Order) (*admission.Slot, error) {
	if e.Source == order.Source || eventing.Redriven(ctx) {
		return nil, nil
	}
	slot, refusal := s.Admission.Take(ctx, o)
	if refusal == nil {
		return slot, nil
	}
	if _, err := s.Orders.Get(ctx, o.ID()); err == nil {
		return nil, nil
	}
	for end := time.Now().Add(longestHold); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return nil, eventing.Retry(refusal)
		case <-s.Admission.Stopped():
			return nil, eventing.Retry(refusal)
		case <-time.After(holdPause):
		}
		if slot, refusal = s.Admission.Take(ctx, o); refusal == nil {
			return slot, nil
		}
	}
	return nil, eventing.Retry(refusal)
}

// confirm confirms an order, which may be a new one, and announces that: also when the order had been confirmed before and
// nothing shows that this was heard. An order whose saga has begun was heard of.
func (s *Service) confirm(ctx context.Context, fresh *order.Order, cause order.Cause) error {
	var o *order.Order
	err := s.Orders.Update(ctx, fresh.ID(), func(stored *order.Order) (*order.Order, error) {
		if o = stored; o == nil {
			o = order.Restore(fresh.Snapshot()) // a copy, for this may run again
		} else if !o.SameContent(fresh) {
			return nil, eventing.Reject(order.ErrTaken(fresh.ID()))
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
	return s.announce(ctx, o, entries...)
}

// confirmPlaced confirms an order that was placed with this service and whose Order.Created is published, as that event does.
func (s *Service) confirmPlaced(ctx context.Context, o *order.Order) error {
	created := o.Snapshot().Timeline[0]
	return s.confirm(ctx, o, order.Cause{EventID: created.EventID, Source: created.Source, Time: created.Time})
}

// decodeCreated reads and checks the order in the event. The error names everything wrong with it, and no values.
func decodeCreated(e eventing.Event) (*order.Order, error) {
	var data createdData
	err := strictjson.Check(e.Data)
	if err != nil {
		return nil, fmt.Errorf("the event's data cannot be read: %w", err)
	}
	mistyped, _ := errors.AsType[*strictjson.Error](strictjson.Unmarshal(e.Data, &data))
	if mistyped != nil {
		_ = json.Unmarshal(e.Data, &data) // it goes on behind what it cannot read
	}
	// A mistyped field does not keep the others from being read, so their faults can be named beside it.
	o, invalid := order.New(data.draft(), createdAt(data.CreatedAt, e))
	switch {
	case mistyped == nil:
		return o, invalid
	case invalid == nil:
		return nil, fmt.Errorf("%s %s", mistyped.Path, mistyped.Rule)
	default:
		return nil, fmt.Errorf("%s %s. %w", mistyped.Path, mistyped.Rule, invalid)
	}
}

// createdAt is when the customer placed the order, as well as the event can tell. A time out of range tells nothing; no order is
// refused for it.
func createdAt(written json.RawMessage, e eventing.Event) time.Time {
	var at time.Time
	if err := json.Unmarshal(written, &at); err == nil && timestamp.Check(at) == nil {
		return at
	}
	return eventTime(e)
}

func eventTime(e eventing.Event) time.Time {
	if timestamp.Check(e.Time) != nil {
		return now()
	}
	return e.Time
}

func causeOf(e eventing.Event) order.Cause {
	return order.Cause{EventID: e.ID, Source: e.Source, Time: eventTime(e)}
}

func (s *Service) stepCompleted(ctx context.Context, e eventing.Event) error {
	var data contracts.StepCompleted
	if err := e.Decode(&data); err != nil {
		return err
	}
	return s.follow(ctx, e, data.OrderID, func(o *order.Order, cause order.Cause) bool { return o.Step(cause, data, now()) })
}

func (s *Service) approvalRequested(ctx context.Context, e eventing.Event) error {
	var data contracts.ApprovalRequested
	if err := e.Decode(&data); err != nil {
		return err
	}
	return s.follow(ctx, e, data.OrderID, func(o *order.Order, cause order.Cause) bool { return o.AwaitApproval(cause, data, now()) })
}

func (s *Service) fulfillmentCompleted(ctx context.Context, e eventing.Event) error {
	var data contracts.FulfillmentCompleted
	if err := e.Decode(&data); err != nil {
		return err
	}
	return s.follow(ctx, e, data.OrderID, func(o *order.Order, cause order.Cause) bool { return o.Complete(cause, data, now()) })
}

func (s *Service) fulfillmentFailed(ctx context.Context, e eventing.Event) error {
	var data contracts.FulfillmentFailed
	if err := e.Decode(&data); err != nil {
		return err
	}
	return s.follow(ctx, e, data.OrderID, func(o *order.Order, cause order.Cause) bool { return o.Fail(cause, data, now()) })
}

func (s *Service) fulfillmentCancelled(ctx context.Context, e eventing.Event) error {
	var data contracts.FulfillmentCancelled
	if err := e.Decode(&data); err != nil {
		return err
	}
	return s.follow(ctx, e, data.OrderID, func(o *order.Order, cause order.Cause) bool { return o.Cancel(cause, data, now()) })
}

// follow lets the order learn an event of its saga, and then publishes what the event brought about: also when the order
// knew it already, for the last attempt may have ended between the two.
func (s *Service) follow(ctx context.Context, e eventing.Event, orderID string, learn func(*order.Order, order.Cause) bool) error {
	id, err := order.ParseID(orderID)
	if err != nil {
		return eventing.Reject(err)
	}
	cause := causeOf(e)
	var o *order.Order
	err = s.Orders.Update(ctx, id, func(stored *order.Order) (*order.Order, error) {
		if o = stored; o == nil {
			s.Logger.WarnContext(ctx, "event of an order that is not stored; it is dead-lettered (make doctor looks for lost orders)",
				slog.String("order_id", orderID), slog.String("event_type", e.Type), slog.String("event_id", e.ID))
			return nil, eventing.Reject(order.ErrNotFound(orderID))
		}
		if !learn(o, cause) {
			return nil, nil
		}
		return o, nil
	})
	if err != nil {
		return fmt.Errorf("follow order %s: %w", id, err)
	}
	s.Admission.Observe(o)
	return s.announce(ctx, o, o.Unsettled(cause)...)
}

// fulfillment is the other source of the events that this service reads, besides its own.
const fulfillment = "/waybill/fulfillment"

// DeadLettered announces, as System.Error, an event that this service dead-lettered.
func (s *Service) DeadLettered(ctx context.Context, topic string, e eventing.Event) error {
	id := topic + ":" + e.ID + ":" + contracts.TypeSystemError
	if e.Source != order.Source && e.Source != fulfillment {
		// Ids are unique for one source only.
		sum := sha256.Sum256([]byte(e.Source))
		id += ":" + hex.EncodeToString(sum[:8])
	}
	announced, err := eventing.New(id, order.Source, contracts.Version, e.DeadLetter.At, contracts.SystemError{
		Service: contracts.AppOrders, Topic: topic, EventID: e.ID, Type: e.Type, About: e.Subject,
		Error: e.DeadLetter.Reason, OccurredAt: e.DeadLetter.At.UTC(),
	})
	if err != nil {
		return err
	}
	return s.Publisher.Publish(ctx, contracts.TopicOrders, announced)
}
