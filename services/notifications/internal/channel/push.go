package channel

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	webpush "github.com/SherClockHolmes/webpush-go"

	"waybill/contracts"
	"waybill/services/notifications/internal/contact"
	"waybill/services/notifications/internal/message"
	"waybill/services/notifications/internal/vapid"
)

// Push sends messages to browsers by Web Push (RFC 8030, 8291 and 8292).
type Push struct {
	keys     *vapid.Ring
	subject  string
	loopback bool
	client   *http.Client

	mu sync.Mutex
	// pausedUntil is when the pause of a push service ends, by its host.
	pausedUntil map[string]time.Time
}

const (
	dialTimeout = 5 * time.Second
	// timeToLive is how long a push service keeps a message for a browser that is offline, in seconds.
	timeToLive = 2 * 24 * 60 * 60
	// maxAnswer is how many bytes of an answer are read, so that the connection can be reused.
	maxAnswer = 64 << 10
)

// NewPush returns the push channel. Subject is a mailto: or https: URL at which the operators of a push service can reach ours. With
// loopback it also calls endpoints on this machine, for tests and laptops.
func NewPush(keys *vapid.Ring, subject string, loopback bool) *Push {
	dialer := net.Dialer{Timeout: dialTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		return checkAddress(address, loopback)
	}}
	return &Push{
		keys: keys, loopback: loopback, pausedUntil: map[string]time.Time{},
		// webpush-go adds the scheme itself.
		subject: strings.TrimPrefix(subject, "mailto:"),
		client: &http.Client{
			// No proxy: checkAddress would check the address of the proxy instead of the push service.
			Transport: &http.Transport{
				DialContext: dialer.DialContext, ForceAttemptHTTP2: true, TLSHandshakeTimeout: dialTimeout,
				MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: maxAnswer,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Parallel is the number of concurrent calls.
func (*Push) Parallel() int { return 8 }

// Close closes idle connections.
func (c *Push) Close() { c.client.CloseIdleConnections() }

var errNotPublic = errors.New("the push service's address is not a public one")

// notPublic lists address ranges that are not public, or that lead to IPv4 addresses that may not be public, in addition to those
// that netip knows.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("::/96"),
	netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/32"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"),
}

// checkAddress refuses connections to addresses that are not public: a customer's contact names the endpoint and must not make this
// service call machines of its own network. It checks the address after the name was resolved, so no name can avoid it.
func checkAddress(address string, loopback bool) error {
	parsed, err := netip.ParseAddrPort(address)
	if err != nil {
		return errNotPublic
	}
	ip := parsed.Addr().Unmap().WithZone("")
	if ip.IsLoopback() && loopback {
		return nil
	}
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || slices.ContainsFunc(notPublic, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return errNotPublic
	}
	return nil
}

// pushed is the payload for the browser's service worker.
type pushed struct {
	NotificationID string `json:"notification_id"`
	OrderID        string `json:"order_id,omitempty"`
	Title          string `json:"title"`
	Body           string `json:"body"`
}

// topic derives the topic from the id of the message, so that a push service keeps one copy of a message that is sent twice. RFC 8030
// allows 32 characters of base64url.
func topic(id string) string {
	sum := sha256.Sum256([]byte(id))
	return base64.RawURLEncoding.EncodeToString(sum[:24])
}

// Send returns nil when the push service has accepted the message. A subscription that it no longer knows is a Refusal.
func (c *Push) Send(ctx context.Context, to contracts.Contact, m message.Outgoing) error {
	if to.Push == nil || !contact.EndpointAllowed(to.Push.Endpoint, c.loopback) {
		return notAllowed()
	}
	if !contact.ValidKeys(*to.Push) {
		return &message.Refusal{Code: message.CodeInvalidAddress, Text: "The known push subscription cannot be used: its keys are not those of a browser."}
	}
	if left := c.pauseOf(host(to.Push.Endpoint)); left > 0 {
		return &message.Later{Text: "The push service asked for a pause.", After: left, Untried: true}
	}
	keys, err := c.keys.Keys(ctx)
	if err != nil {
		return fmt.Errorf("get the VAPID keys: %w", err)
	}
	payload, err := json.Marshal(pushed{m.ID, m.OrderID, m.Subject, m.Body})
	if err != nil {
		return fmt.Errorf("encode a push message: %w", err)
	}
	resp, err := webpush.SendNotificationWithContext(ctx, payload,
		&webpush.Subscription{Endpoint: to.Push.Endpoint, Keys: webpush.Keys{Auth: to.Push.Auth, P256dh: to.Push.P256DH}},
		&webpush.Options{
			HTTPClient: c.client, Subscriber: c.subject, Topic: topic(m.ID), TTL: timeToLive, Urgency: webpush.UrgencyNormal,
			VAPIDPublicKey: keys.Public, VAPIDPrivateKey: keys.Private,
		})
	switch {
	case errors.Is(err, errNotPublic):
		return notAllowed()
	case errors.Is(err, webpush.ErrMaxPadExceeded):
		return &message.Refusal{Code: message.CodeTooLarge, Text: "The message is too large for a push message."}
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("call the push service: %w", errors.Join(context.DeadlineExceeded, redacted(err)))
	case err != nil:
		return fmt.Errorf("call the push service: %w", redacted(err))
	}
	_, readErr := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	closeErr := resp.Body.Close()
	_, _ = readErr, closeErr // only the status of the answer counts
	err = pushResult(resp)
	overloaded := resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable
	if later, ok := errors.AsType[*message.Later](err); ok && overloaded && later.After > 0 {
		c.pause(host(to.Push.Endpoint), time.Now().Add(later.After))
	}
	return err
}

// A push service that asked for a pause is not called for any of its browsers until the pause is over.

func host(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return endpoint
	}
	return u.Host
}

// maxPaused limits the number of remembered pauses.
const maxPaused = 1000

func (c *Push) pause(service string, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pausedUntil) >= maxPaused {
		clear(c.pausedUntil)
	}
	c.pausedUntil[service] = until
}

// pauseOf returns the rest of the pause of the push service.
func (c *Push) pauseOf(service string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := time.Until(c.pausedUntil[service])
	if left <= 0 {
		delete(c.pausedUntil, service)
	}
	return left
}

func notAllowed() error {
	return &message.Refusal{Code: message.CodeEndpointNotAllowed, Text: "The push endpoint is not allowed."}
}

func pushResult(resp *http.Response) error {
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
		return nil
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusGone:
		return &message.Refusal{Code: message.CodeSubscriptionGone, Text: "The push service no longer knows the subscription."}
	case resp.StatusCode == http.StatusRequestEntityTooLarge:
		return &message.Refusal{Code: message.CodeTooLarge, Text: "The message is too large for the push service."}
	default:
		return &message.Later{
			Text:  fmt.Sprintf("The push service answered %d.", resp.StatusCode),
			After: retryAfter(resp.StatusCode, resp.Header.Get("Retry-After"), resp.Header.Get("Date"), time.Now()),
		}
	}
}
