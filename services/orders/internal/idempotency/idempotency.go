// Package idempotency lets a request that carries a key take effect once however often it is sent: also when the process
// dies between any two steps of it. It knows nothing of what a request does.
package idempotency

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"waybill/platform/clock"
	"waybill/platform/state"
	"waybill/services/orders/internal/recent"
)

var (
	// ErrOtherRequest says that the key came with another request before.
	ErrOtherRequest = errors.New("the key belongs to another request")
	// ErrRunning says that a request with the key is at work now.
	ErrRunning = errors.New("a request with this key is running")
)

// Lease is how long a request is believed to be at work when the process that took it says nothing more. It is also how
// long a client waits for the work of a dead process, so a request should be bounded to little less. Clocks that differ, or
// a process that stood still, may bring two processes to work at once: theirs is repeatable work on one subject, so that
// is harmless.
const Lease = 6 * time.Second

// releaseTimeout bounds the note that a request failed, which is written even when the request's own time is over.
const releaseTimeout = 2 * time.Second

// remembered is of how many requests at least a process knows that it did them.
const remembered = 10_000

// lookupsPerSecond is how many keys that this process has not seen Subject looks up each second. Under overload nearly every key is
// new, and reading the store for each would take the processor time that the accepted orders need.
const lookupsPerSecond = 20

// Work is what a request is there for. Both functions get the subject that the request has.
type Work struct {
	// Do does the work. It must be repeatable on the same subject.
	Do func(ctx context.Context, subject string) error
	// Done reports whether what the work left behind shows that it was done to its end. It may not show, for a while or ever;
	// but what is shown must be true, and be the work of a request like this one.
	Done func(ctx context.Context, subject string) (bool, error)
}

// Keys remembers requests by their keys. It may be used by many goroutines.
type Keys struct {
	store state.Store
	// process names this process: no other one, before or after it, has the same.
	process string
	ttl     time.Duration
	logger  *slog.Logger
	// seen holds the keys whose work this process began lately.
	seen *recent.Set[string]
	// lookups bounds how often Subject reads the store for a key that this process has not seen.
	lookups *rate.Limiter
	// done holds the attempts of this process that did their work to its end.
	done *recent.Set[attempt]
	// leases are those of other processes, as this one saw them.
	leases  *clock.Tracker[string]
	mu      sync.Mutex
	running map[string]struct{}
}

// New returns Keys that are remembered for ttl. Process must be unlike that of every other process, earlier ones included.
func New(store state.Store, process string, ttl time.Duration, logger *slog.Logger) *Keys {
	return &Keys{
		store: store, process: process, ttl: ttl, logger: logger,
		seen: recent.NewSet[string](remembered), lookups: rate.NewLimiter(lookupsPerSecond, lookupsPerSecond),
		done: recent.NewSet[attempt](remembered), leases: clock.NewTracker[string](time.Now), running: map[string]struct{}{},
	}
}

// record is what the store holds for a key. It is written when the work begins and says nothing of its end: that it was
// done follows from what it left behind, and a write for each request less is what that is worth.
type record struct {
	// Request is a digest of the request that came first, Subject the id that was chosen for what it makes.
	Request string `json:"request"`
	Subject string `json:"subject"`
	// Process is at work, or was, and Until is the end of its lease; zero when the work failed.
	Process string    `json:"process"`
	Until   time.Time `json:"running_until"`
}

// attempt tells one attempt of a process at a key's work from its others.
type attempt struct {
	key   string
	until int64
}

func (r record) attempt(key string) attempt { return attempt{key, r.Until.UnixNano()} }

// Do does the work of the request with the key unless it was done before. Subject is the id of what the request makes; a
// repeated request gets the subject of the first one, to work on and as the answer. A request whose work failed may be
// repeated at once. Do returns ErrOtherRequest, ErrRunning, an error of the store, or one of the work.
//
// A process knows which work it did lately. Another one answers ErrRunning, until the lease is over, for work that was done
// and that Done does not yet show; after the lease it does such work again.
func (k *Keys) Do(ctx context.Context, key string, request []byte, subject string, work Work) (string, error) {
	key = "idempotency:" + digest([]byte(key))
	mine := record{Request: digest(request), Subject: subject, Process: k.process, Until: time.Now().Add(Lease)}
	if !k.enter(key) {
		// Another request is at work here; all there is to find out is whether it is the same one.
		_, err := k.find(ctx, key, mine)
		return "", cmp.Or(err, ErrRunning)
	}
	defer k.leave(key)
	k.seen.Add(key)
	err := k.store.Create(ctx, key, mine, state.TTL(k.ttl))
	if errors.Is(err, state.ErrConflict) {
		var done bool
		if mine, done, err = k.takeOver(ctx, key, mine, work.Done); done {
			return mine.Subject, nil
		}
	}
	if err != nil {
		return "", err
	}
	if err = work.Do(ctx, mine.Subject); err != nil {
		k.release(ctx, key, mine)
		return mine.Subject, err
	}
	k.done.Add(mine.attempt(key))
	return mine.Subject, nil
}

// Subject returns the subject of the request with the key, if the same request came before. For a key that this process has not seen
// it reads the store only as often as lookupsPerSecond allows; beyond that the key counts as unknown, and the caller can ask again
// later. The error is ErrOtherRequest or one of the store.
func (k *Keys) Subject(ctx context.Context, key string, request []byte) (subject string, known bool, err error) {
	key = "idempotency:" + digest([]byte(key))
	if !k.seen.Has(key) && !k.lookups.Allow() {
		return "", false, nil
	}
	found, err := k.find(ctx, key, record{Request: digest(request)})
	if errors.Is(err, ErrRunning) {
		return "", false, nil // nothing is stored for the key
	}
	return found.Subject, err == nil, err
}

// takeOver goes on with a request that was seen before, if it is the same one and nobody is at work on it, and reports
// whether its work is done already.
func (k *Keys) takeOver(ctx context.Context, key string, mine record, shown func(context.Context, string) (bool, error)) (taken record, done bool, err error) {
	found, err := k.find(ctx, key, mine)
	if err != nil {
		return record{}, false, err
	}
	if done = found.Process == k.process && k.done.Has(found.attempt(key)); !done {
		done, err = shown(ctx, found.Subject)
	}
	if done || err != nil {
		return found.record, err == nil, err
	}
	if found.Process != k.process && k.leases.Remaining(key, found.Until, Lease) > 0 {
		return record{}, false, ErrRunning
	}
	k.leases.Forget(key)
	mine.Subject = found.Subject
	err = k.store.Replace(ctx, key, mine, found.etag, state.TTL(k.ttl))
	if errors.Is(err, state.ErrConflict) {
		err = ErrRunning
	}
	return mine, false, err
}

// stored is a record as it was read.
type stored struct {
	record
	etag state.ETag
}

// find reads the key's record and compares its request with mine.
func (k *Keys) find(ctx context.Context, key string, mine record) (stored, error) {
	var found stored
	var err error
	found.etag, err = k.store.Get(ctx, key, &found.record)
	switch {
	case errors.Is(err, state.ErrNotFound):
		// Not written yet, or expired since it was seen: the client's next try will tell.
		return stored{}, ErrRunning
	case err != nil:
		return stored{}, err
	case found.Request != mine.Request:
		return stored{}, ErrOtherRequest
	}
	return found, nil
}

// release notes that the work failed. Without the note another process waits for the end of the lease before it does the
// work, which is slower and comes to the same; so a failure to write it is no failure of the request.
func (k *Keys) release(ctx context.Context, key string, mine record) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	var found record
	etag, err := k.store.Get(ctx, key, &found)
	if err == nil && found.Process == mine.Process && found.Until.Equal(mine.Until) {
		found.Until = time.Time{}
		err = k.store.Replace(ctx, key, found, etag, state.TTL(k.ttl))
	}
	if err != nil {
		k.logger.WarnContext(ctx, "the failure of a request with an idempotency key was not noted", slog.Any("error", fmt.Errorf("release: %w", err)))
	}
}

func (k *Keys) enter(key string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, taken := k.running[key]; taken {
		return false
	}
	k.running[key] = struct{}{}
	return true
}

func (k *Keys) leave(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.running, key)
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
