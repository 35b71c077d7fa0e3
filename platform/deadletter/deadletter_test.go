package deadletter

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"waybill/platform/eventing"
	"waybill/platform/rest"
	"waybill/platform/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service handles Order.Placed from orders and keeps its dead letters.
type service struct {
	store   *faulty
	queue   *Queue
	routes  http.Handler
	mu      sync.Mutex
	handle  eventing.Handler
	handled []eventing.Event
}

// faulty is a store that fails when the test wants it to.
type faulty struct {
	*state.Memory
	fail func() error
}

func (f *faulty) broken() error {
	if f.fail == nil {
		return nil
	}
	return f.fail()
}

func (f *faulty) Get(ctx context.Context, key string, doc any) (state.ETag, error) {
	if err := f.broken(); err != nil {
		return "", err
	}
	return f.Memory.Get(ctx, key, doc)
}

func (f *faulty) Create(ctx context.Context, key string, doc any, options ...state.Option) error {
	if err := f.broken(); err != nil {
		return err
	}
	return f.Memory.Create(ctx, key, doc, options...)
}

func (f *faulty) Replace(ctx context.Context, key string, doc any, etag state.ETag, options ...state.Option) error {
	if err := f.broken(); err != nil {
		return err
	}
	return f.Memory.Replace(ctx, key, doc, etag, options...)
}

func newService(t *testing.T) *service {
	t.Helper()
	s := &service{store: &faulty{Memory: state.NewMemory()}, handle: func(context.Context, eventing.Event) error { return nil }}
	logger := slog.New(slog.DiscardHandler)
	s.queue = New(s.store, logger, "payment_token")
	receiver, err := eventing.NewReceiver(eventing.ReceiverOptions{App: "app", Logger: logger}, s.queue.Watch(eventing.Subscription{
		Component: "orderbus", Topic: "orders", DeadLetter: "orders.app.dead",
		Handlers: map[string]eventing.Handler{"Order.Placed": func(ctx context.Context, e eventing.Event) error {
			s.mu.Lock()
			s.handled = append(s.handled, e)
			handle := s.handle
			s.mu.Unlock()
			return handle(ctx, e)
		}},
	})...)
	if err != nil {
		t.Fatal(err)
	}
	router, api := rest.New(rest.Info{Title: "test", Version: "1"}, logger)
	s.queue.Register(api, receiver)
	receiver.Mount(router)
	s.routes = router
	return s
}

// rejecting makes the handler reject every event, or with an empty reason none.
func (s *service) rejecting(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handle = func(context.Context, eventing.Event) error {
		if reason == "" {
			return nil
		}
		return eventing.Reject(errors.New(reason))
	}
}

func deadLetteredEvent(id, reason string, at time.Time) string {
	b, err := json.Marshal(map[string]any{
		"specversion": "1.0", "id": id, "type": "Order.Placed", "source": "elsewhere", "subject": "orders/" + id, "tenant": "north",
		"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "topic": "orders.app.dead", "pubsubname": "orderbus",
		"parkedby": "app", "parkedreason": reason, "parkedat": at.UTC().Format(time.RFC3339Nano), "data": map[string]any{"order_id": id, "payments": []any{map[string]any{"Payment_Token": "tok_visa"}}},
	})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// deliver delivers a message of the dead-letter topic as daprd does, and returns the answer.
func (s *service) deliver(t *testing.T, message string) string {
	t.Helper()
	body, err := json.Marshal(map[string]any{
		"id": rand.N(1 << 30), "type": "com.dapr.event.sent", "datacontenttype": "application/octet-stream",
		"data_base64": base64.StdEncoding.EncodeToString([]byte(message)),
	})
	if err != nil {
		t.Fatal(err)
	}
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/events/orders.app.dead", strings.NewReader(string(body)))
	req.RemoteAddr = "127.0.0.1:50000"
	req.Header.Set("__key", "CUST-123")
	w := httptest.NewRecorder()
	s.routes.ServeHTTP(w, req)
	var answer struct{ Status string }
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("answered %d %s", w.Code, w.Body)
	}
	return answer.Status
}

func (s *service) kept(t *testing.T, messages ...string) {
	t.Helper()
	for _, message := range messages {
		if got := s.deliver(t, message); got != "SUCCESS" {
			t.Fatalf("answered %s to %s", got, message)
		}
	}
}

func (s *service) request(t *testing.T, method, path, body string, answer any) int {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	s.routes.ServeHTTP(w, req)
	if err := json.Unmarshal(w.Body.Bytes(), answer); err != nil {
		t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	return w.Code
}

func (s *service) list(t *testing.T, query string) deadLetterPage {
	t.Helper()
	var got deadLetterPage
	if code := s.request(t, http.MethodGet, "/v1/dead-letters?"+query, "", &got); code != http.StatusOK {
		t.Fatalf("list %s: %d", query, code)
	}
	return got
}

type answer struct {
	Results    []result
	NotTried   []string `json:"not_tried"`
	NextCursor string   `json:"next_cursor"`
}

func (s *service) redrive(t *testing.T, fields string) answer {
	t.Helper()
	return s.ask(t, "redrive", `"reason":"repaired",`+fields)
}

func (s *service) dismiss(t *testing.T, fields string) answer {
	t.Helper()
	return s.ask(t, "dismiss", `"reason":"a test of theirs",`+fields)
}

func (s *service) ask(t *testing.T, what, fields string) answer {
	t.Helper()
	var got answer
	if code := s.request(t, http.MethodPost, "/v1/dead-letters/"+what, `{"topic":"orders","actor":"operator@example.com",`+fields+`}`, &got); code != http.StatusOK {
		t.Fatalf("%s %s: %d", what, fields, code)
	}
	return got
}

func outcome(t *testing.T, r answer) string {
	t.Helper()
	if len(r.Results) != 1 {
		t.Fatalf("results %v, want one", r.Results)
	}
	return r.Results[0].Outcome
}

var deadLetteredAt = time.Date(2026, time.March, 14, 9, 26, 53, 0, time.UTC)

func TestADeadLetterIsListedRedrivenAndRecorded(t *testing.T) {
	t.Parallel()
	s := newService(t)
	message := deadLetteredEvent("e1", "no such order", deadLetteredAt)
	s.kept(t, message, message)
	got := s.list(t, "topic=orders&state=open")
	event := map[string]any{
		"specversion": "1.0", "id": "e1", "type": "Order.Placed", "source": "elsewhere", "subject": "orders/e1", "tenant": "north",
		"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "data": map[string]any{"order_id": "e1", "payments": []any{map[string]any{"Payment_Token": "***"}}},
	}
	want := deadLetterPage{Topics: []topicCount{{"orders", 1, 0, 0}}, Items: []deadLetter{{
		Topic: "orders", EventID: "e1", Type: "Order.Placed", Subject: "orders/e1", Key: "CUST-123", State: "open", Reason: "no such order",
		DeadLetterAt: deadLetteredAt, DeadLetterBy: "app", DeadLetterCount: 1, Attempts: []deadLetterAttempt{}, Event: event,
	}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("open (-want +got):\n%s", diff)
	}

	dry := s.redrive(t, `"event_ids":["e1","e2"],"dry_run":true`)
	if diff := cmp.Diff([]result{
		{"e1", "Order.Placed", wouldRedrive, "orders/Order.Placed", ""}, {"e2", "", notFound, "", "there is no dead letter with this id"},
	}, dry.Results); diff != "" {
		t.Errorf("dry run (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, s.list(t, "topic=orders")); diff != "" || len(s.handled) > 0 {
		t.Errorf("a dry run changes something (-want +got):\n%s\nhandled: %v", diff, s.handled)
	}

	s.rejecting("still no such order")
	if got := outcome(t, s.redrive(t, `"event_ids":["e1"]`)); got != failed {
		t.Errorf("outcome %s", got)
	}
	s.rejecting("")
	if got := outcome(t, s.redrive(t, `"all":true`)); got != outcomeRedriven {
		t.Errorf("outcome %s", got)
	}
	if got := outcome(t, s.redrive(t, `"event_ids":["e1"]`)); got != alreadyRedriven {
		t.Errorf("outcome %s", got)
	}
	if len(s.handled) != 2 || s.handled[1].Key != "CUST-123" || s.handled[1].DeadLetter != nil || s.handled[1].ID != "e1" ||
		!strings.Contains(string(s.handled[1].Data), "tok_visa") {
		t.Errorf("handled %+v", s.handled)
	}
	if got := s.list(t, "topic=orders&state=open"); len(got.Items) != 0 || got.Topics[0] != (topicCount{"orders", 0, 1, 0}) {
		t.Errorf("open %+v", got)
	}
	closed := s.list(t, "topic=orders&state=redriven").Items
	if len(closed) != 1 || closed[0].Reason != "still no such order" || len(closed[0].Attempts) != 2 {
		t.Fatalf("redriven %+v", closed)
	}
	for i, want := range []deadLetterAttempt{
		{Actor: "operator@example.com", Reason: "repaired", Outcome: failed, Error: "still no such order"},
		{Actor: "operator@example.com", Reason: "repaired", Outcome: outcomeRedriven},
	} {
		a := closed[0].Attempts[i]
		if a.At.IsZero() || a.EndedAt.Before(a.At) {
			t.Errorf("attempt %d from %s to %s", i, a.At, a.EndedAt)
		}
		a.At, a.EndedAt = time.Time{}, time.Time{}
		if diff := cmp.Diff(want, a); diff != "" {
			t.Errorf("attempt %d (-want +got):\n%s", i, diff)
		}
	}

	// A redelivered message does not open the entry; an event that is dead-lettered again does.
	s.kept(t, message)
	if got := s.list(t, "topic=orders&state=open").Items; len(got) != 0 {
		t.Errorf("a late delivery opens %+v", got)
	}
	s.kept(t, deadLetteredEvent("e1", "missing again", deadLetteredAt.Add(time.Hour)), message)
	again := s.list(t, "topic=orders&state=open").Items
	if len(again) != 1 || again[0].Reason != "missing again" || again[0].DeadLetterCount != 2 || len(again[0].Attempts) != 2 {
		t.Errorf("dead-lettered again: %+v", again)
	}
	// The earlier redrive closes its item in the list late.
	if err := s.queue.strike(t.Context(), "orders", 0, entryKey("orders", "e1"), 1, redriven); err != nil {
		t.Fatal(err)
	}
	if got := s.list(t, ""); len(got.Items) != 0 || len(got.Topics) != 1 || got.Topics[0] != (topicCount{"orders", 1, 0, 0}) {
		t.Errorf("topics %+v", got)
	}
}

func TestADeadLetterIsDismissed(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.kept(t, deadLetteredEvent("e1", "reason", deadLetteredAt), deadLetteredEvent("e2", "reason", deadLetteredAt), "not even JSON")
	before := s.list(t, "topic=orders")
	dry := s.dismiss(t, `"event_ids":["e1","e3"],"dry_run":true`)
	if diff := cmp.Diff([]result{{"e1", "Order.Placed", wouldDismiss, "", ""}, {"e3", "", notFound, "", "there is no dead letter with this id"}}, dry.Results); diff != "" {
		t.Errorf("dry run (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, s.list(t, "topic=orders")); diff != "" {
		t.Errorf("a dry run changes something (-want +got):\n%s", diff)
	}
	for _, want := range []string{outcomeDismissed, alreadyDismissed} {
		if got := outcome(t, s.dismiss(t, `"event_ids":["e1"]`)); got != want {
			t.Errorf("outcome %s, want %s", got, want)
		}
	}
	dismissedPage := s.list(t, "topic=orders&state=dismissed")
	if len(dismissedPage.Items) != 1 || dismissedPage.Topics[0] != (topicCount{"orders", 2, 0, 1}) {
		t.Fatalf("dismissed %+v", dismissedPage)
	}
	one := dismissedPage.Items[0]
	if a := one.Attempts; one.EventID != "e1" || one.State != "dismissed" || one.Reason != "reason" || len(a) != 1 || a[0].Actor != "operator@example.com" ||
		a[0].Reason != "a test of theirs" || a[0].Outcome != outcomeDismissed || a[0].At.IsZero() {
		t.Errorf("on record is %+v", one)
	}
	if got := s.list(t, "topic=orders&state=open").Items; len(got) != 2 {
		t.Errorf("open %+v", got)
	}
	// A redrive of all does not include it. One that names it does, and a failure does not open it.
	if got := s.redrive(t, `"all":true`).Results; len(got) != 2 || len(s.handled) != 1 {
		t.Errorf("all: %+v, handled %+v", got, s.handled)
	}
	s.rejecting("still wrong")
	if got := outcome(t, s.redrive(t, `"event_ids":["e1"]`)); got != failed || s.list(t, "topic=orders").Topics[0].Dismissed != 1 {
		t.Errorf("a redrive that fails: %s", got)
	}
	s.rejecting("")
	if got := outcome(t, s.redrive(t, `"event_ids":["e1"]`)); got != outcomeRedriven {
		t.Errorf("a redrive of it: %s", got)
	}
	if got := s.list(t, "topic=orders&state=dismissed"); len(got.Items) != 0 || got.Topics[0] != (topicCount{"orders", 1, 2, 0}) {
		t.Errorf("after it %+v", got)
	}
	// Dismiss all that are open; then one is dead-lettered again.
	if got := outcome(t, s.dismiss(t, `"all":true`)); got != outcomeDismissed {
		t.Errorf("all: %s", got)
	}
	s.kept(t, "not even JSON")
	if got := s.list(t, "topic=orders").Topics[0]; got != (topicCount{"orders", 0, 2, 1}) {
		t.Errorf("a late delivery opens: %+v", got)
	}
	s.kept(t, deadLetteredEvent("e4", "reason", deadLetteredAt))
	s.dismiss(t, `"event_ids":["e4"]`)
	s.kept(t, deadLetteredEvent("e4", "again", deadLetteredAt.Add(time.Hour)))
	if got := s.list(t, "topic=orders&state=open"); len(got.Items) != 1 || got.Items[0].DeadLetterCount != 2 || got.Topics[0] != (topicCount{"orders", 1, 2, 1}) {
		t.Errorf("dead-lettered again: %+v", got)
	}
}

// After a crash the list may still show a closed entry as open. The next reader of the list corrects it.
func TestTheListIsCorrected(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.kept(t, deadLetteredEvent("e1", "reason", deadLetteredAt))
	crash := func(writes int) {
		s.store.fail = func() error { // Get and Replace of the entry, then the list's
			if writes--; writes < 0 {
				return state.ErrUnavailable
			}
			return nil
		}
	}
	who := request{actor: "operator@example.com", reason: "test"}
	crash(2)
	if r, err := s.queue.dismiss(t.Context(), "orders", "e1", who); err != nil || r.Outcome != outcomeDismissed {
		t.Errorf("dismissed: %+v, %v", r, err)
	}
	s.store.fail = nil
	if got := s.list(t, "").Topics[0]; got != (topicCount{"orders", 1, 0, 0}) {
		t.Fatalf("the list is not behind: %+v", got)
	}
	if got := s.list(t, "topic=orders&state=open").Items; len(got) != 0 {
		t.Errorf("open: %+v", got)
	}
	if got := s.list(t, "").Topics[0]; got != (topicCount{"orders", 0, 0, 1}) {
		t.Errorf("dismissed, the list says %+v", got)
	}
	crash(4) // two for the lease, two for the outcome
	if r, err := s.queue.redrive(t.Context(), "orders", "e1", who); err != nil || r.Outcome != outcomeRedriven {
		t.Errorf("redriven: %+v, %v", r, err)
	}
	s.store.fail = nil
	if got := s.list(t, "topic=orders&state=dismissed").Items; len(got) != 0 {
		t.Errorf("dismissed: %+v", got)
	}
	if got := s.list(t, "").Topics[0]; got != (topicCount{"orders", 0, 1, 0}) {
		t.Errorf("redriven, the list says %+v", got)
	}
}

func TestEveryMessageIsKept(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		message, reason string
		redrivable      bool
	}{
		"no JSON":                      {"not even JSON", "not a CloudEvent", false},
		"no text":                      {"\xff\x00", "not a CloudEvent", false},
		"nothing":                      {"", "not a CloudEvent", false},
		"an array":                     {`[1,2]`, "not a CloudEvent", false},
		"null":                         {`null`, "not a CloudEvent", false},
		"no type":                      {`{"specversion":"1.0","id":"x"}`, "not a CloudEvent", false},
		"a type without a handler":     {`{"id":"x","type":"Other","source":"s"}`, "dead-lettered by the sidecar, which gives no reason", false},
		"dead-lettered by the sidecar": {`{"id":"x","type":"Order.Placed","source":"s"}`, "dead-lettered by the sidecar, which gives no reason", true},
		"a long id":                    {deadLetteredEvent(strings.Repeat("x", 5000), "long", deadLetteredAt), "long", true},
		"an odd id":                    {deadLetteredEvent("a||b/c?d#e ü\u0001", "odd", deadLetteredAt), "odd", true},
		"a long reason":                {deadLetteredEvent("x", strings.Repeat("<", 64<<10), deadLetteredAt), strings.Repeat("<", maxText), true},
		"too much for the store":       {`{"id":"x","type":"Order.Placed","parkedreason":"large","data":"` + strings.Repeat("<", 400<<10) + `"}`, "large", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			s.kept(t, c.message, c.message)
			items := s.list(t, "topic=orders&state=open").Items
			if len(items) != 1 || items[0].Reason != c.reason || items[0].EventID == "" {
				t.Fatalf("kept %+v", items)
			}
			if items[0].Event == nil && !items[0].Truncated && string(items[0].Raw) != c.message {
				t.Errorf("the message became %q", items[0].Raw)
			}
			id, _ := json.Marshal(items[0].EventID)
			want := notRedrivable
			if c.redrivable {
				want = outcomeRedriven
			}
			if got := outcome(t, s.redrive(t, `"event_ids":[`+string(id)+`]`)); got != want {
				t.Errorf("a redrive is answered %s, want %s", got, want)
			}
			if want = outcomeDismissed; c.redrivable {
				want = alreadyRedriven
			}
			if got := outcome(t, s.dismiss(t, `"event_ids":[`+string(id)+`]`)); got != want {
				t.Errorf("then a dismissal is answered %s, want %s", got, want)
			}
		})
	}
}

func TestTwoEventsOfOneID(t *testing.T) {
	t.Parallel()
	s := newService(t)
	one := deadLetteredEvent("1", "first", deadLetteredAt)
	other := strings.ReplaceAll(deadLetteredEvent("1", "second", deadLetteredAt), `"elsewhere"`, `"another"`)
	s.kept(t, one, other, one, other)
	items := s.list(t, "topic=orders").Items
	if len(items) != 2 || items[0].Reason != "second" || items[1].Reason != "first" || items[0].EventID == items[1].EventID {
		t.Fatalf("kept %+v", items)
	}
	if got := outcome(t, s.redrive(t, `"event_ids":["`+items[0].EventID+`"]`)); got != outcomeRedriven || s.handled[0].Source != "another" || s.handled[0].ID != "1" {
		t.Errorf("redriving the second: %s, handled %+v", got, s.handled)
	}
}

// TestADerivedIDThatIsTaken keeps an event that has the id that is derived for the second of two events of one id.
func TestADerivedIDThatIsTaken(t *testing.T) {
	t.Parallel()
	one := deadLetteredEvent("1", "first", deadLetteredAt)
	other := strings.ReplaceAll(deadLetteredEvent("1", "second", deadLetteredAt), `"elsewhere"`, `"another"`)
	before := newService(t)
	before.kept(t, one, other)
	made := before.list(t, "topic=orders").Items[0].EventID
	s := newService(t)
	squatter := strings.ReplaceAll(deadLetteredEvent("1", "squatter", deadLetteredAt), `"id":"1"`, `"id":"`+made+`"`)
	s.kept(t, squatter, one, other, other)
	if items := s.list(t, "topic=orders").Items; len(items) != 3 || items[0].Reason != "second" {
		t.Errorf("kept %+v", items)
	}
}

func TestWhileTheStoreIsUnavailableAMessageIsRedelivered(t *testing.T) {
	t.Parallel()
	message := deadLetteredEvent("e1", "reason", deadLetteredAt)
	// The store becomes unavailable after each number of calls.
	for calls := range 12 {
		s := newService(t)
		left := calls
		s.store.fail = func() error {
			if left--; left < 0 {
				return state.ErrUnavailable
			}
			return nil
		}
		first := s.deliver(t, message)
		s.store.fail = nil
		s.kept(t, message)
		if items := s.list(t, "topic=orders&state=open").Items; len(items) != 1 {
			t.Errorf("after %d calls (%s), kept %+v", calls, first, items)
		}
		if calls == 0 && first != "RETRY" {
			t.Errorf("while the store is unavailable it answered %s", first)
		}
	}
}

func TestARetryableFailureKeepsTheReason(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.kept(t, deadLetteredEvent("e1", "no such order", deadLetteredAt))
	s.handle = func(context.Context, eventing.Event) error { return state.ErrUnavailable }
	if got := outcome(t, s.redrive(t, `"event_ids":["e1"]`)); got != failed {
		t.Errorf("outcome %s", got)
	}
	items := s.list(t, "topic=orders&state=open").Items
	if len(items) != 1 || items[0].Reason != "no such order" || items[0].Attempts[0].Error == "" {
		t.Errorf("kept %+v", items)
	}
}

func TestOfRacingRedrivesOneWins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		s.kept(t, deadLetteredEvent("e1", "reason", deadLetteredAt))
		hold := make(chan struct{})
		s.handle = func(context.Context, eventing.Event) error { <-hold; return nil }
		outcomes := make(chan string, 10)
		var group sync.WaitGroup
		for range cap(outcomes) {
			group.Go(func() { outcomes <- outcome(t, s.redrive(t, `"event_ids":["e1"]`)) })
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		close(hold)
		group.Wait()
		got := map[string]int{}
		for range cap(outcomes) {
			got[<-outcomes]++
		}
		if diff := cmp.Diff(map[string]int{outcomeRedriven: 1, running: 9}, got); diff != "" || len(s.handled) != 1 {
			t.Errorf("outcomes (-want +got):\n%s\nhandled %d times", diff, len(s.handled))
		}
	})
}

func TestARedriveWhoseProcessCrashedIsInterrupted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		s.kept(t, deadLetteredEvent("e1", "reason", deadLetteredAt))
		s.handle = func(context.Context, eventing.Event) error {
			s.store.fail = func() error { return state.ErrUnavailable } // as good as dead: nothing is recorded
			return nil
		}
		if r := s.redrive(t, `"event_ids":["e1"]`); outcome(t, r) != outcomeRedriven || !strings.Contains(r.Results[0].Error, "not be recorded") {
			t.Errorf("got %+v", r)
		}
		s.store.fail, s.handle = nil, func(context.Context, eventing.Event) error { return nil }
		if got := outcome(t, s.redrive(t, `"event_ids":["e1"],"dry_run":true`)); got != running {
			t.Errorf("while the lease lasts: %s", got)
		}
		if got := outcome(t, s.dismiss(t, `"event_ids":["e1"]`)); got != running {
			t.Errorf("dismissed while the lease lasts: %s", got)
		}
		time.Sleep(leaseTime)
		if got := s.list(t, "topic=orders").Items[0].Attempts[0].Outcome; got != interrupted {
			t.Errorf("the attempt is shown as %s", got)
		}
		if got := outcome(t, s.redrive(t, `"event_ids":["e1"]`)); got != outcomeRedriven {
			t.Errorf("after it: %s", got)
		}
		attempts := s.list(t, "topic=orders").Items[0].Attempts
		if len(attempts) != 2 || attempts[0].Outcome != interrupted || attempts[1].Outcome != outcomeRedriven {
			t.Errorf("attempts %+v", attempts)
		}
	})
}

// The clock of the crashed process may have been hours ahead or behind.
func TestALeaseOfAWrongClock(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{5 * time.Hour, -5 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			s := newService(t)
			s.kept(t, deadLetteredEvent("e1", "reason", deadLetteredAt))
			if _, err := s.queue.update(t.Context(), entryKey("orders", "e1"), func(e *entry) error {
				at := time.Now().Add(skew)
				e.begin(attempt{ID: "another process's", At: at, Outcome: running}, at.Add(leaseTime))
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if skew > 0 {
				if got := outcome(t, s.redrive(t, `"event_ids":["e1"]`)); got != running {
					t.Errorf("%v ahead: when first read it is %s", skew, got)
				}
				time.Sleep(leaseTime)
			}
			if got := outcome(t, s.redrive(t, `"event_ids":["e1"]`)); got != outcomeRedriven {
				t.Errorf("%v ahead: after the lease it is %s", skew, got)
			}
		})
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const letters = 250
	for n := range letters {
		s.kept(t, deadLetteredEvent(fmt.Sprint("e", n), "reason", deadLetteredAt))
	}
	// Every second one can be redriven; the others do not stop a redrive of all.
	s.handle = func(_ context.Context, e eventing.Event) error {
		if last := e.ID[len(e.ID)-1]; last%2 == 0 {
			return nil
		}
		return eventing.Reject(errors.New("odd"))
	}
	got, requests := map[string]int{}, 0
	for fields := `"all":true`; fields != ""; requests++ {
		r := s.redrive(t, fields)
		for _, one := range r.Results {
			got[one.Outcome]++
		}
		if fields = ""; r.NextCursor != "" {
			fields = `"all":true,"cursor":"` + r.NextCursor + `"`
		}
	}
	if diff := cmp.Diff(map[string]int{outcomeRedriven: letters / 2, failed: letters / 2}, got); diff != "" || requests != 3 {
		t.Errorf("in %d requests (-want +got):\n%s", requests, diff)
	}
	for i := range s.handled {
		if want := fmt.Sprint("e", i); s.handled[i].ID != want {
			t.Fatalf("the %dth redriven is %s", i, s.handled[i].ID)
		}
	}
	for query, want := range map[string]int{"": letters, "&state=open": letters / 2, "&state=redriven": letters / 2} {
		seen, last := 0, letters
		for at := "topic=orders&limit=30" + query; at != ""; {
			page := s.list(t, at)
			for _, item := range page.Items {
				var n int
				if _, err := fmt.Sscanf(item.EventID, "e%d", &n); err != nil || n >= last {
					t.Fatalf("%s after %d", item.EventID, last)
				}
				seen, last = seen+1, n
			}
			if at = ""; page.NextCursor != "" {
				at = "topic=orders&limit=30" + query + "&cursor=" + url.QueryEscape(page.NextCursor)
			}
		}
		if seen != want {
			t.Errorf("%q lists %d, want %d", query, seen, want)
		}
	}
	if got := s.list(t, "").Topics[0]; got != (topicCount{"orders", letters / 2, letters / 2, 0}) {
		t.Errorf("counted %+v", got)
	}
}

// TestEveryOpenDeadLetterIsListed lets events be dead-lettered, redriven, dismissed and dead-lettered again concurrently, by two
// processes on a store that sometimes fails. In the end every open entry must be listed as open, and reading the list corrects
// the rest.
func TestEveryOpenDeadLetterIsListed(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const events, rounds = 10, 20
	s.handle = func(context.Context, eventing.Event) error { return nil }
	s.store.fail = func() error {
		if rand.N(25) == 0 {
			return state.ErrUnavailable
		}
		return nil
	}
	var deadLettering, redriving sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	for n := range events {
		deadLettering.Go(func() {
			for round := range rounds {
				message := deadLetteredEvent(fmt.Sprint("e", n), fmt.Sprint("round ", round), deadLetteredAt.Add(time.Duration(round)*time.Minute))
				for s.deliver(t, message) != "SUCCESS" {
					continue
				}
			}
		})
	}
	who := request{actor: "operator@example.com", reason: "test"}
	for _, settle := range []func(context.Context, string, string, request) (result, error){s.queue.redrive, s.queue.redrive, s.queue.dismiss} {
		redriving.Go(func() {
			for ctx.Err() == nil {
				places, err := s.queue.all(t.Context(), "orders")
				if err != nil {
					continue
				}
				for _, p := range places {
					if e, ok, err := s.queue.entry(t.Context(), "orders", p); err == nil && ok {
						_, _ = settle(t.Context(), "orders", e.EventID, who)
					}
				}
			}
		})
	}
	deadLettering.Wait()
	stop()
	redriving.Wait()
	s.store.fail = nil
	places, err := s.queue.all(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]int{}
	for _, p := range places {
		listed[p.Key] = p.Open
	}
	for n := range events {
		key := entryKey("orders", fmt.Sprint("e", n))
		e, err := s.queue.get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if e.State == open && listed[key] != e.Opening {
			t.Errorf("%s is open for the %dth time and listed as %d", e.EventID, e.Opening, listed[key])
		}
	}
	for _, p := range places {
		if _, _, err := s.queue.entry(t.Context(), "orders", p); err != nil {
			t.Fatal(err)
		}
	}
	for _, wanted := range []entryState{open, redriven, dismissed} {
		if got := s.list(t, "topic=orders&limit=100&state="+string(wanted)); len(got.Items) != map[entryState]int{
			open: got.Topics[0].Open, redriven: got.Topics[0].Redriven, dismissed: got.Topics[0].Dismissed,
		}[wanted] {
			t.Errorf("%d are %s, and counted are %+v", len(got.Items), wanted, got.Topics)
		}
	}
}

func TestBadRequestsNameTheField(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const who = `"actor":"operator@example.com","reason":"repaired"`
	for _, c := range []struct{ method, path, body, location, text string }{
		{"GET", "?topic=inventory", "", "query.topic", "orders"},
		{"GET", "?topic=orders.app.dead", "", "query.topic", "orders"},
		{"GET", "?topic=orders&state=closed", "", "query.state", ""},
		{"GET", "?topic=orders&limit=101", "", "query.limit", ""},
		{"GET", "?topic=orders&cursor=nonsense", "", "query.cursor", ""},
		{"GET", "?topic=orders&cursor=" + cursor(1, "inventory"), "", "query.cursor", ""},
		{"GET", "?state=open", "", "query.topic", ""},
		{"POST", "/redrive", `{"topic":"orders","all":true}`, "body.actor", ""},
		{"POST", "/redrive", `{"topic":"orders","all":true,"actor":" ","reason":"r"}`, "body.actor", ""},
		{"POST", "/redrive", `{"topic":"orders","all":true,"actor":"a","reason":""}`, "body.reason", ""},
		{"POST", "/dismiss", `{"topic":"orders","all":true}`, "body.actor", ""},
		{"POST", "/dismiss", `{"topic":"orders","all":true,"actor":"a","reason":" "}`, "body.reason", ""},
		{"POST", "/dismiss", `{"topic":"inventory","all":true,` + who + `}`, "body.topic", "orders"},
		{"POST", "/dismiss", `{"topic":"orders",` + who + `}`, "body.event_ids", ""},
		{"POST", "/redrive", `{"topic":"inventory","all":true,` + who + `}`, "body.topic", "orders"},
		{"POST", "/redrive", `{"topic":"orders",` + who + `}`, "body.event_ids", ""},
		{"POST", "/redrive", `{"topic":"orders","event_ids":["e1"],"all":true,` + who + `}`, "body.event_ids", ""},
		{"POST", "/redrive", `{"topic":"orders","event_ids":["e1"],"cursor":"x",` + who + `}`, "body.cursor", ""},
		{"POST", "/redrive", `{"topic":"orders","event_ids":["e1` + strings.Repeat(`","e1`, 100) + `"],` + who + `}`, "body.event_ids", ""},
	} {
		var problem rest.Problem
		code := s.request(t, c.method, "/v1/dead-letters"+c.path, c.body, &problem)
		if code != http.StatusUnprocessableEntity || len(problem.Errors) == 0 || problem.Errors[0].Location != c.location ||
			!strings.Contains(problem.Errors[0].Message, c.text) {
			t.Errorf("%s %s: %d %+v, want a 422 that names %s", c.path, c.body, code, problem, c.location)
		}
	}
	s.store.fail = func() error { return state.ErrUnavailable }
	var problem rest.Problem
	if code := s.request(t, "GET", "/v1/dead-letters?topic=orders", "", &problem); code != http.StatusServiceUnavailable {
		t.Errorf("while the store is unavailable: %d %+v", code, problem)
	}
}
