package api

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"waybill/platform/state"
	"waybill/services/orders/internal/order"
)

type openInput struct {
	Limit int `query:"limit" minimum:"1" maximum:"500" default:"100"`
}

type openOutput struct {
	Body struct {
		Items []openOrder `json:"items" nullable:"false"`
		More  bool        `json:"more" doc:"There are more open orders than the limit."`
	}
}

type openOrder struct {
	OrderID    string       `json:"order_id"`
	CustomerID string       `json:"customer_id"`
	Status     order.Status `json:"status"`
	UpdatedAt  time.Time    `json:"updated_at"`
}

// listOpen lists open orders.
func (s *Service) listOpen(ctx context.Context, in *openInput) (*openOutput, error) {
	orders, more, err := s.Reader.Open(ctx, in.Limit)
	switch {
	case errors.Is(err, state.ErrUnreadable):
		s.Logger.ErrorContext(ctx, "order cannot be read and is missing from the list of open orders", slog.Any("error", err))
	case err != nil:
		return nil, s.problem(ctx, err)
	}
	out := &openOutput{}
	out.Body.More = more
	out.Body.Items = make([]openOrder, len(orders))
	for i, o := range orders {
		out.Body.Items[i] = openOrder{string(o.ID()), o.CustomerID(), o.Status(), o.Snapshot().UpdatedAt}
	}
	return out, nil
}
