package inbox

import (
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"testing"
)

// dialogue sends a mail line by line and returns the first answer that is a refusal, or "taken". Go's own client would send
// further commands and would correct line ends.
func dialogue(t *testing.T, in *Inbox, from, to, content string) string {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", in.SMTP())
	if err != nil {
		t.Fatal(err)
	}
	text := textproto.NewConn(conn)
	defer func() { _ = text.Close() }()
	if _, _, err := text.ReadResponse(220); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		send string
		want int
	}{
		{"EHLO localhost\r\n", 250},
		{"MAIL FROM:" + from + "\r\n", 250},
		{"RCPT TO:" + to + "\r\n", 250},
		{"DATA\r\n", 354},
		{content + "\r\n.\r\n", 250},
	} {
		if _, err := text.W.WriteString(step.send); err != nil {
			t.Fatal(err)
		}
		if err := text.W.Flush(); err != nil {
			t.Fatal(err)
		}
		_, _, err := text.ReadResponse(step.want)
		if refused, ok := errors.AsType[*textproto.Error](err); ok {
			return fmt.Sprintf("%d %s", refused.Code, refused.Msg)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return "taken"
}

const (
	mailFrom = "<orders@example.com>"
	mailTo   = "<cust-123@example.com>"
)

func TestEnvelopesThatAMailServerRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := start(t, dir)
	const content = "From: orders@example.com\r\nSubject: x\r\n\r\nx"
	for address, want := range map[string]string{
		"<cust-123@example.com>":                   "taken",
		"<name@xn--bcher-kva.example>":             "taken",
		"<name@[192.0.2.1]>":                       "taken",
		"<name@[IPv6:2001:db8::1]>":                "taken",
		"<name@[example.com]>":                     "5",
		`<"a b"@example.com>`:                      "taken",
		"<j\u00fcrgen@example.com>":                "553 5.6.7",
		"<name@b\u00fccher.example>":               "553 5.6.7",
		"<=?UTF-8?q?j=C3=BCrgen@example.com?=>":    "553 5.1.2", // what Dapr's binding makes of the one above
		"<name@exa_mple.com>":                      "553 5.1.2",
		"<name@-example.com>":                      "553 5.1.2",
		"<na\x01me@example.com>":                   "5",
		"<name@example.com.>":                      "5",
		"<name@example..com>":                      "5",
		"<.name@example.com>":                      "5",
		"<name>":                                   "5",
		"<" + strings.Repeat("a", 65) + "@a.com>":  "553 5.1.3",
		"<a@" + strings.Repeat("a.", 127) + "com>": "553 5.1.3",
	} {
		if got := dialogue(t, in, mailFrom, address, content); !strings.HasPrefix(got, want) {
			t.Errorf("to %q: %s, want %s", address, got, want)
		}
		if got := dialogue(t, in, address, mailTo, content); !strings.HasPrefix(got, want) {
			t.Errorf("from %q: %s, want %s", address, got, want)
		}
	}
	if got := dialogue(t, in, "<>", mailTo, content); got != "taken" {
		t.Errorf("a report: %s", got)
	}
	if got := dialogue(t, in, "<j\u00fcrgen@example.com> SMTPUTF8", mailTo, content); !strings.HasPrefix(got, "504 ") {
		t.Errorf("with SMTPUTF8, which is not offered: %s", got)
	}
}

func TestContentThatAMailServerRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := start(t, dir)
	const header = "From: orders@example.com\r\nSubject: x\r\n"
	for name, test := range map[string]struct{ from, content, want string }{
		"plain":                               {mailFrom, header + "\r\nx", "taken"},
		"a line of 998 bytes":                 {mailFrom, header + "\r\n" + strings.Repeat("x", 998), "taken"},
		"a line of 999 bytes":                 {mailFrom, header + "\r\n" + strings.Repeat("x", 999), "550 5.6.0 Line 4 "},
		"a header of 999 bytes":               {mailFrom, header + "X: " + strings.Repeat("x", 996) + "\r\n\r\nx", "550 5.6.0 Line 3 "},
		"a bare LF":                           {mailFrom, header + "\r\nx\ny", "550 5.6.0 Line 4 "},
		"a bare LF in the header":             {mailFrom, "From: orders@example.com\nSubject: x\r\n\r\nx", "550 5.6.0 Line 1 "},
		"a bare CR":                           {mailFrom, header + "\r\nx\ry", "550 5.6.0 Line 4 "},
		"a NUL":                               {mailFrom, header + "\r\nx\x00y", "550 5.6.0 Line 4 "},
		"a subject beyond ASCII":              {mailFrom, "From: orders@example.com\r\nSubject: \u00fc\r\n\r\nx", "550 5.6.0 Line 2 "},
		"a body beyond ASCII":                 {mailFrom, header + "\r\n\u00fc", "550 5.6.0 Line 4 "},
		"a body beyond ASCII, announced":      {mailFrom + " BODY=8BITMIME", header + "\r\n\u00fc", "taken"},
		"no sender":                           {mailFrom, "Subject: x\r\n\r\nx", "554 5.6.0"},
		"two senders":                         {mailFrom, header + "From: b@example.com\r\n\r\nx", "554 5.6.0"},
		"two subjects":                        {mailFrom, header + "Subject: y\r\n\r\nx", "554 5.6.0"},
		"a recipient that is an encoded word": {mailFrom, header + "To: =?UTF-8?q?j=C3=BCrgen@example.com?=\r\n\r\nx", "554 5.6.0"},
		"a recipient that is no address":      {mailFrom, header + "To: nobody\r\n\r\nx", "554 5.6.0"},
	} {
		if got := dialogue(t, in, test.from, mailTo, test.content); !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}
