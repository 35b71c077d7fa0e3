package contacts

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waybill/contracts"
	"waybill/devrun/internal/inbox"
)

// world is a notifications service that keeps one contact, as its API describes it, and a real inbox.
type world struct {
	contact *contracts.Contact
	puts    int
	service *httptest.Server
	inbox   string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/customers/CUST-123/contact", func(rw http.ResponseWriter, _ *http.Request) {
		if w.contact == nil {
			rw.WriteHeader(http.StatusNotFound)
			return
		}
		if err := json.NewEncoder(rw).Encode(w.contact); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("PUT /v1/customers/CUST-123/contact", func(rw http.ResponseWriter, r *http.Request) {
		w.puts++
		w.contact = new(contracts.Contact)
		if err := json.NewDecoder(r.Body).Decode(w.contact); err != nil {
			t.Error(err)
		}
		rw.WriteHeader(http.StatusNoContent)
	})
	w.service = httptest.NewServer(mux)
	t.Cleanup(w.service.Close)
	w.inbox = w.open(t, t.TempDir())
	return w
}

func (w *world) open(t *testing.T, dir string) string {
	t.Helper()
	in, err := inbox.Start(dir, inbox.Loopback, 0, 0, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return "http://" + in.HTTP()
}

func (w *world) load(t *testing.T, want bool) {
	t.Helper()
	changed, err := Load(t.Context(), w.service.Client(), w.service.URL, w.inbox)
	if err != nil {
		t.Fatal(err)
	}
	if changed != want {
		t.Errorf("changed: %t, want %t", changed, want)
	}
}

func TestTheSampleCustomerBecomesReachable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.load(t, true)
	want := sample()
	want.Push = w.contact.Push
	if diff := cmp.Diff(&want, w.contact); diff != "" {
		t.Error(diff)
	}
	if want := w.inbox + "/push/CUST-123"; w.contact.Push.Endpoint != want {
		t.Errorf("push goes to %s, want %s", w.contact.Push.Endpoint, want)
	}

	w.load(t, false)
	if w.puts != 1 {
		t.Errorf("told %d times", w.puts)
	}

	// Another run has another inbox; what somebody changed meanwhile stays.
	w.contact.Email = "other@example.com"
	w.inbox = w.open(t, t.TempDir())
	w.load(t, true)
	if want := w.inbox + "/push/CUST-123"; w.contact.Push.Endpoint != want || w.contact.Email != "other@example.com" {
		t.Errorf("%+v, want push to %s", w.contact, want)
	}
}

func TestWithoutAnInboxThereIsNoPushSubscription(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.inbox = ""
	w.load(t, true)
	want := sample()
	want.Preferences.Push = false
	if diff := cmp.Diff(&want, w.contact); diff != "" {
		t.Error(diff)
	}
	w.load(t, false)
}

func TestAContactOfSomebodyElseStays(t *testing.T) {
	t.Parallel()
	for _, push := range []*contracts.PushAddress{nil, {Endpoint: "https://push.example.com/x"}, {Endpoint: "%"}} {
		w := newWorld(t)
		w.contact = &contracts.Contact{Email: "other@example.com", Push: push}
		w.load(t, false)
		if w.puts != 0 {
			t.Errorf("changed a contact with push %+v", push)
		}
	}
}

func TestARefusalIsReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.service.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(http.StatusServiceUnavailable)
	})
	if _, err := Load(t.Context(), w.service.Client(), w.service.URL, w.inbox); err == nil {
		t.Error("no error from notifications")
	}
	if _, err := Load(t.Context(), w.service.Client(), w.service.URL, w.service.URL); err == nil {
		t.Error("no error from the inbox")
	}
}
