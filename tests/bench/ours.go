package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"waybill/contracts"
	"waybill/tests/internal/system"
)

// ours is the whole system. A piece is an order: placed over REST, done when its last event is on the bus.
type ours struct {
	system *system.System
	orders string // where to place orders
	client *http.Client
	flight *pieces
	// oneProduct lets all orders be for the same product.
	oneProduct bool

	bus       *kgo.Client
	following sync.WaitGroup
	stop      context.CancelFunc
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
	transport := &http.Transport{MaxIdleConns: 0, MaxIdleConnsPerHost: 1000}
	o := &ours{system: s, orders: status.Apps["orders"].URL + "/v1/orders", client: &http.Client{Transport: transport}, flight: newPieces()}
	for n := range products {
		url := status.Apps["fulfillment"].URL + "/v1/inventory/" + product(n)
		code, answer, err := o.send(ctx, http.MethodPut, url, map[string]int{"on_hand": plenty})
		if err != nil {
			return nil, fmt.Errorf("set the stock of %s: %w", product(n), err)
		}
		if code != http.StatusOK {
			return nil, fmt.Errorf("set the stock of %s: %d %s", product(n), code, answer)
		}
	}
	if o.bus, err = kgo.NewClient(kgo.SeedBrokers(status.Broker), kgo.ConsumeTopics(contracts.TopicOrders),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())); err != nil {
		return nil, err
	}
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	o.stop = stop
	o.following.Go(func() { o.follow(following) })
	return o, nil
}

func product(n int) string { return fmt.Sprintf("PROD-%03d", n+1) }

// follow reads the orders' events and tells their ends.
func (o *ours) follow(ctx context.Context) {
	for ctx.Err() == nil {
		o.bus.PollFetches(ctx).EachRecord(func(record *kgo.Record) {
			var event struct {
				Type    string `json:"type"`
				Subject string `json:"subject"`
			}
			if json.Unmarshal(record.Value, &event) != nil {
				return
			}
			id := strings.TrimPrefix(event.Subject, "orders/")
			switch event.Type {
			case contracts.TypeOrderFulfilled:
				o.flight.finish(id, nil)
			case contracts.TypeOrderFulfillmentFailed, contracts.TypeOrderCancelled:
				o.flight.finish(id, fmt.Errorf("the order ended with %s", event.Type))
			}
		})
	}
}

func (o *ours) name() string    { return "orders" }
func (o *ours) pieces() *pieces { return o.flight }

// begin places an order of one line. Its Idempotency-Key is what a careful client sends.
func (o *ours) begin(ctx context.Context, id string) error {
	h := fnv.New32a()
	h.Write([]byte(id)) // never fails
	n := int(h.Sum32() >> 1)
	line := map[string]any{"product_id": product(n % products), "name": "Test Product", "quantity": 2, "price": 49.99}
	if o.oneProduct {
		line["product_id"] = product(0)
	}
	code, answer, err := o.send(ctx, http.MethodPost, o.orders, map[string]any{
		"order_id": id, "customer_id": fmt.Sprintf("CUST-%d", n/products%customers), "items": []any{line}, "total_amount": 99.98,
		"shipping_address": map[string]any{"street": "123 Test St", "city": "Test City", "state": "TS", "zip": "12345"},
	}, "Idempotency-Key", id)
	if err == nil && code != http.StatusAccepted {
		err = fmt.Errorf("place an order: %d %s", code, answer)
	}
	return err
}

func (o *ours) send(ctx context.Context, method, url string, body any, header ...string) (code int, answer []byte, err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := o.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
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

func (o *ours) close() {
	o.stop()
	o.following.Wait()
	o.bus.Close()
	o.client.CloseIdleConnections()
}
