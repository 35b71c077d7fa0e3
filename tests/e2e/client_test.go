package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/tests/internal/system"
)

// patience is how long a test waits for anything the system must do by itself. The longest way back known is that of a
// scheduler killed without warning: its lease runs for 20 seconds.
const patience = 2 * time.Minute

// order is what the tests read of GET /v1/orders/{id}.
type order struct {
	OrderID        string `json:"order_id"`
	CustomerID     string `json:"customer_id"`
	Status         string
	ProcessedAt    string `json:"processed_at"`
	TrackingNumber string `json:"tracking_number"`
	Failure        *struct{ Code, Message string }
}

func line(product string, quantity int, price float64) map[string]any {
	return map[string]any{"product_id": product, "name": "Test Product", "quantity": quantity, "price": price}
}

// orderBody is the body of a POST /v1/orders, with the fields of the seed's orders.
func orderBody(customer string, total float64, items ...map[string]any) map[string]any {
	return map[string]any{
		"customer_id": customer, "items": items, "total_amount": total,
		"shipping_address": map[string]any{"street": "123 Test St", "city": "Test City", "state": "TS", "zip": "12345"},
	}
}

// call sends a request and returns status, header and body; any answer is fine with it.
func call(ctx context.Context, method, url string, body any, header ...string) (int, http.Header, []byte, error) {
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
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, answer, err
}

// place posts an order until it is accepted, as a client does that never gives up: with one Idempotency-Key for all its
// attempts. It returns the order's id.
func place(ctx context.Context, s *system.System, key string, body any) (string, error) {
	for {
		status, header, answer, err := call(ctx, http.MethodPost, s.App("orders").URL+"/v1/orders", body, "Idempotency-Key", key)
		var accepted order
		switch {
		case err == nil && status == http.StatusAccepted:
			if err := json.Unmarshal(answer, &accepted); err != nil {
				return "", err
			}
			if want := "/v1/orders/" + accepted.OrderID; header.Get("Location") != want {
				return "", fmt.Errorf("Location %q, want %q", header.Get("Location"), want)
			}
			return accepted.OrderID, nil
		case err == nil && status != http.StatusServiceUnavailable && status != http.StatusConflict:
			return "", fmt.Errorf("place an order: %d %s", status, answer)
		}
		if !wait(ctx, 100*time.Millisecond) {
			return "", errors.Join(fmt.Errorf("place an order: %d %s", status, answer), err, ctx.Err())
		}
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// await polls an order until it has the status.
func await(ctx context.Context, s *system.System, id, status string) (order, error) {
	return awaitAny(ctx, s, id, status)
}

func awaitAny(ctx context.Context, s *system.System, id string, statuses ...string) (order, error) {
	for {
		o, code, err := read(ctx, s, id)
		if err == nil && code == http.StatusOK && slices.Contains(statuses, o.Status) {
			return o, nil
		}
		if !wait(ctx, 10*time.Millisecond) {
			return o, fmt.Errorf("order %s is %q, not %q, in time: %w", id, o.Status, statuses, errors.Join(err, ctx.Err()))
		}
	}
}

func read(ctx context.Context, s *system.System, id string) (order, int, error) {
	var o order
	code, _, answer, err := call(ctx, http.MethodGet, s.App("orders").URL+"/v1/orders/"+id, nil)
	if err == nil && code == http.StatusOK {
		err = json.Unmarshal(answer, &o)
	}
	return o, code, err
}

// timelineEntry is what the tests read of an order's timeline.
type timelineEntry struct {
	EventID string `json:"event_id"`
	Type    string
	Step    string
	Outcome string
	Code    string
	Status  string
}

func timeline(t *testing.T, s *system.System, id string) []timelineEntry {
	t.Helper()
	code, _, answer, err := call(t.Context(), http.MethodGet, s.App("orders").URL+"/v1/orders/"+id+"/timeline", nil)
	if err != nil || code != http.StatusOK {
		t.Fatalf("timeline of %s: %d %s %v", id, code, answer, err)
	}
	var page struct{ Items []timelineEntry }
	if err := json.Unmarshal(answer, &page); err != nil {
		t.Fatal(err)
	}
	return page.Items
}

// story is a timeline in words.
func story(entries []timelineEntry) []string {
	told := make([]string, 0, len(entries))
	for _, e := range entries {
		words := e.Type
		if e.Step != "" {
			words = e.Step + " " + e.Outcome
		}
		told = append(told, words)
	}
	return told
}

// books is what payment provider, warehouse and carrier recorded of an order.
type books struct {
	Charges, Refunds, Parcels int
	Reservation               string
}

func booksOf(ctx context.Context, s *system.System, id string) (books, error) {
	var payment struct{ Charges, Refunds []json.RawMessage }
	var shipment struct{ Booked []json.RawMessage }
	var reservation struct{ State string }
	for key, doc := range map[string]any{"payment:": &payment, "shipment:": &shipment, "reservation:": &reservation} {
		if _, err := s.State(ctx, "fulfillment", "statestore", key+id, doc); err != nil {
			return books{}, err
		}
	}
	return books{len(payment.Charges), len(payment.Refunds), len(shipment.Booked), reservation.State}, nil
}

func wantBooks(t *testing.T, s *system.System, id string, want books) {
	t.Helper()
	got, err := booksOf(t.Context(), s, id)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("books of %s (-want +got):\n%s", id, diff)
	}
}

var fulfilledBooks = books{Charges: 1, Parcels: 1, Reservation: "shipped"}

// stock is a product's stock.
type stock struct {
	OnHand   int `json:"on_hand"`
	Reserved int
	Shipped  int
}

func setStock(t *testing.T, s *system.System, product string, onHand int) {
	t.Helper()
	code, _, answer, err := call(t.Context(), http.MethodPut, s.App("fulfillment").URL+"/v1/inventory/"+product, map[string]int{"on_hand": onHand})
	if err != nil || code != http.StatusOK {
		t.Fatalf("set stock of %s: %d %s %v", product, code, answer, err)
	}
}

func stockOf(t *testing.T, s *system.System, product string) stock {
	t.Helper()
	code, _, answer, err := call(t.Context(), http.MethodGet, s.App("fulfillment").URL+"/v1/inventory/"+product, nil)
	if err != nil || code != http.StatusOK {
		t.Fatalf("stock of %s: %d %s %v", product, code, answer, err)
	}
	var got stock
	if err := json.Unmarshal(answer, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

// impatient gives a test's waiting an end.
func impatient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// ownSystem starts a system that only this test uses, and stops it when the test ends.
func ownSystem(ctx context.Context, t *testing.T, environment ...string) *system.System {
	t.Helper()
	out := &output{}
	s, err := system.Start(ctx, runner, t.TempDir(), out, environment...)
	if err != nil {
		t.Fatalf("%v\nthe runner said:\n%s", err, out)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the runner said:\n%s", out)
		}
	})
	return s
}
