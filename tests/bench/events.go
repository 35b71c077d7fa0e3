package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"waybill/contracts"
	"waybill/tests/internal/client"
	"waybill/tests/internal/system"
)

const (
	// together is how many events are handed in at a time: the most that one request to a sidecar carries.
	together = 500
	// clients is how many batches are handed in concurrently.
	clients = 4
	// catalogue is the number of products in the events, visits the number of sessions that have events at a time.
	catalogue, visits = 10_000, 1_000
	// algorithm makes all recommendations.
	algorithm = "bench"
)

// feed is the system that events are measured on: it accepts them in batches and counts those that have arrived.
type feed interface {
	measured
	name() string
	// hand gives events in and returns when they are accepted.
	hand(ctx context.Context, events []contracts.Payload) error
	// arrived is how many events were accepted and processed since the start.
	arrived(ctx context.Context) (int64, error)
}

// shop makes events: of twenty, sixteen views, three purchases and one recommendation. Each has its own id.
type shop struct {
	run  string
	last atomic.Int64
}

func newShop() *shop { return &shop{run: rand.Text()[:8]} }

func (s *shop) batch(n int, at time.Time) []contracts.Payload {
	batch := make([]contracts.Payload, n)
	for i := range batch {
		batch[i] = s.event(s.last.Add(1), at)
	}
	return batch
}

func (s *shop) event(n int64, at time.Time) contracts.Payload {
	id, user, session := fmt.Sprintf("%s-%d", s.run, n), fmt.Sprintf("USER-%d", n%visits), fmt.Sprintf("SESSION-%d", n%visits)
	item := fmt.Sprintf("PROD-%05d", n*7919%catalogue) // a prime spreads the kinds over all products
	switch kind := n % 20; {
	case kind < 16:
		return contracts.ProductViewed{EventID: id, UserID: user, SessionID: session, ProductID: item, Timestamp: at}
	case kind < 19:
		return contracts.ProductPurchased{
			EventID: id, UserID: user, SessionID: session, ProductID: item, Value: contracts.Amount(4_000+n%1_000) * contracts.MinorUnit("USD"), Currency: "USD", Quantity: 1, Timestamp: at,
		}
	default:
		return contracts.RecommendationGenerated{
			EventID: id, UserID: user, SessionID: session, ProductID: item, Algorithm: algorithm, ConfidenceScores: []float64{0.75}, Timestamp: at,
		}
	}
}

// flow hands events in for the time d, as fast as they are accepted, and measures until the last has arrived.
func flow(ctx context.Context, f feed, d time.Duration) (result, error) {
	r := result{subject: f.name()}
	start, err := f.arrived(ctx)
	if err != nil {
		return r, err
	}
	before, err := takeUsage(f)
	if err != nil {
		return r, err
	}
	from := time.Now()
	var sent atomic.Int64
	events := newShop()
	handing, handCtx := errgroup.WithContext(ctx)
	for range clients {
		handing.Go(func() error {
			for time.Since(from) < d && handCtx.Err() == nil {
				if err := f.hand(handCtx, events.batch(together, time.Now().UTC())); err != nil {
					return err
				}
				sent.Add(together)
			}
			return nil
		})
	}
	if err := errors.Join(handing.Wait(), ctx.Err()); err != nil {
		return r, fmt.Errorf("%s: %w", f.name(), err)
	}
	handed := time.Now()
	if err := arrive(ctx, f, start+sent.Load()); err != nil {
		return r, err
	}
	to := time.Now()
	after, err := takeUsage(f)
	if err != nil {
		return r, err
	}
	r.done, r.window, r.span, r.took = int(sent.Load()), to.Sub(from), to.Sub(from), []time.Duration{to.Sub(handed)}
	r.usage, err = after.since(before)
	return r, err
}

// arrive waits until want events have arrived.
func arrive(ctx context.Context, f feed, want int64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, pieceTimeout, fmt.Errorf("not done within %s", pieceTimeout))
	defer cancel()
	for {
		got, err := f.arrived(ctx)
		if err == nil && got >= want {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %d of %d events: %w", f.name(), got, want, context.Cause(ctx))
		}
		wait(ctx, nil, 20*time.Millisecond)
	}
}

// counting is analytics of the whole system. An event is handed in over REST and has arrived when it is stored and counted.
type counting struct {
	system *system.System
	url    string
}

func newCounting(s *system.System) (*counting, error) {
	status, err := s.Status()
	if err != nil {
		return nil, err
	}
	return &counting{system: s, url: status.Apps[contracts.AppAnalytics].URL + "/v1/analytics"}, nil
}

func (c *counting) name() string { return "analytics" }

func (c *counting) hand(ctx context.Context, events []contracts.Payload) error {
	text, err := lines(events)
	if err != nil {
		return err
	}
	code, _, answer, err := client.Call(ctx, http.MethodPost, c.url+"/events", text, "Content-Type", "application/x-ndjson")
	if err == nil && code != http.StatusAccepted {
		err = fmt.Errorf("hand in events: %d %s", code, answer)
	}
	return err
}

// lines are events as NDJSON in the form in which clients send them: with their type.
func lines(events []contracts.Payload) ([]byte, error) {
	var text bytes.Buffer
	for _, e := range events {
		body, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&text, "{%q:%q,%s\n", "event_type", e.EventType(), body[1:])
	}
	return text.Bytes(), nil
}

// arrived adds up the counted events; an event is counted after it is stored. Every recommendation has one score.
func (c *counting) arrived(ctx context.Context) (int64, error) {
	var sum int64
	for _, name := range []string{"total_views", "total_purchases", "recommendation_confidence_" + algorithm} {
		query := url.Values{"name": {name}, "window": {"1h"}}
		code, _, answer, err := client.Call(ctx, http.MethodGet, c.url+"/metrics?"+query.Encode(), nil)
		if err != nil {
			return 0, err
		}
		if code == http.StatusNotFound {
			continue // nothing was counted yet
		}
		var metric struct {
			Count int64 `json:"count"`
		}
		if code != http.StatusOK {
			return 0, fmt.Errorf("metric %s: %d %s", name, code, answer)
		}
		if err := json.Unmarshal(answer, &metric); err != nil {
			return 0, fmt.Errorf("metric %s: %w", name, err)
		}
		sum += metric.Count
	}
	return sum, nil
}

// processes are those of the system that an event passes.
func (c *counting) processes() ([]process, error) {
	status, err := c.system.Status()
	if err != nil {
		return nil, err
	}
	var found []process
	for _, p := range status.Processes {
		switch p.Name {
		case "broker", contracts.AppAnalytics, contracts.AppAnalytics + "-sidecar":
			found = append(found, process{name: p.Name, pid: p.PID})
		}
	}
	return found, nil
}
