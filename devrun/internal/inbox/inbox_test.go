package inbox

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/smtp"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func start(t *testing.T, dir string) *Inbox {
	t.Helper()
	in, err := Start(dir, Loopback, 0, 0, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	})
	return in
}

// kept are the messages of an inbox, without the time at which they came.
func kept(t *testing.T, dir string) []Message {
	t.Helper()
	messages, damaged, err := NewReader(dir).Next()
	if err != nil || damaged != 0 {
		t.Fatalf("%d damaged, %v", damaged, err)
	}
	for i, m := range messages {
		if m.ReceivedAt.IsZero() {
			t.Errorf("message %d has no time", i)
		}
	}
	return messages
}

var noTime = cmpopts.IgnoreFields(Message{}, "ReceivedAt")

func TestMailIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := start(t, dir)
	mail := strings.ReplaceAll(`From: orders@example.com
To: cust-123@example.com
Subject: =?UTF-8?q?Your_order_is_on_its_way_=E2=80=94_thank_you?=
Mime-Version: 1.0
Content-Type: text/html; charset=UTF-8
Content-Transfer-Encoding: quoted-printable

<html><head><title>Waybill</title><style>p {color: red}</style></head>
<body><p>Dear Test Customer,<br>your order <b>ORD-1</b> costs =E2=82=AC&nbsp;99.98 &amp; is =
shipped.</p><table><tr><td>Carrier</td><td>UPS</td></tr></table>
<p>Reference: ORD-1.shipped. Two mails with the same reference are one.</p></body></html>
`, "\n", "\r\n")
	if err := smtp.SendMail(in.SMTP(), nil, "bounces@example.com", []string{"cust-123@example.com"}, []byte(mail)); err != nil {
		t.Fatal(err)
	}
	got := kept(t, dir)
	if len(got) != 1 {
		t.Fatalf("%d messages", len(got))
	}
	if !strings.HasPrefix(got[0].HTML, "<html>") {
		t.Errorf("HTML %q", got[0].HTML)
	}
	got[0].HTML = ""
	want := Message{
		Channel: "email", From: "orders@example.com", To: "cust-123@example.com",
		Subject: "Your order is on its way — thank you",
		Text: "Dear Test Customer,\nyour order ORD-1 costs € 99.98 & is shipped.\nCarrier UPS\n" +
			"Reference: ORD-1.shipped. Two mails with the same reference are one.",
		NotificationID: "ORD-1.shipped",
	}
	if diff := cmp.Diff(want, got[0], noTime); diff != "" {
		t.Error(diff)
	}
}

func TestAMailOfSeveralPartsIsReadByItsText(t *testing.T) {
	t.Parallel()
	mail := strings.ReplaceAll(`From: orders@example.com
Subject: Parts
Content-Type: multipart/alternative; boundary="xyz"

--xyz
Content-Type: text/plain; charset=UTF-8
Content-Transfer-Encoding: base64

VGhlIHRleHQu
--xyz
Content-Type: text/html

<p>The page.</p>
--xyz--
`, "\n", "\r\n")
	got, err := readMail(strings.NewReader(mail))
	if err != nil {
		t.Fatal(err)
	}
	if got.Text != "The text." || strings.TrimSpace(got.HTML) != "<p>The page.</p>" {
		t.Errorf("%+v", got)
	}
}

func TestMailIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := start(t, dir)
	send := func(to, mail string) string {
		err := smtp.SendMail(in.SMTP(), nil, "orders@example.com", []string{to}, []byte(mail))
		if err == nil {
			return "taken"
		}
		return err.Error()
	}
	if got := send("nobody", "Subject: x\r\n\r\nx\r\n"); !strings.HasPrefix(got, "501 ") {
		t.Errorf("to no address: %s", got)
	}
	if got := send("cust-123@example.com", "no header at all"); !strings.HasPrefix(got, "554 ") {
		t.Errorf("without a header: %s", got)
	}
	if got := send("cust-123@example.com", "Subject: x\r\n\r\n"+strings.Repeat("x\r\n", largest)); !strings.HasPrefix(got, "552 ") {
		t.Errorf("too large: %s", got)
	}
	if got := kept(t, dir); len(got) != 0 {
		t.Errorf("kept %v", got)
	}
}

// request calls the inbox over HTTP and returns the answer with its body.
func request(t *testing.T, in *Inbox, method, path string, body []byte, headers ...string) (int, string) {
	t.Helper()
	target := path
	if !strings.HasPrefix(path, "http://") {
		target = "http://" + in.HTTP() + path
	}
	req, err := http.NewRequestWithContext(t.Context(), method, target, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

func TestTextMessages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := start(t, dir)
	for _, c := range []struct {
		name, to, body string
		code           int
	}{
		{"as the Go client sends it", "+12065550123", "Order ORD-1 is on its way", http.StatusCreated},
		{"as the sidecar's HTTP API sends it", "+12065550123", `"Order \"ORD-2\""`, http.StatusCreated},
		{"a number in another form", "206 555 0123", "x", http.StatusBadRequest},
		{"no number", "", "x", http.StatusBadRequest},
		{"no text", "+12065550123", " ", http.StatusBadRequest},
		{"not text", "+12065550123", "\xff", http.StatusBadRequest},
		{"too large", "+12065550123", strings.Repeat("x", largest+1), http.StatusRequestEntityTooLarge},
	} {
		code, answer := request(t, in, http.MethodPost, "/sms", []byte(c.body), "To-Number", c.to, "Notification-Id", "n-1",
			"Content-Type", "application/json; charset=utf-8")
		if code != c.code {
			t.Errorf("%s: %d %s", c.name, code, answer)
		}
	}
	want := []Message{
		{Channel: "sms", To: "+12065550123", Text: "Order ORD-1 is on its way", NotificationID: "n-1"},
		{Channel: "sms", To: "+12065550123", Text: `Order "ORD-2"`, NotificationID: "n-1"},
	}
	if diff := cmp.Diff(want, kept(t, dir), noTime); diff != "" {
		t.Error(diff)
	}
}

func TestWhatATornWriteLeftIsCutOff(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	whole := `{"received_at":"2026-01-01T00:00:00Z","channel":"sms","to":"+1","text":"one"}` + "\n"
	if err := os.WriteFile(File(dir), []byte(whole+`{"received_at":"2026-01-`), 0o600); err != nil {
		t.Fatal(err)
	}
	// Who reads meanwhile leaves the unfinished message alone.
	if got := kept(t, dir); len(got) != 1 {
		t.Errorf("%d messages before", len(got))
	}
	in := start(t, dir)
	if code, answer := request(t, in, http.MethodPost, "/sms", []byte("two"), "To-Number", "+12065550123"); code != http.StatusCreated {
		t.Fatalf("%d %s", code, answer)
	}
	got := kept(t, dir)
	if len(got) != 2 || got[0].Text != "one" || got[1].Text != "two" {
		t.Errorf("%+v", got)
	}
}

func TestADamagedLineIsPassedOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := `{"received_at":"2026-01-01T00:00:00Z","channel":"sms","to":"+1","text":"one"}` + "\n\x00\x00\x00\n" +
		`{"received_at":"2026-01-01T00:00:00Z","channel":"sms","to":"+1","text":"two"}` + "\n"
	if err := os.WriteFile(File(dir), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, damaged, err := NewReader(dir).Next()
	if err != nil || damaged != 1 || len(got) != 2 {
		t.Errorf("%v, %d damaged, %v", got, damaged, err)
	}
}

func TestAReaderFollows(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "not yet there")
	r := NewReader(dir)
	next := func() int {
		got, _, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		return len(got)
	}
	if next() != 0 {
		t.Error("messages in no inbox")
	}
	in := start(t, dir)
	for range 2 {
		for range 3 {
			request(t, in, http.MethodPost, "/sms", []byte("x"), "To-Number", "+12065550123")
		}
		if n := next(); n != 3 {
			t.Errorf("read %d messages", n)
		}
	}
	if n := next(); n != 0 {
		t.Errorf("read %d messages twice", n)
	}
}

func TestAbout(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		m    Message
		want bool
	}{
		{Message{Text: "Your order ORD-1 is on its way."}, true},
		{Message{NotificationID: "ORD-1-shipped-email"}, true},
		{Message{Data: json.RawMessage(`{"order_id":"ORD-1"}`)}, true},
		{Message{Text: "Your order ORD-12 is on its way."}, false},
		{Message{Text: "XORD-1, ORD-1"}, true},
		{Message{}, false},
	} {
		if got := c.m.About("ORD-1"); got != c.want {
			t.Errorf("%+v: %t", c.m, got)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	in := start(t, t.TempDir())
	if err := Check(t.Context(), http.DefaultClient, in.SMTP(), "http://"+in.HTTP()); err != nil {
		t.Error(err)
	}
	if err := Check(t.Context(), http.DefaultClient, in.HTTP(), "http://"+in.HTTP()); err == nil {
		t.Error("an HTTP port passed for SMTP")
	}
}
