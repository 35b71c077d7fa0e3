package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"

	"waybill/platform/rest"
	"waybill/services/analytics/internal/event"
)

const (
	// MaxEvents is how many events an array may have.
	MaxEvents = 1000
	// maxBody bounds an array in bytes. It is large enough that events that are too large are reported by position, not the whole
	// body.
	maxBody = MaxEvents*event.MaxSize + 1<<20
	// maxFaults is the number of faults in an answer.
	maxFaults = 100
	// chunk is the number of events of a stream that are published together.
	chunk = 500
	// progress is the time limit of a stream for one chunk.
	progress = 30 * time.Second

	ndjson = "application/x-ndjson"
)

// taken is the result for the events of a request.
type taken struct {
	Accepted int `json:"accepted" doc:"Events that the broker has."`
	Rejected int `json:"rejected" doc:"Events that are faulty and were not taken."`
}

// says describes the result when at least one event is invalid.
func (t taken) says() string {
	switch {
	case t.Rejected == 1 && t.Accepted == 0:
		return "The event is faulty and was not taken."
	case t.Accepted == 0:
		return fmt.Sprintf("All %d events are faulty and were not taken.", t.Rejected)
	default:
		return fmt.Sprintf("Faulty and not taken: %d. Taken: %d.", t.Rejected, t.Accepted)
	}
}

// mountSend adds the routes that accept events.
func (a *API) mountSend(router chi.Router, surface huma.API) {
	schemas := surface.OpenAPI().Components.Schemas
	answer := &huma.Response{Description: "The broker has all of the events.", Content: map[string]*huma.MediaType{
		"application/json": {Schema: schemas.Schema(reflect.TypeFor[taken](), true, "Taken")},
	}}
	problems := map[string]string{
		"400": "The body is neither an event nor an array of events; nothing was taken.", "413": "The body is too large.", "415": "The body is neither JSON nor NDJSON.",
		"422": "At least one event is faulty. Each is named by its place; the others were taken, as related says.",
		"503": "The events cannot be passed on at the moment; Retry-After says when to send them again.",
	}
	for path, route := range map[string]struct {
		id, summary, doc string
		lenient          bool
	}{
		"/v1/analytics/events": {"send-events", "Send events", "One event, an array of up to 1,000, or NDJSON as a stream of any length. Sending an event again is safe: it is counted once by its event_id.", false},
		"/analytics/event":     {"send-event", "Send events, as the former API took them", "Like /v1/analytics/events, but a time without a zone is UTC, and an event without event_id gets one that follows from its content.", true},
	} {
		one := eventSchema(schemas, route.lenient)
		body := &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/json": {Schema: &huma.Schema{OneOf: []*huma.Schema{one, {Type: huma.TypeArray, Items: one, MaxItems: new(MaxEvents)}}}},
			ndjson:             {Schema: &huma.Schema{Type: huma.TypeString, Description: "An event a line, as many as there are."}},
		}}
		operation := &huma.Operation{
			OperationID: route.id, Method: http.MethodPost, Path: path, Tags: []string{"events"}, Summary: route.summary, Description: route.doc,
			RequestBody: body, Responses: map[string]*huma.Response{"202": answer},
		}
		for status, says := range problems {
			operation.Responses[status] = &huma.Response{Description: says, Content: map[string]*huma.MediaType{"application/problem+json": {}}}
		}
		surface.OpenAPI().AddOperation(operation)
		router.Post(path, func(w http.ResponseWriter, r *http.Request) { a.take(w, r, route.lenient) })
	}
}

// batch is the events of a request while they are read.
type batch struct {
	api    *API
	rules  event.Rules
	events []event.Event
	taken  taken
	faults []rest.Fault
}

func (a *API) take(w http.ResponseWriter, r *http.Request, lenient bool) {
	b := &batch{api: a, rules: event.Rules{Source: event.SourceClients, Now: time.Now(), MaxAhead: a.MaxAhead, NaiveIsUTC: lenient, DeriveID: lenient, ExactNames: true}}
	var problem *rest.Problem
	switch media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); {
	case err == nil && media == ndjson:
		problem = b.lines(w, r)
	case err == nil && (media == "application/json" || strings.HasSuffix(media, "+json")), r.Header.Get("Content-Type") == "":
		problem = b.array(w, r)
	default:
		problem = &rest.Problem{Status: http.StatusUnsupportedMediaType, Code: "unsupported_media_type", Detail: "Send application/json or " + ndjson + "."}
	}
	if problem == nil && b.taken.Rejected > 0 {
		problem = &rest.Problem{Status: http.StatusUnprocessableEntity, Code: event.CodeInvalid, Errors: b.faults,
			Detail: b.taken.says()}
	}
	if problem != nil {
		problem.Related = b.taken
		rest.Write(w, r, problem)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	// An error means that the client disconnected; no answer can reach it.
	_, _ = fmt.Fprintf(w, "{\"accepted\":%d,\"rejected\":%d}\n", b.taken.Accepted, b.taken.Rejected)
}

// add reads one event; at is its position in the request.
func (b *batch) add(text []byte, at string) {
	e, err := event.Decode(text, b.rules)
	if err == nil {
		b.events = append(b.events, e)
		return
	}
	b.reject(at, err)
}

func (b *batch) reject(at string, err error) {
	b.taken.Rejected++
	refused, ok := errors.AsType[*event.Error](err)
	if !ok {
		refused = &event.Error{Faults: []event.Fault{{Path: "", Expectation: err.Error()}}}
	}
	for _, fault := range refused.Faults {
		if len(b.faults) == maxFaults {
			return
		}
		location := at
		if fault.Path != "" {
			location += "." + fault.Path
		}
		b.faults = append(b.faults, rest.Fault{Location: location, Message: fault.Expectation})
	}
}

// publish publishes the events that were read so far.
func (b *batch) publish(ctx context.Context) *rest.Problem {
	ctx, cancel := context.WithTimeout(ctx, b.api.PublishTimeout)
	defer cancel()
	if err := b.api.Publisher.Publish(ctx, b.events); err != nil {
		return b.api.problem(ctx, err)
	}
	b.taken.Accepted += len(b.events)
	b.events = b.events[:0]
	return nil
}

// array reads one event or an array of events.
func (b *batch) array(w http.ResponseWriter, r *http.Request) *rest.Problem {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return unread(err)
	}
	switch first := space(text, 0); {
	case first < len(text) && text[first] == '{':
		b.add(text, "body")
	case first < len(text) && text[first] == '[':
		elements, err := split(text, MaxEvents)
		if err != nil {
			return malformed(err)
		}
		for i, element := range elements {
			b.add(element, fmt.Sprintf("body[%d]", i))
		}
	default:
		return malformed(errNotEvents)
	}
	return b.publish(r.Context())
}

func malformed(err error) *rest.Problem {
	return &rest.Problem{Status: http.StatusBadRequest, Code: "malformed_request", Detail: "The body cannot be read: " + err.Error() + "."}
}

func unread(err error) *rest.Problem {
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return &rest.Problem{Status: http.StatusRequestEntityTooLarge, Code: "body_too_large", Detail: fmt.Sprintf("The body must not be larger than %d bytes; send fewer events at a time, or NDJSON.", maxBody)}
	}
	return &rest.Problem{Status: http.StatusBadRequest, Code: "malformed_request", Detail: "The body broke off."}
}

// lines reads a stream of events of any length, as fast as the broker accepts them. Accepted events stay accepted if the stream
// ends early.
func (b *batch) lines(w http.ResponseWriter, r *http.Request) *rest.Problem {
	deadlines := http.NewResponseController(w)
	in := bufio.NewReaderSize(r.Body, 2*event.MaxSize)
	for line, done := 0, false; !done; {
		// The server's own deadlines are meant for short requests. If they cannot be extended, they apply.
		_ = deadlines.SetReadDeadline(time.Now().Add(progress))
		_ = deadlines.SetWriteDeadline(time.Now().Add(2 * progress))
		b.rules.Now = time.Now()
		for len(b.events) < chunk && !done {
			text, err := readLine(in)
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errLongLine) {
				if problem := b.publish(r.Context()); problem != nil {
					return problem
				}
				return unread(err)
			}
			done = errors.Is(err, io.EOF)
			switch at := fmt.Sprintf("lines[%d]", line); {
			case errors.Is(err, errLongLine):
				b.reject(at, err)
			case space(text, 0) < len(text):
				b.add(text, at)
			}
			line++
		}
		if problem := b.publish(r.Context()); problem != nil {
			return problem
		}
	}
	return nil
}

var errLongLine = errors.New("must not be larger than 16 KiB")

// readLine reads up to the end of a line, and skips one that is too long for any event.
func readLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return bytes.TrimRight(line, "\r\n"), err
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = in.ReadSlice('\n')
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return nil, errLongLine
}
