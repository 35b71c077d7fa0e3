package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/oklog/ulid/v2"

	"waybill/services/orders/internal/admission"
	"waybill/services/orders/internal/idempotency"
	"waybill/services/orders/internal/order"
)

// requestTimeout bounds how long placing or cancelling an order may take, retries included: it is over before another
// process takes the request's key over.
const requestTimeout = idempotency.Lease - time.Second

type placeInput struct {
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"255" pattern:"^[!-~]+$" patternDescription:"visible ASCII characters" doc:"Up to 255 visible ASCII characters of the client's choice. A request repeated with its key gets the same answer and makes no second order."`
	Body           newOrder
}

// Resolve adds the domain's faults to those of the schema, so that one answer names everything wrong with a request.
func (in *placeInput) Resolve(huma.Context) []error {
	d := in.Body.draft()
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

// place accepts an order: it is stored and announced when place returns without an error.
func (s *Service) place(ctx context.Context, in *placeInput) (*placeOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	draft := in.Body.draft()
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
		status, err = s.accept(ctx, o)
	} else {
		id, err = s.Keys.Do(ctx, in.IdempotencyKey, request, id, s.placing(draft))
	}
	if err != nil {
		return nil, s.problem(ctx, fmt.Errorf("place order: %w", err))
	}
	at := "/v1/orders/" + id
	return &placeOutput{at, accepted{id, status, links{at, at + "/timeline"}}}, nil
}

// admit gets the room that a new order needs, before anything of it is stored. A request that repeats an earlier one needs none if
// the order is stored. The error is an *admission.Refusal, or says that the key belongs to another request.
func (s *Service) admit(ctx context.Context, o *order.Order, key string, request []byte, named string) (*admission.Slot, error) {
	slot, refusal := s.Admission.Place(ctx, o)
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
	if _, err := s.Orders.Get(ctx, order.ID(id)); err != nil {
		return nil, refusal
	}
	return nil, nil
}

// placing is the work of a request for the draft that carries a key. The subject is the order's id.
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
				_, err = s.accept(ctx, o)
			}
			return err
		},
		// What is received no more was announced, or nobody waits for it any more, and is in the backlog as far as it must be.
		// The content matters where the client chose the id: the order may be another request's, and this one was refused.
		Done: func(ctx context.Context, id string) (bool, error) {
			o, err := named(id)
			if err != nil {
				return false, err
			}
			stored, err := s.Orders.Get(ctx, o.ID())
			var refused *order.Error
			if errors.As(err, &refused) && refused.Kind == order.NotFound {
				return false, nil
			}
			return err == nil && stored.Status() != order.Received && stored.SameContent(o), err
		},
	}
}

// accept stores the order, announces it, and has it watched from then on, for an announcement can be lost. An order that is
// stored already is announced again as long as nothing shows that its announcement arrived. It returns the status of the
// stored order. An order that was not announced is not watched: nobody was told that it is accepted, and its client may
// have placed another instead.
func (s *Service) accept(ctx context.Context, o *order.Order) (order.Status, error) {
	created := o.Place()
	err := s.Orders.Create(ctx, o)
	var refused *order.Error
	if errors.As(err, &refused) && refused.Kind == order.Taken {
		stored, readErr := s.Orders.Get(ctx, o.ID())
		if readErr != nil {
			return "", readErr
		}
		if !stored.SameContent(o) {
			return "", err
		}
		if stored.Status() != order.Received {
			if !stored.Status().Final() {
				// It is in the backlog, unless that lost it: placing an order again is how it gets back there.
				if err := s.Orders.Watch(ctx, stored); err != nil {
					return "", err
				}
			}
			return stored.Status(), nil
		}
		o, created = stored, stored.Snapshot().Timeline[0]
	} else if err != nil {
		return "", err
	}
	if err := s.announce(ctx, o, created); err != nil {
		return "", err
	}
	if err := s.Orders.Watch(ctx, o); err != nil {
		return "", err
	}
	s.Admission.Observe(o)
	if s.Admission.BusHeld() {
		if err := s.confirmPlaced(ctx, o); err != nil {
			s.Logger.WarnContext(ctx, "order not confirmed at once; its event will confirm it", slog.String("order_id", string(o.ID())), slog.Any("error", err))
		}
	}
	return o.Status(), nil
}
