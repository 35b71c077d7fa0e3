package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/tests/internal/client"
	"waybill/tests/internal/program"
	"waybill/tests/internal/system"
)

// testTimeout is how long a test waits for anything the system must do by itself. The longest way back known is that of a
// scheduler killed without warning: its lease runs for 20 seconds.
const testTimeout = 2 * time.Minute

// The tests of processes and of containers share package client; these are its names here.
type (
	order = client.Order
	books = client.Books
	stock = client.Stock
)

var fulfilledBooks = client.Fulfilled

func line(product string, quantity int, price float64) map[string]any {
	return client.Line(product, quantity, price)
}

func orderBody(customer string, total float64, items ...map[string]any) map[string]any {
	return client.Body(customer, total, items...)
}

func call(ctx context.Context, method, url string, body any, header ...string) (int, http.Header, []byte, error) {
	return client.Call(ctx, method, url, body, header...)
}

func place(ctx context.Context, s *system.System, key string, body any) (string, error) {
	return client.Place(ctx, s, key, body)
}

func wait(ctx context.Context, d time.Duration) bool { return client.Wait(ctx, d) }

func await(ctx context.Context, s *system.System, id, status string) (order, error) {
	return client.Await(ctx, s, id, status)
}

func awaitAny(ctx context.Context, s *system.System, id string, statuses ...string) (order, error) {
	return client.Await(ctx, s, id, statuses...)
}

func read(ctx context.Context, s *system.System, id string) (order, int, error) {
	return client.Read(ctx, s, id)
}

// timelineEntry is what the tests read of an order's timeline.
type timelineEntry struct {
	EventID string `json:"event_id"`
	Type    string
	Step    string
	Outcome string
	Code    string
	Status  string
}

func timeline(t *testing.T, s *system.System, id string) []timelineEntry {
	t.Helper()
	code, _, answer, err := call(t.Context(), http.MethodGet, s.App("orders").URL+"/v1/orders/"+id+"/timeline", nil)
	if err != nil || code != http.StatusOK {
		t.Fatalf("timeline of %s: %d %s %v", id, code, answer, err)
	}
	var page struct{ Items []timelineEntry }
	if err := json.Unmarshal(answer, &page); err != nil {
		t.Fatal(err)
	}
	return page.Items
}

// story is a timeline as a list of words.
func story(entries []timelineEntry) []string {
	told := make([]string, 0, len(entries))
	for _, e := range entries {
		words := e.Type
		if e.Step != "" {
			words = e.Step + " " + e.Outcome
		}
		told = append(told, words)
	}
	return told
}

func booksOf(ctx context.Context, s *system.System, id string) (books, error) {
	return client.BooksOf(ctx, s, id)
}

func wantBooks(t *testing.T, s *system.System, id string, want books) {
	t.Helper()
	got, err := booksOf(t.Context(), s, id)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("books of %s (-want +got):\n%s", id, diff)
	}
}

func setStock(t *testing.T, s *system.System, product string, onHand int) {
	t.Helper()
	if err := client.SetStock(t.Context(), s, product, onHand); err != nil {
		t.Fatal(err)
	}
}

func stockOf(t *testing.T, s *system.System, product string) stock {
	t.Helper()
	got, err := client.StockOf(t.Context(), s, product)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// ownSystem starts a system that only this test uses, and stops it when the test ends.
func ownSystem(ctx context.Context, t *testing.T, environment ...string) *system.System {
	t.Helper()
	out := &program.Tail{}
	s, err := system.Start(ctx, runner, t.TempDir(), out, environment...)
	if err != nil {
		t.Fatalf("%v\nthe runner said:\n%s", err, out)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the runner said:\n%s", out)
		}
	})
	return s
}
