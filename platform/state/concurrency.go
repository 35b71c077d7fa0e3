package state

import (
	"context"
	"fmt"
)

// limited is a Store on another one that is asked only so many things at a time; whoever comes then waits for a turn. A
// SQLite component keeps two connections open, and opens and closes a further one for every call beyond: there two at a time
// are faster than many. A store that is far away wants many at a time, and no limit.
type limited struct {
	store Store
	turns chan struct{}
	// lobby holds as many callers as there are turns; all others wait before it. Nil for those who need not.
	lobby chan struct{}
}

// WithConcurrencyLimit returns a Store that has at most n calls of s under way. None is a limit that is not positive: then it is s.
func WithConcurrencyLimit(s Store, n int) Store {
	if n <= 0 {
		return s
	}
	return &limited{store: s, turns: make(chan struct{}, n), lobby: make(chan struct{}, n)}
}

// WithPriority returns a Store with the same turns whose callers pass those who wait for one at s. They share the turns with at most as
// many others as there are, so neither keeps the other out. It is for calls that many callers wait for together. A store without a
// limit is returned as it is.
func WithPriority(s Store) Store {
	if l, ok := s.(*limited); ok {
		return &limited{store: l.store, turns: l.turns}
	}
	return s
}

func (l *limited) turn(ctx context.Context, call func() error) error {
	for _, place := range []chan struct{}{l.lobby, l.turns} {
		if place == nil {
			continue
		}
		select {
		case place <- struct{}{}:
			defer func() { <-place }()
		case <-ctx.Done():
			return fmt.Errorf("wait for a turn at the state store: %w: %w", ErrUnavailable, ctx.Err())
		}
	}
	return call()
}

// Get is the other store's Get, in its turn.
func (l *limited) Get(ctx context.Context, key string, doc any) (etag ETag, err error) {
	err = l.turn(ctx, func() (err error) { etag, err = l.store.Get(ctx, key, doc); return err })
	return etag, err
}

// GetMany is the other store's GetMany, in its turn.
func (l *limited) GetMany(ctx context.Context, keys []string) (docs map[string][]byte, err error) {
	err = l.turn(ctx, func() (err error) { docs, err = l.store.GetMany(ctx, keys); return err })
	return docs, err
}

// Create is the other store's Create, in its turn.
func (l *limited) Create(ctx context.Context, key string, doc any, options ...Option) error {
	return l.turn(ctx, func() error { return l.store.Create(ctx, key, doc, options...) })
}

// Replace is the other store's Replace, in its turn.
func (l *limited) Replace(ctx context.Context, key string, doc any, etag ETag, options ...Option) error {
	return l.turn(ctx, func() error { return l.store.Replace(ctx, key, doc, etag, options...) })
}
