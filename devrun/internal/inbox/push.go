package inbox

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"sync"
)

// subscription is what a browser keeps of one push subscription.
type subscription struct {
	// PrivateKey is a P-256 scalar, Auth the authentication secret of 16 bytes; both in base64url.
	PrivateKey string `json:"private_key"`
	Auth       string `json:"auth"`
	// Gone says that the user has unsubscribed.
	Gone bool `json:"gone,omitempty"`
}

// keys are a subscription's own, decoded.
type keys struct {
	private *ecdh.PrivateKey
	auth    []byte
}

func newSubscription() (subscription, error) {
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return subscription{}, fmt.Errorf("make a key: %w", err)
	}
	auth := make([]byte, 16)
	if _, err := rand.Read(auth); err != nil {
		return subscription{}, fmt.Errorf("make a secret: %w", err)
	}
	return subscription{
		PrivateKey: base64.RawURLEncoding.EncodeToString(private.Bytes()),
		Auth:       base64.RawURLEncoding.EncodeToString(auth),
	}, nil
}

func (s subscription) keys() (keys, error) {
	scalar, err := base64.RawURLEncoding.DecodeString(s.PrivateKey)
	if err != nil {
		return keys{}, fmt.Errorf("read the private key: %w", err)
	}
	private, err := ecdh.P256().NewPrivateKey(scalar)
	if err != nil {
		return keys{}, fmt.Errorf("read the private key: %w", err)
	}
	auth, err := base64.RawURLEncoding.DecodeString(s.Auth)
	if err != nil {
		return keys{}, fmt.Errorf("read the secret: %w", err)
	}
	return keys{private: private, auth: auth}, nil
}

// decrypt reads a body in the encoding aes128gcm (RFC 8188) that was encrypted for these keys as RFC 8291 says: one record.
func (k keys) decrypt(body []byte) ([]byte, error) {
	const (
		saltSize, sizeSize, secretSize = 16, 4, 32
		header                         = saltSize + sizeSize + 1
	)
	if len(body) < header {
		return nil, errors.New("shorter than its header")
	}
	salt, recordSize, idSize := body[:saltSize], binary.BigEndian.Uint32(body[saltSize:]), int(body[header-1])
	if len(body) < header+idSize {
		return nil, errors.New("shorter than its header")
	}
	sender, err := ecdh.P256().NewPublicKey(body[header : header+idSize])
	if err != nil {
		return nil, fmt.Errorf("the sender's key: %w", err)
	}
	record := body[header+idSize:]
	if uint64(len(record)) > uint64(recordSize) {
		return nil, errors.New("more than one record")
	}
	shared, err := k.private.ECDH(sender)
	if err != nil {
		return nil, fmt.Errorf("agree on a secret: %w", err)
	}
	info := append([]byte("WebPush: info\x00"), k.private.PublicKey().Bytes()...)
	info = append(info, sender.Bytes()...)
	secret, err := hkdf.Key(sha256.New, shared, k.auth, string(info), secretSize)
	if err != nil {
		return nil, err
	}
	pseudorandom, err := hkdf.Extract(sha256.New, secret, salt)
	if err != nil {
		return nil, err
	}
	contentKey, err := hkdf.Expand(sha256.New, pseudorandom, "Content-Encoding: aes128gcm\x00", 16)
	if err != nil {
		return nil, err
	}
	nonce, err := hkdf.Expand(sha256.New, pseudorandom, "Content-Encoding: nonce\x00", 12)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(contentKey)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	text, err := gcm.Open(nil, nonce, record, nil)
	if err != nil {
		return nil, err
	}
	// The last record ends in the delimiter 2, and zeros that hide how long the text is.
	for i, b := range slices.Backward(text) {
		switch b {
		case 0:
		case 2:
			return text[:i], nil
		default:
			return nil, errors.New("no end of the last record")
		}
	}
	return nil, errors.New("no end of the last record")
}

// subscriptions plays the browsers: it keeps the keys of every push subscription in a folder, a file each.
type subscriptions struct {
	mu  sync.Mutex
	dir string
}

var (
	subscriptionName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)
	errSubscriptionName = errors.New("a subscription's name is up to 64 letters, digits, - and _")
	errUnknown          = errors.New("no such subscription")
)

// get returns a subscription; errUnknown when there never was one of the name.
func (s *subscriptions) get(name string) (subscription, error) {
	if !subscriptionName.MatchString(name) {
		return subscription{}, errUnknown
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read(name)
}

// make returns the subscription of the name, a new one if there is none or its user had unsubscribed.
func (s *subscriptions) make(name string) (_ subscription, created bool, err error) {
	if !subscriptionName.MatchString(name) {
		return subscription{}, false, errSubscriptionName
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have, err := s.read(name)
	if err == nil && !have.Gone {
		return have, false, nil
	}
	if err != nil && !errors.Is(err, errUnknown) {
		return subscription{}, false, err
	}
	fresh, err := newSubscription()
	if err != nil {
		return subscription{}, false, err
	}
	return fresh, true, s.write(name, fresh)
}

// end marks the subscription as given up by its user.
func (s *subscriptions) end(name string) error {
	if !subscriptionName.MatchString(name) {
		return errUnknown
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have, err := s.read(name)
	if err != nil {
		return err
	}
	have.Gone = true
	return s.write(name, have)
}

func (s *subscriptions) read(name string) (subscription, error) {
	text, err := fs.ReadFile(os.DirFS(s.dir), name+".json")
	if errors.Is(err, fs.ErrNotExist) {
		return subscription{}, errUnknown
	}
	if err != nil {
		return subscription{}, fmt.Errorf("read subscription %s: %w", name, err)
	}
	var have subscription
	if err := json.Unmarshal(text, &have); err != nil {
		return subscription{}, fmt.Errorf("read subscription %s: %w", name, err)
	}
	return have, nil
}

// write replaces the file as a whole, so that a kill leaves no half of it.
func (s *subscriptions) write(name string, value subscription) error {
	text, err := json.Marshal(value) //nolint:gosec // to keep the private key is what the file is for
	if err != nil {
		return fmt.Errorf("encode subscription %s: %w", name, err)
	}
	folder, err := os.OpenRoot(s.dir)
	if err != nil {
		return fmt.Errorf("keep subscription %s: %w", name, err)
	}
	err = folder.WriteFile(name+".tmp", append(text, '\n'), 0o600)
	if err == nil {
		err = folder.Rename(name+".tmp", name+".json")
	}
	if err = errors.Join(err, folder.Close()); err != nil {
		return fmt.Errorf("keep subscription %s: %w", name, err)
	}
	return nil
}
