// Package anomaly finds what differs from the history of a product: a purchase of an unusual amount, and a spike of views. It
// owns the rules and their state. It does no I/O and has no clock.
package anomaly

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"time"

	"waybill/contracts"
	"waybill/services/analytics/internal/metric"
)

// Anomaly is one finding. All its numbers are finite.
type Anomaly struct {
	// ID is derived from the finding: finding it again gives the same ID.
	ID      string
	Kind    string
	Product string
	// Expected is the mean of the history and Deviation its standard deviation: of amounts of money, or of views a minute.
	Expected, Deviation float64
	// Seen is the observed value, Score by how many standard deviations it differs.
	Seen, Score float64
	// Sentence describes the finding to a person.
	Sentence string
	// EventID is the event that showed it, At the time of that event.
	EventID string
	At      time.Time
}

// Payload is the anomaly as it is published.
func (a Anomaly) Payload() contracts.AnomalyDetected {
	return contracts.AnomalyDetected{
		AnomalyID: a.ID, Kind: a.Kind, ProductID: a.Product, Expected: a.Expected, Observed: a.Seen, Deviation: a.Deviation,
		Score: a.Score, Message: a.Sentence, EventID: a.EventID, OccurredAt: a.At,
	}
}

// Limits of normal values.
const (
	// maxScore is by how many standard deviations a purchase may differ from its history, and views from theirs.
	maxScore = 3
	// minPurchases is the number of purchases that a history must exceed before it is used.
	minPurchases = 10
	// minRatio is how many times the usual views a spike has at least.
	minRatio = 3
	// minute is its length in seconds.
	minute = 60
)

// Purchases is the history of the amounts paid for one product in one currency, in units of contracts.Amount. The zero value is empty.
type Purchases struct {
	n             int64
	mean, squares float64
}

// Count is the number of purchases in the history.
func (h *Purchases) Count() int64 { return h.n }

// Purchase is a purchase to be judged.
type Purchase struct {
	EventID, Product string
	// EventKey identifies the event: it is EventID, or EventID with its source if the id alone is not unique.
	EventKey string
	Value    contracts.Amount
	Currency string
	At       time.Time
}

// Add compares a purchase with the purchases before it and then adds it to the history. An unusual amount is added reduced to the
// limit of what was normal, so that one typing error does not hide the next, and a lasting change of price becomes normal over
// time.
func (h *Purchases) Add(p Purchase) (Anomaly, bool) {
	value := float64(p.Value)
	mean, n := h.mean, h.n
	// Amounts are whole minor units, so a history of equal amounts knows its mean only to one unit.
	minor := contracts.MinorUnit(p.Currency)
	deviation := max(h.deviation(), float64(minor))
	score := (value - mean) / deviation
	unusual := n > minPurchases && math.Abs(score) > maxScore
	if unusual {
		value = mean + math.Copysign(maxScore*deviation, score)
	}
	h.n++
	delta := value - h.mean
	h.mean += delta / float64(h.n)
	h.squares += delta * (value - h.mean)
	if !unusual {
		return Anomaly{}, false
	}
	whole := func(v float64) contracts.Amount { return contracts.Amount(math.Round(v/float64(minor))) * minor }
	return Anomaly{
		ID: p.anomalyID(), Kind: contracts.AnomalyUnusualPurchase, Product: p.Product,
		Expected: whole(mean).Float(), Deviation: whole(deviation).Float(), Seen: p.Value.Float(), Score: rounded(score),
		Sentence: fmt.Sprintf("A purchase of %s came to %s, where %s is usual: the %d purchases before it differ from that by %s on average.",
			p.Product, p.Value.In(p.Currency), whole(mean).In(p.Currency), n, whole(deviation).In(p.Currency)),
		EventID: p.EventID, At: p.At,
	}, true
}

// anomalyID is derived from the event. An event's key may be longer than an anomaly's id, and not printable.
func (p *Purchase) anomalyID() string {
	if p.EventKey == p.EventID {
		return contracts.AnomalyUnusualPurchase + ":" + p.EventID
	}
	sum := sha256.Sum256([]byte(p.EventKey))
	return contracts.AnomalyUnusualPurchase + "@" + hex.EncodeToString(sum[:16])
}

func (h *Purchases) deviation() float64 {
	if h.n == 0 {
		return 0
	}
	return math.Sqrt(h.squares / float64(h.n))
}

// Clear empties the history.
func (h *Purchases) Clear() { *h = Purchases{} }

// SpikeRule is the rule for spikes of views.
type SpikeRule struct {
	// Floor is the number of views in a minute that is never a spike.
	Floor int64
	// WarmUp is how long events must have been observed before a product's normal rate is known.
	WarmUp time.Duration
}

// Spike is the state of one product: its last spike. The zero value has none.
type Spike struct {
	// first and last are the times, in Unix seconds, at which the spike began and was last observed.
	first, last int64
	// level is the number of views in the minute in which the spike was found.
	level int64
	// room is how many further views, none of them before since (in Unix seconds), are possible before a minute can exceed Floor.
	since, room int64
}

// View is a view to be judged.
type View struct {
	EventID, Product string
	At               time.Time
}

// Add checks the views of the minute that ends with v, which views already counts, against the minutes before it. Events have
// been observed since the given time. A spike is found once: it lasts until a minute has passed without one.
func (s *Spike) Add(rule SpikeRule, v View, views *metric.Counter, since time.Time) (Anomaly, bool) {
	at := v.At.Unix()
	if s.room > 0 && at >= s.since {
		s.room-- // so it is with most views, and the minute need not be counted
		return Anomaly{}, false
	}
	n := views.Count(metric.Minute, v.At)
	if n <= rule.Floor {
		// A late view says nothing about newer minutes.
		if views.Newest(v.At) {
			s.since, s.room = at, rule.Floor-n
		} else {
			s.room--
		}
		return Anomaly{}, false
	}
	s.room = 0
	if s.last != 0 && at <= s.last+minute {
		// Half of the level keeps a spike going, even if that is normal by now, so a lasting spike is not found again. Views
		// before the spike come too late to be reported.
		if at >= s.first-minute && 2*n > s.level {
			s.first, s.last = min(s.first, at), max(s.last, at)
		}
		return Anomaly{}, false
	}
	mean, deviation, minutes := views.Baseline(v.At, since, [2]time.Time{time.Unix(s.first-minute, 0), time.Unix(s.last, 0)})
	if time.Duration(minutes)*time.Minute < rule.WarmUp {
		return Anomaly{}, false
	}
	// Random views deviate by the square root of their number.
	deviation = max(deviation, math.Sqrt(mean), 1)
	score := (float64(n) - mean) / deviation
	if score <= maxScore || float64(n) < minRatio*mean {
		return Anomaly{}, false
	}
	*s = Spike{first: at, last: at, level: n}
	usual := strconv.FormatFloat(rounded(mean), 'f', -1, 64)
	return Anomaly{
		ID:   fmt.Sprintf("%s:%s:%d", contracts.AnomalyViewSpike, v.Product, at/minute*minute),
		Kind: contracts.AnomalyViewSpike, Product: v.Product,
		Expected: rounded(mean), Deviation: rounded(deviation), Seen: float64(n), Score: rounded(score),
		Sentence: fmt.Sprintf("%s was viewed %d times within a minute and more are coming, where %s views a minute were usual over the %d minutes before.",
			v.Product, n, usual, minutes),
		EventID: v.EventID, At: v.At,
	}, true
}

// Clear forgets the spike.
func (s *Spike) Clear() { *s = Spike{} }

// rounded has two decimals.
func rounded(v float64) float64 { return math.Round(v*100) / 100 }
