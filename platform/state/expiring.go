package state

import (
	"context"
	"time"
)

// Expiring is a Store on another one in which documents vanish some time after they were last written.
type Expiring struct {
	Store
	ttl     time.Duration
	expires func(key string) bool
}

// NewExpiring returns a Store on s whose documents, those of the keys for which expires says so, vanish after ttl unless a write has
// a TTL of its own. A ttl of 0 keeps them, and returns s.
func NewExpiring(s Store, ttl time.Duration, expires func(key string) bool) Store {
	if ttl <= 0 {
		return s
	}
	return &Expiring{s, ttl, expires}
}

// Create is the other store's Create, with the TTL.
func (e *Expiring) Create(ctx context.Context, key string, doc any, options ...Option) error {
	return e.Store.Create(ctx, key, doc, e.with(key, options)...)
}

// Replace is the other store's Replace, with the TTL.
func (e *Expiring) Replace(ctx context.Context, key string, doc any, etag ETag, options ...Option) error {
	return e.Store.Replace(ctx, key, doc, etag, e.with(key, options)...)
}

func (e *Expiring) with(key string, options []Option) []Option {
	if !e.expires(key) {
		return options
	}
	return append([]Option{TTL(e.ttl)}, options...)
}
