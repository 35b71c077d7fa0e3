package inbox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// errNoVAPID says that the sender does not say who it is.
var errNoVAPID = errors.New("no header Authorization of the scheme vapid")

// checkVAPID checks the sender's signature (RFC 8292) in an Authorization header: that it is by the key it names, for this
// origin (http://host:port), and in time. Which key it is does not matter: the subscriptions here are bound to none.
func checkVAPID(authorization, origin string, now time.Time) error {
	scheme, list, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "vapid") {
		return errNoVAPID
	}
	var token, key string
	for part := range strings.SplitSeq(list, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "t":
			token = value
		case "k":
			key = value
		}
	}
	signed, signature, err := splitToken(token)
	if err != nil {
		return err
	}
	point, err := unpadded(key)
	if err != nil {
		return fmt.Errorf("read the key: %w", err)
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return fmt.Errorf("read the key: %w", err)
	}
	sum := sha256.Sum256([]byte(signed))
	half := len(signature) / 2
	if !ecdsa.Verify(public, sum[:], new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])) {
		return errors.New("the signature is not by the key")
	}
	return checkClaims(signed, origin, now)
}

// splitToken separates what is signed from the signature of a token in the form header.claims.signature.
func splitToken(token string) (signed string, signature []byte, err error) {
	const es256 = 64 // bytes of a signature: r and s
	at := strings.LastIndexByte(token, '.')
	if at < 0 {
		return "", nil, errors.New("no token")
	}
	signature, err = unpadded(token[at+1:])
	if err != nil || len(signature) != es256 {
		return "", nil, errors.New("no signature of the kind ES256")
	}
	return token[:at], signature, nil
}

func checkClaims(signed, origin string, now time.Time) error {
	head, body, _ := strings.Cut(signed, ".")
	var header struct {
		Algorithm string `json:"alg"`
	}
	var claims struct {
		Audience string  `json:"aud"`
		Expires  float64 `json:"exp"` // seconds since 1970
	}
	if err := errors.Join(decodePart(head, &header), decodePart(body, &claims)); err != nil {
		return fmt.Errorf("read the token: %w", err)
	}
	expires := time.Unix(int64(claims.Expires), 0)
	switch {
	case header.Algorithm != "ES256":
		return fmt.Errorf("the token is signed by %q, not ES256", header.Algorithm)
	case claims.Audience != origin:
		return fmt.Errorf("the token is for %q, not for %s", claims.Audience, origin)
	case !expires.After(now):
		return errors.New("the token has expired")
	case expires.After(now.Add(24 * time.Hour)):
		return errors.New("the token is valid for more than 24 hours")
	}
	return nil
}

func decodePart(part string, into any) error {
	text, err := unpadded(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

func unpadded(text string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
}
