package state

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// Memory is a Store in memory, for tests.
type Memory struct {
	mu   sync.Mutex
	docs map[string]document
	next int
}

type document struct {
	value   []byte
	etag    ETag
	expires time.Time
}

// NewMemory returns an empty Store.
func NewMemory() *Memory { return &Memory{docs: map[string]document{}} }

// Get decodes the stored JSON on every call, so callers cannot change the stored document.
func (m *Memory) Get(ctx context.Context, key string, doc any) (ETag, error) {
	if err := cmp.Or(checkKey("read", key), ended(ctx, "read", key)); err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.live(key)
	if !ok {
		return "", fmt.Errorf("read %s: %w", key, ErrNotFound)
	}
	if err := Decode(key, d.value, doc); err != nil {
		return "", err
	}
	return d.etag, nil
}

// GetMany reads all keys under one lock and returns copies.
func (m *Memory) GetMany(ctx context.Context, keys []string) (map[string][]byte, error) {
	for _, key := range keys {
		if err := cmp.Or(checkKey("read", key), ended(ctx, "read", key)); err != nil {
			return nil, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	docs := make(map[string][]byte, len(keys))
	for _, key := range keys {
		if d, ok := m.live(key); ok {
			docs[key] = bytes.Clone(d.value)
		}
	}
	return docs, nil
}

// Create succeeds if the existing document has expired.
func (m *Memory) Create(ctx context.Context, key string, doc any, options ...Option) error {
	return m.save(ctx, "create", key, doc, "", options)
}

// Replace returns ErrConflict if the document has expired.
func (m *Memory) Replace(ctx context.Context, key string, doc any, etag ETag, options ...Option) error {
	if etag == "" {
		return fmt.Errorf("replace %s: %w", key, ErrConflict)
	}
	return m.save(ctx, "replace", key, doc, etag, options)
}

func (m *Memory) save(ctx context.Context, verb, key string, doc any, etag ETag, options []Option) error {
	value, err := encode(verb, key, doc)
	if err != nil {
		return err
	}
	if err := ended(ctx, verb, key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if d, _ := m.live(key); d.etag != etag {
		return fmt.Errorf("%s %s: %w", verb, key, ErrConflict)
	}
	m.next++
	saved := document{value: value, etag: ETag(strconv.Itoa(m.next))}
	if w := applied(options); w.ttl > 0 {
		saved.expires = time.Now().Add(time.Duration(w.ttlSeconds()) * time.Second)
	}
	m.docs[key] = saved
	return nil
}

// ended returns ErrUnavailable if the context has ended, as a remote store would.
func ended(ctx context.Context, verb, key string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w: %w", verb, key, ErrUnavailable, err)
	}
	return nil
}

// live returns the document under key unless it has expired. The caller holds m.mu.
func (m *Memory) live(key string) (document, bool) {
	d, ok := m.docs[key]
	if ok && !d.expires.IsZero() && !time.Now().Before(d.expires) {
		delete(m.docs, key)
		return document{}, false
	}
	return d, ok
}
