package doctor

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAHealthySystem(t *testing.T) {
	t.Parallel()
	w := healthy(t)
	for _, running := range []bool{false, true} {
		o := patient
		o.Running = running
		r := w.examine(o)
		if diff := cmp.Diff([]string{}, names(r)); diff != "" || !r.Healthy() {
			t.Errorf("running %v: %s", running, diff)
		}
		want := map[string]int{"orders": 5, "sagas": 5, "payments": 5, "reservations": 5, "shipments": 3, "orders_with_messages": 3, "products": 1}
		if diff := cmp.Diff(want, r.Counts); diff != "" {
			t.Error(diff)
		}
	}
}

// Every difference is found by its name and nothing else is.
func TestEachDifference(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		plant func(w *world)
		want  []string
	}{
		"an order without a saga": {func(w *world) {
			w.remove(fulfillmentStore, "saga:ORD-5")
		}, []string{"order_without_saga ORD-5"}},
		"an order that was cancelled before anybody began needs none": {func(w *world) {
			w.put(ordersStore, "order:ORD-9", `{"order":{"order_id":"ORD-9","customer_id":"CUST-9"},"status":"cancelled"}`)
			w.put(ordersStore, "order:ORD-8", `{"order":{"order_id":"ORD-8","customer_id":"CUST-9"},"status":"received"}`)
			w.put(ordersStore, "customer:CUST-9", `{"ids":["ORD-9"]}`)
		}, []string{}},
		"a saga without an order": {func(w *world) {
			w.remove(ordersStore, "order:ORD-1")
		}, []string{"saga_without_order ORD-1"}},
		"another outcome": {func(w *world) {
			w.change(ordersStore, "order:ORD-1", `"status":"fulfilled"`, `"status":"cancelled"`)
		}, []string{"outcome_differs ORD-1"}},
		"an order that ended before its saga": {func(w *world) {
			w.change(ordersStore, "order:ORD-5", `"status":"fulfilling"`, `"status":"fulfilled"`)
		}, []string{"outcome_differs ORD-5"}},
		"an outcome that nobody told": {func(w *world) {
			w.change(ordersStore, "order:ORD-1", `"status":"fulfilled"`, `"status":"fulfilling"`)
			w.backlog(ordersStore, "orders", "ORD-1", "ORD-4", "ORD-5")
		}, []string{"outcome_not_told ORD-1"}},
		"an approval that is gone": {func(w *world) {
			w.change(fulfillmentStore, "saga:ORD-4", `"approval":`, `"appr0val":`)
		}, []string{"approval_missing ORD-4"}},
		"an approval of an order that ended": {func(w *world) {
			w.change(ordersStore, "order:ORD-4", `"status":"awaiting_approval"`, `"status":"cancelled"`)
		}, []string{"approval_of_ended_order ORD-4"}},
		"an approval that nobody can find": {func(w *world) {
			w.backlog(fulfillmentStore, "approvals")
		}, []string{"approval_not_listed ORD-4"}},
		"a wait that orders does not know of": {func(w *world) {
			w.change(ordersStore, "order:ORD-4", `"status":"awaiting_approval"`, `"status":"fulfilling"`)
		}, []string{"state_differs ORD-4"}},
		"another customer": {func(w *world) {
			w.change(ordersStore, "order:ORD-1", `"total_amount":20.00`, `"total_amount":21.00`)
		}, []string{"content_differs ORD-1"}},
		"a saga that the engine lost": {func(w *world) {
			w.sql(engineStore, "DELETE FROM state WHERE key LIKE '%ORD-5%'")
		}, []string{"lost_in_engine ORD-5"}},
		"an order that no reconciler looks at": {func(w *world) {
			w.backlog(ordersStore, "orders", "ORD-4")
		}, []string{"order_not_in_backlog ORD-5"}},
		"a saga that no reconciler checks": {func(w *world) {
			w.backlog(fulfillmentStore, "sagas", "ORD-4")
		}, []string{"saga_not_in_backlog ORD-5"}},
		"a message that nobody sends": {func(w *world) {
			w.change(notificationsStore, "order-messages:ORD-1", `"channel":"sms","template":"order_shipped","state":"delivered"`, `"channel":"sms","template":"order_shipped","state":"pending"`)
			w.change(notificationsStore, "order-messages:ORD-1", `"channel":"email","template":"order_shipped","state":"delivered"`, `"channel":"email","template":"order_shipped","state":"pending"`)
			w.change(notificationsStore, "order-messages:ORD-2", `"channel":"sms","template":"order_failed","state":"delivered"`, `"channel":"sms","template":"order_failed","state":"waiting_for_address"`)
		}, []string{"message_not_in_backlog ORD-1"}},
		"an order that its customer does not see": {func(w *world) {
			w.change(ordersStore, "customer:CUST-123:0", `"ORD-1"`, `"ORD-0"`)
		}, []string{"not_in_customers_list ORD-1"}},
		"two charges": {func(w *world) {
			w.change(fulfillmentStore, "payment:ORD-1", `"charges":[`, `"charges":[{"transaction_id":"TXN-2","amount":20.00},`)
		}, []string{"charged_twice ORD-1"}},
		"another charge": {func(w *world) {
			w.change(fulfillmentStore, "payment:ORD-1", `"amount":20.00`, `"amount":2.00`)
		}, []string{"charge_differs ORD-1"}},
		"charged, not shipped and not refunded": {func(w *world) {
			w.change(fulfillmentStore, "payment:ORD-2", `"refunds":[`, `"ref0nds":[`)
		}, []string{"charged_not_refunded ORD-2"}},
		"fulfilled without a parcel": {func(w *world) {
			w.remove(fulfillmentStore, "shipment:ORD-1")
		}, []string{"charged_not_refunded ORD-1", "fulfilled_without_shipment ORD-1"}},
		"refunded and shipped": {func(w *world) {
			w.change(fulfillmentStore, "payment:ORD-1", `"charges":[`, `"refunds":[{"transaction_id":"TXN-1","amount":20.00}],"charges":[`)
		}, []string{"refunded_and_shipped ORD-1"}},
		"a parcel of an order that failed": {func(w *world) {
			w.put(fulfillmentStore, "shipment:ORD-2", `{"booked":[{"shipment":{"tracking_number":"UPS-2"}}]}`)
		}, []string{"refunded_and_shipped ORD-2", "shipment_of_failed_order ORD-2"}},
		"a parcel that nobody paid": {func(w *world) {
			w.remove(fulfillmentStore, "payment:ORD-1")
		}, []string{"shipment_without_charge ORD-1"}},
		"a parcel, a charge, a reservation and a message of nobody": {func(w *world) {
			w.put(fulfillmentStore, "shipment:ORD-9", `{"booked":[{"shipment":{"tracking_number":"UPS-9"}}]}`)
			w.put(fulfillmentStore, "payment:ORD-9", `{"charges":[{"transaction_id":"TXN-9","amount":1.00}]}`)
			w.put(fulfillmentStore, "reservation:ORD-9", `{"state":"reserved","derives":true,"lines":{"PROD-001":0}}`)
			w.put(notificationsStore, "order-messages:ORD-9", `{"messages":[{"id":"ORD-9:order_shipped:sms","state":"delivered"}]}`)
			w.put(notificationsStore, "order-messages:ORD-8", `{"messages":[{"id":"theirs","state":"delivered"}]}`)
		}, []string{"message_of_unknown_order ORD-9", "payment_without_order ORD-9", "reservation_without_order ORD-9", "shipment_without_order ORD-9"}},
		"a message that nobody asked for": {func(w *world) {
			w.change(notificationsStore, "order-messages:ORD-3", `"id":"ORD-3:order_cancelled:push"`, `"id":"ORD-3:order_shipped:push"`)
		}, []string{"message_missing ORD-3"}},
		"stock that holds more than the reservations": {func(w *world) {
			w.change(fulfillmentStore, "stock:PROD-001", `":settled":2`, `":settled":5`)
		}, []string{"reserved_differs PROD-001"}},
		"stock that shipped less than the reservations": {func(w *world) {
			w.change(fulfillmentStore, "stock:PROD-001", `"shipped":2`, `"shipped":1`)
		}, []string{"shipped_differs PROD-001"}},
		"fewer than no pieces": {func(w *world) {
			w.change(fulfillmentStore, "stock:PROD-001", `"on_hand":98`, `"on_hand":-1`)
		}, []string{"on_hand_negative PROD-001"}},
		"oversold": {func(w *world) {
			w.change(fulfillmentStore, "stock:PROD-001", `"on_hand":98`, `"on_hand":3`)
		}, []string{"oversold PROD-001"}},
		"a reservation of an order that ended": {func(w *world) {
			w.change(fulfillmentStore, "reservation:ORD-2", `"state":"released"`, `"state":"reserved","derives":true`)
		}, []string{"reservation_of_ended_order ORD-2", "reserved_differs PROD-001"}},
		"a reservation that was released and shipped": {func(w *world) {
			w.change(fulfillmentStore, "reservation:ORD-1", `"state":"shipped"`, `"state":"released"`)
		}, []string{"reservation_differs ORD-1", "shipped_differs PROD-001"}},
		"documents that cannot be decoded": {func(w *world) {
			w.put(ordersStore, "order:ORD-1", `"spoiled"`)
			w.put(fulfillmentStore, "saga:ORD-2", `{"order":`)
			w.put(fulfillmentStore, "stock:PROD-002", `[]`)
			w.put(ordersStore, "backlog:orders:w1:0", `{"entries":7}`)
			w.put(notificationsStore, "contact:CUST-123", `{`)
		}, []string{
			"document_unreadable fulfillment stock:PROD-002", "document_unreadable notifications contact:CUST-123", "document_unreadable orders backlog:orders:w1:0",
			"document_unreadable ORD-1", "document_unreadable ORD-2",
		}},
		"former releases: a mark for every order that holds something": {func(w *world) {
			w.change(fulfillmentStore, "stock:PROD-001", `":settled":2`, `"ORD-4":2`)
			w.change(fulfillmentStore, "reservation:ORD-4", `"derives":true,`, "")
			w.change(fulfillmentStore, "reservation:ORD-5", `"derives":true,`, "")
		}, []string{}},
		"in flight: pieces that were shipped, and whose reservation does not say so yet": {func(w *world) {
			w.change(fulfillmentStore, "stock:PROD-001", `"on_hand":98,"shipped":2,"held":{"ORD-5":2,`, `"on_hand":96,"shipped":4,"moved":{"ORD-5":2},"held":{`)
		}, []string{}},
		"in flight: pieces that are held without a reservation yet": {func(w *world) {
			w.change(fulfillmentStore, "stock:PROD-001", `"held":{`, `"held":{"ORD-7":4,`)
		}, []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := healthy(t)
			c.plant(w)
			r := w.examine(patient)
			got := names(r)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, f := range r.Differences {
				if f.What == "" || f.Why == "" || f.Mend == "" || len(f.Where) == 0 || strings.Contains(f.What, "%!") {
					t.Errorf("something is missing of %+v", f)
				}
			}
		})
	}
}

// What vanishes after its retention is not missed afterwards, and nothing else is excused by that.
func TestRetentions(t *testing.T) {
	t.Parallel()
	expiring := func(w *world, store, keys string) {
		w.sql(store, "UPDATE state SET expiration_time = datetime('now', '+60 days') WHERE key LIKE ?", keys)
	}
	w := healthy(t)
	w.at = time.Now().Add(-50 * time.Hour)
	w.order("ORD-1", "fulfilled")
	expiring(w, notificationsStore, "%order-messages:%") // as by default
	w.remove(ordersStore, "order:ORD-1")
	w.put(notificationsStore, "order-messages:ORD-9", `{"messages":[{"id":"ORD-9:order_shipped:sms","state":"delivered"}]}`)
	w.order("ORD-2", "failed")
	w.remove(fulfillmentStore, "saga:ORD-2")
	if diff := cmp.Diff([]string{"saga_without_order ORD-1", "order_without_saga ORD-2", "message_of_unknown_order ORD-9"}, names(w.examine(patient))); diff != "" {
		t.Errorf("messages vanish: %s", diff)
	}
	short := patient
	short.Kept = Kept{Orders: 24 * time.Hour, Sagas: 24 * time.Hour, Messages: 24 * time.Hour}
	w.remove(notificationsStore, "order-messages:ORD-1")
	w.change(ordersStore, "order:ORD-2", `"updated_at":"2026-11-28T10:00:05Z"`, `"updated_at":"`+w.at.UTC().Format(time.RFC3339)+`"`)
	if diff := cmp.Diff([]string{}, names(w.examine(short))); diff != "" {
		t.Errorf("everything is kept for a day: %s", diff)
	}
	short.Kept = Kept{Orders: 100 * time.Hour, Sagas: 100 * time.Hour, Messages: 100 * time.Hour}
	if diff := cmp.Diff([]string{"message_missing ORD-1", "saga_without_order ORD-1", "order_without_saga ORD-2"}, names(w.examine(short))); diff != "" {
		t.Errorf("everything is kept for four days: %s", diff)
	}
	expiring(w, ordersStore, "%order:%")
	expiring(w, fulfillmentStore, "%saga:%")
	for _, kind := range []string{"payment", "reservation", "shipment"} {
		expiring(w, fulfillmentStore, "%"+kind+":%")
	}
	short.Kept = Kept{Messages: 24 * time.Hour}
	if diff := cmp.Diff([]string{}, names(w.examine(short))); diff != "" {
		t.Errorf("orders and sagas vanish: %s", diff)
	}
}

// A store that is gone, wholly or up to some time, is named, whatever its orders show besides.
func TestAStoreThatIsLost(t *testing.T) {
	t.Parallel()
	many := func(t *testing.T) *world {
		t.Helper()
		w := healthy(t)
		for _, id := range []string{"ORD-11", "ORD-12", "ORD-13"} {
			w.order(id, "fulfilled")
		}
		w.change(fulfillmentStore, "stock:PROD-001", `"on_hand":98,"shipped":2`, `"on_hand":92,"shipped":8`)
		w.change(ordersStore, "customer:CUST-123", `"ORD-3"`, `"ORD-3","ORD-11","ORD-12","ORD-13"`)
		return w
	}
	first := func(r *Report) string {
		if r.Healthy() {
			return ""
		}
		return r.Differences[0].Code + " " + r.Differences[0].Where[0]
	}
	wipe := "DELETE FROM state WHERE key NOT LIKE '%backlog%'"
	for store, want := range map[string]string{ordersStore: "orders", fulfillmentStore: "fulfillment", notificationsStore: "notifications"} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			w := many(t)
			w.sql(store, wipe)
			r := w.examine(patient)
			if got := first(r); got != "store_lost "+want || !strings.Contains(r.Differences[0].What, "8") && store != notificationsStore {
				t.Errorf("got %s: %+v", got, r.Differences[0])
			}
			if !slices.ContainsFunc(names(r), func(n string) bool { return strings.HasSuffix(n, " ORD-11") }) {
				t.Errorf("its orders are not named: %v", names(r))
			}
		})
		t.Run(want+" has no file", func(t *testing.T) {
			t.Parallel()
			w := many(t)
			w.dbs[store].Close()
			for _, path := range []string{".db", ".db-wal", ".db-shm"} {
				os.Remove(filepath.Join(w.folder, store+path))
			}
			if got := first(w.examine(patient)); got != "store_missing "+store+".db" {
				t.Errorf("got %s", got)
			}
		})
	}
	t.Run("and newer orders are there", func(t *testing.T) {
		t.Parallel()
		w := many(t)
		w.sql(fulfillmentStore, wipe)
		w.at = time.Now().Add(-time.Minute)
		w.order("ORD-20", "fulfilled")
		w.change(ordersStore, "order:ORD-20", `"created_at":"2026-11-28T10:00:00Z"`, `"created_at":"`+w.at.UTC().Format(time.RFC3339)+`"`)
		if r := w.examine(patient); first(r) != "store_lost fulfillment" || !strings.Contains(r.Differences[0].What, "8 orders") {
			t.Errorf("got %v", names(r))
		}
	})
}

// What was written just before the system stopped was in flight then.
func TestWhatWasInFlightWhenTheSystemStopped(t *testing.T) {
	t.Parallel()
	w := healthy(t)
	w.at = time.Now()
	w.order("ORD-1", "fulfilled")
	w.change(ordersStore, "order:ORD-1", `"status":"fulfilled"`, `"status":"fulfilling"`)
	w.backlog(ordersStore, "orders", "ORD-1", "ORD-4", "ORD-5")
	if r := w.examine(patient); !r.Healthy() || r.InFlight != 1 {
		t.Errorf("%v, %d in flight", names(r), r.InFlight)
	}
	strict := patient
	strict.Grace = 0
	if diff := cmp.Diff([]string{"outcome_not_told ORD-1"}, names(w.examine(strict))); diff != "" {
		t.Error(diff)
	}
	w.change(fulfillmentStore, "payment:ORD-1", `"charges":[`, `"charges":[{"transaction_id":"TXN-2","amount":20.00},`)
	if diff := cmp.Diff([]string{"charged_twice ORD-1"}, names(w.examine(patient))); diff != "" {
		t.Errorf("what no order in flight can look like counts at once: %s", diff)
	}
}

// On a running system a difference counts when it stays, and what moves meanwhile is no difference.
func TestOnARunningSystem(t *testing.T) {
	t.Parallel()
	w := healthy(t)
	w.change(ordersStore, "order:ORD-1", `"status":"fulfilled"`, `"status":"fulfilling"`) // heals while it is looked at
	w.change(ordersStore, "order:ORD-2", `"status":"fulfillment_failed"`, `"status":"cancelled"`)
	w.change(ordersStore, "order:ORD-3", `"status":"cancelled"`, `"status":"fulfilled"`)
	w.change(ordersStore, "customer:CUST-123:0", `"ORD-1"`, `"ORD-0"`) // and so does this
	w.backlog(ordersStore, "orders", "ORD-1", "ORD-3", "ORD-4", "ORD-5")
	o := Options{Running: true, Grace: 300 * time.Millisecond, Kept: Kept{Messages: 1000 * time.Hour}}
	asked := ""
	o.Progress = func(text string) {
		asked = text
		w.change(ordersStore, "order:ORD-1", `"status":"fulfilling"`, `"status":"fulfilled"`)
		w.change(ordersStore, "customer:CUST-123:0", `"ORD-0"`, `"ORD-1"`)
	}
	r := w.examine(o)
	if diff := cmp.Diff([]string{"outcome_differs ORD-2", "outcome_differs ORD-3"}, names(r)); diff != "" || !strings.HasPrefix(asked, "3 orders") {
		t.Errorf("%s %q", diff, asked)
	}
}

// moving is a source in which one order never stands still.
type moving struct {
	*folderSource

	n int
}

func (m *moving) look(ctx context.Context, id string) (*facts, error) {
	f, err := m.folderSource.look(ctx, id)
	if m.n++; err == nil {
		f.version += strings.Repeat("x", m.n)
	}
	return f, err
}

func TestAnOrderThatNeverStandsStillIsNotJudged(t *testing.T) {
	t.Parallel()
	w := healthy(t)
	w.change(ordersStore, "order:ORD-1", `"status":"fulfilled"`, `"status":"fulfilling"`)
	f, err := openFolder(t.Context(), w.folder)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	r, err := run(t.Context(), &moving{folderSource: &folderSource{folder: f}}, Options{Running: true, Grace: 50 * time.Millisecond, Kept: patient.Kept})
	if err != nil || !r.Healthy() || r.InFlight != 1 {
		t.Errorf("%v, %d in flight, %v", names(r), r.InFlight, err)
	}
}

func TestDeadLettersAreNoted(t *testing.T) {
	t.Parallel()
	w := healthy(t)
	w.put(ordersStore, "deadletters:fulfillment", `{"pages":1}`)
	w.put(ordersStore, "deadletters:fulfillment:0", `{"items":[{"key":"a","open":1},{"key":"b"},{"key":"c","open":2}]}`)
	r := w.examine(patient)
	if !r.Healthy() || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "orders has 2 open dead letters of the topic fulfillment") {
		t.Errorf("%v %v", names(r), r.Notes)
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	w := healthy(t)
	var out bytes.Buffer
	if err := w.examine(patient).Print(&out); err != nil || !strings.HasSuffix(out.String(), "No difference was found.\n") {
		t.Errorf("%v:\n%s", err, &out)
	}
	w.remove(fulfillmentStore, "saga:ORD-4")
	out.Reset()
	if err := w.examine(patient).Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"compared 5 orders, 4 sagas", "1. order_without_saga  order ORD-4\n", "The order is awaiting_approval, and fulfilment has no saga of it.",
		"where: orders order:ORD-4, fulfillment saga:ORD-4\n", "mend:  orders announces", "1 difference was found.",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, &out)
		}
	}
}

func TestNoFolder(t *testing.T) {
	t.Parallel()
	if _, err := Folder(t.Context(), filepath.Join(t.TempDir(), "state"), patient); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	r, err := Folder(t.Context(), t.TempDir(), patient)
	if err != nil || !r.Healthy() || len(r.Notes) != 1 {
		t.Errorf("an empty one: %+v, %v", r, err)
	}
}
