package inbox

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// Recipients that make the inbox behave like a provider with whom something is wrong. A mailbox is known by what stands before the
// @, without a +tag, whatever its domain.
const (
	// mailboxRefused does not exist.
	mailboxRefused = "refused"
	// mailboxHangs makes the server stop answering on that connection.
	mailboxHangs = "hangs"

	// numberRefused can take no text messages.
	numberRefused = "+15005550001"
	// numberHangs makes the provider not answer.
	numberHangs = "+15005550408"
	// numberBusy makes the provider answer 429 to the first message and for busyFor after it, then take one; and so on.
	numberBusy = "+15005550429"

	busyFor = 5 * time.Second
	// longestHang is how long a call hangs if the caller does not end it.
	longestHang = 10 * time.Minute
)

// mailbox is the part of an address that may be a trigger.
func mailbox(address string) string {
	local, _, _ := strings.Cut(address, "@")
	local, _, _ = strings.Cut(local, "+")
	return local
}

// triggered is what the mail server does about a recipient that is a trigger. It returns nil for every other one.
func triggered(address string, closing <-chan struct{}) error {
	switch mailbox(address) {
	case mailboxRefused:
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such mailbox here"}
	case mailboxHangs:
		timer := time.NewTimer(longestHang)
		defer timer.Stop()
		select {
		case <-closing:
		case <-timer.C:
		}
		return &smtp.SMTPError{Code: 421, EnhancedCode: smtp.EnhancedCode{4, 4, 2}, Message: "The connection has waited too long"}
	default:
		return nil
	}
}

// busy is a provider's limit of calls. It may be used by many goroutines.
type busy struct {
	mu    sync.Mutex
	until time.Time
}

// left is for how long calls are still refused. The first call begins that time, and the first one after it ends it.
func (b *busy) left(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.until.IsZero():
		b.until = now.Add(busyFor)
	case !now.Before(b.until):
		b.until = time.Time{}
		return 0
	}
	return b.until.Sub(now)
}

// answered does what a number that is a trigger asks for, and reports whether the call has its answer.
func (h *handler) answered(w http.ResponseWriter, r *http.Request, number string) bool {
	switch number {
	case numberRefused:
		http.Error(w, "this number cannot take text messages", http.StatusBadRequest)
	case numberHangs:
		timer := time.NewTimer(longestHang)
		defer timer.Stop()
		select {
		case <-r.Context().Done():
		case <-h.closing:
		case <-timer.C:
		}
		http.Error(w, "no answer came", http.StatusGatewayTimeout)
	case numberBusy:
		left := h.busy.left(time.Now())
		if left <= 0 {
			return false
		}
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(left.Seconds()))))
		http.Error(w, "too many text messages", http.StatusTooManyRequests)
	default:
		return false
	}
	return true
}
