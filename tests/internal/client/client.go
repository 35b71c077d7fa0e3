// Package client is a running Waybill as customers and auditors see it: it places orders over REST, waits for their outcome, and
// reads the records of payment provider, warehouse and carrier. It does not depend on how the system runs.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"waybill/tests/internal/system"
)

// System returns the addresses of a service and its sidecar.
type System interface {
	App(name string) system.App
}

// Order is what tests read of GET /v1/orders/{id}.
type Order struct {
	OrderID        string `json:"order_id"`
	CustomerID     string `json:"customer_id"`
	Status         string `json:"status"`
	ProcessedAt    string `json:"processed_at"`
	TrackingNumber string `json:"tracking_number"`
	Failure        *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"failure"`
}

// Line is a line of an order's body.
func Line(product string, quantity int, price float64) map[string]any {
	return map[string]any{"product_id": product, "name": "Test Product", "quantity": quantity, "price": price}
}

// Body is the body of a POST /v1/orders, with the fields of the seed's orders.
func Body(customer string, total float64, items ...map[string]any) map[string]any {
	return map[string]any{
		"customer_id": customer, "items": items, "total_amount": total,
		"shipping_address": map[string]any{"street": "123 Test St", "city": "Test City", "state": "TS", "zip": "12345"},
	}
}

// connections keeps as many connections as a burst has concurrent requests; the default transport keeps two for each host.
var connections = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000, IdleConnTimeout: time.Minute}}

// Call sends a request and returns status, header and body of any answer.
func Call(ctx context.Context, method, url string, body any, header ...string) (int, http.Header, []byte, error) {
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		reader = bytes.NewReader(b)
	default:
		encoded, err := json.Marshal(body)
		if err != nil {
			return 0, nil, nil, err
		}
		reader = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, reader)
	if err != nil {
		return 0, nil, nil, err
	}
	if reader != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := connections.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, answer, err
}

// Place posts an order until it is accepted, as a client that retries: with one Idempotency-Key for all attempts, or without one
// if key is empty. It returns the order's id.
func Place(ctx context.Context, s System, key string, body any) (string, error) {
	var idempotency []string
	if key != "" {
		idempotency = []string{"Idempotency-Key", key}
	}
	for {
		status, header, answer, err := Call(ctx, http.MethodPost, s.App("orders").URL+"/v1/orders", body, idempotency...)
		var accepted Order
		switch {
		case err == nil && status == http.StatusAccepted:
			if err := json.Unmarshal(answer, &accepted); err != nil {
				return "", err
			}
			if want := "/v1/orders/" + accepted.OrderID; header.Get("Location") != want {
				return "", fmt.Errorf("the header Location is %q, want %q", header.Get("Location"), want)
			}
			return accepted.OrderID, nil
		case err == nil && status != http.StatusServiceUnavailable && status != http.StatusConflict:
			return "", fmt.Errorf("place an order: %d %s", status, answer)
		}
		if !Wait(ctx, 100*time.Millisecond) {
			return "", errors.Join(fmt.Errorf("place an order: %d %s", status, answer), err, ctx.Err())
		}
	}
}

// Wait is the pause between two checks of a condition; false means that ctx has ended.
func Wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// Await polls an order until it has one of the statuses.
func Await(ctx context.Context, s System, id string, statuses ...string) (Order, error) {
	for {
		o, code, err := Read(ctx, s, id)
		if err == nil && code == http.StatusOK && slices.Contains(statuses, o.Status) {
			return o, nil
		}
		if !Wait(ctx, 10*time.Millisecond) {
			return o, fmt.Errorf("order %s is %q, not %q, in time: %w", id, o.Status, statuses, errors.Join(err, ctx.Err()))
		}
	}
}

// Read gets an order and the status code of the answer.
func Read(ctx context.Context, s System, id string) (Order, int, error) {
	var o Order
	code, _, answer, err := Call(ctx, http.MethodGet, s.App("orders").URL+"/v1/orders/"+id, nil)
	if err == nil && code == http.StatusOK {
		err = json.Unmarshal(answer, &o)
	}
	return o, code, err
}

// Books is what payment provider, warehouse and carrier recorded for an order.
type Books struct {
	Charges, Refunds, Parcels int
	Reservation               string
}

// Fulfilled is the record of every fulfilled order.
var Fulfilled = Books{Charges: 1, Parcels: 1, Reservation: "shipped"}

// BooksOf reads an order's records from fulfillment's state store.
func BooksOf(ctx context.Context, s System, id string) (Books, error) {
	var payment struct{ Charges, Refunds []json.RawMessage }
	var shipment struct{ Booked []json.RawMessage }
	var reservation struct{ State string }
	for key, doc := range map[string]any{"payment:": &payment, "shipment:": &shipment, "reservation:": &reservation} {
		if _, err := system.ReadState(ctx, s.App("fulfillment").DaprHTTP, "statestore", key+id, doc); err != nil {
			return Books{}, err
		}
	}
	return Books{len(payment.Charges), len(payment.Refunds), len(shipment.Booked), reservation.State}, nil
}

// Stock is a product's stock.
type Stock struct {
	OnHand   int `json:"on_hand"`
	Reserved int `json:"reserved"`
	Shipped  int `json:"shipped"`
}

// SetStock sets the stock of a product.
func SetStock(ctx context.Context, s System, product string, onHand int) error {
	code, _, answer, err := Call(ctx, http.MethodPut, s.App("fulfillment").URL+"/v1/inventory/"+product, map[string]int{"on_hand": onHand})
	if err != nil || code != http.StatusOK {
		return fmt.Errorf("set stock of %s: %d %s: %w", product, code, answer, err)
	}
	return nil
}

// StockOf counts a product.
func StockOf(ctx context.Context, s System, product string) (Stock, error) {
	var got Stock
	code, _, answer, err := Call(ctx, http.MethodGet, s.App("fulfillment").URL+"/v1/inventory/"+product, nil)
	if err != nil || code != http.StatusOK {
		return got, fmt.Errorf("stock of %s: %d %s: %w", product, code, answer, err)
	}
	return got, json.Unmarshal(answer, &got)
}
