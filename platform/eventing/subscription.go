package eventing

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Subscription is one app's reading of one topic.
type Subscription struct {
	Component string
	Topic     string
	// DeadLetter is the topic that takes what can never be processed; a Raw subscription has none.
	DeadLetter string
	// Handlers are the event types this app takes from the topic; others are acknowledged unseen.
	Handlers map[string]Handler
	// Sessions, when set, has Service Bus deliver the events of one key to one replica at a time. Kafka, whose partitions do
	// as much, is not told.
	Sessions bool
	// Bulk, when set, has the events delivered in batches, and then takes them itself if it has a handler.
	Bulk *Bulk
	// Raw, when set, takes every message of the topic as it came, and neither Handlers nor Bulk are used.
	Raw RawHandler
}

// fault says why nobody can subscribe so.
func (s Subscription) fault() error {
	switch {
	case s.Component == "" || s.Topic == "":
		return fmt.Errorf("subscription to %q on %q: both must be named", s.Topic, s.Component)
	case s.Raw != nil && (s.DeadLetter != "" || s.Bulk != nil || s.Handlers != nil || s.Sessions):
		return fmt.Errorf("raw subscription to %q: it dead-letters nothing, has no other handlers and no sessions", s.Topic)
	case s.Raw == nil && (s.DeadLetter == "" || s.DeadLetter == s.Topic):
		return fmt.Errorf("subscription to %q with dead letters to %q: they must be named, and differ", s.Topic, s.DeadLetter)
	case s.Bulk != nil && (s.Bulk.Handle == nil) == (len(s.Handlers) == 0):
		return fmt.Errorf("bulk subscription to %q: either it has a handler of its own, or handlers by event type", s.Topic)
	case s.Bulk != nil && !s.takesAlone(s.Bulk.Together):
		return fmt.Errorf("bulk subscription to %q: what is taken together needs a handler that takes it alone as well", s.Topic)
	default:
		return nil
	}
}

// takesAlone reports whether each type has a handler for single events.
func (s Subscription) takesAlone(types map[string]BulkHandler) bool {
	for eventType := range types {
		if s.Handlers[eventType] == nil {
			return false
		}
	}
	return true
}

func typePath(s Subscription, eventType string) string { return "/events/" + s.Topic + "/" + eventType }
func otherPath(s Subscription) string                  { return "/events/" + s.Topic }
func bulkPath(s Subscription) string                   { return "/events/" + s.Topic + "/bulk" }

type subscriptionDescription struct {
	PubsubName      string           `json:"pubsubname"`
	Topic           string           `json:"topic"`
	Route           string           `json:"route,omitempty"`
	Routes          *routes          `json:"routes,omitempty"`
	DeadLetterTopic string           `json:"deadLetterTopic,omitempty"`
	BulkSubscribe   *bulkDescription `json:"bulkSubscribe,omitempty"`
	Metadata        transportOptions `json:"metadata,omitzero"`
}

// transportOptions are what the sidecar and its pub/sub component are told about a subscription.
type transportOptions struct {
	// RawPayload makes the sidecar pass a message on without looking into it, so that what is no CloudEvent arrives too.
	RawPayload string `json:"rawPayload,omitempty"`
	// The others are read by the Service Bus component alone.
	RequireSessions         string `json:"requireSessions,omitempty"`
	SessionIdleTimeoutInSec string `json:"sessionIdleTimeoutInSec,omitempty"`
	MaxConcurrentSessions   string `json:"maxConcurrentSessions,omitempty"`
}

// withSessions says how many keys' events are taken at a time. A session is let go when nothing has come for it for a
// second, the least that can be asked for: with the component's defaults, eight keys a minute would get their turn.
var withSessions = transportOptions{RequireSessions: "true", SessionIdleTimeoutInSec: "1", MaxConcurrentSessions: "64"}

// maxSessionBatch is the largest batch of a session. The component has room for so many batches as go into its
// maxActiveMessages, 1,000, and a session takes that room while it waits, so the batches must leave room for all sessions.
const maxSessionBatch = 10

type routes struct {
	Rules   []rule `json:"rules"`
	Default string `json:"default"`
}

type rule struct {
	Match string `json:"match"`
	Path  string `json:"path"`
}

type bulkDescription struct {
	Enabled            bool  `json:"enabled"`
	MaxMessagesCount   int   `json:"maxMessagesCount,omitempty"`
	MaxAwaitDurationMs int64 `json:"maxAwaitDurationMs,omitempty"`
}

// describe answers the sidecar's question what this app subscribes to. Each subscription has a default route, because
// Dapr sends an event that no rule takes to the dead-letter topic.
func (r *Receiver) describe(w http.ResponseWriter, req *http.Request) {
	described := make([]subscriptionDescription, 0, len(r.subscriptions))
	for _, s := range r.subscriptions {
		d := subscriptionDescription{PubsubName: s.Component, Topic: s.Topic, DeadLetterTopic: s.DeadLetter}
		if s.Sessions {
			d.Metadata = withSessions
		}
		if r.brokerRetries {
			// A sidecar without a resiliency policy would put an event there at the first failure. Without the topic it has
			// nowhere to put what is no CloudEvent, and would fail on it for ever, so it is not asked to look.
			d.DeadLetterTopic, d.Metadata.RawPayload = "", "true"
		}
		switch {
		case s.Raw != nil:
			d.Route, d.Metadata = otherPath(s), transportOptions{RawPayload: "true"}
		case s.Bulk != nil:
			together := s.Bulk.MaxMessages
			if s.Sessions && r.brokerRetries {
				together = min(together, maxSessionBatch)
			}
			d.Route = bulkPath(s)
			d.BulkSubscribe = &bulkDescription{Enabled: true, MaxMessagesCount: together, MaxAwaitDurationMs: s.Bulk.MaxAwait.Milliseconds()}
		case r.brokerRetries:
			d.Route = otherPath(s)
		default:
			d.Routes = &routes{Rules: []rule{}, Default: otherPath(s)}
			for eventType := range s.Handlers {
				d.Routes.Rules = append(d.Routes.Rules, rule{
					Match: fmt.Sprintf("has(event.type) && event.type == %q", eventType), Path: typePath(s, eventType),
				})
			}
			slices.SortFunc(d.Routes.Rules, func(a, b rule) int { return strings.Compare(a.Path, b.Path) })
		}
		described = append(described, d)
	}
	r.answer(w, req, described)
}
