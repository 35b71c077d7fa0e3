package contact_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"waybill/contracts"
	"waybill/services/notifications/internal/contact"
)

func TestMailAddress(t *testing.T) {
	t.Parallel()
	local64, label63 := strings.Repeat("a", 64), strings.Repeat("a", 63)
	domain := strings.Repeat(label63+".", 2)
	for address, want := range map[string]string{
		"name@example.com":                 "name@example.com",
		"Name.O'Neil+tag@Example.COM":      "Name.O'Neil+tag@Example.COM",
		"name@bücher.example":              "name@xn--bcher-kva.example",
		"name@BÜCHER.example":              "name@xn--bcher-kva.example",
		"name@straße.example":              "name@xn--strae-oqa.example",
		"name@\u4f8bえ.テスト":                 "name@xn--r8jz45g.xn--zckzah",
		"name@\u4f8bえ。テスト":                 "name@xn--r8jz45g.xn--zckzah",
		"name@xn--bcher-kva.example":       "name@xn--bcher-kva.example",
		"name@r3---sn-4g5e6nsz.example":    "name@r3---sn-4g5e6nsz.example",
		"name@mailhost":                    "name@mailhost",
		"name@1and1.example":               "name@1and1.example",
		local64 + "@example.com":           local64 + "@example.com",
		local64 + "@" + domain + "example": local64 + "@" + domain + "example",
		// An encoded word is a valid name: mail servers do not decode it.
		"=?utf-8?q?a?=@example.com": "=?utf-8?q?a?=@example.com",
	} {
		if got, err := contact.MailAddress(address); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", address, got, err, want)
		}
	}
}

func TestMailAddressesThatAreRefused(t *testing.T) {
	t.Parallel()
	const form, domain, number, local = "must be an email address", "domain name", "IP addresses", "before the @ only"
	label63 := strings.Repeat("a", 63)
	for address, rule := range map[string]string{
		"": form, "not-an-address": form, "@example.com": form, "Test Customer <name@example.com>": local, "name@example.com, b@example.com": local,
		"name@example.com;b@example.com": local, `"a b"@example.com`: local, `"name"@example.com`: local, "name(comment)@example.com": local,
		"name@example.com(comment)": domain, ".name@example.com": local, "name.@example.com": local, "na..me@example.com": local,
		"na me@example.com": local, "name@example.com\r\nBcc: b@example.com": local, "name@example.com\r\nBcc:": domain, "name\r\n@example.com": local, "na\x00me@example.com": local,
		"na\\me@example.com": local, "name@": domain, "name@example.com.": domain, "name@.example.com": domain, "name@example..com": domain,
		"name@-example.com": domain, "name@example-.com": domain, "name@exa_mple.com": domain, "name@exam ple.com": domain, "name@example.com?=": domain,
		"name@[192.0.2.1]": number, "name@[IPv6:2001:db8::1]": number, "name@192.0.2.1": number, "name@xn--a": domain, "name@exam\u00adple.com": domain,
		"name@exam\u202eple.com": domain, "name@ex\u200bample.com": domain, "name@b\u00fccher.example\u3002": domain, "name@\xffexample.com": form, "name@" + label63 + "a.example": domain,
		"jürgen@example.com": "only ASCII characters before the @", "\u540d\u524d@\u4f8bえ.テスト": "only ASCII characters before the @", "na\u00a0me@example.com": "only ASCII",
		strings.Repeat("a", 65) + "@example.com": "at most 64 bytes", strings.Repeat("a", 64) + "@" + strings.Repeat(label63+".", 2) + strings.Repeat("a", 62): "at most 254 bytes",
		// The address is short enough in characters, but not in bytes of its A-labels.
		"name@" + strings.Repeat(strings.Repeat("ü", 40)+".", 6) + "example": domain,
	} {
		got, err := contact.MailAddress(address)
		if err == nil {
			t.Errorf("%q: accepted as %q", address, got)
			continue
		}
		if !strings.Contains(err.Error(), rule) {
			t.Errorf("%q: %v, want the rule %q", address, err, rule)
		}
		faults := contact.Check(contracts.Contact{Email: address}, false)
		if address != "" && (len(faults) != 1 || faults[0].Path != "email" || faults[0].Expectation != err.Error()) {
			t.Errorf("%q: %v", address, faults)
		}
	}
}

// Every accepted address becomes one line of ASCII that mail servers accept, and accepting it again does not change it.
func TestMailAddressesAreSafeToSend(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		address := rapid.OneOf(
			rapid.String(),
			rapid.StringMatching(`[a-z.+"\\]{1,8}@[a-zü0-9.。\-]{1,12}\.?[a-z]{0,3}`),
			rapid.StringMatching(`[a-z]{1,64}@([\pL\pN]{1,30}\.){0,5}[a-z]{2,3}`),
		).Draw(t, "address")
		got, err := contact.MailAddress(address)
		if err != nil {
			return
		}
		if len(got) > 254 || strings.ContainsFunc(got, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"(),:;<>[\]`, r) }) || strings.Count(got, "@") != 1 {
			t.Fatalf("%q is sent as %q", address, got)
		}
		if again, err := contact.MailAddress(got); err != nil || again != got {
			t.Fatalf("%q becomes %q and then %q, %v", address, got, again, err)
		}
	})
}

func TestPhoneNumbersHaveASCIIDigits(t *testing.T) {
	t.Parallel()
	for _, phone := range []string{"+1206555\u0660123", "＋12065550123", "+１２０６５５５０１２３", "+12065550123\n", "+1206555\u00a00123", "12065550123", "+0206555012"} {
		if faults := contact.Check(contracts.Contact{Phone: phone}, false); len(faults) != 1 || faults[0].Path != "phone" {
			t.Errorf("%q: %v", phone, faults)
		}
	}
}

func TestNamesAreOneLine(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a\nb", "a\rb", "a\u2028b", "a\u2029b", "a\u0085b", "a\x00b"} {
		if faults := contact.Check(contracts.Contact{Name: name}, false); len(faults) != 1 || faults[0].Path != "name" {
			t.Errorf("%q: %v", name, faults)
		}
	}
	if faults := contact.Check(contracts.Contact{Name: "Jürgen Müller, \u540d\u524d"}, false); len(faults) != 0 {
		t.Error(faults)
	}
}
