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
	case s.Raw != nil && (s.DeadLetter != "" || s.Bulk != nil || s.Handlers != nil):
		return fmt.Errorf("raw subscription to %q: it parks nothing and has no other handlers", s.Topic)
	case s.Raw == nil && (s.DeadLetter == "" || s.DeadLetter == s.Topic):
		return fmt.Errorf("subscription to %q with dead letters to %q: they must be named, and differ", s.Topic, s.DeadLetter)
	case s.Bulk != nil && (s.Bulk.Handle == nil) == (len(s.Handlers) == 0):
		return fmt.Errorf("bulk subscription to %q: either it has a handler of its own, or handlers by event type", s.Topic)
	default:
		return nil
	}
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
	Metadata        rawDescription   `json:"metadata,omitzero"`
}

// rawDescription makes the sidecar pass a message on without looking into it, so that what is no CloudEvent arrives too.
type rawDescription struct {
	RawPayload string `json:"rawPayload"`
}

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
		switch {
		case s.Raw != nil:
			d.Route, d.Metadata = otherPath(s), rawDescription{"true"}
		case s.Bulk != nil:
			d.Route = bulkPath(s)
			d.BulkSubscribe = &bulkDescription{Enabled: true, MaxMessagesCount: s.Bulk.MaxMessages, MaxAwaitDurationMs: s.Bulk.MaxAwait.Milliseconds()}
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
