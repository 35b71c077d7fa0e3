package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"waybill/platform/rest"
	"waybill/services/orders/internal/admission"
	"waybill/services/orders/internal/idempotency"
	"waybill/services/orders/internal/order"
)

// problem turns an error into the response to a request.
func (s *Service) problem(ctx context.Context, err error) *rest.Problem {
	var refused *order.Error
	var full *admission.Refusal
	switch {
	case errors.As(err, &full):
		return overloaded(full)
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
			Detail: "Another order used this Idempotency-Key before. Use a new key for a new order.",
			Errors: []rest.Fault{{Location: "header.Idempotency-Key", Message: "must not be used for two different orders"}},
		}
	case errors.Is(err, errPending):
		return &rest.Problem{
			Status: http.StatusServiceUnavailable, Code: "cancellation_pending", RetryAfter: 2,
			Detail: "The cancellation is stored and published, and fulfilment has not answered yet. The order may still ship. Repeat the request to get the result.",
		}
	case errors.Is(err, idempotency.ErrRunning):
		return &rest.Problem{
			Status: http.StatusConflict, Code: "request_running", RetryAfter: 1,
			Detail: "A request with this Idempotency-Key is probably still running. Repeat it in a moment to get its answer.",
		}
	}
	return rest.Failed(ctx, s.Logger, err)
}

// noRoom is the limit that caused a refusal.
type noRoom struct {
	Cause admission.Cause `json:"cause"`
	Count int             `json:"count,omitempty"`
	Limit int             `json:"limit,omitempty"`
}

// overloaded is the response to an order that admission refuses.
func overloaded(r *admission.Refusal) *rest.Problem {
	var why string
	switch r.Cause {
	case admission.Starting:
		why = "The service has just started and counts the open orders."
	case admission.Full:
		why = fmt.Sprintf("As many orders are open as can be finished in time: %d, and the limit is %d.", r.Count, r.Limit)
	case admission.Slow:
		why = fmt.Sprintf("Orders take longer than they should: %d of them are too old, and the limit is %d.", r.Count, r.Limit)
	case admission.Waiting:
		why = fmt.Sprintf("Too many orders wait for a person's decision: %d, and the limit is %d.", r.Count, r.Limit)
	case admission.Share:
		why = fmt.Sprintf("Many orders are open, and this customer already has its share of them: %d, and the limit is %d.", r.Count, r.Limit)
	}
	return &rest.Problem{
		Status: http.StatusServiceUnavailable, Code: "overloaded", RetryAfter: r.RetryAfter,
		Detail:  fmt.Sprintf("%s Nothing was stored. Repeat the request in %d seconds.", why, r.RetryAfter),
		Related: noRoom{r.Cause, r.Count, r.Limit},
	}
}

// details are the faults that the domain finds in an invalid order.
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
