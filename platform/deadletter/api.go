package deadletter

import (
	"context"
	"encoding/base64"
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
	// requestTime is how long after its start a request begins with further entries. The last one may take attemptTimeout longer.
	requestTime = 30 * time.Second
	// maxPageBytes bounds the events of one page of the list, in bytes. The event that exceeds it is still on the page.
	maxPageBytes = 4 << 20
)

// Register adds the routes that list, redrive and dismiss dead letters. The receiver is the one whose handlers failed.
func (q *Queue) Register(api huma.API, receiver *eventing.Receiver) {
	q.receiver = receiver
	huma.Register(api, huma.Operation{
		OperationID: "list-dead-letters", Method: http.MethodGet, Path: "/v1/dead-letters", Tags: []string{"dead letters"},
		Summary: "List the events that this service could not process",
		Description: "With a topic: its events, the newest first, each with the reason for which it was dead-lettered, and its redrives and dismissal. " +
			"Without one: how many dead letters each topic has.",
		Errors: []int{http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, q.listDeadLetters)
	huma.Register(api, huma.Operation{
		OperationID: "redrive-dead-letters", Method: http.MethodPost, Path: "/v1/dead-letters/redrive", Tags: []string{"dead letters"},
		Summary: "Process dead-lettered events again",
		Description: "Calls the service's own handler with each event, the oldest first. An event that is processed is no longer open; one that fails stays open " +
			"with the new reason. The event's record has the actor, the reason and the outcome. A dry run says what would be done and changes nothing. " +
			"One request handles up to 100 events, and begins with no further event after 30 seconds: next_cursor says that more are left.",
		MaxBodyBytes: rest.MaxBody,
		Errors:       []int{http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, func(ctx context.Context, in *redriveInput) (*handledOutput, error) {
		return q.closeDeadLetters(ctx, in.Body.Chosen, in.Body.Reason, q.redrive)
	})
	huma.Register(api, huma.Operation{
		OperationID: "dismiss-dead-letters", Method: http.MethodPost, Path: "/v1/dead-letters/dismiss", Tags: []string{"dead letters"},
		Summary: "Close dead-lettered events without processing them",
		Description: "The events are no longer open and stay on record, with the actor and the reason; nothing else happens. An event that is dead-lettered again is open again, " +
			"and one that was dismissed by mistake can be redriven by its id. A dry run says what would be done and changes nothing. " +
			"One request handles up to 100 events: next_cursor says that more are left.",
		MaxBodyBytes: rest.MaxBody,
		Errors:       []int{http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, func(ctx context.Context, in *dismissInput) (*handledOutput, error) {
		return q.closeDeadLetters(ctx, in.Body.Chosen, in.Body.Reason, q.dismiss)
	})
	q.describe(api.OpenAPI())
}

// describe adds to the operations' schemas what closeDeadLetters and checkTopic check.
func (q *Queue) describe(doc *huma.OpenAPI) {
	for _, parameter := range doc.Paths["/v1/dead-letters"].Get.Parameters {
		if parameter.Name == "topic" {
			parameter.Schema.Extensions = map[string]any{"enum": q.topics}
		}
	}
	for _, path := range []string{"/v1/dead-letters/redrive", "/v1/dead-letters/dismiss"} {
		body := doc.Components.Schemas.SchemaFromRef(doc.Paths[path].Post.RequestBody.Content["application/json"].Schema.Ref)
		body.Properties["topic"].Extensions = map[string]any{"enum": q.topics}
		type schema = map[string]any
		body.Extensions = schema{"oneOf": []schema{
			{"required": []string{"event_ids"}, "properties": schema{"all": schema{"const": false}, "cursor": false}},
			{"required": []string{"all"}, "properties": schema{"all": schema{"const": true}, "event_ids": false}},
		}}
	}
}

func (q *Queue) problem(ctx context.Context, err error) error {
	return rest.Failed(ctx, q.logger, err)
}

func invalid(location, message string, value any) error {
	return &rest.Problem{
		Status: http.StatusUnprocessableEntity, Code: "invalid_request", Detail: "validation failed",
		Errors: []rest.Fault{{Location: location, Message: message, Value: value}},
	}
}

func (q *Queue) checkTopic(location, topic string) error {
	if slices.Contains(q.topics, topic) {
		return nil
	}
	return invalid(location, "must be a topic that this service reads: "+strings.Join(q.topics, ", "), topic)
}

type listInput struct {
	Topic  string `query:"topic" maxLength:"255" doc:"A topic that the service reads, not its dead-letter topic."`
	State  string `query:"state" enum:"open,redriven,dismissed" doc:"Only events that are open, were redriven successfully, or were dismissed."`
	Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"20"`
	Cursor string `query:"cursor" minLength:"1" maxLength:"200" pattern:"^[A-Za-z0-9_-]+$" patternDescription:"a next_cursor of this API" doc:"The next_cursor of the previous page."`
}

type listOutput struct{ Body deadLetterPage }

type deadLetterPage struct {
	Topics     []topicCount `json:"topics" nullable:"false"`
	Items      []deadLetter `json:"items" nullable:"false"`
	NextCursor string       `json:"next_cursor,omitempty" doc:"The cursor of the next page; absent on the last one."`
}

type topicCount struct {
	Topic     string `json:"topic"`
	Open      int    `json:"open"`
	Redriven  int    `json:"redriven"`
	Dismissed int    `json:"dismissed"`
}

// deadLetter is an entry as clients see it.
type deadLetter struct {
	Topic           string              `json:"topic"`
	EventID         string              `json:"event_id"`
	Type            string              `json:"type"`
	Subject         string              `json:"subject,omitempty"`
	Key             string              `json:"key,omitempty" doc:"The partition key: events with one key keep their order."`
	State           string              `json:"state" enum:"open,redriven,dismissed"`
	Reason          string              `json:"reason" doc:"Why the event could not be processed the last time."`
	DeadLetterAt    time.Time           `json:"parked_at" doc:"When it was dead-lettered the last time."`
	DeadLetterBy    string              `json:"parked_by" doc:"The service, or sidecar for a message that never reached the service."`
	DeadLetterCount int                 `json:"parked_count" doc:"How many times it was dead-lettered."`
	Attempts        []deadLetterAttempt `json:"attempts" nullable:"false" doc:"Its redrives and its dismissal, the oldest first."`
	Event           any                 `json:"event,omitempty" doc:"The CloudEvent, its secrets masked."`
	Raw             []byte              `json:"raw,omitempty" doc:"The message, if it is not a CloudEvent."`
	Truncated       bool                `json:"truncated,omitempty" doc:"The message was too large to store; raw is its beginning."`
}

type deadLetterAttempt struct {
	Actor   string    `json:"actor"`
	Reason  string    `json:"reason"`
	At      time.Time `json:"at"`
	EndedAt time.Time `json:"ended_at,omitzero"`
	Outcome string    `json:"outcome" enum:"redriven,dismissed,failed,running,interrupted"`
	Error   string    `json:"error,omitempty"`
}

func (q *Queue) show(e entry) deadLetter {
	last := e.DeadLetterings[len(e.DeadLetterings)-1]
	shown := deadLetter{
		Topic: e.Topic, EventID: e.EventID, Type: e.Type, Subject: e.Subject, Key: e.Key, State: string(e.State), Reason: e.Reason,
		DeadLetterAt: last.At, DeadLetterBy: last.By, DeadLetterCount: len(e.DeadLetterings), Attempts: make([]deadLetterAttempt, len(e.Attempts)),
		Raw: []byte(maskedText(string(e.Raw), q.secret)), Truncated: e.Truncated,
	}
	if e.Event != nil {
		shown.Event = masked(e.Event, q.secret)
	}
	for i, a := range e.Attempts {
		if a.Outcome == running && (e.Lease == nil || e.Lease.Attempt != a.ID || !q.leased(&e)) {
			a.Outcome = interrupted
		}
		shown.Attempts[i] = deadLetterAttempt{a.Actor, a.Reason, a.At, a.EndedAt, a.Outcome, a.Error}
	}
	return shown
}

func (q *Queue) listDeadLetters(ctx context.Context, in *listInput) (*listOutput, error) {
	out := &listOutput{deadLetterPage{Topics: []topicCount{}, Items: []deadLetter{}}}
	if in.Topic == "" {
		if in.State != "" || in.Cursor != "" {
			return nil, invalid("query.topic", "is required with state or cursor", nil)
		}
		for _, topic := range q.topics {
			places, err := q.all(ctx, topic)
			if err != nil {
				return nil, q.problem(ctx, fmt.Errorf("count dead letters of %s: %w", topic, err))
			}
			out.Body.Topics = append(out.Body.Topics, count(topic, places))
		}
		return out, nil
	}
	if err := q.checkTopic("query.topic", in.Topic); err != nil {
		return nil, err
	}
	places, err := q.all(ctx, in.Topic)
	if err != nil {
		return nil, q.problem(ctx, fmt.Errorf("list dead letters of %s: %w", in.Topic, err))
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
	if out.Body.Items, out.Body.NextCursor, err = q.newest(ctx, in, places[:before]); err != nil {
		return nil, q.problem(ctx, fmt.Errorf("list dead letters of %s: %w", in.Topic, err))
	}
	return out, nil
}

// newest reads a page of entries from the end of places.
func (q *Queue) newest(ctx context.Context, in *listInput, places []place) (found []deadLetter, next string, err error) {
	found = []deadLetter{}
	size := 0
	for i, p := range slices.Backward(places) {
		if len(found) == in.Limit || size > maxPageBytes {
			return found, cursor(i+1, in.Topic), nil
		}
		if in.State != "" && in.State != string(p.state()) {
			continue
		}
		e, ok, err := q.entry(ctx, in.Topic, p)
		if err != nil {
			return nil, "", err
		}
		if ok && (in.State == "" || in.State == string(e.State)) {
			found = append(found, q.show(e))
			size += len(e.Event) + len(e.Raw)
		}
	}
	return found, "", nil
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

// cursor is a position in a topic's list. It contains the topic, so that it cannot be used for another one by mistake.
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

// Chosen selects the dead letters of a request, and says who asks.
type Chosen struct {
	Topic    string   `json:"topic" maxLength:"255"`
	EventIDs []string `json:"event_ids,omitempty" nullable:"false" minItems:"1" maxItems:"100" doc:"The events, unless all is true."`
	All      bool     `json:"all,omitempty" doc:"Every open event of the topic, up to 100 in one request."`
	Cursor   string   `json:"cursor,omitempty" minLength:"1" maxLength:"200" pattern:"^[A-Za-z0-9_-]+$" patternDescription:"a next_cursor of this API" doc:"With all: the next_cursor of the previous answer."`
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
		NotTried   []string `json:"not_tried,omitempty" doc:"Events that were not tried for lack of time; send them again."`
		NextCursor string   `json:"next_cursor,omitempty" doc:"With all: the cursor of the next request; absent if every open event was tried."`
	}
}

// closeDeadLetters calls handle, which redrives or dismisses, for each chosen dead letter.
func (q *Queue) closeDeadLetters(ctx context.Context, b Chosen, reason string,
	handle func(ctx context.Context, topic, eventID string, o request) (result, error),
) (*handledOutput, error) {
	if err := q.checkTopic("body.topic", b.Topic); err != nil {
		return nil, err
	}
	if b.All == (len(b.EventIDs) > 0) {
		return nil, invalid("body.event_ids", "exactly one of event_ids and all must be set", nil)
	}
	after := 0
	if b.Cursor != "" {
		var ok bool
		if after, ok = parseCursor(b.Cursor, b.Topic); !ok || !b.All {
			return nil, invalid("body.cursor", "must be the next_cursor of an answer for all events of the same topic", b.Cursor)
		}
	}
	o := request{b.Actor, reason, b.DryRun}
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
				problem := q.problem(ctx, err)
				if i == 0 {
					return nil, problem
				}
				out.Body.NotTried = b.EventIDs[i:] // the answer must still report what was done
				break
			}
			out.Body.Results = append(out.Body.Results, r)
		}
		return out, nil
	}
	places, err := q.all(ctx, b.Topic)
	if err != nil {
		return nil, q.problem(ctx, fmt.Errorf("read the dead letters of %s: %w", b.Topic, err))
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
		e, ok, err := q.entry(ctx, b.Topic, p)
		if err == nil && ok && e.State == open {
			var r result
			if r, err = handle(ctx, b.Topic, e.EventID, o); err == nil {
				out.Body.Results = append(out.Body.Results, r)
			}
		}
		if err != nil {
			problem := q.problem(ctx, err)
			if len(out.Body.Results) == 0 {
				return nil, problem
			}
			out.Body.NextCursor = cursor(position, b.Topic) // the answer must still report what was done
			break
		}
	}
	return out, nil
}
