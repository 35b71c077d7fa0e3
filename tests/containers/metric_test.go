package containers

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"testing"

	"waybill/tests/internal/client"
)

// awaitCount waits until analytics has counted n, and fails if it counts more.
func awaitCount(ctx context.Context, t *testing.T, metric string, want int) {
	t.Helper()
	query := url.Values{"name": {metric}, "window": {"1h"}}
	for {
		code, _, answer, err := client.Call(ctx, http.MethodGet, waybill.App("analytics").URL+"/v1/analytics/metrics?"+query.Encode(), nil)
		var got struct{ Count int }
		if err == nil && code == http.StatusOK {
			err = json.Unmarshal(answer, &got)
		}
		if err == nil && code == http.StatusOK && got.Count == want {
			return
		}
		if got.Count > want || !client.Wait(ctx, poll) {
			t.Fatalf("%s: %d %s %v, want a count of %d", metric, code, answer, err, want)
		}
	}
}
