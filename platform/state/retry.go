package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"
)

// WithRetry is a Store on another one that it asks again while that is unavailable, with growing pauses, so that a caller
// does not notice a sidecar that restarts. Each call lasts as long as its patience or the caller's context at most, also
// when the other store took it and does not answer.
//
// A write that failed may have taken place, and its repetition then conflicts with itself. WithRetry looks: where the
// document holds just what was to be written, the write is done. So of writers that race with one and the same document,
// more than one may be told that it won; and a writer whose document was overtaken by another's hears of a conflict, which
// makes Update apply its change once more, as its caller would after any lost reply.
type retrying struct {
	store    Store
	patience time.Duration
}

// WithRetry returns a Store that tries each call on s for so long.
func WithRetry(s Store, patience time.Duration) *retrying { return &retrying{s, patience} }

const (
	firstPause = 50 * time.Millisecond
	// maxPause bounds how much later than the store itself a call is back.
	maxPause = 500 * time.Millisecond
)

// Get is the other store's Get, repeated.
func (p *retrying) Get(ctx context.Context, key string, doc any) (etag ETag, err error) {
	err = p.repeat(ctx, func(ctx context.Context, _ bool) error {
		etag, err = p.store.Get(ctx, key, doc)
		return err
	})
	return etag, err
}

// GetMany is the other store's GetMany, repeated as a whole.
func (p *retrying) GetMany(ctx context.Context, keys []string) (docs map[string][]byte, err error) {
	err = p.repeat(ctx, func(ctx context.Context, _ bool) error {
		docs, err = p.store.GetMany(ctx, keys)
		return err
	})
	return docs, err
}

// Create is the other store's Create, repeated; a conflict means that the document differs from doc.
func (p *retrying) Create(ctx context.Context, key string, doc any, options ...Option) error {
	return p.write(ctx, key, doc, func(ctx context.Context) error { return p.store.Create(ctx, key, doc, options...) })
}

// Replace is the other store's Replace, repeated; a conflict means that the document differs from doc.
func (p *retrying) Replace(ctx context.Context, key string, doc any, etag ETag, options ...Option) error {
	return p.write(ctx, key, doc, func(ctx context.Context) error { return p.store.Replace(ctx, key, doc, etag, options...) })
}

func (p *retrying) write(ctx context.Context, key string, doc any, write func(context.Context) error) error {
	return p.repeat(ctx, func(ctx context.Context, again bool) error {
		err := write(ctx)
		if !again || !errors.Is(err, ErrConflict) {
			return err
		}
		var found json.RawMessage
		_, readErr := p.store.Get(ctx, key, &found)
		switch {
		case errors.Is(readErr, ErrNotFound):
			return err
		case readErr != nil:
			return readErr
		}
		if done, compareErr := holds(found, doc); compareErr != nil || !done {
			return errors.Join(err, compareErr)
		}
		return nil
	})
}

// repeat calls until the store is there; again says that an earlier call may have had its effect.
func (p *retrying) repeat(ctx context.Context, call func(ctx context.Context, again bool) error) error {
	ctx, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	for again, pause := false, firstPause; ; again, pause = true, min(2*pause, maxPause) {
		err := call(ctx, again)
		if !errors.Is(err, ErrUnavailable) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// holds reports whether the stored JSON says what doc does. A store may have changed the order of its members and the
// writing of its numbers.
func holds(stored json.RawMessage, doc any) (bool, error) {
	written, err := json.Marshal(doc)
	if err != nil {
		return false, fmt.Errorf("compare: %w", err)
	}
	var a, b any
	if err := errors.Join(json.Unmarshal(stored, &a), json.Unmarshal(written, &b)); err != nil {
		return false, fmt.Errorf("compare: %w", err)
	}
	return reflect.DeepEqual(a, b), nil
}
