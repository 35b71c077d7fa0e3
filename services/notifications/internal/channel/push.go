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
	// closed has, for each push service that asked for a pause, when that is over.
	closed map[string]time.Time
}

const (
	dialTimeout = 5 * time.Second
	// timeToLive is how long a push service keeps a message for a browser that is away, in seconds.
	timeToLive = 2 * 24 * 60 * 60
	// maxAnswer is how much of a push service's answer is read, in bytes, so that the connection can be used again.
	maxAnswer = 64 << 10
)

// NewPush returns the channel. Subject is how a push service's operators reach this service's: a mailto: or https: URL. With
// loopback it also calls this machine, which is for tests and laptops.
func NewPush(keys *vapid.Ring, subject string, loopback bool) *Push {
	dialer := net.Dialer{Timeout: dialTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		return checkAddress(address, loopback)
	}}
	return &Push{
		keys: keys, loopback: loopback, closed: map[string]time.Time{},
		// webpush-go adds the scheme itself.
		subject: strings.TrimPrefix(subject, "mailto:"),
		client: &http.Client{
			// No proxy: it would choose whom to call, and the check of the address would see the proxy's.
			Transport: &http.Transport{
				DialContext: dialer.DialContext, ForceAttemptHTTP2: true, TLSHandshakeTimeout: dialTimeout,
				MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: maxAnswer,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Parallel is how many push services are called at a time.
func (*Push) Parallel() int { return 8 }

// Close ends idle connections.
func (c *Push) Close() { c.client.CloseIdleConnections() }

var errNotPublic = errors.New("the push service's address is not a public one")

// notPublic are the ranges, beside those that netip knows, which do not belong to the internet, or which lead to IPv4
// addresses that may not.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("::/96"),
	netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/32"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"),
}

// checkAddress refuses to connect to what is no machine on the internet: a customer's contact names the endpoint, and must
// not make this service call its own neighbours. It sees the address after the name was resolved, so no name gets around it.
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

// pushed is what the browser's service worker is given.
type pushed struct {
	NotificationID string `json:"notification_id"`
	OrderID        string `json:"order_id,omitempty"`
	Title          string `json:"title"`
	Body           string `json:"body"`
}

// topic follows from the message's id, so that a push service keeps one copy of a message sent twice. RFC 8030 allows 32
// characters of base64url.
func topic(id string) string {
	sum := sha256.Sum256([]byte(id))
	return base64.RawURLEncoding.EncodeToString(sum[:24])
}

// Send returns when the push service took the message. A subscription that it does not know any more is a Refusal.
func (c *Push) Send(ctx context.Context, to contracts.Contact, m message.Outgoing) error {
	if to.Push == nil || !contact.EndpointAllowed(to.Push.Endpoint, c.loopback) {
		return notAllowed()
	}
	if !contact.ValidKeys(*to.Push) {
		return &message.Refusal{Code: message.CodeInvalidAddress, Text: "The known push subscription cannot be used: its keys are not those of a browser."}
	}
	if left := c.closedFor(host(to.Push.Endpoint)); left > 0 {
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
	_, _ = readErr, closeErr // the status has come, and nothing else of the answer counts
	err = verdict(resp)
	about := resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable
	if later, ok := errors.AsType[*message.Later](err); ok && about && later.After > 0 {
		c.close(host(to.Push.Endpoint), time.Now().Add(later.After))
	}
	return err
}

// A push service that named a time is not called before it, for none of its browsers. The others are.

func host(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return endpoint
	}
	return u.Host
}

// maxClosed bounds how many push services are remembered.
const maxClosed = 1000

func (c *Push) close(service string, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.closed) >= maxClosed {
		clear(c.closed)
	}
	c.closed[service] = until
}

// closedFor is how long the push service is not to be called.
func (c *Push) closedFor(service string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := time.Until(c.closed[service])
	if left <= 0 {
		delete(c.closed, service)
	}
	return left
}

func notAllowed() error {
	return &message.Refusal{Code: message.CodeEndpointNotAllowed, Text: "The push endpoint is none that may be called."}
}

func verdict(resp *http.Response) error {
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
		return nil
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusGone:
		return &message.Refusal{Code: message.CodeSubscriptionGone, Text: "The push service does not know the subscription any more."}
	case resp.StatusCode == http.StatusRequestEntityTooLarge:
		return &message.Refusal{Code: message.CodeTooLarge, Text: "The push service takes no message of this size."}
	default:
		return &message.Later{
			Text:  fmt.Sprintf("The push service answered %d.", resp.StatusCode),
			After: wait(resp.StatusCode, resp.Header.Get("Retry-After"), resp.Header.Get("Date"), time.Now()),
		}
	}
}
