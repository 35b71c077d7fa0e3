package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"waybill/platform/rest"
	"waybill/services/orders/internal/idempotency"
	"waybill/services/orders/internal/order"
)

// problem turns an error into the answer to a request.
func (s *Service) problem(ctx context.Context, err error) *rest.Problem {
	var refused *order.Error
	switch {
	case errors.As(err, &refused):
		p := &rest.Problem{Status: http.StatusUnprocessableEntity, Code: refused.Code, Detail: refused.Text}
		switch refused.Kind {
		case order.NotFound:
			p.Status = http.StatusNotFound
		case order.Taken, order.TooLate:
			p.Status = http.StatusConflict
		case order.Invalid:
			for _, fault := range refused.Faults {
				p.Errors = append(p.Errors, rest.Fault{Location: "body." + fault.Path, Message: fault.Expectation})
			}
		}
		return p
	case errors.Is(err, idempotency.ErrOtherRequest):
		return &rest.Problem{
			Status: http.StatusUnprocessableEntity, Code: "idempotency_key_reused",
			Detail: "The Idempotency-Key came with another order before. Use a new key for a new order.",
			Errors: []rest.Fault{{Location: "header.Idempotency-Key", Message: "must not be used for two different orders"}},
		}
	case errors.Is(err, errPending):
		return &rest.Problem{
			Status: http.StatusServiceUnavailable, Code: "cancellation_pending", RetryAfter: 2,
			Detail: "The cancellation is stored and is passed on to fulfilment, which has not answered yet: the order may still ship. Repeat the request to learn the result.",
		}
	case errors.Is(err, idempotency.ErrRunning):
		return &rest.Problem{
			Status: http.StatusConflict, Code: "request_running", RetryAfter: 1,
			Detail: "A request with this Idempotency-Key is still running, as far as is known. Repeat it in a moment for its answer.",
		}
	}
	return rest.Failed(ctx, s.Logger, err)
}

// details is what an invalid order adds to the faults that its schema finds.
func details(err error) []error {
	var refused *order.Error
	if !errors.As(err, &refused) {
		return nil
	}
	all := make([]error, len(refused.Faults))
	for i, fault := range refused.Faults {
		all[i] = &huma.ErrorDetail{Location: "body." + fault.Path, Message: fault.Expectation}
	}
	return all
}
