package api

import (
	"context"
	"errors"
	"net/http"

	"waybill/platform/rest"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/journal"
	"waybill/services/fulfillment/internal/partner"
)

// problem is the one place where errors become answers.
func (a API) problem(ctx context.Context, err error) error {
	if reason, ok := errors.AsType[*partner.Reason](err); ok {
		p := &rest.Problem{Status: http.StatusConflict, Code: reason.Code, Detail: reason.Message}
		if reason.Code == inventory.CodeUnknownProduct {
			p.Status = http.StatusNotFound
		}
		return p
	}
	if refused, ok := errors.AsType[*journal.Error](err); ok {
		p := &rest.Problem{Status: http.StatusConflict, Code: refused.Code, Detail: refused.Text}
		if refused.Kind == journal.NotFound {
			p.Status = http.StatusNotFound
		}
		if refused.Decision != nil {
			p.Related = shownDecision(refused.Decision)
		}
		return p
	}
	return rest.Failed(ctx, a.Logger, err)
}
