package kusto

import (
	"context"
	"sync"
)

// remembered is the number of ids in one of the two generations.
const remembered = 200_000

// recent remembers the events that this process stores and stored lately, so that each is reported as new once, even before the
// cluster shows it. It has two generations: when the newer one is full, the older one is dropped.
type recent struct {
	mu         sync.Mutex
	newer      map[string]struct{}
	older      map[string]struct{}
	inProgress map[string]*claim
}

func newRecent() *recent {
	return &recent{newer: map[string]struct{}{}, older: map[string]struct{}{}, inProgress: map[string]*claim{}}
}

// claim is the lock of one append on the ids that are new to this process.
type claim struct {
	of    *recent
	ids   []string
	fresh []bool
	ended chan struct{}
}

// claim returns the ids that are new to this process and locks them until done. It waits for an id that another append has
// locked, without holding locks meanwhile, so two appends never wait for each other.
func (r *recent) claim(ctx context.Context, ids []string) (*claim, error) {
	for {
		c, other := r.try(ids)
		if other == nil {
			return c, nil
		}
		select {
		case <-other.ended:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *recent) try(ids []string) (mine, other *claim) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if other := r.inProgress[id]; other != nil {
			return nil, other
		}
	}
	c := &claim{of: r, ids: make([]string, 0, len(ids)), fresh: make([]bool, len(ids)), ended: make(chan struct{})}
	for i, id := range ids {
		if r.knows(id) || r.inProgress[id] != nil {
			continue
		}
		r.inProgress[id] = c
		c.ids = append(c.ids, id)
		c.fresh[i] = true
	}
	return c, nil
}

func (r *recent) knows(id string) bool {
	if _, ok := r.newer[id]; ok {
		return true
	}
	_, ok := r.older[id]
	return ok
}

// done releases the lock. Ids that are stored, by this append or before it, are remembered.
func (c *claim) done(stored bool) {
	r := c.of
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range c.ids {
		delete(r.inProgress, id)
		if !stored {
			continue
		}
		if len(r.newer) >= remembered {
			r.older, r.newer = r.newer, make(map[string]struct{}, remembered)
		}
		r.newer[id] = struct{}{}
	}
	close(c.ended)
}
