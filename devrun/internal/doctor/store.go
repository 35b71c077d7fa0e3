package doctor

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	_ "modernc.org/sqlite" // reads the files of Dapr's state stores

	"waybill/contracts"
)

// store is one SQLite file of a Dapr state store, read only. It is read in pieces, so that the write-ahead log of a running
// system can be checkpointed, and so that memory does not grow with the store.
type store struct {
	app string
	db  *sql.DB
}

// errNoStore means that the file does not exist, or that Dapr created nothing in it.
var errNoStore = errors.New("there is no store")

func openStore(ctx context.Context, folder, app, component string) (*store, error) {
	path := filepath.Join(folder, app+"."+component+".db")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path, errNoStore)
	} else if err != nil {
		return nil, fmt.Errorf("look for %s: %w", path, err)
	}
	how := "mode=ro"
	if _, err := os.Stat(path + "-wal"); errors.Is(err, fs.ErrNotExist) {
		how = "immutable=1" // no process has it open, and reading leaves no files behind
	}
	db, err := sql.Open("sqlite", "file:"+path+"?"+how+"&_pragma=busy_timeout(10000)&_pragma=query_only(true)&_pragma=cache_size(-8000)")
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db.SetMaxOpenConns(2)
	s := &store{app, db}
	var tables int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'state'").Scan(&tables); err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", path, err), db.Close())
	}
	if tables == 0 {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, errNoStore), db.Close())
	}
	return s, nil
}

func (s *store) close() error { return s.db.Close() }

// decode decodes a document, or returns why it cannot.
func decode(s *store, r row, into any) *unreadable {
	if err := json.Unmarshal(r.value, into); err != nil {
		return &unreadable{s.app, r.key, err}
	}
	return nil
}

// row is one stored document.
type row struct {
	key     string // without the app's prefix
	value   []byte
	etag    string
	written time.Time
	expires bool
}

const (
	columns = "key, value, is_binary, etag, CAST(strftime('%s', update_time) AS INTEGER), expiration_time IS NOT NULL"
	alive   = "(expiration_time IS NULL OR expiration_time > CURRENT_TIMESTAMP)"
	// pieceRows is the number of documents that are read at once. The largest have about 130 KB.
	pieceRows = 200
)

func (s *store) scan(rows *sql.Rows) (row, error) {
	var (
		r       row
		binary  bool
		written sql.NullInt64
	)
	if err := rows.Scan(&r.key, &r.value, &binary, &r.etag, &written, &r.expires); err != nil {
		return r, fmt.Errorf("read the store of %s: %w", s.app, err)
	}
	r.key, r.written = strings.TrimPrefix(r.key, s.app+"||"), time.Unix(written.Int64, 0)
	if binary {
		if decoded, err := base64.StdEncoding.DecodeString(string(r.value)); err == nil {
			r.value = decoded
		}
	}
	return r, nil
}

func (s *store) query(ctx context.Context, query string, args ...any) (found []row, err error) {
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read the store of %s: %w", s.app, err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		r, err := s.scan(rows)
		if err != nil {
			return nil, err
		}
		found = append(found, r)
	}
	return found, rows.Err()
}

// get reads one document; false means that it does not exist.
func (s *store) get(ctx context.Context, key string) (row, bool, error) {
	found, err := s.query(ctx, "SELECT "+columns+" FROM state WHERE key = ? AND "+alive, s.app+"||"+key)
	if err != nil || len(found) == 0 {
		return row{}, false, err
	}
	return found[0], true, nil
}

// after reads the next piece of the documents whose keys begin with prefix, in the order of their keys.
func (s *store) after(ctx context.Context, prefix, last string) ([]row, error) {
	from := s.app + "||" + prefix
	return s.query(ctx, "SELECT "+columns+" FROM state WHERE key > ? AND key < ? AND "+alive+" ORDER BY key LIMIT ?",
		max(from, s.app+"||"+last), upTo(from), pieceRows)
}

// upTo is the first text behind all that begin with prefix.
func upTo(prefix string) string { return prefix[:len(prefix)-1] + string(prefix[len(prefix)-1]+1) }

// each calls visit for every document whose key begins with prefix.
func (s *store) each(ctx context.Context, prefix string, visit func(r row) error) error {
	for last := ""; ; {
		piece, err := s.after(ctx, prefix, last)
		if err != nil {
			return err
		}
		for _, r := range piece {
			if err := visit(r); err != nil {
				return err
			}
			last = r.key
		}
		if len(piece) < pieceRows {
			return nil
		}
	}
}

// vanish reports whether documents with this key prefix expire, and not within two days, as unconfirmed orders do.
func (s *store) vanish(ctx context.Context, prefix string) (bool, error) {
	from := s.app + "||" + prefix
	var n int
	err := s.db.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT 1 FROM state WHERE key > ? AND key < ? AND expiration_time > datetime('now', '+2 days') LIMIT 1)", from, upTo(from)).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("read the store of %s: %w", s.app, err)
	}
	return n > 0, nil
}

// newest is when the store was last written.
func (s *store) newest(ctx context.Context) (time.Time, error) {
	var at sql.NullInt64
	if err := s.db.QueryRowContext(ctx, "SELECT CAST(strftime('%s', max(update_time)) AS INTEGER) FROM state").Scan(&at); err != nil {
		return time.Time{}, fmt.Errorf("read the store of %s: %w", s.app, err)
	}
	return time.Unix(at.Int64, 0), nil
}

// cursor iterates over the documents of one kind, by id.
type cursor struct {
	store *store
	kind  string // with its colon
	piece []row
	last  string
	ended bool
}

// head is the cursor's document, false at the end.
func (c *cursor) head(ctx context.Context) (row, bool, error) {
	if len(c.piece) == 0 && !c.ended {
		piece, err := c.store.after(ctx, c.kind, c.last)
		if err != nil {
			return row{}, false, err
		}
		c.piece, c.ended = piece, len(piece) < pieceRows
		if len(piece) > 0 {
			c.last = piece[len(piece)-1].key
		}
	}
	if len(c.piece) == 0 {
		return row{}, false, nil
	}
	return c.piece[0], true, nil
}

func (c *cursor) next() { c.piece = c.piece[1:] }

// set is a set of texts by their hashes: eight bytes for each.
type set struct {
	hashes []uint64
	sorted bool
}

var seed = maphash.MakeSeed()

func (s *set) add(text string) {
	s.hashes, s.sorted = append(s.hashes, maphash.String(seed, text)), false
}

func (s *set) has(text string) bool {
	if !s.sorted {
		slices.Sort(s.hashes)
		s.hashes, s.sorted = slices.Clip(slices.Compact(s.hashes)), true
	}
	_, found := slices.BinarySearch(s.hashes, maphash.String(seed, text))
	return found
}

// backlog reads the ids of a pending set and calls each with them. It calls broken for what cannot be decoded.
func (s *store) backlog(ctx context.Context, name string, each func(id string), broken func(r row, err error)) error {
	var directory backlogDirectory
	r, there, err := s.get(ctx, "backlog:"+name)
	if err != nil || !there {
		return err
	}
	if err := json.Unmarshal(r.value, &directory); err != nil {
		broken(r, err)
		return nil
	}
	for _, key := range directory.Pages {
		r, there, err := s.get(ctx, key)
		if err != nil {
			return err
		}
		if !there {
			continue
		}
		var page backlogPage
		if err := json.Unmarshal(r.value, &page); err != nil {
			broken(r, err)
			continue
		}
		for _, e := range page.Entries {
			each(e.ID)
		}
	}
	return nil
}

// folder is the stores of a data folder.
type folder struct {
	path                               string
	orders, fulfillment, notifications *store // nil when missing
	analytics, engine                  *store
	missing                            []string
}

func openFolder(ctx context.Context, path string) (_ *folder, err error) {
	f := &folder{path: path}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if _, err := os.Stat(path); err != nil {
		return f, fmt.Errorf("there is no state: %w", err)
	}
	for _, s := range []struct {
		into           **store
		app, component string
	}{
		{&f.orders, contracts.AppOrders, contracts.StateStore}, {&f.fulfillment, contracts.AppFulfillment, contracts.StateStore},
		{&f.notifications, contracts.AppNotifications, contracts.StateStore}, {&f.analytics, contracts.AppAnalytics, contracts.StateStore},
		{&f.engine, contracts.AppFulfillment, contracts.WorkflowStore},
	} {
		opened, err := openStore(ctx, path, s.app, s.component)
		switch {
		case errors.Is(err, errNoStore):
			f.missing = append(f.missing, s.app+"."+s.component+".db")
		case err != nil:
			return f, err
		default:
			*s.into = opened
		}
	}
	return f, nil
}

func (f *folder) stores() []*store {
	return slices.DeleteFunc([]*store{f.orders, f.fulfillment, f.notifications, f.analytics, f.engine}, func(s *store) bool { return s == nil })
}

func (f *folder) close() (err error) {
	for _, s := range f.stores() {
		err = errors.Join(err, s.close())
	}
	return err
}

// instanceKey is where the workflow engine keeps that it has an instance. Its keys have no app prefix of the usual form.
func instanceKey(order string) string {
	return "dapr.internal.default." + contracts.AppFulfillment + ".workflow||" + order + "||metadata"
}
