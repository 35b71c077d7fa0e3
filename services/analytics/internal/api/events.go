package api

import (
	"context"
	"fmt"
	"slices"
	"time"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/services/analytics/internal/event"
)

// fulfilled turns orders that were fulfilled into one purchase for each of their lines. They go the way of every other event,
// so each is counted once by its id, however often the order is told.
func (a *API) fulfilled(ctx context.Context, delivered []eventing.Event) []error {
	errs := make([]error, len(delivered))
	var purchases []eventing.Event
	var orders []int
	for i, e := range delivered {
		if e.Type != contracts.TypeOrderFulfilled {
			continue
		}
		lines, err := linesOf(e, time.Now(), a.MaxAhead)
		if err != nil {
			errs[i] = err
			continue
		}
		purchases, orders = append(purchases, lines...), append(orders, i)
	}
	for part := range slices.Chunk(purchases, chunk) {
		if err := a.Ingest.Add(ctx, part); err != nil {
			// It may be the fault of one order among them; the Receiver finds out which. Lines that arrived are known by their ids.
			for _, i := range orders {
				errs[i] = fmt.Errorf("pass on purchases: %w", err)
			}
			break
		}
	}
	return errs
}

// linesOf are the purchases of an order that was fulfilled. An order from the future, by more than ahead, counts as fulfilled now:
// the clock of orders is ahead, and the purchases would be refused.
func linesOf(e eventing.Event, now time.Time, ahead time.Duration) ([]eventing.Event, error) {
	var data contracts.OrderFulfilled
	if err := e.Decode(&data); err != nil {
		return nil, err
	}
	if data.FulfilledAt.IsZero() {
		data.FulfilledAt = e.Time
	}
	if data.FulfilledAt.Sub(now) > ahead {
		data.FulfilledAt = now.UTC()
	}
	purchases, err := event.Purchases(data)
	if err != nil {
		return nil, eventing.Reject(err)
	}
	lines, err := published(purchases)
	if err != nil {
		return nil, eventing.Reject(err)
	}
	return lines, nil
}

// published are the events as they stand on the bus. Their sources and ids are those of the facts.
func published(events []event.Event) ([]eventing.Event, error) {
	all := make([]eventing.Event, len(events))
	for i := range events {
		e, err := eventing.New(events[i].ID(), events[i].Source(), contracts.Version, events[i].At(), events[i].Payload())
		if err != nil {
			return nil, err
		}
		all[i] = e
	}
	return all, nil
}
