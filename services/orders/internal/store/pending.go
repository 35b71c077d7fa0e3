package store

import (
	"context"
	"fmt"
	"sync"

	"waybill/platform/reconcile"
	"waybill/platform/state"
	"waybill/services/orders/internal/order"
	"waybill/services/orders/internal/recent"
)

// pending is the pending set of orders. The request that places an order and the event that confirms it both add the order,
// at about the same time. If one process does both, it adds the order once.
type pending struct {
	*reconcile.Pending

	// added holds orders that were stored when this process added them.
	added *recent.Set[stored]

	mu sync.Mutex
	// adding holds the additions that run; each closes its channel when it ends.
	adding map[stored]chan struct{}
}

// stored names a stored order. The time distinguishes it from an earlier order of the same id that was never confirmed and
// expired.
type stored struct {
	id      order.ID
	created int64 // in nanoseconds
}

// rememberedAdditions is the least number of additions that a process remembers.
const rememberedAdditions = 10_000

func newPending(s state.Store, writer string) *pending {
	return &pending{
		Pending: reconcile.NewPending(s, "orders", writer),
		added:   recent.NewSet[stored](rememberedAdditions), adding: map[stored]chan struct{}{},
	}
}

// addNew adds an order that is about to be saved. It always writes, because the reconciler may remove the id of an order that
// is not stored.
func (p *pending) addNew(ctx context.Context, id order.ID) error { return p.Add(ctx, string(id)) }

// addStored adds a stored order that has not ended, unless this process added it before when it was already stored. In that
// case the id is still in the set: the reconciler reads an order after it read the id, and removes only orders that are
// missing or have ended; this one has been stored since, and an ended order never opens again.
func (p *pending) addStored(ctx context.Context, o *order.Order) error {
	this := stored{o.ID(), o.Snapshot().CreatedAt.UnixNano()}
	for {
		done, ended := p.begin(this)
		if done {
			return nil
		}
		if ended == nil {
			break
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return fmt.Errorf("wait for an addition to the pending set: %w", ctx.Err())
		}
	}
	added := false
	defer func() { p.end(this, added) }()
	if err := p.Add(ctx, string(this.id)); err != nil {
		return err
	}
	added = true
	return nil
}

// begin reports whether the order was added. If not, it returns the channel of the addition that runs, or begins one and
// returns nil.
func (p *pending) begin(this stored) (done bool, ended <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.added.Has(this) {
		return true, nil
	}
	if other, running := p.adding[this]; running {
		return false, other
	}
	p.adding[this] = make(chan struct{})
	return false, nil
}

func (p *pending) end(this stored, added bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if added {
		p.added.Add(this)
	}
	close(p.adding[this])
	delete(p.adding, this)
}
