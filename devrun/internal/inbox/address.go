package inbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"net/netip"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-smtp"
)

// Limits of RFC 5321, section 4.5.3.1, and RFC 5322, section 2.1.1, in bytes and without the line's end.
const (
	longestLocal   = 64
	longestDomain  = 253
	longestLabel   = 63
	longestAddress = 254
	longestLine    = 998
)

// checkMailbox refuses an address of the envelope that a mail server on the internet would refuse. This inbox does not offer
// SMTPUTF8 (RFC 6531), as many servers do not, so an address is ASCII.
func checkMailbox(address string) error {
	refuse := func(enhanced smtp.EnhancedCode, format string, arguments ...any) error {
		return &smtp.SMTPError{Code: 553, EnhancedCode: enhanced, Message: fmt.Sprintf(format, arguments...)}
	}
	if i := strings.IndexFunc(address, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
		return refuse(smtp.EnhancedCode{5, 6, 7}, "The address has a character beyond ASCII or a control character at byte %d; SMTPUTF8 is not offered", i)
	}
	at := strings.LastIndexByte(address, '@')
	if at <= 0 || at == len(address)-1 {
		return refuse(smtp.EnhancedCode{5, 1, 3}, "The address must have the form name@example.com")
	}
	local, domain := address[:at], address[at+1:]
	if len(local) > longestLocal || len(address) > longestAddress {
		return refuse(smtp.EnhancedCode{5, 1, 3}, "The address is too long: at most %d bytes before the @ and %d together", longestLocal, longestAddress)
	}
	// The SMTP server has checked the rest of the part before the @, and has taken the quotes from a quoted one.
	if strings.HasPrefix(local, ".") || strings.HasSuffix(local, ".") || strings.Contains(local, "..") {
		return refuse(smtp.EnhancedCode{5, 1, 3}, "The part before the @ must have single dots between other characters")
	}
	if literal, ok := strings.CutPrefix(domain, "["); ok {
		if literal, ok = strings.CutSuffix(literal, "]"); ok && isLiteral(literal) {
			return nil
		}
	}
	if !isDomain(domain) {
		return refuse(smtp.EnhancedCode{5, 1, 2}, "The domain must consist of letters, digits, hyphens and dots between them, such as example.com")
	}
	return nil
}

// isLiteral reports whether text is what stands in the brackets of an address literal (RFC 5321, section 4.1.3).
func isLiteral(text string) bool {
	six, isSix := strings.CutPrefix(text, "IPv6:")
	ip, err := netip.ParseAddr(six)
	return err == nil && ip.Is6() == isSix
}

func isDomain(domain string) bool {
	if len(domain) > longestDomain {
		return false
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > longestLabel || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return false
		}
		for _, c := range []byte(label) {
			if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return false
			}
		}
	}
	return true
}

// readContent reads a mail and refuses what RFC 5321 and RFC 5322 do not allow in one: lines that do not end with CR LF, lines
// that are too long, NUL, and a header with characters beyond ASCII. A body beyond ASCII must
// be announced in MAIL (BODY=8BITMIME).
func readContent(r io.Reader, eightBit bool) ([]byte, error) {
	content, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	refuse := func(line int, text string) error {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: fmt.Sprintf("Line %d %s", line, text)}
	}
	inHeader := true
	for n, rest := 1, content; len(rest) > 0; n++ {
		line, after, whole := bytes.Cut(rest, []byte("\r\n"))
		rest = after
		switch {
		case bytes.ContainsAny(line, "\r\n"):
			return nil, refuse(n, "has a CR or an LF that is not part of a CR LF")
		case !whole:
			return nil, refuse(n, "does not end with CR LF")
		case len(line) > longestLine:
			return nil, refuse(n, fmt.Sprintf("has %d bytes, at most %d are allowed", len(line), longestLine))
		case bytes.IndexByte(line, 0) >= 0:
			return nil, refuse(n, "has a NUL")
		}
		beyond := bytes.ContainsFunc(line, func(r rune) bool { return r >= utf8.RuneSelf })
		switch {
		case inHeader && beyond:
			return nil, refuse(n, "of the header has a character beyond ASCII, which must be an encoded word (RFC 2047)")
		case beyond && !eightBit:
			return nil, refuse(n, "of the body has a character beyond ASCII without BODY=8BITMIME")
		}
		inHeader = inHeader && len(line) > 0
	}
	return content, nil
}

// checkHeader refuses a mail whose header a mail server would refuse: without one sender, with a field twice that may be there
// once (RFC 5322, section 3.6), or with addresses that are none.
func checkHeader(header mail.Header) error {
	for _, name := range []string{"From", "Sender", "Reply-To", "To", "Cc", "Bcc", "Subject", "Date", "Message-Id"} {
		if n := len(header[name]); n > 1 {
			return fmt.Errorf("the header has %s %d times, once is allowed", name, n)
		}
	}
	if header.Get("From") == "" {
		return errors.New("the header has no From")
	}
	for _, name := range []string{"From", "To", "Cc"} {
		if header.Get(name) == "" {
			continue
		}
		addresses, err := header.AddressList(name)
		if err != nil {
			return fmt.Errorf("the header's %s has no addresses of the form name@example.com", name)
		}
		for _, a := range addresses {
			if refused, ok := errors.AsType[*smtp.SMTPError](checkMailbox(a.Address)); ok {
				return fmt.Errorf("the header's %s: %s", name, refused.Message)
			}
		}
	}
	return nil
}
