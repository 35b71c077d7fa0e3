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

// once are the request headers that must not come twice: readers would take different ones.
var once = []string{"Authorization", "Content-Encoding", "Content-Type", "Idempotency-Key", "Last-Event-Id"}

// notEmpty are the request headers that mean something by being there: an empty one is a client's mistake, not its absence.
var notEmpty = []string{"Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-Id"}

// lists are the request headers whose lines mean the same as one line with commas (RFC 9110, section 5.3).
var lists = []string{"If-Match", "If-None-Match", "Tracestate"}

// readable refuses requests to the API whose path, query or headers cannot be read in exactly one way.
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

// ofSidecar says that only the sidecar calls the path. What it sends is read by platform/eventing.
func ofSidecar(path string) bool {
	return strings.HasPrefix(path, "/dapr/") || strings.HasPrefix(path, "/events/")
}

// unreadable is what is wrong with the request's path, query and headers, or nil.
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

// pathAndQueryFaults are the faults for which the address is no text, and those of its values.
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

// headerFaults are those of the headers that the API's operations read.
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

// shownHeader is a header's name as its specification writes it.
func shownHeader(name string) string {
	if name == "Last-Event-Id" {
		return "Last-Event-ID"
	}
	return name
}

// joinLists makes one line of the lines of a list, for what reads a header reads its first line. Of two trace parents neither
// can be trusted (W3C Trace Context, section 3.2): the request begins a trace of its own.
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

// options answers OPTIONS with the methods that are possible. A preflight of an allowed origin does not come here.
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

// head answers HEAD wherever GET is possible, as GET does, but for the body, which net/http leaves out. On a stream, which
// would not end, the request is over as soon as it begins: what is checked before the stream begins is checked.
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

// streams says whether GET on the path is answered with an event stream.
func streams(description *huma.OpenAPI, path string) bool {
	item := description.Paths[path]
	if item == nil || item.Get == nil || item.Get.Responses["200"] == nil {
		return false
	}
	return item.Get.Responses["200"].Content["text/event-stream"] != nil
}

// preflightLifetime is how long a browser may remember a preflight's answer, in seconds.
const preflightLifetime = 600

// crossOrigin lets browsers use the API from the given origins. Credentials that a browser adds by itself, such as cookies, are
// not among what it may send. The sidecar's routes are left out.
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
