package local

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"waybill/devrun/internal/broker"
	"waybill/devrun/internal/inbox"
	"waybill/devrun/internal/scheduler"
)

// client asks local processes; it keeps no connections, since those would outlive the process that answered.
var client = &http.Client{
	Timeout:   5 * time.Second,
	Transport: &http.Transport{DisableKeepAlives: true},
}

// answers is ready when a GET of target is answered with code.
func answers(target string, code int) func(context.Context) error {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("not answering yet: %w", err)
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode == code {
			return nil
		}
		const enough = 300
		body, err := io.ReadAll(io.LimitReader(resp.Body, enough))
		if err != nil {
			return fmt.Errorf("GET %s: status %d", target, resp.StatusCode)
		}
		return fmt.Errorf("GET %s: status %d: %s", target, resp.StatusCode, compact(body))
	}
}

func compact(body []byte) string {
	var b strings.Builder
	var value any
	if json.Unmarshal(body, &value) == nil {
		if text, err := json.Marshal(value); err == nil {
			return string(text)
		}
	}
	b.Write(body)
	return strings.Join(strings.Fields(b.String()), " ")
}

// kafkaServes is ready when the broker at addr serves all topics.
func kafkaServes(addr string, topics []string) func(context.Context) error {
	return func(ctx context.Context) error { return broker.Check(ctx, addr, topics) }
}

// all is ready when every one of checks is.
func all(checks ...func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, check := range checks {
			if err := check(ctx); err != nil {
				return err
			}
		}
		return nil
	}
}

// receives is ready when the inbox takes mail at smtpAddr and SMS and push at httpURL.
func receives(smtpAddr, httpURL string) func(context.Context) error {
	return func(ctx context.Context) error { return inbox.Check(ctx, client, smtpAddr, httpURL) }
}

// reads is ready when the consumer group has its partitions of topics.
func reads(addr, group string, topics func(context.Context) ([]string, error)) func(context.Context) error {
	return func(ctx context.Context) error {
		wanted, err := topics(ctx)
		if err != nil || len(wanted) == 0 {
			return err
		}
		return broker.Reads(ctx, addr, group, wanted)
	}
}

// telemetryGroup is the app's consumer group on the telemetry bus, as components/local names it. That on the order bus is named
// as the app is.
func telemetryGroup(app string) string { return app + "-telemetry" }

// subscribed asks the app at base, as its sidecar does, which topics of a bus it subscribes to.
func subscribed(base, token, bus string) func(context.Context) ([]string, error) {
	return func(ctx context.Context) ([]string, error) {
		target := base + "/dapr/subscribe"
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Dapr-Api-Token", token)
		resp, err := client.Do(req)
		if err != nil {
			return nil, fmt.Errorf("not saying yet what it subscribes to: %w", err)
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode == http.StatusNotFound { // Dapr takes this as: to nothing
			return nil, nil
		}
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("GET %s: status %d", target, resp.StatusCode)
		}
		var subscriptions []struct {
			Component string `json:"pubsubname"`
			Topic     string `json:"topic"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&subscriptions); err != nil {
			return nil, fmt.Errorf("GET %s: %w", target, err)
		}
		var topics []string
		for _, s := range subscriptions {
			if s.Component == bus {
				topics = append(topics, s.Topic)
			}
		}
		return topics, nil
	}
}

// schedulerLeads is ready when the scheduler is healthy and has its leadership; healthy alone, it may still be waiting.
func schedulerLeads(health string, leadership *scheduler.Leadership) func(context.Context) error {
	healthy := answers(health, http.StatusOK)
	return func(ctx context.Context) error {
		if err := healthy(ctx); err != nil {
			return err
		}
		return leadership.Check(ctx)
	}
}
