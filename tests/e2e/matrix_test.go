package e2e

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"waybill/tests/internal/figures"
	"waybill/tests/internal/system"
)

var (
	matrix      = flag.String("matrix", "quick", "quick kills every process once, all kills every process at every step; stop and disk are of TestStoppedAndFull")
	matrixPage  = flag.String("matrix.page", "", "write what was seen into the marked part of this page")
	matrixGrain = flag.Int("matrix.orders", 5, "orders under way at every kill")
)

// moment is a point in the saga at which a process can be killed: how orders get there, how the test knows that one has arrived,
// and how the orders end.
type moment struct {
	step string
	// how tells the reader of the page how the saga is held there, or how the test hits that point.
	how string
	// token and zip control the simulated partners.
	token, zip string
	price      float64
	// arrived reports whether an event says that its order is there.
	arrived func(e busEvent) bool
	// status is the status that the orders reach; decide sends the decision of a person where one is needed.
	status string
	decide func(ctx context.Context, id string) error
	books  books
	told   string
}

type busEvent struct {
	Type    string
	Subject string
	Data    struct {
		OrderID string `json:"order_id"`
		Step    string
		Outcome string
		Channel string
	}
}

func done(step string) func(e busEvent) bool {
	return func(e busEvent) bool {
		return e.Type == "Fulfillment.StepCompleted" && e.Data.Step == step && e.Data.Outcome == "done"
	}
}

func ofType(name string) func(e busEvent) bool {
	return func(e busEvent) bool { return e.Type == name }
}

var refunded = books{Charges: 1, Refunds: 1, Reservation: "released"}

func moments(s *system.System) []moment {
	approve := func(ctx context.Context, id string) error {
		for {
			code, _, answer, err := call(ctx, http.MethodPost, s.App("fulfillment").URL+"/v1/approvals/"+id, decision(true, "approver@example.com"))
			if err == nil && code == http.StatusAccepted {
				return nil
			}
			if !wait(ctx, 100*time.Millisecond) {
				return errors.Join(fmt.Errorf("approve %s: %d %s", id, code, answer), err)
			}
		}
	}
	return []moment{
		{step: "ValidatePayment", how: "the provider takes two seconds", token: "tok_slow", arrived: ofType("Order.Confirmed"),
			status: "fulfilled", books: fulfilledBooks, told: "order_shipped"},
		{step: "ReserveInventory", how: "when the payment is announced", arrived: done("ValidatePayment"),
			status: "fulfilled", books: fulfilledBooks, told: "order_shipped"},
		{step: "Approval", how: "before a person has decided", price: 6000, arrived: ofType("Fulfillment.ApprovalRequested"),
			status: "fulfilled", decide: approve, books: fulfilledBooks, told: "order_shipped"},
		{step: "ProcessShipment", how: "the carrier takes two seconds", zip: "X-SLOW", arrived: done("ReserveInventory"),
			status: "fulfilled", books: fulfilledBooks, told: "order_shipped"},
		{step: "Notify", how: "when the shipment is announced", arrived: done("ProcessShipment"),
			status: "fulfilled", books: fulfilledBooks, told: "order_shipped"},
		{step: "UpdateOrderStatus", how: "when a message is requested", arrived: ofType("Notification.Requested"),
			status: "fulfilled", books: fulfilledBooks, told: "order_shipped"},
		{step: "CancelShipment", how: "when the carrier booked and did not answer until the retries were used up", zip: "X-LOST",
			arrived: func(e busEvent) bool { return false }, // no event tells of it: see undoing
			status:  "fulfillment_failed", books: books{Charges: 1, Refunds: 1, Parcels: 1, Reservation: "released"}, told: "order_failed"},
		{step: "ReleaseInventory", how: "when the carrier's refusal is announced", zip: "X-REFUSED",
			arrived: func(e busEvent) bool { return e.Data.Step == "ProcessShipment" && e.Data.Outcome == "refused" },
			status:  "fulfillment_failed", books: refunded, told: "order_failed"},
		{step: "RefundPayment", how: "the provider takes two seconds to refund", zip: "X-REFUSED", token: "tok_refund_slow",
			arrived: done("ReleaseInventory"), status: "fulfillment_failed", books: refunded, told: "order_failed"},
	}
}

var processes = []string{
	"orders", "orders-sidecar", "fulfillment", "fulfillment-sidecar", "notifications", "notifications-sidecar",
	"placement", "scheduler", "broker",
}

// result is one row of the matrix.
type result struct {
	process, step string
	// back is the time until every process was ready again, whole until the last order had its status.
	back, whole time.Duration
	status      string
	// resent is the number of messages that arrived twice.
	resent int
}

// outcome is the text of the columns back, whole, status, ledgers and messages. A row whose ledgers do not balance is an error
// and is not shown.
func (r result) outcome() string {
	told := "each once"
	if r.resent > 0 {
		told = fmt.Sprintf("%d again", r.resent)
	}
	return fmt.Sprintf("%.1f s | %.1f s | `%s` | balance | %s", r.back.Seconds(), r.whole.Seconds(), r.status, told)
}

// machine is what the figures depend on.
func machine() string {
	return fmt.Sprintf("%d processors, %s/%s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// Each process is killed at each step of the saga, with several orders at that step. Every order ends as it should, its ledgers
// balance, and its customer gets each message once.
func TestFailureMatrix(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 80*time.Minute)
	defer cancel()
	// Fewer attempts than the default, so that a step that never succeeds gives up within the time of a test, and still more than
	// a process needs to come back.
	s := ownSystem(ctx, t, "STEP_ATTEMPTS=9", "STEP_LAST_RETRY=5s", "SEND_FIRST_RETRY=200ms", "SEND_LAST_RETRY=2s")
	follow := followBus(ctx, t, s)
	all := moments(s)
	var rows []result
	for i, process := range processes {
		for j, m := range all {
			if *matrix != "all" && j != i%len(all) {
				continue
			}
			t.Run(process+" at "+m.step, func(t *testing.T) {
				row, err := killAt(ctx, s, follow, process, m)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("back after %s, whole after %s", row.back.Round(time.Millisecond), row.whole.Round(time.Millisecond))
				rows = append(rows, row)
			})
		}
	}
	// After all kills the services agree with each other.
	wantHealthy(t, doctor(ctx, t, "--data", s.Data, "--grace", graceOfRunning))
	if *matrixPage != "" && !t.Failed() {
		if err := figures.Replace(*matrixPage, "kills", "test-chaos", kills(rows, all)); err != nil {
			t.Fatal(err)
		}
	}
}

// bus passes published events on to the tests that wait for them.
type bus struct{ events chan busEvent }

func followBus(ctx context.Context, t *testing.T, s *system.System) *bus {
	t.Helper()
	status, err := s.Status()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(status.Broker), kgo.ConsumeTopics("orders", "fulfillment", "notifications"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()))
	if err != nil {
		t.Fatal(err)
	}
	b := &bus{events: make(chan busEvent, 10_000)}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { // owned: the cleanup waits for it
		defer close(ended)
		for ctx.Err() == nil {
			for _, record := range client.PollFetches(ctx).Records() {
				var e busEvent
				if json.Unmarshal(record.Value, &e) == nil {
					b.events <- e
				}
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		client.Close()
	})
	return b
}

// drain forgets the events published so far.
func (b *bus) drain() {
	for {
		select {
		case <-b.events:
		default:
			return
		}
	}
}

// await waits until half of the orders have arrived.
func (b *bus) await(ctx context.Context, ids []string, arrived func(busEvent) bool) error {
	there := map[string]bool{}
	for len(there) < (len(ids)+1)/2 {
		select {
		case e := <-b.events:
			if arrived(e) && slices.Contains(ids, e.Data.OrderID) {
				there[e.Data.OrderID] = true
			}
		case <-ctx.Done():
			return fmt.Errorf("%d orders came to the step: %w", len(there), ctx.Err())
		}
	}
	return nil
}

// killAt brings orders to the step, kills the process there, and checks what becomes of them.
func killAt(ctx context.Context, s *system.System, follow *bus, process string, m moment) (result, error) {
	return hitAt(ctx, s, follow, process, m, func(ctx context.Context, process string) (time.Time, error) {
		killed := time.Now()
		return killed, s.Kill(ctx, process)
	})
}

// hitAt is killAt with another fault: hit injects it and returns when everything is ready again, with the time at which the fault
// ended.
func hitAt(ctx context.Context, s *system.System, follow *bus, process string, m moment, hit func(ctx context.Context, process string) (time.Time, error)) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, testTimeout)
	defer cancel()
	run := rand.Text()[:8]
	row := result{process: process, step: m.step, status: m.status}
	price := cmp.Or(m.price, 10)
	product := "PROD-" + run
	orders := *matrixGrain
	if code, _, answer, err := call(ctx, http.MethodPut, s.App("fulfillment").URL+"/v1/inventory/"+product, map[string]int{"on_hand": 2 * orders}); err != nil || code != http.StatusOK {
		return row, fmt.Errorf("set stock: %d %s %w", code, answer, err)
	}
	follow.drain()
	ids := make([]string, orders)
	var placing errgroup.Group
	for i := range ids {
		ids[i] = fmt.Sprintf("matrix-%s-%d", run, i)
		placing.Go(func() error {
			body := with(orderBody("CUST-123", price, line(product, 1, price)), m.token, m.zip)
			body["order_id"] = ids[i]
			_, err := place(ctx, s, ids[i], body)
			return err
		})
	}
	if m.step == "CancelShipment" {
		if err := placing.Wait(); err != nil {
			return row, err
		}
		if err := undoing(ctx, s, ids[0], m.step); err != nil {
			return row, err
		}
	} else if err := follow.await(ctx, ids, m.arrived); err != nil {
		return row, errors.Join(err, placing.Wait())
	}
	killed, err := hit(ctx, process)
	if err != nil {
		return row, errors.Join(err, placing.Wait())
	}
	row.back = time.Since(killed)
	if err := placing.Wait(); err != nil {
		return row, err
	}
	var ending errgroup.Group
	for _, id := range ids {
		ending.Go(func() error {
			if m.decide != nil {
				if err := m.decide(ctx, id); err != nil {
					return err
				}
			}
			o, err := awaitAny(ctx, s, id, finalStatuses...)
			if err == nil && o.Status != m.status {
				err = fmt.Errorf("%s is %s, want %s", id, o.Status, m.status)
			}
			return err
		})
	}
	if err := ending.Wait(); err != nil {
		return row, err
	}
	row.whole = time.Since(killed)
	return row, errors.Join(balanced(ctx, s, ids, product, m), once(ctx, s, ids, m, &row))
}

// undoing returns when the saga has failed and has begun to compensate a step.
func undoing(ctx context.Context, s *system.System, id, undo string) error {
	for {
		code, _, answer, err := call(ctx, http.MethodGet, s.App("fulfillment").URL+"/v1/fulfillments/"+id, nil)
		if err == nil && code == http.StatusOK && strings.Contains(string(answer), `"step":"`+undo+`"`) {
			return nil
		}
		if !wait(ctx, 10*time.Millisecond) {
			return errors.Join(fmt.Errorf("the saga of %s does not come to its undoing: %s", id, answer), err)
		}
	}
}

// balanced checks every ledger.
func balanced(ctx context.Context, s *system.System, ids []string, product string, m moment) error {
	var errs []error
	for _, id := range ids {
		got, err := booksOf(ctx, s, id)
		if err != nil || got != m.books {
			errs = append(errs, fmt.Errorf("books of %s: %+v, want %+v: %w", id, got, m.books, err))
		}
	}
	want := stock{OnHand: 2 * len(ids)}
	if m.status == "fulfilled" {
		want = stock{OnHand: len(ids), Shipped: len(ids)}
	}
	code, _, answer, err := call(ctx, http.MethodGet, s.App("fulfillment").URL+"/v1/inventory/"+product, nil)
	var got stock
	if err == nil && code == http.StatusOK {
		err = json.Unmarshal(answer, &got)
	}
	if err != nil || got != want {
		errs = append(errs, fmt.Errorf("stock of %s: %+v, want %+v: %d %w", product, got, want, code, err))
	}
	return errors.Join(errs...)
}

// once checks that every customer has one message on every channel and every message one outcome. A message that was being sent
// when notifications was killed may arrive twice (docs/adr/0010); it is counted.
func once(ctx context.Context, s *system.System, ids []string, m moment, row *result) error {
	var errs []error
	for _, id := range ids {
		want := map[string]bool{}
		for _, channel := range []string{"email", "sms", "push"} {
			want[id+":"+m.told+":"+channel] = true
		}
		var told []message
		for {
			var err error
			if told, err = messages(ctx, s, id, len(want)); err != nil {
				return errors.Join(append(errs, err)...)
			}
			got := map[string]bool{}
			for _, message := range told {
				got[message.ID] = true
			}
			if maps.Equal(want, got) {
				break
			}
			if len(got) >= len(want) || !wait(ctx, 50*time.Millisecond) {
				return errors.Join(append(errs, fmt.Errorf("%s: told %v, want %v", id, got, want))...)
			}
		}
		if again := len(told) - len(want); again > 0 {
			row.resent += again
			if !strings.HasPrefix(row.process, "notifications") {
				errs = append(errs, fmt.Errorf("%s: %d messages came twice", id, again))
			}
		}
	}
	return errors.Join(errs...)
}

// kills is the part of docs/failure-matrix.md about processes that are killed.
func kills(rows []result, all []moment) string {
	var b strings.Builder
	fmt.Fprintf(&b, `Each process of the local system is killed (SIGKILL) at each step of the saga, with about %d orders at that step.
"How" says what holds the orders there, or which event triggers the kill. The tables are written only if in every row

- every order reached the status of its step,
- every order has at most one charge, and a refund exactly if it was not shipped; it has one parcel, or none that was not cancelled,
- stock balances: on hand + shipped is what was set, and nothing stays reserved,
- every customer got each email, SMS and push message once. "Again" counts messages that arrived twice. That is possible only
  if notifications or its sidecar is killed while a message is being sent ([ADR 10](adr/0010-notifications-once.md)).

"Back" is the time from the kill until the runner reports the process, and all others, as ready. Before it starts a process
again that died often it waits up to five seconds, and a killed sidecar's partitions are free again after six. "Whole" is the
time until the last order had its status. It includes the remaining part of the two waits of two seconds, of the retries, and
of a person's approval.

`, *matrixGrain)
	fmt.Fprintf(&b, "Run on %s.\n\n", machine())
	b.WriteString("| step | how | every order ends |\n| --- | --- | --- |\n")
	for _, m := range all {
		fmt.Fprintf(&b, "| %s | %s | `%s` |\n", m.step, m.how, m.status)
	}
	for _, process := range processes {
		fmt.Fprintf(&b, "\n## %s\n\n| killed at | back | whole | status | ledgers | messages |\n| --- | ---: | ---: | --- | --- | --- |\n", process)
		for _, r := range rows {
			if r.process != process {
				continue
			}
			fmt.Fprintf(&b, "| %s | %s |\n", r.step, r.outcome())
		}
	}
	return b.String()
}

// The page is complete: it names every process and every step.
func TestFailureMatrixPageIsComplete(t *testing.T) {
	t.Parallel()
	root, err := system.Root()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(root, "docs", "failure-matrix.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, process := range processes {
		_, section, found := strings.Cut(string(content), "\n## "+process+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		for _, m := range moments(waybill) {
			if !found || !strings.Contains(section, "| "+m.step+" | ") {
				t.Errorf("docs/failure-matrix.md does not say what becomes of %s at %s; run make test-chaos", process, m.step)
			}
		}
	}
}
