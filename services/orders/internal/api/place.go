package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/oklog/ulid/v2"

	"waybill/services/orders/internal/admission"
	"waybill/services/orders/internal/idempotency"
	"waybill/services/orders/internal/order"
	"waybill/services/orders/internal/orderjson"
)

// requestTimeout bounds placing or cancelling an order, with all retries. It ends before another process may take over the
// request's idempotency key.
const requestTimeout = idempotency.Lease - time.Second

type placeInput struct {
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"255" pattern:"^[!-~]+$" patternDescription:"visible ASCII characters" doc:"Up to 255 visible ASCII characters of the client's choice. A repeated request with the same key gets the same answer and makes no second order."`
	Body           orderjson.NewOrder
}

// Resolve adds the faults that the domain finds to those of the schema, so one answer names all of them.
func (in *placeInput) Resolve(huma.Context) []error {
	d := in.Body.Draft()
	d.ID = cmp.Or(d.ID, newID())
	_, err := order.New(d, time.Time{})
	return details(err)
}

type placeOutput struct {
	Location string `header:"Location" doc:"Where the order can be read."`
	Body     accepted
}

type accepted struct {
	OrderID string       `json:"order_id"`
	Status  order.Status `json:"status"`
	Links   links        `json:"links"`
}

type links struct {
	Self     string `json:"self"`
	Timeline string `json:"timeline"`
}

func newID() string { return "ord-" + ulid.Make().String() }

func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// place accepts an order. If it returns no error, the order is stored and published.
func (s *Service) place(ctx context.Context, in *placeInput) (*placeOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	draft := in.Body.Draft()
	named := draft.ID
	draft.ID = cmp.Or(named, newID())
	o, err := order.New(draft, now())
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	// The id is part of the request only if the client chose it.
	content := o.Snapshot().Content
	content.OrderID = named
	request, err := json.Marshal(content)
	if err != nil {
		return nil, s.problem(ctx, fmt.Errorf("place order: %w", err))
	}
	slot, err := s.admit(ctx, o, in.IdempotencyKey, request, named)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	defer slot.Release()
	id, status := draft.ID, order.Received
	if in.IdempotencyKey == "" {
		status, err = s.Orders.Place(ctx, o)
	} else {
		id, err = s.Keys.Do(ctx, in.IdempotencyKey, request, id, s.placing(draft))
	}
	if err != nil {
		return nil, s.problem(ctx, fmt.Errorf("place order: %w", err))
	}
	at := "/v1/orders/" + id
	return &placeOutput{at, accepted{id, status, links{at, at + "/timeline"}}}, nil
}

// admit gets a slot for a new order before anything of it is stored. A repeated request needs no slot if its order is stored. The
// error is an *admission.Refusal, or says that the key belongs to another request.
func (s *Service) admit(ctx context.Context, o *order.Order, key string, request []byte, named string) (*admission.Slot, error) {
	slot, refusal := s.Admission.Admit(ctx, o)
	if refusal == nil {
		return slot, nil
	}
	id := named
	if key != "" {
		subject, known, err := s.Keys.Subject(ctx, key, request)
		switch {
		case errors.Is(err, idempotency.ErrOtherRequest):
			return nil, err
		case err != nil || !known:
			return nil, refusal
		}
		id = subject
	}
	if id == "" {
		return nil, refusal
	}
	if _, err := s.Reader.Get(ctx, order.ID(id)); err != nil {
		return nil, refusal
	}
	return nil, nil
}

// placing is the work of a request with an idempotency key. Its subject is the order's id.
func (s *Service) placing(draft order.Draft) idempotency.Work {
	named := func(id string) (*order.Order, error) {
		d := draft
		d.ID = id
		return order.New(d, now())
	}
	return idempotency.Work{
		Do: func(ctx context.Context, id string) error {
			o, err := named(id)
			if err == nil {
				_, err = s.Orders.Place(ctx, o)
			}
			return err
		},
		Done: func(ctx context.Context, id string) (bool, error) {
			o, err := named(id)
			if err != nil {
				return false, err
			}
			return s.Orders.Placed(ctx, o)
		},
	}
}
