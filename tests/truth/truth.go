// Package truth makes streams of analytics events of which everything is known: what is in them, in what order they arrive,
// which come twice or too late, and which are anomalies; and it says what has to be counted of them. The service's own tests
// measure its pipeline by it, those of the whole system measure everything from the request to the answer.
//
// It is its own module because two modules use it that must not depend on each other.
package truth

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"waybill/contracts"
)

// Options describe the stream. The same options make the same stream.
type Options struct {
	Seed uint64
	// Events is the number of different events without the planted anomalies: 80 % views, 15 % purchases, 5 % recommendations.
	Events, Products, Sessions int
	// Start is the time of the first event, Span the time that the events cover.
	Start time.Time
	Span  time.Duration
	// Lateness is the longest delay of an event that is counted; TooLateAfter is the shortest delay of those that come too late.
	Lateness, TooLateAfter time.Duration
	// Duplicates and TooLate are the fractions of the events that arrive twice and that come too late.
	Duplicates, TooLate float64
	// Purchases and Spikes are the numbers of planted anomalies of each kind.
	Purchases, Spikes int
}

// Default is a stream of 200,000 events over three hours.
func Default() Options {
	return Options{
		Seed: 1, Events: 200_000, Products: 10_000, Sessions: 20_000,
		Start: time.Date(2026, time.March, 14, 9, 0, 0, 0, time.UTC), Span: 3 * time.Hour, Lateness: 2 * time.Minute, TooLateAfter: 3 * time.Minute,
		Duplicates: 0.03, TooLate: 0.005, Purchases: 20, Spikes: 10,
	}
}

// Fact is one event as it happened.
type Fact struct {
	ID, Type, Session, Product, Algorithm string
	// Value is a purchase's amount in the default currency.
	Value contracts.Amount
	// Confidence is the mean of a recommendation's scores.
	Confidence float64
	At         time.Time
	// Late means that the fact arrives too late to be counted.
	Late bool
}

// Arrival is one event as it arrives.
type Arrival struct {
	// Fact is the index of the fact.
	Fact int
	// Again means that the fact has arrived before.
	Again bool
	JSON  []byte
	// due is the time of arrival, which orders the arrivals.
	due time.Time
}

// Planted is an anomaly that must be found.
type Planted struct {
	Kind, Product string
	// EventID is the purchase; a spike has none.
	EventID string
	// From and To are when it happens.
	From, To time.Time
}

// Stream is what was made.
type Stream struct {
	Facts    []Fact
	Arrivals []Arrival
	Planted  []Planted
}

// maker holds what a stream is made with.
type maker struct {
	Options

	dice   *rand.Rand
	stream Stream
	prices []float64
}

// Make makes a stream.
func Make(o Options) Stream {
	m := maker{Options: o, dice: rand.New(rand.NewPCG(o.Seed, o.Seed)), prices: make([]float64, o.Products)} //nolint:gosec // repeatable on purpose
	for i := range m.prices {
		m.prices[i] = 500 * math.Exp(2+m.dice.NormFloat64()) // 5 to 500 units of money, mostly
	}
	// A few products are popular, most are not.
	popular := rand.NewZipf(m.dice, 1.2, 20, uint64(o.Products-1)) //nolint:gosec // a count
	for range o.Events {
		m.event(int(popular.Uint64())) //nolint:gosec // below the count of products
	}
	for i := range o.Purchases {
		m.unusual(i)
	}
	for i := range o.Spikes {
		m.spike(o.Products - 1 - i*(o.Products/(2*o.Spikes)))
	}
	for i, f := range m.stream.Facts {
		m.arrive(i, f)
	}
	slices.SortStableFunc(m.stream.Arrivals, func(a, b Arrival) int { return a.due.Compare(b.due) })
	arrived := make([]bool, len(m.stream.Facts))
	for i := range m.stream.Arrivals {
		a := &m.stream.Arrivals[i]
		a.Again, arrived[a.Fact] = arrived[a.Fact], true
	}
	return m.stream
}

func product(i int) string { return fmt.Sprintf("PROD-%05d", i) }

func (m *maker) some(d time.Duration) time.Duration { return time.Duration(m.dice.Int64N(int64(d))) }

func (m *maker) event(of int) {
	f := Fact{
		ID: fmt.Sprintf("EVT-%07d", len(m.stream.Facts)), Product: product(of), At: m.Start.Add(m.some(m.Span)),
		Session: fmt.Sprintf("SESSION-%06d", m.dice.IntN(m.Sessions)),
	}
	switch throw := m.dice.IntN(100); {
	case throw < 80:
		f.Type = contracts.TypeProductViewed
	case throw < 95:
		f.Type = contracts.TypeProductPurchased
		f.Value = m.amount(of)
	default:
		f.Type, f.Algorithm = contracts.TypeRecommendationGenerated, []string{"collaborative", "content", "popular"}[m.dice.IntN(3)]
		f.Confidence = math.Round(1e4*(0.3+0.7*m.dice.Float64())) / 1e4
	}
	f.Late = m.dice.Float64() < m.TooLate && f.At.Sub(m.Start) < m.Span-m.TooLateAfter-2*m.tooLateWithin()
	m.stream.Facts = append(m.stream.Facts, f)
}

// tooLateWithin is the time within which late events arrive; the stream leaves this much room behind the last of them.
func (m *maker) tooLateWithin() time.Duration { return m.Span / 6 }

// amount is the usual price of a product, with a standard deviation of 15 % and 45 % more or less at most.
func (m *maker) amount(of int) contracts.Amount {
	return contracts.MinorUnit(contracts.DefaultCurrency) * contracts.Amount(math.Round(m.prices[of]*(1+0.15*min(3, max(-3, m.dice.NormFloat64())))))
}

// unusual plants a purchase of ten times the usual amount of a product that is bought often, late enough that the product has a
// history.
func (m *maker) unusual(of int) {
	at := m.Start.Add(m.Span/2 + m.some(m.Span/2-m.Lateness))
	f := Fact{
		ID: fmt.Sprintf("EVT-%07d", len(m.stream.Facts)), Type: contracts.TypeProductPurchased, Product: product(of), At: at,
		Session: "SESSION-000000", Value: 10 * contracts.MinorUnit(contracts.DefaultCurrency) * contracts.Amount(math.Round(m.prices[of])),
	}
	m.stream.Facts = append(m.stream.Facts, f)
	m.stream.Planted = append(m.stream.Planted, Planted{contracts.AnomalyUnusualPurchase, f.Product, f.ID, at, at})
}

// spike plants 150 to 400 views within 40 seconds of a product that is rarely viewed otherwise.
func (m *maker) spike(of int) {
	at := m.Start.Add(m.Span/4 + m.some(m.Span/2))
	for range 150 + m.dice.IntN(250) {
		m.stream.Facts = append(m.stream.Facts, Fact{
			ID: fmt.Sprintf("EVT-%07d", len(m.stream.Facts)), Type: contracts.TypeProductViewed, Product: product(of),
			Session: fmt.Sprintf("SESSION-%06d", m.dice.IntN(m.Sessions)), At: at.Add(m.some(40 * time.Second)),
		})
	}
	m.stream.Planted = append(m.stream.Planted, Planted{contracts.AnomalyViewSpike, product(of), "", at, at.Add(40 * time.Second)})
}

// arrive adds the arrival of a fact: mostly within seconds, sometimes nearly at the limit, some too late, some twice.
func (m *maker) arrive(i int, f Fact) {
	data := f.json(i)
	delay := m.some(5 * time.Second)
	if m.dice.IntN(50) == 0 {
		delay = m.some(m.Lateness)
	}
	if f.Late {
		delay = m.TooLateAfter + m.some(m.tooLateWithin())
	}
	m.stream.Arrivals = append(m.stream.Arrivals, Arrival{Fact: i, JSON: data, due: f.At.Add(delay)})
	if !f.Late && m.dice.Float64() < m.Duplicates {
		m.stream.Arrivals = append(m.stream.Arrivals, Arrival{Fact: i, JSON: data, due: f.At.Add(m.some(m.Lateness))})
	}
}

func (f Fact) json(i int) []byte {
	user := fmt.Sprintf("CUST-%d", 100+i%900)
	properties := map[string]any{"device": "desktop", "source": "truth"}
	var payload contracts.Payload
	switch f.Type {
	case contracts.TypeProductPurchased:
		payload = contracts.ProductPurchased{
			EventID: f.ID, UserID: user, SessionID: f.Session, ProductID: f.Product, Value: f.Value, Timestamp: f.At, Properties: properties,
		}
	case contracts.TypeRecommendationGenerated:
		payload = contracts.RecommendationGenerated{
			EventID: f.ID, UserID: user, SessionID: f.Session, ProductID: f.Product, Algorithm: f.Algorithm,
			ConfidenceScores: []float64{f.Confidence}, Timestamp: f.At, Properties: properties,
		}
	default:
		payload = contracts.ProductViewed{
			EventID: f.ID, UserID: user, SessionID: f.Session, ProductID: f.Product, Timestamp: f.At, Properties: properties,
		}
	}
	data, err := json.Marshal(payload)
	if err != nil {
		panic(err) // a payload of texts and numbers always encodes
	}
	// The event has its type in its body, so it can be sent to the API as it is.
	return append([]byte(`{"event_type":"`+f.Type+`",`), data[1:]...)
}
