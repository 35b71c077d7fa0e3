package channel

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	dapr "github.com/dapr/go-sdk/client"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waybill/contracts"
	"waybill/services/notifications/internal/message"
	"waybill/services/notifications/internal/vapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	to  = contracts.Contact{Email: "cust-123@example.com", Phone: "+12065550123"}
	out = message.Outgoing{ID: "ORD-1001:order_shipped:email", OrderID: "ORD-1001", Text: message.Text{Subject: "Shipped", Body: "It is on its way."}}
)

// binding is a fake sidecar.
type binding struct {
	mu     sync.Mutex
	calls  []*dapr.InvokeBindingRequest
	inside int
	most   int
	answer *dapr.BindingEvent
	err    error
	hold   chan struct{}
}

func (b *binding) InvokeBinding(ctx context.Context, in *dapr.InvokeBindingRequest) (*dapr.BindingEvent, error) {
	b.mu.Lock()
	b.calls = append(b.calls, in)
	b.inside++
	b.most = max(b.most, b.inside)
	b.mu.Unlock()
	if b.hold != nil {
		select {
		case <-b.hold:
		case <-ctx.Done():
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inside--
	if ctx.Err() != nil {
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return b.answer, b.err
}

func TestRequestsToTheBindings(t *testing.T) {
	t.Parallel()
	b := &binding{}
	if err := errors.Join(NewEmail(b, "email").Send(t.Context(), to, out), NewSMS(b, "sms").Send(t.Context(), to, out)); err != nil {
		t.Fatal(err)
	}
	want := []*dapr.InvokeBindingRequest{
		{Name: "email", Operation: "create", Data: []byte(out.Body), Metadata: map[string]string{"emailTo": to.Email, "subject": "Shipped"}},
		{Name: "sms", Operation: "create", Data: []byte(out.Body), Metadata: map[string]string{
			"toNumber": to.Phone, "To-Number": to.Phone, "Notification-Id": out.ID, "Content-Type": "text/plain; charset=utf-8",
			"errorIfNot2XX": "false",
		}},
	}
	if diff := cmp.Diff(want, b.calls); diff != "" {
		t.Error(diff)
	}
}

type sender interface {
	Send(ctx context.Context, to contracts.Contact, m message.Outgoing) error
}

// Mail goes to the ASCII form of a domain: Dapr's SMTP binding would write another form as an encoded word.
func TestMailUsesTheASCIIFormOfADomain(t *testing.T) {
	t.Parallel()
	b := &binding{}
	if err := NewEmail(b, "email").Send(t.Context(), contracts.Contact{Email: "name@b\u00fccher.example"}, out); err != nil {
		t.Fatal(err)
	}
	if got := b.calls[0].Metadata["emailTo"]; got != "name@xn--bcher-kva.example" {
		t.Errorf("the mail goes to %q", got)
	}
}

// A contact that an earlier release stored may break a newer rule: its messages fail at once, with the reason.
func TestStoredAddressesThatBreakARuleAreRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		to   contracts.Contact
		send func(b *binding) sender
		says string
	}{
		"email": {contracts.Contact{Email: "m\u00fcller@example.com"}, func(b *binding) sender {
			return NewEmail(b, "email")
		}, "only ASCII characters before the @"},
		"sms": {contracts.Contact{Phone: "+1206555\u0660123"}, func(b *binding) sender {
			return NewSMS(b, "sms")
		}, "E.164"},
		"push": {contracts.Contact{Push: &contracts.PushAddress{Endpoint: "https://push.example.com/1", P256DH: "x", Auth: "y"}}, func(*binding) sender {
			return NewPush(nil, "mailto:operators@example.com", false)
		}, "keys"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &binding{}
			err := test.send(b).Send(t.Context(), test.to, out)
			refusal, ok := errors.AsType[*message.Refusal](err)
			if !ok || refusal.Code != message.CodeInvalidAddress || !strings.Contains(refusal.Text, test.says) || len(b.calls) != 0 {
				t.Errorf("got %v after %d calls", err, len(b.calls))
			}
			if strings.Contains(err.Error(), "ller") || strings.Contains(err.Error(), "\u0660") {
				t.Errorf("the error repeats personal data: %v", err)
			}
		})
	}
}

func TestErrorsContainNoAddress(t *testing.T) {
	t.Parallel()
	b := &binding{err: status.Error(codes.Internal, `550 5.1.1 <cust-123@example.com>: no such user; tried +12065550123 at https://sms.example.com/secret`)}
	for _, c := range []sender{NewEmail(b, "email"), NewSMS(b, "sms")} {
		err := c.Send(t.Context(), to, out)
		if err == nil {
			t.Fatal("no error")
		}
		for _, secret := range []string{"cust-123", "2065550123", "secret"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%v shows %s", err, secret)
			}
		}
		if !strings.Contains(err.Error(), "550") {
			t.Errorf("%v lost the cause", err)
		}
	}
}

// Of two concurrent mails, one could go to the recipient of the other.
func TestMailsAreSentOneAtATime(t *testing.T) {
	t.Parallel()
	b := &binding{hold: make(chan struct{})}
	c := NewEmail(b, "email")
	var senders sync.WaitGroup
	for range 10 {
		senders.Go(func() {
			if err := c.Send(t.Context(), to, out); err != nil {
				t.Error(err)
			}
		})
	}
	for range 10 {
		b.hold <- struct{}{}
	}
	senders.Wait()
	if b.most != 1 {
		t.Errorf("%d mails at once", b.most)
	}
}

func TestATimeoutIsReported(t *testing.T) {
	t.Parallel()
	c := NewEmail(&binding{hold: make(chan struct{})}, "email")
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if later, ok := errors.AsType[*message.Later](c.Send(ctx, to, out)); !ok || !later.Stalled || !strings.Contains(later.Text, "not known") {
		t.Errorf("got %+v", later)
	}
	// A call that times out before it gets the slot calls nothing.
	c.slot <- struct{}{}
	if err := c.Send(ctx, to, out); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// Answers of Dapr's bindings, as the pinned sources write them, and their meaning.
func TestAnswersOfTheProviders(t *testing.T) {
	t.Parallel()
	mail := func(text string) error {
		return status.Error(codes.Internal, "error invoking output binding email: error from smtp binding, sending email failed: "+text)
	}
	sent := func(text string) error { return mail("gomail: could not send email 1: " + text) }
	twilio := func(text string) error {
		return status.Error(codes.Internal, "error invoking output binding sms: error from Twilio "+text)
	}
	text := func(metadata ...string) *dapr.BindingEvent {
		e := &dapr.BindingEvent{Metadata: map[string]string{}}
		for i := 0; i < len(metadata); i += 2 {
			e.Metadata[metadata[i]] = metadata[i+1]
		}
		return e
	}
	const retried = "retried"
	for _, c := range []struct {
		channel string
		answer  *dapr.BindingEvent
		err     error
		code    string // of a refusal, empty if the message was accepted, or retried
		says    string
		after   time.Duration // for the whole channel, except with Later.Channel false
	}{
		{channel: "email"},
		{channel: "email", err: sent("550 5.1.1 <cust-123@example.com>: no such user"), code: message.CodeRejected, says: "refused the message: 550 5.1.1 <***>"},
		{channel: "email", err: sent("550 Mailbox unavailable\nTry another one."), code: message.CodeRejected, says: "refused the message: 550 Mailbox unavailable."},
		{channel: "email", err: sent("554 5.7.1 Relay access denied"), code: message.CodeRejected, says: "554 5.7.1 Relay access denied."},
		{channel: "email", err: sent("552 5.3.4 Message too big"), code: message.CodeTooLarge, says: "too large"},
		{channel: "email", err: sent("552 Mailbox full"), code: retried},
		{channel: "email", err: sent("550 5.2.2 Mailbox full"), code: retried},
		{channel: "email", err: sent("450 4.2.1 Greylisted, try again later"), code: retried},
		{channel: "email", err: sent("421 4.7.0 Too many messages"), code: retried},
		{channel: "email", err: sent("530 5.7.0 Authentication required"), code: retried},
		{channel: "email", err: sent("EOF"), code: retried},
		{channel: "email", err: mail("535 5.7.8 Authentication failed"), code: retried},
		{channel: "email", err: mail("554 5.3.2 No service here"), code: retried},
		{channel: "email", err: mail("dial tcp 127.0.0.1:1025: connect: connection refused"), code: retried},

		{channel: "sms", answer: text("statusCode", "201")},
		{channel: "sms"}, // the Twilio binding returns nothing
		{channel: "sms", answer: text("statusCode", "429", "Retry-After", "120"), code: retried, says: "429", after: 2 * time.Minute},
		{channel: "sms", answer: text("statusCode", "429"), code: retried, after: defaultRetryAfter},
		{channel: "sms", answer: text("statusCode", "503", "Retry-After", "1"), code: retried, after: time.Second},
		{channel: "sms", answer: text("statusCode", "503"), code: retried},
		{channel: "sms", answer: text("statusCode", "429", "Retry-After", "Sat, 14 Mar 2026 09:03:00 GMT", "Date", "Sat, 14 Mar 2026 09:00:00 GMT"), code: retried, after: 3 * time.Minute},
		{channel: "sms", answer: text("statusCode", "429", "Retry-After", "99999999"), code: retried, after: time.Hour},
		{channel: "sms", answer: text("statusCode", "429", "Retry-After", "-5"), code: retried},
		{channel: "sms", answer: text("statusCode", "429", "Retry-After", "soon"), code: retried, after: defaultRetryAfter},
		{channel: "sms", answer: text("statusCode", "400"), code: message.CodeRejected, says: "answered 400."},
		{channel: "sms", answer: text("statusCode", "413"), code: message.CodeTooLarge},
		{channel: "sms", answer: text("statusCode", "401"), code: retried},
		{channel: "sms", answer: text("statusCode", "500"), code: retried, says: "500"},
		{channel: "sms", err: twilio("(400): 400 Bad Request"), code: message.CodeRejected, says: "answered 400."},
		{channel: "sms", err: twilio("(429): 429 Too Many Requests"), code: retried, after: defaultRetryAfter},
		{channel: "sms", err: twilio("(401): 401 Unauthorized"), code: retried},
		{channel: "sms", err: status.Error(codes.Internal, "dial tcp 127.0.0.1:1026: connect: connection refused"), code: retried},
	} {
		b := &binding{answer: c.answer, err: c.err}
		var via sender = NewEmail(b, "email")
		if c.channel == "sms" {
			via = NewSMS(b, "sms")
		}
		err := via.Send(t.Context(), to, out)
		name := fmt.Sprint(c.channel, " ", c.answer, " ", c.err)
		refusal, refused := errors.AsType[*message.Refusal](err)
		later, _ := errors.AsType[*message.Later](err)
		switch {
		case c.code == "" && err != nil, c.code != "" && err == nil:
			t.Errorf("%s: got %v", name, err)
		case refused && refusal.Code != c.code, !refused && c.code != "" && c.code != retried:
			t.Errorf("%s: got %v, want %s", name, err, c.code)
		case c.code == retried && c.after > 0 && (later == nil || later.After.Round(time.Second) != c.after || !later.Channel):
			t.Errorf("%s: got %+v, want a pause of %v", name, later, c.after)
		case err != nil && !strings.Contains(err.Error(), c.says):
			t.Errorf("%s: got %q, want it to say %q", name, err, c.says)
		}
	}
}

// A push service that asked for a pause is not called until it is over. Other push services are called.
func TestAPushServiceThatAsksForAPause(t *testing.T) {
	t.Parallel()
	busy, other := newPushService(t, http.StatusTooManyRequests), newPushService(t, http.StatusCreated)
	busy.header = http.Header{"Retry-After": {"600"}}
	push, _ := newPush(t, true)
	for n := range 3 {
		later, ok := errors.AsType[*message.Later](push.Send(t.Context(), busy.address(), out))
		if !ok || later.After <= 9*time.Minute || later.Untried != (n > 0) {
			t.Errorf("call %d: %+v", n+1, later)
		}
	}
	if err := push.Send(t.Context(), other.address(), out); err != nil {
		t.Error(err)
	}
	if len(busy.got) != 1 || len(other.got) != 1 {
		t.Errorf("%d calls of the paused service, %d of the other, want one each", len(busy.got), len(other.got))
	}
}

// pushService is a push service and the browser behind it.
type pushService struct {
	*httptest.Server

	browser *ecdh.PrivateKey
	auth    []byte
	status  int
	header  http.Header
	got     []received
}

type received struct {
	header http.Header
	text   string
}

func newPushService(t *testing.T, status int) *pushService {
	t.Helper()
	browser, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &pushService{browser: browser, auth: make([]byte, 16), status: status}
	if _, err := rand.Read(p.auth); err != nil {
		t.Fatal(err)
	}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		p.got = append(p.got, received{r.Header, p.decrypt(t, body)})
		for name := range p.header {
			w.Header().Set(name, p.header.Get(name))
		}
		w.WriteHeader(p.status)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *pushService) address() contracts.Contact {
	encode := base64.RawURLEncoding.EncodeToString
	return contracts.Contact{Push: &contracts.PushAddress{
		Endpoint: p.URL + "/send/1", P256DH: encode(p.browser.PublicKey().Bytes()), Auth: encode(p.auth),
	}}
}

// decrypt implements the receiver of RFC 8291 without the library under test.
func (p *pushService) decrypt(t *testing.T, body []byte) string {
	t.Helper()
	salt, keyLength := body[:16], int(body[20])
	serverKey := body[21 : 21+keyLength]
	server, err := ecdh.P256().NewPublicKey(serverKey)
	if err != nil {
		t.Error(err)
		return ""
	}
	shared, err := p.browser.ECDH(server)
	if err != nil {
		t.Error(err)
		return ""
	}
	derive := func(secret, salt []byte, info string, length int) []byte {
		key, err := hkdf.Key(sha256.New, secret, salt, info, length)
		if err != nil {
			t.Error(err)
		}
		return key
	}
	ikm := derive(shared, p.auth, "WebPush: info\x00"+string(p.browser.PublicKey().Bytes())+string(serverKey), 32)
	block, err := aes.NewCipher(derive(ikm, salt, "Content-Encoding: aes128gcm\x00", 16))
	if err != nil {
		t.Error(err)
		return ""
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Error(err)
		return ""
	}
	plain, err := gcm.Open(nil, derive(ikm, salt, "Content-Encoding: nonce\x00", 12), body[21+keyLength:], nil)
	if err != nil {
		t.Error(err)
		return ""
	}
	text, _, _ := strings.Cut(string(plain), "\x02")
	return text
}

func newPush(t *testing.T, loopback bool) (*Push, vapid.Keys) {
	t.Helper()
	keys, err := vapid.Generate()
	if err != nil {
		t.Fatal(err)
	}
	push := NewPush(vapid.NewRing(func(context.Context) (vapid.Keys, error) { return keys, nil }), "mailto:operators@example.com", loopback)
	t.Cleanup(push.Close)
	return push, keys
}

func TestPush(t *testing.T) {
	t.Parallel()
	service := newPushService(t, http.StatusCreated)
	push, keys := newPush(t, true)
	for range 2 {
		if err := push.Send(t.Context(), service.address(), out); err != nil {
			t.Fatal(err)
		}
	}
	var payload map[string]string
	if err := json.Unmarshal([]byte(service.got[0].text), &payload); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"notification_id": out.ID, "order_id": out.OrderID, "title": out.Subject, "body": out.Body}
	if diff := cmp.Diff(want, payload); diff != "" {
		t.Error(diff)
	}
	header := service.got[0].header
	if topic := header.Get("Topic"); len(topic) != 32 || topic != service.got[1].header.Get("Topic") {
		t.Errorf("the topic is %q", topic)
	}
	if header.Get("TTL") == "" || header.Get("Content-Encoding") != "aes128gcm" || header.Get("Traceparent") != "" {
		t.Errorf("%v", header)
	}
	// The token is signed with the key that browsers subscribed with, is valid for this push service, and names a contact.
	token, key, _ := strings.Cut(strings.TrimPrefix(header.Get("Authorization"), "vapid t="), ", k=")
	if key != keys.Public {
		t.Errorf("the key is %s", key)
	}
	claims := jwt.MapClaims{}
	if _, err := jwt.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return publicKey(t, key), nil }); err != nil {
		t.Error(err)
	}
	if claims["aud"] != service.URL || claims["sub"] != "mailto:operators@example.com" {
		t.Errorf("%v", claims)
	}
}

func publicKey(t *testing.T, key string) *ecdsa.PublicKey {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), b)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestPushRefusals(t *testing.T) {
	t.Parallel()
	for answer, code := range map[int]string{
		http.StatusNotFound: message.CodeSubscriptionGone, http.StatusGone: message.CodeSubscriptionGone, http.StatusRequestEntityTooLarge: message.CodeTooLarge,
	} {
		push, _ := newPush(t, true)
		err := push.Send(t.Context(), newPushService(t, answer).address(), out)
		if refusal, ok := errors.AsType[*message.Refusal](err); !ok || refusal.Code != code {
			t.Errorf("%d: %v", answer, err)
		}
	}
	push, _ := newPush(t, true)
	long := out
	long.Body = strings.Repeat("x", 5000)
	err := push.Send(t.Context(), newPushService(t, http.StatusCreated).address(), long)
	if refusal, ok := errors.AsType[*message.Refusal](err); !ok || refusal.Code != message.CodeTooLarge {
		t.Errorf("a long message: %v", err)
	}
}

func TestRetryablePushFaults(t *testing.T) {
	t.Parallel()
	for _, answer := range []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusForbidden, http.StatusFound} {
		service := newPushService(t, answer)
		service.header = http.Header{"Retry-After": {"120"}, "Location": {"http://127.0.0.1:1/"}}
		push, _ := newPush(t, true)
		err := push.Send(t.Context(), service.address(), out)
		if later, ok := errors.AsType[*message.Later](err); !ok || later.After != 2*time.Minute || len(service.got) != 1 {
			t.Errorf("%d: %v", answer, err)
		}
	}
	service := newPushService(t, http.StatusTooManyRequests)
	service.header = http.Header{"Retry-After": {"99999999999999999"}}
	push, _ := newPush(t, true)
	if later, ok := errors.AsType[*message.Later](push.Send(t.Context(), service.address(), out)); !ok || later.After != time.Hour {
		t.Error("a push service can ask for an endless pause")
	}
	service.Close()
	err := push.Send(t.Context(), service.address(), out)
	if _, refused := errors.AsType[*message.Refusal](err); err == nil || refused || strings.Contains(err.Error(), "/send/1") {
		t.Errorf("a push service that is down: %v", err)
	}
}

func TestPushDoesNotCallPrivateAddresses(t *testing.T) {
	t.Parallel()
	service := newPushService(t, http.StatusCreated)
	push, _ := newPush(t, false)
	address := service.address()
	for _, endpoint := range []string{
		service.URL, strings.Replace(service.URL, "http:", "https:", 1), "https://localhost:1/", "https://10.0.0.1/", "https://[::1]/", "https://169.254.169.254/",
		"https://[::ffff:127.0.0.1]/", "https://0.0.0.0/",
	} {
		address.Push.Endpoint = endpoint
		err := push.Send(t.Context(), address, out)
		if refusal, ok := errors.AsType[*message.Refusal](err); !ok || refusal.Code != message.CodeEndpointNotAllowed {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
	if len(service.got) != 0 {
		t.Error("a private address was called")
	}
}

func TestPublicAddresses(t *testing.T) {
	t.Parallel()
	for address, public := range map[string]bool{
		"93.184.216.34:443": true, "[2606:2800:220:1:248:1893:25c8:1946]:443": true,
		"127.0.0.1:443": false, "10.1.2.3:443": false, "172.16.0.1:443": false, "192.168.0.1:443": false, "100.64.0.1:443": false,
		"169.254.169.254:80": false, "0.0.0.0:443": false, "255.255.255.255:443": false, "224.0.0.1:443": false, "[::]:443": false, "[::1]:443": false,
		"[fe80::1%eth0]:443": false, "[fd00::1]:443": false, "[::ffff:10.0.0.1]:443": false, "[64:ff9b::a00:1]:443": false, "[2002:a00:1::]:443": false, "x": false,
	} {
		if err := checkAddress(address, false); (err == nil) != public {
			t.Errorf("%s: %v", address, err)
		}
		if err := checkAddress(address, true); (err == nil) != (public || address == "127.0.0.1:443" || address == "[::1]:443") {
			t.Errorf("%s on a laptop: %v", address, err)
		}
	}
}
