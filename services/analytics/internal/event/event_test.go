package event_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"waybill/contracts"
	"waybill/services/analytics/internal/event"
)

var noon = time.Date(2026, time.March, 14, 12, 0, 0, 0, time.UTC)

const view = `{"event_id":"EVT-1","event_type":"analytics.product_viewed","user_id":"CUST-123","session_id":"SESSION-1",` +
	`"product_id":"PROD-001","timestamp":"2026-03-14T12:00:00Z","properties":{"device":"desktop","n":12345678901234567890}}`

func quoted(text string) string {
	data, _ := json.Marshal(text) //nolint:errchkjson // a string always encodes
	return string(data)
}

func decode(t *testing.T, text string, rules event.Rules) event.Event {
	t.Helper()
	e, err := event.Decode([]byte(text), rules)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestDecode(t *testing.T) {
	t.Parallel()
	e := decode(t, view, event.Rules{})
	if e.ID() != "EVT-1" || e.Type() != event.Viewed || e.User() != "CUST-123" || e.Session() != "SESSION-1" ||
		e.Product() != "PROD-001" || !e.At().Equal(noon) || !strings.Contains(e.Properties(), "12345678901234567890") {
		t.Errorf("decoded %+v", e)
	}
	e = decode(t, `{"event_id":"EVT-2","event_type":"analytics.product_purchased","product_id":"PROD-001","value":12.5,`+
		`"quantity":2,"order_id":"ORD-1","currency":"EUR","timestamp":"2026-03-14T13:00:00+01:00"}`, event.Rules{})
	if e.Value() != 12_5000 || e.Currency() != "EUR" || !e.At().Equal(noon) || e.At().Location() != time.UTC {
		t.Errorf("decoded %+v", e)
	}
	e = decode(t, `{"event_id":"EVT-3","event_type":"analytics.recommendation_generated","algorithm":"knn",`+
		`"confidence_scores":[0.5, 1 ,0.75],"timestamp":"2026-03-14T12:00:00Z","product_id":null}`, event.Rules{})
	if mean, ok := e.Confidence(); !ok || mean != 0.75 || e.Algorithm() != "knn" || e.Product() != "" {
		t.Errorf("decoded %+v", e)
	}
	e = decode(t, strings.ReplaceAll(view, `PROD-001`, `PROD\u002d0\u00e9`), event.Rules{})
	if e.Product() != "PROD-0é" {
		t.Errorf("the product is %q", e.Product())
	}
}

// TestTheNamesOfFormerClients reads what the former API's own tests send: another name of the type, times without a zone,
// and no event id.
func TestTheNamesOfFormerClients(t *testing.T) {
	t.Parallel()
	const former = `{"product_id":"PROD-1","user_id":"USER-7","timestamp":"2026-03-14T12:00:00.000000"}`
	rules := event.Rules{Type: "Analytics.ProductViewed", NaiveIsUTC: true, DeriveID: true}
	e, again := decode(t, former, rules), decode(t, former, rules)
	if e.Type() != event.Viewed || !e.At().Equal(noon) || e.ID() == "" || e.ID() != again.ID() {
		t.Errorf("decoded %+v, then %+v", e, again)
	}
	if other := decode(t, strings.Replace(former, "USER-7", "USER-8", 1), rules); other.ID() == e.ID() {
		t.Error("two events have one id")
	}
	if e := decode(t, strings.Replace(view, "analytics.product_viewed", "Analytics.ProductViewed", 1), event.Rules{Type: "analytics.product_viewed"}); e.Type() != event.Viewed {
		t.Errorf("the alias is a %s", e.Type())
	}
}

func TestEveryFaultIsNamed(t *testing.T) {
	t.Parallel()
	purchase := func(members string) string {
		return `{"event_id":"EVT-1","event_type":"analytics.product_purchased","product_id":"PROD-001",` +
			`"timestamp":"2026-03-14T12:00:00Z",` + members + `}`
	}
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"nothing":            {`{}`, []string{"event_type", "timestamp", "event_id"}},
		"no type":            {strings.Replace(view, `"event_type":"analytics.product_viewed",`, "", 1), []string{"event_type"}},
		"unknown type":       {strings.Replace(view, `product_viewed`, "product_tasted", 1), []string{"event_type"}},
		"null product":       {strings.Replace(view, `"PROD-001"`, "null", 1), []string{"product_id"}},
		"empty product":      {strings.Replace(view, `PROD-001`, "", 1), []string{"product_id"}},
		"numeric product":    {strings.Replace(view, `"PROD-001"`, "7", 1), []string{"product_id"}},
		"product of control": {strings.Replace(view, `PROD-001`, `a\nb`, 1), []string{"product_id"}},
		"long product":       {strings.Replace(view, `PROD-001`, strings.Repeat("p", 129), 1), []string{"product_id"}},
		"naive time":         {strings.Replace(view, `00Z`, "00", 1), []string{"timestamp"}},
		"leap second":        {strings.Replace(view, `12:00:00Z`, "23:59:60Z", 1), []string{"timestamp"}},
		"far zone":           {strings.Replace(view, `00Z`, "00+23:00", 1), []string{"timestamp"}},
		"comma":              {strings.Replace(view, `00Z`, "00,5Z", 1), []string{"timestamp"}},
		"year 10000":         {strings.Replace(view, `2026-03-14T12:00:00Z`, "9999-12-31T23:59:59-01:00", 1), []string{"timestamp"}},
		"year 1":             {strings.Replace(view, `2026-03-14T12:00:00Z`, "0001-01-01T00:00:00Z", 1), []string{"timestamp"}},
		"bad time":           {strings.Replace(view, `2026-03-14T12:00:00Z`, "noon", 1), []string{"timestamp"}},
		"numeric time":       {strings.Replace(view, `"2026-03-14T12:00:00Z"`, "1773489600", 1), []string{"timestamp"}},
		"ancient time":       {strings.Replace(view, `2026-`, "1826-", 1), []string{"timestamp"}},
		"far future":         {strings.Replace(view, `2026-`, "9026-", 1), []string{"timestamp"}},
		"early":              {strings.Replace(view, `T12:00`, "T12:06", 1), []string{"timestamp"}},
		"text for a number":  {purchase(`"value":"49.99"`), []string{"value"}},
		"NaN":                {purchase(`"value":NaN`), []string{"value"}},
		"infinity":           {purchase(`"value":-Infinity`), []string{"value"}},
		"huge value":         {purchase(`"value":1e999`), []string{"value"}},
		"negative value":     {purchase(`"value":-1`), []string{"value"}},
		"three decimals":     {purchase(`"value":1.005`), []string{"value"}},
		"half a yen":         {purchase(`"value":705.50,"currency":"JPY"`), []string{"value"}},
		"unknown currency":   {purchase(`"value":1,"currency":"ZZZ"`), []string{"currency"}},
		"gold":               {purchase(`"value":1,"currency":"XAU"`), []string{"currency"}},
		"no value":           {purchase(`"quantity":1`), []string{"value"}},
		"null value":         {purchase(`"value":null`), []string{"value"}},
		"several":            {purchase(`"value":"1","quantity":0,"currency":"usd","properties":[]`), []string{"value", "properties", "currency", "quantity"}},
		"value twice":        {purchase(`"value":1,"value":2`), []string{"value"}},
		"large properties":   {strings.Replace(view, `desktop`, strings.Repeat("d", event.MaxProperties), 1), []string{"properties"}},
		"too large":          {strings.Replace(view, `desktop`, strings.Repeat("d", event.MaxSize), 1), []string{""}},
		"deep properties":    {strings.Replace(view, `"desktop"`, strings.Repeat("[", 40)+strings.Repeat("]", 40), 1), []string{""}},
		"no JSON":            {`views: 1`, []string{""}},
		"trailing data":      {view + view, []string{""}},
		"no scores": {`{"event_id":"E","event_type":"analytics.recommendation_generated","algorithm":"knn","timestamp":"2026-03-14T12:00:00Z"}`,
			[]string{"confidence_scores"}},
		"scores of text": {`{"event_id":"E","event_type":"analytics.recommendation_generated","algorithm":"knn","confidence_scores":[0.5,"0.7"],` +
			`"timestamp":"2026-03-14T12:00:00Z"}`, []string{"confidence_scores[1]"}},
		"no algorithm": {`{"event_id":"E","event_type":"analytics.recommendation_generated","confidence_scores":[],"timestamp":"2026-03-14T12:00:00Z"}`,
			[]string{"algorithm"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := event.Decode([]byte(c.text), event.Rules{Now: noon, MaxAhead: 5 * time.Minute})
			var refused *event.Error
			if !errors.As(err, &refused) {
				t.Fatalf("the error is %v", err)
			}
			got := make([]string, 0, len(refused.Faults))
			for _, fault := range refused.Faults {
				got = append(got, fault.Path)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%v: %s", err, diff)
			}
		})
	}
}

func TestEnvelopeAndEventAgree(t *testing.T) {
	t.Parallel()
	for _, rules := range []event.Rules{{Type: contracts.TypeProductPurchased}, {Type: "Order.Created"}} {
		if _, err := event.Decode([]byte(view), rules); err == nil || !strings.Contains(err.Error(), "event_type") {
			t.Errorf("a view in an envelope of %s: %v", rules.Type, err)
		}
	}
}

// TestADeliveredEventIsNotLostForTheFormOfItsTime reads forms that release 1.0 let in.
func TestADeliveredEventIsNotLostForTheFormOfItsTime(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"2026-03-14T12:00:00,0Z", "2026-03-15T11:00:00+23:00", "2026-03-14T12:00:00.0000000000Z"} {
		if e := decode(t, strings.Replace(view, "2026-03-14T12:00:00Z", at, 1), event.Rules{Delivered: true}); !e.At().Equal(noon) {
			t.Errorf("%s is %s", at, e.At())
		}
	}
}

// TestPayloadsComeBack publishes an event and reads it again.
func TestPayloadsComeBack(t *testing.T) {
	t.Parallel()
	for _, e := range contracts.Catalogue() {
		if e.Topic != contracts.TopicAnalyticsEvents {
			continue
		}
		data, err := json.Marshal(e.Sample)
		if err != nil {
			t.Fatal(err)
		}
		first, err := event.Decode(data, event.Rules{Type: e.Type})
		if err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(first.Payload())
		if err != nil || string(again) != string(data) {
			t.Errorf("%s came back as %s, %v; want %s", e.Type, again, err, data)
		}
	}
}

// TestRecordsComeBack stores an event in the columns of the table and reads it again.
func TestRecordsComeBack(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"view":     view,
		"bare":     strings.Replace(view, `,"properties":{"device":"desktop","n":12345678901234567890}`, "", 1),
		"purchase": `{"event_id":"E","event_type":"analytics.product_purchased","product_id":"P","value":0.29,"timestamp":"2026-03-14T12:00:00.123456Z"}`,
		"purchase with all": `{"event_id":"E","event_type":"analytics.product_purchased","product_id":"P","value":9999999999.99,"currency":"EUR",` +
			`"quantity":3,"order_id":"ORD-1","timestamp":"2026-03-14T12:00:00Z","properties":{"device":"phone"}}`,
		"recommendation": `{"event_id":"E","event_type":"analytics.recommendation_generated","algorithm":"knn","confidence_scores":[0.1,0.25],` +
			`"timestamp":"2026-03-14T12:00:00Z","properties":{ }}`,
		"unscored": `{"event_id":"E","event_type":"analytics.recommendation_generated","algorithm":"knn","confidence_scores":[],"timestamp":"2026-03-14T12:00:00Z"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := decode(t, text, event.Rules{})
			record := e.Record("USD")
			if p, ok := e.Payload().(contracts.ProductPurchased); ok && (record.Value == 0) == (p.Currency == "USD") {
				t.Errorf("%v is added up for a purchase in %s", record.Value, p.Currency)
			}
			if record.Properties != "" && !json.Valid([]byte(record.Properties)) {
				t.Fatalf("the properties are %s", record.Properties)
			}
			for _, record := range []event.Record{record, e.Record("EUR")} {
				again, err := event.FromRecord(record)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(e.Payload(), again.Payload(), cmpopts.EquateEmpty()); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
	if _, err := event.FromRecord(event.Record{ID: "E", Type: "Order.Created"}); err == nil {
		t.Error("a row of something else is an event")
	}
	for _, properties := range []string{`{"waybill":7}`, `{"waybill":{"value":1}}`, `{"utm_source":"waybill"}`, `{"\u0077aybill":null,"a":1}`} {
		e := decode(t, strings.Replace(view, `{"device":"desktop","n":12345678901234567890}`, properties, 1), event.Rules{})
		again, err := event.FromRecord(e.Record("USD"))
		if err != nil {
			t.Fatalf("%s: %v", properties, err)
		}
		if diff := cmp.Diff(e.Payload(), again.Payload()); diff != "" {
			t.Errorf("%s: %s", properties, diff)
		}
	}
}

func TestPurchasesOfAnOrder(t *testing.T) {
	t.Parallel()
	order := contracts.OrderFulfilled{
		OrderID: "ORD-1", CustomerID: "CUST-123", FulfilledAt: noon,
		Items: []contracts.Line{{ProductID: "PROD-001", Quantity: 2, Price: 49_9900}, {ProductID: "PROD-001", Quantity: 1, Price: 100}},
	}
	got, err := event.Purchases(order)
	if err != nil || len(got) != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	again, _ := event.Purchases(order)
	if e := got[0]; e.Value() != 99_9800 || e.Currency() != "USD" || e.ID() == got[1].ID() || e.ID() != again[0].ID() || e.User() != "CUST-123" {
		t.Errorf("the first purchase is %+v", e)
	}
	order.Items[1] = contracts.Line{ProductID: "", Quantity: 0}
	if _, err := event.Purchases(order); err == nil || !strings.Contains(err.Error(), "items[1].product_id") || !strings.Contains(err.Error(), "items[1].price") {
		t.Errorf("the error is %v", err)
	}
}

// TestTheScannerTakesWhatTheStandardLibraryTakes holds the scanner against encoding/json.
func TestTheScannerTakesWhatTheStandardLibraryTakes(t *testing.T) {
	t.Parallel()
	fragment := rapid.SampledFrom([]string{
		"{", "}", "[", "]", ",", ":", `"`, `"a"`, `"\u00e9"`, `"\x"`, `"\`, "\\u12", "0", "01", "-", "-1", "1.", "1.5", "1e", "1e+5", "E9", ".5",
		"true", "false", "null", "nul", "NaN", " ", "\n", "\x00", "é", "\x7f", `{"a":1}`, `[1,2]`, `"a":`, `"b":null`,
	})
	rapid.Check(t, func(t *rapid.T) {
		inner := strings.Join(rapid.SliceOfN(fragment, 0, 8).Draw(t, "text"), "")
		text := fmt.Sprintf(`{"event_id":"E","event_type":"analytics.product_viewed","product_id":"P","timestamp":"2026-03-14T12:00:00Z","x":%s}`, inner)
		_, err := event.Decode([]byte(text), event.Rules{})
		known := []string{"event_id", "product_id"} // a fragment may close the object and open nothing else
		if valid := json.Valid([]byte(text)); valid != (err == nil) && !strings.Contains(inner, known[0]) {
			t.Fatalf("%s: encoding/json says %v, Decode says %v", text, valid, err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(view))
	f.Add([]byte(strings.Replace(view, `{"device":"desktop","n":12345678901234567890}`, "{ }", 1)))
	f.Add([]byte(`{"event_id":"E","event_type":"analytics.recommendation_generated","algorithm":"k","confidence_scores":[0.1,1],"timestamp":"2026-03-14T12:00:00Z"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := event.Decode(data, event.Rules{NaiveIsUTC: true, DeriveID: true})
		if err != nil {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("%q is no JSON", data)
		}
		payload, err := json.Marshal(e.Payload())
		if err != nil {
			t.Fatal(err)
		}
		again, err := event.Decode(payload, event.Rules{Type: e.Type().String(), Delivered: true})
		if err != nil {
			t.Fatalf("%s: %v", payload, err)
		}
		if diff := cmp.Diff(e.Payload(), again.Payload()); diff != "" {
			t.Fatal(diff)
		}
		stored, err := event.FromRecord(e.Record("EUR"))
		if err != nil {
			t.Fatalf("%s: %v", payload, err)
		}
		if diff := cmp.Diff(e.Payload(), stored.Payload(), cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	data := []byte(view)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := event.Decode(data, event.Rules{}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestEveryCurrencyKeepsItsAmountInTheStore: what has three or four decimal places comes back from the store as it was, and
// so does what former releases accepted.
func TestEveryCurrencyKeepsItsAmountInTheStore(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ value, currency, added string }{
		{"1.234", "KWD", "USD"}, {"1.234", "KWD", "KWD"}, {"1.2345", "CLF", "CLF"}, {"705", "JPY", "JPY"}, {"9999999999.99", "USD", "USD"},
	} {
		text := `{"event_id":"EVT-1","event_type":"analytics.product_purchased","product_id":"PROD-001","timestamp":"2026-03-14T12:00:00Z",` +
			`"value":` + c.value + `,"currency":"` + c.currency + `"}`
		e := decode(t, text, event.Rules{Now: noon, MaxAhead: time.Minute})
		again, err := event.FromRecord(e.Record(c.added))
		if want, _ := contracts.ParseAmount(c.value); err != nil || again.Value() != want || again.Currency() != c.currency {
			t.Errorf("%s %s, added up in %s: %v %s, %v", c.value, c.currency, c.added, again.Value(), again.Currency(), err)
		}
	}
	former := decode(t, `{"event_id":"EVT-1","event_type":"analytics.product_purchased","product_id":"PROD-001",`+
		`"timestamp":"2026-03-14T12:00:00Z","value":705.50,"currency":"ZZZ"}`, event.Rules{})
	if again, err := event.FromRecord(former.Record("USD")); err != nil || again.Value() != 705_5000 || again.Currency() != "ZZZ" {
		t.Errorf("an event that a former release stored: %+v, %v", again, err)
	}
}
