// Package demo shows what the system does. It places orders that end in every possible way, approves one and cancels another,
// and prints each step. It uses only the REST APIs.
package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"waybill/contracts"
)

// System holds the addresses of the services, as http://host:port.
type System struct {
	Orders      string
	Fulfillment string
}

// Statuses of an order.
const (
	statusConfirmed        = "confirmed"
	statusFulfilling       = "fulfilling"
	statusAwaitingApproval = "awaiting_approval"
	statusFulfilled        = "fulfilled"
	statusFailed           = "fulfillment_failed"
	statusCancelled        = "cancelled"
)

// scenario is one order to place, and its expected end.
type scenario struct {
	title  string
	change func(*request)
	want   string
	// approve and cancel are the demo's action, as soon as the order's status permits it.
	approve, cancel bool
}

func scenarios() []scenario {
	return []scenario{
		{title: "two pieces, paid and shipped", want: statusFulfilled},
		{
			title: "a product that is not in stock", want: statusFailed,
			change: func(r *request) { r.Items[0].ProductID = "INVALID-PRODUCT" },
		},
		{
			title: "a card that is declined", want: statusFailed,
			change: func(r *request) { r.PaymentToken = "tok_declined" },
		},
		{
			title: "an address that no carrier serves", want: statusFailed,
			change: func(r *request) { r.ShipTo.Zip = "X-REFUSED" },
		},
		{
			title: "more than 5,000, approved", want: statusFulfilled, approve: true,
			change: func(r *request) { r.Items[0].Price, r.Total = "2999.99", "5999.98" },
		},
		{
			title: "cancelled while it is being paid", want: statusCancelled, cancel: true,
			change: func(r *request) { r.PaymentToken = "tok_slow" },
		},
	}
}

// request is an order as a client sends it. Amounts are json.Number, so that none is rounded.
type request struct {
	CustomerID   string            `json:"customer_id"`
	Items        []line            `json:"items"`
	Total        json.Number       `json:"total_amount"`
	ShipTo       contracts.Address `json:"shipping_address"`
	PaymentToken string            `json:"payment_token,omitempty"`
}

type line struct {
	ProductID string      `json:"product_id"`
	Name      string      `json:"name"`
	Quantity  int         `json:"quantity"`
	Price     json.Number `json:"price"`
}

func (s scenario) request() request {
	r := request{
		CustomerID: "CUST-123",
		Items:      []line{{ProductID: "PROD-001", Name: "Test Product", Quantity: 2, Price: "49.99"}},
		Total:      "99.98",
		ShipTo:     contracts.Address{Street: "123 Test St", City: "Test City", State: "TS", Zip: "12345"},
	}
	if s.change != nil {
		s.change(&r)
	}
	return r
}

// shown holds the fields of an order that the demo reads.
type shown struct {
	OrderID   string    `json:"order_id"`
	Status    string    `json:"status"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	Failure   *struct {
		Message string `json:"message"`
	} `json:"failure"`
}

func (o shown) final() bool {
	return o.Status == statusFulfilled || o.Status == statusFailed || o.Status == statusCancelled
}

// run is one order that the demo placed.
type run struct {
	scenario
	order shown
	acted bool
	steps map[string]string // step → its outcome, as last printed
}

// player plays the scenarios.
type player struct {
	system System
	client *http.Client
	out    io.Writer
	began  time.Time
	runs   []*run
}

// Run places the orders, follows them until each is final, and prints a table of how they ended. It fails when an order ends in
// another way than expected or ctx ends first; it prints the table in these cases, too.
func Run(ctx context.Context, client *http.Client, system System, out io.Writer) error {
	p := &player{system: system, client: client, out: out, began: time.Now()}
	err := p.place(ctx)
	if err == nil {
		err = p.follow(ctx)
	}
	if err != nil {
		return errors.Join(err, p.table())
	}
	return errors.Join(p.table(), p.verdict())
}

func (p *player) say(r *run, format string, args ...any) error {
	_, err := fmt.Fprintf(p.out, "%6.1fs  %-34s %s\n", time.Since(p.began).Seconds(), r.title, fmt.Sprintf(format, args...))
	return err
}

func (p *player) place(ctx context.Context) error {
	for _, s := range scenarios() {
		r := &run{scenario: s, steps: map[string]string{}}
		code, text, err := p.call(ctx, http.MethodPost, p.system.Orders, []string{"v1", "orders"}, s.request(), &r.order)
		if err != nil {
			return fmt.Errorf("place an order: %w", err)
		}
		if code != http.StatusAccepted {
			return fmt.Errorf("place an order: status %d: %s", code, text)
		}
		p.runs = append(p.runs, r)
		if err := p.say(r, "placed as %s", r.order.OrderID); err != nil {
			return err
		}
	}
	return nil
}

// follow polls every order and acts on it until all are final.
func (p *player) follow(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		pending := 0
		for _, r := range p.runs {
			if r.order.final() {
				continue
			}
			if err := p.poll(ctx, r); err != nil {
				return err
			}
			if !r.order.final() {
				pending++
			}
		}
		if pending == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d orders are not final: %w", pending, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// poll prints the changes of an order and acts on it.
func (p *player) poll(ctx context.Context, r *run) error {
	if err := p.printSteps(ctx, r); err != nil {
		return err
	}
	before := r.order.Status
	code, text, err := p.call(ctx, http.MethodGet, p.system.Orders, []string{"v1", "orders", r.order.OrderID}, nil, &r.order)
	if err != nil {
		return fmt.Errorf("read order %s: %w", r.order.OrderID, err)
	}
	if code != http.StatusOK {
		return fmt.Errorf("read order %s: status %d: %s", r.order.OrderID, code, text)
	}
	if r.order.Status != before {
		if r.order.final() { // print the remaining steps before the end
			if err := p.printSteps(ctx, r); err != nil {
				return err
			}
		}
		if err := p.say(r, "is %s%s", r.order.Status, r.reason()); err != nil {
			return err
		}
	}
	return p.act(ctx, r)
}

func (r *run) reason() string {
	if r.order.Failure == nil || r.order.Failure.Message == "" {
		return ""
	}
	return ": " + r.order.Failure.Message
}

// printSteps prints the steps of the order's saga that changed since the last call.
func (p *player) printSteps(ctx context.Context, r *run) error {
	var saga struct {
		Steps []struct {
			Step     string `json:"step"`
			Outcome  string `json:"outcome"`
			Attempts int    `json:"attempts"`
		} `json:"steps"`
	}
	code, text, err := p.call(ctx, http.MethodGet, p.system.Fulfillment, []string{"v1", "fulfillments", r.order.OrderID}, nil, &saga)
	switch {
	case err != nil:
		return fmt.Errorf("read the saga of %s: %w", r.order.OrderID, err)
	case code == http.StatusNotFound: // fulfillment has not received the order yet
		return nil
	case code != http.StatusOK:
		return fmt.Errorf("read the saga of %s: status %d: %s", r.order.OrderID, code, text)
	}
	seen := map[string]int{}
	for _, s := range saga.Steps {
		// A step can appear more than once, such as a compensation that was repaired.
		seen[s.Step]++
		key := fmt.Sprintf("%s/%d", s.Step, seen[s.Step])
		if r.steps[key] == s.Outcome {
			continue
		}
		r.steps[key] = s.Outcome
		if err := p.say(r, "  %s %s", s.Step, s.Outcome); err != nil {
			return err
		}
	}
	return nil
}

// act approves or cancels the order, if its scenario says so and its status permits it.
func (p *player) act(ctx context.Context, r *run) error {
	if r.acted {
		return nil
	}
	id := r.order.OrderID
	var code int
	var text string
	var err error
	var did string
	switch {
	case r.approve && r.order.Status == statusAwaitingApproval:
		did = "approved by demo@example.com"
		code, text, err = p.call(ctx, http.MethodPost, p.system.Fulfillment, []string{"v1", "approvals", id},
			map[string]any{"approved": true, "approver": "demo@example.com", "reason": "Known customer, address checked."}, nil)
	case r.cancel && (r.order.Status == statusConfirmed || r.order.Status == statusFulfilling):
		did = "asked to cancel"
		code, text, err = p.call(ctx, http.MethodPost, p.system.Orders, []string{"v1", "orders", id, "cancel"},
			map[string]any{"reason": "Ordered twice."}, nil)
	default:
		return nil
	}
	switch {
	case err != nil:
		return fmt.Errorf("order %s (%s): %w", id, did, err)
	case code == http.StatusNotFound: // the service learns of the order by an event that it has not handled yet
		return nil
	case code == http.StatusServiceUnavailable: // a retry is safe
		return nil
	case code/100 != 2:
		return fmt.Errorf("order %s (%s): status %d: %s", id, did, code, text)
	}
	r.acted = true
	return p.say(r, "%s", did)
}

// call sends body as JSON unless it is nil, and decodes a response of 2xx into answer unless that is nil. For any other response
// it returns the beginning of the text.
func (p *player) call(ctx context.Context, method, base string, path []string, body, answer any) (int, string, error) {
	target, err := url.JoinPath(base, path...)
	if err != nil {
		return 0, "", err
	}
	var content io.Reader = http.NoBody
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return 0, "", err
		}
		content = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, content)
	if err != nil {
		return 0, "", err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	const most = 1 << 20
	text, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return 0, "", err
	}
	if resp.StatusCode/100 != 2 {
		const enough = 500
		return resp.StatusCode, strings.Join(strings.Fields(string(text[:min(len(text), enough)])), " "), nil
	}
	if answer != nil {
		if err := json.Unmarshal(text, answer); err != nil {
			return 0, "", fmt.Errorf("%s %s: %w", method, target, err)
		}
	}
	return resp.StatusCode, "", nil
}

func (p *player) table() error {
	if len(p.runs) == 0 {
		return nil
	}
	rows := []string{"ORDER\tSCENARIO\tSTATUS\tTIME\tREASON"}
	for _, r := range p.runs {
		took, reason := "-", ""
		if r.order.final() {
			took = r.order.UpdatedAt.Sub(r.order.CreatedAt).Round(10 * time.Millisecond).String()
		}
		if r.order.Failure != nil {
			reason = r.order.Failure.Message
		}
		rows = append(rows, strings.Join([]string{r.order.OrderID, r.title, r.order.Status, took, reason}, "\t"))
	}
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	if _, err := fmt.Fprintf(w, "\n%s\n\n", strings.Join(rows, "\n")); err != nil {
		return err
	}
	return w.Flush()
}

// verdict returns an error for every order that did not end as expected.
func (p *player) verdict() error {
	var errs []error
	for _, r := range p.runs {
		if r.order.Status != r.want {
			errs = append(errs, fmt.Errorf("order %s (%s) must end as %s, got %s", r.order.OrderID, r.title, r.want, r.order.Status))
		}
	}
	return errors.Join(errs...)
}
