package servicetest

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// shopOrigin is an allowed origin of the service: the caller of Surface starts it with CORS.
const shopOrigin = "https://shop.example.com"

// CORS is the setting that Surface requires.
const CORS = "CORS_ORIGINS=" + shopOrigin

// description is the part of a service's OpenAPI that Surface reads.
type description struct {
	Paths      map[string]map[string]operation `json:"paths"`
	Components struct {
		Schemas map[string]schema `json:"schemas"`
	} `json:"components"`
}

type operation struct {
	RequestBody struct {
		Content map[string]struct {
			Schema schema `json:"schema"`
		} `json:"content"`
	} `json:"requestBody"`
}

type schema struct {
	Ref        string         `json:"$ref"`
	Properties map[string]any `json:"properties"` // a property may be described by true or false
	OneOf      []schema       `json:"oneOf"`
}

// member is the name of a member of the operation's JSON body, or ~ if it has none.
func (d description) member(o operation) string {
	s := o.RequestBody.Content["application/json"].Schema
	for s.Ref != "" || len(s.OneOf) > 0 {
		if len(s.OneOf) > 0 {
			s = s.OneOf[0]
			continue
		}
		s = d.Components.Schemas[s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]]
	}
	return slices.Min(append(slices.Collect(maps.Keys(s.Properties)), "~"))
}

// Surface checks, for every route in the service's OpenAPI and those that every service has, the rules that hold for all routes: how
// JSON, paths and headers are decoded, HEAD, OPTIONS, and requests from browsers.
func (s *Service) Surface(t *testing.T) {
	t.Helper()
	var d description
	_, content := s.ask(t, http.MethodGet, "/openapi.json", "", nil)
	if err := json.Unmarshal([]byte(content), &d); err != nil || len(d.Paths) == 0 {
		t.Fatalf("%d paths: %v", len(d.Paths), err)
	}
	d.Paths["/healthz"] = map[string]operation{"get": {}}
	d.Paths["/readyz"] = map[string]operation{"get": {}}
	d.Paths["/openapi.json"] = map[string]operation{"get": {}}
	d.Paths["/docs"] = map[string]operation{"get": {}}
	// Without a sidecar some routes need seconds to answer.
	var walking sync.WaitGroup
	for template, operations := range d.Paths {
		path := regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(template, "A-1")
		walking.Go(func() { s.route(t, path, operations) })
		for method, operation := range operations {
			if len(operation.RequestBody.Content) > 0 {
				walking.Go(func() { s.body(t, strings.ToUpper(method), path, d.member(operation)) })
			}
		}
	}
	walking.Wait()
}

// head is an answer without its body.
type head struct {
	StatusCode int
	Status     string
	Header     http.Header
}

// ask sends a request and reads the answer, except that of a stream.
func (s *Service) ask(t *testing.T, method, path, body string, header http.Header) (head, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return head{}, ""
	}
	maps.Copy(req.Header, header)
	resp, err := client.Do(req)
	if err != nil {
		t.Errorf("%s %s: %v", method, path, err)
		return head{}, ""
	}
	defer func() { _ = resp.Body.Close() }() // the answer was read, or is not needed
	if method == http.MethodGet && resp.Header.Get("Content-Type") == "text/event-stream" {
		return head{resp.StatusCode, resp.Status, resp.Header}, ""
	}
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("%s %s: %v", method, path, err)
	}
	return head{resp.StatusCode, resp.Status, resp.Header}, string(content)
}

// route checks the rules that do not depend on a body.
func (s *Service) route(t *testing.T, path string, operations map[string]operation) {
	t.Helper()
	for method := range operations {
		method = strings.ToUpper(method)
		for _, c := range []struct {
			path   string
			header http.Header
			status int
			where  string
		}{
			{path + "?limit=1&limit=2", nil, 422, `"query.limit"`},
			{path + "?limit=%ff", nil, 400, `"query.limit"`},
			{path + "?limit=%zz", nil, 400, `"query"`},
			{path, http.Header{"Idempotency-Key": {""}}, 422, `"header.Idempotency-Key"`},
			{path, http.Header{"Idempotency-Key": {"A", "B"}}, 422, `"header.Idempotency-Key"`},
			{path, http.Header{"If-Match": {""}}, 422, `"header.If-Match"`},
			{path, http.Header{"If-None-Match": {""}}, 422, `"header.If-None-Match"`},
			{path, http.Header{"Content-Type": {"application/json", "text/plain"}}, 422, `"header.Content-Type"`},
		} {
			if resp, content := s.ask(t, method, c.path, "{}", c.header); resp.StatusCode != c.status || !strings.Contains(content, c.where) {
				t.Errorf("%s %s with %v: %s %s", method, c.path, c.header, resp.Status, content)
			}
		}
	}
	if strings.Contains(path, "A-1") {
		for method := range operations {
			for _, id := range []string{"%ff", "A%00B", "A%0AB"} {
				if resp, content := s.ask(t, strings.ToUpper(method), strings.Replace(path, "A-1", id, 1), "{}", nil); resp.StatusCode != http.StatusBadRequest {
					t.Errorf("%s %s with the id %s: %s %s", method, path, id, resp.Status, content)
				}
			}
		}
	}
	resp, _ := s.ask(t, http.MethodOptions, path, "", nil)
	allow := strings.Split(resp.Header.Get("Allow"), ", ")
	for method := range operations {
		if !slices.Contains(allow, strings.ToUpper(method)) {
			t.Errorf("OPTIONS %s: %s, Allow is %q", path, resp.Status, allow)
		}
	}
	resp, _ = s.ask(t, http.MethodOptions, path, "", http.Header{
		"Origin": {shopOrigin}, "Access-Control-Request-Method": {http.MethodPut}, "Access-Control-Request-Headers": {"content-type,idempotency-key,if-match"},
	})
	if resp.StatusCode != http.StatusNoContent || resp.Header.Get("Access-Control-Allow-Origin") != shopOrigin {
		t.Errorf("preflight of %s: %s, %v", path, resp.Status, resp.Header)
	}
	if _, ok := operations["get"]; ok {
		s.head(t, path, allow)
	}
}

func (s *Service) head(t *testing.T, path string, allow []string) {
	t.Helper()
	if !slices.Contains(allow, http.MethodHead) {
		t.Errorf("%s: HEAD is not among %q", path, allow)
	}
	from := http.Header{"Origin": {shopOrigin}}
	get, _ := s.ask(t, http.MethodGet, path, "", from)
	head, content := s.ask(t, http.MethodHead, path, "", from)
	if head.StatusCode != get.StatusCode || content != "" {
		t.Errorf("HEAD %s: %s %q; GET: %s", path, head.Status, content, get.Status)
	}
	for name := range get.Header {
		if name != "Date" && name != "Content-Length" && head.Header.Get(name) != get.Header.Get(name) {
			t.Errorf("HEAD %s: %s is %q, and %q of GET", path, name, head.Header.Get(name), get.Header.Get(name))
		}
	}
	if get.Header.Get("Access-Control-Allow-Origin") != shopOrigin || !strings.Contains(get.Header.Get("Access-Control-Expose-Headers"), "Etag") {
		t.Errorf("GET %s from an allowed origin: %v", path, get.Header)
	}
}

// body checks how a JSON body is decoded. Its object may have the member.
func (s *Service) body(t *testing.T, method, path, member string) {
	t.Helper()
	const invalidEvent = "invalid_event" // analytics answers for a list of events, and names a faulty one by its position
	upper := strings.ToUpper(member)
	for _, c := range []struct {
		name, body, where, rule string
		status                  int
	}{
		{"another case", `{"` + upper + `":null}`, `"body.` + upper + `"`, "", 422},
		{"another case beside the right one", `{"` + member + `":null,"` + upper + `":null}`, `"body.` + upper + `"`, "", 422},
		{"a name twice", `{"` + member + `":null,"` + member + `":null}`, `"body.` + member + `"`, "once", 400},
		{"an unknown name twice", `{"other_name":1,"other_name":2}`, `"body.other_name"`, "once", 400},
		{"a name twice, deeper", `{"other_name":{"a":[{"b":1,"b":2}]}}`, `"body.other_name.a[0].b"`, "once", 400},
		{"no UTF-8", "{\"" + member + "\":\"Stra\xdfe\"}", `"body.` + member + `"`, "UTF-8", 400},
		{"no UTF-8 in another member", "{\"other_name\":[\"Stra\xdfe\"]}", `"body.other_name[0]"`, "UTF-8", 400},
		{"half a surrogate pair", `{"` + member + `":"\ud83d"}`, `"body.` + member + `"`, "surrogate", 400},
		{"text behind", `{} {}`, `"body"`, "", 400},
		{"deep nesting", `{"` + member + `":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`, `"body`, "", 400},
	} {
		resp, content := s.ask(t, method, path, c.body, http.Header{"Content-Type": {"application/json"}})
		status := c.status
		if strings.Contains(content, invalidEvent) {
			status = http.StatusUnprocessableEntity
		}
		if resp.StatusCode != status || !strings.Contains(content, c.where) || !strings.Contains(content, c.rule) {
			t.Errorf("%s %s: %s: %s %s", method, path, c.name, resp.Status, content)
		}
	}
}
