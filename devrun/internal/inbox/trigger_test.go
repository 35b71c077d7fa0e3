package inbox

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/smtp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func textTo(ctx context.Context, in *Inbox, number string) (status int, retryAfter string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+in.HTTP()+"/sms", strings.NewReader("Hello."))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("To-Number", number)
	req.Header.Set("Content-Type", "text/plain")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	return resp.StatusCode, resp.Header.Get("Retry-After"), resp.Body.Close()
}

func TestARecipientThatIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := start(t, dir)
	for _, to := range []string{"refused@example.com", "refused+1@example.org"} {
		if err := smtp.SendMail(in.SMTP(), nil, "orders@example.com", []string{to}, []byte("From: orders@example.com\r\nSubject: A\r\n\r\nB\r\n")); err == nil || !strings.HasPrefix(err.Error(), "550 ") {
			t.Errorf("%s: %v, want 550", to, err)
		}
	}
	status, _, err := textTo(t.Context(), in, numberRefused)
	if err != nil || status != http.StatusBadRequest {
		t.Errorf("%d, %v", status, err)
	}
	if got := kept(t, dir); len(got) != 0 {
		t.Errorf("it kept %v", got)
	}
}

// What hangs does not keep the inbox from closing, nor others from being served.
func TestARecipientThatHangs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in, err := Start(dir, Loopback, 0, 0, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", in.SMTP())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client, err := smtp.NewClient(conn, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Mail("orders@example.com"); err != nil {
		t.Fatal(err)
	}
	hung := make(chan error, 2)
	go func() { hung <- client.Rcpt("hangs@example.com") }()
	go func() {
		_, _, err := textTo(context.WithoutCancel(t.Context()), in, numberHangs)
		hung <- err
	}()
	if err := smtp.SendMail(in.SMTP(), nil, "orders@example.com", []string{"cust-123@example.com"}, []byte("From: orders@example.com\r\nSubject: A\r\n\r\nB\r\n")); err != nil {
		t.Error(err)
	}
	select {
	case err := <-hung:
		t.Errorf("it answered: %v", err)
	default:
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	<-hung
	<-hung
}

func TestABusyProvider(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b busy
		for round := range 2 {
			if left := b.left(time.Now()); left != busyFor {
				t.Errorf("round %d: the first call is refused for %v", round, left)
			}
			time.Sleep(busyFor - time.Second)
			if left := b.left(time.Now()); left != time.Second {
				t.Errorf("round %d: a call within the time is refused for %v", round, left)
			}
			time.Sleep(time.Second)
			if left := b.left(time.Now()); left > 0 {
				t.Errorf("round %d: after the time it is refused for %v", round, left)
			}
		}
	})
	in := start(t, t.TempDir())
	status, after, err := textTo(t.Context(), in, numberBusy)
	if err != nil || status != http.StatusTooManyRequests || after != "5" {
		t.Errorf("%d, %q, %v", status, after, err)
	}
}
