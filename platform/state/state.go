// Package state stores JSON documents under keys, with optimistic concurrency by ETag. It does not know what the documents mean.
// Dapr is the adapter for a Dapr state store and Memory the one for tests. WithRetry retries during a short outage, and
// WithConcurrencyLimit limits concurrent calls. One conformance suite (statetest) tests all of them.
package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"waybill/platform/retryable"
)

var (
	// ErrNotFound means that there is no document under the key.
	ErrNotFound = errors.New("no such document")
	// ErrConflict means that the document already exists (Create) or has changed since it was read (Replace).
	ErrConflict = retryable.New("the document was changed by another writer")
	// ErrUnavailable means that the store did not answer. A write may or may not have succeeded.
	ErrUnavailable = retryable.New("the state store is unavailable")
	// ErrInvalid means that the store never accepts this: the key is not allowed or the document is too large.
	ErrInvalid = retryable.NewPermanent("the state store cannot keep this")
	// ErrUnreadable means that the document exists but cannot be decoded. A retry does not help. Other documents may be fine.
	ErrUnreadable = errors.New("the document cannot be decoded")
)

// Decode decodes a document that GetMany returned under the key. The error wraps ErrUnreadable, as with Get.
func Decode(key string, value []byte, doc any) error {
	if err := json.Unmarshal(value, doc); err != nil {
		return fmt.Errorf("read %s: %w: %w", key, ErrUnreadable, err)
	}
	return nil
}

// MaxDocument is the size of the largest document that every store accepts, in bytes of JSON. Cosmos DB has the lowest limit.
const MaxDocument = 2_000_000

// ETag identifies one version of a document. Only the store understands its text. The empty ETag identifies no version.
type ETag string

// Store stores documents. It is safe for concurrent use. Every error wraps one of the errors above, except an error of encoding a
// document. A key must not be empty and must not contain "||", which Dapr reserves.
type Store interface {
	// Get reads the document under key into doc and returns its ETag, or ErrNotFound.
	Get(ctx context.Context, key string, doc any) (ETag, error)
	// GetMany reads many documents. The result has no entry for a missing document.
	GetMany(ctx context.Context, keys []string) (map[string][]byte, error)
	// Create writes a document that must not exist yet. Of several concurrent calls exactly one succeeds; the others get ErrConflict.
	Create(ctx context.Context, key string, doc any, options ...Option) error
	// Replace writes the document if it still has this ETag, and returns ErrConflict otherwise.
	Replace(ctx context.Context, key string, doc any, etag ETag, options ...Option) error
}

// Option changes one write.
type Option func(*write)

type write struct{ ttl time.Duration }

// TTL makes the document expire after d, rounded up to whole seconds; 0 means never. A later write without TTL removes it.
func TTL(d time.Duration) Option { return func(w *write) { w.ttl = d } }

// TTLFunc is TTL with a duration that is computed for each write, so that the change function of Update can decide it.
func TTLFunc(d func() time.Duration) Option { return func(w *write) { w.ttl = d() } }

func applied(options []Option) write {
	var w write
	for _, option := range options {
		option(&w)
	}
	return w
}

func (w write) ttlSeconds() int64 { return int64((w.ttl + time.Second - 1) / time.Second) }

// checkKey rejects keys that Dapr would reject, with an error that is not retryable.
func checkKey(verb, key string) error {
	if key == "" || strings.Contains(key, "||") {
		return fmt.Errorf("%s %q: %w", verb, key, ErrInvalid)
	}
	return nil
}

// encode checks the key and encodes the document.
func encode(verb, key string, doc any) ([]byte, error) {
	if err := checkKey(verb, key); err != nil {
		return nil, err
	}
	value, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", verb, key, err)
	}
	if len(value) > MaxDocument {
		return nil, fmt.Errorf("%s %s: %d bytes: %w", verb, key, len(value), ErrInvalid)
	}
	return value, nil
}

// ErrUnchanged is what an update function returns to leave the document as it is. It is not a failure.
var ErrUnchanged = errors.New("the document is unchanged")

// maxConflicts bounds how often Update retries after a conflict. With each conflict, another writer succeeded.
const maxConflicts = 100

// Update reads the document under key, lets change modify it, and writes it back. If another writer was faster, Update
// retries from the new version, so change may run several times and must have no effects outside doc. For a missing document,
// change gets T's zero value with exists false, and Update creates the document. If change returns ErrUnchanged, Update writes
// nothing. Any other error ends the update and is returned as it is. The options apply to the write. Update returns the
// document as it is now.
func Update[T any](ctx context.Context, s Store, key string, change func(doc *T, exists bool) error, options ...Option) (T, error) {
	// Each delay is between zero and twice the interval, so writers that compete spread out.
	delays := &backoff.ExponentialBackOff{InitialInterval: time.Millisecond / 2, RandomizationFactor: 1, Multiplier: 1.25, MaxInterval: 10 * time.Millisecond}
	var conflict error
	doc, err := backoff.Retry(ctx, func() (T, error) {
		doc, err := updateOnce(ctx, s, key, change, options)
		if conflict = nil; errors.Is(err, ErrConflict) {
			conflict = err
		}
		return doc, err
	}, backoff.WithBackOff(delays), backoff.WithMaxTries(maxConflicts+1), backoff.WithMaxElapsedTime(0))
	if conflict != nil && !errors.Is(err, ErrConflict) {
		err = fmt.Errorf("%w: %w", conflict, err) // the context ended while Update waited
	}
	return doc, err
}

// updateOnce is one attempt of Update. Every error but a conflict of the write is a backoff.PermanentError.
func updateOnce[T any](ctx context.Context, s Store, key string, change func(doc *T, exists bool) error, options []Option) (doc T, err error) {
	etag, err := s.Get(ctx, key, &doc)
	exists := !errors.Is(err, ErrNotFound)
	if err != nil && exists {
		return doc, backoff.Permanent(err)
	}
	if err := change(&doc, exists); errors.Is(err, ErrUnchanged) {
		return doc, nil
	} else if err != nil {
		return doc, backoff.Permanent(err)
	}
	if exists {
		err = s.Replace(ctx, key, doc, etag, options...)
	} else {
		err = s.Create(ctx, key, doc, options...)
	}
	if err != nil && !errors.Is(err, ErrConflict) {
		err = backoff.Permanent(err)
	}
	return doc, err
}

// Known is a document as it was read.
type Known[T any] struct {
	Doc  T
	ETag ETag
}

// UpdateKnown is Update, but its first attempt uses a document that was read earlier, which saves a read. That attempt can only
// end in a write, which the ETag protects. After any other result of change, UpdateKnown reads the document and runs change again.
func UpdateKnown[T any](ctx context.Context, s Store, key string, known Known[T], change func(doc *T, exists bool) error, options ...Option) (T, error) {
	if change(&known.Doc, true) == nil {
		err := s.Replace(ctx, key, known.Doc, known.ETag, options...)
		if err == nil || !errors.Is(err, ErrConflict) {
			return known.Doc, err
		}
	}
	return Update(ctx, s, key, change, options...)
}
