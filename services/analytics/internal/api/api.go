// Package api is the REST API of this service: it accepts events, answers queries, and streams live metrics. It turns errors
// into problems, and knows neither the bus nor the database.
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

	"waybill/platform/rest"
	"waybill/platform/retryable"
	"waybill/services/analytics/internal/anomaly"
	"waybill/services/analytics/internal/event"
	"waybill/services/analytics/internal/ingest"
	"waybill/services/analytics/internal/metric"
	"waybill/services/analytics/internal/store"
)

// Publisher publishes the events that clients send. It returns nil when the broker has all of them.
type Publisher interface {
	Publish(ctx context.Context, events []event.Event) error
}

// Live has the live metrics.
type Live interface {
	Statistics(name string, w metric.Window) metric.Statistics
	Watch() (found <-chan anomaly.Anomaly, stop func())
}

// History has what is stored.
type History interface {
	Series(ctx context.Context, q store.SeriesQuery) ([]store.Metric, error)
	TopProducts(ctx context.Context, q store.TopQuery) ([]store.Product, error)
	Anomalies(ctx context.Context, q store.AnomalyQuery) ([]store.Anomaly, error)
}

// API answers the requests.
type API struct {
	Publisher Publisher
	Live      Live
	History   History
	// MaxAhead is how far in the future the time of an event may be when the event arrives.
	MaxAhead time.Duration
	// PublishTimeout is how long a client waits until the broker has its events.
	PublishTimeout time.Duration
	// LiveInterval is how often a live stream sends metrics, MaxLiveStreams how many streams can be open.
	LiveInterval   time.Duration
	MaxLiveStreams int
	// Stopping is closed when the service stops, and ends live streams.
	Stopping <-chan struct{}
	Logger   *slog.Logger

	liveStreams chan struct{} // a semaphore with one place for each live stream
}

// version is the version of this API. It changes when the API does, and not with the data version of the events.
const version = "1.0"

// Info describes the API.
func Info() rest.Info {
	return rest.Info{
		Title: "Waybill analytics", Version: version,
		Description: "What customers look at and buy: events are taken, counted once in sliding windows, and kept; what is unusual is found.",
	}
}

// Mount adds the routes. Those that accept events go to the router itself, because huma cannot stream a request body.
func (a *API) Mount(router chi.Router, surface huma.API) {
	a.liveStreams = make(chan struct{}, a.MaxLiveStreams)
	a.mountSend(router, surface)
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
		Errors:      []int{422, 503}, Middlewares: huma.Middlewares{a.limitStreams},
	}, map[string]any{"metrics": liveMetrics{}, "anomaly": anomalyView{}}, a.watch)
	describe(surface.OpenAPI())
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
		a.Logger.WarnContext(ctx, "events were not accepted; the client gets an error", slog.Any("error", err))
		return &rest.Problem{Status: http.StatusServiceUnavailable, Code: "unavailable", RetryAfter: retryAfter,
			Detail: "Events cannot be passed on at the moment, and it is not known which of these were. Send all of them again: an event_id is counted once."}
	default:
		return rest.Failed(ctx, a.Logger, err)
	}
}

// stored turns an error of the store into an answer: whatever it is, it is not the client's, whose values were checked.
func (a *API) storeProblem(ctx context.Context, err error) error {
	return rest.Failed(ctx, a.Logger, store.Failed(err))
}
