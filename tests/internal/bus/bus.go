// Package bus reads events from the broker as another system would: plain Kafka, no Dapr.
package bus

import (
	"context"
	"encoding/json"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"waybill/contracts"
	"waybill/tests/internal/system"
)

// Event is what the programs read of an event about an order.
type Event struct {
	Type string
	// Order is the order's id.
	Order string
	// Code says why an order failed.
	Code string
}

// Ends reports whether an order has ended with this event.
func (e Event) Ends() bool {
	switch e.Type {
	case contracts.TypeOrderFulfilled, contracts.TypeOrderFulfillmentFailed, contracts.TypeOrderCancelled:
		return true
	default:
		return false
	}
}

// Follower reads topics from their start.
type Follower struct {
	client    *kgo.Client
	following sync.WaitGroup
	stop      context.CancelFunc
}

// Follow calls seen with every event of the topics, one after the other, until Close.
func Follow(ctx context.Context, s *system.System, seen func(Event), topics ...string) (*Follower, error) {
	status, err := s.Status()
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(status.Broker), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, err
	}
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	f := &Follower{client: client, stop: stop}
	f.following.Go(func() {
		for following.Err() == nil {
			client.PollFetches(following).EachRecord(func(record *kgo.Record) {
				var event struct {
					Type    string `json:"type"`
					Subject string `json:"subject"`
					Data    struct {
						Code string `json:"code"`
					} `json:"data"`
				}
				if json.Unmarshal(record.Value, &event) == nil {
					seen(Event{Type: event.Type, Order: strings.TrimPrefix(event.Subject, "orders/"), Code: event.Data.Code})
				}
			})
		}
	})
	return f, nil
}

// Close stops reading and returns when seen is called no more.
func (f *Follower) Close() {
	f.stop()
	f.following.Wait()
	f.client.Close()
}
