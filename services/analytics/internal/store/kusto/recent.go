package kusto

import (
	"context"
	"sync"
)

// remembered is how many ids one of the two generations holds.
const remembered = 200_000

// recent knows the events that this process stores and stored lately, so that each is called new once whatever the cluster
// shows. It forgets by generations: the older one goes when the newer one is full.
type recent struct {
	mu         sync.Mutex
	newer      map[string]struct{}
	older      map[string]struct{}
	inProgress map[string]*claim
}

func newRecent() *recent {
	return &recent{newer: map[string]struct{}{}, older: map[string]struct{}{}, inProgress: map[string]*claim{}}
}

// claim is one append's hold on the ids that are new to this process.
type claim struct {
	of    *recent
	ids   []string
	fresh []bool
	ended chan struct{}
}

// claim says which ids are new to this process, and holds those until done. An id that another append holds is waited for,
// and nothing is held meanwhile, so two appends never wait for each other.
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

// done ends the hold. Ids that are stored, by this append or before it, are remembered.
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
