package event_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"waybill/contracts"
	"waybill/services/analytics/internal/event"
)

// identified makes an event of that type, source and id.
func identified(t interface {
	Helper()
	Fatal(args ...any)
}, kind, source, id string,
) event.Event {
	t.Helper()
	text := `{"event_id":` + quoted(id) + `,"event_type":"` + kind + `","product_id":"PROD-001","value":1,"timestamp":"2026-03-14T12:00:00Z"}`
	e, err := event.Decode(text, event.Rules{Source: source})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestNoTwoEventsHaveOneKey draws sources and ids that look like each other, and holds the keys against the pairs.
func TestNoTwoEventsHaveOneKey(t *testing.T) {
	t.Parallel()
	piece := rapid.SampledFrom([]string{"order:", "ORD-1", ":1", "/", "a", " ", event.SourceClients, event.SourceOrders, "sha256:", "@"})
	text := rapid.Custom(func(t *rapid.T) string { return strings.Join(rapid.SliceOfN(piece, 1, 3).Draw(t, "pieces"), "") }).
		Filter(func(s string) bool { return strings.TrimSpace(s) != "" })
	source := rapid.OneOf(rapid.SampledFrom([]string{event.SourceClients, event.SourceOrders, "", "a\x1fb", strings.Repeat("s", 300)}), text)
	type pair struct{ source, id string }
	rapid.Check(t, func(t *rapid.T) {
		keys := map[string]pair{}
		for range 20 {
			named := pair{source.Draw(t, "source"), text.Draw(t, "id")}
			e := identified(t, contracts.TypeProductViewed, named.source, named.id)
			if other, known := keys[e.Key()]; known && other != named {
				t.Fatalf("%q is the key of %q and %q", e.Key(), named, other)
			}
			keys[e.Key()] = named
			if len(e.Key()) > 256 {
				t.Fatalf("the key %q has %d bytes", e.Key(), len(e.Key()))
			}
			r := e.Record("USD")
			again, err := event.FromRecord(r)
			if err != nil || again.Key() != e.Key() {
				t.Fatalf("%q came back as %q, %v", e.Key(), again.Key(), err)
			}
			if strings.HasPrefix(named.id, "order:") && named.source == event.SourceOrders {
				continue // a view of this id is none of an order's, and there is none
			}
			if again.Source() != e.Source() || again.ID() != e.ID() {
				t.Fatalf("%q of %q came back as %q of %q", e.ID(), e.Source(), again.ID(), again.Source())
			}
		}
	})
}

// TestTheLastReleasesEventsKeepTheirKeys reads what release 1.0 wrote to the bus: one source for clients and orders.
func TestTheLastReleasesEventsKeepTheirKeys(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ kind, id, source string }{
		{contracts.TypeProductViewed, "EVT-1", event.SourceClients},
		{contracts.TypeProductPurchased, "EVT-1", event.SourceClients},
		{contracts.TypeProductPurchased, "order:ORD-1:1", event.SourceOrders},
	} {
		before := identified(t, c.kind, "/waybill/analytics", c.id)
		now := identified(t, c.kind, c.source, c.id)
		if before.Key() != c.id || now.Key() != c.id || before.Source() != c.source {
			t.Errorf("%s has the key %q, and had %q; its source is %s", c.id, now.Key(), before.Key(), before.Source())
		}
	}
}
