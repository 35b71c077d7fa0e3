package contact

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

const (
	// Limits in bytes, from RFC 5321, sections 4.5.3.1.1 and 4.5.3.1.3, and RFC 1035. With angle brackets an address has at most
	// 256 bytes.
	maxEmail  = 254
	maxLocal  = 64
	maxDomain = 253
	maxLabel  = 63
)

// Faults of an email address. The texts do not repeat the address, which is personal data.
var (
	errEmailForm = errors.New("must be an email address, such as name@example.com")
	// Dapr's SMTP binding cannot send to such an address: it has no SMTPUTF8 (docs/adr/0024).
	errEmailLocalASCII   = errors.New("must have only ASCII characters before the @, such as juergen@example.com; the domain may have others")
	errEmailLocalLength  = errors.New("must have at most 64 bytes before the @")
	errEmailLocalForm    = errors.New("must have before the @ only letters, digits, single dots between them and the characters !#$%&'*+-/=?^_`{|}~; quoted names and comments are not accepted")
	errEmailLength       = errors.New("must have at most 254 bytes, with the domain in its ASCII form")
	errEmailDomain       = errors.New("must have after the @ a domain name, such as example.com or bücher.example, without a dot at its end")
	errEmailDomainNumber = errors.New("must have after the @ a domain name, such as example.com; IP addresses are not accepted")
)

// MailAddress returns the address in the form that mail servers accept: with the domain in its ASCII form (A-labels, RFC 5891).
// An error names the rule and does not repeat the address.
//
// The result is one dot-atom address of RFC 5321. It cannot break a mail header, and cannot be read as two addresses.
func MailAddress(s string) (string, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 0 || !utf8.ValidString(s) {
		return "", errEmailForm
	}
	local, domain := s[:at], s[at+1:]
	if err := checkLocal(local); err != nil {
		return "", err
	}
	ascii, err := asciiDomain(domain)
	if err != nil {
		return "", err
	}
	if at+1+len(ascii) > maxEmail {
		return "", errEmailLength
	}
	return local + "@" + ascii, nil
}

// checkLocal accepts a dot-atom (RFC 5322, section 3.2.3) but no quoted string.
func checkLocal(local string) error {
	switch {
	case local == "":
		return errEmailForm
	case strings.ContainsFunc(local, func(r rune) bool { return r > unicode.MaxASCII }):
		return errEmailLocalASCII
	case len(local) > maxLocal:
		return errEmailLocalLength
	}
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" || strings.ContainsFunc(atom, func(r rune) bool { return !isAtext(r) }) {
			return errEmailLocalForm
		}
	}
	return nil
}

func isAtext(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r)
}

// asciiDomain returns the domain as mail servers and the DNS know it.
func asciiDomain(domain string) (string, error) {
	if strings.HasPrefix(domain, "[") {
		return "", errEmailDomainNumber
	}
	ascii := domain
	// A name in ASCII is not changed, so that no name of the DNS is refused. Only A-labels are checked.
	if strings.ContainsFunc(domain, func(r rune) bool { return r > unicode.MaxASCII }) || strings.Contains(strings.ToLower(domain), "xn--") {
		// Invisible characters are refused, although the IDNA profile would drop some of them.
		if strings.ContainsFunc(domain, func(r rune) bool { return unicode.Is(unicode.Cf, r) && r != '\u200c' && r != '\u200d' }) {
			return "", errEmailDomain
		}
		var err error
		if ascii, err = idna.Lookup.ToASCII(domain); err != nil {
			return "", errEmailDomain
		}
	}
	if ascii == "" || len(ascii) > maxDomain {
		return "", errEmailDomain
	}
	var last string
	for label := range strings.SplitSeq(ascii, ".") {
		if label == "" || len(label) > maxLabel || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") ||
			strings.ContainsFunc(label, func(r rune) bool { return r != '-' && !isLetterOrDigit(r) }) {
			return "", errEmailDomain
		}
		last = label
	}
	if strings.Trim(last, "0123456789") == "" {
		return "", errEmailDomainNumber
	}
	return ascii, nil
}

func isLetterOrDigit(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}
