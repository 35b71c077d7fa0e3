package saga_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/dapr/durabletask-go/workflow"
	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/platform/state"
	"waybill/services/fulfillment/internal/inventory"
	"waybill/services/fulfillment/internal/record"
	"waybill/services/fulfillment/internal/saga"
)

func anOrder(id string, lines ...contracts.Line) contracts.Order {
	if len(lines) == 0 {
		lines = []contracts.Line{{ProductID: "PROD-001", Quantity: 2, Price: 49_9900}, {ProductID: "PROD-002", Quantity: 1, Price: 1_0000}}
	}
	o := contracts.Order{
		OrderID: id, CustomerID: "CUST-123", Currency: "USD", Items: lines,
		ShipTo: contracts.Address{Street: "123 Test St", City: "Test City", State: "TS", Zip: "12345"},
	}
	for _, line := range lines {
		o.TotalAmount += line.Price * contracts.Amount(line.Quantity)
	}
	return o
}

func decode(t *testing.T, doc []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(doc, v); err != nil {
		t.Fatalf("decode %s: %v", doc, err)
	}
}

// holdings is what the partners know of one order.
type holdings struct {
	charges, refunds int
	parcels          int
	cancelled        bool
	reservation      inventory.State
}

func (w *world) holdings(order string) holdings {
	w.t.Helper()
	var payment struct{ Charges, Refunds []json.RawMessage }
	var shipment struct {
		Booked    []json.RawMessage
		Cancelled bool
	}
	var reservation inventory.Reservation
	for key, doc := range map[string]any{"payment:": &payment, "shipment:": &shipment, "reservation:": &reservation} {
		if _, err := w.store.Get(w.t.Context(), key+order, doc); err != nil && !errors.Is(err, state.ErrNotFound) {
			w.t.Fatal(err)
		}
	}
	return holdings{len(payment.Charges), len(payment.Refunds), len(shipment.Booked), shipment.Cancelled, reservation.State}
}

func (w *world) wantHoldings(order contracts.Order, want holdings) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.holdings(order.OrderID), cmp.AllowUnexported(holdings{})); diff != "" {
		w.t.Errorf("holdings (-want +got):\n%s", diff)
	}
}

// wake raises the saga's signal. Anyone who reaches the engine could do that.
func (w *world) wake(order contracts.Order) {
	w.t.Helper()
	if err := w.client.RaiseEvent(w.t.Context(), order.OrderID, "Signal", workflow.WithEventPayload(map[string]any{"approved": true})); err != nil {
		w.t.Fatal(err)
	}
}

// payload returns the event with an id, nil if there is none.
func (w *world) payload(id string) contracts.Payload {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.id == id {
			return e.payload
		}
	}
	return nil
}

// wantStock checks that no piece is lost and that nothing stays reserved.
func (w *world) wantStock(product string, shipped int) {
	w.t.Helper()
	s, err := w.stock.Get(w.t.Context(), product)
	if err != nil {
		w.t.Fatal(err)
	}
	if s.OnHand != initialStock-shipped || s.Shipped != shipped || s.Reserved() != 0 {
		w.t.Errorf("%s: on hand %d, shipped %d, reserved %d; want %d, %d, 0", product, s.OnHand, s.Shipped, s.Reserved(), initialStock-shipped, shipped)
	}
}

// announced returns the published events in their sequence, without requests for messages.
func (w *world) announced() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var events []string
	for _, e := range w.events {
		switch p := e.payload.(type) {
		case contracts.StepCompleted:
			events = append(events, p.Step+" "+p.Outcome)
		case contracts.NotificationRequested:
			// wantMessages checks them
		default:
			events = append(events, p.EventType())
		}
	}
	return events
}

// wantMessages checks that the customer gets one message, once over every channel.
func (w *world) wantMessages(order contracts.Order, template string) {
	w.t.Helper()
	var got []string
	w.mu.Lock()
	for _, e := range w.events {
		if m, ok := e.payload.(contracts.NotificationRequested); ok && m.OrderID == order.OrderID {
			got = append(got, m.Template+" "+m.Channel)
		}
	}
	w.mu.Unlock()
	slices.Sort(got)
	if diff := cmp.Diff([]string{template + " email", template + " push", template + " sms"}, got); diff != "" {
		w.t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func (w *world) wantFulfilled(order contracts.Order, result saga.Result) {
	w.t.Helper()
	w.wantMessages(order, contracts.TemplateOrderShipped)
	if result.Outcome != record.Completed || result.TrackingNumber == "" {
		w.t.Errorf("result %+v, want success with a tracking number", result)
	}
	if diff := cmp.Diff(holdings{charges: 1, parcels: 1, reservation: inventory.Shipped}, w.holdings(order.OrderID), cmp.AllowUnexported(holdings{})); diff != "" {
		w.t.Errorf("holdings (-want +got):\n%s", diff)
	}
	w.wantStock("PROD-001", 2)
	w.wantStock("PROD-002", 1)
}

func TestAnOrderIsFulfilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	order := anOrder("ORDER-1")
	w.wantFulfilled(order, w.fulfill(order))
	want := []string{"ValidatePayment done", "ReserveInventory done", "ProcessShipment done", "Fulfillment.Completed"}
	if diff := cmp.Diff(want, w.announced()); diff != "" {
		t.Errorf("announced (-want +got):\n%s", diff)
	}
}

// Every call of a partner fails twice, before or after its effect. The order is fulfilled with one charge and one parcel.
func TestRetryableFaultsDoNotChangeTheOutcome(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"Charge", "Reserve", "Book", "Ship", "Publish"} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s fails after=%v", call, after), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, quick)
				w.faults.set(call, 2, after)
				order := anOrder("ORDER-1")
				w.wantFulfilled(order, w.fulfill(order))
			})
		}
	}
}

// Every call of a partner fails for good, before or after its effect. The completed steps are compensated, newest first.
func TestLastingFaultsAreCompensated(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		call   string
		after  bool
		want   holdings
		events []string
	}{
		{"Charge", false, holdings{reservation: ""}, []string{"Fulfillment.Failed"}},
		{"Charge", true, holdings{charges: 1, refunds: 1}, []string{"RefundPayment done", "Fulfillment.Failed"}},
		{"Reserve", false, holdings{charges: 1, refunds: 1, reservation: inventory.Released}, []string{
			"ValidatePayment done", "RefundPayment done", "Fulfillment.Failed"}},
		{"Reserve", true, holdings{charges: 1, refunds: 1, reservation: inventory.Released}, []string{
			"ValidatePayment done", "ReleaseInventory done", "RefundPayment done", "Fulfillment.Failed"}},
		{"Book", false, holdings{charges: 1, refunds: 1, cancelled: true, reservation: inventory.Released}, []string{
			"ValidatePayment done", "ReserveInventory done", "ReleaseInventory done", "RefundPayment done", "Fulfillment.Failed"}},
		{"Book", true, holdings{charges: 1, refunds: 1, parcels: 1, cancelled: true, reservation: inventory.Released}, []string{
			"ValidatePayment done", "ReserveInventory done", "CancelShipment done", "ReleaseInventory done", "RefundPayment done", "Fulfillment.Failed"}},
		{"Ship", false, holdings{charges: 1, refunds: 1, parcels: 1, cancelled: true, reservation: inventory.Released}, []string{
			"ValidatePayment done", "ReserveInventory done", "CancelShipment done", "ReleaseInventory done", "RefundPayment done", "Fulfillment.Failed"}},
		{"Ship", true, holdings{charges: 1, refunds: 1, parcels: 1, cancelled: true, reservation: inventory.Released}, []string{
			"ValidatePayment done", "ReserveInventory done", "CancelShipment done", "ReleaseInventory done", "RefundPayment done", "Fulfillment.Failed"}},
	} {
		t.Run(fmt.Sprintf("%s fails after=%v", c.call, c.after), func(t *testing.T) {
			t.Parallel()
			limits := quick
			limits.Reservation = 50 * time.Millisecond
			w := newWorld(t, limits)
			w.faults.set(c.call, -1, c.after)
			order := anOrder("ORDER-1")
			result := w.fulfill(order)
			code := "technical_failure"
			if c.call == "Reserve" {
				code = "reservation_timeout"
			}
			if result.Outcome != record.Failed || result.Code != code {
				t.Errorf("result %+v, want it to have failed with %s", result, code)
			}
			w.wantMessages(order, contracts.TemplateOrderFailed)
			if diff := cmp.Diff(c.want, w.holdings(order.OrderID), cmp.AllowUnexported(holdings{})); diff != "" {
				t.Errorf("holdings (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.events, w.announced()); diff != "" {
				t.Errorf("announced (-want +got):\n%s", diff)
			}
			w.wantStock("PROD-001", 0)
			w.wantStock("PROD-002", 0)
		})
	}
}

func TestRefusalsAreCompensated(t *testing.T) {
	t.Parallel()
	refundable := []string{"ValidatePayment done", "ReserveInventory refused", "RefundPayment done", "Fulfillment.Failed"}
	for _, c := range []struct {
		name   string
		order  func(*contracts.Order)
		code   string
		want   holdings
		events []string
	}{
		{"declined card", func(o *contracts.Order) { o.PaymentToken = "tok_declined" }, "card_declined",
			holdings{}, []string{"ValidatePayment refused", "Fulfillment.Failed"}},
		{"unknown product", func(o *contracts.Order) {
			o.Items = []contracts.Line{{ProductID: "INVALID-PRODUCT", Quantity: 1, Price: 99_9900}}
		},
			"unknown_product", holdings{charges: 1, refunds: 1, reservation: inventory.Refused}, refundable},
		{"all products unknown", func(o *contracts.Order) {
			o.Items = []contracts.Line{{ProductID: "INVALID-1", Quantity: 1, Price: 100}, {ProductID: "INVALID-2", Quantity: 1, Price: 100}}
		}, "unknown_product", holdings{charges: 1, refunds: 1, reservation: inventory.Refused}, refundable},
		{"second line out of stock", func(o *contracts.Order) { o.Items[1].Quantity = initialStock + 1 }, "out_of_stock",
			holdings{charges: 1, refunds: 1, reservation: inventory.Refused}, refundable},
		{"same product on two lines, together out of stock", func(o *contracts.Order) {
			o.Items = []contracts.Line{{ProductID: "PROD-001", Quantity: 6, Price: 100}, {ProductID: "PROD-001", Quantity: 6, Price: 100}}
		}, "out_of_stock", holdings{charges: 1, refunds: 1, reservation: inventory.Refused}, refundable},
		{"carrier refuses", func(o *contracts.Order) { o.ShipTo.Zip = "X-REFUSED" }, "undeliverable",
			holdings{charges: 1, refunds: 1, reservation: inventory.Released}, []string{
				"ValidatePayment done", "ReserveInventory done", "ProcessShipment refused", "ReleaseInventory done", "RefundPayment done", "Fulfillment.Failed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, quick)
			order := anOrder("ORDER-1")
			c.order(&order)
			result := w.fulfill(order)
			if result.Outcome != record.Failed || result.Code != c.code || result.Error == "" {
				t.Errorf("result %+v, want it to have failed with %s", result, c.code)
			}
			w.wantMessages(order, contracts.TemplateOrderFailed)
			if diff := cmp.Diff(c.want, w.holdings(order.OrderID), cmp.AllowUnexported(holdings{})); diff != "" {
				t.Errorf("holdings (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.events, w.announced()); diff != "" {
				t.Errorf("announced (-want +got):\n%s", diff)
			}
			w.wantStock("PROD-001", 0)
			w.wantStock("PROD-002", 0)
		})
	}
}

// The faults of the simulated partners, triggered by the order.
func TestPartnersThatFailAndRecover(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	order := anOrder("ORDER-1")
	order.PaymentToken, order.ShipTo.Zip = "tok_fail_2", "X-FAIL-2"
	w.wantFulfilled(order, w.fulfill(order))
}

// A compensation that fails stops those after it, and the saga needs attention. A person's repair resumes it, once.
func TestAFailedCompensationIsRepaired(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	w.faults.set("Ship", -1, false)
	w.faults.set("Release", -1, false)
	order := anOrder("ORDER-1")
	w.start(order)
	e := w.until(order, "that the saga is blocked", (*record.Saga).AwaitsRepair)
	if diff := cmp.Diff([]string{"ReleaseInventory", "RefundPayment"}, e.Blocked.NotUndone); diff != "" {
		t.Errorf("not undone (-want +got):\n%s", diff)
	}
	if got := w.holdings(order.OrderID); got.refunds != 0 || !got.cancelled {
		t.Errorf("holdings %+v, want the shipment cancelled and nothing refunded", got)
	}
	w.wake(order) // a signal without a repair changes nothing
	repair := func(actor string) error {
		_, err := w.sagas.Repair(t.Context(), order.OrderID, actor, "The warehouse answers again.")
		return err
	}
	// The first repair comes too early, so the saga is blocked again.
	if err := repair("operator-1@example.com"); err != nil {
		t.Fatal(err)
	}
	w.until(order, "that the saga is blocked again", func(s *record.Saga) bool { return s.AwaitsRepair() && s.Blocked.Round == 2 })
	w.faults.set("Release", 0, false)
	if err := errors.Join(repair("operator-2@example.com"), repair("operator-2@example.com")); err != nil {
		t.Fatal(err)
	}
	if result := w.end(order); result.Outcome != record.Failed {
		t.Errorf("result %+v, want a failure", result)
	}
	refused, ok := errors.AsType[*record.Error](repair("operator-3@example.com"))
	if !ok || refused.Code != "nothing_to_repair" {
		t.Errorf("a repair after the end: %v", refused)
	}
	want := []string{
		"ValidatePayment done", "ReserveInventory done", "CancelShipment done", "Fulfillment.Failed",
		"Repair done", "Fulfillment.Failed", "Repair done", "ReleaseInventory done", "RefundPayment done", "Fulfillment.Failed",
	}
	if diff := cmp.Diff(want, w.announced()); diff != "" {
		t.Errorf("announced (-want +got):\n%s", diff)
	}
	blocked, _ := w.payload(order.OrderID + ":Fulfillment.Failed:attention:1").(contracts.FulfillmentFailed)
	if diff := cmp.Diff([]string{"CancelShipment"}, blocked.Undone); diff != "" {
		t.Errorf("undone (-want +got):\n%s", diff)
	}
	final, _ := w.payload(order.OrderID + ":Fulfillment.Failed").(contracts.FulfillmentFailed)
	if diff := cmp.Diff([]string{"CancelShipment", "ReleaseInventory", "RefundPayment"}, final.Undone); diff != "" || len(final.NotUndone) > 0 {
		t.Errorf("undone in the end (-want +got):\n%s; not undone: %v", diff, final.NotUndone)
	}
	w.wantHoldings(order, holdings{charges: 1, refunds: 1, parcels: 1, cancelled: true, reservation: inventory.Released})
	w.wantStock("PROD-001", 0)
}

func TestConcurrentStartsStartOneSaga(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	order := anOrder("ORDER-1")
	var starts sync.WaitGroup
	for range 20 {
		starts.Go(func() {
			if err := w.sagas.Start(t.Context(), order); err != nil {
				t.Errorf("start: %v", err)
			}
		})
	}
	starts.Wait()
	w.wantFulfilled(order, w.fulfill(order))
	published := len(w.events)
	w.wantFulfilled(order, w.fulfill(order)) // a start after the end changes nothing
	if len(w.events) != published {
		t.Errorf("a start after the end published %v", w.events[published:])
	}
}

// Twenty-five orders need one of ten pieces each, at the same time. Ten get it.
func TestStockIsNotOversold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	var mu sync.Mutex
	shipped, refused := 0, 0
	var orders sync.WaitGroup
	for i := range 25 {
		orders.Go(func() {
			result := w.fulfill(anOrder(fmt.Sprintf("ORDER-%d", i), contracts.Line{ProductID: "PROD-001", Quantity: 1, Price: 1_0000}))
			mu.Lock()
			defer mu.Unlock()
			if result.Outcome == record.Completed {
				shipped++
			} else if result.Code == inventory.CodeOutOfStock {
				refused++
			}
		})
	}
	orders.Wait()
	if shipped != initialStock || refused != 25-initialStock {
		t.Errorf("%d shipped and %d refused, want %d and %d", shipped, refused, initialStock, 25-initialStock)
	}
	w.wantStock("PROD-001", initialStock)
}

func aLargeOrder(id string) contracts.Order {
	return anOrder(id, contracts.Line{ProductID: "PROD-001", Quantity: 2, Price: 2500_0100})
}

func (w *world) decide(order contracts.Order, approved bool, approver string) error {
	_, err := w.sagas.Decide(w.t.Context(), order.OrderID, approved, approver, "Checked.")
	return err
}

func TestALargeOrderWaitsForApproval(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	order := aLargeOrder("ORDER-1")
	if refused, ok := errors.AsType[*record.Error](w.decide(order, true, "early@example.com")); !ok || refused.Kind != record.NotFound {
		t.Errorf("a decision before the order: %v", refused)
	}
	w.start(order)
	w.until(order, "an approval", (*record.Saga).AwaitsApproval)
	for range 3 {
		w.wake(order) // a signal decides nothing, even with a payload that claims so
	}
	w.wantState(order, record.Waiting)
	pending, _, err := w.sagas.Approvals(t.Context(), (*record.Saga).AwaitsApproval, 10)
	if err != nil || len(pending) != 1 || pending[0].Order.OrderID != order.OrderID {
		t.Errorf("pending: %v, %v", pending, err)
	}
	if w.holdings(order.OrderID).parcels != 0 {
		t.Error("the order was shipped without an approval")
	}
	if err := errors.Join(w.decide(order, true, "approver@example.com"), w.decide(order, true, "approver@example.com")); err != nil {
		t.Fatal(err)
	}
	second, ok := errors.AsType[*record.Error](w.decide(order, false, "other@example.com"))
	if !ok || second.Kind != record.Conflict || second.Decision == nil || second.Decision.Approver != "approver@example.com" {
		t.Errorf("a second decision: %+v", second)
	}
	if result := w.end(order); result.Outcome != record.Completed {
		t.Errorf("result %+v", result)
	}
	want := []string{"ValidatePayment done", "ReserveInventory done", "Fulfillment.ApprovalRequested", "Approval done", "ProcessShipment done", "Fulfillment.Completed"}
	if diff := cmp.Diff(want, w.announced()); diff != "" {
		t.Errorf("announced (-want +got):\n%s", diff)
	}
	if approval, _ := w.payload(order.OrderID + ":Approval").(contracts.StepCompleted); approval.Actor != "approver@example.com" || approval.Message == "" {
		t.Errorf("the approval is announced as %+v", approval)
	}
}

func (w *world) wantState(order contracts.Order, want record.State) {
	w.t.Helper()
	e, _, err := w.sagas.Show(w.t.Context(), order.OrderID)
	if err != nil {
		w.t.Fatal(err)
	}
	if state, _ := w.sagas.State(&e); state != want {
		w.t.Errorf("the saga is %s, want %s", state, want)
	}
}

func TestATotalAtTheThresholdNeedsNoApproval(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	order := anOrder("ORDER-1", contracts.Line{ProductID: "PROD-001", Quantity: 2, Price: 2500_0000})
	if result := w.fulfill(order); result.Outcome != record.Completed {
		t.Errorf("result %+v", result)
	}
}

// Each currency has a threshold; in a currency without one every order needs an approval. A saga that started before there were such
// thresholds keeps its single one.
func TestEachCurrencyHasAThreshold(t *testing.T) {
	t.Parallel()
	former := quick
	former.ApprovalAboveIn = nil
	for _, c := range []struct {
		name, currency string
		limits         saga.Limits
		price          contracts.Amount
		waits          bool
	}{
		{"yen below their threshold", "JPY", quick, 5500_0000, false},
		{"yen above it", "JPY", quick, 750_001_0000, true},
		{"a currency without a threshold", "KWD", quick, 4999_0000, true},
		{"dollars above theirs", "USD", quick, 5000_0100, true},
		{"a saga of a former release", "KWD", former, 4999_0000, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.limits)
			o := anOrder("ORDER-1", contracts.Line{ProductID: "PROD-001", Quantity: 1, Price: c.price})
			o.Currency = c.currency
			if c.waits {
				w.start(o)
				w.until(o, "a request for approval", func(s *record.Saga) bool { return s.Approval != nil })
			} else if result := w.fulfill(o); result.Outcome != record.Completed {
				t.Errorf("result %+v", result)
			}
		})
	}
}

// An order that is refused, that is not approved in time, or that the customer cancels is compensated.
func TestAnApprovalThatIsNotGiven(t *testing.T) {
	t.Parallel()
	short := quick
	short.Approval = 20 * time.Millisecond
	for _, c := range []struct {
		name    string
		limits  saga.Limits
		act     func(w *world, order contracts.Order) error
		outcome record.Outcome
		code    string
		last    string
	}{
		{"refused", quick, func(w *world, o contracts.Order) error { return w.decide(o, false, "approver@example.com") },
			record.Failed, record.CodeDenied, "Fulfillment.Failed"},
		{"timed out", short, func(*world, contracts.Order) error { return nil },
			record.Failed, record.CodeTimedOut, "Fulfillment.Failed"},
		{"cancelled", quick, func(w *world, o contracts.Order) error { return w.cancel(o) },
			record.Cancelled, record.CodeCancelled, "Fulfillment.Cancelled"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.limits)
			order := aLargeOrder("ORDER-1")
			w.start(order)
			w.until(order, "an approval", func(s *record.Saga) bool { return s.Approval != nil })
			if err := c.act(w, order); err != nil {
				t.Fatal(err)
			}
			if result := w.end(order); result.Outcome != c.outcome || result.Code != c.code {
				t.Errorf("result %+v, want %s with %s", result, c.outcome, c.code)
			}
			want := []string{"ValidatePayment done", "ReserveInventory done", "Fulfillment.ApprovalRequested", "Approval refused",
				"ReleaseInventory done", "RefundPayment done", c.last}
			if c.outcome == record.Cancelled {
				want = slices.Insert(want, 3, "Cancel done")
			}
			if diff := cmp.Diff(want, w.announced()); diff != "" {
				t.Errorf("announced (-want +got):\n%s", diff)
			}
			w.wantHoldings(order, holdings{charges: 1, refunds: 1, reservation: inventory.Released})
			w.wantStock("PROD-001", 0)
			if _, ok := errors.AsType[*record.Error](w.decide(order, true, "late@example.com")); !ok {
				t.Error("a decision was recorded after the end")
			}
		})
	}
}

func (w *world) cancel(order contracts.Order) error {
	return w.sagas.Cancel(w.t.Context(), contracts.OrderCancellationRequested{
		OrderID: order.OrderID, CustomerID: order.CustomerID, Reason: "Ordered twice.", RequestedAt: time.Now(),
	})
}

// A cancellation that arrives while a step runs ends the saga, also during the call of the carrier. It is refused once the carrier has
// confirmed the parcel.
func TestCancellingDuringEveryStep(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		during  string // the call during which it arrives
		outcome record.Outcome
		want    holdings
		events  []string
	}{
		{"", record.Cancelled, holdings{}, []string{"Cancel done", "Fulfillment.Cancelled"}},
		{"Charge", record.Cancelled, holdings{charges: 1, refunds: 1}, []string{"Cancel done", "ValidatePayment done", "RefundPayment done", "Fulfillment.Cancelled"}},
		{"Reserve", record.Cancelled, holdings{charges: 1, refunds: 1, reservation: inventory.Released},
			[]string{"ValidatePayment done", "Cancel done", "ReserveInventory done", "ReleaseInventory done", "RefundPayment done", "Fulfillment.Cancelled"}},
		{"Book", record.Cancelled, holdings{charges: 1, refunds: 1, parcels: 1, cancelled: true, reservation: inventory.Released},
			[]string{"ValidatePayment done", "ReserveInventory done", "Cancel done", "CancelShipment done", "ReleaseInventory done", "RefundPayment done", "Fulfillment.Cancelled"}},
		{"Ship", record.Completed, holdings{charges: 1, parcels: 1, reservation: inventory.Shipped},
			[]string{"ValidatePayment done", "ReserveInventory done", "Cancel refused", "ProcessShipment done", "Fulfillment.Completed"}},
	} {
		t.Run("during "+c.during, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, quick)
			order := anOrder("ORDER-1")
			if c.during == "" {
				if err := w.cancel(order); err != nil {
					t.Fatal(err)
				}
			} else {
				w.faults.hook(c.during, func() error { return w.cancel(order) })
			}
			if result := w.fulfill(order); result.Outcome != c.outcome {
				t.Errorf("result %+v, want %s", result, c.outcome)
			}
			if diff := cmp.Diff(c.events, w.announced()); diff != "" {
				t.Errorf("announced (-want +got):\n%s", diff)
			}
			w.wantHoldings(order, c.want)
		})
	}
}

func TestCancellingAfterTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	order := anOrder("ORDER-1")
	w.fulfill(order)
	for range 2 {
		if err := w.cancel(order); err != nil {
			t.Fatal(err)
		}
	}
	if events := w.announced(); events[len(events)-1] != "Cancel refused" || events[len(events)-2] != "Fulfillment.Completed" {
		t.Errorf("announced %v", events)
	}
}

// A saga is started again because its workflow ended without an outcome. What was compensated stays so, and no step has its effect twice.
func TestTheReconcilerRestartsWorkflowsThatEndedWithoutAnOutcome(t *testing.T) {
	t.Parallel()
	for _, invalid := range []bool{false, true} {
		t.Run(fmt.Sprintf("invalid=%v", invalid), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, quick)
			order, last := anOrder("ORDER-1"), "Ship"
			if invalid {
				order.ShipTo.Zip, last = "X-REFUSED", "Refund"
			}
			w.faults.hook(last, func() error {
				w.faults.set("Change", 8, false) // as often as the report of the outcome is attempted
				return nil
			})
			w.start(order)
			if m, err := w.client.WaitForWorkflowCompletion(t.Context(), order.OrderID); err != nil || m.RuntimeStatus != workflow.StatusFailed {
				t.Fatalf("the workflow ended %v, %v; want it to fail", m, err)
			}
			if _, err := w.client.FetchWorkflowMetadata(t.Context(), order.OrderID); err != nil {
				t.Fatal(err)
			}
			// The engine in this process, unlike Dapr's, does not start an id again. So the failed workflow is purged.
			if err := w.client.PurgeWorkflowState(t.Context(), order.OrderID); err != nil {
				t.Fatal(err)
			}
			if invalid {
				if err := w.client.PurgeWorkflowState(t.Context(), order.OrderID+":compensation"); err != nil {
					t.Fatal(err)
				}
			}
			reconciler := newReconciler(w.sagas, 0, time.Minute)
			if err := reconciler.Pass(t.Context()); err != nil {
				t.Fatal(err)
			}
			result := w.end(order)
			if invalid {
				if result.Outcome != record.Failed {
					t.Errorf("result %+v, want a failure", result)
				}
				w.wantHoldings(order, holdings{charges: 1, refunds: 1, cancelled: true, reservation: inventory.Released})
				w.wantStock("PROD-001", 0)
			} else {
				w.wantFulfilled(order, result)
			}
			w.until(order, "an end", (*record.Saga).Ended)
			if err := reconciler.Pass(t.Context()); err != nil {
				t.Fatal(err)
			}
			open, _, err := w.sagas.List(t.Context(), "", 10)
			if err != nil || len(open) > 0 {
				t.Errorf("open: %v, %v", open, err)
			}
		})
	}
}

// A pending task can be lost with the scheduler's data: the engine still shows the saga as running, and it would never end. The reconciler
// starts it again, whichever task was lost, and the step that was running may still end.
func TestTheReconcilerRestartsSagasThatTheEngineLost(t *testing.T) {
	t.Parallel()
	shipped := holdings{charges: 1, parcels: 1, reservation: inventory.Shipped}
	// Every compensation runs, because it is unknown how far the saga came. So the carrier gets a cancellation for a parcel that does not exist.
	undone := holdings{charges: 1, refunds: 1, cancelled: true, reservation: inventory.Released}
	for _, c := range []struct {
		during string // the call that runs when the engine loses the saga
		zip    string
		cancel bool // the customer cancels at that time
		want   holdings
		result record.Outcome
	}{
		{during: "Charge", want: shipped, result: record.Completed},
		{during: "Reserve", want: shipped, result: record.Completed},
		{during: "Book", want: shipped, result: record.Completed},
		{during: "Ship", want: shipped, result: record.Completed},
		{during: "Release", zip: "X-REFUSED", want: undone, result: record.Failed},
		{during: "Refund", zip: "X-REFUSED", want: undone, result: record.Failed},
		{during: "Charge", cancel: true, want: holdings{cancelled: true, reservation: inventory.Released}, result: record.Cancelled},
		{during: "Reserve", cancel: true, want: undone, result: record.Cancelled},
		// The parcel was booked before the customer cancelled.
		{during: "Ship", cancel: true, want: shipped, result: record.Completed},
	} {
		t.Run(fmt.Sprintf("%s %s cancel=%v", c.during, c.zip, c.cancel), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, quick)
			order := anOrder("ORDER-1")
			if c.zip != "" {
				order.ShipTo.Zip = c.zip
			}
			held, goOn := make(chan struct{}), make(chan struct{})
			w.faults.hook(c.during, func() error {
				close(held)
				<-goOn
				return nil
			})
			w.start(order)
			<-held
			reconciler := newReconciler(w.sagas, 0, time.Minute)
			if err := reconciler.Pass(t.Context()); err != nil {
				t.Fatal(err)
			}
			if e, _ := w.records.Get(t.Context(), order.OrderID); e.Restarts > 0 {
				t.Fatal("a step that runs for a moment counts as lost")
			}
			if c.cancel {
				if err := w.cancel(order); err != nil {
					t.Fatal(err)
				}
			}
			// Later, the step has still not ended.
			reconciler = newReconciler(w.sagas, 0, -time.Hour)
			for range 2 { // the first pass terminates the saga, the second starts it again
				if err := reconciler.Pass(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if result := w.end(order); result.Outcome != c.result {
				t.Errorf("result %+v, want %s", result, c.result)
			}
			if e := w.until(order, "an end", (*record.Saga).Ended); e.Restarts != 1 {
				t.Errorf("started again %d times, want once", e.Restarts)
			}
			w.wantHoldings(order, c.want)
			close(goOn)
			w.wantHoldings(order, c.want)
		})
	}
}

// A restarted saga finds the decision of its approval, whose signal was lost, and keeps the expiry of the first request.
func TestARestartedSagaKeepsItsApproval(t *testing.T) {
	t.Parallel()
	for _, decided := range []bool{true, false} {
		t.Run(fmt.Sprintf("decided=%v", decided), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, quick)
			order := aLargeOrder("ORDER-1")
			w.start(order)
			first := w.until(order, "an approval", (*record.Saga).AwaitsApproval)
			if err := w.lose(order); err != nil {
				t.Fatal(err)
			}
			_, err := w.records.Change(t.Context(), order.OrderID, func(s *record.Saga) (bool, error) {
				if decided {
					return s.Decide(true, "approver@example.com", "Known customer.", time.Now())
				}
				s.Approval.ExpiresAt = time.Now()
				return true, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := newReconciler(w.sagas, 0, time.Minute).Pass(t.Context()); err != nil {
				t.Fatal(err)
			}
			result := w.end(order)
			if want := map[bool]record.Outcome{true: record.Completed, false: record.Failed}[decided]; result.Outcome != want {
				t.Errorf("result %+v, want %s", result, want)
			}
			e := w.until(order, "an end", (*record.Saga).Ended)
			if !e.Approval.RequestedAt.Equal(first.Approval.RequestedAt) {
				t.Errorf("the approval was requested again at %v, first at %v", e.Approval.RequestedAt, first.Approval.RequestedAt)
			}
		})
	}
}

// A saga that waited for a repair waits for the same repair after a restart.
func TestARestartedSagaStillNeedsAttention(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	w.faults.set("Release", -1, false)
	order := anOrder("ORDER-1")
	order.ShipTo.Zip = "X-REFUSED"
	w.start(order)
	w.until(order, "that the saga is blocked", (*record.Saga).AwaitsRepair)
	if err := w.lose(order); err != nil {
		t.Fatal(err)
	}
	reconciler := newReconciler(w.sagas, 0, time.Minute)
	if err := reconciler.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.faults.set("Release", 0, false)
	if _, err := w.sagas.Repair(t.Context(), order.OrderID, "operator@example.com", "The warehouse answers again."); err != nil {
		t.Fatal(err)
	}
	if result := w.end(order); result.Outcome != record.Failed || result.Code != "undeliverable" {
		t.Errorf("result %+v, want the failure for which it was compensated", result)
	}
	w.wantHoldings(order, holdings{charges: 1, refunds: 1, cancelled: true, reservation: inventory.Released})
}

// The reconciler wakes a saga that missed the signal of a decision.
func TestTheReconcilerWakesASagaThatWasDecided(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	order := aLargeOrder("ORDER-1")
	w.start(order)
	w.until(order, "an approval", (*record.Saga).AwaitsApproval)
	_, err := w.records.Change(t.Context(), order.OrderID, func(s *record.Saga) (bool, error) {
		return s.Decide(true, "approver@example.com", "Known customer.", time.Now())
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := newReconciler(w.sagas, 0, time.Minute).Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if result := w.end(order); result.Outcome != record.Completed {
		t.Errorf("result %+v", result)
	}
}

// The activity that announces the outcome also requests the messages. If it cannot, each message has an activity with retries of its own.
// A message that cannot be requested does not change the order's outcome.
func TestMessagesAreRequestedWithTheOutcome(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		fails    int // how often requests over the channel sms fail
		requests []string
		want     []string
	}{
		{"at once", 0, []string{"UpdateOrderStatus"}, []string{"order_shipped email", "order_shipped sms", "order_shipped push"}},
		{"one by one", 1, []string{"UpdateOrderStatus", "SendEmailNotification", "SendSMSNotification", "SendPushNotification"},
			[]string{"order_shipped email", "order_shipped sms", "order_shipped push"}},
		{"never over one channel", -1, []string{"UpdateOrderStatus", "SendEmailNotification", "SendSMSNotification", "SendPushNotification"},
			[]string{"order_shipped email", "order_shipped push"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, order := newWorld(t, quick), anOrder("ORDER-1")
			w.faults.set("Publish sms", c.fails, false)
			if result := w.fulfill(order); result.Outcome != record.Completed {
				t.Errorf("result %+v", result)
			}
			history, err := w.client.GetInstanceHistory(t.Context(), order.OrderID)
			if err != nil {
				t.Fatal(err)
			}
			var scheduled []string
			for _, e := range history.Events {
				if name := e.GetTaskScheduled().GetName(); name != "" && !slices.Contains(scheduled, name) {
					scheduled = append(scheduled, name)
				}
			}
			if diff := cmp.Diff(append([]string{"ValidatePayment", "ReserveInventory", "ProcessShipment"}, c.requests...), scheduled); diff != "" {
				t.Errorf("activities (-want +got):\n%s", diff)
			}
			var requested []string
			w.mu.Lock()
			for _, e := range w.events {
				if m, ok := e.payload.(contracts.NotificationRequested); ok {
					requested = append(requested, m.Template+" "+m.Channel)
				}
			}
			w.mu.Unlock()
			if diff := cmp.Diff(c.want, requested); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
			_, steps, err := w.sagas.Show(t.Context(), order.OrderID)
			if err != nil {
				t.Fatal(err)
			}
			shown := make([]string, len(steps))
			for i, s := range steps {
				shown[i] = fmt.Sprintf("%s %v", s.Name, s.Done)
			}
			sms := "SendSMSNotification " + strconv.FormatBool(c.fails >= 0)
			if diff := cmp.Diff([]string{"ValidatePayment true", "ReserveInventory true", "ProcessShipment true", "UpdateOrderStatus true",
				"SendEmailNotification true", sms, "SendPushNotification true"}, shown); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
		})
	}
}

func TestASagaIsShownWithItsSteps(t *testing.T) {
	t.Parallel()
	w := newWorld(t, quick)
	w.faults.set("Charge", 2, true)
	order := anOrder("ORDER-1")
	order.ShipTo.Zip = "X-REFUSED"
	w.fulfill(order)
	_, steps, err := w.sagas.Show(t.Context(), order.OrderID)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]string, 0, len(steps))
	for _, s := range steps {
		if s.StartedAt.IsZero() || s.EndedAt.Before(s.StartedAt) {
			t.Errorf("times of %+v", s)
		}
		got = append(got, fmt.Sprintf("%s %d %v", s.Name, s.Attempts, s.Done))
	}
	if len(got) > 5 {
		slices.Sort(got[5:]) // requested at the same time
	}
	want := []string{"ValidatePayment 3 true", "ReserveInventory 1 true", "ProcessShipment 1 true", "ReleaseInventory 1 true", "RefundPayment 1 true",
		"SendEmailNotification 1 true", "SendPushNotification 1 true", "SendSMSNotification 1 true", "UpdateOrderStatus 1 true"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	if _, _, err := w.sagas.Show(t.Context(), "ORDER-2"); err == nil {
		t.Error("an unknown saga was shown")
	}
}
