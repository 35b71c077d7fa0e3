package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"waybill/services/orders/internal/order"
)

type cancelInput struct {
	ID   string `path:"id"`
	Body *cancelBody
}

type cancelBody struct {
	Reason string `json:"reason,omitempty" maxLength:"500" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"one line without control characters" example:"Ordered twice." doc:"Why, in the customer's own words, on one line."`
}

func (in *cancelInput) reason() string {
	if in.Body == nil {
		return ""
	}
	return in.Body.Reason
}

// Resolve adds the domain's faults to those of the schema.
func (in *cancelInput) Resolve(huma.Context) []error { return details(order.CheckReason(in.reason())) }

type cancelOutput struct {
	Body shownOrder
}

// cancel stores and announces that the customer wants the order cancelled, also when that was stored before, and waits for what
// fulfilment says about it: a 202 means that the order is cancelled or will be. What else of the order waits for an answer is
// announced with it, and first: so fulfilment knows the order that it is to cancel, whichever of the two announcements was lost.
func (s *Service) cancel(ctx context.Context, in *cancelInput) (*cancelOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	id, err := s.pathID(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	var o *order.Order
	err = s.Orders.Update(ctx, id, func(stored *order.Order) (*order.Order, error) {
		if o = stored; o == nil {
			return nil, order.ErrNotFound(in.ID)
		}
		if changed, err := o.RequestCancellation(in.reason(), now()); err != nil || !changed {
			return nil, err
		}
		return o, nil
	})
	if err == nil {
		s.Admission.Observe(o)
		err = s.Remind(ctx, o)
	}
	if err == nil {
		o, err = s.answered(ctx, o)
	}
	if err != nil {
		return nil, s.problem(ctx, fmt.Errorf("cancel order %s: %w", id, err))
	}
	return &cancelOutput{show(o)}, nil
}

// Pauses between two looks for fulfilment's answer, which the order's document holds: any replica may have taken the event.
const (
	firstLook = 10 * time.Millisecond
	lastLook  = 500 * time.Millisecond
)

// answered waits until the order's document says what becomes of its cancellation, as long as ctx lasts, and returns the order
// as it then is. The error is errPending when nothing is known by then.
func (s *Service) answered(ctx context.Context, o *order.Order) (*order.Order, error) {
	for pause := firstLook; ; pause = min(pause*3/2, lastLook) {
		if known, err := o.CancellationAnswer(); known {
			return o, err
		}
		select {
		case <-ctx.Done():
			return nil, errPending
		case <-time.After(pause):
		}
		now, err := s.Orders.Get(ctx, o.ID())
		switch {
		case err == nil:
			o = now
		case ctx.Err() != nil:
			return nil, errPending
		default:
			return nil, err
		}
	}
}

// errPending says that a cancellation was stored and announced, and that fulfilment has not answered yet.
var errPending = errors.New("fulfilment has not answered the cancellation yet")
