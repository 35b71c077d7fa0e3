// Package store defines what analytics stores, as plain rows, and which queries a store answers. It knows no database: package
// sqlite stores the rows in a file, package kusto in Azure Data Explorer, and package storetest is their common conformance
// suite.
//
// Times are kept in UTC to the microsecond; a store cuts off what is finer. Numbers are finite.
package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"time"
	"unicode/utf8"

	"waybill/platform/retryable"
)

// Event is one analytics event: a row of AnalyticsEvents.
type Event struct {
	// ID identifies the event: it is the event's key, of its source and its id. Of many events with one ID the store keeps one.
	ID   string
	Type string
	// Timestamp is when it happened, according to its sender.
	Timestamp time.Time
	UserID    string
	SessionID string
	// ProductID is empty for an event without a product.
	ProductID string
	Value     float64
	// Properties is a JSON object. Empty means {}.
	Properties json.RawMessage
	// ProcessedAt is when it arrived here.
	ProcessedAt time.Time
}

// Metric is the value of one window of one metric: a row of RealtimeMetrics. Name, window and timestamp identify it.
type Metric struct {
	Name string
	// Window is the window's length in the API's form: 1m, 5m, 1h.
	Window string
	// Timestamp is the window's end.
	Timestamp time.Time
	Count     int64
	Sum       float64
	Mean      float64
	Median    float64
	Min       float64
	Max       float64
	StdDev    float64
	P95       float64
	P99       float64
	// ComputedAt orders the versions of one metric: the newest is kept, in whatever order they are written.
	ComputedAt time.Time
}

// Anomaly is a detected anomaly. Its id identifies it.
type Anomaly struct {
	ID        string
	Type      string
	ProductID string
	// Expected and Seen are the expected and the observed number.
	Expected float64
	Seen     float64
	// Score is the difference in standard deviations.
	Score float64
	// Sentence describes the anomaly to a person.
	Sentence string
	// Timestamp is when it happened.
	Timestamp time.Time
	// UpdatedAt orders the versions of one anomaly: the newest is kept.
	UpdatedAt time.Time
}

// Product is the result of one product in a range of time.
type Product struct {
	ID        string
	Views     int64
	Purchases int64
	Revenue   float64
}

// Rank is the order of TopProducts.
type Rank string

// The ranks.
const (
	ByViews     Rank = "views"
	ByPurchases Rank = "purchases"
	ByRevenue   Rank = "revenue"
)

// Counts are the numbers of rows.
type Counts struct {
	Events    int64
	Metrics   int64
	Anomalies int64
}

// MaxRows is the most rows one query answers.
const MaxRows = 1000

// SeriesQuery asks for a metric over time.
type SeriesQuery struct {
	Name   string
	Window string
	// From is included, To is not.
	From time.Time
	To   time.Time
	// Limit is 1 to MaxRows. If there are more rows, the newest are returned.
	Limit int
}

// TopQuery asks for the best products.
type TopQuery struct {
	// From is included, To is not; both are times at which events happened.
	From time.Time
	To   time.Time
	By   Rank
	// Limit is 1 to MaxRows.
	Limit int
}

// AnomalyQuery asks for a page of anomalies.
type AnomalyQuery struct {
	// ProductID and Type narrow the page; empty means any.
	ProductID string
	Type      string
	// After is the last anomaly of the page before, or nil for the first page.
	After *Place
	// Limit is 1 to MaxRows.
	Limit int
}

// Place is the position of an anomaly: newest first, then by id.
type Place struct {
	Timestamp time.Time
	ID        string
}

// Store stores events, metrics and anomalies. All methods are safe for concurrent use. What a method stored before it returned
// without an error survives the end of the process.
type Store interface {
	// Append stores the events that are new by their id and reports for each whether it was new. Of events with one id the first
	// is kept. After an error it is unknown what was stored; the same events may be appended again, and none is then counted
	// twice.
	//
	// An adapter may report an event as new a second time when it cannot see yet what another process wrote; its package comment
	// says when. No query counts an event twice.
	Append(ctx context.Context, events []Event) (fresh []bool, err error)
	// PutMetrics stores metrics; a version computed later replaces an earlier one, never the other way round.
	PutMetrics(ctx context.Context, metrics []Metric) error
	// PutAnomalies stores anomalies; a later version replaces an earlier one, never the other way round.
	PutAnomalies(ctx context.Context, anomalies []Anomaly) error

	// Events yields the events that happened at since or later, in order of arrival. It ends with the first error. Events that
	// arrive meanwhile may be included.
	Events(ctx context.Context, since time.Time) iter.Seq2[Event, error]
	// Series returns the values of a metric, oldest first.
	Series(ctx context.Context, q SeriesQuery) ([]Metric, error)
	// TopProducts returns the products with the most of q.By, if it is more than zero, best first, then by id.
	TopProducts(ctx context.Context, q TopQuery) ([]Product, error)
	// Anomalies returns a page of anomalies, newest first.
	Anomalies(ctx context.Context, q AnomalyQuery) ([]Anomaly, error)
	// Counts returns the numbers of rows. It reads much; do not call it every second.
	Counts(ctx context.Context) (Counts, error)

	// Close closes the store. What was accepted before is stored.
	Close() error
}

// Expirer is a store that removes old rows when Expire is called. Azure Data Explorer does so by itself, by the tables'
// retention policies.
type Expirer interface {
	// Expire removes the events and anomalies that happened, and the metrics whose windows ended, before the given times; a zero
	// time removes none. It works in small steps, so writers wait for one step at most, and returns the numbers of removed rows.
	Expire(ctx context.Context, before Expiry) (Counts, error)
}

// Expiry has the times before which rows are removed.
type Expiry struct {
	Events    time.Time
	Metrics   time.Time
	Anomalies time.Time
}

var (
	// ErrInvalid marks a row or a query that no store accepts.
	ErrInvalid = retryable.NewPermanent("invalid")
	// ErrUnavailable means that the store could not be reached or could not do it now.
	ErrUnavailable = retryable.New("the analytics store is unavailable")
)

// Failed marks an error of a store's method with ErrUnavailable, unless it is known to be permanent. Other answers of a database,
// such as a full disk or a missing table, say nothing about the rows.
func Failed(err error) error {
	if err == nil || retryable.IsPermanent(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

const maxKey = 256

// Check returns an ErrInvalid that says what is wrong with the event.
func (e *Event) Check() error {
	switch {
	case !key(e.ID):
		return fmt.Errorf("%w: an event's id has 1 to %d bytes of UTF-8", ErrInvalid, maxKey)
	case !key(e.Type):
		return fmt.Errorf("%w: an event's type has 1 to %d bytes of UTF-8", ErrInvalid, maxKey)
	case !utf8.ValidString(e.UserID) || !utf8.ValidString(e.SessionID) || !utf8.ValidString(e.ProductID):
		return fmt.Errorf("%w: an event's user, session and product are UTF-8", ErrInvalid)
	case !moment(e.Timestamp) || !moment(e.ProcessedAt):
		return fmt.Errorf("%w: an event's times are in the years 1900 to 2200", ErrInvalid)
	case !finite(e.Value):
		return fmt.Errorf("%w: an event's value is a finite number", ErrInvalid)
	case len(e.Properties) > 0 && !object(e.Properties):
		return fmt.Errorf("%w: an event's properties are a JSON object", ErrInvalid)
	}
	return nil
}

// Check returns an ErrInvalid that says what is wrong with the metric.
func (m *Metric) Check() error {
	switch {
	case !key(m.Name) || !key(m.Window):
		return fmt.Errorf("%w: a metric's name and window have 1 to %d bytes of UTF-8", ErrInvalid, maxKey)
	case !moment(m.Timestamp) || !moment(m.ComputedAt):
		return fmt.Errorf("%w: a metric's times are in the years 1900 to 2200", ErrInvalid)
	case !finite(m.Sum, m.Mean, m.Median, m.Min, m.Max, m.StdDev, m.P95, m.P99):
		return fmt.Errorf("%w: a metric's values are finite numbers", ErrInvalid)
	}
	return nil
}

// Check returns an ErrInvalid that says what is wrong with the anomaly.
func (a *Anomaly) Check() error {
	switch {
	case !key(a.ID) || !key(a.Type):
		return fmt.Errorf("%w: an anomaly's id and type have 1 to %d bytes of UTF-8", ErrInvalid, maxKey)
	case !utf8.ValidString(a.ProductID) || !utf8.ValidString(a.Sentence):
		return fmt.Errorf("%w: an anomaly's product and sentence are UTF-8", ErrInvalid)
	case !moment(a.Timestamp) || !moment(a.UpdatedAt):
		return fmt.Errorf("%w: an anomaly's times are in the years 1900 to 2200", ErrInvalid)
	case !finite(a.Expected, a.Seen, a.Score):
		return fmt.Errorf("%w: an anomaly's values are finite numbers", ErrInvalid)
	}
	return nil
}

// Check returns an ErrInvalid that says what is wrong with the query.
func (q SeriesQuery) Check() error { return limit(q.Limit) }

// Check returns an ErrInvalid that says what is wrong with the query.
func (q AnomalyQuery) Check() error { return limit(q.Limit) }

// Check returns an ErrInvalid that says what is wrong with the query.
func (q TopQuery) Check() error {
	switch q.By {
	case ByViews, ByPurchases, ByRevenue:
		return limit(q.Limit)
	}
	return fmt.Errorf("%w: products are ranked by views, purchases or revenue", ErrInvalid)
}

// CheckAll checks every row of a batch and names the position of the first invalid one.
func CheckAll[T any, P interface {
	*T
	Check() error
}](rows []T,
) error {
	for i := range rows {
		if err := P(&rows[i]).Check(); err != nil {
			return fmt.Errorf("row %d: %w", i, err)
		}
	}
	return nil
}

func limit(n int) error {
	if n < 1 || n > MaxRows {
		return fmt.Errorf("%w: a limit is 1 to %d", ErrInvalid, MaxRows)
	}
	return nil
}

func key(s string) bool { return s != "" && len(s) <= maxKey && utf8.ValidString(s) }

func moment(t time.Time) bool { y := t.UTC().Year(); return y >= 1900 && y <= 2200 }

func finite(values ...float64) bool {
	for _, v := range values {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return false
		}
	}
	return true
}

func object(raw json.RawMessage) bool {
	trimmed := bytes.TrimLeft(raw, " \t\r\n")
	return len(trimmed) > 0 && trimmed[0] == '{' && json.Valid(raw)
}
