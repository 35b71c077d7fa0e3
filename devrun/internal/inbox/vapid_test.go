package inbox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"
)

// vapid signs the claims as an application server does and returns the Authorization header.
func vapid(t *testing.T, header, claims string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(header)) + "." + encode([]byte(claims))
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	public, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return "vapid t=" + signed + "." + encode(signature) + ", k=" + encode(public)
}

func claims(audience string, expires time.Time) string {
	return fmt.Sprintf(`{"aud":%q,"exp":%d,"sub":"mailto:operator@example.com"}`, audience, expires.Unix())
}

func TestVAPID(t *testing.T) {
	t.Parallel()
	const origin, header = "http://127.0.0.1:1026", `{"typ":"JWT","alg":"ES256"}`
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	good := vapid(t, header, claims(origin, now.Add(12*time.Hour)))
	_, otherKey, _ := strings.Cut(vapid(t, header, claims(origin, now)), ", ")
	ownToken, _, _ := strings.Cut(good, ", ")
	for _, c := range []struct{ name, authorization, want string }{
		{"good", good, ""},
		{"none", "", "no header"},
		{"another scheme", "Bearer x", "no header"},
		{"empty", "vapid ", "no token"},
		{"no signature", "vapid t=a.b.c, k=d", "no signature"},
		{"no key", ownToken, "read the key"},
		{"somebody else's key", ownToken + ", " + otherKey, "not by the key"},
		{"somebody else's origin", vapid(t, header, claims("https://push.example.com", now.Add(time.Hour))), "not for"},
		{"too late", vapid(t, header, claims(origin, now)), "has expired"},
		{"too long", vapid(t, header, claims(origin, now.Add(25*time.Hour))), "more than 24 hours"},
		{"another algorithm", vapid(t, `{"alg":"none"}`, claims(origin, now.Add(time.Hour))), "not ES256"},
		{"no claims", vapid(t, header, "x"), "read the token"},
	} {
		err := checkVAPID(c.authorization, origin, now)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
