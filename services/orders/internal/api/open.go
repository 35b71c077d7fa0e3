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
		More  bool        `json:"more" doc:"There are more than were asked for."`
	}
}

type openOrder struct {
	OrderID    string       `json:"order_id"`
	CustomerID string       `json:"customer_id"`
	Status     order.Status `json:"status"`
	UpdatedAt  time.Time    `json:"updated_at"`
}

// errEnough ends a list that is as long as was asked for.
var errEnough = errors.New("enough")

// listOpen shows the orders of the backlog, and takes none out of it.
func (s *Service) listOpen(ctx context.Context, in *openInput) (*openOutput, error) {
	out := &openOutput{}
	out.Body.Items = []openOrder{}
	seen := map[order.ID]bool{} // the backlog can name an order twice
	err := s.Orders.Sweep(ctx, func(_ context.Context, ids []order.ID, found map[order.ID]*order.Order) ([]order.ID, error) {
		for _, id := range ids {
			o := found[id]
			if o == nil || seen[id] || o.Status().Final() {
				continue
			}
			if seen[id] = true; len(out.Body.Items) == in.Limit {
				return nil, errEnough
			}
			out.Body.Items = append(out.Body.Items, openOrder{string(id), o.CustomerID(), o.Status(), o.Snapshot().UpdatedAt})
		}
		return nil, nil
	})
	switch {
	case errors.Is(err, errEnough):
		out.Body.More = true
	case errors.Is(err, state.ErrUnreadable):
		s.Logger.ErrorContext(ctx, "order cannot be read and is missing from the list of open orders", slog.Any("error", err))
	case err != nil:
		return nil, s.problem(ctx, err)
	}
	return out, nil
}
