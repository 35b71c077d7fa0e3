package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"waybill/contracts"
	"waybill/platform/rest"
	"waybill/services/orders/internal/order"
)

// shownOrder is an order as clients see it: without the payment token.
type shownOrder struct {
	OrderID           string            `json:"order_id"`
	CustomerID        string            `json:"customer_id"`
	Status            order.Status      `json:"status"`
	Items             []contracts.Line  `json:"items" nullable:"false"`
	TotalAmount       contracts.Amount  `json:"total_amount"`
	Currency          string            `json:"currency"`
	ShipTo            contracts.Address `json:"shipping_address"`
	CreatedAt         time.Time         `json:"created_at"`
	ProcessedAt       time.Time         `json:"processed_at,omitzero" doc:"When the order was confirmed."`
	UpdatedAt         time.Time         `json:"updated_at"`
	TrackingNumber    string            `json:"tracking_number,omitempty"`
	Carrier           string            `json:"carrier,omitempty"`
	EstimatedDelivery time.Time         `json:"estimated_delivery,omitzero"`
	Failure           *failure          `json:"failure,omitempty" doc:"Why the order was not fulfilled."`
	Cancellation      *cancellation     `json:"cancellation,omitempty" doc:"The customer's request to cancel the order. The order's status shows the outcome."`
}

type cancellation struct {
	RequestedAt time.Time `json:"requested_at"`
	Reason      string    `json:"reason,omitempty" doc:"The customer's own words."`
	Refused     bool      `json:"refused,omitempty" doc:"Whether it came too late."`
	Accepted    bool      `json:"accepted,omitempty" doc:"Whether the order is cancelled or will be."`
}

type failure struct {
	Code    string `json:"code" doc:"Stable, for programs."`
	Message string `json:"message" doc:"For people."`
}

func show(o *order.Order) shownOrder {
	s := o.Snapshot()
	shown := shownOrder{
		OrderID: s.Content.OrderID, CustomerID: s.Content.CustomerID, Status: s.Status, Items: s.Content.Items,
		TotalAmount: s.Content.TotalAmount, Currency: s.Content.Currency, ShipTo: s.Content.ShipTo,
		CreatedAt: s.CreatedAt, ProcessedAt: s.ProcessedAt, UpdatedAt: s.UpdatedAt,
		TrackingNumber: s.Shipment.TrackingNumber, Carrier: s.Shipment.Carrier, EstimatedDelivery: s.Shipment.EstimatedDelivery,
	}
	if s.Failure != (order.Failure{}) {
		shown.Failure = &failure{s.Failure.Code, s.Failure.Message}
	}
	if c, requested := o.Cancellation(); requested {
		shown.Cancellation = (*cancellation)(&c)
	}
	return shown
}

type getInput struct {
	ID          string `path:"id"`
	IfNoneMatch string `header:"If-None-Match" doc:"ETags of the versions the client has."`
}

type getOutput struct {
	Status int
	ETag   string `header:"ETag"`
	Body   *shownOrder
}

func (s *Service) get(ctx context.Context, in *getInput) (*getOutput, error) {
	o, err := s.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	shown := show(o)
	etag, err := etagOf(shown)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	if matches(in.IfNoneMatch, etag) {
		return &getOutput{Status: http.StatusNotModified, ETag: etag}, nil
	}
	return &getOutput{http.StatusOK, etag, &shown}, nil
}

// pathID parses the order id of a path. An id that no order can have is not found.
func (s *Service) pathID(ctx context.Context, id string) (order.ID, error) {
	parsed, err := order.ParseID(id)
	if err != nil {
		return "", s.problem(ctx, &order.Error{Kind: order.NotFound, Code: "order_not_found", Text: "There is no order with that id."})
	}
	return parsed, nil
}

// find reads the order that a path names.
func (s *Service) find(ctx context.Context, id string) (*order.Order, error) {
	parsed, err := s.pathID(ctx, id)
	if err != nil {
		return nil, err
	}
	o, err := s.Reader.Get(ctx, parsed)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return o, nil
}

// etagOf derives the ETag from the response, not from the stored document, so it does not depend on the store.
func etagOf(v any) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encode: %w", err)
	}
	sum := sha256.Sum256(b)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`, nil
}

// matches uses the weak comparison that RFC 9110, section 13.1.2, requires for If-None-Match.
func matches(ifNoneMatch, etag string) bool {
	for known := range strings.SplitSeq(ifNoneMatch, ",") {
		if known = strings.TrimPrefix(strings.TrimSpace(known), "W/"); known == etag || known == "*" {
			return true
		}
	}
	return false
}

type listInput struct {
	CustomerID string       `query:"customer_id" required:"true" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" patternDescription:"1 to 64 letters, digits, dots, underscores and hyphens, the first a letter or digit"`
	Status     order.Status `query:"status" enum:"received,confirmed,fulfilling,awaiting_approval,fulfilled,fulfillment_failed,cancelled,needs_attention"`
	Limit      int          `query:"limit" minimum:"1" maximum:"100" default:"20"`
	Cursor     string       `query:"cursor" minLength:"1" maxLength:"200" pattern:"^[A-Za-z0-9_-]+$" patternDescription:"a next_cursor of this API" doc:"The next_cursor of the previous page."`
}

type listOutput struct {
	Body orderPage
}

type orderPage struct {
	Items      []shownOrder `json:"items" nullable:"false"`
	NextCursor string       `json:"next_cursor,omitempty" doc:"The cursor of the next page. The last page has none."`
}

func (s *Service) list(ctx context.Context, in *listInput) (*listOutput, error) {
	before, ok := parseCursor(in.Cursor, in.CustomerID)
	if !ok {
		return nil, &rest.Problem{
			Status: http.StatusUnprocessableEntity, Code: "invalid_request", Detail: "validation failed",
			Errors: []rest.Fault{{Location: "query.cursor", Message: "must be the next_cursor of a page of the same customer", Value: in.Cursor}},
		}
	}
	orders, next, err := s.Reader.List(ctx, in.CustomerID, in.Status, in.Limit, before)
	if err != nil {
		return nil, s.problem(ctx, fmt.Errorf("list orders: %w", err))
	}
	out := &listOutput{orderPage{Items: make([]shownOrder, len(orders)), NextCursor: cursor(next, in.CustomerID)}}
	for i, o := range orders {
		out.Body.Items[i] = show(o)
	}
	return out, nil
}

// cursor encodes a position in a customer's index. It names the customer, so it cannot be used for another one by mistake.
func cursor(position int, customerID string) string {
	if position == 0 {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(position) + ":" + customerID))
}

func parseCursor(s, customerID string) (position int, ok bool) {
	if s == "" {
		return 0, true
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return 0, false
	}
	number, customer, _ := strings.Cut(string(b), ":")
	position, err = strconv.Atoi(number)
	return position, err == nil && position > 0 && customer == customerID
}

type timelineInput struct {
	ID string `path:"id"`
}

type timelineOutput struct {
	Body timelineBody
}

type timelineBody struct {
	Items []timelineEvent `json:"items" nullable:"false"`
}

type timelineEvent struct {
	EventID           string           `json:"event_id"`
	Type              string           `json:"type"`
	Time              time.Time        `json:"time"`
	Source            string           `json:"source"`
	Status            order.Status     `json:"status" doc:"The order's status after the event."`
	Previous          order.Status     `json:"previous_status,omitempty" doc:"The status before, if the event changed it."`
	CausedBy          string           `json:"caused_by,omitempty" doc:"The event that caused this one."`
	Step              string           `json:"step,omitempty"`
	Outcome           string           `json:"outcome,omitempty"`
	Code              string           `json:"code,omitempty"`
	Message           string           `json:"message,omitempty"`
	Amount            contracts.Amount `json:"amount,omitempty"`
	Currency          string           `json:"currency,omitempty"`
	TransactionID     string           `json:"transaction_id,omitempty"`
	Carrier           string           `json:"carrier,omitempty"`
	TrackingNumber    string           `json:"tracking_number,omitempty"`
	EstimatedDelivery time.Time        `json:"estimated_delivery,omitzero"`
	Undone            []string         `json:"undone,omitempty" doc:"The steps that were compensated, newest first."`
	NotUndone         []string         `json:"not_undone,omitempty" doc:"The steps that could not be compensated; a person must settle them."`
	Actor             string           `json:"actor,omitempty" doc:"The person who decided, if a person did."`
	Reason            string           `json:"reason,omitempty" doc:"Why the customer wants the order cancelled."`
	ExpiresAt         time.Time        `json:"expires_at,omitzero" doc:"When the wait for a decision ends."`
}

func (s *Service) timeline(ctx context.Context, in *timelineInput) (*timelineOutput, error) {
	o, err := s.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	entries := o.Snapshot().Timeline
	out := &timelineOutput{timelineBody{make([]timelineEvent, len(entries))}}
	for i, e := range entries {
		out.Body.Items[i] = timelineEvent(e)
	}
	return out, nil
}
