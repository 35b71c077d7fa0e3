package rest

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"
	"github.com/rs/cors"
)

// once lists the request headers that must not be repeated: readers would use different values.
var once = []string{"Authorization", "Content-Encoding", "Content-Type", "Idempotency-Key", "Last-Event-Id"}

// notEmpty lists the request headers that must not be empty: an empty one is a mistake of the client.
var notEmpty = []string{"Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-Id"}

// lists has the request headers whose lines mean the same as one line with commas (RFC 9110, section 5.3).
var lists = []string{"If-Match", "If-None-Match", "Tracestate"}

// readable rejects requests to the API whose path, query or headers are ambiguous.
func readable(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !ofSidecar(r.URL.Path) {
			if p := unreadable(r); p != nil {
				Write(w, r, p)
				return
			}
			joinLists(r.Header)
		}
		next.ServeHTTP(w, r)
	})
}

// ofSidecar reports whether only the sidecar calls the path. Package eventing reads those requests.
func ofSidecar(path string) bool {
	return strings.HasPrefix(path, "/dapr/") || strings.HasPrefix(path, "/events/")
}

// unreadable returns the problem of the path, the query or the headers, or nil.
func unreadable(r *http.Request) *Problem {
	malformed, invalid := pathAndQueryFaults(r.URL)
	if len(malformed) > 0 {
		return &Problem{Status: http.StatusBadRequest, Code: codeOf(http.StatusBadRequest), Detail: "The request's address cannot be read.", Errors: malformed}
	}
	if invalid = append(invalid, headerFaults(r.Header)...); len(invalid) > 0 {
		return &Problem{Status: http.StatusUnprocessableEntity, Code: codeOf(http.StatusUnprocessableEntity), Detail: "validation failed", Errors: invalid}
	}
	return nil
}

const (
	mustBeUTF8    = "must be valid UTF-8"
	noControls    = "must not contain control characters"
	mustComeOnce  = "must be given once, got %d"
	mustBeEncoded = "must be percent-encoded: % is followed by two hexadecimal digits, and a semicolon is %3B"
)

// pathAndQueryFaults returns the faults that make the URL unreadable, and the faults of its values.
func pathAndQueryFaults(u *url.URL) (malformed, invalid []Fault) {
	switch {
	case !utf8.ValidString(u.Path):
		malformed = append(malformed, Fault{Location: "path", Message: mustBeUTF8})
	case strings.ContainsFunc(u.Path, unicode.IsControl):
		malformed = append(malformed, Fault{Location: "path", Message: noControls})
	}
	if u.RawQuery == "" {
		return malformed, nil
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return append(malformed, Fault{Location: "query", Message: mustBeEncoded}), nil
	}
	for name, values := range query {
		at := "query." + name
		if text := name + strings.Join(values, ""); !utf8.ValidString(text) {
			malformed = append(malformed, Fault{Location: strings.ToValidUTF8(at, "\uFFFD"), Message: mustBeUTF8})
		} else if strings.ContainsFunc(text, unicode.IsControl) {
			invalid = append(invalid, Fault{Location: at, Message: noControls})
		}
		if len(values) > 1 {
			invalid = append(invalid, Fault{Location: strings.ToValidUTF8(at, "\uFFFD"), Message: fmt.Sprintf(mustComeOnce, len(values))})
		}
	}
	slices.SortFunc(malformed, byLocation)
	slices.SortFunc(invalid, byLocation)
	return malformed, invalid
}

func byLocation(a, b Fault) int { return strings.Compare(a.Location, b.Location) }

// headerFaults returns the faults of the headers that operations read.
func headerFaults(h http.Header) (faults []Fault) {
	for _, name := range once {
		if n := len(h[name]); n > 1 {
			faults = append(faults, Fault{Location: "header." + shownHeader(name), Message: fmt.Sprintf(mustComeOnce, n)})
		}
	}
	for _, name := range slices.Concat(notEmpty, once, lists) {
		text := strings.Join(h[name], "")
		var message string
		switch {
		case slices.Contains(notEmpty, name) && slices.ContainsFunc(h[name], func(value string) bool { return strings.TrimSpace(value) == "" }):
			message = "must not be empty; leave the header out instead"
		case !utf8.ValidString(text):
			message = mustBeUTF8
		case strings.ContainsFunc(text, func(r rune) bool { return r != '\t' && unicode.IsControl(r) }):
			message = noControls
		default:
			continue
		}
		fault := Fault{Location: "header." + shownHeader(name), Message: message}
		if !slices.ContainsFunc(faults, func(known Fault) bool { return known.Location == fault.Location }) {
			faults = append(faults, fault)
		}
	}
	return faults
}

// shownHeader returns a header's name as its specification writes it.
func shownHeader(name string) string {
	if name == "Last-Event-Id" {
		return "Last-Event-ID"
	}
	return name
}

// joinLists joins the lines of a list header into one, because handlers read only the first line. If there are two trace parents,
// none is valid (W3C Trace Context, section 3.2), and the request starts a new trace.
func joinLists(h http.Header) {
	for _, name := range lists {
		if len(h[name]) > 1 {
			h[name] = []string{strings.Join(h[name], ", ")}
		}
	}
	if len(h["Traceparent"]) > 1 {
		h.Del("Traceparent")
		h.Del("Tracestate")
	}
}

// options responds to OPTIONS with the allowed methods. Preflight requests of allowed origins are handled before.
func options(router chi.Routes) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if methods := allowed(router, r.URL.Path); r.Method == http.MethodOptions && len(methods) > 0 && !ofSidecar(r.URL.Path) {
				w.Header().Set("Allow", strings.Join(methods, ", "))
				w.WriteHeader(http.StatusNoContent)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// head responds to HEAD on every path with GET, like GET; net/http omits the body. An event stream would not end, so its context is
// cancelled from the start: the checks before the stream still run.
func head(router chi.Routes, description func() *huma.OpenAPI) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodHead {
				next.ServeHTTP(w, r)
				return
			}
			route, found := chi.RouteContext(r.Context()), chi.NewRouteContext()
			if !router.Match(chi.NewRouteContext(), http.MethodHead, r.URL.Path) && router.Match(found, http.MethodGet, r.URL.Path) {
				route.RouteMethod = http.MethodGet
			}
			if streams(description(), found.RoutePattern()) {
				ctx, cancel := context.WithCancel(r.Context())
				cancel()
				r = r.WithContext(ctx)
			}
			next.ServeHTTP(w, r)
		})
	}
}

// streams reports whether GET on the path returns an event stream.
func streams(description *huma.OpenAPI, path string) bool {
	item := description.Paths[path]
	if item == nil || item.Get == nil || item.Get.Responses["200"] == nil {
		return false
	}
	return item.Get.Responses["200"].Content["text/event-stream"] != nil
}

// preflightLifetime is how long a browser may cache a preflight response, in seconds.
const preflightLifetime = 600

// crossOrigin lets browsers use the API from the given origins, without credentials that a browser adds itself, such as cookies. It
// does not apply to the sidecar's routes.
func crossOrigin(origins []string) func(http.Handler) http.Handler {
	if len(origins) == 0 {
		return func(next http.Handler) http.Handler { return next }
	}
	rules := cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete},
		AllowedHeaders: []string{
			"Accept", "Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID", "traceparent", "tracestate",
		},
		ExposedHeaders: []string{"Allow", "ETag", "Link", "Location", "Retry-After"},
		MaxAge:         preflightLifetime,
	})
	return func(next http.Handler) http.Handler {
		shared := rules.Handler(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if ofSidecar(r.URL.Path) {
				next.ServeHTTP(w, r)
				return
			}
			shared.ServeHTTP(w, r)
		})
	}
}
