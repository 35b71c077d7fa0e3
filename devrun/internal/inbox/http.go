package inbox

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"waybill/contracts"
)

// handler is everything the inbox answers over HTTP. base is its own address, http://host:port.
type handler struct {
	take          func(Message) error
	subscriptions *subscriptions
	base          string
	// closing is closed when the inbox stops.
	closing <-chan struct{}
	busy    busy
}

func (h *handler) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("POST /sms", h.sms)
	mux.HandleFunc("POST /push/{subscription}", h.push)
	mux.HandleFunc("PUT /subscriptions/{subscription}", h.subscribe)
	mux.HandleFunc("DELETE /subscriptions/{subscription}", h.unsubscribe)
	return http.MaxBytesHandler(mux, largest)
}

// e164 is a phone number in the international form.
var e164 = regexp.MustCompile(`^\+[1-9][0-9]{1,14}$`)

// sms takes a text message: the text is the body, the number the header To-Number. Dapr's HTTP binding makes a header of
// every metadata key that begins with a capital letter.
func (h *handler) sms(w http.ResponseWriter, r *http.Request) {
	text, ok := body(w, r)
	if !ok {
		return
	}
	// Through the sidecar's HTTP API, rather than gRPC, the text comes as a JSON string.
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	var quoted string
	if err == nil && kind == "application/json" && json.Unmarshal(text, &quoted) == nil {
		text = []byte(quoted)
	}
	to := r.Header.Get("To-Number")
	switch {
	case !e164.MatchString(to):
		http.Error(w, "the header To-Number is a phone number such as +12065550123", http.StatusBadRequest)
	case strings.TrimSpace(string(text)) == "":
		http.Error(w, "the body is the text of the message, and it is empty", http.StatusBadRequest)
	case !utf8.Valid(text):
		http.Error(w, "the text is not UTF-8", http.StatusBadRequest)
	case h.answered(w, r, to):
	default:
		h.keep(w, Message{
			Channel:        contracts.ChannelSMS,
			To:             to,
			Text:           string(text),
			NotificationID: r.Header.Get("Notification-Id"),
		})
	}
}

// push takes a push message as a push service does (RFC 8030) and reads it as the browser behind it would (RFC 8291).
func (h *handler) push(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("subscription")
	have, err := h.subscriptions.get(name)
	switch {
	case errors.Is(err, errUnknown):
		http.Error(w, "no such subscription", http.StatusNotFound)
		return
	case err != nil:
		http.Error(w, "the subscription cannot be read", http.StatusInternalServerError)
		return
	case have.Gone:
		http.Error(w, "this subscription has ended", http.StatusGone)
		return
	}
	if err := checkVAPID(r.Header.Get("Authorization"), h.base, time.Now()); err != nil {
		code := http.StatusForbidden
		if errors.Is(err, errNoVAPID) {
			w.Header().Set("WWW-Authenticate", "vapid")
			code = http.StatusUnauthorized
		}
		http.Error(w, "not a sender that can be told (RFC 8292): "+err.Error(), code)
		return
	}
	if _, err := strconv.ParseUint(r.Header.Get("TTL"), 10, 32); err != nil {
		http.Error(w, "the header TTL is missing or not a number of seconds", http.StatusBadRequest)
		return
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "aes128gcm" {
		http.Error(w, "the content encoding is not aes128gcm", http.StatusUnsupportedMediaType)
		return
	}
	sealed, ok := body(w, r)
	if !ok {
		return
	}
	// RFC 8030 lets a push service refuse what is larger, and all do.
	const largestPush = 4096
	if len(sealed) > largestPush {
		http.Error(w, "a push message has at most 4096 bytes", http.StatusRequestEntityTooLarge)
		return
	}
	own, err := have.keys()
	if err != nil {
		http.Error(w, "the subscription cannot be read", http.StatusInternalServerError)
		return
	}
	// A push service could not see this; the browser behind it would drop the message without a word.
	text, err := own.decrypt(sealed)
	if err != nil {
		http.Error(w, "the message cannot be decrypted with this subscription's keys: "+err.Error(), http.StatusBadRequest)
		return
	}
	m := pushMessage(text)
	m.To = name
	if m.NotificationID == "" {
		m.NotificationID = r.Header.Get("Notification-Id")
	}
	h.keep(w, m)
}

// pushMessage reads what a service worker would show: the usual names in a JSON object, or plain text.
func pushMessage(text []byte) Message {
	m := Message{Channel: contracts.ChannelPush, Text: strings.ToValidUTF8(string(text), "\uFFFD")}
	var content struct {
		Title          string `json:"title"`
		Body           string `json:"body"`
		NotificationID string `json:"notification_id"`
		Tag            string `json:"tag"`
	}
	if json.Unmarshal(text, &content) != nil {
		return m
	}
	m.Data = text
	m.Subject = content.Title
	if content.Title != "" || content.Body != "" {
		m.Text = content.Body
	}
	m.NotificationID = content.NotificationID
	if m.NotificationID == "" {
		m.NotificationID = content.Tag
	}
	return m
}

// subscribe makes a push subscription, as a browser does when its user agrees, and answers what a server needs of it. To
// ask again for the same name changes nothing.
func (h *handler) subscribe(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("subscription")
	have, created, err := h.subscriptions.make(name)
	if errors.Is(err, errSubscriptionName) {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err != nil {
		http.Error(w, "the subscription cannot be kept", http.StatusInternalServerError)
		return
	}
	own, err := have.keys()
	if err != nil {
		http.Error(w, "the subscription cannot be read", http.StatusInternalServerError)
		return
	}
	answer, err := json.Marshal(contracts.PushAddress{
		Endpoint: h.base + "/push/" + name,
		P256DH:   base64.RawURLEncoding.EncodeToString(own.private.PublicKey().Bytes()),
		Auth:     have.Auth,
	})
	if err != nil {
		http.Error(w, "the subscription cannot be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if created {
		w.WriteHeader(http.StatusCreated)
	}
	_, _ = w.Write(append(answer, '\n'))
}

// unsubscribe ends a push subscription, as a browser does when its user changes their mind: pushes to it are then 410.
func (h *handler) unsubscribe(w http.ResponseWriter, r *http.Request) {
	err := h.subscriptions.end(r.PathValue("subscription"))
	switch {
	case errors.Is(err, errUnknown):
		http.Error(w, "no such subscription", http.StatusNotFound)
	case err != nil:
		http.Error(w, "the subscription cannot be kept", http.StatusInternalServerError)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// keep answers 201 only when the message is on the disk.
func (h *handler) keep(w http.ResponseWriter, m Message) {
	if err := h.take(m); err != nil {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "the message could not be kept", http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

// body reads the request's body; if it cannot, it answers and reports false.
func body(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	text, err := io.ReadAll(r.Body)
	if err == nil {
		return text, true
	}
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		http.Error(w, "the message is larger than 1 MiB", http.StatusRequestEntityTooLarge)
	} else {
		http.Error(w, "the message did not arrive whole", http.StatusBadRequest)
	}
	return nil, false
}
