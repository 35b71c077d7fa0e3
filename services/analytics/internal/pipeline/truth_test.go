package pipeline_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"waybill/contracts"
	"waybill/services/analytics/internal/anomaly"
	"waybill/services/analytics/internal/event"
	"waybill/services/analytics/internal/metric"
	"waybill/services/analytics/internal/pipeline"
	"waybill/services/analytics/internal/truth"
)

// naive is what a pipeline should know, kept as plain values.
type naive map[string][]float64

// windowOf collects the values of every metric from the facts that happened in a window.
func windowOf(facts []truth.Fact, from, to time.Time) naive {
	values := naive{}
	add := func(name string, value float64) { values[name] = append(values[name], value) }
	for _, f := range facts {
		if f.At.Before(from) || !f.At.Before(to) {
			continue
		}
		switch f.Type {
		case contracts.TypeProductViewed:
			add("total_views", 1)
			add("views_"+f.Product, 1)
			if f.Session != "" {
				add("session_"+f.Session+"_views", 1)
			}
		case contracts.TypeProductPurchased:
			add("total_purchases", 1)
			add("purchases_"+f.Product, 1)
			add("total_revenue", float64(f.Value)/100)
			add("revenue_"+f.Product, float64(f.Value)/100)
		default:
			add("recommendation_confidence_"+f.Algorithm, f.Confidence)
		}
	}
	return values
}

// rates are the conversion rates that follow from the values.
func (v naive) rates() map[string]float64 {
	rates := map[string]float64{}
	for name, views := range v {
		if len(name) > 6 && name[:6] == "views_" {
			rates["conversion_rate_"+name[6:]] = float64(len(v["purchases_"+name[6:]])) / float64(len(views))
		}
	}
	return rates
}

// check compares the statistics of one metric with the values that they describe.
func check(s metric.Statistics, values []float64) error {
	slices.Sort(values)
	n := float64(len(values))
	var sum, squares float64
	for _, v := range values {
		sum += v
	}
	for _, v := range values {
		squares += (v - sum/n) * (v - sum/n)
	}
	if s.Count != int64(len(values)) || math.Round(s.Sum*1e6) != math.Round(sum*1e6) || s.Min != values[0] || s.Max != values[len(values)-1] {
		return fmt.Errorf("%+v, but there are %v values, sum %v, from %v to %v", s, n, sum, values[0], values[len(values)-1])
	}
	if math.Abs(s.Mean-sum/n) > 1e-9*sum/n || math.Abs(s.StdDev-math.Sqrt(squares/n)) > 1e-6*(1+sum/n) {
		return fmt.Errorf("%+v, but the mean is %v and the deviation %v", s, sum/n, math.Sqrt(squares/n))
	}
	for q, got := range map[float64]float64{0.5: s.Median, 0.95: s.P95, 0.99: s.P99} {
		if want := values[int(q*(n-1))]; math.Abs(got-want) > metric.Accuracy*want+1e-12 {
			return fmt.Errorf("%+v, but the quantile %v is %v", s, q, want)
		}
	}
	return nil
}

// compare holds all that a pipeline says of a window against the facts in it.
func compare(p *pipeline.Pipeline, facts []truth.Fact, w metric.Window, at time.Time) error {
	from, to := w.Bounds(at)
	values := windowOf(facts, from, to)
	rates := values.rates()
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
		if err := check(s, values[s.Name]); err != nil {
			return err
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
	var revenue int64
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
			revenue += int64(fact.Value)
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
	ids := map[string]bool{}
	wrong := map[string]int{}
	caught := make([]int, len(stream.Planted))
	for _, a := range found {
		if ids[a.ID] {
			t.Errorf("%s was found twice", a.ID)
		}
		ids[a.ID] = true
		i := slices.IndexFunc(stream.Planted, func(planted truth.Planted) bool {
			return planted.Kind == a.Kind && planted.Product == a.Product &&
				(planted.EventID == a.EventID || planted.EventID == "" && !a.At.Before(planted.From) && !a.At.After(planted.To))
		})
		if i < 0 {
			wrong[a.Kind]++
			continue
		}
		caught[i]++
	}
	for i, n := range caught {
		if n != 1 {
			t.Errorf("%+v was found %d times", stream.Planted[i], n)
		}
	}
	t.Logf("%d events, %d planted anomalies all found, not planted: %d unusual purchases, %d spikes", events, len(stream.Planted),
		wrong[contracts.AnomalyUnusualPurchase], wrong[contracts.AnomalyViewSpike])
	// Of purchases that are usual, three in a thousand differ by more than three deviations.
	if wrong[contracts.AnomalyViewSpike] > 0 || wrong[contracts.AnomalyUnusualPurchase] > events*15/100*5/1000 {
		t.Errorf("found without a reason: %v", wrong)
	}
}
