package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"waybill/contracts"
	"waybill/tests/internal/system"
	"waybill/tests/truth"
)

var analytics = flag.String("analytics", "quick", "quick sends a stream of 30,000 events of which everything is known, all one of 200,000")

// statistics are a metric as GET /v1/analytics/metrics shows it.
type statistics struct {
	truth.Summary

	From, To time.Time
}

func statisticsOf(ctx context.Context, s *system.System, name string) (statistics, error) {
	query := url.Values{"name": {name}, "window": {"1h"}}
	code, _, answer, err := call(ctx, http.MethodGet, s.App("analytics").URL+"/v1/analytics/metrics?"+query.Encode(), nil)
	var m statistics
	if err != nil || code != http.StatusOK {
		return m, errors.Join(fmt.Errorf("metric %s: %d %s", name, code, answer), err)
	}
	return m, json.Unmarshal(answer, &m)
}

// known is a stream with known contents that is sent to a system of its own.
type known struct {
	*system.System

	stream truth.Stream
	bus    *kgo.Client
	// facts are the facts that arrived so far, in order of arrival.
	facts []truth.Fact
}

// A stream with duplicates, out-of-order events, events that come too late and anomalies is sent over REST and from the bus.
// Counts and sums are exact, quantiles are within 1 %, and every planted anomaly is found.
func TestAStreamOfWhichEverythingIsKnown(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*testTimeout)
	defer cancel()
	// The stream covers the last hour and is sent within about a minute, so that partitions drift apart by minutes of it. What
	// comes too late is later than that, and what comes in time is earlier.
	const lateness = "LATENESS=10m"
	options := truth.Options{
		Seed: 1, Events: 30_000, Products: 2_000, Sessions: 3_000, Start: time.Now().UTC().Add(-50 * time.Minute), Span: 49 * time.Minute,
		Lateness: 2 * time.Minute, TooLateAfter: 14 * time.Minute, Duplicates: 0.03, TooLate: 0.005, Purchases: 10, Spikes: 5,
	}
	if *analytics == "all" {
		options.Events, options.Products, options.Sessions, options.Purchases, options.Spikes = 200_000, 10_000, 20_000, 20, 10
	}
	k := known{System: ownSystem(ctx, t, lateness), stream: truth.Make(options)}
	status, err := k.Status()
	if err != nil {
		t.Fatal(err)
	}
	if k.bus, err = kgo.NewClient(kgo.SeedBrokers(status.Broker)); err != nil {
		t.Fatal(err)
	}
	defer k.bus.Close()

	began := time.Now()
	const parts = 20
	arrived := make([]bool, len(k.stream.Facts))
	duplicates, late := 0, 0
	for part := range parts {
		from, to := len(k.stream.Arrivals)*part/parts, len(k.stream.Arrivals)*(part+1)/parts
		for _, a := range k.stream.Arrivals[from:to] {
			fact := k.stream.Facts[a.Fact]
			switch {
			case arrived[a.Fact]:
				duplicates++
				continue
			case fact.Late:
				late++
			}
			arrived[a.Fact] = true
			k.facts = append(k.facts, fact)
		}
		if err := errors.Join(k.send(ctx, k.stream.Arrivals[from:to]), k.counted(ctx)); err != nil {
			t.Fatalf("part %d: %v", part, err)
		}
	}
	if err := k.flush(ctx); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	t.Logf("%d events, of them %d a second time and %d too late, sent and counted in %s", len(k.stream.Arrivals), duplicates, late, took.Round(time.Second))
	if duplicates < options.Events/100 || late < options.Events/1000 {
		t.Errorf("the stream has %d duplicates and %d late events", duplicates, late)
	}
	if err := k.checkMetrics(ctx); err != nil {
		t.Error(err)
	}
	for _, by := range []string{"views", "purchases", "revenue"} {
		if err := k.checkTop(ctx, by); err != nil {
			t.Error(err)
		}
	}
	k.checkAnomalies(ctx, t)
}

// otherSystem is the source of the facts that another publisher sends on the bus.
const otherSystem = "/another/system"

// ofOtherSystem reports whether the other system publishes a fact. A duplicate has the same source; otherwise it would be another
// event.
func ofOtherSystem(fact int) bool { return fact%10 == 0 }

// send sends arrivals: every tenth fact on the bus as another publisher, the others over REST, 500 in a request.
func (k *known) send(ctx context.Context, arrivals []truth.Arrival) error {
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(4)
	var lines bytes.Buffer
	var records []*kgo.Record
	post := func() {
		body := bytes.Clone(lines.Bytes())
		lines.Reset()
		work.Go(func() error { return send(ctx, k.System, body) })
	}
	events := 0
	for _, a := range arrivals {
		fact := k.stream.Facts[a.Fact]
		if ofOtherSystem(a.Fact) {
			event, err := json.Marshal(map[string]any{
				"specversion": "1.0", "id": fact.ID, "type": fact.Type, "source": otherSystem, "data": json.RawMessage(a.JSON),
			})
			if err != nil {
				return err
			}
			records = append(records, &kgo.Record{Topic: contracts.TopicAnalyticsEvents, Key: []byte(fact.Session), Value: event})
			continue
		}
		lines.Write(append(a.JSON, '\n'))
		if events++; events%500 == 0 {
			post()
		}
	}
	if lines.Len() > 0 {
		post()
	}
	return errors.Join(k.bus.ProduceSync(ctx, records...).FirstErr(), work.Wait())
}

// counted waits until everything that arrived is counted, and fails if more is counted.
func (k *known) counted(ctx context.Context) error {
	for name, values := range k.expected(time.Time{}, time.Now().Add(time.Hour)) {
		if !strings.HasPrefix(name, "total_") && !strings.HasPrefix(name, "recommendation_") {
			continue
		}
		if _, err := counted(ctx, k.System, name, len(values)); err != nil {
			return err
		}
	}
	return nil
}

func (k *known) expected(from, to time.Time) truth.Values { return truth.Expect(k.facts, from, to) }

// flush sends views of many sessions, which go through all partitions, and waits until they are counted. Then no earlier event is
// in flight.
func (k *known) flush(ctx context.Context) error {
	const last = 200
	var lines bytes.Buffer
	for i := range last {
		f := truth.Fact{
			ID: fmt.Sprintf("LAST-%d", i), Type: contracts.TypeProductViewed, Product: fmt.Sprintf("PROD-LAST-%d", i), Session: fmt.Sprintf("LAST-%d", i), At: time.Now().UTC(),
		}
		k.facts = append(k.facts, f)
		if err := json.NewEncoder(&lines).Encode(viewed(f.ID, f.Session, f.Product)); err != nil {
			return err
		}
	}
	if err := send(ctx, k.System, lines.Bytes()); err != nil {
		return err
	}
	return k.counted(ctx)
}

// checkMetrics compares the totals, the metrics of the algorithms, and those of the products with the most views or with a
// planted spike.
func (k *known) checkMetrics(ctx context.Context) error {
	names := []string{"total_views", "total_purchases", "total_revenue"}
	for name := range k.expected(time.Time{}, time.Now().Add(time.Hour)) {
		if strings.HasPrefix(name, "recommendation_") {
			names = append(names, name)
		}
	}
	products := map[string]bool{}
	for i := range 200 {
		products[fmt.Sprintf("PROD-%05d", i)] = true
	}
	for _, p := range k.stream.Planted {
		products[p.Product] = true
	}
	for p := range products {
		names = append(names, "views_"+p, "purchases_"+p, "revenue_"+p, "conversion_rate_"+p)
	}
	var errs []error
	var values truth.Values
	var of statistics
	for _, name := range names {
		m, err := statisticsOf(ctx, k.System, name)
		if err != nil {
			return err
		}
		if values == nil || !m.From.Equal(of.From) {
			values, of = k.expected(m.From, m.To), m
		}
		rate, isRate := strings.CutPrefix(name, "conversion_rate_")
		switch {
		case isRate:
			want := float64(len(values["purchases_"+rate])) / float64(max(1, len(values["views_"+rate])))
			if m.Mean != want {
				errs = append(errs, fmt.Errorf("%s is %v, want %v", name, m.Mean, want))
			}
		case len(values[name]) == 0:
			if m.Count != 0 {
				errs = append(errs, fmt.Errorf("%s is %+v, but nothing happened", name, m))
			}
		default:
			if err := m.Check(values[name], 0.01); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// checkTop compares the top 1,000 products with what was stored, including what came too late.
func (k *known) checkTop(ctx context.Context, by string) error {
	const most = 1000
	code, _, answer, err := call(ctx, http.MethodGet, k.App("analytics").URL+"/v1/analytics/top?limit=1000&by="+by, nil)
	if err != nil || code != http.StatusOK {
		return errors.Join(fmt.Errorf("top: %d %s", code, answer), err)
	}
	type product struct {
		ID        string `json:"product_id"`
		Views     int
		Purchases int
		Revenue   contracts.Amount
	}
	var top struct {
		From, To time.Time
		Items    []product
	}
	if err := json.Unmarshal(answer, &top); err != nil {
		return err
	}
	want := map[string]*product{}
	for _, f := range k.facts {
		if f.Product == "" || f.Type == contracts.TypeRecommendationGenerated || f.At.Before(top.From) || !f.At.Before(top.To) {
			continue
		}
		if want[f.Product] == nil {
			want[f.Product] = &product{ID: f.Product}
		}
		if f.Type == contracts.TypeProductViewed {
			want[f.Product].Views++
		} else {
			want[f.Product].Purchases++
			want[f.Product].Revenue += f.Value
		}
	}
	rank := func(p product) int64 {
		return map[string]int64{"views": int64(p.Views), "purchases": int64(p.Purchases), "revenue": int64(p.Revenue)}[by]
	}
	ranked := 0
	for _, p := range want {
		if rank(*p) > 0 {
			ranked++
		}
	}
	if len(top.Items) != min(most, ranked) {
		return fmt.Errorf("top by %s has %d products, want %d", by, len(top.Items), min(most, ranked))
	}
	for i, p := range top.Items {
		if want[p.ID] == nil || *want[p.ID] != p {
			return fmt.Errorf("top by %s: %+v, want %+v", by, p, want[p.ID])
		}
		if i > 0 && rank(p) > rank(top.Items[i-1]) {
			return fmt.Errorf("top by %s: %+v comes behind %+v", by, p, top.Items[i-1])
		}
		delete(want, p.ID)
	}
	for _, p := range want {
		if rank(*p) > rank(top.Items[len(top.Items)-1]) {
			return fmt.Errorf("top by %s lacks %+v", by, *p)
		}
	}
	return nil
}

func (k *known) checkAnomalies(ctx context.Context, t *testing.T) {
	t.Helper()
	// An anomaly is named after the event in which it was found: by the event's id, or by a digest of id and source (ADR 25).
	fromBus := map[string]string{}
	for i, fact := range k.stream.Facts {
		if ofOtherSystem(i) {
			sum := sha256.Sum256([]byte(fact.ID + "\x1f" + otherSystem))
			fromBus[contracts.AnomalyUnusualPurchase+"@"+hex.EncodeToString(sum[:16])] = fact.ID
		}
	}
	var found []truth.Finding
	for cursor := ""; ; {
		query := url.Values{"limit": {"500"}}
		if cursor != "" {
			query.Set("cursor", cursor)
		}
		code, _, answer, err := call(ctx, http.MethodGet, k.App("analytics").URL+"/v1/analytics/anomalies?"+query.Encode(), nil)
		if err != nil || code != http.StatusOK {
			t.Fatalf("anomalies: %d %s %v", code, answer, err)
		}
		var page struct {
			Items []struct {
				ID      string `json:"anomaly_id"`
				Kind    string
				Product string    `json:"product_id"`
				At      time.Time `json:"occurred_at"`
			}
			NextCursor string `json:"next_cursor"`
		}
		if err := json.Unmarshal(answer, &page); err != nil {
			t.Fatal(err)
		}
		for _, a := range page.Items {
			id, ok := fromBus[a.ID]
			if !ok {
				id = strings.TrimPrefix(a.ID, contracts.AnomalyUnusualPurchase+":")
			}
			found = append(found, truth.Finding{ID: a.ID, Kind: a.Kind, Product: a.Product, EventID: id, At: a.At})
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	unplanted, faults := k.stream.Judge(found)
	for _, err := range faults {
		t.Error(err)
	}
	purchases := 0
	for _, f := range k.facts {
		if f.Type == contracts.TypeProductPurchased {
			purchases++
		}
	}
	t.Logf("%d anomalies were planted and found; not planted: %d of %d purchases, %d spikes", len(k.stream.Planted),
		unplanted[contracts.AnomalyUnusualPurchase], purchases, unplanted[contracts.AnomalyViewSpike])
	// Of normal purchases, three in a thousand differ by more than three standard deviations.
	if unplanted[contracts.AnomalyViewSpike] > 0 || unplanted[contracts.AnomalyUnusualPurchase] > max(10, purchases*8/1000) {
		t.Errorf("found without a reason: %v", unplanted)
	}
}
