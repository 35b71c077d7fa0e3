package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"waybill/tests/internal/system"
)

// message is what the tests read of a message that the inbox received.
type message struct {
	Channel string
	To      string
	Subject string
	Text    string
	ID      string `json:"notification_id"`
}

// received reads every message that the inbox has accepted so far.
func received(s *system.System) ([]message, error) {
	status, err := s.Status()
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(status.Inbox.File)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []message
	for line := range bytes.Lines(content) {
		var m message
		if err := json.Unmarshal(line, &m); err != nil {
			break // the last one is being written
		}
		all = append(all, m)
	}
	return all, nil
}

// messages waits until the customer of an order has at least n messages, and returns all of them.
func messages(ctx context.Context, s *system.System, orderID string, n int) ([]message, error) {
	return until(ctx, s, fmt.Sprintf("%d messages about %s", n, orderID), n, func(m message) bool { return strings.HasPrefix(m.ID, orderID+":") })
}

// alert waits until the operators have a message about an order.
func alert(ctx context.Context, s *system.System, orderID string) ([]message, error) {
	return until(ctx, s, "an alert about "+orderID, 1, func(m message) bool {
		return strings.HasPrefix(m.To, "operators@") && strings.Contains(m.Text+m.Subject, orderID)
	})
}

func until(ctx context.Context, s *system.System, what string, n int, wanted func(m message) bool) ([]message, error) {
	for {
		all, err := received(s)
		if err != nil {
			return nil, err
		}
		found := slices.DeleteFunc(all, func(m message) bool { return !wanted(m) })
		if len(found) >= n {
			return found, nil
		}
		if !wait(ctx, 20*time.Millisecond) {
			return found, fmt.Errorf("the inbox has %d, want %s: %w", len(found), what, ctx.Err())
		}
	}
}
