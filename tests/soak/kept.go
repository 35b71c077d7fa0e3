package main

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	_ "modernc.org/sqlite" // reads the files of the state stores

	"waybill/tests/internal/client"
	"waybill/tests/internal/system"
)

// retentions make time run faster: what a system keeps for hours or months, the system of a run keeps for a part of a window.
type retentions struct {
	// ended is how long orders, messages, idempotency keys, finished workflows and events are kept.
	ended time.Duration
	// cleanup is how often the state stores remove what has outlived that.
	cleanup time.Duration
	// address is how long a message waits for an address, which in a run most customers do not have.
	address time.Duration
}

func retentionsFor(window time.Duration) retentions {
	ended := min(max(window/3, 8*time.Second), time.Minute).Truncate(time.Second)
	return retentions{ended: ended, cleanup: max(ended/6, 2*time.Second).Truncate(time.Second), address: max(ended/3, 3*time.Second).Truncate(time.Second)}
}

// gone is how long after the end of an order nothing is left of it that does not stay for ever, with time to spare for a busy machine.
func (r retentions) gone() time.Duration { return r.ended + r.address + 2*r.cleanup + time.Minute }

func (r retentions) environment() []string {
	var environment []string
	for _, name := range []string{"ORDER_RETENTION", "MESSAGE_RETENTION", "IDEMPOTENCY_TTL", "WORKFLOW_RETENTION", "BROKER_RETENTION"} {
		environment = append(environment, name+"="+r.ended.String())
	}
	return append(environment, "STATE_CLEANUP_INTERVAL="+r.cleanup.String(), "ADDRESS_WAIT="+r.address.String())
}

// records are the stored records of one kind.
type records struct{ rows, bytes int64 }

// keeping is how long records of a kind stay.
type keeping int

const (
	// forAWhile: each of them goes some time after its order has ended.
	forAWhile keeping = iota + 1
	// forEver: each order leaves some.
	forEver
	// few: their number does not follow from the number of orders.
	few
)

// expected is what a run may leave of a kind.
type expected struct {
	keeping keeping
	// perOrder is how many an order leaves at most, of those that stay.
	perOrder float64
}

// jobs is the kind of what the scheduler is to do.
const jobs = "scheduler/jobs"

// kinds are all kinds of stored records. docs/adr/0033 says how long each is kept outside of a run, and who reads it last.
var kinds = map[string]expected{
	jobs:                                      {keeping: forAWhile},
	"fulfillment.workflowstore/history":       {keeping: forAWhile},
	"fulfillment.workflowstore/inbox":         {keeping: forAWhile},
	"fulfillment.workflowstore/state":         {keeping: forAWhile}, // metadata and status
	"orders.statestore/order":                 {keeping: forAWhile},
	"orders.statestore/idempotency":           {keeping: forAWhile},
	"notifications.statestore/order-messages": {keeping: forAWhile},
	"notifications.statestore/message":        {keeping: forAWhile},

	"fulfillment.statestore/saga":        {keeping: forEver, perOrder: 1},
	"fulfillment.statestore/payment":     {keeping: forEver, perOrder: 1},
	"fulfillment.statestore/reservation": {keeping: forEver, perOrder: 1},
	"fulfillment.statestore/shipment":    {keeping: forEver, perOrder: 1},
	// Pages of 200 entries, which stay for an hour when they are done with.
	"orders.statestore/backlog":        {keeping: forEver, perOrder: 0.03},
	"fulfillment.statestore/backlog":   {keeping: forEver, perOrder: 0.03},
	"notifications.statestore/backlog": {keeping: forEver, perOrder: 0.2},
	// For 30 days.
	"analytics/AnalyticsEvents": {keeping: forEver, perOrder: 1},

	"orders.statestore/readiness":         {keeping: few},
	"fulfillment.statestore/readiness":    {keeping: few},
	"notifications.statestore/readiness":  {keeping: few},
	"analytics.statestore/readiness":      {keeping: few},
	"orders.statestore/customer":          {keeping: few},
	"fulfillment.statestore/stock":        {keeping: few},
	"notifications.statestore/contact":    {keeping: few},
	"notifications.statestore/vapid-keys": {keeping: few},
	"analytics/RealtimeMetrics":           {keeping: few},
	"analytics/Anomalies":                 {keeping: few},
}

// someRows is how many records of a kind may come that does not grow with the orders: customers and products of a run, and points of
// a series.
const someRows = 600

// count counts all stored records by their kind.
func count(ctx context.Context, s *system.System, processes []system.Process) (map[string]records, error) {
	files, err := filepath.Glob(filepath.Join(s.Data, "state", "*"))
	if err != nil {
		return nil, err
	}
	counts := map[string]records{}
	for _, file := range files {
		if !strings.HasSuffix(file, ".db") && !strings.HasSuffix(file, ".sqlite") {
			continue
		}
		if err := countRows(ctx, file, counts); err != nil {
			return nil, fmt.Errorf("count the rows of %s: %w", file, err)
		}
	}
	for _, p := range processes {
		if p.Kind != "scheduler" {
			continue
		}
		n, err := countJobs(ctx, p.PID)
		if err != nil {
			return nil, fmt.Errorf("count the jobs of the scheduler: %w", err)
		}
		counts[jobs] = records{rows: n}
	}
	return counts, nil
}

func countRows(ctx context.Context, file string, counts map[string]records) (err error) {
	db, err := sql.Open("sqlite", "file:"+file+"?mode=ro&_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tables, err := names(ctx, db)
	if err != nil {
		return err
	}
	store := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(file), ".db"), ".sqlite")
	for _, table := range tables {
		switch table {
		case "metadata":
			continue // of Dapr's component
		case "state":
			if err := countKeys(ctx, db, store, counts); err != nil {
				return err
			}
			continue
		}
		var n int64
		if err := db.QueryRowContext(ctx, `SELECT count(*) FROM "`+strings.ReplaceAll(table, `"`, `""`)+`"`).Scan(&n); err != nil {
			return err
		}
		counts[store+"/"+table] = records{rows: n}
	}
	return nil
}

func names(ctx context.Context, db *sql.DB) (tables []string, err error) {
	found, err := db.QueryContext(ctx, `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, found.Close()) }()
	for found.Next() {
		var name string
		if err := found.Scan(&name); err != nil {
			return nil, err
		}
		tables = append(tables, name)
	}
	return tables, found.Err()
}

// countKeys counts the rows of a state store by what their keys begin with.
func countKeys(ctx context.Context, db *sql.DB, store string, counts map[string]records) (err error) {
	found, err := db.QueryContext(ctx, `SELECT key, length(key) + length(value) FROM state`)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, found.Close()) }()
	for found.Next() {
		var key string
		var size int64
		if err := found.Scan(&key, &size); err != nil {
			return err
		}
		kind := store + "/" + kindOf(key)
		r := counts[kind]
		counts[kind] = records{r.rows + 1, r.bytes + size}
	}
	return found.Err()
}

// kindOf is the kind of a key: of a service's own key, <app>||<kind>:<id>, its kind; of a workflow's,
// <app>||<actor type>||<instance>||<what>, what it is.
func kindOf(key string) string {
	parts := strings.Split(key, "||")
	if len(parts) < 4 {
		kind, _, _ := strings.Cut(parts[len(parts)-1], ":")
		return kind
	}
	what, _, _ := strings.Cut(parts[len(parts)-1], "-")
	if what == "history" || what == "inbox" {
		return what
	}
	return "state"
}

// countJobs asks the scheduler's etcd.
func countJobs(ctx context.Context, pid int) (int64, error) {
	port, err := argument(pid, "--etcd-client-port")
	if err != nil {
		return 0, err
	}
	key := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	code, _, body, err := client.Call(ctx, http.MethodPost, "http://127.0.0.1:"+port+"/v3/kv/range",
		map[string]any{"key": key("dapr/jobs/"), "range_end": key("dapr/jobs0"), "count_only": true})
	if err != nil {
		return 0, err
	}
	var answer struct {
		Count string `json:"count"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || code != http.StatusOK {
		return 0, errors.Join(fmt.Errorf("etcd answered %d %s", code, body), err)
	}
	if answer.Count == "" {
		return 0, nil
	}
	return strconv.ParseInt(answer.Count, 10, 64)
}

// argument is the value of a process's argument.
func argument(pid int, name string) (string, error) {
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return "", err
	}
	words := strings.Split(string(command), "\x00")
	for i, word := range words {
		if word == name && i+1 < len(words) {
			return words[i+1], nil
		}
	}
	return "", fmt.Errorf("process %d was started without %s", pid, name)
}
