package state

import (
	"context"
	"time"
)

// Expiring is a Store on another Store whose documents expire some time after their last write.
type Expiring struct {
	Store
	ttl     time.Duration
	expires func(key string) bool
}

// NewExpiring returns a Store on s. Documents for which expires(key) is true expire after ttl, unless the write has its own TTL. If
// ttl is not positive, it returns s.
func NewExpiring(s Store, ttl time.Duration, expires func(key string) bool) Store {
	if ttl <= 0 {
		return s
	}
	return &Expiring{s, ttl, expires}
}

// Create calls the other store's Create with the TTL.
func (e *Expiring) Create(ctx context.Context, key string, doc any, options ...Option) error {
	return e.Store.Create(ctx, key, doc, e.with(key, options)...)
}

// Replace calls the other store's Replace with the TTL.
func (e *Expiring) Replace(ctx context.Context, key string, doc any, etag ETag, options ...Option) error {
	return e.Store.Replace(ctx, key, doc, etag, e.with(key, options)...)
}

func (e *Expiring) with(key string, options []Option) []Option {
	if !e.expires(key) {
		return options
	}
	return append([]Option{TTL(e.ttl)}, options...)
}
