package inbox

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
)

// TestTheExampleOfRFC8291 decrypts the message of the RFC's section 5.
func TestTheExampleOfRFC8291(t *testing.T) {
	t.Parallel()
	own, err := subscription{
		PrivateKey: "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94",
		Auth:       "BTBZMqHH6r4Tts7J_aSIgg",
	}.keys()
	if err != nil {
		t.Fatal(err)
	}
	const public = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
	if got := base64.RawURLEncoding.EncodeToString(own.private.PublicKey().Bytes()); got != public {
		t.Errorf("public key %s", got)
	}
	body, err := base64.RawURLEncoding.DecodeString(
		"DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN")
	if err != nil {
		t.Fatal(err)
	}
	text, err := own.decrypt(body)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(text); got != "When I grow up, I want to be a watermelon" {
		t.Errorf("%q", got)
	}
	for n := range body {
		if _, err := own.decrypt(body[:n]); err == nil {
			t.Fatalf("decrypted the first %d bytes", n)
		}
	}
}

// seal encrypts as an application server does; padded is what stands behind the text, the delimiter included.
func seal(t *testing.T, to contracts.PushAddress, text, padded string) []byte {
	t.Helper()
	decode := func(s string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	try := func(b []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	browser, err := ecdh.P256().NewPublicKey(decode(to.P256DH))
	if err != nil {
		t.Fatal(err)
	}
	server, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	salt := make([]byte, 16)
	rand.Read(salt)
	own := server.PublicKey().Bytes()
	shared := try(server.ECDH(browser))
	secret := try(hkdf.Key(sha256.New, shared, decode(to.Auth), "WebPush: info\x00"+string(browser.Bytes())+string(own), 32))
	block, err := aes.NewCipher(try(hkdf.Key(sha256.New, secret, salt, "Content-Encoding: aes128gcm\x00", 16)))
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := try(hkdf.Key(sha256.New, secret, salt, "Content-Encoding: nonce\x00", 12))
	body := slices.Concat(salt, []byte{0, 0, 16, 0, byte(len(own))}, own)
	return gcm.Seal(body, nonce, []byte(text+padded), nil)
}

func subscribe(t *testing.T, in *Inbox, name string, want int) contracts.PushAddress {
	t.Helper()
	code, answer := request(t, in, http.MethodPut, "/subscriptions/"+name, nil)
	if code != want {
		t.Fatalf("subscribe: %d %s", code, answer)
	}
	var to contracts.PushAddress
	if err := json.Unmarshal([]byte(answer), &to); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestPushMessages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := start(t, dir)
	to := subscribe(t, in, "CUST-123", http.StatusCreated)
	if again := subscribe(t, in, "CUST-123", http.StatusOK); again != to {
		t.Errorf("subscribed again, it is another: %+v", again)
	}
	sender := vapid(t, `{"alg":"ES256"}`, claims("http://"+in.HTTP(), time.Now().Add(time.Hour)))
	stranger := vapid(t, `{"alg":"ES256"}`, claims("https://push.example.com", time.Now().Add(time.Hour)))
	headers := []string{"TTL", "60", "Content-Encoding", "aes128gcm", "Authorization", sender}
	push := func(want int, target string, body []byte, headers ...string) {
		t.Helper()
		if code, answer := request(t, in, http.MethodPost, target, body, headers...); code != want {
			t.Errorf("%d %s, want %d", code, answer, want)
		}
	}
	content := `{"title":"On its way","body":"Order ORD-1","notification_id":"n-1","order_id":"ORD-1"}`
	push(http.StatusCreated, to.Endpoint, seal(t, to, content, "\x02\x00\x00"), headers...)
	push(http.StatusCreated, to.Endpoint, seal(t, to, "only text", "\x02"), headers...)

	push(http.StatusNotFound, "/push/CUST-999", seal(t, to, "x", "\x02"), headers...)
	push(http.StatusNotFound, "/push/..%2FCUST-123", seal(t, to, "x", "\x02"), headers...)
	push(http.StatusBadRequest, to.Endpoint, seal(t, to, "x", "\x02"), "Content-Encoding", "aes128gcm", "Authorization", sender)
	push(http.StatusUnsupportedMediaType, to.Endpoint, seal(t, to, "x", "\x02"), "TTL", "60", "Content-Encoding", "aesgcm", "Authorization", sender)
	push(http.StatusUnauthorized, to.Endpoint, seal(t, to, "x", "\x02"), headers[:4]...)
	push(http.StatusForbidden, to.Endpoint, seal(t, to, "x", "\x02"), append(headers[:4:4], "Authorization", stranger)...)
	push(http.StatusBadRequest, to.Endpoint, seal(t, to, "no end", "\x00"), headers...)
	push(http.StatusRequestEntityTooLarge, to.Endpoint, seal(t, to, strings.Repeat("x", 4096), "\x02"), headers...)
	other := subscribe(t, in, "CUST-124", http.StatusCreated)
	push(http.StatusBadRequest, to.Endpoint, seal(t, other, "for somebody else", "\x02"), headers...)

	if code, answer := request(t, in, http.MethodDelete, "/subscriptions/CUST-123", nil); code != http.StatusNoContent {
		t.Errorf("unsubscribe: %d %s", code, answer)
	}
	push(http.StatusGone, to.Endpoint, seal(t, to, "x", "\x02"), headers...)
	if fresh := subscribe(t, in, "CUST-123", http.StatusCreated); fresh.P256DH == to.P256DH {
		t.Error("the keys of an ended subscription are used again")
	}
	if code, _ := request(t, in, http.MethodDelete, "/subscriptions/CUST-999", nil); code != http.StatusNotFound {
		t.Errorf("unsubscribe a stranger: %d", code)
	}
	if code, _ := request(t, in, http.MethodPut, "/subscriptions/a.b", nil); code != http.StatusBadRequest {
		t.Errorf("subscribe under a bad name: %d", code)
	}

	want := []Message{
		{
			Channel: "push", To: "CUST-123", Subject: "On its way", Text: "Order ORD-1", NotificationID: "n-1",
			Data: json.RawMessage(content),
		},
		{Channel: "push", To: "CUST-123", Text: "only text"},
	}
	if diff := cmp.Diff(want, kept(t, dir), noTime); diff != "" {
		t.Error(diff)
	}
}

func TestASubscriptionSurvivesARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := Start(dir, Loopback, 0, 0, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	before := subscribe(t, first, "CUST-123", http.StatusCreated)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	after := subscribe(t, start(t, dir), "CUST-123", http.StatusOK)
	if after.P256DH != before.P256DH || after.Auth != before.Auth {
		t.Error("the keys have changed")
	}
}
