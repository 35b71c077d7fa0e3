package api

import (
	"context"
	"fmt"

	"github.com/danielgtaylor/huma/v2"

	"waybill/services/orders/internal/order"
)

type cancelInput struct {
	ID   string `path:"id"`
	Body *cancelBody
}

type cancelBody struct {
	Reason string `json:"reason,omitempty" maxLength:"500" example:"Ordered twice." doc:"Why, in the customer's own words, on one line."`
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

// cancel stores and announces that the customer wants the order cancelled, also when that was stored before and nobody has
// answered. What else of the order waits for an answer is announced with it, and first: so fulfilment knows the order that
// it is to cancel, whichever of the two announcements was lost.
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
		err = s.Remind(ctx, o)
	}
	if err != nil {
		return nil, s.problem(ctx, fmt.Errorf("cancel order %s: %w", id, err))
	}
	return &cancelOutput{show(o)}, nil
}
