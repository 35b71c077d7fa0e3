package local

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

func TestSubscribedAsksTheApp(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /dapr/subscribe", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Dapr-Api-Token") != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `[{"pubsubname":"orderbus","topic":"orders"},{"pubsubname":"orderbus","topic":"orders.orders.dead"},{"pubsubname":"telemetrybus","topic":"analytics-events"}]`)
	})
	app := httptest.NewServer(mux)
	defer app.Close()
	got, err := subscribed(app.URL, "secret", "orderbus")(t.Context())
	if want := []string{"orders", "orders.orders.dead"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	if got, err := subscribed(app.URL, "secret", "telemetrybus")(t.Context()); err != nil || !slices.Equal(got, []string{"analytics-events"}) {
		t.Errorf("on the telemetry bus %v, %v", got, err)
	}
	if _, err := subscribed(app.URL, "wrong", "orderbus")(t.Context()); err == nil {
		t.Error("no error for a wrong token")
	}

	silent := httptest.NewServer(http.NotFoundHandler())
	if got, err := subscribed(silent.URL, "secret", "orderbus")(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("an app that subscribes to nothing: %v, %v", got, err)
	}
	silent.Close()
	if _, err := subscribed(silent.URL, "secret", "orderbus")(t.Context()); err == nil {
		t.Error("no error from an app that does not answer")
	}
}
