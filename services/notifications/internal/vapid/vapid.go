// Package vapid holds the key pair by which push services identify this service (RFC 8292). Browsers subscribe with the public
// key, so a new pair invalidates every subscription.
package vapid

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// Keys is a key pair on the curve P-256 in base64url. The public key is an uncompressed point.
type Keys struct {
	Public  string `json:"public"`
	Private string `json:"private"`
}

// String hides the private key.
func (k Keys) String() string { return "VAPID keys " + k.Public }

// GoString hides the private key from %#v, which does not call String.
func (k Keys) GoString() string { return k.String() }

// Generate returns a new pair.
func Generate() (Keys, error) {
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return Keys{}, fmt.Errorf("generate VAPID keys: %w", err)
	}
	return Keys{encode(private.PublicKey().Bytes()), encode(private.Bytes())}, nil
}

var errPair = errors.New("the VAPID keys must be a pair on the curve P-256 in base64url")

// Parse returns the keys if they are a pair.
func Parse(public, private string) (Keys, error) {
	secret, err := decode(private)
	if err != nil {
		return Keys{}, errPair
	}
	key, err := ecdh.P256().NewPrivateKey(secret)
	if err != nil {
		return Keys{}, errPair
	}
	k := Keys{encode(key.PublicKey().Bytes()), encode(secret)}
	if strings.TrimRight(public, "=") != k.Public {
		return Keys{}, errPair
	}
	return k, nil
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func decode(s string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
}

// Ring loads the keys once and keeps them. It is safe for concurrent use.
type Ring struct {
	load func(ctx context.Context) (Keys, error)
	mu   sync.Mutex
	keys Keys
}

// NewRing returns a Ring with the keys that load returns. It calls load until the first success.
func NewRing(load func(ctx context.Context) (Keys, error)) *Ring { return &Ring{load: load} }

// Keys returns the keys, or the error of load.
func (r *Ring) Keys(ctx context.Context) (Keys, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys.Public != "" {
		return r.keys, nil
	}
	keys, err := r.load(ctx)
	if err != nil {
		return Keys{}, err
	}
	r.keys = keys
	return keys, nil
}

// PublicKey returns the public key, with which browsers subscribe.
func (r *Ring) PublicKey(ctx context.Context) (string, error) {
	keys, err := r.Keys(ctx)
	return keys.Public, err
}
