package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/danielgtaylor/huma/v2/sse"

	"waybill/platform/rest"
)

type liveInput struct {
	Window string   `query:"window" enum:"1m,5m,1h" default:"1m"`
	Names  []string `query:"names" maxItems:"50" doc:"The metrics to send; the totals when not given." example:"total_views,views_PROD-001"`
}

type liveMetrics struct {
	At      time.Time    `json:"at"`
	Metrics []metricView `json:"metrics" nullable:"false"`
}

// Resolve refuses unknown metrics before the stream begins.
func (in *liveInput) Resolve(huma.Context) []error {
	for _, name := range in.Names {
		if !known(name) {
			return []error{&huma.ErrorDetail{Location: "query.names", Message: "must be some of " + metricNames, Value: name}}
		}
	}
	return nil
}

// limitStreams bounds the number of open streams, because each one costs time at every interval.
func (a *API) limitStreams(ctx huma.Context, next func(huma.Context)) {
	select {
	case a.liveStreams <- struct{}{}:
		defer func() { <-a.liveStreams }()
		next(ctx)
	default:
		r, w := humachi.Unwrap(ctx)
		rest.Write(w, r, &rest.Problem{Status: http.StatusServiceUnavailable, Code: "too_many_streams", RetryAfter: 10,
			Detail: "As many live streams as there may be are open."})
	}
}

// watch sends metrics and anomalies until the client disconnects or the service stops.
func (a *API) watch(ctx context.Context, in *liveInput, send sse.Sender) {
	names := in.Names
	if len(names) == 0 {
		names = []string{"total_views", "total_purchases", "total_revenue"}
	}
	found, stop := a.Live.Watch()
	defer stop()
	tick := time.NewTicker(a.LiveInterval)
	defer tick.Stop()
	w := window(in.Window)
	for {
		now := liveMetrics{At: time.Now().UTC(), Metrics: make([]metricView, len(names))}
		for i, name := range names {
			now.Metrics[i] = viewOf(a.Live.Statistics(name, w))
		}
		if send.Data(now) != nil {
			return
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return
			case <-a.Stopping:
				return
			case f := <-found:
				if send.Data(anomalyView{f.ID, f.Kind, f.Product, f.Expected, f.Seen, f.Score, f.Sentence, f.At}) != nil {
					return
				}
			case <-tick.C:
				waiting = false
			}
		}
	}
}
