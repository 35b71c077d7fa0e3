package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"waybill/contracts"
	"waybill/tests/internal/bus"
	"waybill/tests/internal/client"
	"waybill/tests/internal/system"
)

// kind is an order with a certain outcome.
type kind struct {
	name string
	body func(customer string) map[string]any
	end  string // the event that it must end with
	// cancel and approve say whether the order is cancelled or approved on the way.
	cancel, approve bool
}

func order(customer string, total float64, change func(body map[string]any)) map[string]any {
	body := client.Body(customer, total, client.Line("PROD-001", 2, total/2))
	if change != nil {
		change(body)
	}
	return body
}

// plain is the kind whose duration is judged: only the system itself makes it wait.
const plain = "fulfilled"

// mix is repeated for as long as the load runs.
func mix() []kind {
	const small, large = 99.98, 5999.98
	fulfilled := kind{name: plain, end: contracts.TypeOrderFulfilled, body: func(c string) map[string]any { return order(c, small, nil) }}
	return []kind{
		fulfilled, fulfilled, fulfilled,
		{name: "declined", end: contracts.TypeOrderFulfillmentFailed, body: func(c string) map[string]any {
			return order(c, small, func(b map[string]any) { b["payment_token"] = "tok_declined" })
		}},
		fulfilled, fulfilled,
		{name: "carrier refuses", end: contracts.TypeOrderFulfillmentFailed, body: func(c string) map[string]any {
			return order(c, small, func(b map[string]any) { b["shipping_address"].(map[string]any)["zip"] = "X-REFUSED" })
		}},
		fulfilled,
		{name: "approved", end: contracts.TypeOrderFulfilled, approve: true, body: func(c string) map[string]any { return order(c, large, nil) }},
		{name: "cancelled", end: contracts.TypeOrderCancelled, cancel: true, body: func(c string) map[string]any {
			return order(c, small, func(b map[string]any) { b["payment_token"] = "tok_slow" }) // long enough to cancel it
		}},
	}
}

// orderTimeout is how long an order may take until it counts as lost.
const orderTimeout = 3 * time.Minute

// shop places orders and reads their outcomes from the bus.
type shop struct {
	system *system.System
	run    string // makes the ids of this run unique

	mu       sync.Mutex
	waiting  map[string]chan string // order → the event that it ended with
	approval map[string]chan struct{}

	follower *bus.Follower
}

func newShop(ctx context.Context, s *system.System) (*shop, error) {
	if err := client.SetStock(ctx, s, "PROD-001", 10_000_000); err != nil {
		return nil, err
	}
	h := &shop{
		system: s, run: fmt.Sprintf("SOAK-%d", time.Now().Unix()),
		waiting: map[string]chan string{}, approval: map[string]chan struct{}{},
	}
	var err error
	h.follower, err = bus.Follow(ctx, s, h.seen, contracts.TopicOrders, contracts.TopicFulfillment)
	return h, err
}

func (h *shop) close() { h.follower.Close() }

func (h *shop) seen(e bus.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case e.Ends():
		if end := h.waiting[e.Order]; end != nil {
			end <- e.Type
			delete(h.waiting, e.Order)
		}
	case e.Type == contracts.TypeApprovalRequested:
		if asked := h.approval[e.Order]; asked != nil {
			close(asked)
			delete(h.approval, e.Order)
		}
	}
}

// sell places order number n and returns when it has ended as expected. The error says how it ended instead.
func (h *shop) sell(ctx context.Context, n int, k kind) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, orderTimeout, fmt.Errorf("not ended within %s: lost", orderTimeout))
	defer cancel()
	id := fmt.Sprintf("%s-%d", h.run, n)
	end, asked := make(chan string, 1), make(chan struct{})
	h.mu.Lock()
	h.waiting[id], h.approval[id] = end, asked
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.waiting, id)
		delete(h.approval, id)
		h.mu.Unlock()
		if err != nil {
			err = fmt.Errorf("order %s (%s): %w", id, k.name, errors.Join(err, context.Cause(ctx)))
		}
	}()
	customer := fmt.Sprintf("CUST-%d", n%200)
	if n%10 == 0 {
		customer = "CUST-123" // who can be reached: the runner gave this customer an address
	}
	body := k.body(customer)
	body["order_id"] = id
	if _, err := client.Place(ctx, h.system, id, body); err != nil {
		return err
	}
	switch {
	case k.cancel:
		err = h.insist(ctx, h.system.App("orders").URL+"/v1/orders/"+id+"/cancel", map[string]any{"reason": "Ordered twice."})
	case k.approve:
		select {
		case <-asked:
		case <-ctx.Done():
			return errors.New("nobody was asked for an approval")
		}
		err = h.insist(ctx, h.system.App("fulfillment").URL+"/v1/approvals/"+id,
			map[string]any{"approved": true, "approver": "approver@example.com", "reason": "Known customer, address checked."})
	}
	if err != nil {
		return err
	}
	select {
	case got := <-end:
		if got != k.end {
			return fmt.Errorf("it ended with %s, want %s", got, k.end)
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// insist retries a POST until it succeeds: a new order may not be known everywhere yet.
func (h *shop) insist(ctx context.Context, url string, body any) error {
	for {
		code, _, answer, err := client.Call(ctx, http.MethodPost, url, body)
		if err == nil && code/100 == 2 {
			return nil
		}
		if err == nil && code != http.StatusNotFound && code != http.StatusServiceUnavailable && code != http.StatusConflict {
			return fmt.Errorf("POST %s: %d %s", url, code, answer)
		}
		if !client.Wait(ctx, 100*time.Millisecond) {
			return errors.Join(fmt.Errorf("POST %s: %d %s", url, code, answer), err)
		}
	}
}
