package order_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/services/orders/internal/order"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func draft() order.Draft {
	return order.Draft{
		ID: "ord-1", CustomerID: "CUST-123", Total: "129.97", Currency: "EUR", PaymentToken: "tok_visa",
		Lines: []order.DraftLine{
			{ProductID: "PROD-1", Name: "Mug", Quantity: "2", Price: "49.99"},
			{ProductID: "PROD-1", Quantity: "1", Price: "29.99"},
		},
		ShipTo: contracts.Address{Street: "123 Main St", City: "Seattle", State: "WA", Zip: "98101", Country: "US"},
	}
}

func newOrder(t *testing.T) *order.Order {
	t.Helper()
	o, err := order.New(draft(), at)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestNew(t *testing.T) {
	t.Parallel()
	got := newOrder(t).Snapshot()
	want := order.Snapshot{
		Status: order.Received, CreatedAt: at, UpdatedAt: at,
		Content: contracts.Order{
			OrderID: "ord-1", CustomerID: "CUST-123", TotalAmount: 129_9700, Currency: "EUR", PaymentToken: "tok_visa",
			Items:  []contracts.Line{{ProductID: "PROD-1", Name: "Mug", Quantity: 2, Price: 49_9900}, {ProductID: "PROD-1", Quantity: 1, Price: 29_9900}},
			ShipTo: contracts.Address{Street: "123 Main St", City: "Seattle", State: "WA", Zip: "98101", Country: "US"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNewTakesWhatIsAllowed(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*order.Draft){
		"no currency, which is dollars": func(d *order.Draft) { d.Currency = "" },
		"a free item":                   func(d *order.Draft) { d.Lines[1].Price, d.Total = "0", "99.98" },
		"a whole price":                 func(d *order.Draft) { d.Lines[1].Price, d.Total = "5", "104.98" },
		"the longest ids":               func(d *order.Draft) { d.ID, d.CustomerID = strings.Repeat("a", 64), strings.Repeat("9", 64) },
		"a name of many bytes":          func(d *order.Draft) { d.Lines[0].Name = strings.Repeat("ü", 200) },
		"only what an address needs":    func(d *order.Draft) { d.ShipTo.State, d.ShipTo.Country = "", "" },
		"the most lines and pieces": func(d *order.Draft) {
			d.Lines = slices.Repeat([]order.DraftLine{{ProductID: "P", Quantity: "1000", Price: "0.01"}}, order.MaxLines)
			d.Total = "1000.00"
		},
	} {
		d := draft()
		change(&d)
		if _, err := order.New(d, at); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewNamesEveryFault(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*order.Draft)
		paths  []string
	}{
		"nothing at all": {func(d *order.Draft) { *d = order.Draft{} }, []string{
			"order_id", "customer_id", "items", "total_amount", "shipping_address.street", "shipping_address.city", "shipping_address.zip",
		}},
		"a slash in an id":         {func(d *order.Draft) { d.ID = "a/b" }, []string{"order_id"}},
		"an id that begins dotted": {func(d *order.Draft) { d.CustomerID = ".a" }, []string{"customer_id"}},
		"an id too long":           {func(d *order.Draft) { d.ID = strings.Repeat("a", 65) }, []string{"order_id"}},
		"an id with a newline":     {func(d *order.Draft) { d.ID = "a\n" }, []string{"order_id"}},
		"no items":                 {func(d *order.Draft) { d.Lines = nil }, []string{"items"}},
		"too many items":           {func(d *order.Draft) { d.Lines = make([]order.DraftLine, 101) }, []string{"items"}},
		"an empty item": {func(d *order.Draft) { d.Lines[1] = order.DraftLine{} }, []string{
			"items[1].product_id", "items[1].quantity", "items[1].price",
		}},
		"no pieces":                {func(d *order.Draft) { d.Lines[0].Quantity = "0" }, []string{"items[0].quantity"}},
		"fewer than no pieces":     {func(d *order.Draft) { d.Lines[0].Quantity = "-5" }, []string{"items[0].quantity"}},
		"half a piece":             {func(d *order.Draft) { d.Lines[0].Quantity = "1.5" }, []string{"items[0].quantity"}},
		"pieces in text":           {func(d *order.Draft) { d.Lines[0].Quantity = `"2"` }, []string{"items[0].quantity"}},
		"pieces with an exponent":  {func(d *order.Draft) { d.Lines[0].Quantity = "1e2" }, []string{"items[0].quantity"}},
		"too many pieces":          {func(d *order.Draft) { d.Lines[0].Quantity = "1001" }, []string{"items[0].quantity"}},
		"pieces beyond an integer": {func(d *order.Draft) { d.Lines[0].Quantity = "99999999999999999999" }, []string{"items[0].quantity"}},
		"a price of three decimals": {
			func(d *order.Draft) { d.Lines[0].Price, d.Lines[1].Price = "49.999", "1e3" }, []string{"items[0].price", "items[1].price"},
		},
		"a negative price":     {func(d *order.Draft) { d.Lines[0].Price = "-1" }, []string{"items[0].price"}},
		"a price in text":      {func(d *order.Draft) { d.Lines[0].Price = `"x"` }, []string{"items[0].price"}},
		"a total that is off":  {func(d *order.Draft) { d.Total = "129.98" }, []string{"total_amount"}},
		"a total of text":      {func(d *order.Draft) { d.Total = `"129.97"` }, []string{"total_amount"}},
		"a lower-case code":    {func(d *order.Draft) { d.Currency = "usd" }, []string{"currency"}},
		"a street of spaces":   {func(d *order.Draft) { d.ShipTo.Street = "  " }, []string{"shipping_address.street"}},
		"a long name":          {func(d *order.Draft) { d.Lines[0].Name = strings.Repeat("x", 201) }, []string{"items[0].name"}},
		"a control character":  {func(d *order.Draft) { d.ShipTo.City = "Se\x00attle" }, []string{"shipping_address.city"}},
		"a long payment token": {func(d *order.Draft) { d.PaymentToken = strings.Repeat("x", 256) }, []string{"payment_token"}},
	} {
		d := draft()
		test.change(&d)
		_, err := order.New(d, at)
		var refused *order.Error
		if !errors.As(err, &refused) || refused.Kind != order.Invalid {
			t.Errorf("%s: got %v, want an invalid order", name, err)
			continue
		}
		paths := make([]string, 0, len(refused.Faults))
		for _, fault := range refused.Faults {
			paths = append(paths, fault.Path)
			if !strings.Contains(err.Error(), fault.Path+" "+fault.Expectation) {
				t.Errorf("%s: the text %q leaves out %s", name, err, fault.Path)
			}
		}
		if diff := cmp.Diff(test.paths, paths); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestTheTextOfAFaultHoldsNoValue(t *testing.T) {
	t.Parallel()
	d := draft()
	d.ID, d.CustomerID, d.Currency, d.Total, d.PaymentToken = "SECRET/", "SECRET/", "SECRET", `"SECRET"`, "SECRET\n"
	d.ShipTo = contracts.Address{Street: "SECRET\n", City: "SECRET\n", Zip: "SECRET\n", State: "SECRET\n", Country: "SECRET\n"}
	d.Lines[0] = order.DraftLine{ProductID: "SECRET/", Name: "SECRET\n", Quantity: `"SECRET"`, Price: `"SECRET"`}
	if _, err := order.New(d, at); err == nil || strings.Contains(err.Error(), "SECRET") {
		t.Errorf("got %v, which is logged", err)
	}
}

func TestTheWayOfAFulfilledOrder(t *testing.T) {
	t.Parallel()
	o := newOrder(t)
	o.Place()
	eta := at.AddDate(0, 0, 3)
	if !o.Confirm(order.Cause{EventID: "ord-1:Order.Created", Source: order.Source, Time: at}, at.Add(1)) {
		t.Fatal("not confirmed")
	}
	o.Step(order.Cause{EventID: "pay", Source: "/f", Time: at}, contracts.StepCompleted{
		Step: contracts.StepValidatePayment, Outcome: contracts.OutcomeDone, Amount: 129_9700, CompletedAt: at.Add(2),
	}, at.Add(3))
	o.Step(order.Cause{EventID: "ship", Source: "/f", Time: at.Add(4)}, contracts.StepCompleted{
		Step: contracts.StepProcessShipment, Outcome: contracts.OutcomeDone, TrackingNumber: "T", Carrier: "C", EstimatedDelivery: eta,
	}, at.Add(5))
	o.Complete(order.Cause{EventID: "done", Source: "/f", Time: at.Add(6)}, contracts.FulfillmentCompleted{
		TrackingNumber: "T", Carrier: "C", EstimatedDelivery: eta, ShipmentCost: 9_9900,
	}, at.Add(7))

	s := o.Snapshot()
	want := []order.Entry{
		{EventID: "ord-1:Order.Created", Type: "Order.Created", Time: at, Source: order.Source, Status: order.Received},
		{EventID: "ord-1:Order.Confirmed", Type: "Order.Confirmed", Time: at.Add(1), Source: order.Source, Status: order.Confirmed, Previous: order.Received, CausedBy: "ord-1:Order.Created"},
		{EventID: "pay", Type: "Fulfillment.StepCompleted", Time: at.Add(2), Source: "/f", Status: order.Fulfilling, Step: "ValidatePayment", Outcome: "done", Amount: 129_9700},
		{EventID: "pay:Order.Updated", Type: "Order.Updated", Time: at.Add(3), Source: order.Source, Status: order.Fulfilling, Previous: order.Confirmed, CausedBy: "pay"},
		{EventID: "ship", Type: "Fulfillment.StepCompleted", Time: at.Add(4), Source: "/f", Status: order.Fulfilling, Step: "ProcessShipment", Outcome: "done", TrackingNumber: "T", Carrier: "C", EstimatedDelivery: eta},
		{EventID: "done", Type: "Fulfillment.Completed", Time: at.Add(6), Source: "/f", Status: order.Fulfilled, Amount: 9_9900, TrackingNumber: "T", Carrier: "C", EstimatedDelivery: eta},
		{EventID: "ord-1:Order.Fulfilled", Type: "Order.Fulfilled", Time: at.Add(7), Source: order.Source, Status: order.Fulfilled, Previous: order.Fulfilling, CausedBy: "done"},
	}
	if diff := cmp.Diff(want, s.Timeline); diff != "" {
		t.Error(diff)
	}
	if s.Status != order.Fulfilled || s.Shipment != (order.Shipment{TrackingNumber: "T", Carrier: "C", EstimatedDelivery: eta}) || !s.UpdatedAt.Equal(at.Add(7)) {
		t.Errorf("the order ends as %+v", s)
	}
	var payloads []contracts.Payload
	for _, e := range s.Timeline {
		if p := o.Announcement(e); p != nil {
			payloads = append(payloads, p)
		}
	}
	wantPayloads := []contracts.Payload{
		contracts.OrderCreated{Order: s.Content, CreatedAt: at},
		contracts.OrderConfirmed{Order: s.Content, CreatedAt: at, ProcessedAt: at.Add(1)},
		contracts.OrderUpdated{OrderID: "ord-1", CustomerID: "CUST-123", Status: "fulfilling", PreviousStatus: "confirmed", UpdatedAt: at.Add(3)},
		contracts.OrderFulfilled{
			OrderID: "ord-1", CustomerID: "CUST-123", Items: s.Content.Items, TotalAmount: 129_9700, Currency: "EUR",
			TrackingNumber: "T", Carrier: "C", EstimatedDelivery: eta, FulfilledAt: at.Add(7),
		},
	}
	if diff := cmp.Diff(wantPayloads, payloads); diff != "" {
		t.Error(diff)
	}
}

func TestFail(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		notUndone []string
		status    order.Status
		payload   contracts.Payload
	}{
		"everything undone": {nil, order.FulfillmentFailed, contracts.OrderFulfillmentFailed{
			OrderID: "ord-1", CustomerID: "CUST-123", Code: "out_of_stock", Error: "There is none left.", FailedAt: at,
		}},
		"something not undone": {[]string{"RefundPayment"}, order.NeedsAttention, contracts.OrderUpdated{
			OrderID: "ord-1", CustomerID: "CUST-123", Status: "needs_attention", PreviousStatus: "confirmed", UpdatedAt: at,
		}},
	} {
		o := newOrder(t)
		o.Confirm(order.Cause{EventID: "created"}, at)
		cause := order.Cause{EventID: "failed", Time: at}
		o.Fail(cause, contracts.FulfillmentFailed{Code: "out_of_stock", Error: "There is none left.", NotUndone: test.notUndone}, at)
		s := o.Snapshot()
		if s.Status != test.status || s.Failure != (order.Failure{Code: "out_of_stock", Message: "There is none left."}) {
			t.Errorf("%s: the order is %s, its failure %+v", name, s.Status, s.Failure)
		}
		announced := o.Unsettled(cause)
		if len(announced) != 1 {
			t.Fatalf("%s: %d announcements, want 1", name, len(announced))
		}
		if diff := cmp.Diff(test.payload, o.Announcement(announced[0])); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestACancelledShipmentIsNotShown(t *testing.T) {
	t.Parallel()
	o := newOrder(t)
	o.Confirm(order.Cause{EventID: "created"}, at)
	for _, step := range []string{contracts.StepProcessShipment, contracts.StepCancelShipment} {
		o.Step(order.Cause{EventID: step}, contracts.StepCompleted{Step: step, Outcome: contracts.OutcomeDone, TrackingNumber: "T"}, at)
	}
	if got := o.Snapshot().Shipment; got != (order.Shipment{}) {
		t.Errorf("the order still shows %+v", got)
	}
}

func TestTheTransitionTable(t *testing.T) {
	t.Parallel()
	final := []order.Status{order.Fulfilled, order.FulfillmentFailed, order.Cancelled}
	for _, from := range order.Statuses() {
		if from.Final() != slices.Contains(final, from) {
			t.Errorf("%s: final is %v", from, from.Final())
		}
		for _, to := range order.Statuses() {
			want := rank[to] > rank[from] || from == order.Fulfilling && to == order.AwaitingApproval || from == order.AwaitingApproval && to == order.Fulfilling
			if from == order.NeedsAttention && to == order.Fulfilled {
				want = false // what is being undone is not shipped
			}
			if got := from.CanBecome(to); got != want {
				t.Errorf("%s → %s is %v, want %v", from, to, got, want)
			}
		}
	}
}

// rank is how far each status is along the way; only within a rank may an order go to and fro.
var rank = map[order.Status]int{
	order.Received: 0, order.Confirmed: 1, order.Fulfilling: 2, order.AwaitingApproval: 2, order.NeedsAttention: 3,
	order.Fulfilled: 4, order.FulfillmentFailed: 4, order.Cancelled: 4,
}

func TestMoneyFollowsItsCurrency(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		currency     string
		price, total order.Number
		fault        string
	}{
		{"JPY", "705", "1410", ""},
		{"JPY", "705.00", "1410.0", ""},
		{"JPY", "705.50", "1411", "items[0].price must have no decimal places in JPY, such as 4999"},
		{"KWD", "1.234", "2.468", ""},
		{"KWD", "1.2345", "2.469", "items[0].price must have at most 3 decimal places in KWD, such as 49.990"},
		{"KWD", "1.234", "2.46", "total_amount must equal the sum of quantity times price over all items, which is 2.468 KWD"},
		{"CLF", "1.2345", "2.469", ""},
		{"USD", "1.234", "2.468", "items[0].price must have at most 2 decimal places in USD, such as 49.99"},
		{"", "1.23", "2.46", ""},
		{"HUF", "1.23", "2.46", ""},
		{"ISK", "1.23", "2.46", "items[0].price must have no decimal places in ISK, such as 4999"},
		{"ZZZ", "1.00", "2.00", "currency must be a current ISO 4217 currency"},
		{"XXX", "1.00", "2.00", "currency must be a current ISO 4217 currency"},
		{"XTS", "1.00", "2.00", "currency must be a current ISO 4217 currency"},
		{"XAU", "1.00", "2.00", "currency must be a current ISO 4217 currency"},
		{"jpy", "1.00", "2.00", "currency must be a current ISO 4217 currency"},
		{"USD", "9999999999.99", "9999999999.99", "total_amount must be at most 9999999999.9999"},
	} {
		d := draft()
		d.Currency, d.Total = c.currency, c.total
		d.Lines = []order.DraftLine{{ProductID: "PROD-1", Quantity: "2", Price: c.price}}
		_, err := order.New(d, at)
		if c.fault == "" {
			if err != nil {
				t.Errorf("%s %s: %v", c.price, c.currency, err)
			}
			continue
		}
		var refused *order.Error
		if !errors.As(err, &refused) || !strings.HasPrefix(refused.Faults[0].Path+" "+refused.Faults[0].Expectation, c.fault) {
			t.Errorf("%s %s: %v, want %s", c.price, c.currency, err, c.fault)
		}
	}
}

// TestTheLargestOrderDoesNotOverflow: a hundred lines of the largest price and quantity are more than an int64 holds.
func TestTheLargestOrderDoesNotOverflow(t *testing.T) {
	t.Parallel()
	d := draft()
	d.Currency, d.Total = "USD", "0"
	d.Lines = slices.Repeat([]order.DraftLine{{ProductID: "PROD-1", Quantity: "1000", Price: "9999999999.99"}}, order.MaxLines)
	if _, err := order.New(d, at); err == nil || !strings.Contains(err.Error(), "total_amount must be at most") {
		t.Errorf("the error is %v", err)
	}
}

// The test gives the order an Order.Created of another system that has the ids of fulfillment's events.
func TestNoSourceTakesTheIDOfAnother(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, time.March, 14, 9, 0, 0, 0, time.UTC)
	o := order.Restore(order.Snapshot{Content: contracts.Order{OrderID: "R5", CustomerID: "CUST-123"}, Status: order.Received, CreatedAt: at})
	done := "R5:" + contracts.TypeFulfillmentCompleted
	if !o.Confirm(order.Cause{EventID: done, Source: "https://shop.example", Time: at}, at) {
		t.Fatal("the order is not confirmed")
	}
	for i := range 2 {
		learned := o.Complete(order.Cause{EventID: done, Source: "/waybill/fulfillment", Time: at}, contracts.FulfillmentCompleted{OrderID: "R5", CompletedAt: at}, at)
		if learned != (i == 0) {
			t.Errorf("delivery %d of the completion: learned is %v", i+1, learned)
		}
	}
	if got := o.Snapshot().Status; got != order.Fulfilled {
		t.Errorf("the order is %s", got)
	}
}

// TestUpdatesOfEqualIDsAreToldApart updates an order by two events of one id, from two sources.
func TestUpdatesOfEqualIDsAreToldApart(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, time.March, 14, 9, 0, 0, 0, time.UTC)
	o := order.Restore(order.Snapshot{Content: contracts.Order{OrderID: "R5", CustomerID: "CUST-123"}, Status: order.Confirmed, CreatedAt: at})
	step := contracts.StepCompleted{OrderID: "R5", Step: contracts.StepValidatePayment, Outcome: contracts.OutcomeDone, CompletedAt: at}
	o.Step(order.Cause{EventID: "R5:1", Source: "https://shop.example", Time: at}, step, at)
	o.AwaitApproval(order.Cause{EventID: "R5:1", Source: "/waybill/fulfillment", Time: at}, contracts.ApprovalRequested{OrderID: "R5", RequestedAt: at}, at)
	ids := map[string]bool{}
	for _, e := range o.Snapshot().Timeline {
		if ids[e.Source+" "+e.EventID] {
			t.Errorf("two events of %s have the id %s", e.Source, e.EventID)
		}
		ids[e.Source+" "+e.EventID] = true
	}
	if len(ids) != 4 {
		t.Errorf("the timeline has %d events, want 4", len(ids))
	}
}
