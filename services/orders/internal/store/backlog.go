package store

import (
	"context"
	"fmt"
	"sync"

	"waybill/platform/state"
	"waybill/services/orders/internal/order"
	"waybill/services/orders/internal/recent"
)

// backlog is the ids of the orders that have not ended. The request that placed an order and the event that confirms it
// both see to it that the order is there, at about the same time; as long as one process does both, it is added once.
type backlog struct {
	ids *state.Backlog
	// added holds orders that were stored when this process added them.
	added *recent.Set[stored]

	mu sync.Mutex
	// adding holds the additions of such orders that are under way; each closes its channel when it has ended.
	adding map[stored]chan struct{}
}

// stored names an order in the store. The time tells it from an earlier one of the same id, which was received and
// vanished.
type stored struct {
	id      order.ID
	created int64 // in nanoseconds
}

// rememberedAdditions is how many orders at least a process knows that it added.
const rememberedAdditions = 10_000

func newBacklog(s state.Store, writer string) *backlog {
	return &backlog{
		ids:   state.NewBacklog(s, "orders", writer),
		added: recent.NewSet[stored](rememberedAdditions), adding: map[stored]chan struct{}{},
	}
}

// addNew adds an order that is about to be saved. It always writes: a sweep may take out what is not in the store.
func (b *backlog) addNew(ctx context.Context, id order.ID) error { return b.ids.Add(ctx, string(id)) }

// addStored adds an order that is in the store and has not ended, unless this process did so before, also when it was stored.
// Then the id is still there: a sweep, which reads an order after it has seen the id, takes out only what it finds ended
// or missing; the order was there all the while, and what has ended has ended for good.
func (b *backlog) addStored(ctx context.Context, o *order.Order) error {
	this := stored{o.ID(), o.Snapshot().CreatedAt.UnixNano()}
	for {
		done, ended := b.begin(this)
		if done {
			return nil
		}
		if ended == nil {
			break
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return fmt.Errorf("wait for an addition to the backlog: %w", ctx.Err())
		}
	}
	added := false
	defer func() { b.end(this, added) }()
	if err := b.ids.Add(ctx, string(this.id)); err != nil {
		return err
	}
	added = true
	return nil
}

// begin reports whether the order was added; else it returns what the addition under way closes when it has ended, or begins
// one and returns nil.
func (b *backlog) begin(this stored) (done bool, ended <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.added.Has(this) {
		return true, nil
	}
	if other, underWay := b.adding[this]; underWay {
		return false, other
	}
	b.adding[this] = make(chan struct{})
	return false, nil
}

func (b *backlog) end(this stored, added bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if added {
		b.added.Add(this)
	}
	close(b.adding[this])
	delete(b.adding, this)
}
