// Package rest provides what all Waybill REST APIs share: OpenAPI at /openapi.json, a docs page that loads nothing from another
// host, errors as RFC 9457 problem details with a trace id, JSON in snake_case, and an error for unknown properties.
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

// MaxBody is the largest accepted request body in bytes, unless an operation sets its own limit.
const MaxBody = 1 << 20

// Info describes an API.
type Info struct {
	Title, Version, Description string
}

// New returns a router with an API on it. Mount routes that are not part of the API, such as events and health, on the router.
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

// jsonFormat is strict JSON. A client may see its errors: they name the path and no Go type.
var jsonFormat = huma.Format{
	Marshal: huma.DefaultJSONFormat.Marshal,
	Unmarshal: func(data []byte, v any) error {
		err := strictjson.Unmarshal(data, v)
		if refused, ok := errors.AsType[*strictjson.Error](err); ok {
			if refused.WrongType {
				_ = json.Unmarshal(data, v) // continues after the error, so that validation checks the rest too; the request is rejected anyway
			}
			return placedError{refused}
		}
		return err
	},
}

// placedError carries the path of an error in a body inside its text, because huma keeps only the text and reports the location of
// the whole body.
type placedError struct{ of *strictjson.Error }

// placeMark separates the path from the message. A path has no control character.
const placeMark = "\x00"

func (e placedError) Error() string { return e.of.Path + placeMark + e.of.Message() }

// placed reads the fault from the text of a placedError.
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

// exactNames makes huma's validation case-sensitive for member names. Huma has one variable for the whole process.
var exactNames = sync.OnceFunc(func() { huma.ValidateStrictCasing = true })

// documentProblems describes problems in the operation's OpenAPI in the form that asProblem sends.
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

// allowed returns the methods of a path. A path with GET also has HEAD.
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

// clientsBody is a request whose body ends with a byte that is not valid JSON if reading it fails. So the client gets 400; huma
// would return 500.
type clientsBody struct{ request }

// request is huma.Context under a name that does not hide its method Context.
type request = huma.Context

// Unwrap is called by humachi.Unwrap.
func (c clientsBody) Unwrap() huma.Context { return c.request }

// BodyReader returns the reader from which huma reads the body.
func (c clientsBody) BodyReader() io.Reader { return brokenAsMalformed{c.request.BodyReader()} }

type brokenAsMalformed struct{ io.Reader }

func (b brokenAsMalformed) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	var late net.Error
	if err == nil || errors.Is(err, io.EOF) || errors.As(err, &late) && late.Timeout() {
		return n, err
	}
	if n == len(p) {
		return n, nil // the next call returns the error
	}
	p[n] = 0
	return n + 1, io.EOF
}

// Problem is an RFC 9457 problem. It is an error that a handler may return.
type Problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	// Detail is a sentence for people. It reveals no internals.
	Detail string `json:"detail,omitempty"`
	// Code is stable and meant for programs.
	Code    string  `json:"code"`
	TraceID string  `json:"trace_id,omitempty"`
	Errors  []Fault `json:"errors,omitempty"`
	// Related is what the request conflicts with, such as an earlier decision.
	Related any `json:"related,omitempty"`
	// RetryAfter is sent as the Retry-After header, in seconds, if it is positive.
	RetryAfter int `json:"-"`
}

// Fault is one error in a request: its location and what was expected there.
type Fault struct {
	Location string `json:"location"`
	Message  string `json:"message"`
	Value    any    `json:"value,omitempty"`
}

func (p *Problem) Error() string { return p.Code + ": " + p.Detail }

// GetStatus makes Problem a huma.StatusError, which huma sends unchanged with this status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType returns application/problem+json, regardless of what the client prefers.
func (p *Problem) ContentType(string) string { return problemType }

// GetHeaders returns the headers to send with the problem.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", fmt.Sprint(p.RetryAfter))
	}
	return h
}

const problemType = "application/problem+json"

// Failed turns an error that the client cannot fix into a problem: 503 with Retry-After if it is retryable, and a bare 500
// otherwise. It logs the error; callers must not log it again.
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

// maxShownValue is the length in bytes up to which a problem repeats a faulty value.
const maxShownValue = 100

// asProblem turns huma's errors into problems, and adds the title and the trace id to every problem. If a handler returned another
// error, asProblem logs it, and the client gets no details.
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

// withoutUnread removes errors about missing properties if the body could be read only up to a fault: they may come after it.
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

// faults lists the first fault of each location, and none inside a location that has a fault itself. It reports a missing property
// at the property's location; huma reports it at the object's.
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

// missingProperty returns the name from huma's message about a missing property.
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

// shown returns the faulty value if a problem may repeat it: it must be short, and not an object or a body, which have customer data.
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

// Write sends a problem outside an API operation.
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
	_, _ = w.Write(body) // fails only if the client has disconnected
}

// traced starts a span for every API request, but not for health checks and event deliveries; deliveries have their own spans.
func traced(next http.Handler) http.Handler {
	return otelhttp.NewHandler(next, "", otelhttp.WithFilter(func(r *http.Request) bool {
		return strings.HasPrefix(r.URL.Path, "/v1/") || strings.HasPrefix(r.URL.Path, "/analytics/")
	}), otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.Method + " " + r.Pattern }))
}

// recovered logs a panic with its stack and sends a 500. If the response has started, it closes the connection, so that the client
// does not mistake a partial response for a complete one.
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
