package pipeline_test

import (
	"fmt"
	"testing"
	"time"

	"waybill/contracts"
	"waybill/services/analytics/internal/anomaly"
	"waybill/services/analytics/internal/event"
	"waybill/services/analytics/internal/metric"
	"waybill/services/analytics/internal/pipeline"
	"waybill/tests/truth"
)

// compare holds all that a pipeline says of a window against the facts in it.
func compare(p *pipeline.Pipeline, facts []truth.Fact, w metric.Window, at time.Time) error {
	from, to := w.Bounds(at)
	values := truth.Expect(facts, from, to)
	rates := values.Rates()
	got := 0
	for s := range p.All(w, at) {
		got++
		if again, ok := p.Statistics(s.Name, w, at); !ok || again != s {
			return fmt.Errorf("%s: by name %+v, among all %+v", s.Name, again, s)
		}
		if rate, ok := rates[s.Name]; ok {
			if s.Mean != rate || s.Median != rate {
				return fmt.Errorf("%+v, but the rate is %v", s, rate)
			}
			continue
		}
		if len(values[s.Name]) == 0 {
			return fmt.Errorf("%+v, of which nothing happened", s)
		}
		said := truth.Summary{
			Count: s.Count, Sum: s.Sum, Mean: s.Mean, StdDev: s.StdDev, Min: s.Min, Median: s.Median, P95: s.P95, P99: s.P99, Max: s.Max,
		}
		if err := said.Check(values[s.Name], metric.Accuracy); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	if got != len(values)+len(rates) {
		return fmt.Errorf("%d metrics in window %s, want %d", got, w, len(values)+len(rates))
	}
	return nil
}

func newPipeline(tb testing.TB, config pipeline.Config) *pipeline.Pipeline {
	tb.Helper()
	p, err := pipeline.New(config)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// TestAStreamOfWhichEverythingIsKnown is the acceptance test: exact counts and sums, quantiles within 1 %, every planted
// anomaly found once. It looks at the windows on the way as well as at the end.
func TestAStreamOfWhichEverythingIsKnown(t *testing.T) {
	t.Parallel()
	options := truth.Default()
	stream := truth.Make(options)
	p := newPipeline(t, pipeline.DefaultConfig())
	var facts []truth.Fact
	var found []anomaly.Anomaly
	var duplicates, late uint64
	var revenue contracts.Amount
	for i, arrival := range stream.Arrivals {
		e, err := event.Decode(arrival.JSON, event.Rules{})
		if err != nil {
			t.Fatal(err)
		}
		fact := stream.Facts[arrival.Fact]
		want := pipeline.Counted
		switch {
		case fact.Late:
			want = pipeline.Late
			late++
		case arrival.Again:
			want = pipeline.Duplicate
			duplicates++
		default:
			facts = append(facts, fact)
			revenue += fact.Value
		}
		var got pipeline.Outcome
		if got, found = p.Add(&e, found); got != want {
			t.Fatalf("arrival %d, %s: %s, want %s", i, arrival.JSON, got, want)
		}
		if i%50_000 == 49_999 || i == len(stream.Arrivals)-1 {
			newest := p.Stats().Newest
			for _, w := range metric.Windows() {
				for _, at := range []time.Time{newest, newest.Add(-options.Lateness)} {
					if err := compare(p, facts, w, at); err != nil {
						t.Fatalf("after %d arrivals: %v", i+1, err)
					}
				}
			}
		}
	}
	s := p.Stats()
	if got := s.Views + s.Purchases + s.Recommendations; got != uint64(len(facts)) || s.Revenue != revenue || s.Duplicates != duplicates || s.Late != late {
		t.Errorf("%+v, want %d events, revenue %d, %d duplicates and %d late", s, len(facts), revenue, duplicates, late)
	}
	if duplicates == 0 || late == 0 || s.EvictedProducts+s.EvictedSessions+s.ForgottenIDs > 0 {
		t.Errorf("the stream has %d duplicates and %d late events; %+v", duplicates, late, s)
	}
	reportAnomalies(t, stream, found, len(facts))
}

// reportAnomalies holds what was found against what was planted.
func reportAnomalies(t *testing.T, stream truth.Stream, found []anomaly.Anomaly, events int) {
	t.Helper()
	findings := make([]truth.Finding, len(found))
	for i, a := range found {
		findings[i] = truth.Finding{ID: a.ID, Kind: a.Kind, Product: a.Product, EventID: a.EventID, At: a.At}
	}
	wrong, faults := stream.Judge(findings)
	for _, err := range faults {
		t.Error(err)
	}
	t.Logf("%d events, %d planted anomalies all found, not planted: %d unusual purchases, %d spikes", events, len(stream.Planted),
		wrong[contracts.AnomalyUnusualPurchase], wrong[contracts.AnomalyViewSpike])
	// Of purchases that are usual, three in a thousand differ by more than three deviations.
	if wrong[contracts.AnomalyViewSpike] > 0 || wrong[contracts.AnomalyUnusualPurchase] > events*15/100*5/1000 {
		t.Errorf("found without a reason: %v", wrong)
	}
}
