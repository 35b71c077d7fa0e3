// Package api is this service's edge: the events that clients send and the bus delivers, and the queries. It turns what comes
// in into calls of what main gives it, and errors into problems. It knows neither broker nor store.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/sse"
	"github.com/go-chi/chi/v5"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/platform/rest"
	"waybill/platform/retryable"
	"waybill/services/analytics/internal/anomaly"
	"waybill/services/analytics/internal/ingest"
	"waybill/services/analytics/internal/metric"
	"waybill/services/analytics/internal/store"
)

// Source is the CloudEvents source of the anomalies that this service publishes. Events have sources of their own.
const Source = "/waybill/analytics"

// Ingest takes events over; it returns nil when the broker has all of them.
type Ingest interface {
	Add(ctx context.Context, events []eventing.Event) error
}

// Windows are the live metrics.
type Windows interface {
	Handle(ctx context.Context, events []eventing.Event) []error
	Statistics(name string, w metric.Window) metric.Statistics
	Watch() (found <-chan anomaly.Anomaly, stop func())
}

// History is what was stored.
type History interface {
	Series(ctx context.Context, q store.SeriesQuery) ([]store.Metric, error)
	TopProducts(ctx context.Context, q store.TopQuery) ([]store.Product, error)
	Anomalies(ctx context.Context, q store.AnomalyQuery) ([]store.Anomaly, error)
}

// Delivery is how events are delivered by the bus: so many together, or after so long.
type Delivery struct {
	Together int
	Await    time.Duration
}

// API is what the routes stand on.
type API struct {
	Ingest  Ingest
	Windows Windows
	History History
	// MaxAhead is how far in the future an event may lie when it arrives, Wait how long a client's events may wait for the
	// broker.
	MaxAhead, Wait time.Duration
	Delivery       Delivery
	// LiveInterval is how often a live stream sends metrics, LiveStreams how many there may be at a time.
	LiveInterval time.Duration
	LiveStreams  int
	// Stopping is closed when the service stops, and ends live streams.
	Stopping <-chan struct{}
	Logger   *slog.Logger

	streams chan struct{} // has a place for each live stream
}

// Info describes the API.
func Info() rest.Info {
	return rest.Info{
		Title: "Waybill analytics", Version: contracts.Version,
		Description: "What customers look at and buy: events are taken, counted once in sliding windows, and kept; what is unusual is found.",
	}
}

// Mount adds the REST routes: those of the surface, and on the router those that take events, whose bodies are streams.
func (a *API) Mount(router chi.Router, surface huma.API) {
	a.streams = make(chan struct{}, a.LiveStreams)
	a.mountTake(router, surface)
	huma.Register(surface, huma.Operation{
		OperationID: "get-metric", Method: http.MethodGet, Path: "/v1/analytics/metrics", Tags: []string{"metrics"},
		Summary:     "One metric in one window",
		Description: "The window ends now. Metrics are " + metricNames + ". Counts, sums, least and greatest are exact, quantiles within 1 %. A metric to which nothing happened in the window has a count of 0.",
		Errors:      []int{422},
	}, a.metric)
	huma.Register(surface, huma.Operation{
		OperationID: "list-top-products", Method: http.MethodGet, Path: "/v1/analytics/top", Tags: []string{"metrics"},
		Summary: "The products that did best", Description: "In the window that ends now, best first.", Errors: []int{422, 503},
	}, a.top)
	huma.Register(surface, huma.Operation{
		OperationID: "get-series", Method: http.MethodGet, Path: "/v1/analytics/series", Tags: []string{"metrics"},
		Summary:     "A metric over time",
		Description: "One point for each window that ended in the range and in which something happened, oldest first; of more than limit the newest. Points of 1m are a minute apart, those of 5m and 1h five minutes. Sessions have no series.",
		Errors:      []int{422, 503},
	}, a.series)
	huma.Register(surface, huma.Operation{
		OperationID: "list-anomalies", Method: http.MethodGet, Path: "/v1/analytics/anomalies", Tags: []string{"anomalies"},
		Summary: "What was unusual", Description: "Newest first.", Errors: []int{422, 503},
	}, a.anomalies)
	sse.Register(surface, huma.Operation{
		OperationID: "watch-metrics", Method: http.MethodGet, Path: "/v1/analytics/live", Tags: []string{"metrics"},
		Summary:     "Metrics as they change",
		Description: "Server-sent events: metrics at every interval, anomaly when one is found. A client that connects again misses nothing but the moments between.",
		Errors:      []int{422, 503}, Middlewares: huma.Middlewares{a.admit},
	}, map[string]any{"metrics": liveMetrics{}, "anomaly": anomalyView{}}, a.live)
	describe(surface.OpenAPI())
}

// Subscriptions are the events that this service takes.
func (a *API) Subscriptions() []eventing.Subscription {
	return []eventing.Subscription{
		a.subscription(contracts.AnalyticsReadsEvents, a.Windows.Handle),
		a.subscription(contracts.AnalyticsReadsOrders, a.fulfilled),
	}
}

func (a *API) subscription(s contracts.Subscription, handle eventing.BulkHandler) eventing.Subscription {
	return eventing.Subscription{
		Component: contracts.Bus(s.Topic), Topic: s.Topic, DeadLetter: s.DeadLetter(),
		Sessions: contracts.Bus(s.Topic) == contracts.OrderBus,
		Bulk:     &eventing.Bulk{MaxMessages: a.Delivery.Together, MaxAwait: a.Delivery.Await, Handle: handle},
	}
}

// retryAfter is when a client shall try again, in seconds.
const retryAfter = 1

// problem is the one place where errors become answers.
func (a *API) problem(ctx context.Context, err error) *rest.Problem {
	switch {
	case errors.Is(err, ingest.ErrFull):
		return &rest.Problem{Status: http.StatusServiceUnavailable, Code: "buffer_full", RetryAfter: retryAfter,
			Detail: "More events come in than can be passed on at the moment. Send these again later: an event_id is counted once."}
	case retryable.Is(err):
		a.Logger.WarnContext(ctx, "events were not taken", slog.Any("error", err))
		return &rest.Problem{Status: http.StatusServiceUnavailable, Code: "unavailable", RetryAfter: retryAfter,
			Detail: "Events cannot be passed on at the moment, and it is not known which of these were. Send all of them again: an event_id is counted once."}
	default:
		return rest.Failed(ctx, a.Logger, err)
	}
}

// stored turns an error of the store into an answer: whatever it is, it is not the client's, whose values were checked.
func (a *API) stored(ctx context.Context, err error) error {
	return rest.Failed(ctx, a.Logger, store.Failed(err))
}
