package storetest

import (
	"cmp"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"waybill/contracts"
	"waybill/services/analytics/internal/store"
)

// Model answers a store's questions from plain maps, in the most obvious way. The suite compares stores with it, and the
// tests' stand-in for Azure Data Explorer answers from it.
type Model struct {
	mu        sync.Mutex
	order     []string
	events    map[string]store.Event
	metrics   map[metricKey]store.Metric
	anomalies map[string]store.Anomaly
}

type metricKey struct {
	name, window string
	at           int64
}

// NewModel returns a model without rows.
func NewModel() *Model {
	return &Model{events: map[string]store.Event{}, metrics: map[metricKey]store.Metric{}, anomalies: map[string]store.Anomaly{}}
}

// Append keeps the events whose ids are new, and says which.
func (m *Model) Append(events []store.Event) []bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	fresh := make([]bool, len(events))
	for i, e := range events {
		if _, there := m.events[e.ID]; there {
			continue
		}
		fresh[i] = true
		m.order = append(m.order, e.ID)
		m.events[e.ID] = Kept(e)
	}
	return fresh
}

// Kept is the event as a store gives it back.
func Kept(e store.Event) store.Event {
	e.Timestamp, e.ProcessedAt = kept(e.Timestamp), kept(e.ProcessedAt)
	if len(e.Properties) == 0 {
		e.Properties = json.RawMessage("{}")
	}
	return e
}

func kept(t time.Time) time.Time { return time.UnixMicro(t.UnixMicro()).UTC() }

// PutMetrics keeps the newest version of each.
func (m *Model) PutMetrics(metrics []store.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range metrics {
		v.Timestamp, v.ComputedAt = kept(v.Timestamp), kept(v.ComputedAt)
		k := metricKey{v.Name, v.Window, v.Timestamp.UnixMicro()}
		if old, there := m.metrics[k]; !there || v.ComputedAt.After(old.ComputedAt) {
			m.metrics[k] = v
		}
	}
}

// PutAnomalies keeps the newest version of each.
func (m *Model) PutAnomalies(anomalies []store.Anomaly) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range anomalies {
		a.Timestamp, a.UpdatedAt = kept(a.Timestamp), kept(a.UpdatedAt)
		if old, there := m.anomalies[a.ID]; !there || a.UpdatedAt.After(old.UpdatedAt) {
			m.anomalies[a.ID] = a
		}
	}
}

// Known says which of the ids are those of stored events.
func (m *Model) Known(ids []string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { _, there := m.events[id]; return !there })
}

// Events are the events that happened at since or later, as they arrived.
func (m *Model) Events(since time.Time) []store.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := []store.Event{}
	for _, id := range m.order {
		if e := m.events[id]; !e.Timestamp.Before(kept(since)) {
			all = append(all, e)
		}
	}
	return all
}

// Series is a metric over time.
func (m *Model) Series(q store.SeriesQuery) []store.Metric {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := []store.Metric{}
	for _, v := range m.metrics {
		if v.Name == q.Name && v.Window == q.Window && within(v.Timestamp, q.From, q.To) {
			all = append(all, v)
		}
	}
	slices.SortFunc(all, func(a, b store.Metric) int { return a.Timestamp.Compare(b.Timestamp) })
	return all[max(0, len(all)-q.Limit):]
}

func within(t, from, to time.Time) bool { return !t.Before(kept(from)) && t.Before(kept(to)) }

// TopProducts are the products that did best.
func (m *Model) TopProducts(q store.TopQuery) []store.Product {
	m.mu.Lock()
	defer m.mu.Unlock()
	by := map[string]*store.Product{}
	for _, e := range m.events {
		viewed, bought := e.Type == contracts.TypeProductViewed, e.Type == contracts.TypeProductPurchased
		if e.ProductID == "" || !viewed && !bought || !within(e.Timestamp, q.From, q.To) {
			continue
		}
		p := by[e.ProductID]
		if p == nil {
			p = &store.Product{ID: e.ProductID}
			by[e.ProductID] = p
		}
		if viewed {
			p.Views++
		} else {
			p.Purchases++
			p.Revenue += e.Value
		}
	}
	score := func(p store.Product) float64 {
		switch q.By {
		case store.ByViews:
			return float64(p.Views)
		case store.ByPurchases:
			return float64(p.Purchases)
		}
		return p.Revenue
	}
	all := []store.Product{}
	for _, p := range by {
		if score(*p) > 0 {
			all = append(all, *p)
		}
	}
	slices.SortFunc(all, func(a, b store.Product) int { return cmp.Or(cmp.Compare(score(b), score(a)), cmp.Compare(a.ID, b.ID)) })
	return all[:min(q.Limit, len(all))]
}

// Anomalies are a page of anomalies, newest first.
func (m *Model) Anomalies(q store.AnomalyQuery) []store.Anomaly {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := []store.Anomaly{}
	for _, a := range m.anomalies {
		if (q.ProductID == "" || a.ProductID == q.ProductID) && (q.Type == "" || a.Type == q.Type) {
			all = append(all, a)
		}
	}
	newest := func(at, bt time.Time, a, b string) int { return cmp.Or(bt.Compare(at), cmp.Compare(a, b)) }
	slices.SortFunc(all, func(a, b store.Anomaly) int { return newest(a.Timestamp, b.Timestamp, a.ID, b.ID) })
	if q.After != nil {
		all = slices.DeleteFunc(all, func(a store.Anomaly) bool {
			return newest(a.Timestamp, kept(q.After.Timestamp), a.ID, q.After.ID) <= 0
		})
	}
	return all[:min(q.Limit, len(all))]
}

// Counts says how many rows there are.
func (m *Model) Counts() store.Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return store.Counts{Events: int64(len(m.events)), Metrics: int64(len(m.metrics)), Anomalies: int64(len(m.anomalies))}
}

// Expire removes old rows and says how many.
func (m *Model) Expire(before store.Expiry) store.Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := store.Counts{Events: int64(len(m.events)), Metrics: int64(len(m.metrics)), Anomalies: int64(len(m.anomalies))}
	m.order = slices.DeleteFunc(m.order, func(id string) bool {
		gone := m.events[id].Timestamp.Before(kept(before.Events))
		if gone {
			delete(m.events, id)
		}
		return gone
	})
	for k, v := range m.metrics {
		if v.Timestamp.Before(kept(before.Metrics)) {
			delete(m.metrics, k)
		}
	}
	for k, a := range m.anomalies {
		if a.Timestamp.Before(kept(before.Anomalies)) {
			delete(m.anomalies, k)
		}
	}
	return store.Counts{
		Events: was.Events - int64(len(m.events)), Metrics: was.Metrics - int64(len(m.metrics)), Anomalies: was.Anomalies - int64(len(m.anomalies)),
	}
}
