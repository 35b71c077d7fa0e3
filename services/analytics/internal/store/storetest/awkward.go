package storetest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	facts "waybill/services/analytics/internal/event"
	"waybill/services/analytics/internal/store"
)

// awkwardTexts look like something that they are not, or have characters that some layer writes in another way.
var awkwardTexts = []string{
	"waybill", `"waybill":`, `{"waybill":{"value":1}}`, "null", "NaN", "-Infinity", "true", "0", "1e999", "2026-03-14T12:00:00Z", "", " ",
	`"`, `\`, `\"`, `{`, `}`, `]`, ",", "a\x00b", "\x1f", "\x7f", "line\nbreak\r\t", "<script>&amp;</script>", "\u2028\u2029", "\ufeff", "Größe ✓ 😀",
	"event_id", "event_type", "timestamp", "source", "properties", "value", "$schema", "__key", "EventId", "Properties", "order:ORD-1:1", strings.Repeat("x", 2000),
}

// awkwardObjects are JSON objects that a client may send as properties.
var awkwardObjects = []string{
	`{}`, `{ }`, "{\n}", `{"waybill":{"value":1,"currency":"EUR"}}`, `{"waybill":null}`, `{"waybill":"waybill"}`, `{"waybill":[]}`, `{"waybill":{"waybill":{"waybill":1}}}`,
	`{"\u0077aybill":7,"a":1}`, `{"a":1,"waybill":{"order_id":"ORD-1"},"b":2}`, `{"a":{"waybill":{"quantity":3}}}`, `{"a":"{\"waybill\":1}"}`,
	`{"n":12345678901234567890,"f":1.10,"e":1E+2,"z":-0,"h":1e400}`, `{ "a" : [ 1 , { "b" : null } ] }`, `{"":""}`, `{"a":"\ud83d\ude00\u00e9\/"}`,
	`{"deep":` + strings.Repeat("[", 28) + strings.Repeat("]", 28) + `}`, `{"waybill":` + strings.Repeat("[", 28) + strings.Repeat("]", 28) + `}`,
	`{"a":"` + strings.Repeat("<", facts.MaxProperties-8) + `"}`,
}

// AwkwardEvents are valid events, as JSON, of every type with every awkward value that happened at a time.
func AwkwardEvents(at time.Time) []string {
	objects := append([]string(nil), awkwardObjects...)
	for _, text := range awkwardTexts {
		for _, properties := range []map[string]any{{text: 1}, {"utm_source": text}, {text: []any{text, map[string]any{text: nil}}}} {
			objects = append(objects, string(encoded(properties)))
		}
	}
	events := make([]string, 0, 4*len(objects))
	for i, properties := range objects {
		id := fmt.Sprintf("EVT-%d", i)
		if i < len(awkwardTexts) && len(awkwardTexts[i]) > 0 && len(awkwardTexts[i]) < 100 && !strings.ContainsAny(awkwardTexts[i], "\x00\n\x1f\x7f\u2028\u2029\ufeff") && strings.TrimSpace(awkwardTexts[i]) != "" {
			id = awkwardTexts[i] // an id may be any text of printable characters
		}
		for j, rest := range []string{
			`"event_type":"analytics.product_viewed","product_id":"PROD-001","user_id":"null","session_id":"waybill"`,
			`"event_type":"analytics.product_purchased","product_id":"waybill","value":49.99,"quantity":2,"order_id":"order:1"`,
			`"event_type":"analytics.product_purchased","product_id":"PROD-002","value":0.29,"currency":"EUR"`,
			`"event_type":"analytics.recommendation_generated","algorithm":"waybill","confidence_scores":[0.1,1,1e-7]`,
		} {
			events = append(events, fmt.Sprintf(`{"event_id":%s,%s,"timestamp":%q,"properties":%s}`,
				encoded(strings.Repeat("x", j)+id), rest, at.UTC().Format(time.RFC3339Nano), properties))
		}
	}
	return events
}

func encoded(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // texts, lists and objects always encode
	}
	return data
}

// awkward stores awkward events and reads the same ones again.
func awkward(t *testing.T, s store.Store) {
	t.Helper()
	texts := AwkwardEvents(start)
	sent, rows := make([]facts.Event, len(texts)), make([]store.Event, len(texts))
	sources := []string{facts.SourceClients, facts.SourceOrders, "https://shop.example/web", ""}
	for i, text := range texts {
		var err error
		if sent[i], err = facts.Decode(text, facts.Rules{Source: sources[i%len(sources)]}); err != nil {
			t.Fatalf("%.200s: %v", text, err)
		}
		r := sent[i].Record("USD")
		rows[i] = store.Event{
			ID: r.ID, Type: r.Type, Timestamp: r.At, UserID: r.User, SessionID: r.Session, ProductID: r.Product, Value: r.Value,
			Properties: json.RawMessage(r.Properties), ProcessedAt: start.Add(time.Duration(i) * time.Microsecond),
		}
	}
	for i, fresh := range must[[]bool](t)(s.Append(t.Context(), rows)) {
		if !fresh {
			t.Fatalf("%.200s is not new", texts[i])
		}
	}
	stored := all(t, s.Events(t.Context(), start))
	if len(stored) != len(sent) {
		t.Fatalf("%d events came back of %d", len(stored), len(sent))
	}
	for i, row := range stored {
		got, err := facts.FromRecord(facts.Record{
			ID: row.ID, Type: row.Type, User: row.UserID, Session: row.SessionID, Product: row.ProductID, At: row.Timestamp,
			Value: row.Value, Properties: string(row.Properties),
		})
		if err != nil {
			t.Fatalf("%.200s: %v", texts[i], err)
		}
		if got.Key() != sent[i].Key() || got.ID() != sent[i].ID() || got.Source() != sent[i].Source() {
			t.Errorf("%q of %q came back as %q of %q", sent[i].ID(), sent[i].Source(), got.ID(), got.Source())
		}
		// Texts are compared: go-cmp takes twice as long for each level of a list in a list.
		if got, want := string(encoded(got.Payload())), string(encoded(sent[i].Payload())); got != want {
			t.Errorf("%.200s came back as %.400s", want, got)
		}
	}
}
