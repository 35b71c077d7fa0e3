package eventing

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// delivered is a batch as Dapr 1.18 writes it.
const delivered = `{"entries":[{"entryId":"0","event":{"data":{"event_id":"EVT-1","product_id":"PROD-001","note":"a \"b\" \u00e9 ü"},` +
	`"datacontenttype":"application/json","dataversion":"1.0","id":"EVT-1","pubsubname":"telemetrybus","source":"/waybill/analytics","specversion":"1.0",` +
	`"subject":"PROD-001","time":"2026-03-14T09:26:53.5Z","topic":"analytics-events","traceid":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",` +
	`"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","tracestate":"","type":"analytics.product_viewed"},` +
	`"metadata":{"__key":"SESSION-1","__offset":"7","__partition":"0"},"contentType":"application/cloudevents+json"},` +
	`{"entryId":"1","event":{"id":"EVT-2","type":"T","data":[1,2],"sequence":7,"parkedby":"orders","parkedreason":"why","parkedat":"2026-03-14T09:26:53Z"},` +
	`"metadata":{"metadata.SessionId":"CUST-123"},"contentType":"application/cloudevents+json"}],"id":"","metadata":{"pubsubName":"telemetrybus"},"pubsubname":"telemetrybus",` +
	`"topic":"analytics-events","type":"com.dapr.event.sent.bulk"}`

// sameAsDecoded fails if a batch is decoded in one pass and the result differs from that of encoding/json.
func sameAsDecoded(t *testing.T, body string) (scanned bool) {
	t.Helper()
	fast, ok := scanBatch([]byte(body))
	if !ok {
		return false
	}
	var plain struct {
		Entries []struct {
			EntryID  string            `json:"entryId"`
			Event    json.RawMessage   `json:"event"`
			Metadata map[string]string `json:"metadata"`
		} `json:"entries"`
	}
	if err := json.Unmarshal([]byte(body), &plain); err != nil || len(plain.Entries) != len(fast) {
		t.Fatalf("%s: %d entries, but encoding/json finds %d, %v", body, len(fast), len(plain.Entries), err)
	}
	for i, one := range plain.Entries {
		event, err := decodeEvent(string(one.Event), one.Event)
		if err != nil {
			t.Fatalf("%s: entry %d is decoded, but encoding/json returns %v", body, i, err)
		}
		want := entry{id: one.EntryID, event: event}
		want.event.Key = keyOf(func(name string) string { return one.Metadata[name] })
		if got := fast[i].event.DataText(); got != string(want.event.Data) {
			t.Fatalf("%s: DataText of entry %d is %s", body, i, got)
		}
		fast[i].event.dataText = ""
		if diff := cmp.Diff(want, fast[i], cmp.AllowUnexported(entry{}, Event{})); diff != "" {
			t.Fatalf("%s: entry %d differs (-encoding/json +in one pass):\n%s", body, i, diff)
		}
	}
	return true
}

func TestADeliveryIsReadInOnePass(t *testing.T) {
	t.Parallel()
	if !sameAsDecoded(t, delivered) {
		t.Errorf("%s is left to the strict decoder", delivered)
	}
	for _, body := range []string{`{"entries":[]}`, ` { "entries" : [ ] } `, strings.ReplaceAll(delivered, `":`, "\" :\n"), strings.ReplaceAll(delivered, "/", `\/`), strings.ReplaceAll(delivered, `{"metadata.SessionId":"CUST-123"}`, "null")} {
		sameAsDecoded(t, body)
	}
}

// An unusual delivery is either decoded as by the strict decoder or left to it.
func TestUnusualDeliveriesAreDecodedAsByTheStrictDecoder(t *testing.T) {
	t.Parallel()
	dice := rand.New(rand.NewPCG(1, 1))
	pieces := []string{
		`"`, `\`, `\u00e9`, "{", "}", "[", "]", ",", ":", " ", "null", "1", `""`, `"x":1,`, `"ID":"x",`, `"Data":{},`, `"data":null,`, `"data":1,`, `"id":"x",`,
		`"time":7,`, `"type":null,`, `"EntryId":"9",`, `"event":{},`, `"metadata":{},`, `"entries":[],`, `"Entries":[],`, `"ſource":"x",`, "\xff", "\x00", "é",
	}
	scanned := 0
	const tries = 20_000
	for range tries {
		body := delivered
		for range 1 + dice.IntN(2) {
			at := dice.IntN(len(body))
			until := min(len(body), at+dice.IntN(3)*dice.IntN(12))
			body = body[:at] + pieces[dice.IntN(len(pieces))] + body[until:]
		}
		// Most changes make the JSON invalid; those after a comma or a brace insert a member.
		if i := strings.IndexAny(body[dice.IntN(len(body)):], "{,"); i > 0 && dice.IntN(2) == 0 {
			body = delivered[:min(i+1, len(delivered))] + pieces[dice.IntN(len(pieces))] + delivered[min(i+1, len(delivered)):]
		}
		if sameAsDecoded(t, body) {
			scanned++
		}
	}
	if scanned < tries/50 {
		t.Errorf("only %d of %d were read at all", scanned, tries)
	}
}

func BenchmarkReadBatch(b *testing.B) {
	one := delivered[strings.Index(delivered, "{\"entryId\""):strings.Index(delivered, ",{\"entryId\":\"1\"")]
	const events = 500
	body := []byte(`{"entries":[` + one + strings.Repeat(","+one, events-1) + `]}`)
	for name, read := range map[string]func([]byte) ([]entry, error){"one pass": readBatch, "the strict decoder": decodeBatch} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if entries, err := read(body); err != nil || len(entries) != events {
					b.Fatal(len(entries), err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/events, "ns/event")
		})
	}
}
