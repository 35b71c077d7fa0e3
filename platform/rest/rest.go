// Package rest is the shape that every Waybill REST API has: OpenAPI at /openapi.json, a docs page that loads nothing
// from another host, errors as RFC 9457 problem details with a trace id, JSON in snake_case, unknown properties refused.
package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/danielgtaylor/huma/v2/validation"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/swaggest/swgui/v5emb"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/trace"

	"waybill/platform/retryable"
	"waybill/platform/strictjson"
)

// MaxBody is the largest request body taken, in bytes, unless an operation says otherwise.
const MaxBody = 1 << 20

// Info describes an API.
type Info struct {
	Title, Version, Description string
}

// New returns a router with an API on it. Routes that are no part of the API (events, health) are mounted on the router.
// Browsers may use the API from the given origins.
func New(info Info, logger *slog.Logger, origins ...string) (*chi.Mux, huma.API) {
	exactNames()
	router := chi.NewMux()
	var api huma.API
	router.Use(crossOrigin(origins), traced, recovered(logger), readable, options(router), head(router, func() *huma.OpenAPI { return api.OpenAPI() }))
	router.NotFound(func(w http.ResponseWriter, r *http.Request) {
		Write(w, r, &Problem{Status: http.StatusNotFound, Code: "no_such_route", Detail: "There is nothing at " + r.URL.Path + "; see /docs."})
	})
	router.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", strings.Join(allowed(router, r.URL.Path), ", "))
		Write(w, r, &Problem{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Detail: r.Method + " is not possible on " + r.URL.Path + "; see /docs."})
	})
	config := huma.DefaultConfig(info.Title, info.Version)
	config.Info.Description = info.Description
	config.DocsPath, config.SchemasPath = "", ""
	config.CreateHooks = nil
	config.RejectUnknownQueryParameters = true
	config.Transformers = []huma.Transformer{asProblem(logger)}
	config.Formats = map[string]huma.Format{"application/json": exact(jsonFormat), "json": exact(jsonFormat)}
	config.OnAddOperation = append(config.OnAddOperation, documentRequests, documentProblems)
	api = humachi.New(router, config)
	api.UseMiddleware(func(ctx huma.Context, next func(huma.Context)) { next(clientsBody{ctx}) }, checkQuery)
	// Swagger UI from an embedded copy: the page loads nothing from another host.
	router.Mount("/docs", v5emb.New(info.Title, "/openapi.json", "/docs"))
	return router, api
}

// jsonFormat is strict JSON whose errors a client may see: they name the place and no type of ours.
var jsonFormat = huma.Format{
	Marshal: huma.DefaultJSONFormat.Marshal,
	Unmarshal: func(data []byte, v any) error {
		err := strictjson.Unmarshal(data, v)
		if refused, ok := errors.AsType[*strictjson.Error](err); ok {
			if refused.WrongType {
				_ = json.Unmarshal(data, v) // it goes on behind the error, so that the rest can be checked too; the request is refused
			}
			return placedError{refused}
		}
		return err
	},
}

// placedError is an error in a body, as text: huma keeps only the text, and gives it the location of the whole body.
type placedError struct{ of *strictjson.Error }

// placeMark separates the path from the message. A path has no control character.
const placeMark = "\x00"

func (e placedError) Error() string { return e.of.Path + placeMark + e.of.Message() }

// placed is the fault of an error that placedError wrote.
func placed(d *huma.ErrorDetail) (fault Fault, ok bool) {
	path, message, ok := strings.Cut(d.Message, placeMark)
	if !ok {
		return Fault{}, false
	}
	location := d.Location
	if path != "" && path[0] != '[' {
		location += "."
	}
	return Fault{Location: location + path, Message: message}, true
}

// exactNames makes huma's validation compare member names by every letter. It is a variable of huma's for the whole process.
var exactNames = sync.OnceFunc(func() { huma.ValidateStrictCasing = true })

// documentProblems lets the operation's description show problems in the shape that asProblem gives them.
func documentProblems(doc *huma.OpenAPI, op *huma.Operation) {
	schema := doc.Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
	for _, response := range op.Responses {
		if media, ok := response.Content[problemType]; ok {
			media.Schema = schema
		}
	}
	for _, neverSent := range []string{"ErrorModel", "ErrorDetail"} {
		delete(doc.Components.Schemas.Map(), neverSent)
	}
}

// allowed are the methods that are possible on a path; HEAD is wherever GET is.
func allowed(router chi.Routes, path string) []string {
	var methods []string
	has := func(method string) bool { return router.Match(chi.NewRouteContext(), method, path) }
	for _, method := range []string{
		http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
	} {
		if has(method) || method == http.MethodHead && has(http.MethodGet) {
			methods = append(methods, method)
		}
	}
	if len(methods) > 0 {
		methods = append(methods, http.MethodOptions)
	}
	return methods
}

// clientsBody is a request whose body, when it breaks off or is framed wrongly, ends in a byte that no JSON has. So it is
// answered as malformed; huma would call it an error of ours.
type clientsBody struct{ request }

// request is huma.Context by a name that does not hide its method Context.
type request = huma.Context

// Unwrap is what humachi.Unwrap looks for.
func (c clientsBody) Unwrap() huma.Context { return c.request }

// BodyReader is what huma reads the body from.
func (c clientsBody) BodyReader() io.Reader { return brokenAsMalformed{c.request.BodyReader()} }

type brokenAsMalformed struct{ io.Reader }

func (b brokenAsMalformed) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	var late net.Error
	if err == nil || errors.Is(err, io.EOF) || errors.As(err, &late) && late.Timeout() {
		return n, err
	}
	if n == len(p) {
		return n, nil // the error comes again with the next call
	}
	p[n] = 0
	return n + 1, io.EOF
}

// Problem is an RFC 9457 problem. It is an error that a handler may return.
type Problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	// Detail is a sentence for people; it holds nothing of the inside.
	Detail string `json:"detail,omitempty"`
	// Code is stable and meant for programs.
	Code    string  `json:"code"`
	TraceID string  `json:"trace_id,omitempty"`
	Errors  []Fault `json:"errors,omitempty"`
	// Related is what the request collided with, such as the decision that came first.
	Related any `json:"related,omitempty"`
	// RetryAfter, in seconds, is sent as a header when it is set.
	RetryAfter int `json:"-"`
}

// Fault is one thing wrong with a request: where it is and what was expected there.
type Fault struct {
	Location string `json:"location"`
	Message  string `json:"message"`
	Value    any    `json:"value,omitempty"`
}

func (p *Problem) Error() string { return p.Code + ": " + p.Detail }

// GetStatus makes a Problem a huma.StatusError: huma sends it as it is, with this status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is application/problem+json whatever the client would rather have.
func (p *Problem) ContentType(string) string { return problemType }

// GetHeaders gives huma the headers that go with the problem.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", fmt.Sprint(p.RetryAfter))
	}
	return h
}

const problemType = "application/problem+json"

// Failed turns an error that no client can mend into an answer: 503 with Retry-After when it is retryable, else a bare 500. It
// logs the error once, here.
func Failed(ctx context.Context, logger *slog.Logger, err error) *Problem {
	if retryable.Is(err) {
		logger.ErrorContext(ctx, "request failed; answered 503", slog.Any("error", err))
		return &Problem{Status: http.StatusServiceUnavailable, Code: "unavailable", RetryAfter: 1,
			Detail: "A part this service needs does not answer at the moment. Repeat the request; with an Idempotency-Key that is always safe."}
	}
	logger.ErrorContext(ctx, "request failed; answered 500", slog.Any("error", err))
	return internal()
}

func internal() *Problem {
	return &Problem{Status: http.StatusInternalServerError, Code: "internal", Detail: "The request could not be processed. The trace id leads to the cause in the service's log."}
}

// maxShownValue bounds, in bytes, how much of a faulty value a problem repeats.
const maxShownValue = 100

// asProblem gives huma's own errors the same shape and every problem its title and trace id. What a handler let through
// that is no Problem is logged here, and the client sees nothing of it.
func asProblem(logger *slog.Logger) huma.Transformer {
	return func(ctx huma.Context, _ string, body any) (any, error) {
		var p *Problem
		switch e := body.(type) {
		case *Problem:
			copied := *e
			p = &copied
		case *huma.ErrorModel:
			if e.Status >= http.StatusInternalServerError {
				p = Failed(ctx.Context(), logger, errors.Join(e, errors.Join(asErrors(e.Errors)...)))
				break
			}
			details := e.Errors
			if e.Status == http.StatusBadRequest {
				details = withoutUnread(details)
			}
			p = &Problem{Status: e.Status, Code: codeOf(e.Status), Detail: e.Detail, Errors: faults(details)}
		default:
			return body, nil
		}
		complete(ctx.Context(), p)
		return p, nil
	}
}

func asErrors(details []*huma.ErrorDetail) []error {
	errs := make([]error, len(details))
	for i, detail := range details {
		errs[i] = errors.New(detail.Message)
	}
	return errs
}

// withoutUnread leaves out what was found missing in a body that could be read only up to a fault: it may stand behind that.
func withoutUnread(details []*huma.ErrorDetail) []*huma.ErrorDetail {
	isPlaced := func(d *huma.ErrorDetail) bool {
		if d == nil {
			return false
		}
		_, ok := placed(d)
		return ok
	}
	if !slices.ContainsFunc(details, isPlaced) {
		return details
	}
	return slices.DeleteFunc(slices.Clone(details), func(d *huma.ErrorDetail) bool {
		return d != nil && strings.HasPrefix(d.Location, "body") && !isPlaced(d)
	})
}

// faults lists what is wrong once for each place: the first fault found there, and none inside a place that is faulty as a
// whole. A missing property is reported at its own place, where huma names the object that lacks it.
func faults(details []*huma.ErrorDetail) []Fault {
	var all []Fault
	known := map[string]bool{}
	for _, d := range details {
		if d == nil {
			continue
		}
		fault := Fault{Location: d.Location, Message: d.Message, Value: shown(d)}
		if at, ok := placed(d); ok {
			fault = at
		}
		if name, ok := missingProperty(d.Message); ok {
			fault = Fault{Location: d.Location + "." + name, Message: "is required"}
		}
		if !known[fault.Location] {
			known[fault.Location] = true
			all = append(all, fault)
		}
	}
	return slices.DeleteFunc(all, func(fault Fault) bool {
		for i, c := range fault.Location {
			if (c == '.' || c == '[') && known[fault.Location[:i]] {
				return true
			}
		}
		return false
	})
}

// missingProperty takes the name out of huma's message for a property that is not there.
func missingProperty(message string) (name string, ok bool) {
	before, after, _ := strings.Cut(validation.MsgExpectedRequiredProperty, "%s")
	name, ok = strings.CutPrefix(message, before)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(name, after)
}

func complete(ctx context.Context, p *Problem) {
	if p.Title == "" {
		p.Title = http.StatusText(p.Status)
	}
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		p.TraceID = span.TraceID().String()
	}
}

// shown is the value of a fault when it may be repeated: short, and no whole object or body, which hold customer data.
func shown(fault *huma.ErrorDetail) any {
	if fault.Location == "body" {
		return nil
	}
	switch v := fault.Value.(type) {
	case string:
		if len(v) > maxShownValue {
			return nil
		}
		return v
	case float64, bool, int:
		return v
	default:
		return nil
	}
}

func codeOf(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "malformed_request"
	case http.StatusRequestEntityTooLarge:
		return "body_too_large"
	case http.StatusUnprocessableEntity:
		return "invalid_request"
	default:
		return strings.ReplaceAll(strings.ToLower(http.StatusText(status)), " ", "_")
	}
}

// Write answers with a problem outside an API operation.
func Write(w http.ResponseWriter, r *http.Request, p *Problem) {
	complete(r.Context(), p)
	body, err := json.Marshal(p)
	if err != nil {
		http.Error(w, p.Code, p.Status)
		return
	}
	maps.Copy(w.Header(), p.GetHeaders())
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // it fails when the client is gone, and then there is nobody left to tell
}

// traced gives every API request a span; probes and deliveries from the sidecar are left out, the latter have their own.
func traced(next http.Handler) http.Handler {
	return otelhttp.NewHandler(next, "", otelhttp.WithFilter(func(r *http.Request) bool {
		return strings.HasPrefix(r.URL.Path, "/v1/") || strings.HasPrefix(r.URL.Path, "/analytics/")
	}), otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.Method + " " + r.Pattern }))
}

// recovered answers a panic with a 500 and logs it with its stack. Where the answer had begun it cuts the connection, so
// that the client does not take half an answer for a whole one.
func recovered(logger *slog.Logger) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			began := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
			defer func() {
				p := recover()
				if p == nil {
					return
				}
				if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(p)
				}
				logger.ErrorContext(r.Context(), "request panicked", slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
				if began.Status() != 0 {
					panic(http.ErrAbortHandler)
				}
				Write(w, r, internal())
			}()
			next.ServeHTTP(began, r)
		})
	}
}
