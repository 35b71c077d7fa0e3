package state

import (
	"context"
	"fmt"

	"golang.org/x/sync/semaphore"
)

// limited is a Store that limits the concurrent calls of another Store. Waiting callers go in the order in which they came. A
// SQLite component keeps two connections open, and opens and closes another one for each further concurrent call: there, two
// concurrent calls are faster than many. A remote store needs many concurrent calls and no limit.
type limited struct {
	store Store
	slots *semaphore.Weighted
	// queue admits as many callers to the wait for a slot as there are slots; all others wait for the queue. It is nil for
	// callers with priority.
	queue *semaphore.Weighted
}

// WithConcurrencyLimit returns a Store that makes at most n concurrent calls to s. If n is not positive, there is no limit and
// it returns s.
func WithConcurrencyLimit(s Store, n int) Store {
	if n <= 0 {
		return s
	}
	return &limited{store: s, slots: semaphore.NewWeighted(int64(n)), queue: semaphore.NewWeighted(int64(n))}
}

// WithPriority returns a Store that shares the concurrency limit of s, and whose callers go ahead of those who wait at s. At most
// as many other callers as there are slots go ahead of them, so neither side starves the other. It is for calls that many
// callers wait for together. If s has no limit, WithPriority returns s.
func WithPriority(s Store) Store {
	if l, ok := s.(*limited); ok {
		return &limited{store: l.store, slots: l.slots}
	}
	return s
}

func (l *limited) do(ctx context.Context, call func() error) error {
	for _, wait := range []*semaphore.Weighted{l.queue, l.slots} {
		if wait == nil {
			continue
		}
		if err := wait.Acquire(ctx, 1); err != nil {
			return fmt.Errorf("wait for a slot of the state store: %w: %w", ErrUnavailable, err)
		}
		defer wait.Release(1)
	}
	return call()
}

// Get calls the other store's Get when a slot is free.
func (l *limited) Get(ctx context.Context, key string, doc any) (etag ETag, err error) {
	err = l.do(ctx, func() (err error) { etag, err = l.store.Get(ctx, key, doc); return err })
	return etag, err
}

// GetMany calls the other store's GetMany when a slot is free.
func (l *limited) GetMany(ctx context.Context, keys []string) (docs map[string][]byte, err error) {
	err = l.do(ctx, func() (err error) { docs, err = l.store.GetMany(ctx, keys); return err })
	return docs, err
}

// Create calls the other store's Create when a slot is free.
func (l *limited) Create(ctx context.Context, key string, doc any, options ...Option) error {
	return l.do(ctx, func() error { return l.store.Create(ctx, key, doc, options...) })
}

// Replace calls the other store's Replace when a slot is free.
func (l *limited) Replace(ctx context.Context, key string, doc any, etag ETag, options ...Option) error {
	return l.do(ctx, func() error { return l.store.Replace(ctx, key, doc, etag, options...) })
}
