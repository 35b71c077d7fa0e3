package rest_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"waybill/platform/rest"
)

type measured struct {
	Count int     `json:"count" maximum:"1000"`
	Large int64   `json:"large,omitempty"`
	Note  string  `json:"note,omitempty"`
	Inner *nested `json:"inner,omitempty"`
}

type nested struct {
	Name string `json:"name,omitempty"`
}

// measuring returns an API that echoes its input.
func measuring(t *testing.T) *httptest.Server {
	t.Helper()
	router, api := rest.New(rest.Info{Title: "Measures", Version: "1"}, slog.New(slog.DiscardHandler))
	huma.Register(api, huma.Operation{OperationID: "measure", Method: http.MethodPost, Path: "/v1/measures", Errors: []int{http.StatusServiceUnavailable}},
		func(_ context.Context, in *struct{ Body measured }) (*struct{ Body measured }, error) {
			return &struct{ Body measured }{in.Body}, nil
		})
	huma.Register(api, huma.Operation{OperationID: "list-measures", Method: http.MethodGet, Path: "/v1/measures"},
		func(_ context.Context, in *struct {
			State string `query:"state" enum:"open,closed"`
			Limit int    `query:"limit" minimum:"1" default:"20"`
			Text  string `query:"text"`
		},
		) (*struct{ Body map[string]any }, error) {
			return &struct{ Body map[string]any }{map[string]any{"limit": in.Limit}}, nil
		})
	server := httptest.NewServer(router)
	t.Cleanup(server.Close)
	return server
}

func answered(t *testing.T, server *httptest.Server, method, path, body string) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	read, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(read)
}

// In JSON Schema, 10.0 and 1e1 are integers, so the API accepts them, without loss.
func TestIntegersInEveryForm(t *testing.T) {
	t.Parallel()
	server := measuring(t)
	for body, want := range map[string]string{
		`{"count":10.0}`: `"count":10`, `{"count":1e1}`: `"count":10`, `{"count":1.0E+2}`: `"count":100`, `{"count":100e-1}`: `"count":10`,
		`{"count":1,"large":9.223372036854775807e18}`: `"large":9223372036854775807`,
		`{"count":1,"note":"10.0 and 1e1"}`:           `"note":"10.0 and 1e1"`,
	} {
		if status, text := answered(t, server, http.MethodPost, "/v1/measures", body); status != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("%s is answered %d %s, want %s", body, status, text, want)
		}
	}
	for _, body := range []string{`{"count":10.5}`, `{"count":1e-1}`, `{"count":1e4}`, `{"count":1,"large":9.3e18}`, `{"count":1,"large":1e999}`} {
		if status, text := answered(t, server, http.MethodPost, "/v1/measures", body); status < 400 || status >= 500 {
			t.Errorf("%s is answered %d %s", body, status, text)
		}
	}
}

// A null member differs from a missing one. The schema does not allow null, so the API rejects it with its location.
func TestNullIsRejected(t *testing.T) {
	t.Parallel()
	server := measuring(t)
	for body, place := range map[string]string{
		`{"count":null}`: "body.count", `{"count":1,"note":null}`: "body.note", `{"count":1,"inner":null}`: "body.inner",
		`{"count":1,"inner":{"name":null}}`: "body.inner.name", `null`: "body",
	} {
		status, text := answered(t, server, http.MethodPost, "/v1/measures", body)
		if status != http.StatusUnprocessableEntity || !strings.Contains(text, `"location":"`+place+`"`) {
			t.Errorf("%s is answered %d %s, want 422 for %s", body, status, text, place)
		}
	}
}

func TestEmptyParameterIsRejected(t *testing.T) {
	t.Parallel()
	server := measuring(t)
	for query, place := range map[string]string{"state=": "query.state", "limit=": "query.limit", "text=": "query.text", "text": "query.text", "limit=5&state=": "query.state"} {
		status, text := answered(t, server, http.MethodGet, "/v1/measures?"+query, "")
		if status != http.StatusUnprocessableEntity || !strings.Contains(text, place) {
			t.Errorf("?%s is answered %d %s, want 422 for %s", query, status, text, place)
		}
	}
	if status, text := answered(t, server, http.MethodGet, "/v1/measures?limit=5&state=open&text=x", ""); status != http.StatusOK {
		t.Errorf("with values: %d %s", status, text)
	}
}

// The description of every operation has the problems that such a request can return.
func TestEveryProblemIsDescribed(t *testing.T) {
	t.Parallel()
	server := measuring(t)
	_, text := answered(t, server, http.MethodGet, "/openapi.json", "")
	var doc struct {
		Paths map[string]map[string]struct {
			Parameters []struct {
				Name   string
				Schema struct {
					MinLength int `json:"minLength"`
				}
			}
			Responses map[string]struct {
				Content map[string]struct {
					Schema struct {
						Ref string `json:"$ref"`
					}
				}
				Headers map[string]any
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	for method, statuses := range map[string][]string{"post": {"400", "408", "413", "415", "422", "500", "503"}, "get": {"400", "422", "500"}} {
		responses := doc.Paths["/v1/measures"][method].Responses
		for _, status := range statuses {
			if ref := responses[status].Content["application/problem+json"].Schema.Ref; ref != "#/components/schemas/Problem" {
				t.Errorf("%s %s is described by %q", method, status, ref)
			}
		}
		if responses["default"].Content != nil {
			t.Errorf("%s has a default answer", method)
		}
	}
	if doc.Paths["/v1/measures"]["post"].Responses["503"].Headers["Retry-After"] == nil {
		t.Error("503 has no Retry-After")
	}
	for _, p := range doc.Paths["/v1/measures"]["get"].Parameters {
		if p.Name == "text" && p.Schema.MinLength != 1 {
			t.Error("text may be empty")
		}
	}
}
