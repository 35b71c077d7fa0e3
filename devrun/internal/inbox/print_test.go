package inbox

import (
	"strings"
	"testing"
	"time"
)

func TestPrint(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	err := Print(&b, Message{
		ReceivedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Channel: "email",
		From: "orders@example.com", To: "cust-123@example.com", Subject: "On its way", NotificationID: "n-1",
		Text: "Dear Test Customer,\r\n\nred: \x1b[31m",
	}, time.FixedZone("", 3600))
	if err != nil {
		t.Fatal(err)
	}
	want := `── 2026-01-02 04:04:05  email to cust-123@example.com
   from     orders@example.com
   id       n-1
   subject  On its way

   Dear Test Customer,
   
   red: ` + "\uFFFD" + `[31m

`
	if b.String() != want {
		t.Errorf("%q", b.String())
	}
}
