package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"net/http"

	"waybill/contracts"
	"waybill/tests/internal/bus"
	"waybill/tests/internal/client"
	"waybill/tests/internal/system"
)

// ours is the whole system. A piece is an order: placed over REST, done when its last event is on the bus.
type ours struct {
	system *system.System
	orders string // where to place orders
	flight *pieces
	// oneProduct makes all orders be for the same product.
	oneProduct bool

	follower *bus.Follower
}

const (
	products  = 20
	customers = 200
	plenty    = 1_000_000
)

func newOurs(ctx context.Context, s *system.System) (*ours, error) {
	status, err := s.Status()
	if err != nil {
		return nil, err
	}
	o := &ours{system: s, orders: status.Apps[contracts.AppOrders].URL + "/v1/orders", flight: newPieces()}
	for n := range products {
		if err := client.SetStock(ctx, s, product(n), plenty); err != nil {
			return nil, err
		}
	}
	o.follower, err = bus.Follow(ctx, s, o.seen, contracts.TopicOrders)
	return o, err
}

func product(n int) string { return fmt.Sprintf("PROD-%03d", n+1) }

// seen records the end of an order.
func (o *ours) seen(e bus.Event) {
	switch {
	case e.Type == contracts.TypeOrderFulfilled:
		o.flight.finish(e.Order, nil)
	case e.Ends():
		o.flight.finish(e.Order, fmt.Errorf("the order ended with %s", e.Type))
	}
}

func (o *ours) name() string    { return "orders" }
func (o *ours) pieces() *pieces { return o.flight }

// begin places an order of one line. Its Idempotency-Key is what a careful client sends.
func (o *ours) begin(ctx context.Context, id string) error {
	h := fnv.New32a()
	h.Write([]byte(id)) // never fails
	n := int(h.Sum32() >> 1)
	of := product(n % products)
	if o.oneProduct {
		of = product(0)
	}
	body := client.Body(fmt.Sprintf("CUST-%d", n/products%customers), 99.98, client.Line(of, 2, 49.99))
	body["order_id"] = id
	code, _, answer, err := client.Call(ctx, http.MethodPost, o.orders, body, "Idempotency-Key", id)
	if err == nil && code != http.StatusAccepted {
		err = fmt.Errorf("place an order: %d %s", code, answer)
	}
	return err
}

func (o *ours) processes() ([]process, error) {
	status, err := o.system.Status()
	if err != nil {
		return nil, err
	}
	found := make([]process, 0, len(status.Processes))
	for _, p := range status.Processes {
		found = append(found, process{name: p.Name, pid: p.PID})
	}
	return found, nil
}

func (o *ours) close() { o.follower.Close() }
