// Package stored counts what a running system stores on this machine: the documents of its state stores by kind, and the
// scheduler's jobs. It works on Linux only.
package stored

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
	"regexp"
	"strconv"
	"strings"

	_ "modernc.org/sqlite" // reads the files of the state stores

	"waybill/tests/internal/client"
	"waybill/tests/internal/system"
)

// Records are the stored records of one kind.
type Records struct{ Rows, Bytes int64 }

// Jobs is the kind of the scheduler's jobs.
const Jobs = "scheduler/jobs"

// Count counts all stored records by their kind, such as orders.statestore/order.
func Count(ctx context.Context, s *system.System) (map[string]Records, error) {
	status, err := s.Status()
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(s.Data, "state", "*"))
	if err != nil {
		return nil, err
	}
	counts := map[string]Records{}
	for _, file := range files {
		if !strings.HasSuffix(file, ".db") && !strings.HasSuffix(file, ".sqlite") {
			continue
		}
		if err := countRows(ctx, file, counts); err != nil {
			return nil, fmt.Errorf("count the rows of %s: %w", file, err)
		}
	}
	pid, err := schedulerOf(status)
	if err != nil {
		return nil, err
	}
	n, err := countJobs(ctx, pid)
	if err != nil {
		return nil, fmt.Errorf("count the jobs of the scheduler: %w", err)
	}
	counts[Jobs] = Records{Rows: n}
	return counts, nil
}

func schedulerOf(status system.Status) (pid int, err error) {
	for _, p := range status.Processes {
		if p.Kind == "scheduler" {
			return p.PID, nil
		}
	}
	return 0, errors.New("no scheduler runs")
}

func countRows(ctx context.Context, file string, counts map[string]Records) (err error) {
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
		counts[store+"/"+table] = Records{Rows: n}
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

// countKeys counts the rows of a state store by the prefix of their keys.
func countKeys(ctx context.Context, db *sql.DB, store string, counts map[string]Records) (err error) {
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
		counts[kind] = Records{r.Rows + 1, r.Bytes + size}
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
	port, err := Argument(pid, "--etcd-client-port")
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

// Argument is the value of a process's argument.
func Argument(pid int, name string) (string, error) {
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

var triggerMetric = regexp.MustCompile(`(?m)^dapr_scheduler_jobs_triggered_total(?:\{[^}]*\})? ([0-9.e+]+)$`)

// Triggered is how many jobs the scheduler has triggered since it started.
func Triggered(ctx context.Context, s *system.System) (int64, error) {
	status, err := s.Status()
	if err != nil {
		return 0, err
	}
	pid, err := schedulerOf(status)
	if err != nil {
		return 0, err
	}
	port, err := Argument(pid, "--metrics-port")
	if err != nil {
		return 0, err
	}
	code, _, answer, err := client.Call(ctx, http.MethodGet, "http://127.0.0.1:"+port+"/metrics", nil)
	if err != nil || code != http.StatusOK {
		return 0, errors.Join(fmt.Errorf("the metrics of process %d: %d", pid, code), err)
	}
	found := triggerMetric.FindAllSubmatch(answer, -1)
	if len(found) == 0 {
		return 0, errors.New("the scheduler does not say how many jobs it triggered")
	}
	var sum float64
	for _, line := range found {
		n, err := strconv.ParseFloat(string(line[1]), 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return int64(sum), nil
}
