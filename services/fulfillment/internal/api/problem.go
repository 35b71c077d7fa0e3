package api

import (
	"context"
	"errors"
	"net/http"

	"waybill/platform/rest"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/partner"
	"waybill/services/fulfillment/internal/record"
)

// problem turns an error into an answer. No other function does.
func (a API) problem(ctx context.Context, err error) error {
	if reason, ok := errors.AsType[*partner.Reason](err); ok {
		p := &rest.Problem{Status: http.StatusConflict, Code: reason.Code, Detail: reason.Message}
		switch reason.Code {
		case inventory.CodeUnknownProduct:
			p.Status = http.StatusNotFound
		case inventory.CodeChanged:
			p.Status = http.StatusPreconditionFailed
		case inventory.CodeKeyReused:
			p.Status = http.StatusUnprocessableEntity
			p.Errors = []rest.Fault{{Location: "header.Idempotency-Key", Message: "must not be used for two different adjustments"}}
		}
		return p
	}
	if refused, ok := errors.AsType[*record.Error](err); ok {
		p := &rest.Problem{Status: http.StatusConflict, Code: refused.Code, Detail: refused.Text}
		if refused.Kind == record.NotFound {
			p.Status = http.StatusNotFound
		}
		if refused.Decision != nil {
			p.Related = newDecisionBody(refused.Decision)
		}
		return p
	}
	return rest.Failed(ctx, a.Logger, err)
}
