package rest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"waybill/platform/rest"
	"waybill/platform/retryable"
)

// spans records the spans of all tests in this package.
var spans = tracetest.NewInMemoryExporter()

func TestMain(m *testing.M) {
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)))
	os.Exit(m.Run())
}

type thing struct {
	Name  string `json:"name" minLength:"1" maxLength:"2000"`
	Count int    `json:"count" minimum:"1"`
}

// log is a buffer that is safe for concurrent use.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// newServer returns an API with one resource. The id selects how its GET fails.
func newServer(t *testing.T) (*httptest.Server, *log) {
	t.Helper()
	var written log
	logger := slog.New(slog.NewJSONHandler(&written, nil))
	router, api := rest.New(rest.Info{Title: "Things", Version: "1", Description: "Things."}, logger)
	huma.Register(api, huma.Operation{OperationID: "create-thing", Method: http.MethodPost, Path: "/v1/things", DefaultStatus: http.StatusAccepted},
		func(_ context.Context, in *struct{ Body thing }) (*struct{ Body thing }, error) {
			return &struct{ Body thing }{in.Body}, nil
		})
	huma.Register(api, huma.Operation{OperationID: "get-thing", Method: http.MethodGet, Path: "/v1/things/{id}", Errors: []int{http.StatusNotFound}},
		func(ctx context.Context, in *struct {
			ID string `path:"id"`
		}) (*struct{ Body thing }, error) {
			inner := errors.New("password of the database")
			switch in.ID {
			case "unknown":
				return nil, fmt.Errorf("get: %w", &rest.Problem{Status: http.StatusNotFound, Code: "no_such_thing", Detail: "There is no such thing."})
			case "away":
				return nil, rest.Failed(ctx, logger, retryable.Mark(inner))
			case "broken":
				return nil, rest.Failed(ctx, logger, inner)
			case "bare":
				return nil, inner
			case "panic":
				panic(inner)
			}
			return &struct{ Body thing }{thing{Name: in.ID, Count: 1}}, nil
		})
	router.Get("/half", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half an")
		panic("in the middle")
	})
	server := httptest.NewServer(router)
	t.Cleanup(server.Close)
	return server, &written
}

// answer is a response without its body, which send has read.
type answer struct {
	StatusCode int
	Status     string
	Header     http.Header
	URL        *url.URL
}

func send(t *testing.T, server *httptest.Server, method, path, contentType string, body io.Reader) (answer, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Status, resp.Header, resp.Request.URL}, content
}

func TestProblems(t *testing.T) {
	t.Parallel()
	server, written := newServer(t)
	large := `{"name":"` + strings.Repeat("x", rest.MaxBody) + `","count":1}`
	const asJSON = "application/json"
	for _, c := range []struct {
		name, method, path, contentType, body string
		status                                int
		code                                  string
		header                                map[string]string
		faults                                []string
	}{
		{"no route", "GET", "/v1/nothing", "", "", 404, "no_such_route", nil, nil},
		{"no method", "DELETE", "/v1/things", "", "", 405, "method_not_allowed", map[string]string{"Allow": "POST, OPTIONS"}, nil},
		{"no method, with a parameter", "PUT", "/v1/things/1", "", "", 405, "method_not_allowed", map[string]string{"Allow": "GET, HEAD, OPTIONS"}, nil},
		{"a problem", "GET", "/v1/things/unknown", "", "", 404, "no_such_thing", nil, nil},
		{"a retryable failure", "GET", "/v1/things/away", "", "", 503, "unavailable", map[string]string{"Retry-After": "1"}, nil},
		{"a failure", "GET", "/v1/things/broken", "", "", 500, "internal", map[string]string{"Retry-After": ""}, nil},
		{"an error that is not a Problem", "GET", "/v1/things/bare", "", "", 500, "internal", nil, nil},
		{"a panic", "GET", "/v1/things/panic", "", "", 500, "internal", nil, nil},
		{"an unknown query parameter", "GET", "/v1/things/1?colour=red", "", "", 422, "invalid_request", nil, []string{"query.colour"}},
		{"every fault", "POST", "/v1/things", asJSON, `{"name":"","count":0,"colour":"red"}`, 422, "invalid_request", nil,
			[]string{"body.colour", "body.count", "body.name"}},
		{"wrong types", "POST", "/v1/things", asJSON, `{"name":7,"count":"many"}`, 422, "invalid_request", nil, []string{"body.count", "body.name"}},
		{"missing properties", "POST", "/v1/things", asJSON, `{}`, 422, "invalid_request", nil, []string{"body.count", "body.name"}},
		{"no JSON", "POST", "/v1/things", asJSON, `secret text`, 400, "malformed_request", nil, []string{"body"}},
		{"half JSON", "POST", "/v1/things", asJSON, `{"name":"secret text`, 400, "malformed_request", nil, []string{"body.name"}},
		{"no body", "POST", "/v1/things", asJSON, ``, 400, "malformed_request", nil, nil},
		{"another media type", "POST", "/v1/things", "text/plain", `{"name":"n","count":1}`, 415, "unsupported_media_type", nil, []string{"body"}},
		{"too large", "POST", "/v1/things", asJSON, large, 413, "body_too_large", nil, nil},
		{"too large, length unknown", "POST", "/v1/things", asJSON, large, 413, "body_too_large", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var body io.Reader
			if c.body != "" {
				body = strings.NewReader(c.body)
			}
			if strings.Contains(c.name, "length unknown") {
				body = struct{ io.Reader }{body} // hides the length from net/http
			}
			resp, content := send(t, server, c.method, c.path, c.contentType, body)
			if resp.StatusCode != c.status || resp.Header.Get("Content-Type") != "application/problem+json" {
				t.Fatalf("answered %s as %s: %s", resp.Status, resp.Header.Get("Content-Type"), content)
			}
			for name, want := range c.header {
				if got := resp.Header.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			var got rest.Problem
			decoder := json.NewDecoder(bytes.NewReader(content))
			decoder.DisallowUnknownFields() // $schema among them
			if err := decoder.Decode(&got); err != nil {
				t.Fatalf("%s: %v", content, err)
			}
			if got.Status != c.status || got.Code != c.code || got.Title != http.StatusText(c.status) {
				t.Errorf("the problem is %s", content)
			}
			if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(got.TraceID) {
				t.Errorf("the trace id is %q", got.TraceID)
			}
			faults := make([]string, 0, len(got.Errors))
			for _, f := range got.Errors {
				faults = append(faults, f.Location)
				if f.Message == "" {
					t.Errorf("the fault at %s says nothing", f.Location)
				}
			}
			slices.Sort(faults)
			if diff := cmp.Diff(c.faults, faults, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("the faults differ (-want +got):\n%s", diff)
			}
			if strings.Contains(string(content), "password") || strings.Contains(string(content), "secret") || len(content) > 2000 {
				t.Errorf("the problem reveals too much: %.2000s", content)
			}
			if c.status == 500 || c.status == 503 {
				if log := written.String(); !strings.Contains(log, "password") {
					t.Errorf("the cause is not in the log: %s", log)
				}
			}
		})
	}
}

func TestValuesOfFaults(t *testing.T) {
	t.Parallel()
	server, _ := newServer(t)
	_, content := send(t, server, "POST", "/v1/things", "application/json",
		strings.NewReader(`{"name":{"secret":"text"},"count":0,"colour":"`+strings.Repeat("secret", 100)+`"}`))
	var got rest.Problem
	if err := json.Unmarshal(content, &got); err != nil {
		t.Fatal(err)
	}
	values := map[string]any{}
	for _, f := range got.Errors {
		values[f.Location] = f.Value
	}
	if diff := cmp.Diff(map[string]any{"body.name": nil, "body.count": 0.0, "body.colour": nil}, values); diff != "" {
		t.Errorf("the repeated values differ (-want +got):\n%s", diff)
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	server, _ := newServer(t)
	for _, contentType := range []string{"application/json", "application/json; charset=utf-8", ""} {
		resp, content := send(t, server, "POST", "/v1/things", contentType, strings.NewReader(`{"name":"n","count":1}`))
		if resp.StatusCode != http.StatusAccepted || strings.TrimSpace(string(content)) != `{"name":"n","count":1}` {
			t.Errorf("sent as %q it is answered %s: %s", contentType, resp.Status, content)
		}
		if link := resp.Header.Get("Link"); link != "" {
			t.Errorf("there is a link to %s", link)
		}
	}
}

func TestPanicDuringTheResponseClosesTheConnection(t *testing.T) {
	t.Parallel()
	server, _ := newServer(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/half", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := server.Client().Do(req)
	if err != nil {
		return // cut before anything was sent
	}
	defer resp.Body.Close()
	if content, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("the response looks complete: %q", content)
	}
}

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	server, _ := newServer(t)
	resp, content := send(t, server, "GET", "/openapi.json", "", nil)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("answered %s", resp.Status)
	}
	var doc struct {
		OpenAPI string `json:"openapi"`
		Paths   map[string]map[string]struct {
			Responses map[string]struct {
				Content map[string]struct {
					Schema struct {
						Ref string `json:"$ref"`
					} `json:"schema"`
				} `json:"content"`
			} `json:"responses"`
		} `json:"paths"`
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any `json:"properties"`
			} `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(content, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("it is OpenAPI %s", doc.OpenAPI)
	}
	for status, operation := range map[string]string{"404": "/v1/things/{id}", "422": "/v1/things/{id}", "500": "/v1/things/{id}"} {
		got := doc.Paths[operation]["get"].Responses[status].Content["application/problem+json"].Schema.Ref
		if got != "#/components/schemas/Problem" {
			t.Errorf("a %s of %s is described by %q", status, operation, got)
		}
	}
	for _, property := range []string{"title", "status", "detail", "code", "trace_id", "errors"} {
		if _, ok := doc.Components.Schemas["Problem"].Properties[property]; !ok {
			t.Errorf("the description of a problem lacks %s", property)
		}
	}
	if strings.Contains(string(content), "ErrorModel") || strings.Contains(string(content), "$schema") {
		t.Error("the document describes schemas that are never sent")
	}
}

// references are what a page or a style sheet makes a browser load.
var references = regexp.MustCompile(`(?:src|href)\s*=\s*["']([^"']+)["']|url\(["']?([^"')]+)["']?\)|@import\s+["']([^"']+)["']`)

func TestDocsLoadNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	server, _ := newServer(t)
	host, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"/docs", "/docs/"} {
		resp, content := send(t, server, "GET", page, "", nil)
		if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
			t.Fatalf("%s is answered %s as %s", page, resp.Status, resp.Header.Get("Content-Type"))
		}
		if !bytes.Contains(content, []byte(`/openapi.json`)) || !regexp.MustCompile(`validatorUrl"?:\s*null`).Match(content) {
			t.Errorf("%s does not show /openapi.json, or asks a public validator about it", page)
		}
		found := references.FindAllSubmatch(content, -1)
		if len(found) < 3 {
			t.Fatalf("%s refers to %d files only", page, len(found))
		}
		for _, match := range found {
			ref := string(bytes.Join(match[1:], nil))
			if strings.HasPrefix(ref, "data:") {
				continue
			}
			target, err := resp.URL.Parse(ref)
			if err != nil || target.Host != host.Host {
				t.Errorf("%s loads %s: %v", page, ref, err)
				continue
			}
			loaded, asset := send(t, server, "GET", target.Path, "", nil)
			if loaded.StatusCode != http.StatusOK || len(asset) == 0 {
				t.Errorf("%s loads %s, which is answered %s", page, ref, loaded.Status)
			}
			if strings.HasSuffix(target.Path, ".css") {
				for _, inner := range references.FindAllSubmatch(asset, -1) {
					if ref := string(bytes.Join(inner[1:], nil)); !strings.HasPrefix(ref, "data:") && !strings.HasPrefix(ref, "#") {
						t.Errorf("the style sheet loads %s", ref)
					}
				}
			}
		}
	}
}

func TestSpans(t *testing.T) {
	// Not parallel: it reads the spans of all tests.
	server, _ := newServer(t)
	spans.Reset()
	for _, path := range []string{"/v1/things/1", "/openapi.json", "/docs"} {
		send(t, server, "GET", path, "", nil)
	}
	recorded := spans.GetSpans()
	names := make([]string, 0, len(recorded))
	for _, span := range recorded {
		names = append(names, span.Name)
	}
	if diff := cmp.Diff([]string{"GET /v1/things/{id}"}, names); diff != "" {
		t.Errorf("the spans differ (-want +got):\n%s", diff)
	}
}
