package rest_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/sse"

	"waybill/platform/rest"
)

// faultsOf returns a problem's faults by location.
func faultsOf(t *testing.T, content []byte) map[string]string {
	t.Helper()
	var got rest.Problem
	if err := json.Unmarshal(content, &got); err != nil {
		t.Fatalf("%s: %v", content, err)
	}
	faults := map[string]string{}
	for _, f := range got.Errors {
		faults[f.Location] = f.Message
	}
	return faults
}

func TestBodiesAreReadStrictly(t *testing.T) {
	t.Parallel()
	server, _ := newServer(t)
	for _, c := range []struct {
		name, body      string
		status          int
		location, fault string
	}{
		{"a name in another case beside the right one", `{"name":"n","count":1,"NAME":"other"}`, 422, "body.NAME", "unexpected property"},
		{"a name in another case alone", `{"Name":"n","count":1}`, 422, "body.Name", "unexpected property"},
		{"a duplicate name", `{"name":"n","count":1,"count":2}`, 400, "body.count", "must appear once (at byte 22)"},
		{"a duplicate unknown name", `{"name":"n","count":1,"x":{"a":1,"a":2}}`, 400, "body.x.a", "must appear once"},
		{"bytes that are not UTF-8", "{\"name\":\"Stra\xdfe\",\"count\":1}", 400, "body.name", "must be valid UTF-8 (at byte 13)"},
		{"half a surrogate pair", `{"name":"\ud83d","count":1}`, 400, "body.name", "surrogate"},
		{"text after the value", `{"name":"n","count":1} true`, 400, "body", "not valid JSON"},
		{"deep nesting", strings.Repeat("[", 200), 400, "body", "nested more than 100 deep"},
		{"a number out of range", `{"name":"n","count":1e999}`, 400, "body.count", "out of range"},
	} {
		resp, content := send(t, server, http.MethodPost, "/v1/things", "application/json", strings.NewReader(c.body))
		if fault := faultsOf(t, content)[c.location]; resp.StatusCode != c.status || !strings.Contains(fault, c.fault) {
			t.Errorf("%s: %s: %s", c.name, resp.Status, content)
		}
	}
}

func TestAmbiguousURLsAreRejected(t *testing.T) {
	t.Parallel()
	server, _ := newServer(t)
	for path, want := range map[string]struct {
		status          int
		location, fault string
	}{
		"/v1/things/%ff":                   {400, "path", "must be valid UTF-8"},
		"/v1/things/a%00b":                 {400, "path", "must not contain control characters"},
		"/v1/things/1?colour=%ff":          {400, "query.colour", "must be valid UTF-8"},
		"/v1/things/1?colour=%zz":          {400, "query", "must be percent-encoded"},
		"/v1/things/1?colour=a;size=b":     {400, "query", "must be percent-encoded"},
		"/v1/things/1?colour=a%0Ab":        {422, "query.colour", "must not contain control characters"},
		"/v1/things/1?colour=a&colour=b":   {422, "query.colour", "must be given once, got 2"},
		"/v1/things/1?colour=a&colour=a":   {422, "query.colour", "must be given once, got 2"},
		"/v1/things/1?colour=a&%63olour=b": {422, "query.colour", "must be given once, got 2"},
	} {
		resp, content := send(t, server, http.MethodGet, path, "", nil)
		if fault := faultsOf(t, content)[want.location]; resp.StatusCode != want.status || !strings.Contains(fault, want.fault) {
			t.Errorf("%s: %s: %s", path, resp.Status, content)
		}
	}
}

// ask serves one request with exactly these headers.
func ask(t *testing.T, handler http.Handler, method, path string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	r.Header = header
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

// newHandler returns an API whose GET echoes the headers it gets, and a stream that ends with its request.
func newHandler(t *testing.T, origins ...string) http.Handler {
	t.Helper()
	router, api := rest.New(rest.Info{Title: "Things", Version: "1"}, slog.New(slog.DiscardHandler), origins...)
	type seen struct {
		ETag string `header:"ETag"`
		Body map[string]string
	}
	huma.Register(api, huma.Operation{OperationID: "see", Method: http.MethodGet, Path: "/v1/seen"},
		func(_ context.Context, in *struct {
			IfNoneMatch string `header:"If-None-Match"`
			TraceParent string `header:"Traceparent"`
		}) (*seen, error) {
			return &seen{`"1"`, map[string]string{"if_none_match": in.IfNoneMatch, "traceparent": in.TraceParent}}, nil
		})
	sse.Register(api, huma.Operation{OperationID: "watch", Method: http.MethodGet, Path: "/v1/live"}, map[string]any{"seen": seen{}},
		func(ctx context.Context, _ *struct {
			Window string `query:"window" enum:"1m,5m"`
		}, _ sse.Sender) {
			<-ctx.Done()
		})
	subscribe := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "[]") }
	router.Get("/dapr/subscribe", subscribe)
	router.Post("/events/order", subscribe)
	return router
}

func TestAmbiguousHeadersAreRejected(t *testing.T) {
	t.Parallel()
	handler := newHandler(t)
	for _, c := range []struct {
		name   string
		values []string
		status int
		fault  string
	}{
		{"Idempotency-Key", []string{""}, 422, "must not be empty"},
		{"Idempotency-Key", []string{"  "}, 422, "must not be empty"},
		{"Idempotency-Key", []string{"A", "B"}, 422, "must be given once, got 2"},
		{"Idempotency-Key", []string{"A", "A"}, 422, "must be given once, got 2"},
		{"Idempotency-Key", []string{"Stra\xdfe"}, 422, "must be valid UTF-8"},
		{"If-Match", []string{""}, 422, "must not be empty"},
		{"If-None-Match", []string{""}, 422, "must not be empty"},
		{"If-None-Match", []string{`"1"`, ""}, 422, "must not be empty"},
		{"If-None-Match", []string{"\"\u0085\""}, 422, "must not contain control characters"},
		{"Last-Event-Id", []string{"1", "2"}, 422, "must be given once, got 2"},
		{"Content-Type", []string{"application/json", "text/plain"}, 422, "must be given once, got 2"},
		{"Authorization", []string{"a", "b"}, 422, "must be given once, got 2"},
		{"If-None-Match", []string{`"1"`, `"2"`}, 200, ""},
		{"Traceparent", []string{""}, 200, ""},
		{"User-Agent", []string{"Stra\xdfe"}, 200, ""},
	} {
		w := ask(t, handler, http.MethodGet, "/v1/seen", http.Header{c.name: c.values})
		if w.Code != c.status {
			t.Errorf("%s %q: %d %s", c.name, c.values, w.Code, w.Body)
			continue
		}
		if c.status != http.StatusOK {
			found := false
			for location, fault := range faultsOf(t, w.Body.Bytes()) {
				found = found || strings.EqualFold(location, "header."+c.name) && strings.Contains(fault, c.fault)
			}
			if !found {
				t.Errorf("%s %q: %s", c.name, c.values, w.Body)
			}
		}
	}
	w := ask(t, handler, http.MethodGet, "/v1/seen", http.Header{"If-None-Match": {`"1"`, `"2"`}, "Traceparent": {"a", "b"}})
	if got := strings.TrimSpace(w.Body.String()); got != `{"if_none_match":"\"1\", \"2\"","traceparent":""}` {
		t.Errorf("the operation sees %s", got)
	}
}

func TestHeadIsGetWithoutABody(t *testing.T) {
	t.Parallel()
	server, _ := newServer(t)
	for _, path := range []string{"/v1/things/1", "/v1/things/unknown", "/v1/things/1?colour=red", "/openapi.json", "/docs", "/docs/", "/nowhere"} {
		get, _ := send(t, server, http.MethodGet, path, "", nil)
		head, content := send(t, server, http.MethodHead, path, "", nil)
		if head.StatusCode != get.StatusCode || len(content) > 0 {
			t.Errorf("HEAD %s: %s %q; GET: %s", path, head.Status, content, get.Status)
		}
		for name := range get.Header {
			if name != "Date" && name != "Content-Length" && head.Header.Get(name) != get.Header.Get(name) {
				t.Errorf("HEAD %s: %s is %q, and %q of GET", path, name, head.Header.Get(name), get.Header.Get(name))
			}
		}
	}
	if resp, _ := send(t, server, http.MethodHead, "/v1/things", "", nil); resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "POST, OPTIONS" {
		t.Errorf("HEAD where no GET is: %s, %q", resp.Status, resp.Header.Get("Allow"))
	}
}

func TestHeadOfAStreamAnswersAtOnce(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(newHandler(t))
	defer server.Close()
	server.Client().Timeout = 5 * time.Second
	if resp, _ := send(t, server, http.MethodHead, "/v1/live", "", nil); resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("%s as %q", resp.Status, resp.Header.Get("Content-Type"))
	}
	if resp, _ := send(t, server, http.MethodHead, "/v1/live?window=9m", "", nil); resp.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("with a faulty parameter: %s", resp.Status)
	}
}

func TestOptionsNamesTheMethods(t *testing.T) {
	t.Parallel()
	handler := newHandler(t)
	if w := ask(t, handler, http.MethodOptions, "/v1/seen", nil); w.Code != http.StatusNoContent || w.Header().Get("Allow") != "GET, HEAD, OPTIONS" {
		t.Errorf("%d, %q", w.Code, w.Header().Get("Allow"))
	}
	if w := ask(t, handler, http.MethodOptions, "/nowhere", nil); w.Code != http.StatusNotFound {
		t.Errorf("of nothing: %d", w.Code)
	}
}

func TestBrowsersOfAllowedOrigins(t *testing.T) {
	t.Parallel()
	const shop, other = "https://shop.example.com", "https://other.example.com"
	handler := newHandler(t, shop)
	from := func(origin string) http.Header { return http.Header{"Origin": {origin}} }
	for path, status := range map[string]int{"/v1/seen": 200, "/v1/seen?colour=red": 422, "/nowhere": 404, "/openapi.json": 200} {
		w := ask(t, handler, http.MethodGet, path, from(shop))
		if w.Code != status || w.Header().Get("Access-Control-Allow-Origin") != shop || !slices.Contains(w.Header().Values("Vary"), "Origin") {
			t.Errorf("%s: %d, %v", path, w.Code, w.Header())
		}
		for _, name := range []string{"ETag", "Location", "Retry-After"} {
			if exposed := strings.ToLower(w.Header().Get("Access-Control-Expose-Headers")); !strings.Contains(exposed, strings.ToLower(name)) {
				t.Errorf("%s: %s is not among the exposed headers, %q", path, name, exposed)
			}
		}
		if w := ask(t, handler, http.MethodGet, path, from(other)); w.Code != status || w.Header().Get("Access-Control-Allow-Origin") != "" || !slices.Contains(w.Header().Values("Vary"), "Origin") {
			t.Errorf("%s from another origin: %d, %v", path, w.Code, w.Header())
		}
	}
	preflight := func(origin, path, method, headers string) *httptest.ResponseRecorder {
		return ask(t, handler, http.MethodOptions, path, http.Header{"Origin": {origin}, "Access-Control-Request-Method": {method}, "Access-Control-Request-Headers": {headers}})
	}
	for _, header := range []string{"content-type", "idempotency-key", "if-match", "if-none-match", "last-event-id", "authorization", "traceparent", "content-type,idempotency-key"} {
		w := preflight(shop, "/v1/seen", http.MethodPost, header)
		if sorted := strings.Split(header, ","); w.Code != http.StatusNoContent || w.Header().Get("Access-Control-Allow-Origin") != shop ||
			!strings.Contains(w.Header().Get("Access-Control-Allow-Headers"), sorted[0]) || w.Header().Get("Access-Control-Max-Age") != "600" {
			t.Errorf("preflight with %s: %d, %v", header, w.Code, w.Header())
		}
	}
	for name, w := range map[string]*httptest.ResponseRecorder{
		"another origin": preflight(other, "/v1/seen", http.MethodPost, "content-type"),
		"another header": preflight(shop, "/v1/seen", http.MethodPost, "x-other"),
		"another method": preflight(shop, "/v1/seen", "TRACE", ""),
		"the sidecar's":  preflight(shop, "/events/order", http.MethodPost, ""),
		"a subscription": ask(t, handler, http.MethodGet, "/dapr/subscribe", from(shop)),
		"an event":       ask(t, handler, http.MethodPost, "/events/order", from(shop)),
	} {
		if got := w.Header().Get("Access-Control-Allow-Origin"); got != "" {
			t.Errorf("%s: allowed to %q", name, got)
		}
	}
	if w := ask(t, newHandler(t), http.MethodGet, "/v1/seen", from(shop)); w.Header().Get("Access-Control-Allow-Origin") != "" || w.Header().Get("Vary") != "" {
		t.Errorf("with no origin allowed: %v", w.Header())
	}
}
