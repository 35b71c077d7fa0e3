package doctor

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// world is the stores of a data folder, with the documents as the services write them.
type world struct {
	t      testing.TB
	folder string
	dbs    map[string]*sql.DB
	at     time.Time // of what is written
}

const schema = `CREATE TABLE metadata (key text NOT NULL PRIMARY KEY, value text NOT NULL);
CREATE TABLE state (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, is_binary BOOLEAN NOT NULL, etag TEXT NOT NULL,
	expiration_time TIMESTAMP DEFAULT NULL, update_time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)`

const (
	ordersStore        = "orders.statestore"
	fulfillmentStore   = "fulfillment.statestore"
	notificationsStore = "notifications.statestore"
	analyticsStore     = "analytics.statestore"
	engineStore        = "fulfillment.workflowstore"
)

func newWorld(tb testing.TB) *world {
	tb.Helper()
	w := &world{t: tb, folder: tb.TempDir(), dbs: map[string]*sql.DB{}, at: time.Now().Add(-time.Hour)}
	for _, name := range []string{ordersStore, fulfillmentStore, notificationsStore, analyticsStore, engineStore} {
		db, err := sql.Open("sqlite", "file:"+filepath.Join(w.folder, name+".db"))
		if err != nil {
			tb.Fatal(err)
		}
		db.SetMaxOpenConns(1)
		tb.Cleanup(func() { db.Close() })
		w.dbs[name] = db
		w.sql(name, "PRAGMA journal_mode=WAL")
		w.sql(name, schema)
	}
	return w
}

func (w *world) sql(store, query string, args ...any) {
	w.t.Helper()
	if _, err := w.dbs[store].ExecContext(w.t.Context(), query, args...); err != nil {
		w.t.Fatalf("%s: %s: %v", store, query, err)
	}
}

// put stores a document.
func (w *world) put(store, key, value string) {
	w.t.Helper()
	app, _, _ := cutStore(store)
	w.sql(store, "INSERT OR REPLACE INTO state (key, value, is_binary, etag, update_time) VALUES (?, ?, 0, hex(randomblob(8)), datetime(?, 'unixepoch'))",
		app+"||"+key, value, w.at.Unix())
}

func (w *world) remove(store, key string) {
	w.t.Helper()
	app, _, _ := cutStore(store)
	w.sql(store, "DELETE FROM state WHERE key = ?", app+"||"+key)
}

// change replaces a part of a document.
func (w *world) change(store, key, old, replacement string) {
	w.t.Helper()
	app, _, _ := cutStore(store)
	res, err := w.dbs[store].ExecContext(w.t.Context(), "UPDATE state SET value = replace(value, ?, ?), etag = hex(randomblob(8)) WHERE key = ? AND instr(value, ?)", old, replacement, app+"||"+key, old)
	if err != nil {
		w.t.Fatal(err)
	}
	if n, _ := res.RowsAffected(); n != 1 {
		w.t.Fatalf("%s %s does not hold %s", store, key, old)
	}
}

func cutStore(store string) (app, component string, ok bool) {
	for i := range store {
		if store[i] == '.' {
			return store[:i], store[i+1:], true
		}
	}
	return store, "", false
}

const (
	content = `{"order_id":%q,"customer_id":"CUST-123","items":[{"product_id":"PROD-001","name":"Widget","quantity":2,"price":10.00}],"total_amount":20.00,"currency":"USD","shipping_address":{"street":"123 Test St","city":"Test City","zip":"12345"},"payment_token":"tok_1"}`
	times   = `"created_at":"2026-11-28T10:00:00Z","processed_at":"2026-11-28T10:00:01Z","updated_at":"2026-11-28T10:00:05Z"`
)

// order stores one order and all that belongs to it: fulfilled, failed, cancelled, waiting or running.
func (w *world) order(id, how string) {
	w.t.Helper()
	c := fmt.Sprintf(content, id)
	status := map[string]string{"fulfilled": "fulfilled", "failed": "fulfillment_failed", "cancelled": "cancelled", "waiting": "awaiting_approval", "running": "fulfilling"}[how]
	w.put(ordersStore, "order:"+id, `{"order":`+c+`,"status":"`+status+`",`+times+`,"timeline":[]}`)
	charge := `{"key":"` + id + `:ValidatePayment","transaction_id":"TXN-` + id + `","amount":20.00,"currency":"USD","at":"2026-11-28T10:00:02Z"}`
	saga := `"order":` + c + `,"started_at":"` + w.at.UTC().Format(time.RFC3339) + `"`
	ended := `,"ended_at":"` + w.at.UTC().Format(time.RFC3339) + `","outcome":%q`
	template := map[string]string{"fulfilled": "order_shipped", "failed": "order_failed", "cancelled": "order_cancelled"}[how]
	if template != "" {
		m := ""
		for _, channel := range []string{"email", "sms", "push"} {
			m += `,{"id":"` + id + ":" + template + ":" + channel + `","order_id":"` + id + `","customer_id":"CUST-123","channel":"` + channel + `","template":"` + template + `","state":"delivered"}`
		}
		w.put(notificationsStore, "order-messages:"+id, `{"messages":[`+m[1:]+`]}`)
	}
	switch how {
	case "fulfilled":
		w.put(fulfillmentStore, "saga:"+id, `{`+saga+fmt.Sprintf(ended, "completed")+`}`)
		w.put(fulfillmentStore, "payment:"+id, `{"order_id":"`+id+`","charges":[`+charge+`]}`)
		w.put(fulfillmentStore, "reservation:"+id, `{"order_id":"`+id+`","state":"shipped","lines":{"PROD-001":2}}`)
		w.put(fulfillmentStore, "shipment:"+id, `{"order_id":"`+id+`","booked":[{"key":"k","shipment":{"carrier":"UPS","tracking_number":"UPS-`+id+`","cost":5.99}}]}`)
	case "failed", "cancelled":
		w.put(fulfillmentStore, "saga:"+id, `{`+saga+fmt.Sprintf(ended, how)+`}`)
		w.put(fulfillmentStore, "payment:"+id, `{"order_id":"`+id+`","charges":[`+charge+`],"refunds":[`+charge+`],"closed":true}`)
		w.put(fulfillmentStore, "reservation:"+id, `{"order_id":"`+id+`","state":"released","lines":{"PROD-001":2}}`)
		w.put(fulfillmentStore, "shipment:"+id, `{"order_id":"`+id+`","cancelled":true}`)
	case "waiting", "running":
		approval := ""
		if how == "waiting" {
			approval = `,"approval":{"requested_at":"2026-11-28T10:00:03Z","expires_at":"2026-11-29T10:00:03Z"}`
		}
		w.put(fulfillmentStore, "saga:"+id, `{`+saga+approval+`}`)
		w.put(fulfillmentStore, "payment:"+id, `{"order_id":"`+id+`","charges":[`+charge+`]}`)
		w.put(fulfillmentStore, "reservation:"+id, `{"order_id":"`+id+`","state":"reserved","derives":true,"lines":{"PROD-001":2}}`)
		w.sql(engineStore, "INSERT INTO state (key, value, is_binary, etag) VALUES (?, 'EBgYAQ==', 1, 'e')", "fulfillment||"+instanceKey(id))
	}
}

// healthy has five orders that end, or wait, in every way, and a product of which ten pieces were shipped or are held.
func healthy(tb testing.TB) *world {
	tb.Helper()
	w := newWorld(tb)
	for id, how := range map[string]string{"ORD-1": "fulfilled", "ORD-2": "failed", "ORD-3": "cancelled", "ORD-4": "waiting", "ORD-5": "running"} {
		w.order(id, how)
	}
	w.put(fulfillmentStore, "stock:PROD-001", `{"product_id":"PROD-001","on_hand":98,"shipped":2,"held":{"ORD-5":2,":settled":2},"last":{"revision":3,"previous":96,"current":94,"at":"2026-11-28T10:00:00Z"},"version":9}`)
	w.put(ordersStore, "customer:CUST-123", `{"pages":1,"ids":["ORD-3","ORD-4","ORD-5"]}`)
	w.put(ordersStore, "customer:CUST-123:0", `{"ids":["ORD-1","ORD-2"]}`)
	w.backlog(ordersStore, "orders", "ORD-4", "ORD-5")
	w.backlog(fulfillmentStore, "sagas", "ORD-4", "ORD-5", "ORD-1")
	w.backlog(fulfillmentStore, "approvals", "ORD-4")
	w.backlog(notificationsStore, "notifications", "ORD-1:order_shipped:email#1@1764324000")
	w.backlog(notificationsStore, "address-waits", "1764324000 CUST-123 order-messages:ORD-2")
	return w
}

func (w *world) backlog(store, name string, ids ...string) {
	w.t.Helper()
	entries := ""
	for i, id := range ids {
		entries += fmt.Sprintf(`,{"n":%d,"id":%q}`, i, id)
	}
	page := "backlog:" + name + ":w1:0"
	w.put(store, "backlog:"+name, `{"pages":["`+page+`"]}`)
	w.put(store, page, `{"entries":[`+entries[min(1, len(entries)):]+`],"taken":`+fmt.Sprint(len(ids))+`}`)
}

var patient = Options{Grace: time.Minute, Kept: Kept{Messages: 2160 * time.Hour}}

func (w *world) examine(o Options) *Report {
	w.t.Helper()
	r, err := Folder(w.t.Context(), w.folder, o)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// names are the findings as code and what they are about.
func names(r *Report) []string {
	found := make([]string, 0, len(r.Differences))
	for _, f := range r.Differences {
		about := f.Order + f.Product
		if about == "" {
			about = f.Where[0]
		}
		found = append(found, f.Code+" "+about)
	}
	return found
}

// many adds n orders that were fulfilled, each a copy of one that is there.
func (w *world) many(n int) {
	w.t.Helper()
	const numbers = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?) "
	for store, kinds := range map[string][]string{
		ordersStore: {"order:"}, fulfillmentStore: {"saga:", "payment:", "reservation:", "shipment:"}, notificationsStore: {"order-messages:"},
	} {
		app, _, _ := cutStore(store)
		for _, kind := range kinds {
			w.sql(store, numbers+`INSERT INTO state (key, value, is_binary, etag, update_time)
				SELECT replace(key, 'ORD-1', printf('ORD-1-%07d', n)), replace(replace(value, 'ORD-1', printf('ORD-1-%07d', n)), 'CUST-123', printf('CUST-M-%d', n / 50)), 0, 'e', update_time
				FROM state, numbers WHERE key = ?`, n, app+"||"+kind+"ORD-1")
		}
	}
	w.sql(ordersStore, numbers+`INSERT INTO state (key, value, is_binary, etag)
		SELECT printf('orders||customer:CUST-M-%d', n / 50), json_object('pages', 0, 'ids', json_group_array(printf('ORD-1-%07d', n))), 0, 'e' FROM numbers GROUP BY n / 50`, n)
	w.change(fulfillmentStore, "stock:PROD-001", `"shipped":2`, `"shipped":`+fmt.Sprint(2+2*n))
}
