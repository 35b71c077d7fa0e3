package contact_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"waybill/contracts"
	"waybill/services/notifications/internal/contact"
	"waybill/services/notifications/internal/message"
)

var at = time.Date(2026, time.March, 14, 9, 26, 53, 0, time.UTC)

func whole() contracts.Contact {
	return contracts.Contact{
		Name: "Test Customer", Email: "cust-123@example.com", Phone: "+12065550123",
		Push: &contracts.PushAddress{
			Endpoint: "https://push.example.com/send/f1LsxkKphfQ",
			P256DH:   "BNcRdreALRFXTkOOUHK1EtK2wtaz5Ry4YfYCA_0QTpQtUbVlUls0VJXg7A8u-Ts1XbjhazAkj7I99e8QcYP7DkM", Auth: "tBHItJI5svbpez7KI4CCXg",
		},
	}
}

func TestCheckNamesEveryFault(t *testing.T) {
	t.Parallel()
	if faults := contact.Check(whole(), false); len(faults) != 0 {
		t.Errorf("a valid contact: %v", faults)
	}
	if faults := contact.Check(contracts.Contact{}, false); len(faults) != 0 {
		t.Errorf("an empty contact: %v", faults)
	}
	bad := contracts.Contact{
		Name: "a\nb", Email: "not-an-address", Phone: "0206", Push: &contracts.PushAddress{Endpoint: "ftp://push.example.com", P256DH: "AAAA", Auth: "***"},
	}
	faults := contact.Check(bad, true)
	paths := make([]string, 0, len(faults))
	for _, fault := range faults {
		paths = append(paths, fault.Path)
	}
	if want := []string{"name", "email", "phone", "push.endpoint", "push.p256dh", "push.auth"}; !slices.Equal(paths, want) {
		t.Errorf("got %v, want %v", paths, want)
	}
	if text := faults.Error(); strings.Contains(text, "not-an-address") || strings.Contains(text, "0206") {
		t.Errorf("the error repeats personal data: %s", text)
	}
}

func TestPhone(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"+12065550123": true, "+4915112345678": true, "12065550123": false, "+0206555012": false, "+1206": false,
		"+1 206 555 0123": false, "+1234567890123456": false, "+1206555\n123": false,
	} {
		if got := len(contact.Check(contracts.Contact{Phone: s}, false)) == 0; got != want {
			t.Errorf("%q: %t", s, got)
		}
	}
}

func TestEndpoint(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		endpoint         string
		allowed, locally bool
	}{
		{"https://push.example.com/1", true, true},
		{"https://push.example.com:8443/1?a=b", true, true},
		{"http://push.example.com/1", false, false},
		{"http://127.0.0.1:1026/push/1", false, true},
		{"http://localhost:1026/push/1", false, true},
		{"http://[::1]:1026/push/1", false, true},
		{"http://127.0.0.1.example.com/", false, false},
		{"http://169.254.169.254/metadata", false, false},
		{"https://user@push.example.com/", false, false},
		{"https:///1", false, false},
		{"https:push", false, false},
		{"https://pusch.b\u00fccher.example/1", false, false},
		{"https://push.example.com/\u00fc", false, false},
		{"https://push.example.com:0/1", false, false},
		{"https://push.example.com:65536/1", false, false},
		{"https://push.example.com/a b", false, false},
		{"file:///etc/passwd", false, false},
		{"https://push.example.com/" + strings.Repeat("a", 2000), false, false},
		{"", false, false},
	} {
		if got := contact.EndpointAllowed(test.endpoint, false); got != test.allowed {
			t.Errorf("%s: %t", test.endpoint, got)
		}
		if got := contact.EndpointAllowed(test.endpoint, true); got != test.locally {
			t.Errorf("%s on a laptop: %t", test.endpoint, got)
		}
	}
}

// A replica whose clock is hours ahead wrote the contact: later events still change it.
func TestAContactFromTheFuture(t *testing.T) {
	t.Parallel()
	first, second := contracts.Contact{Email: "first@example.com"}, contracts.Contact{Email: "second@example.com"}
	var c contact.Contact
	c.Set(first, at.Add(5*time.Hour))
	if !c.Learn(second, at, at.Add(time.Second)) || c.Email != second.Email || !c.At.Equal(at) {
		t.Errorf("%+v", c)
	}
	// A difference of seconds is within the slack.
	c.Set(first, at.Add(10*time.Second))
	if c.Learn(second, at.Add(time.Second), at.Add(2*time.Second)) {
		t.Error("an older event changed the contact")
	}
}

func TestAnOlderEventDoesNotChangeAContact(t *testing.T) {
	t.Parallel()
	now := at.Add(time.Hour)
	var c contact.Contact
	first, second := contracts.Contact{Email: "first@example.com"}, contracts.Contact{Email: "second@example.com"}
	if !c.Learn(second, at.Add(time.Minute), now) || c.Learn(first, at, now) || c.Learn(second, at.Add(time.Minute), now) || c.Email != second.Email {
		t.Errorf("%+v", c)
	}
	// A contact set by the API is kept: older events do not change it, and an event from the future counts as now.
	c.Set(first, now)
	if c.Learn(second, at.Add(2*time.Minute), now) || c.Learn(second, now.Add(time.Hour), now) || c.Email != first.Email {
		t.Errorf("%+v", c)
	}
	if !c.Learn(second, now.Add(time.Second), now.Add(time.Minute)) {
		t.Error("a newer event did not change the contact")
	}
	c.Remove(now.Add(2 * time.Minute))
	if c.Known() || c.Email != "" || c.Learn(second, now.Add(time.Second), now.Add(time.Hour)) {
		t.Errorf("an old event restored the contact: %+v", c)
	}
	// The API replaces a contact even if the clock of another replica was ahead.
	c.Set(first, at)
	if !c.Known() || c.Email != first.Email || c.At.Before(now) {
		t.Errorf("%+v", c)
	}
}

func TestForgetPush(t *testing.T) {
	t.Parallel()
	c := contact.Contact{Contact: whole(), At: at}
	if c.ForgetPush("https://push.example.com/older") || c.Push == nil {
		t.Error("another subscription was removed")
	}
	if !c.ForgetPush(c.Push.Endpoint) || c.Push != nil || c.ForgetPush("") {
		t.Errorf("%+v", c)
	}
}

func TestRefusal(t *testing.T) {
	t.Parallel()
	known := contact.Contact{Contact: whole(), At: at}
	empty := contact.Contact{At: at}
	onlyEmail := contact.Contact{Contact: whole(), At: at}
	onlyEmail.Preferences = &contracts.Preferences{Email: true}
	for _, channel := range contracts.Channels() {
		if r := known.Refusal(channel); r != nil {
			t.Errorf("%s: %v", channel, r)
		}
		if r := empty.Refusal(channel); r == nil || r.Code != message.CodeNoAddress {
			t.Errorf("%s without an address: %v", channel, r)
		}
		if r := new(contact.Contact).Refusal(channel); r == nil || r.Code != message.CodeNoAddress {
			t.Errorf("%s of an unknown customer: %v", channel, r)
		}
		r := onlyEmail.Refusal(channel)
		if off := r != nil && r.Code == message.CodeOptedOut; off != (channel != contracts.ChannelEmail) {
			t.Errorf("%s switched off: %v", channel, r)
		}
	}
}
