package api

import (
	"context"
	"encoding/base64"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"waybill/contracts"
	"waybill/platform/rest"
	"waybill/platform/timestamp"
	"waybill/services/analytics/internal/metric"
	"waybill/services/analytics/internal/store"
)

// metricNames describes the names of the metrics.
const metricNames = "total_views, total_purchases, total_revenue, views_<product>, purchases_<product>, revenue_<product>, " +
	"conversion_rate_<product>, session_<session>_views, recommendation_confidence_<algorithm>"

// known reports whether name can be the name of a metric.
func known(name string) bool {
	switch name {
	case "total_views", "total_purchases", "total_revenue":
		return true
	}
	for _, prefix := range []string{"views_", "purchases_", "revenue_", "conversion_rate_", "recommendation_confidence_"} {
		if id, ok := strings.CutPrefix(name, prefix); ok {
			return id != ""
		}
	}
	id, ok := strings.CutPrefix(name, "session_")
	return ok && strings.HasSuffix(id, "_views") && id != "_views"
}

func unknownMetric(location, name string) error {
	return &rest.Problem{Status: http.StatusUnprocessableEntity, Code: "unknown_metric", Detail: "There is no metric of this name.",
		Errors: []rest.Fault{{Location: location, Message: "must be one of " + metricNames, Value: name}}}
}

// window reads a window's name, which huma has checked.
func window(name string) metric.Window {
	w, err := metric.ParseWindow(name)
	if err != nil {
		return metric.Minute
	}
	return w
}

type metricInput struct {
	Name   string `query:"name" required:"true" maxLength:"200" example:"total_views"`
	Window string `query:"window" enum:"1m,5m,1h" default:"1m"`
}

type metricOutput struct{ Body metricView }

type metricView struct {
	Name   string    `json:"name"`
	Window string    `json:"window" enum:"1m,5m,1h"`
	From   time.Time `json:"from" doc:"The window's start, included."`
	To     time.Time `json:"to" doc:"The window's end, not included."`
	Count  int64     `json:"count"`
	Sum    float64   `json:"sum"`
	Mean   float64   `json:"mean"`
	Median float64   `json:"median"`
	StdDev float64   `json:"stddev"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	P95    float64   `json:"p95"`
	P99    float64   `json:"p99"`
}

func viewOf(s metric.Statistics) metricView {
	return metricView{
		Name: s.Name, Window: s.Window.String(), From: s.From, To: s.To, Count: s.Count, Sum: s.Sum, Mean: s.Mean, Median: s.Median,
		StdDev: s.StdDev, Min: s.Min, Max: s.Max, P95: s.P95, P99: s.P99,
	}
}

func (a *API) metric(_ context.Context, in *metricInput) (*metricOutput, error) {
	if !known(in.Name) {
		return nil, unknownMetric("query.name", in.Name)
	}
	return &metricOutput{viewOf(a.Live.Statistics(in.Name, window(in.Window)))}, nil
}

type topInput struct {
	By     store.Rank `query:"by" enum:"views,purchases,revenue" default:"views"`
	Window string     `query:"window" enum:"1m,5m,1h" default:"1h"`
	Limit  int        `query:"limit" minimum:"1" maximum:"1000" default:"10"`
}

type topOutput struct{ Body topView }

type topView struct {
	By    store.Rank    `json:"by"`
	From  time.Time     `json:"from"`
	To    time.Time     `json:"to"`
	Items []productView `json:"items" nullable:"false"`
}

type productView struct {
	ProductID string  `json:"product_id"`
	Views     int64   `json:"views"`
	Purchases int64   `json:"purchases"`
	Revenue   float64 `json:"revenue" doc:"Of the purchases in the shop's currency, as in total_revenue; those in another one count as purchases only."`
}

func (a *API) top(ctx context.Context, in *topInput) (*topOutput, error) {
	from, to := window(in.Window).Bounds(time.Now())
	products, err := a.History.TopProducts(ctx, store.TopQuery{From: from, To: to, By: in.By, Limit: in.Limit})
	if err != nil {
		return nil, a.storeProblem(ctx, err)
	}
	out := &topOutput{topView{By: in.By, From: from, To: to, Items: make([]productView, len(products))}}
	for i, p := range products {
		out.Body.Items[i] = productView{ProductID: p.ID, Views: p.Views, Purchases: p.Purchases, Revenue: exact(p.Revenue)}
	}
	return out, nil
}

// exact is an amount of money that was added up as an integer, because floating-point sums are not exact.
func exact(sum float64) float64 {
	return math.Round(sum*float64(contracts.Unit)) / float64(contracts.Unit)
}

type seriesInput struct {
	Name   string `query:"name" required:"true" maxLength:"200" example:"total_views"`
	Window string `query:"window" enum:"1m,5m,1h" default:"1m"`
	From   string `query:"from" format:"date-time" doc:"Included; an hour before to when not given. In the years 2000 to 2199."`
	To     string `query:"to" format:"date-time" doc:"Not included; now when not given. In the years 2000 to 2199."`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"1000"`
}

type seriesOutput struct{ Body seriesView }

type seriesView struct {
	Name   string       `json:"name"`
	Window string       `json:"window" enum:"1m,5m,1h"`
	From   time.Time    `json:"from"`
	To     time.Time    `json:"to"`
	Points []metricView `json:"points" nullable:"false"`
}

func (a *API) series(ctx context.Context, in *seriesInput) (*seriesOutput, error) {
	if !known(in.Name) {
		return nil, unknownMetric("query.name", in.Name)
	}
	w := window(in.Window)
	from, to, err := rangeOf(in.From, in.To, time.Now())
	if err != nil {
		return nil, err
	}
	metrics, err := a.History.Series(ctx, store.SeriesQuery{Name: in.Name, Window: w.String(), From: from, To: to, Limit: in.Limit})
	if err != nil {
		return nil, a.storeProblem(ctx, err)
	}
	out := &seriesOutput{seriesView{Name: in.Name, Window: w.String(), From: from, To: to, Points: make([]metricView, len(metrics))}}
	for i, m := range metrics {
		out.Body.Points[i] = metricView{
			Name: m.Name, Window: m.Window, From: m.Timestamp.Add(-w.Length()), To: m.Timestamp, Count: m.Count, Sum: m.Sum, Mean: m.Mean,
			Median: m.Median, StdDev: m.StdDev, Min: m.Min, Max: m.Max, P95: m.P95, P99: m.P99,
		}
	}
	return out, nil
}

// rangeOf reads a range of time. Both ends may be missing.
func rangeOf(fromText, toText string, now time.Time) (from, to time.Time, err error) {
	// A window is recorded under its end, so the one that has just ended must be included.
	to = now.UTC().Add(time.Second)
	var faults []rest.Fault
	read := func(into *time.Time, location, text string) {
		at, err := timestamp.Parse(text)
		if err != nil {
			faults = append(faults, rest.Fault{Location: location, Message: err.Error(), Value: text})
			return
		}
		*into = at
	}
	if toText != "" {
		read(&to, "query.to", toText)
	}
	from = to.Add(-time.Hour)
	if fromText != "" {
		read(&from, "query.from", fromText)
	}
	if len(faults) > 0 {
		return from, to, &rest.Problem{Status: http.StatusUnprocessableEntity, Code: "invalid_request", Detail: "A time is not valid.", Errors: faults}
	}
	if !from.Before(to) {
		return from, to, &rest.Problem{Status: http.StatusUnprocessableEntity, Code: "invalid_request", Detail: "The range is empty.",
			Errors: []rest.Fault{{Location: "query.from", Message: "must be before to"}}}
	}
	return from, to, nil
}

type anomaliesInput struct {
	ProductID string `query:"product_id" maxLength:"128" example:"PROD-001"`
	Kind      string `query:"kind" enum:"unusual_purchase_amount,view_spike"`
	Limit     int    `query:"limit" minimum:"1" maximum:"1000" default:"50"`
	Cursor    string `query:"cursor" doc:"The next_cursor of the page before." minLength:"1" maxLength:"400" pattern:"^[A-Za-z0-9_-]+$" patternDescription:"a next_cursor of this API"`
}

type anomaliesOutput struct{ Body anomaliesView }

type anomaliesView struct {
	Items      []anomalyView `json:"items" nullable:"false"`
	NextCursor string        `json:"next_cursor,omitempty" doc:"Leads to the next page; absent on the last."`
}

type anomalyView struct {
	AnomalyID  string    `json:"anomaly_id"`
	Kind       string    `json:"kind" enum:"unusual_purchase_amount,view_spike"`
	ProductID  string    `json:"product_id"`
	Expected   float64   `json:"expected"`
	Observed   float64   `json:"observed"`
	Score      float64   `json:"score" doc:"By how many standard deviations the observed differs from the expected."`
	Message    string    `json:"message"`
	OccurredAt time.Time `json:"occurred_at"`
}

func (a *API) anomalies(ctx context.Context, in *anomaliesInput) (*anomaliesOutput, error) {
	after, ok := placeOf(in.Cursor)
	if !ok {
		return nil, &rest.Problem{Status: http.StatusUnprocessableEntity, Code: "invalid_cursor", Detail: "The cursor is not one of this API.",
			Errors: []rest.Fault{{Location: "query.cursor", Message: "must be the next_cursor of the page before"}}}
	}
	// One row more than requested shows whether there is a next page; the store returns at most MaxRows.
	found, err := a.History.Anomalies(ctx, store.AnomalyQuery{ProductID: in.ProductID, Type: in.Kind, After: after, Limit: min(in.Limit+1, store.MaxRows)})
	if err != nil {
		return nil, a.storeProblem(ctx, err)
	}
	out := &anomaliesOutput{}
	if len(found) > in.Limit || len(found) == store.MaxRows {
		found = found[:min(in.Limit, len(found))]
		out.Body.NextCursor = cursorOf(found[len(found)-1])
	}
	out.Body.Items = make([]anomalyView, len(found))
	for i, f := range found {
		out.Body.Items[i] = anomalyView{f.ID, f.Type, f.ProductID, f.Expected, f.Seen, f.Score, f.Sentence, f.Timestamp}
	}
	return out, nil
}

func cursorOf(last store.Anomaly) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(last.Timestamp.UnixMicro(), 10) + " " + last.ID))
}

// placeOf decodes a cursor; nil is the first page.
func placeOf(cursor string) (place *store.Place, ok bool) {
	if cursor == "" {
		return nil, true
	}
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return nil, false
	}
	at, id, ok := strings.Cut(string(text), " ")
	micros, err := strconv.ParseInt(at, 10, 64)
	last := time.UnixMicro(micros).UTC()
	if !ok || err != nil || id == "" || timestamp.Check(last) != nil {
		return nil, false
	}
	return &store.Place{Timestamp: last, ID: id}, true
}
