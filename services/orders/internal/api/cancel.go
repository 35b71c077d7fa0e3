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

// Resolve adds the faults that the domain finds to those of the schema.
func (in *cancelInput) Resolve(huma.Context) []error { return details(order.CheckReason(in.reason())) }

type cancelOutput struct {
	Body shownOrder
}

// cancel requests the cancellation and waits for the answer of fulfilment: a 202 means that the order is cancelled or will be.
func (s *Service) cancel(ctx context.Context, in *cancelInput) (*cancelOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	id, err := s.pathID(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	o, err := s.Orders.RequestCancellation(ctx, id, in.reason())
	if err == nil {
		o, err = s.answered(ctx, o)
	}
	if err != nil {
		return nil, s.problem(ctx, fmt.Errorf("cancel order %s: %w", id, err))
	}
	return &cancelOutput{show(o)}, nil
}

// The pauses between two reads of the order. The answer is in its document, because any replica may have processed the event.
const (
	firstPause = 10 * time.Millisecond
	lastPause  = 500 * time.Millisecond
)

// answered reads the order until fulfilment has answered its cancellation, and returns the newest version. The error is
// errPending if ctx ends before.
func (s *Service) answered(ctx context.Context, o *order.Order) (*order.Order, error) {
	for pause := firstPause; ; pause = min(pause*3/2, lastPause) {
		if known, err := o.CancellationAnswer(); known {
			return o, err
		}
		select {
		case <-ctx.Done():
			return nil, errPending
		case <-time.After(pause):
		}
		now, err := s.Reader.Get(ctx, o.ID())
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

// errPending says that a cancellation is stored and published, and fulfilment has not answered yet.
var errPending = errors.New("fulfilment has not answered the cancellation yet")
