package eventing

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Subscription says how this app reads one topic.
type Subscription struct {
	Component string
	Topic     string
	// DeadLetter is the topic for events that can never be processed. A Raw subscription has none.
	DeadLetter string
	// Handlers are the handlers by event type. Events of other types are acknowledged and ignored.
	Handlers map[string]Handler
	// Sessions makes Service Bus deliver the events of one key to one replica at a time. Kafka does so by its partitions and
	// ignores it.
	Sessions bool
	// Bulk, if set, has the events delivered in batches.
	Bulk *Bulk
	// Raw, if set, gets every message of the topic as it came. Then neither Handlers nor Bulk may be set.
	Raw RawHandler
}

// fault says what is wrong with the subscription.
func (s Subscription) fault() error {
	switch {
	case s.Component == "" || s.Topic == "":
		return fmt.Errorf("subscription to topic %q of component %q: both must be set", s.Topic, s.Component)
	case s.Raw != nil && (s.DeadLetter != "" || s.Bulk != nil || s.Handlers != nil || s.Sessions):
		return fmt.Errorf("raw subscription to %q: it must not have a dead-letter topic, other handlers or sessions", s.Topic)
	case s.Raw == nil && (s.DeadLetter == "" || s.DeadLetter == s.Topic):
		return fmt.Errorf("subscription to %q with dead letters to %q: the dead-letter topic must be set and be another topic", s.Topic, s.DeadLetter)
	case s.Bulk != nil && (s.Bulk.Handle == nil) == (len(s.Handlers) == 0):
		return fmt.Errorf("bulk subscription to %q: it must have either a bulk handler or handlers by event type", s.Topic)
	case s.Bulk != nil && !s.handleEach(s.Bulk.Together):
		return fmt.Errorf("bulk subscription to %q: each type in Together must have a handler for single events too", s.Topic)
	default:
		return nil
	}
}

// handleEach reports whether each type has a handler for single events.
func (s Subscription) handleEach(types map[string]BulkHandler) bool {
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

// transportOptions are a subscription's settings for the sidecar and its pub/sub component.
type transportOptions struct {
	// RawPayload makes the sidecar deliver messages without decoding them, so that one that is not a CloudEvent arrives too.
	RawPayload string `json:"rawPayload,omitempty"`
	// Only the Service Bus component reads the others.
	RequireSessions         string `json:"requireSessions,omitempty"`
	SessionIdleTimeoutInSec string `json:"sessionIdleTimeoutInSec,omitempty"`
	MaxConcurrentSessions   string `json:"maxConcurrentSessions,omitempty"`
}

// withSessions lets 64 keys be handled at the same time. A session ends when nothing arrived for a second, the least that the
// component allows: with its defaults only eight keys a minute would be handled.
var withSessions = transportOptions{RequireSessions: "true", SessionIdleTimeoutInSec: "1", MaxConcurrentSessions: "64"}

// maxSessionBatch is the largest batch of a session. The component holds at most 1,000 messages (maxActiveMessages), and each
// waiting session reserves a batch of them, so the batches of all sessions must fit.
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

// describe answers the sidecar's request for this app's subscriptions. Each subscription has a default route, because Dapr
// dead-letters an event that matches no rule.
func (r *Receiver) describe(w http.ResponseWriter, req *http.Request) {
	described := make([]subscriptionDescription, 0, len(r.subscriptions))
	for _, s := range r.subscriptions {
		d := subscriptionDescription{PubsubName: s.Component, Topic: s.Topic, DeadLetterTopic: s.DeadLetter}
		if s.Sessions {
			d.Metadata = withSessions
		}
		if r.brokerRetries {
			// A sidecar without a resiliency policy would dead-letter an event at its first failure. Without a dead-letter topic
			// it would fail for ever on a message that is not a CloudEvent, so it must not decode messages.
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
