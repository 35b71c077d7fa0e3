package pipeline_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"waybill/contracts"
	"waybill/services/analytics/internal/anomaly"
	"waybill/services/analytics/internal/event"
	"waybill/services/analytics/internal/metric"
	"waybill/services/analytics/internal/pipeline"
	"waybill/tests/truth"
)

var nine = time.Date(2026, time.March, 14, 9, 0, 0, 0, time.UTC)

// feeder gives a pipeline events with ids of their own.
type feeder struct {
	t     *testing.T
	p     *pipeline.Pipeline
	n     int
	found []anomaly.Anomaly
}

func feed(t *testing.T, config pipeline.Config) *feeder {
	t.Helper()
	return &feeder{t: t, p: newPipeline(t, config)}
}

func decoded(t *testing.T, payload contracts.Payload) event.Event {
	t.Helper()
	data, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	e, err := event.Decode(data, event.Rules{Type: payload.EventType()})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (f *feeder) add(payload contracts.Payload) pipeline.Outcome {
	f.t.Helper()
	e := decoded(f.t, payload)
	var outcome pipeline.Outcome
	outcome, f.found = f.p.Add(&e, f.found)
	return outcome
}

func (f *feeder) id() string {
	f.n++
	return fmt.Sprintf("EVT-%d", f.n)
}

func (f *feeder) view(product, session string, at time.Time) pipeline.Outcome {
	f.t.Helper()
	return f.add(contracts.ProductViewed{EventID: f.id(), ProductID: product, SessionID: session, Timestamp: at})
}

func (f *feeder) purchase(product string, value contracts.Amount, at time.Time) pipeline.Outcome {
	f.t.Helper()
	return f.add(contracts.ProductPurchased{EventID: f.id(), ProductID: product, Value: value, Timestamp: at})
}

func (f *feeder) kinds() []string {
	kinds := make([]string, 0, len(f.found))
	for _, a := range f.found {
		kinds = append(kinds, a.Kind)
	}
	return kinds
}

// TestHistorySurvivesBatches: the former code cleared its history after every batch, so that anomalies hardly ever fired.
func TestHistorySurvivesBatches(t *testing.T) {
	t.Parallel()
	f := feed(t, pipeline.DefaultConfig())
	for i := range 12 { // a purchase every two hours: each window is long gone when the next one comes
		f.purchase("PROD-001", contracts.Amount(49+i%3)*contracts.Unit, nine.Add(time.Duration(i)*2*time.Hour))
	}
	if len(f.found) > 0 {
		t.Fatalf("usual purchases are unusual: %+v", f.found)
	}
	f.purchase("PROD-001", 499_9900, nine.Add(26*time.Hour))
	if len(f.found) != 1 || f.found[0].Kind != contracts.AnomalyUnusualPurchase || f.found[0].EventID != "EVT-13" {
		t.Fatalf("found %+v", f.found)
	}
	a := f.found[0]
	if a.Expected != 50 || a.Seen != 499.99 || a.Deviation != 0.82 || a.Score != 551.12 || !a.At.Equal(nine.Add(26*time.Hour)) {
		t.Errorf("found %+v", a)
	}
	const sentence = "A purchase of PROD-001 came to 499.99 USD, where 50.00 USD is usual: the 12 purchases before it differ from that by 0.82 USD on average."
	if a.Sentence != sentence {
		t.Errorf("the sentence is %q", a.Sentence)
	}
}

// TestAValueIsNotPartOfItsOwnSample: the former code added the value first, so that the score of the 12th could not pass 3.18,
// whatever it was.
func TestAValueIsNotPartOfItsOwnSample(t *testing.T) {
	t.Parallel()
	f := feed(t, pipeline.DefaultConfig())
	for i := range 11 {
		f.purchase("PROD-001", contracts.Amount(1000+i)*100, nine.Add(time.Duration(i)*time.Second))
	}
	f.purchase("PROD-001", 100_000*contracts.Unit, nine.Add(time.Minute))
	if len(f.found) != 1 || f.found[0].Score < 1000 {
		t.Errorf("found %+v", f.found)
	}
}

func TestTenPurchasesAreNoHistory(t *testing.T) {
	t.Parallel()
	f := feed(t, pipeline.DefaultConfig())
	for i := range 10 {
		f.purchase("PROD-001", 10_0000, nine.Add(time.Duration(i)*time.Second))
	}
	f.purchase("PROD-001", 999_9900, nine.Add(time.Minute))
	if len(f.found) > 0 {
		t.Errorf("found %+v", f.found)
	}
}

// TestAnErrorDoesNotHideTheNext also holds that a change of price which lasts becomes usual.
func TestAnErrorDoesNotHideTheNext(t *testing.T) {
	t.Parallel()
	f := feed(t, pipeline.DefaultConfig())
	at := nine
	buy := func(n int, value contracts.Amount) {
		for i := range n {
			at = at.Add(time.Second)
			f.purchase("PROD-001", value+100*contracts.Amount(i%5), at)
		}
	}
	buy(20, 10_0000)
	buy(1, 10_000*contracts.Unit)
	buy(1, 10_000*contracts.Unit)
	if len(f.found) != 2 {
		t.Fatalf("found %+v", f.found)
	}
	buy(200, 20_0000)
	f.found = nil
	if buy(50, 20_0000); len(f.found) > 0 {
		t.Errorf("the new price is still unusual: %+v", f.found)
	}
}

// TestPurchasesOfOneAmount have no deviation, and their score is finite all the same.
func TestPurchasesOfOneAmount(t *testing.T) {
	t.Parallel()
	f := feed(t, pipeline.DefaultConfig())
	for i := range 20 {
		f.purchase("PROD-001", 10_0000, nine.Add(time.Duration(i)*time.Second))
	}
	f.purchase("PROD-001", 10_0200, nine.Add(time.Minute))
	f.purchase("PROD-001", 20_0000, nine.Add(time.Minute))
	if len(f.found) != 1 || math.IsInf(f.found[0].Score, 0) {
		t.Errorf("found %+v", f.found)
	}
}

// TestAMinuteIsAMinute: the former code counted all views ever: 300 of them over ten years raised 200 alerts.
func TestAMinuteIsAMinute(t *testing.T) {
	t.Parallel()
	f := feed(t, pipeline.DefaultConfig())
	for i := range 300 {
		f.view("PROD-001", "SESSION-1", nine.Add(time.Duration(i)*12*24*time.Hour))
	}
	if len(f.found) > 0 {
		t.Errorf("found %+v", f.found)
	}
}

// TestOneAnomalyPerSpike checks that a spike is reported once, a second one again, and the usual views of a busy product never.
func TestOneAnomalyPerSpike(t *testing.T) {
	t.Parallel()
	f := feed(t, pipeline.DefaultConfig())
	spikes := map[int]int{20: 300, 21: 500, 22: 300, 40: 300} // extra views of PROD-001, by minute
	for minute := range 60 {
		for second := range 60 {
			at := nine.Add(time.Duration(minute)*time.Minute + time.Duration(second)*time.Second)
			for range 4 {
				f.view("PROD-BUSY", "", at)
			}
			if second%6 == 0 {
				f.view("PROD-001", "", at)
			}
			for range spikes[minute] / 60 {
				f.view("PROD-001", "", at)
			}
		}
	}
	if diff := cmp.Diff([]string{contracts.AnomalyViewSpike, contracts.AnomalyViewSpike}, f.kinds()); diff != "" {
		t.Fatalf("%s: %+v", diff, f.found)
	}
	first := f.found[0]
	if first.Product != "PROD-001" || first.Expected != 10 || first.Seen != 101 || first.At.Before(nine.Add(20*time.Minute)) ||
		!first.At.Before(nine.Add(21*time.Minute)) || f.found[1].ID == first.ID || !strings.HasPrefix(first.Sentence, "PROD-001 was viewed 101 times within a minute") {
		t.Errorf("found %+v", f.found)
	}
}

// TestNoSpikeWithoutABaseline: right after the start nobody knows what is usual.
func TestNoSpikeWithoutABaseline(t *testing.T) {
	t.Parallel()
	f := feed(t, pipeline.DefaultConfig())
	for i := range 300 {
		f.view("PROD-001", "", nine.Add(time.Duration(i)*100*time.Millisecond))
	}
	if len(f.found) > 0 {
		t.Errorf("found %+v", f.found)
	}
	f.view("PROD-002", "", nine.Add(5*time.Minute))
	for i := range 300 {
		f.view("PROD-003", "", nine.Add(5*time.Minute+time.Duration(i)*100*time.Millisecond))
	}
	if len(f.found) != 1 || f.found[0].Product != "PROD-003" || f.found[0].Expected != 0 {
		t.Errorf("found %+v", f.found)
	}
}

// TestConversionIsOfOneWindow: the former code averaged the rates after each purchase: here (1/1 + 2/10) / 2.
func TestConversionIsOfOneWindow(t *testing.T) {
	t.Parallel()
	f := feed(t, pipeline.DefaultConfig())
	f.view("PROD-001", "", nine)
	f.purchase("PROD-001", 10_0000, nine)
	for range 9 {
		f.view("PROD-001", "", nine.Add(10*time.Second))
	}
	f.purchase("PROD-001", 10_0000, nine.Add(10*time.Second))
	s, ok := f.p.Statistics("conversion_rate_PROD-001", metric.Minute, nine.Add(10*time.Second))
	if !ok || s.Mean != 0.2 || s.Count != 10 || s.Sum != 2 {
		t.Errorf("the rate is %+v, %v", s, ok)
	}
	if s, ok := f.p.Statistics("conversion_rate_PROD-001", metric.Minute, nine.Add(2*time.Minute)); ok {
		t.Errorf("without a view the rate is %+v", s)
	}
}

func TestDuplicatesAndLateEvents(t *testing.T) {
	t.Parallel()
	f := feed(t, pipeline.DefaultConfig())
	one := contracts.ProductViewed{EventID: "EVT-X", ProductID: "PROD-001", Timestamp: nine}
	for i, want := range []pipeline.Outcome{pipeline.Counted, pipeline.Duplicate, pipeline.Duplicate} {
		if got := f.add(one); got != want {
			t.Errorf("the %d. time it is %s", i+1, got)
		}
	}
	f.view("PROD-001", "", nine.Add(2*time.Minute))
	if got := f.add(one); got != pipeline.Duplicate {
		t.Errorf("as late as may be it is %s", got)
	}
	if got := f.view("PROD-001", "", nine); got != pipeline.Counted {
		t.Errorf("another one as late as may be is %s", got)
	}
	f.view("PROD-001", "", nine.Add(2*time.Minute+time.Nanosecond))
	if got := f.add(one); got != pipeline.Late {
		t.Errorf("later it is %s", got)
	}
	if s := f.p.Stats(); s.Views != 4 || s.Duplicates != 3 || s.Late != 1 {
		t.Errorf("%+v", s)
	}
	if s, _ := f.p.Statistics("total_views", metric.FiveMinutes, nine.Add(2*time.Minute)); s.Count != 4 {
		t.Errorf("%+v", s)
	}
}

func TestAnotherCurrencyIsNotAddedUp(t *testing.T) {
	t.Parallel()
	f := feed(t, pipeline.DefaultConfig())
	f.purchase("PROD-001", 10_0000, nine)
	f.add(contracts.ProductPurchased{EventID: "EVT-EUR", ProductID: "PROD-001", Value: 50_0000, Currency: "EUR", Timestamp: nine})
	revenue, _ := f.p.Statistics("total_revenue", metric.Minute, nine)
	purchases, _ := f.p.Statistics("purchases_PROD-001", metric.Minute, nine)
	if s := f.p.Stats(); revenue.Sum != 10 || purchases.Count != 2 || s.OtherCurrency != 1 || s.Revenue != 10*contracts.Unit {
		t.Errorf("%+v, %+v, %+v", revenue, purchases, s)
	}
}

func TestEvictionIsCountedAndTotalsStay(t *testing.T) {
	t.Parallel()
	config := pipeline.DefaultConfig()
	config.MaxProducts, config.MaxSessions, config.MaxIDs = 10, 5, 100
	f := feed(t, config)
	for i := range 1000 {
		f.view(fmt.Sprintf("PROD-%d", i%20), fmt.Sprintf("SESSION-%d", i), nine)
		f.view("PROD-HOT", "", nine) // what is used all the time stays
	}
	s := f.p.Stats()
	if s.Products != 10 || s.Sessions != 5 || s.EvictedSessions != 995 || s.EvictedProducts == 0 || s.IDs > 200 || s.ForgottenIDs == 0 {
		t.Errorf("%+v", s)
	}
	hot, _ := f.p.Statistics("views_PROD-HOT", metric.Minute, nine)
	total, _ := f.p.Statistics("total_views", metric.Minute, nine)
	if hot.Count != 1000 || total.Count != 2000 {
		t.Errorf("%+v, %+v", hot, total)
	}
}

// TestKnownNamesCostNoMemory holds that an event of a product and a session that are kept allocates nothing.
func TestKnownNamesCostNoMemory(t *testing.T) {
	f := feed(t, pipeline.DefaultConfig())
	const n = 400 // below the first growth of the set of ids
	events := make([]event.Event, 0, n+2)
	for range cap(events) {
		events = append(events, decoded(t, contracts.ProductViewed{EventID: f.id(), ProductID: "PROD-001", SessionID: "SESSION-1", Timestamp: nine}))
	}
	f.p.Add(&events[0], nil)
	next := 1
	if allocated := testing.AllocsPerRun(n, func() {
		f.p.Add(&events[next], nil)
		next++
	}); allocated != 0 {
		t.Errorf("an event allocates %v times", allocated)
	}
}

func TestUnknownNamesHaveNoStatistics(t *testing.T) {
	t.Parallel()
	f := feed(t, pipeline.DefaultConfig())
	f.view("PROD-001", "SESSION-1", nine)
	for _, name := range []string{"", "views_", "views_PROD-002", "session_SESSION-1", "session__views", "session_views", "revenue_PROD-001",
		"total_revenue", "recommendation_confidence_knn", "views_None"} {
		if s, ok := f.p.Statistics(name, metric.Minute, nine); ok {
			t.Errorf("%q: %+v", name, s)
		}
	}
	for _, name := range []string{"total_views", "views_PROD-001", "session_SESSION-1_views", "conversion_rate_PROD-001"} {
		if _, ok := f.p.Statistics(name, metric.Minute, nine); !ok {
			t.Errorf("%q is unknown", name)
		}
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	t.Parallel()
	if _, err := pipeline.New(pipeline.Config{Lateness: -1}); err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("the error is %v", err)
	}
}

// drawFact draws an event in a small world, so that things happen to it.
func drawFact(t *rapid.T, i int, at time.Time) truth.Fact {
	f := truth.Fact{
		ID: fmt.Sprintf("EVT-%d", i), At: at,
		Product: rapid.SampledFrom([]string{"PROD-001", "PROD-002", "PROD-003"}).Draw(t, "product"),
		Session: rapid.SampledFrom([]string{"", "SESSION-1", "SESSION-2"}).Draw(t, "session"),
		Type: rapid.SampledFrom([]string{
			contracts.TypeProductViewed, contracts.TypeProductViewed, contracts.TypeProductPurchased, contracts.TypeRecommendationGenerated,
		}).Draw(t, "type"),
	}
	switch f.Type {
	case contracts.TypeProductPurchased:
		f.Value = contracts.Amount(rapid.OneOf(rapid.Int64Range(0, 20), rapid.Int64Range(0, 1_000_000_00)).Draw(t, "value"))
	case contracts.TypeRecommendationGenerated:
		f.Algorithm = "knn"
		f.Confidence = float64(rapid.IntRange(0, 100).Draw(t, "confidence")) / 100
	}
	return f
}

func payloadOf(f truth.Fact) contracts.Payload {
	switch f.Type {
	case contracts.TypeProductPurchased:
		return contracts.ProductPurchased{EventID: f.ID, SessionID: f.Session, ProductID: f.Product, Value: f.Value, Timestamp: f.At}
	case contracts.TypeRecommendationGenerated:
		return contracts.RecommendationGenerated{
			EventID: f.ID, SessionID: f.Session, Algorithm: f.Algorithm, ConfidenceScores: []float64{f.Confidence}, Timestamp: f.At,
		}
	default:
		return contracts.ProductViewed{EventID: f.ID, SessionID: f.Session, ProductID: f.Product, Timestamp: f.At}
	}
}

// TestWindowsAgainstPlainValues feeds random events in random order, some twice, some late, and holds every
// window against the plain list of what was counted.
func TestWindowsAgainstPlainValues(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		config := pipeline.DefaultConfig()
		config.Lateness = time.Duration(rapid.IntRange(0, 400).Draw(rt, "lateness in seconds")) * time.Second
		windows := newPipeline(t, config)
		var all, counted []truth.Fact
		known := map[string]bool{}
		newest := time.Time{}
		clock := nine
		for i := range rapid.IntRange(1, 80).Draw(rt, "events") {
			clock = clock.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 7, 30, 61, 600, 4000}).Draw(rt, "step")) * time.Second)
			var fact truth.Fact
			if len(all) > 0 && rapid.IntRange(0, 4).Draw(rt, "again") == 0 {
				fact = all[rapid.IntRange(0, len(all)-1).Draw(rt, "which")]
			} else {
				back := rapid.OneOf(rapid.Just(0), rapid.IntRange(0, 500_000)).Draw(rt, "back in milliseconds")
				fact = drawFact(rt, i, clock.Add(-time.Duration(back)*time.Millisecond))
				all = append(all, fact)
			}
			want := pipeline.Counted
			switch {
			case fact.At.Before(newest.Add(-config.Lateness)):
				want = pipeline.Late
			case known[fact.ID]:
				want = pipeline.Duplicate
			default:
				known[fact.ID] = true
				counted = append(counted, fact)
			}
			if fact.At.After(newest) {
				newest = fact.At
			}
			e := decoded(t, payloadOf(fact))
			got, _ := windows.Add(&e, nil)
			if got != want {
				rt.Fatalf("%+v is %s, want %s", fact, got, want)
			}
		}
		if newest.IsZero() {
			return
		}
		at := newest.Add(-time.Duration(rapid.Int64Range(0, int64(config.Lateness)).Draw(rt, "looking back")))
		for _, w := range metric.Windows() {
			if err := compare(windows, counted, w, at); err != nil {
				rt.Fatalf("window %s at %s: %v", w, at, err)
			}
		}
	})
}
