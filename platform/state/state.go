// Package state keeps JSON documents under keys, each write guarded by the ETag of what was read. It knows nothing of
// what the documents mean. Dapr is the adapter for a Dapr state store, Memory the one for tests, and WithRetry makes either
// ride out a short outage; one suite (statetest) holds all of them to the same behaviour.
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
	// ErrNotFound says that there is no document under the key.
	ErrNotFound = errors.New("no such document")
	// ErrConflict says that the document exists already (Create) or changed since it was read (Replace).
	ErrConflict = retryable.New("the document was changed by another writer")
	// ErrUnavailable says that the store could not be asked; whether a write took place is then unknown.
	ErrUnavailable = retryable.New("the state store is unavailable")
	// ErrInvalid says that the store will never take this: a key it cannot have, a document too large for it.
	ErrInvalid = retryable.NewPermanent("the state store cannot keep this")
	// ErrUnreadable says that there is a document under the key and that it cannot be decoded. A retry does not help, and nothing
	// is said about other documents.
	ErrUnreadable = errors.New("the document cannot be decoded")
)

// Decode decodes the document that GetMany read under the key. The error is ErrUnreadable's, as that of Get.
func Decode(key string, value []byte, doc any) error {
	if err := json.Unmarshal(value, doc); err != nil {
		return fmt.Errorf("read %s: %w: %w", key, ErrUnreadable, err)
	}
	return nil
}

// MaxDocument is the largest document that every store takes, in bytes of JSON; Cosmos DB's limit is the lowest.
const MaxDocument = 2_000_000

// ETag names one version of a document. Its text means nothing outside the store. The empty one names no version.
type ETag string

// Store keeps documents. It may be used by many goroutines. Every error wraps one of the errors above, except one of
// encoding a document. A key is not empty and does not contain "||", which Dapr keeps for itself.
type Store interface {
	// Get reads the document under key into doc and returns its ETag, or ErrNotFound.
	Get(ctx context.Context, key string, doc any) (ETag, error)
	// GetMany reads many documents; a missing one is missing from the answer. The order of keys does not matter.
	GetMany(ctx context.Context, keys []string) (map[string][]byte, error)
	// Create writes a document that must not exist yet; of many at once exactly one wins, the others get ErrConflict.
	Create(ctx context.Context, key string, doc any, options ...Option) error
	// Replace writes the document if it is still the version that etag names, else ErrConflict.
	Replace(ctx context.Context, key string, doc any, etag ETag, options ...Option) error
}

// Option changes one write.
type Option func(*write)

type write struct{ ttl time.Duration }

// TTL makes the document vanish after d, rounded up to whole seconds; 0 keeps it. A later write without it keeps the document.
func TTL(d time.Duration) Option { return func(w *write) { w.ttl = d } }

// TTLFunc is TTL with a time that is asked for with each write, so that a change in Update can decide it.
func TTLFunc(d func() time.Duration) Option { return func(w *write) { w.ttl = d() } }

func applied(options []Option) write {
	var w write
	for _, option := range options {
		option(&w)
	}
	return w
}

func (w write) ttlSeconds() int64 { return int64((w.ttl + time.Second - 1) / time.Second) }

// checkKey refuses what Dapr would refuse, with an error that does not look like an outage.
func checkKey(verb, key string) error {
	if key == "" || strings.Contains(key, "||") {
		return fmt.Errorf("%s %q: %w", verb, key, ErrInvalid)
	}
	return nil
}

// encode checks and encodes what is to be written.
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

// ErrUnchanged is what an update function returns when it leaves the document as it is.
var ErrUnchanged = errors.New("keep the document as it is") //nolint:staticcheck // it is a verdict and no failure, and reads as one: return state.ErrUnchanged

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

// UpdateKnown is Update, but its first attempt begins with a document that was read before, which spares a read. Only a write is
// decided on that: the ETag guards it, and whatever else change says it says again of what the store then has.
func UpdateKnown[T any](ctx context.Context, s Store, key string, known Known[T], change func(doc *T, exists bool) error, options ...Option) (T, error) {
	if change(&known.Doc, true) == nil {
		err := s.Replace(ctx, key, known.Doc, known.ETag, options...)
		if err == nil || !errors.Is(err, ErrConflict) {
			return known.Doc, err
		}
	}
	return Update(ctx, s, key, change, options...)
}
