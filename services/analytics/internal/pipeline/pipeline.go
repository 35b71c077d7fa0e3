// Package pipeline is the core of analytics: it counts each valid event once, in sliding windows of event time, and finds
// anomalies. It owns the names of the metrics, and decides what is kept in memory and what is dropped. It does no I/O and has no
// clock; its caller feeds it.
package pipeline

import (
	"hash/maphash"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"waybill/contracts"
	"waybill/services/analytics/internal/anomaly"
	"waybill/services/analytics/internal/event"
	"waybill/services/analytics/internal/metric"
)

// Outcome is the result for an event.
type Outcome uint8

// The outcomes.
const (
	// Counted: the event is in the windows.
	Counted Outcome = iota
	// Duplicate: the same event, by its key, was counted before.
	Duplicate
	// Late: the event is further behind the newest one than the lateness allows.
	Late
)

func (o Outcome) String() string { return [...]string{"counted", "duplicate", "late"}[o] }

// Stats are the pipeline's own figures since it began.
type Stats struct {
	Views, Purchases, Recommendations uint64
	// Revenue is the sum of all purchases in the configured currency.
	Revenue contracts.Amount
	// OtherCurrency are purchases in other currencies, which are not part of the revenue.
	OtherCurrency uint64
	// Unscored are the recommendations without a confidence score.
	Unscored         uint64
	Duplicates, Late uint64
	// Evicted are the numbers of names whose windows and history were dropped to make room.
	EvictedProducts, EvictedSessions, EvictedAlgorithms uint64
	// ForgottenIDs is the number of event ids that were dropped early to make room.
	ForgottenIDs uint64
	// Products, Sessions, Algorithms and IDs are the numbers that are kept now.
	Products, Sessions, Algorithms, IDs int
	// Newest is the time of the newest event, Watermark the time before which events are late; zero before the first event.
	Newest, Watermark time.Time
}

// Units of the integers in distributions.
const (
	amounts    metric.Scale = metric.Scale(contracts.Unit)
	millionths metric.Scale = 1_000_000
)

// Pipeline counts events. It is not safe for concurrent use.
type Pipeline struct {
	config Config
	sketch metric.Sketch

	first, newest time.Time
	horizon       metric.Horizon
	horizonOf     int64 // the pane of newest for which horizon holds
	seen          seen
	stats         Stats
	touched       uint64 // what prefetch read, so that the compiler leaves the reading in

	views, purchases metric.Counter
	revenue          metric.Distribution
	products         *table[product, *product]
	sessions         *table[session, *session]
	algorithms       *table[algorithm, *algorithm]
}

// product is the state of one product.
type product struct {
	views     metric.Counter
	spike     anomaly.Spike
	purchases metric.Counter
	history   anomaly.Purchases
	revenue   metric.Distribution
}

func (p *product) clear() {
	p.views.Clear()
	p.purchases.Clear()
	p.revenue.Clear()
	p.history.Clear()
	p.spike.Clear()
}

// session is the state of one session.
type session struct{ views metric.Counter }

func (s *session) clear() { s.views.Clear() }

// algorithm is the state of one algorithm.
type algorithm struct{ confidence metric.Distribution }

func (a *algorithm) clear() { a.confidence.Clear() }

// New makes an empty pipeline. It returns an error if the configuration is invalid.
func New(config Config) (*Pipeline, error) {
	if err := config.Check(); err != nil {
		return nil, err
	}
	return &Pipeline{
		config: config, sketch: metric.NewSketch(), horizonOf: -1,
		seen:       seen{seed: maphash.MakeSeed(), max: config.MaxIDs, lateness: config.Lateness},
		products:   newTable[product](config.MaxProducts),
		sessions:   newTable[session](config.MaxSessions),
		algorithms: newTable[algorithm](config.MaxAlgorithms),
	}, nil
}

// AddAll counts the events one after the other, as Add does.
func (p *Pipeline) AddAll(events []event.Event, found []anomaly.Anomaly) []anomaly.Anomaly {
	for some := range slices.Chunk(events, prefetched) {
		p.prefetch(some)
		for i := range some {
			_, found = p.Add(&some[i], found)
		}
	}
	return found
}

// prefetched is the number of events whose memory is prefetched together: enough to keep the processor's line fill buffers busy,
// and few enough that the memory is still in its cache when it is needed.
const prefetched = 50

// prefetch reads the memory that adding each of the events will need first, and changes nothing. Most of it is in no cache of the
// processor. Here the reads do not wait for each other, as they do from one Add to the next.
func (p *Pipeline) prefetch(events []event.Event) {
	var touched uint64
	for i := range events {
		touched += p.seen.peek(events[i].Key())
		if one := p.products.rows[events[i].Product()]; one != nil {
			touched += uint64(one.link)
		}
	}
	p.touched = touched
}

// Add counts one event, unless it was counted before or is too late, and appends the anomalies that it shows to found. It keeps
// no reference to the event.
func (p *Pipeline) Add(e *event.Event, found []anomaly.Anomaly) (Outcome, []anomaly.Anomaly) {
	at := e.At()
	if at.Before(p.newest.Add(-p.config.Lateness)) {
		p.stats.Late++
		return Late, found
	}
	if p.first.IsZero() {
		p.first, p.newest, p.seen.begun = at, at, at
	}
	if at.After(p.newest) {
		p.newest = at
		p.seen.moveOn(at)
	}
	if !p.seen.add(e.Key(), p.newest) {
		p.stats.Duplicates++
		return Duplicate, found
	}
	p.moveHorizon()
	switch e.Type() {
	case event.Viewed:
		return Counted, p.view(e, found)
	case event.Purchased:
		return Counted, p.purchase(e, found)
	default:
		p.recommendation(e)
		return Counted, found
	}
}

// moveHorizon sets the horizon to the pane of the newest event, so that it depends on that time alone.
func (p *Pipeline) moveHorizon() {
	if p.newest.IsZero() {
		return
	}
	pane := int64(metric.Minute.Pane() / time.Second)
	if of := p.newest.Unix() / pane; of != p.horizonOf {
		p.horizonOf, p.horizon = of, metric.NewHorizon(time.Unix(of*pane, 0), p.config.Lateness)
	}
}

func (p *Pipeline) view(e *event.Event, found []anomaly.Anomaly) []anomaly.Anomaly {
	at := e.At()
	p.stats.Views++
	p.views.Add(at, p.horizon)
	one := p.products.use(e.Product())
	one.value.views.Add(at, p.horizon)
	if e.Session() != "" {
		p.sessions.use(e.Session()).value.views.Add(at, p.horizon)
	}
	rule := anomaly.SpikeRule{Floor: int64(p.config.SpikeFloor), WarmUp: p.config.SpikeWarmUp}
	// The product's name is the table's copy: an anomaly may outlive the event.
	v := anomaly.View{EventID: e.ID(), Product: one.name, At: at}
	if a, unusual := one.value.spike.Add(rule, v, &one.value.views, p.first); unusual {
		a.EventID = strings.Clone(a.EventID)
		found = append(found, a)
	}
	return found
}

func (p *Pipeline) purchase(e *event.Event, found []anomaly.Anomaly) []anomaly.Anomaly {
	at, value := e.At(), int64(e.Value())
	p.stats.Purchases++
	p.purchases.Add(at, p.horizon)
	one := p.products.use(e.Product())
	one.value.purchases.Add(at, p.horizon)
	if e.Currency() != p.config.Currency {
		p.stats.OtherCurrency++
		return found
	}
	p.stats.Revenue += e.Value()
	p.revenue.Add(value, at, p.horizon, p.sketch)
	one.value.revenue.Add(value, at, p.horizon, p.sketch)
	bought := anomaly.Purchase{EventID: e.ID(), EventKey: e.Key(), Product: one.name, Value: e.Value(), Currency: p.config.Currency, At: at}
	if a, unusual := one.value.history.Add(bought); unusual {
		a.EventID = strings.Clone(a.EventID)
		found = append(found, a)
	}
	return found
}

func (p *Pipeline) recommendation(e *event.Event) {
	p.stats.Recommendations++
	confidence, ok := e.Confidence()
	if !ok {
		p.stats.Unscored++
		return
	}
	p.algorithms.use(e.Algorithm()).value.confidence.Add(int64(math.Round(confidence*float64(millionths))), e.At(), p.horizon, p.sketch)
}

// Stats are the pipeline's own figures.
func (p *Pipeline) Stats() Stats {
	s := p.stats
	s.EvictedProducts, s.EvictedSessions, s.EvictedAlgorithms = p.products.evicted, p.sessions.evicted, p.algorithms.evicted
	s.Products, s.Sessions, s.Algorithms = len(p.products.rows), len(p.sessions.rows), len(p.algorithms.rows)
	s.IDs, s.ForgottenIDs = p.seen.count[0]+p.seen.count[1], p.seen.forgottenEarly
	if s.Newest = p.newest; !s.Newest.IsZero() {
		s.Watermark = s.Newest.Add(-p.config.Lateness)
	}
	return s
}

// Names of the metrics.
const (
	totalViews       = "total_views"
	totalPurchases   = "total_purchases"
	totalRevenue     = "total_revenue"
	viewsPrefix      = "views_"
	purchasesPrefix  = "purchases_"
	revenuePrefix    = "revenue_"
	conversionPrefix = "conversion_rate_"
	confidencePrefix = "recommendation_confidence_"
	sessionPrefix    = "session_"
	sessionSuffix    = "_views"
)

// Statistics are the statistics of a metric in the window that ends with the pane of at. ok is false if the window is empty or
// the name is unknown. At may be as far back as the lateness allows.
func (p *Pipeline) Statistics(name string, w metric.Window, at time.Time) (s metric.Statistics, ok bool) {
	switch name {
	case totalViews:
		s, ok = p.views.Statistics(w, at)
	case totalPurchases:
		s, ok = p.purchases.Statistics(w, at)
	case totalRevenue:
		s, ok = p.revenue.Statistics(w, at, amounts, p.sketch)
	default:
		s, ok = p.named(name, w, at)
	}
	if !ok {
		return metric.Statistics{}, false
	}
	return titled(s, name, w, at), true
}

func titled(s metric.Statistics, name string, w metric.Window, at time.Time) metric.Statistics {
	s.Name, s.Window = name, w
	s.From, s.To = w.Bounds(at)
	return s
}

func (p *Pipeline) named(name string, w metric.Window, at time.Time) (metric.Statistics, bool) {
	for _, prefix := range []string{viewsPrefix, purchasesPrefix, revenuePrefix, conversionPrefix} {
		if id, ok := strings.CutPrefix(name, prefix); ok {
			if one := p.products.get(id); one != nil {
				return p.ofProduct(one, prefix, w, at)
			}
			return metric.Statistics{}, false
		}
	}
	if id, ok := strings.CutPrefix(name, confidencePrefix); ok {
		if one := p.algorithms.get(id); one != nil {
			return one.confidence.Statistics(w, at, millionths, p.sketch)
		}
		return metric.Statistics{}, false
	}
	if id, ok := strings.CutPrefix(name, sessionPrefix); ok {
		if id, ok = strings.CutSuffix(id, sessionSuffix); ok {
			if one := p.sessions.get(id); one != nil {
				return one.views.Statistics(w, at)
			}
		}
	}
	return metric.Statistics{}, false
}

func (p *Pipeline) ofProduct(one *product, prefix string, w metric.Window, at time.Time) (metric.Statistics, bool) {
	switch prefix {
	case viewsPrefix:
		return one.views.Statistics(w, at)
	case purchasesPrefix:
		return one.purchases.Statistics(w, at)
	case revenuePrefix:
		return one.revenue.Statistics(w, at, amounts, p.sketch)
	default:
		return metric.Rate(one.purchases.Count(w, at), one.views.Count(w, at))
	}
}

// All yields every metric whose window at a time is not empty: the totals, then those of the products, the algorithms and the
// sessions. No event may be added meanwhile.
func (p *Pipeline) All(w metric.Window, at time.Time) iter.Seq[metric.Statistics] {
	return func(yield func(metric.Statistics) bool) {
		for _, name := range []string{totalViews, totalPurchases, totalRevenue} {
			if s, ok := p.Statistics(name, w, at); ok && !yield(s) {
				return
			}
		}
		for id, one := range p.products.all {
			for _, prefix := range []string{viewsPrefix, purchasesPrefix, revenuePrefix, conversionPrefix} {
				if s, ok := p.ofProduct(one, prefix, w, at); ok && !yield(titled(s, prefix+id, w, at)) {
					return
				}
			}
		}
		for id, one := range p.algorithms.all {
			if s, ok := one.confidence.Statistics(w, at, millionths, p.sketch); ok && !yield(titled(s, confidencePrefix+id, w, at)) {
				return
			}
		}
		for id, one := range p.sessions.all {
			if s, ok := one.views.Statistics(w, at); ok && !yield(titled(s, sessionPrefix+id+sessionSuffix, w, at)) {
				return
			}
		}
	}
}
