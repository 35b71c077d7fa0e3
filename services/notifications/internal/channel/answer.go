package channel

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"waybill/services/notifications/internal/message"
)

// The answers of the providers, as far as Dapr's bindings show them (docs/adr/0030).

// mailAnswer matches the mail server's answer to MAIL, RCPT or DATA in the error of Dapr's SMTP binding, which wraps the error of
// gopkg.in/gomail.v2. Errors of the connection, the greeting or the sign-in do not match: they say nothing about the message.
var mailAnswer = regexp.MustCompile(`gomail: could not send email \d+: ([45]\d\d) (?:([45]\.\d{1,3}\.\d{1,3}) )?(.*)`)

// SMTP reply codes and parts of enhanced status codes with a rule of their own (RFC 5321, 3463 and 4954).
const (
	replyMailboxFull  = "552"
	enhancedFull      = ".2.2"
	enhancedTooLarge  = ".3.4"
	replySignIn       = "530"
	replyBadPassword  = "535"
	replyEncryption   = "538"
	maxReply          = 200
	defaultRetryAfter = 30 * time.Second
	// maxRetryAfter is the longest pause that a provider can ask for.
	maxRetryAfter = time.Hour
)

// mailRefusal returns the mail server's permanent refusal of the message, or nil if err is not one. A permanent refusal is a 5xx
// reply, except for a full mailbox, which can be emptied, and a missing or wrong sign-in, which the operators can fix. The text repeats
// the answer of the server without addresses.
func mailRefusal(err error) error {
	if err == nil {
		return nil
	}
	found := mailAnswer.FindStringSubmatch(err.Error())
	if found == nil {
		return nil
	}
	reply, enhanced := found[1], found[2]
	switch {
	case reply[0] != '5', reply == replySignIn, reply == replyBadPassword, reply == replyEncryption:
		return nil
	case strings.HasSuffix(enhanced, enhancedTooLarge):
		return &message.Refusal{Code: message.CodeTooLarge, Text: "The message is too large for the mail server."}
	case reply == replyMailboxFull, strings.HasSuffix(enhanced, enhancedFull):
		return nil
	}
	said := strings.TrimSpace(reply + " " + strings.TrimSpace(enhanced+" "+found[3]))
	return &message.Refusal{Code: message.CodeRejected, Text: "The mail server refused the message: " + clip(said) + "."}
}

// clip makes one line of an answer and shortens it.
func clip(said string) string {
	line := []rune(strings.TrimRight(strings.Join(strings.Fields(said), " "), "."))
	return string(line[:min(len(line), maxReply)])
}

// twilioAnswer matches the provider's status in the error of Dapr's Twilio binding.
var twilioAnswer = regexp.MustCompile(`error from Twilio \((\d{3})\)`)

// smsResult interprets the answer of an SMS binding. The HTTP binding returns status and headers; the Twilio binding returns an
// error with the status.
func smsResult(answer map[string]string, err error) error {
	status := 0
	if err != nil {
		if found := twilioAnswer.FindStringSubmatch(err.Error()); found != nil {
			status, _ = strconv.Atoi(found[1])
		}
	} else if said, there := answer["statusCode"]; there {
		status, _ = strconv.Atoi(said)
	}
	switch {
	case status == 0, err == nil && status/100 == 2:
		return err
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		// Both are about the sender, so they hold for every message.
		return &message.Later{
			Text:  fmt.Sprintf("The SMS provider answered %d.", status),
			After: retryAfter(status, answer["Retry-After"], answer["Date"], time.Now()), Channel: true,
		}
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusProxyAuthRequired, status == http.StatusRequestTimeout:
		// The operators can fix the credentials, and a slow request may be faster next time.
		return &message.Later{Text: fmt.Sprintf("The SMS provider answered %d.", status)}
	case status == http.StatusRequestEntityTooLarge:
		return &message.Refusal{Code: message.CodeTooLarge, Text: "The message is too large for the SMS provider."}
	case status/100 == 4:
		return &message.Refusal{Code: message.CodeRejected, Text: fmt.Sprintf("The SMS provider refused the message: it answered %d.", status)}
	default:
		return &message.Later{Text: fmt.Sprintf("The SMS provider answered %d.", status)}
	}
}

// retryAfter returns the pause that an answer with this status asks for: its Retry-After header (RFC 9110, section 10.2.3) in seconds or
// as a date. A date is compared with the Date of the answer, if any, because the provider's clock may differ from ours. Without the
// header the pause is defaultRetryAfter for 429 and zero for other codes.
func retryAfter(status int, header, date string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	if seconds, err := strconv.ParseInt(header, 10, 64); err == nil {
		return time.Duration(min(max(seconds, 0), int64(maxRetryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		if said, err := http.ParseTime(date); err == nil {
			now = said
		}
		return min(max(at.Sub(now), 0), maxRetryAfter)
	}
	if status == http.StatusTooManyRequests {
		return defaultRetryAfter
	}
	return 0
}
