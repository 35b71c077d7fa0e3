package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"waybill/platform/retryable"
	"waybill/platform/state"
)

// Pending is a durable set of ids: those of the records that are not known to have reached their end. A process that starts
// finds in it what earlier processes left. Many goroutines may use it, and many processes at once if each has its own
// writer name: every writer appends to its own pages, so writers do not conflict.
//
// Pending is at-least-once. It may hold an id more than once, an id that is done, and an id whose Add failed. It never loses
// an id that was added and is not done. An id that is added again after it was done is a new id, also while a Visit is
// removing the old one.
type Pending struct {
	store        state.Store
	name, writer string

	mu   sync.Mutex
	next *batch // the ids of the next write

	writing chan struct{} // a semaphore for one writer; it guards the fields below
	page    int           // the number of the page that this writer appends to
	// listed: the page is in the directory. written: the page was written, so it is missing only if it was closed long ago.
	listed, written bool
}

// batch is the ids of one write, and its outcome.
type batch struct {
	ids  []string
	done chan struct{}
	err  error
}

const (
	// pageSize is the number of ids that fill a page. The write that fills it may add as many again.
	pageSize = 200
	// writeTimeout bounds one write, also when every caller has left.
	writeTimeout = 10 * time.Second
	// closedTTL is how long the document of a closed page stays. It is far longer than a write can last, so a late write
	// to the page always finds the mark.
	closedTTL = time.Hour
	// maxUnreadable bounds the number of errors about unreadable documents that one Visit or one pass returns.
	maxUnreadable = 10
)

// The stored documents. The directory lists the pages that may hold ids. A page is listed before its first write, and
// leaves the directory after it was closed. A closed page stays closed; its writer sees the mark and starts a new page.
type (
	directory struct {
		Pages []string `json:"pages"`
	}
	page struct {
		Entries []entry `json:"entries"`
		// Taken is the number of ids that were ever added to the page.
		Taken  int  `json:"taken"`
		Closed bool `json:"retired,omitempty"`
	}
	// entry is one addition of an id. N is unique in the page, so removing one addition leaves later ones of the same id.
	entry struct {
		N  int    `json:"n"`
		ID string `json:"id"`
	}
)

func (p page) full() bool { return p.Taken >= pageSize }

// NewPending returns the pending set of that name in s. No other process may ever have had the writer name; a new ULID is
// a good one. Neither name may contain a colon.
func NewPending(s state.Store, name, writer string) *Pending {
	return &Pending{store: s, name: name, writer: writer, writing: make(chan struct{}, 1)}
}

func (p *Pending) directoryKey() string { return "backlog:" + p.name }

func (p *Pending) pageKey() string {
	return "backlog:" + p.name + ":" + p.writer + ":" + strconv.Itoa(p.page)
}

// Add stores ids. Calls that come during a write share the next write, which one of them makes for all. That write ends
// after ten seconds, not with ctx.
func (p *Pending) Add(ctx context.Context, ids ...string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("add to pending set %s: %w: %w", p.name, state.ErrUnavailable, err)
	}
	p.mu.Lock()
	if p.next == nil {
		p.next = &batch{done: make(chan struct{})}
	}
	mine := p.next
	mine.ids = append(mine.ids, ids...)
	p.mu.Unlock()
	select {
	case <-mine.done:
	case p.writing <- struct{}{}:
		p.flush(ctx, mine)
		<-p.writing
	case <-ctx.Done():
		// Another waiting Add writes the ids, or the next Add does.
		return fmt.Errorf("add to pending set %s: %w: %w", p.name, state.ErrUnavailable, ctx.Err())
	}
	return mine.err
}

// flush writes the batch, unless another goroutine wrote it before it released the semaphore.
func (p *Pending) flush(ctx context.Context, b *batch) {
	p.mu.Lock()
	flushed := p.next != b
	if !flushed {
		p.next = nil
	}
	p.mu.Unlock()
	if flushed {
		return
	}
	defer close(b.done)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	for ids := range slices.Chunk(b.ids, pageSize) {
		if err := p.append(ctx, ids); err != nil {
			// The state of the page is unknown. A Visit will find it.
			p.startPage()
			b.err = fmt.Errorf("add to pending set %s: %w", p.name, err)
			return
		}
	}
}

func (p *Pending) startPage() { p.page, p.listed, p.written = p.page+1, false, false }

var errPageClosed = errors.New("the page is closed")

func (p *Pending) append(ctx context.Context, ids []string) error {
	for {
		if !p.listed {
			// List the page before its first write: a page that is not listed is never found.
			if err := p.list(ctx, p.pageKey()); err != nil {
				return err
			}
			p.listed = true
		}
		_, err := state.Update(ctx, p.store, p.pageKey(), func(doc *page, exists bool) error {
			if doc.full() || doc.Closed || p.written && !exists {
				return errPageClosed
			}
			for _, id := range ids {
				doc.Entries = append(doc.Entries, entry{doc.Taken, id})
				doc.Taken++
			}
			return nil
		})
		if !errors.Is(err, errPageClosed) {
			p.written = true
			return err
		}
		p.startPage()
	}
}

func (p *Pending) list(ctx context.Context, key string) error {
	_, err := state.Update(ctx, p.store, p.directoryKey(), func(d *directory, _ bool) error {
		if slices.Contains(d.Pages, key) {
			return state.ErrUnchanged
		}
		d.Pages = append(d.Pages, key)
		return nil
	})
	return err
}

// Visit calls visit with the ids of every page, oldest page first. It removes the ids that visit returns as done, also if
// visit returns an error too. The first error ends it, except a state.ErrUnreadable: Visit goes on with the other pages and
// returns that error at the end. Visit may miss an id that is added meanwhile. If several Visits run at once, each visits
// every id.
func (p *Pending) Visit(ctx context.Context, visit func(ctx context.Context, ids []string) (done []string, err error)) error {
	var d directory
	if _, err := p.store.Get(ctx, p.directoryKey(), &d); err != nil {
		if errors.Is(err, state.ErrNotFound) {
			return nil
		}
		if errors.Is(err, state.ErrUnreadable) {
			return fmt.Errorf("read pending set %s: %v", p.name, err) //nolint:errorlint // without its directory no page is found, so the others were not visited
		}
		return fmt.Errorf("read pending set %s: %w", p.name, err)
	}
	var unreadable []error
	for _, key := range d.Pages {
		err := p.visitPage(ctx, key, visit)
		switch {
		case err == nil:
		case retryable.Is(err) || !errors.Is(err, state.ErrUnreadable):
			return join(err, unreadable)
		default:
			unreadable = append(unreadable, err)
		}
	}
	return join(nil, unreadable)
}

// join puts err before some of the errors about unreadable documents: the first one decides whether the result is retryable.
func join(err error, unreadable []error) error {
	return errors.Join(append([]error{err}, unreadable[:min(len(unreadable), maxUnreadable)]...)...)
}

func (p *Pending) visitPage(ctx context.Context, key string, visit func(ctx context.Context, ids []string) (done []string, err error)) error {
	var found page
	// A missing page was listed and not written: its writer died, or will write it soon.
	if _, err := p.store.Get(ctx, key, &found); err != nil && !errors.Is(err, state.ErrNotFound) {
		return fmt.Errorf("read pending set %s: %w", p.name, err)
	}
	left := found
	var visitErr error
	if len(found.Entries) > 0 {
		ids := make([]string, len(found.Entries))
		for i, e := range found.Entries {
			ids[i] = e.ID
		}
		var done []string
		done, visitErr = visit(ctx, ids)
		var err error
		if left, err = p.remove(ctx, key, found, done); err != nil {
			return errors.Join(fmt.Errorf("remove from pending set %s: %w", p.name, err), visitErr)
		}
	}
	// Close a page that is not full only if a Visit finds it empty: its writer will probably add to it.
	if len(left.Entries) == 0 && (left.full() || len(found.Entries) == 0) {
		if err := p.close(ctx, key); err != nil {
			return errors.Join(fmt.Errorf("close a page of pending set %s: %w", p.name, err), visitErr)
		}
	}
	return visitErr
}

// remove removes from the page those entries of found whose ids are done, and returns the new page.
func (p *Pending) remove(ctx context.Context, key string, found page, done []string) (page, error) {
	if len(done) == 0 {
		return found, nil
	}
	removed := map[int]bool{}
	for _, e := range found.Entries {
		if slices.Contains(done, e.ID) {
			removed[e.N] = true
		}
	}
	return state.Update(ctx, p.store, key, func(doc *page, _ bool) error {
		before := len(doc.Entries)
		doc.Entries = slices.DeleteFunc(doc.Entries, func(e entry) bool { return removed[e.N] })
		if len(doc.Entries) == before {
			return state.ErrUnchanged
		}
		return nil
	})
}

// close closes an empty page and removes it from the directory. If this process dies between the two writes, a later Visit
// finds the page closed or missing, and finishes.
func (p *Pending) close(ctx context.Context, key string) error {
	doc, err := state.Update(ctx, p.store, key, func(doc *page, _ bool) error {
		if doc.Closed || len(doc.Entries) > 0 {
			return state.ErrUnchanged
		}
		doc.Closed = true
		return nil
	}, state.TTL(closedTTL))
	if err != nil || !doc.Closed {
		return err
	}
	_, err = state.Update(ctx, p.store, p.directoryKey(), func(d *directory, _ bool) error {
		before := len(d.Pages)
		if d.Pages = slices.DeleteFunc(d.Pages, func(page string) bool { return page == key }); len(d.Pages) == before {
			return state.ErrUnchanged
		}
		return nil
	})
	return err
}
