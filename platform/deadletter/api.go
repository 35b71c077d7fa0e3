package deadletter

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"waybill/platform/eventing"
	"waybill/platform/rest"
)

const (
	// maxTogether is how many entries one request redrives or dismisses.
	maxTogether = 100
	// requestTime is how long one request goes on to further entries; what it has begun may take attemptTimeout longer.
	requestTime = 30 * time.Second
	// maxPageBytes is how much of events one page of the list holds before it ends.
	maxPageBytes = 4 << 20
)

// Register adds the routes that list, redrive and dismiss the letters, through the receiver that took their events.
func (l *Letters) Register(api huma.API, receiver *eventing.Receiver) {
	l.receiver = receiver
	huma.Register(api, huma.Operation{
		OperationID: "list-dead-letters", Method: http.MethodGet, Path: "/v1/dead-letters", Tags: []string{"dead letters"},
		Summary: "List the events that this service could not process",
		Description: "With a topic: its events, the newest first, each with the reason for which it was dead-lettered and whatever was done about it. " +
			"Without one: how many there are of each topic.",
		Errors: []int{http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, l.listLetters)
	huma.Register(api, huma.Operation{
		OperationID: "redrive-dead-letters", Method: http.MethodPost, Path: "/v1/dead-letters/redrive", Tags: []string{"dead letters"},
		Summary: "Process events that were dead-lettered again",
		Description: "Gives each event to the service's own handler, the oldest first. One that is processed leaves the open ones; one that is not stays, " +
			"with the new reason. Who asked, why and what came of it is recorded with the event. A dry run says what would be done and changes nothing. " +
			"One request takes up to 100 events, and begins no further one after 30 seconds: next_cursor says that more are left.",
		MaxBodyBytes: rest.MaxBody,
		Errors:       []int{http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, func(ctx context.Context, in *redriveInput) (*handledOutput, error) {
		return l.handleLetters(ctx, in.Body.Chosen, in.Body.Reason, l.redrive)
	})
	huma.Register(api, huma.Operation{
		OperationID: "dismiss-dead-letters", Method: http.MethodPost, Path: "/v1/dead-letters/dismiss", Tags: []string{"dead letters"},
		Summary: "Decide that events that were dead-lettered will not be processed",
		Description: "The events leave the open ones and stay on record, with who decided it and why; nothing else happens. One that is dead-lettered again is open again, " +
			"and one that was dismissed by mistake can be redriven by its id. A dry run says what would be done and changes nothing. " +
			"One request takes up to 100 events: next_cursor says that more are left.",
		MaxBodyBytes: rest.MaxBody,
		Errors:       []int{http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, func(ctx context.Context, in *dismissInput) (*handledOutput, error) {
		return l.handleLetters(ctx, in.Body.Chosen, in.Body.Reason, l.dismiss)
	})
	l.describe(api.OpenAPI())
}

// describe adds to the operations' descriptions what handleLetters and checkTopic check, in words of their own.
func (l *Letters) describe(doc *huma.OpenAPI) {
	for _, parameter := range doc.Paths["/v1/dead-letters"].Get.Parameters {
		if parameter.Name == "topic" {
			parameter.Schema.Extensions = map[string]any{"enum": l.topics}
		}
	}
	for _, path := range []string{"/v1/dead-letters/redrive", "/v1/dead-letters/dismiss"} {
		body := doc.Components.Schemas.SchemaFromRef(doc.Paths[path].Post.RequestBody.Content["application/json"].Schema.Ref)
		body.Properties["topic"].Extensions = map[string]any{"enum": l.topics}
		type schema = map[string]any
		body.Extensions = schema{"oneOf": []schema{
			{"required": []string{"event_ids"}, "properties": schema{"all": schema{"const": false}, "cursor": false}},
			{"required": []string{"all"}, "properties": schema{"all": schema{"const": true}, "event_ids": false}},
		}}
	}
}

func (l *Letters) problem(ctx context.Context, err error) error {
	return rest.Failed(ctx, l.logger, err)
}

func invalid(location, message string, value any) error {
	return &rest.Problem{
		Status: http.StatusUnprocessableEntity, Code: "invalid_request", Detail: "validation failed",
		Errors: []rest.Fault{{Location: location, Message: message, Value: value}},
	}
}

func (l *Letters) checkTopic(location, topic string) error {
	if slices.Contains(l.topics, topic) {
		return nil
	}
	return invalid(location, "must be a topic that this service reads: "+strings.Join(l.topics, ", "), topic)
}

type listInput struct {
	Topic  string `query:"topic" maxLength:"255" doc:"A topic that the service reads; not the dead-letter topic beside it."`
	State  string `query:"state" enum:"open,redriven,dismissed" doc:"Only events that wait, that were redriven with success, or that were dismissed."`
	Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"20"`
	Cursor string `query:"cursor" minLength:"1" maxLength:"200" pattern:"^[A-Za-z0-9_-]+$" patternDescription:"a next_cursor of this API" doc:"The next_cursor of the page before."`
}

type listOutput struct{ Body letterPage }

type letterPage struct {
	Topics     []topicCount `json:"topics" nullable:"false"`
	Items      []letter     `json:"items" nullable:"false"`
	NextCursor string       `json:"next_cursor,omitempty" doc:"Leads to the next page; absent on the last one."`
}

type topicCount struct {
	Topic     string `json:"topic"`
	Open      int    `json:"open"`
	Redriven  int    `json:"redriven"`
	Dismissed int    `json:"dismissed"`
}

// letter is an entry as clients see it.
type letter struct {
	Topic           string          `json:"topic"`
	EventID         string          `json:"event_id"`
	Type            string          `json:"type"`
	Subject         string          `json:"subject,omitempty"`
	Key             string          `json:"key,omitempty" doc:"What orders the event among others."`
	State           string          `json:"state" enum:"open,redriven,dismissed"`
	Reason          string          `json:"reason" doc:"Why the event could not be processed, the last time."`
	DeadLetterAt    time.Time       `json:"parked_at" doc:"When it was dead-lettered, the last time."`
	DeadLetterBy    string          `json:"parked_by" doc:"The service; or sidecar, for a message that never reached the service."`
	DeadLetterCount int             `json:"parked_count" doc:"How often it was dead-lettered."`
	Attempts        []letterAttempt `json:"attempts" nullable:"false" doc:"Its redrives and its dismissal, the oldest first."`
	Event           any             `json:"event,omitempty" doc:"The CloudEvent, its secrets masked."`
	Raw             []byte          `json:"raw,omitempty" doc:"The message, when it is no CloudEvent."`
	Truncated       bool            `json:"truncated,omitempty" doc:"The message was too large to keep, and raw is its beginning."`
}

type letterAttempt struct {
	Actor   string    `json:"actor"`
	Reason  string    `json:"reason"`
	At      time.Time `json:"at"`
	EndedAt time.Time `json:"ended_at,omitzero"`
	Outcome string    `json:"outcome" enum:"redriven,dismissed,failed,running,interrupted"`
	Error   string    `json:"error,omitempty"`
}

func (l *Letters) show(e entry) letter {
	last := e.DeadLetterings[len(e.DeadLetterings)-1]
	shown := letter{
		Topic: e.Topic, EventID: e.EventID, Type: e.Type, Subject: e.Subject, Key: e.Key, State: string(e.State), Reason: e.Reason,
		DeadLetterAt: last.At, DeadLetterBy: last.By, DeadLetterCount: len(e.DeadLetterings), Attempts: make([]letterAttempt, len(e.Attempts)),
		Raw: []byte(maskedText(string(e.Raw), l.secret)), Truncated: e.Truncated,
	}
	if e.Event != nil {
		shown.Event = masked(e.Event, l.secret)
	}
	for i, a := range e.Attempts {
		if a.Outcome == running && (e.Lease == nil || e.Lease.Attempt != a.ID || !l.leased(&e)) {
			a.Outcome = interrupted
		}
		shown.Attempts[i] = letterAttempt{a.Actor, a.Reason, a.At, a.EndedAt, a.Outcome, a.Error}
	}
	return shown
}

// masked is an event without what nobody may see.
func masked(event json.RawMessage, secret []string) any {
	decoder := json.NewDecoder(bytes.NewReader(event))
	decoder.UseNumber() // numbers are shown as they came
	var decoded any
	if err := decoder.Decode(&decoded); err != nil {
		return nil // it was decoded before
	}
	if text, ok := decoded.(string); ok {
		return maskedText(text, secret)
	}
	mask(decoded, secret)
	return decoded
}

// maskedText is a text that may quote an event that could not be read.
func maskedText(text string, secret []string) string {
	lower := strings.ToLower(text)
	for _, s := range secret {
		if strings.Contains(lower, strings.ToLower(s)) {
			return "*** (a text that names " + s + ")"
		}
	}
	return text
}

func mask(value any, secret []string) {
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			if slices.ContainsFunc(secret, func(s string) bool { return strings.EqualFold(s, name) }) {
				v[name] = "***"
			} else if text, ok := member.(string); ok {
				v[name] = maskedText(text, secret)
			} else {
				mask(member, secret)
			}
		}
	case []any:
		for i, element := range v {
			if text, ok := element.(string); ok {
				v[i] = maskedText(text, secret)
			}
			mask(element, secret)
		}
	}
}

func (l *Letters) listLetters(ctx context.Context, in *listInput) (*listOutput, error) {
	out := &listOutput{letterPage{Topics: []topicCount{}, Items: []letter{}}}
	if in.Topic == "" {
		if in.State != "" || in.Cursor != "" {
			return nil, invalid("query.topic", "is required with state or cursor", nil)
		}
		for _, topic := range l.topics {
			places, err := l.all(ctx, topic)
			if err != nil {
				return nil, l.problem(ctx, fmt.Errorf("count dead letters of %s: %w", topic, err))
			}
			out.Body.Topics = append(out.Body.Topics, count(topic, places))
		}
		return out, nil
	}
	if err := l.checkTopic("query.topic", in.Topic); err != nil {
		return nil, err
	}
	places, err := l.all(ctx, in.Topic)
	if err != nil {
		return nil, l.problem(ctx, fmt.Errorf("list dead letters of %s: %w", in.Topic, err))
	}
	before := len(places)
	if in.Cursor != "" {
		position, ok := parseCursor(in.Cursor, in.Topic)
		if !ok {
			return nil, invalid("query.cursor", "must be the next_cursor of a page of the same topic", in.Cursor)
		}
		before = min(before, position)
	}
	out.Body.Topics = append(out.Body.Topics, count(in.Topic, places))
	if out.Body.Items, out.Body.NextCursor, err = l.newest(ctx, in, places[:before]); err != nil {
		return nil, l.problem(ctx, fmt.Errorf("list dead letters of %s: %w", in.Topic, err))
	}
	return out, nil
}

// newest reads a page of entries from the end of places.
func (l *Letters) newest(ctx context.Context, in *listInput, places []place) (letters []letter, next string, err error) {
	letters = []letter{}
	size := 0
	for i, p := range slices.Backward(places) {
		if len(letters) == in.Limit || size > maxPageBytes {
			return letters, cursor(i+1, in.Topic), nil
		}
		if in.State != "" && in.State != string(p.state()) {
			continue
		}
		e, ok, err := l.entry(ctx, in.Topic, p)
		if err != nil {
			return nil, "", err
		}
		if ok && (in.State == "" || in.State == string(e.State)) {
			letters = append(letters, l.show(e))
			size += len(e.Event) + len(e.Raw)
		}
	}
	return letters, "", nil
}

func count(topic string, places []place) topicCount {
	c := topicCount{Topic: topic}
	for _, p := range places {
		switch p.state() {
		case open:
			c.Open++
		case redriven:
			c.Redriven++
		case dismissed:
			c.Dismissed++
		}
	}
	return c
}

// cursor is a position in a topic's list. It names the topic, so that it cannot be used for another one by mistake.
func cursor(position int, topic string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(position) + ":" + topic))
}

func parseCursor(s, topic string) (position int, ok bool) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return 0, false
	}
	number, of, _ := strings.Cut(string(b), ":")
	position, err = strconv.Atoi(number)
	return position, err == nil && position >= 0 && of == topic
}

// Chosen is which letters a request is about, and who asks.
type Chosen struct {
	Topic    string   `json:"topic" maxLength:"255"`
	EventIDs []string `json:"event_ids,omitempty" nullable:"false" minItems:"1" maxItems:"100" doc:"Which events; or all."`
	All      bool     `json:"all,omitempty" doc:"Every open event of the topic, up to 100 in one request."`
	Cursor   string   `json:"cursor,omitempty" minLength:"1" maxLength:"200" pattern:"^[A-Za-z0-9_-]+$" patternDescription:"a next_cursor of this API" doc:"With all: the next_cursor of the answer before."`
	DryRun   bool     `json:"dry_run,omitempty"`
	Actor    string   `json:"actor" minLength:"1" maxLength:"200" pattern:"[^\\t\\n\\f\\r ]" patternDescription:"not blank" doc:"Who asks for it."`
}

type redriveInput struct {
	Body struct {
		Chosen
		Reason string `json:"reason" minLength:"1" maxLength:"1000" pattern:"[^\\t\\n\\f\\r ]" patternDescription:"not blank" doc:"Why it should work now."`
	}
}

type dismissInput struct {
	Body struct {
		Chosen
		Reason string `json:"reason" minLength:"1" maxLength:"1000" pattern:"[^\\t\\n\\f\\r ]" patternDescription:"not blank" doc:"Why it need not be processed."`
	}
}

type handledOutput struct {
	Body struct {
		Topic      string   `json:"topic"`
		DryRun     bool     `json:"dry_run"`
		Results    []result `json:"results" nullable:"false"`
		NotTried   []string `json:"not_tried,omitempty" doc:"Events that there was no time for; ask again."`
		NextCursor string   `json:"next_cursor,omitempty" doc:"With all: where to go on; absent when every open event was tried."`
	}
}

// handleLetters redrives or dismisses the chosen letters, whichever handle does.
func (l *Letters) handleLetters(ctx context.Context, b Chosen, reason string,
	handle func(ctx context.Context, topic, eventID string, o order) (result, error),
) (*handledOutput, error) {
	if err := l.checkTopic("body.topic", b.Topic); err != nil {
		return nil, err
	}
	if b.All == (len(b.EventIDs) > 0) {
		return nil, invalid("body.event_ids", "either event_ids or all must be given, and not both", nil)
	}
	after := 0
	if b.Cursor != "" {
		var ok bool
		if after, ok = parseCursor(b.Cursor, b.Topic); !ok || !b.All {
			return nil, invalid("body.cursor", "must be the next_cursor of an answer for all events of the same topic", b.Cursor)
		}
	}
	o := order{b.Actor, reason, b.DryRun}
	out := &handledOutput{}
	out.Body.Topic, out.Body.DryRun, out.Body.Results = b.Topic, b.DryRun, []result{}
	deadline := time.Now().Add(requestTime)
	over := func() bool { return ctx.Err() != nil || !time.Now().Before(deadline) }
	if !b.All {
		for i, id := range b.EventIDs {
			if i > 0 && over() {
				out.Body.NotTried = b.EventIDs[i:]
				break
			}
			r, err := handle(ctx, b.Topic, id, o)
			if err != nil {
				problem := l.problem(ctx, err)
				if i == 0 {
					return nil, problem
				}
				out.Body.NotTried = b.EventIDs[i:] // what was done must be told
				break
			}
			out.Body.Results = append(out.Body.Results, r)
		}
		return out, nil
	}
	places, err := l.all(ctx, b.Topic)
	if err != nil {
		return nil, l.problem(ctx, fmt.Errorf("read the dead letters of %s: %w", b.Topic, err))
	}
	for position := min(after, len(places)); position < len(places); position++ {
		p := places[position]
		if p.Open == 0 {
			continue
		}
		if len(out.Body.Results) == maxTogether || len(out.Body.Results) > 0 && over() {
			out.Body.NextCursor = cursor(position, b.Topic)
			break
		}
		e, ok, err := l.entry(ctx, b.Topic, p)
		if err == nil && ok && e.State == open {
			var r result
			if r, err = handle(ctx, b.Topic, e.EventID, o); err == nil {
				out.Body.Results = append(out.Body.Results, r)
			}
		}
		if err != nil {
			problem := l.problem(ctx, err)
			if len(out.Body.Results) == 0 {
				return nil, problem
			}
			out.Body.NextCursor = cursor(position, b.Topic) // what was done must be told
			break
		}
	}
	return out, nil
}
