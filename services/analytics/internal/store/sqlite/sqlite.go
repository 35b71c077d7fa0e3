// Package sqlite stores analytics in one SQLite file, the embedded default. It owns the tables of the file. They have the names and
// columns of those in Azure Data Explorer; times are microseconds since 1970.
//
// One goroutine writes. All appends that wait for it share one transaction, so many small appends cost one write to the disk. A
// transaction is on the disk before its callers return (synchronous=FULL), so neither a killed process nor a power cut loses stored
// rows or leaves half a batch. Several processes may use one file; whether an event is new is then exact for all of them. An event
// whose row has expired is new again.
package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"sync"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"waybill/contracts"
	"waybill/platform/health"
	"waybill/services/analytics/internal/store"
)

const (
	version = 1

	// chunk is the number of events in one insert statement: few calls, and well below SQLite's 32,766 parameters.
	chunk = 64
	// batch is the most rows of one transaction, page the most rows of one read, so that neither delays the other or the
	// checkpoint of the log.
	batch = 20_000
	page  = 2_000
	// expire is the number of rows that one step of expiry removes.
	expire = 2_000
	// queued is the number of writers in the queue; further writers wait to enter it.
	queued = 256
)

const schema = `
CREATE TABLE IF NOT EXISTS AnalyticsEvents (
	Seq         INTEGER PRIMARY KEY, -- the order of arrival
	EventId     TEXT NOT NULL UNIQUE,
	EventType   TEXT NOT NULL,
	Timestamp   INTEGER NOT NULL,
	UserId      TEXT NOT NULL,
	SessionId   TEXT NOT NULL,
	ProductId   TEXT NOT NULL,
	Value       REAL NOT NULL,
	Properties  TEXT NOT NULL,
	ProcessedAt INTEGER NOT NULL
) STRICT;
-- Answers the top products without the rows themselves, and finds where to begin and what to expire.
CREATE INDEX IF NOT EXISTS AnalyticsEventsByTime ON AnalyticsEvents (Timestamp, EventType, ProductId, Value);

CREATE TABLE IF NOT EXISTS RealtimeMetrics (
	MetricName TEXT NOT NULL,
	Window     TEXT NOT NULL,
	Timestamp  INTEGER NOT NULL,
	Count      INTEGER NOT NULL,
	Sum        REAL NOT NULL,
	Mean       REAL NOT NULL,
	Median     REAL NOT NULL,
	Min        REAL NOT NULL,
	Max        REAL NOT NULL,
	StdDev     REAL NOT NULL,
	P95        REAL NOT NULL,
	P99        REAL NOT NULL,
	ComputedAt INTEGER NOT NULL,
	PRIMARY KEY (MetricName, Window, Timestamp)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS RealtimeMetricsByTime ON RealtimeMetrics (Timestamp);

CREATE TABLE IF NOT EXISTS Anomalies (
	AnomalyId TEXT PRIMARY KEY,
	Type      TEXT NOT NULL,
	ProductId TEXT NOT NULL,
	Expected  REAL NOT NULL,
	Seen      REAL NOT NULL,
	Score     REAL NOT NULL,
	Sentence  TEXT NOT NULL,
	Timestamp INTEGER NOT NULL,
	UpdatedAt INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS AnomaliesByTime ON Anomalies (Timestamp, AnomalyId);
CREATE INDEX IF NOT EXISTS AnomaliesByProduct ON Anomalies (ProductId, Timestamp, AnomalyId);
`

// ErrClosed is the error of a closed store.
var ErrClosed = errors.New("the store is closed")

// Store is a store.Store and a store.Expirer in one file.
type Store struct {
	write *sql.DB
	read  *sql.DB

	mu     sync.RWMutex // orders closing after the last job that was taken
	closed bool
	jobs   chan *job
	writer sync.WaitGroup
	stmts  statements
	writes *health.Probe
}

var (
	_ store.Store   = (*Store)(nil)
	_ store.Expirer = (*Store)(nil)
)

// job is one caller's part of a transaction.
type job struct {
	ctx  context.Context
	rows int
	do   func(ctx context.Context, tx *tx) error
	done chan error
}

type statements struct {
	insert64, insert1, last, since, metric, anomaly *sql.Stmt
}

// tx is an open transaction with the prepared statements.
type tx struct {
	*sql.Tx
	insert64, insert1, last, since, metric, anomaly *sql.Stmt
}

// Open opens the file and creates it if it does not exist; its folder must exist.
func Open(ctx context.Context, path string) (*Store, error) {
	s := &Store{jobs: make(chan *job, queued)}
	s.writes = health.NewProbe(s.tryWrite)
	var err error
	if s.write, err = sql.Open("sqlite", dsn(path, "journal_mode(WAL)", "synchronous(FULL)", "cache_size(-65536)", "temp_store(MEMORY)", "wal_autocheckpoint(4000)")); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s.write.SetMaxOpenConns(1)
	if s.read, err = sql.Open("sqlite", dsn(path, "query_only(1)")); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), s.write.Close())
	}
	s.read.SetMaxOpenConns(4)
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), s.read.Close(), s.write.Close())
	}
	s.writer.Go(s.run)
	return s, nil
}

func dsn(path string, pragmas ...string) string {
	// The busy timeout is first, because the other settings may meet another process's lock.
	q := url.Values{"_pragma": append([]string{"busy_timeout(15000)"}, pragmas...), "_txlock": {"immediate"}}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

func (s *Store) prepare(ctx context.Context) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to roll back, and without one the file is as before
	var have int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return fmt.Errorf("read the version: %w", err)
	}
	if have > version {
		return fmt.Errorf("the file has version %d, and this program knows %d", have, version)
	}
	if have < version {
		if _, err := tx.ExecContext(ctx, schema+fmt.Sprintf("PRAGMA user_version = %d;", version)); err != nil {
			return fmt.Errorf("make the tables: %w", err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	for _, p := range []struct {
		to   **sql.Stmt
		text string
	}{
		{&s.stmts.insert64, insertEvents(chunk)},
		{&s.stmts.insert1, insertEvents(1)},
		{&s.stmts.last, "SELECT coalesce(max(Seq), 0) FROM AnalyticsEvents"},
		{&s.stmts.since, "SELECT EventId FROM AnalyticsEvents WHERE Seq > ?"},
		{&s.stmts.metric, `INSERT INTO RealtimeMetrics
	(MetricName, Window, Timestamp, Count, Sum, Mean, Median, Min, Max, StdDev, P95, P99, ComputedAt)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
	ON CONFLICT DO UPDATE SET Count = excluded.Count, Sum = excluded.Sum, Mean = excluded.Mean, Median = excluded.Median,
		Min = excluded.Min, Max = excluded.Max, StdDev = excluded.StdDev, P95 = excluded.P95, P99 = excluded.P99,
		ComputedAt = excluded.ComputedAt
	WHERE excluded.ComputedAt > RealtimeMetrics.ComputedAt`},
		{&s.stmts.anomaly, `INSERT INTO Anomalies
	(AnomalyId, Type, ProductId, Expected, Seen, Score, Sentence, Timestamp, UpdatedAt)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
	ON CONFLICT DO UPDATE SET Type = excluded.Type, ProductId = excluded.ProductId, Expected = excluded.Expected,
		Seen = excluded.Seen, Score = excluded.Score, Sentence = excluded.Sentence, Timestamp = excluded.Timestamp,
		UpdatedAt = excluded.UpdatedAt
	WHERE excluded.UpdatedAt > Anomalies.UpdatedAt`},
	} {
		if *p.to, err = s.write.PrepareContext(ctx, p.text); err != nil { //nolint:sqlclosecheck // they end with the database
			return fmt.Errorf("prepare: %w", err)
		}
	}
	return nil
}

// insertEvents uses OR FAIL: a statement that may fail half-way without being rolled back needs no statement journal. The caller
// rolls the whole transaction back after an error.
func insertEvents(rows int) string {
	text := []byte(`INSERT OR FAIL INTO AnalyticsEvents (EventId, EventType, Timestamp, UserId, SessionId, ProductId, Value, Properties, ProcessedAt) VALUES `)
	for i := range rows {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(text, "(?,?,?,?,?,?,?,?,?)"...)
	}
	return string(append(text, " ON CONFLICT (EventId) DO NOTHING"...))
}

// submit gives do to the writer and waits until it is stored. do runs in a transaction that it may share with others.
func (s *Store) submit(ctx context.Context, rows int, do func(ctx context.Context, tx *tx) error) error {
	j := &job{ctx: ctx, rows: rows, do: do, done: make(chan error, 1)}
	if err := s.enqueue(ctx, j); err != nil {
		return err
	}
	// ctx does not end the wait: until the writer is done, it reads the caller's rows.
	return <-j.done
}

func (s *Store) enqueue(ctx context.Context, j *job) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	select {
	case s.jobs <- j:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run is the writer. When the store closes it finishes the queue and ends.
func (s *Store) run() {
	for first := range s.jobs {
		jobs, rows := []*job{first}, first.rows
		for waiting := true; waiting && rows < batch; {
			select {
			case j, ok := <-s.jobs:
				if waiting = ok; ok {
					jobs = append(jobs, j)
					rows += j.rows
				}
			default:
				waiting = false
			}
		}
		s.commit(jobs)
	}
}

// commit runs the jobs in one transaction and reports the result to each. Its context is not that of a caller: a caller that
// leaves does not affect the others.
func (s *Store) commit(jobs []*job) {
	live := make([]*job, 0, len(jobs))
	for _, j := range jobs {
		if err := j.ctx.Err(); err != nil {
			j.done <- err
			continue
		}
		live = append(live, j)
	}
	if len(live) == 0 {
		return
	}
	err := s.transact(context.Background(), live)
	if slices.ContainsFunc(live, func(j *job) bool { return j.rows > 0 }) { // tryWrite has none
		s.writes.Used(err)
	}
	for _, j := range live {
		j.done <- err
	}
}

func (s *Store) transact(ctx context.Context, jobs []*job) error {
	opened, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer opened.Rollback() //nolint:errcheck // after a commit there is nothing to roll back, and without one the file is as before
	t := &tx{
		Tx:       opened,
		insert64: opened.StmtContext(ctx, s.stmts.insert64),
		insert1:  opened.StmtContext(ctx, s.stmts.insert1),
		last:     opened.StmtContext(ctx, s.stmts.last),
		since:    opened.StmtContext(ctx, s.stmts.since),
		metric:   opened.StmtContext(ctx, s.stmts.metric),
		anomaly:  opened.StmtContext(ctx, s.stmts.anomaly),
	}
	for _, j := range jobs {
		if err := j.do(ctx, t); err != nil {
			return err
		}
	}
	if err := opened.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// Writable returns an error if nothing can be stored now. The result of the last write is valid for ten seconds; after that it
// makes a small write.
func (s *Store) Writable(ctx context.Context) error { return s.writes.Check(ctx) }

// tryWrite writes the schema version again. It waits in the queue like every writer, and ends with its context even if the disk
// does not respond.
func (s *Store) tryWrite(ctx context.Context) error {
	j := &job{ctx: ctx, done: make(chan error, 1), do: func(ctx context.Context, tx *tx) error {
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", version))
		return err
	}}
	if err := s.enqueue(ctx, j); err != nil {
		return err
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// refused marks an error with store.ErrInvalid if SQLite refuses the values themselves.
func refused(err error) error {
	const primary = 0xff // the other bits say more of the same
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & primary {
		case sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH:
			return fmt.Errorf("%w: %w", store.ErrInvalid, err)
		}
	}
	return err
}

// Append implements store.Store.
func (s *Store) Append(ctx context.Context, events []store.Event) ([]bool, error) {
	if err := store.CheckAll(events); err != nil {
		return nil, err
	}
	fresh := make([]bool, len(events))
	// A large batch is stored in several transactions.
	for at := 0; at < len(events); at += batch {
		end := min(at+batch, len(events))
		if err := s.submit(ctx, end-at, func(ctx context.Context, tx *tx) error {
			return tx.append(ctx, events[at:end], fresh[at:end])
		}); err != nil {
			return nil, fmt.Errorf("append %d events: %w", len(events), err)
		}
	}
	return fresh, nil
}

func (t *tx) append(ctx context.Context, events []store.Event, fresh []bool) error {
	var last int64
	if err := t.last.QueryRowContext(ctx).Scan(&last); err != nil {
		return fmt.Errorf("read the last place: %w", err)
	}
	var stored int64
	args := make([]any, 0, chunk*9)
	for rest := events; len(rest) > 0; {
		stmt, n := t.insert1, 1
		if len(rest) >= chunk {
			stmt, n = t.insert64, chunk
		}
		args = args[:0]
		for i := range rest[:n] {
			e := &rest[i]
			properties := "{}"
			if len(e.Properties) > 0 {
				properties = string(e.Properties)
			}
			args = append(args, e.ID, e.Type, e.Timestamp.UnixMicro(), e.UserID, e.SessionID, e.ProductID, e.Value, properties, e.ProcessedAt.UnixMicro())
		}
		done, err := stmt.ExecContext(ctx, args...)
		if err != nil {
			return fmt.Errorf("insert: %w", refused(err))
		}
		changed, err := done.RowsAffected()
		if err != nil {
			return fmt.Errorf("insert: %w", err)
		}
		stored += changed
		rest = rest[n:]
	}
	if stored == int64(len(events)) {
		for i := range fresh {
			fresh[i] = true
		}
		return nil
	}
	if stored == 0 {
		return nil
	}
	// Nobody else writes within this transaction, so the rows behind the last place are those that were new.
	rows, err := t.since.QueryContext(ctx, last)
	if err != nil {
		return fmt.Errorf("read what is new: %w", err)
	}
	ids, err := collect(rows, int(stored), func(rows *sql.Rows) (id string, err error) { return id, rows.Scan(&id) })
	if err != nil {
		return fmt.Errorf("read what is new: %w", err)
	}
	added := make(map[string]bool, len(ids))
	for _, id := range ids {
		added[id] = true
	}
	for i := range events {
		fresh[i] = added[events[i].ID]
		delete(added, events[i].ID)
	}
	return nil
}

// PutMetrics is store.Store's.
func (s *Store) PutMetrics(ctx context.Context, metrics []store.Metric) error {
	if err := store.CheckAll(metrics); err != nil {
		return err
	}
	for part := range slices.Chunk(metrics, batch) {
		if err := s.submit(ctx, len(part), func(ctx context.Context, tx *tx) error {
			for i := range part {
				m := &part[i]
				if _, err := tx.metric.ExecContext(ctx, m.Name, m.Window, m.Timestamp.UnixMicro(), m.Count, m.Sum, m.Mean, m.Median,
					m.Min, m.Max, m.StdDev, m.P95, m.P99, m.ComputedAt.UnixMicro()); err != nil {
					return fmt.Errorf("insert: %w", refused(err))
				}
			}
			return nil
		}); err != nil {
			return fmt.Errorf("put %d metrics: %w", len(metrics), err)
		}
	}
	return nil
}

// PutAnomalies is store.Store's.
func (s *Store) PutAnomalies(ctx context.Context, anomalies []store.Anomaly) error {
	if err := store.CheckAll(anomalies); err != nil {
		return err
	}
	for part := range slices.Chunk(anomalies, batch) {
		if err := s.submit(ctx, len(part), func(ctx context.Context, tx *tx) error {
			for i := range part {
				a := &part[i]
				if _, err := tx.anomaly.ExecContext(ctx, a.ID, a.Type, a.ProductID, a.Expected, a.Seen, a.Score, a.Sentence,
					a.Timestamp.UnixMicro(), a.UpdatedAt.UnixMicro()); err != nil {
					return fmt.Errorf("insert: %w", refused(err))
				}
			}
			return nil
		}); err != nil {
			return fmt.Errorf("put %d anomalies: %w", len(anomalies), err)
		}
	}
	return nil
}

// Events is store.Store's.
func (s *Store) Events(ctx context.Context, since time.Time) iter.Seq2[store.Event, error] {
	return func(yield func(store.Event, error) bool) {
		from := since.UnixMicro()
		var next sql.NullInt64
		// The plus makes SQLite search the index over time, and not the whole table for its first row that fits.
		if err := s.read.QueryRowContext(ctx, "SELECT min(+Seq) FROM AnalyticsEvents WHERE Timestamp >= ?", from).Scan(&next); err != nil {
			yield(store.Event{}, fmt.Errorf("read events: %w", err))
			return
		}
		for next.Valid {
			// This one keeps it from that index, which has another order.
			rows, err := s.read.QueryContext(ctx, `SELECT Seq, EventId, EventType, Timestamp, UserId, SessionId, ProductId, Value, Properties, ProcessedAt
				FROM AnalyticsEvents WHERE Seq >= ? AND +Timestamp >= ? ORDER BY Seq LIMIT ?`, next.Int64, from, page)
			if err != nil {
				yield(store.Event{}, fmt.Errorf("read events: %w", err))
				return
			}
			var last int64
			events, err := collect(rows, page, func(rows *sql.Rows) (e store.Event, err error) {
				var at, processed int64
				var properties []byte
				err = rows.Scan(&last, &e.ID, &e.Type, &at, &e.UserID, &e.SessionID, &e.ProductID, &e.Value, &properties, &processed)
				e.Timestamp, e.ProcessedAt, e.Properties = instant(at), instant(processed), properties
				return e, err
			})
			if err != nil {
				yield(store.Event{}, fmt.Errorf("read events: %w", err))
				return
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
			if len(events) < page {
				return
			}
			next.Int64 = last + 1
		}
	}
}

// Series is store.Store's.
func (s *Store) Series(ctx context.Context, q store.SeriesQuery) ([]store.Metric, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	rows, err := s.read.QueryContext(ctx, `SELECT MetricName, Window, Timestamp, Count, Sum, Mean, Median, Min, Max, StdDev, P95, P99, ComputedAt
		FROM RealtimeMetrics WHERE MetricName = ? AND Window = ? AND Timestamp >= ? AND Timestamp < ?
		ORDER BY Timestamp DESC LIMIT ?`, q.Name, q.Window, q.From.UnixMicro(), q.To.UnixMicro(), q.Limit)
	if err != nil {
		return nil, fmt.Errorf("read metric %s: %w", q.Name, err)
	}
	metrics, err := collect(rows, q.Limit, func(rows *sql.Rows) (m store.Metric, err error) {
		var at, computed int64
		err = rows.Scan(&m.Name, &m.Window, &at, &m.Count, &m.Sum, &m.Mean, &m.Median, &m.Min, &m.Max, &m.StdDev, &m.P95, &m.P99, &computed)
		m.Timestamp, m.ComputedAt = instant(at), instant(computed)
		return m, err
	})
	if err != nil {
		return nil, fmt.Errorf("read metric %s: %w", q.Name, err)
	}
	slices.Reverse(metrics)
	return metrics, nil
}

// top holds the question for each rank.
var top = map[store.Rank]string{store.ByViews: topBy("Views"), store.ByPurchases: topBy("Purchases"), store.ByRevenue: topBy("Revenue")}

func topBy(column string) string {
	return fmt.Sprintf(`SELECT ProductId,
			sum(EventType = ?1) AS Views, sum(EventType = ?2) AS Purchases, sum(CASE EventType WHEN ?2 THEN Value ELSE 0.0 END) AS Revenue
		FROM AnalyticsEvents
		WHERE Timestamp >= ?3 AND Timestamp < ?4 AND EventType IN (?1, ?2) AND ProductId <> ''
		GROUP BY ProductId HAVING %[1]s > 0 ORDER BY %[1]s DESC, ProductId LIMIT ?5`, column)
}

// TopProducts is store.Store's.
func (s *Store) TopProducts(ctx context.Context, q store.TopQuery) ([]store.Product, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	rows, err := s.read.QueryContext(ctx, top[q.By],
		contracts.TypeProductViewed, contracts.TypeProductPurchased, q.From.UnixMicro(), q.To.UnixMicro(), q.Limit)
	if err != nil {
		return nil, fmt.Errorf("read the top products: %w", err)
	}
	products, err := collect(rows, q.Limit, func(rows *sql.Rows) (p store.Product, err error) {
		return p, rows.Scan(&p.ID, &p.Views, &p.Purchases, &p.Revenue)
	})
	if err != nil {
		return nil, fmt.Errorf("read the top products: %w", err)
	}
	return products, nil
}

// Anomalies is store.Store's.
func (s *Store) Anomalies(ctx context.Context, q store.AnomalyQuery) ([]store.Anomaly, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	text, args := "SELECT AnomalyId, Type, ProductId, Expected, Seen, Score, Sentence, Timestamp, UpdatedAt FROM Anomalies WHERE TRUE", []any(nil)
	if q.After != nil {
		at := q.After.Timestamp.UnixMicro()
		// Newest first, and by id within one time: the second half of the condition is not the mirror of the first.
		text, args = text+" AND Timestamp <= ? AND (Timestamp < ? OR AnomalyId > ?)", append(args, at, at, q.After.ID)
	}
	if q.ProductID != "" {
		text, args = text+" AND ProductId = ?", append(args, q.ProductID)
	}
	if q.Type != "" {
		text, args = text+" AND Type = ?", append(args, q.Type)
	}
	rows, err := s.read.QueryContext(ctx, text+" ORDER BY Timestamp DESC, AnomalyId LIMIT ?", append(args, q.Limit)...)
	if err != nil {
		return nil, fmt.Errorf("read anomalies: %w", err)
	}
	anomalies, err := collect(rows, q.Limit, func(rows *sql.Rows) (a store.Anomaly, err error) {
		var at, updated int64
		err = rows.Scan(&a.ID, &a.Type, &a.ProductID, &a.Expected, &a.Seen, &a.Score, &a.Sentence, &at, &updated)
		a.Timestamp, a.UpdatedAt = instant(at), instant(updated)
		return a, err
	})
	if err != nil {
		return nil, fmt.Errorf("read anomalies: %w", err)
	}
	return anomalies, nil
}

// Counts is store.Store's.
func (s *Store) Counts(ctx context.Context) (store.Counts, error) {
	var c store.Counts
	err := s.read.QueryRowContext(ctx, "SELECT (SELECT count(*) FROM AnalyticsEvents), (SELECT count(*) FROM RealtimeMetrics), (SELECT count(*) FROM Anomalies)").
		Scan(&c.Events, &c.Metrics, &c.Anomalies)
	if err != nil {
		return store.Counts{}, fmt.Errorf("count: %w", err)
	}
	return c, nil
}

// Expire is store.Expirer's. The space of removed rows is used again; the file does not shrink.
func (s *Store) Expire(ctx context.Context, before store.Expiry) (store.Counts, error) {
	var gone store.Counts
	for _, part := range []struct {
		before time.Time
		text   string
		gone   *int64
	}{
		{before.Events, "DELETE FROM AnalyticsEvents WHERE Seq IN (SELECT Seq FROM AnalyticsEvents WHERE Timestamp < ? ORDER BY Timestamp LIMIT ?)", &gone.Events},
		{before.Metrics, `DELETE FROM RealtimeMetrics WHERE (MetricName, Window, Timestamp) IN
			(SELECT MetricName, Window, Timestamp FROM RealtimeMetrics WHERE Timestamp < ? ORDER BY Timestamp LIMIT ?)`, &gone.Metrics},
		{before.Anomalies, "DELETE FROM Anomalies WHERE AnomalyId IN (SELECT AnomalyId FROM Anomalies WHERE Timestamp < ? ORDER BY Timestamp LIMIT ?)", &gone.Anomalies},
	} {
		for n := int64(expire); !part.before.IsZero() && n == expire; {
			// A step fills a transaction, so that those who wait are served between two steps.
			err := s.submit(ctx, batch, func(ctx context.Context, tx *tx) error {
				done, err := tx.ExecContext(ctx, part.text, part.before.UnixMicro(), expire)
				if err != nil {
					return err
				}
				n, err = done.RowsAffected()
				return err
			})
			if err != nil {
				return gone, fmt.Errorf("expire: %w", err)
			}
			*part.gone += n
		}
	}
	return gone, nil
}

// Close stores what waits in line, and closes the file. It may be called again.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.jobs)
	s.mu.Unlock()
	s.writer.Wait()
	return errors.Join(s.read.Close(), s.write.Close())
}

func collect[T any](rows *sql.Rows, expected int, scan func(*sql.Rows) (T, error)) (all []T, err error) {
	defer func() { err = cmp.Or(err, rows.Close()) }()
	all = make([]T, 0, min(expected, page))
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

func instant(micros int64) time.Time { return time.UnixMicro(micros).UTC() }
