package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// retrying is a Store that retries each call on another Store. WithRetry describes it.
type retrying struct {
	store   Store
	timeout time.Duration
}

// WithRetry returns a Store that calls s and retries with backoff while the error is ErrUnavailable, so that callers do not
// notice a sidecar that restarts. A call ends after timeout or with the caller's context, even if s does not answer.
//
// A write that failed may have succeeded in the store; its retry then gets ErrConflict. WithRetry reads the document: if it
// equals what was to be written, the write succeeded. This has two effects. When several writers write the same document at
// the same time, more than one may succeed. And when another writer changed the document in between, the caller gets
// ErrConflict, so Update applies its change again, as a caller would after any lost reply.
func WithRetry(s Store, timeout time.Duration) *retrying { return &retrying{s, timeout} }

const (
	firstDelay = 50 * time.Millisecond
	// maxDelay bounds how long a call goes on waiting after the store is available again.
	maxDelay = 500 * time.Millisecond
	// jitter spreads callers that failed together: each delay is up to a fifth shorter or longer.
	jitter = 0.2
)

// Get retries the other store's Get.
func (r *retrying) Get(ctx context.Context, key string, doc any) (etag ETag, err error) {
	err = r.retry(ctx, func(ctx context.Context, _ bool) error {
		etag, err = r.store.Get(ctx, key, doc)
		return err
	})
	return etag, err
}

// GetMany retries the other store's GetMany as a whole.
func (r *retrying) GetMany(ctx context.Context, keys []string) (docs map[string][]byte, err error) {
	err = r.retry(ctx, func(ctx context.Context, _ bool) error {
		docs, err = r.store.GetMany(ctx, keys)
		return err
	})
	return docs, err
}

// Create retries the other store's Create. After a retry, ErrConflict means that the stored document differs from doc.
func (r *retrying) Create(ctx context.Context, key string, doc any, options ...Option) error {
	return r.write(ctx, key, doc, func(ctx context.Context) error { return r.store.Create(ctx, key, doc, options...) })
}

// Replace retries the other store's Replace. After a retry, ErrConflict means that the stored document differs from doc.
func (r *retrying) Replace(ctx context.Context, key string, doc any, etag ETag, options ...Option) error {
	return r.write(ctx, key, doc, func(ctx context.Context) error { return r.store.Replace(ctx, key, doc, etag, options...) })
}

func (r *retrying) write(ctx context.Context, key string, doc any, write func(context.Context) error) error {
	return r.retry(ctx, func(ctx context.Context, isRetry bool) error {
		err := write(ctx)
		if !isRetry || !errors.Is(err, ErrConflict) {
			return err
		}
		var stored json.RawMessage
		_, readErr := r.store.Get(ctx, key, &stored)
		switch {
		case errors.Is(readErr, ErrNotFound):
			return err
		case readErr != nil:
			return readErr
		}
		if same, compareErr := equal(stored, doc); compareErr != nil || !same {
			return errors.Join(err, compareErr)
		}
		return nil
	})
}

// retry calls until the result is not ErrUnavailable, and returns the last call's error. If isRetry is true, an earlier call
// may have had its effect.
func (r *retrying) retry(ctx context.Context, call func(ctx context.Context, isRetry bool) error) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	delays := &backoff.ExponentialBackOff{InitialInterval: firstDelay, Multiplier: 2, MaxInterval: maxDelay, RandomizationFactor: jitter}
	var last error
	isRetry := false
	// The context alone limits the time: backoff's own limit would end before the last delay. When the context ends, Retry
	// returns the context's error; the store's last error says more.
	_, _ = backoff.Retry(ctx, func() (struct{}, error) {
		last = call(ctx, isRetry)
		isRetry = true
		if last != nil && !errors.Is(last, ErrUnavailable) {
			return struct{}{}, backoff.Permanent(last)
		}
		return struct{}{}, last
	}, backoff.WithBackOff(delays), backoff.WithMaxElapsedTime(0))
	return last
}

// equal reports whether the stored JSON has the same content as doc. A store may change the order of members and the form of
// numbers.
func equal(stored json.RawMessage, doc any) (bool, error) {
	written, err := json.Marshal(doc)
	if err != nil {
		return false, fmt.Errorf("compare the stored document: %w", err)
	}
	var a, b any
	if err := errors.Join(json.Unmarshal(stored, &a), json.Unmarshal(written, &b)); err != nil {
		return false, fmt.Errorf("compare the stored document: %w", err)
	}
	return reflect.DeepEqual(a, b), nil
}
