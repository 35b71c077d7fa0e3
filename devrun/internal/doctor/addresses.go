package doctor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"waybill/contracts"
)

// Addresses are the addresses of the services. One without an address is not asked.
type Addresses struct {
	Orders, Fulfillment, Notifications string
	// IDs are further orders to check, besides open ones.
	IDs []string
	// Products are further products to check, besides those of the orders.
	Products []string
	Client   *http.Client
}

// Remote examines a running system by the APIs of its services. They list the open orders and sagas; of others it knows those
// that its flags name.
func Remote(ctx context.Context, a Addresses, o Options) (*Report, error) {
	if a.Client == nil {
		a.Client = &http.Client{Timeout: 30 * time.Second}
	}
	o.Running = true
	return run(ctx, &remote{Addresses: a, wanted: map[string]bool{}}, o)
}

// remote is a source that asks the services.
type remote struct {
	Addresses

	ids      []string
	wanted   map[string]bool // products
	pending  map[string]bool // open orders by orders, nil when the list is not whole
	sagas    map[string]bool // open sagas, likewise
	awaited  map[string]bool // approvals, likewise
	unlisted []string        // lists that are longer than one answer
}

func (s *remote) name() string {
	names := slices.DeleteFunc([]string{s.Orders, s.Fulfillment, s.Notifications}, func(name string) bool { return name == "" })
	return fmt.Sprint(names)
}

func (s *remote) known(context.Context) (known, error) {
	return known{orders: s.Orders != "", fulfillment: s.Fulfillment != "", notifications: s.Notifications != ""}, nil
}

func (s *remote) until(context.Context) (time.Time, error) { return time.Time{}, nil }

// get reads an answer into body; false means 404. It returns the answer's hash.
func (s *remote) get(ctx context.Context, base, path string, query url.Values, body any) (there bool, version string, err error) {
	target := base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return false, "", fmt.Errorf("ask %s: %w", target, err)
	}
	resp, err := s.Client.Do(req)
	if err != nil {
		return false, "", fmt.Errorf("ask %s: %w", target, err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	switch {
	case err != nil:
		return false, "", fmt.Errorf("ask %s: %w", target, err)
	case resp.StatusCode == http.StatusNotFound:
		return false, "", nil
	case resp.StatusCode != http.StatusOK:
		return false, "", &answerError{target, resp.StatusCode, string(answer[:min(len(answer), 300)])}
	}
	if err := json.Unmarshal(answer, body); err != nil {
		return false, "", fmt.Errorf("read the answer of %s: %w", target, err)
	}
	sum := sha256.Sum256(answer)
	return true, hex.EncodeToString(sum[:8]), nil
}

// answerError is an answer other than the document or 404.
type answerError struct {
	target string
	status int
	text   string
}

func (e *answerError) Error() string {
	return fmt.Sprintf("%s answered %d: %s", e.target, e.status, e.text)
}

// listLimit is the most entries that one answer of a list has.
const listLimit = 500

// list reads a list of orders; whole is nil if there are more than one answer has.
func (s *remote) list(ctx context.Context, base, path string, query url.Values) (ids []string, whole map[string]bool, err error) {
	var list struct {
		Items []struct {
			OrderID string `json:"order_id"`
		} `json:"items"`
		More bool `json:"more"`
	}
	query.Set("limit", strconv.Itoa(listLimit))
	there, _, err := s.get(ctx, base, path, query, &list)
	if err != nil {
		return nil, nil, err
	}
	if !there {
		s.unlisted = append(s.unlisted, base+path+" is not there: the service is of an earlier release")
		return nil, nil, nil
	}
	whole = map[string]bool{}
	for _, item := range list.Items {
		ids = append(ids, item.OrderID)
		whole[item.OrderID] = true
	}
	if list.More {
		s.unlisted = append(s.unlisted, fmt.Sprintf("%s has more than %d; name others with --order", base+path, listLimit))
		whole = nil
	}
	return ids, whole, nil
}

func (s *remote) prepare(ctx context.Context, _ bool) error {
	s.unlisted, s.ids = nil, slices.Clone(s.IDs)
	for _, l := range []struct {
		base, path string
		query      url.Values
		whole      *map[string]bool
	}{
		{s.Orders, "/v1/open-orders", url.Values{}, &s.pending},
		{s.Fulfillment, "/v1/fulfillments", url.Values{}, &s.sagas},
		{s.Fulfillment, "/v1/approvals", url.Values{"state": {"pending"}}, &s.awaited},
	} {
		if l.base == "" {
			continue
		}
		ids, whole, err := s.list(ctx, l.base, l.path, l.query)
		if err != nil {
			return err
		}
		s.ids, *l.whole = append(s.ids, ids...), whole
	}
	slices.Sort(s.ids)
	s.ids = slices.Compact(s.ids)
	return nil
}

func (s *remote) each(ctx context.Context, visit func(o *facts) error) error {
	for _, id := range s.ids {
		f, err := s.look(ctx, id)
		if err != nil {
			return err
		}
		if err := visit(f); err != nil {
			return err
		}
	}
	return nil
}

func (s *remote) look(ctx context.Context, id string) (*facts, error) {
	f := &facts{id: id}
	for _, part := range []struct {
		base string
		look func(context.Context, *facts) error
	}{{s.Orders, s.lookAtOrder}, {s.Fulfillment, s.lookAtSaga}, {s.Fulfillment, s.lookAtBooks}, {s.Notifications, s.lookAtMessages}} {
		if part.base == "" {
			continue
		}
		err := part.look(ctx, f)
		if answered, ok := errors.AsType[*answerError](err); ok && answered.status == http.StatusInternalServerError {
			// A service answers so for a document that it cannot decode, among others; its log says which.
			f.unreadable = append(f.unreadable, unreadable{part.base, "order:" + id, err})
			continue
		}
		if err != nil {
			return nil, err
		}
	}
	if f.order != nil && s.pending != nil {
		f.orderPending = fact(s.pending[id])
	}
	if f.saga != nil && s.sagas != nil {
		f.sagaPending = fact(s.sagas[id])
	}
	if f.saga != nil && s.awaited != nil {
		f.approvalListed = fact(s.awaited[id])
	}
	return f, nil
}

func (s *remote) lookAtOrder(ctx context.Context, f *facts) error {
	var shown struct {
		contracts.Order

		Status      string    `json:"status"`
		CreatedAt   time.Time `json:"created_at"`
		ProcessedAt time.Time `json:"processed_at"`
		UpdatedAt   time.Time `json:"updated_at"`
	}
	there, version, err := s.get(ctx, s.Orders, "/v1/orders/"+f.id, nil, &shown)
	if err != nil || !there {
		return err
	}
	f.version += version + " "
	f.changed = shown.UpdatedAt
	f.order = &orderDoc{shown.Order, shown.Status, shown.CreatedAt, shown.ProcessedAt, shown.UpdatedAt}
	for _, line := range shown.Items {
		s.wanted[line.ProductID] = true
	}
	return nil
}

func (s *remote) lookAtSaga(ctx context.Context, f *facts) error {
	var shown struct {
		CustomerID   string            `json:"customer_id"`
		Total        contracts.Amount  `json:"total_amount"`
		State        string            `json:"state"`
		StartedAt    time.Time         `json:"started_at"`
		EndedAt      time.Time         `json:"ended_at"`
		Outcome      string            `json:"outcome"`
		NotUndone    []string          `json:"not_undone"`
		Repairs      []json.RawMessage `json:"repairs"`
		Cancellation *struct{}         `json:"cancellation"`
		Approval     *struct {
			State     string    `json:"state"`
			ExpiresAt time.Time `json:"expires_at"`
		} `json:"approval"`
	}
	there, version, err := s.get(ctx, s.Fulfillment, "/v1/fulfillments/"+f.id, nil, &shown)
	if err != nil || !there {
		return err
	}
	f.version += version + " "
	saga := &sagaDoc{StartedAt: shown.StartedAt, EndedAt: shown.EndedAt, Outcome: shown.Outcome, Repairs: shown.Repairs}
	saga.Order = contracts.Order{OrderID: f.id, CustomerID: shown.CustomerID, TotalAmount: shown.Total}
	// With the names of the stored entry, whose rules decide.
	entry := map[string]any{}
	if shown.Approval != nil {
		approval := map[string]any{"expires_at": shown.Approval.ExpiresAt}
		if shown.Approval.State != "pending" || shown.State != "waiting" {
			approval["decision"] = map[string]any{"approved": shown.Approval.State == "approved"}
		}
		entry["approval"] = approval
	}
	if len(shown.NotUndone) > 0 {
		round := len(shown.Repairs)
		if shown.State == "needs_attention" {
			round++
		}
		entry["halt"] = map[string]any{"round": round}
	}
	if shown.Cancellation != nil && shown.Approval != nil && shown.Approval.State == "pending" && shown.State != "waiting" {
		entry["cancellation"] = map[string]any{}
	}
	text, err := json.Marshal(entry)
	if err == nil {
		err = json.Unmarshal(text, saga)
	}
	f.saga = saga
	return err
}

func (s *remote) lookAtBooks(ctx context.Context, f *facts) error {
	var books struct {
		Charges     []transaction   `json:"charges"`
		Refunds     []transaction   `json:"refunds"`
		Reservation *reservationDoc `json:"reservation"`
		Parcels     []string        `json:"parcels"`
		Cancelled   bool            `json:"cancelled"`
	}
	there, version, err := s.get(ctx, s.Fulfillment, "/v1/fulfillments/"+f.id+"/books", nil, &books)
	if err != nil || !there {
		return err
	}
	f.version += version + " "
	if len(books.Charges)+len(books.Refunds) > 0 {
		f.payment = &paymentDoc{f.id, books.Charges, books.Refunds}
	}
	f.reservation = books.Reservation
	if len(books.Parcels) > 0 {
		f.shipment = &shipmentDoc{OrderID: f.id, Cancelled: books.Cancelled}
		for _, number := range books.Parcels {
			var p parcelDoc
			p.Shipment.TrackingNumber = number
			f.shipment.Booked = append(f.shipment.Booked, p)
		}
	}
	return nil
}

func (s *remote) lookAtMessages(ctx context.Context, f *facts) error {
	var list struct {
		Items []struct {
			ID    string `json:"notification_id"`
			State string `json:"state"`
		} `json:"items"`
	}
	there, version, err := s.get(ctx, s.Notifications, "/v1/notifications", url.Values{"order_id": {f.id}}, &list)
	if err != nil || !there || len(list.Items) == 0 {
		return err
	}
	f.version += version + " "
	f.messages = &messagesDoc{}
	for _, m := range list.Items {
		f.messages.Messages = append(f.messages.Messages, messageDoc{ID: m.ID, State: m.State, OrderID: f.id})
	}
	return nil
}

// products checks what the API of a product's stock can show: the reservations of all orders are not listed there.
func (s *remote) products(ctx context.Context) (found []Finding, n int, err error) {
	if s.Fulfillment == "" {
		return nil, 0, nil
	}
	for _, product := range s.Products {
		s.wanted[product] = true
	}
	names := make([]string, 0, len(s.wanted))
	for name := range s.wanted {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		var stock struct {
			OnHand   int `json:"on_hand"`
			Reserved int `json:"reserved"`
		}
		there, _, err := s.get(ctx, s.Fulfillment, "/v1/inventory/"+url.PathEscape(name), nil, &stock)
		if err != nil {
			return nil, n, err
		}
		if !there {
			continue
		}
		n++
		c := counted{stockDoc: stockDoc{ProductID: name, OnHand: stock.OnHand, Held: map[string]int{settled: stock.Reserved}}}
		found = append(found, c.examine(true, false)...)
	}
	return found, n, nil
}

// rest notes the dead letters, and what could not be seen.
func (s *remote) rest(ctx context.Context, r *Report) error {
	for app, base := range map[string]string{contracts.AppOrders: s.Orders, contracts.AppFulfillment: s.Fulfillment, contracts.AppNotifications: s.Notifications} {
		if base == "" {
			r.Unseen = append(r.Unseen, app+", because no address of it was given.")
			continue
		}
		var letters struct {
			Topics []struct {
				Topic string `json:"topic"`
				Open  int    `json:"open"`
			} `json:"topics"`
		}
		if _, _, err := s.get(ctx, base, "/v1/dead-letters", nil, &letters); err != nil {
			return err
		}
		for _, t := range letters.Topics {
			if t.Open > 0 {
				r.Notes = append(r.Notes, fmt.Sprintf("%s has %d open dead letters of the topic %s: GET /v1/dead-letters?topic=%s shows them with their reasons.", app, t.Open, t.Topic, t.Topic))
			}
		}
	}
	for _, text := range s.unlisted {
		r.Unseen = append(r.Unseen, text+".")
	}
	r.Unseen = append(r.Unseen, "orders that have ended, except those that --order names; customers' lists, the sums of the reservations, and the workflow engine: the APIs do not list them.")
	slices.Sort(r.Notes)
	return nil
}
