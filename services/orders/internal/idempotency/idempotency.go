// Package idempotency makes a request with an idempotency key take effect once, even if the client repeats it and if the process
// dies at any point. It does not know what a request does.
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
	// ErrOtherRequest means that another request used the key before.
	ErrOtherRequest = errors.New("the key belongs to another request")
	// ErrRunning means that a request with the key runs now.
	ErrRunning = errors.New("a request with this key is running")
)

// Lease is how long a request counts as running after its process last wrote about it. If the process dies, the client waits that
// long, so the timeout of a request should be a little shorter. If clocks differ, or a process was suspended, two processes
// may do the work at the same time. That is harmless, because the work is idempotent and has one subject.
const Lease = 6 * time.Second

// releaseTimeout bounds the write that a request failed. That write does not end with the request's context.
const releaseTimeout = 2 * time.Second

// remembered is the least number of completed requests that a process remembers.
const remembered = 10_000

// lookupsPerSecond limits how many unknown keys Subject reads from the store. Under overload nearly every key is new, and a read for
// each would use the processor time that accepted orders need.
const lookupsPerSecond = 20

// Work is the work of a request. Both functions get the request's subject.
type Work struct {
	// Do does the work. It must be idempotent for a subject.
	Do func(ctx context.Context, subject string) error
	// Done reports whether the stored result shows that the work is complete. It may return false for complete work, but true
	// only for complete work of the same request.
	Done func(ctx context.Context, subject string) (bool, error)
}

// Keys remembers requests by their keys. Many goroutines may use it.
type Keys struct {
	store state.Store
	// process is the name of this process. No other process ever has it.
	process string
	ttl     time.Duration
	logger  *slog.Logger
	// seen has the keys whose work this process started recently.
	seen *recent.Set[string]
	// lookups limits how often Subject reads the store for a key that is not in seen.
	lookups *rate.Limiter
	// done has the attempts of this process that completed the work.
	done *recent.Set[attempt]
	// leases are the leases of other processes, as this one saw them.
	leases  *clock.Tracker[string]
	mu      sync.Mutex
	running map[string]struct{}
}

// New returns Keys that are remembered for ttl. No other process may ever have had the process name.
func New(store state.Store, process string, ttl time.Duration, logger *slog.Logger) *Keys {
	return &Keys{
		store: store, process: process, ttl: ttl, logger: logger,
		seen: recent.NewSet[string](remembered), lookups: rate.NewLimiter(lookupsPerSecond, lookupsPerSecond),
		done: recent.NewSet[attempt](remembered), leases: clock.NewTracker[string](time.Now), running: map[string]struct{}{},
	}
}

// record is the stored document of a key. It is written when the work starts, and not when it ends: the result of the work shows
// that, which saves a write for each request.
type record struct {
	// Request is a digest of the first request. Subject is the id of what it makes.
	Request string `json:"request"`
	Subject string `json:"subject"`
	// Process does the work, or did. Until is the end of its lease; zero if the work failed.
	Process string    `json:"process"`
	Until   time.Time `json:"running_until"`
}

// attempt identifies one attempt of a process to do the work of a key.
type attempt struct {
	key   string
	until int64
}

func (r record) attempt(key string) attempt { return attempt{key, r.Until.UnixNano()} }

// Do does the work of the request with the key, unless it was done before. Subject is the id of what the request makes. A repeated
// request gets the subject of the first one, for its work and as the answer. A request whose work failed may be repeated at
// once. Do returns ErrOtherRequest, ErrRunning, an error of the store, or an error of the work.
//
// A process remembers which work it completed recently. If another process completed it and Done does not show that yet, Do
// returns ErrRunning until the lease ends, and then does the work again.
func (k *Keys) Do(ctx context.Context, key string, request []byte, subject string, work Work) (string, error) {
	key = "idempotency:" + digest([]byte(key))
	mine := record{Request: digest(request), Subject: subject, Process: k.process, Until: time.Now().Add(Lease)}
	if !k.enter(key) {
		// A request with this key runs in this process. Find out whether it is the same request.
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

// Subject returns the subject of the request with the key, if the same request came before. For keys that this process has not seen it
// reads the store at most lookupsPerSecond times a second. Above that limit a key counts as unknown, and the caller may ask
// again later. The error is ErrOtherRequest or an error of the store.
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

// takeOver continues a request that was seen before, if it is the same request and no process runs it. It reports whether the work
// is already complete.
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
		// The record is not written yet, or it expired meanwhile. The client's next request will find out.
		return stored{}, ErrRunning
	case err != nil:
		return stored{}, err
	case found.Request != mine.Request:
		return stored{}, ErrOtherRequest
	}
	return found, nil
}

// release stores that the work failed, so that a repeated request need not wait for the end of the lease. If that write fails, the
// request does not fail for it.
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
		k.logger.WarnContext(ctx, "failed request with an idempotency key was not released; a repeated request waits for the end of its lease", slog.Any("error", fmt.Errorf("release: %w", err)))
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
