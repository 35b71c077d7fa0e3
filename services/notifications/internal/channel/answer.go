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

// What the providers answer, as far as Dapr's bindings show it (docs/adr/0030).

// mailAnswer finds the mail server's answer to MAIL, RCPT or DATA in the error of Dapr's SMTP binding, which wraps the error of
// gopkg.in/gomail.v2. An error of the connection, the greeting or the sign-in has no such beginning: it says nothing about the
// message.
var mailAnswer = regexp.MustCompile(`gomail: could not send email \d+: ([45]\d\d) (?:([45]\.\d{1,3}\.\d{1,3}) )?(.*)`)

// SMTP reply codes and parts of enhanced ones (RFC 5321, 3463 and 4954) that need a rule of their own.
const (
	replyMailboxFull  = "552"
	enhancedFull      = ".2.2"
	enhancedTooLarge  = ".3.4"
	replySignIn       = "530"
	replyBadPassword  = "535"
	replyEncryption   = "538"
	maxReply          = 200
	defaultRetryAfter = 30 * time.Second
	// maxRetryAfter is how long a provider can make messages wait.
	maxRetryAfter = time.Hour
)

// mailRefusal is the mail server's permanent refusal of the message, nil when err is none: a reply of 5xx, except a full mailbox,
// which can be emptied, and a sign-in that is missing or wrong, which is the operators' to mend. The text repeats what the server said, and no address.
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
		return &message.Refusal{Code: message.CodeTooLarge, Text: "The mail server takes no message of this size."}
	case reply == replyMailboxFull, strings.HasSuffix(enhanced, enhancedFull):
		return nil
	}
	said := strings.TrimSpace(reply + " " + strings.TrimSpace(enhanced+" "+found[3]))
	return &message.Refusal{Code: message.CodeRejected, Text: "The mail server refused the message: " + clip(said) + "."}
}

// clip bounds what a server said, and makes one line of it.
func clip(said string) string {
	line := []rune(strings.TrimRight(strings.Join(strings.Fields(said), " "), "."))
	return string(line[:min(len(line), maxReply)])
}

// twilioAnswer finds the provider's status in the error of Dapr's Twilio binding.
var twilioAnswer = regexp.MustCompile(`error from Twilio \((\d{3})\)`)

// textVerdict is what the answer of an SMS binding comes to: that of the HTTP binding, which has the status and the headers, or
// the error of the Twilio binding, which has the status.
func textVerdict(answer map[string]string, err error) error {
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
			After: wait(status, answer["Retry-After"], answer["Date"], time.Now()), Channel: true,
		}
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusProxyAuthRequired, status == http.StatusRequestTimeout:
		// Credentials are the operators' to mend, and a slow request may be faster.
		return &message.Later{Text: fmt.Sprintf("The SMS provider answered %d.", status)}
	case status == http.StatusRequestEntityTooLarge:
		return &message.Refusal{Code: message.CodeTooLarge, Text: "The SMS provider takes no message of this size."}
	case status/100 == 4:
		return &message.Refusal{Code: message.CodeRejected, Text: fmt.Sprintf("The SMS provider refused the message: it answered %d.", status)}
	default:
		return &message.Later{Text: fmt.Sprintf("The SMS provider answered %d.", status)}
	}
}

// wait is how long an answer of that status wants to be left alone: what its Retry-After says (RFC 9110, section 10.2.3), in seconds
// or as a date, which is compared with the answer's own Date where there is one, for the provider's clock may differ from this one.
// Without the header 429 counts as a default, and everything else as no time at all.
func wait(status int, header, date string, now time.Time) time.Duration {
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
