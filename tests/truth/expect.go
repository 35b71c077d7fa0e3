package truth

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"waybill/contracts"
)

// Values are the values that a metric summarises, by the metric's name, without conversion rates.
type Values map[string][]float64

// Expect returns the values of the facts that happened in a window, in their order, without those that come too late.
func Expect(facts []Fact, from, to time.Time) Values {
	values := Values{}
	add := func(name string, value float64) { values[name] = append(values[name], value) }
	for _, f := range facts {
		if f.Late || f.At.Before(from) || !f.At.Before(to) {
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
			add("total_revenue", f.Value.Float())
			add("revenue_"+f.Product, f.Value.Float())
		default:
			add("recommendation_confidence_"+f.Algorithm, f.Confidence)
		}
	}
	return values
}

// Rates returns the conversion rates that follow from the values, by the metric's name.
func (v Values) Rates() map[string]float64 {
	rates := map[string]float64{}
	for name, views := range v {
		if product, ok := strings.CutPrefix(name, "views_"); ok {
			rates["conversion_rate_"+product] = float64(len(v["purchases_"+product])) / float64(len(views))
		}
	}
	return rates
}

// Summary is a summary of the values of one metric, as the system under test shows it.
type Summary struct {
	Count                      int64
	Sum, Mean, StdDev          float64
	Min, Median, P95, P99, Max float64
}

// Check compares a summary with the values: counts, sums, the least and the greatest exactly, quantiles within accuracy of the
// value that has the rank q*(n-1), rounded down.
func (s Summary) Check(values []float64, accuracy float64) error {
	values = slices.Sorted(slices.Values(values))
	n := float64(len(values))
	if n == 0 {
		return fmt.Errorf("%+v of nothing", s)
	}
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
		if want := values[int(q*(n-1))]; math.Abs(got-want) > accuracy*want+1e-12 {
			return fmt.Errorf("%+v, but the quantile %v is %v", s, q, want)
		}
	}
	return nil
}

// Finding is an anomaly that the system under test found.
type Finding struct {
	ID, Kind, Product string
	// EventID is the purchase that was unusual.
	EventID string
	At      time.Time
}

// Judge compares what was found with what was planted. It returns the faults, and how many anomalies of each kind were found that
// were not planted.
func (s Stream) Judge(found []Finding) (unplanted map[string]int, faults []error) {
	ids := map[string]bool{}
	unplanted = map[string]int{}
	caught := make([]int, len(s.Planted))
	for _, f := range found {
		if ids[f.ID] {
			faults = append(faults, fmt.Errorf("%s was found twice", f.ID))
		}
		ids[f.ID] = true
		i := slices.IndexFunc(s.Planted, func(p Planted) bool {
			return p.Kind == f.Kind && p.Product == f.Product && (p.EventID != "" && p.EventID == f.EventID ||
				p.EventID == "" && !f.At.Before(p.From) && !f.At.After(p.To))
		})
		if i < 0 {
			unplanted[f.Kind]++
			continue
		}
		caught[i]++
	}
	for i, n := range caught {
		if n != 1 {
			faults = append(faults, fmt.Errorf("%+v was found %d times", s.Planted[i], n))
		}
	}
	return unplanted, faults
}
