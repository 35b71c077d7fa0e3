package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"waybill/platform/retryable"
)

// Backlog remembers the ids of what is not known to be done, in a Store, so that a process which starts anew can find what
// an earlier one left. It may be used by many goroutines, and by many processes at once when each has a writer name of its
// own: every writer fills pages that nobody else adds to, so writers do not meet.
//
// A Backlog may hold an id more than once, one that is done, and one whose Add failed; it never loses one that was added
// and is not done. An id that is added again after it was done is as good as a new one, also while a Sweep is forgetting it.
type Backlog struct {
	store        Store
	name, writer string

	mu      sync.Mutex
	waiting *addition // the ids that the next write takes

	turn chan struct{} // holds something while somebody writes; the fields below are the writer's
	page int           // the page that this writer fills
	// listed says that the page is in the directory, begun that it was written, so that it is missing only when it was
	// retired long ago.
	listed, begun bool
}

// addition is one write's ids, and how it went.
type addition struct {
	ids  []string
	done chan struct{}
	err  error
}

const (
	// backlogPage is how many ids fill a page. The write that fills it may bring as many beyond.
	backlogPage = 200
	// backlogPatience bounds one write, whoever waits for it.
	backlogPatience = 10 * time.Second
	// backlogRetired is how long the document of a retired page stays: far longer than a write that is under way can last,
	// so that a new page's first write never finds the retired document gone.
	backlogRetired = time.Hour
)

// The directory lists the pages that may hold ids. A page is listed before it is first written, and leaves the directory
// after it was retired. Retired is for good: the page's writer looks for it with every write and goes on to its next page.
type (
	backlogDirectory struct {
		Pages []string `json:"pages"`
	}
	backlogContent struct {
		Entries []backlogEntry `json:"entries"`
		// Taken is how many ids the page ever took.
		Taken   int  `json:"taken"`
		Retired bool `json:"retired,omitempty"`
	}
	// backlogEntry is one addition of an id. No two of a page have the same number, so that forgetting an addition leaves
	// later ones of the same id alone.
	backlogEntry struct {
		N  int    `json:"n"`
		ID string `json:"id"`
	}
)

func (c backlogContent) full() bool { return c.Taken >= backlogPage }

// NewBacklog returns the backlog of that name in s. The writer's name must be one that no other process ever had, such as a
// new ULID; neither name may hold a colon.
func NewBacklog(s Store, name, writer string) *Backlog {
	return &Backlog{store: s, name: name, writer: writer, turn: make(chan struct{}, 1)}
}

func (b *Backlog) directoryKey() string { return "backlog:" + b.name }

func (b *Backlog) pageKey() string {
	return "backlog:" + b.name + ":" + b.writer + ":" + strconv.Itoa(b.page)
}

// Add returns when the ids are stored. Additions that arrive while another is being written share the next write, which any
// of them makes for all: it is not ended by ctx, but after ten seconds.
func (b *Backlog) Add(ctx context.Context, ids ...string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("add to backlog %s: %w: %w", b.name, ErrUnavailable, err)
	}
	b.mu.Lock()
	if b.waiting == nil {
		b.waiting = &addition{done: make(chan struct{})}
	}
	mine := b.waiting
	mine.ids = append(mine.ids, ids...)
	b.mu.Unlock()
	select {
	case <-mine.done:
	case b.turn <- struct{}{}:
		b.writeOut(ctx, mine)
		<-b.turn
	case <-ctx.Done():
		// Another waiting Add writes the ids, or the next Add.
		return fmt.Errorf("add to backlog %s: %w: %w", b.name, ErrUnavailable, ctx.Err())
	}
	return mine.err
}

// writeOut writes the addition unless another goroutine did, just before it gave up the turn.
func (b *Backlog) writeOut(ctx context.Context, a *addition) {
	b.mu.Lock()
	written := b.waiting != a
	if !written {
		b.waiting = nil
	}
	b.mu.Unlock()
	if written {
		return
	}
	defer close(a.done)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), backlogPatience)
	defer cancel()
	for ids := range slices.Chunk(a.ids, backlogPage) {
		if err := b.write(ctx, ids); err != nil {
			// What became of the page is not known, so it is left to the sweeps.
			b.turnPage()
			a.err = fmt.Errorf("add to backlog %s: %w", b.name, err)
			return
		}
	}
}

func (b *Backlog) turnPage() { b.page, b.listed, b.begun = b.page+1, false, false }

var errPageClosed = errors.New("the page takes no more ids")

func (b *Backlog) write(ctx context.Context, ids []string) error {
	for {
		if !b.listed {
			// Before the page is written: a page that nobody can find would lose its ids.
			if err := b.list(ctx, b.pageKey()); err != nil {
				return err
			}
			b.listed = true
		}
		_, err := Update(ctx, b.store, b.pageKey(), func(p *backlogContent, exists bool) error {
			if p.full() || p.Retired || b.begun && !exists {
				return errPageClosed
			}
			for _, id := range ids {
				p.Entries = append(p.Entries, backlogEntry{p.Taken, id})
				p.Taken++
			}
			return nil
		})
		if !errors.Is(err, errPageClosed) {
			b.begun = true
			return err
		}
		b.turnPage()
	}
}

func (b *Backlog) list(ctx context.Context, page string) error {
	_, err := Update(ctx, b.store, b.directoryKey(), func(d *backlogDirectory, _ bool) error {
		if slices.Contains(d.Pages, page) {
			return ErrUnchanged
		}
		d.Pages = append(d.Pages, page)
		return nil
	})
	return err
}

// Sweep shows visit the ids of every page, oldest page first, and forgets those that visit returns as done, also beside an
// error. It ends with the first error, except that an ErrUnreadable, of a page or of visit, does not keep it from the other
// pages: they are visited, and then it is returned. Ids that are added meanwhile may or may not be seen. Many may sweep at
// once; an id is then visited by more than one.
func (b *Backlog) Sweep(ctx context.Context, visit func(ctx context.Context, ids []string) (done []string, err error)) error {
	var directory backlogDirectory
	if _, err := b.store.Get(ctx, b.directoryKey(), &directory); err != nil {
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if errors.Is(err, ErrUnreadable) {
			return fmt.Errorf("read backlog %s: %v", b.name, err) //nolint:errorlint // without its directory no page is found, so the others were not visited
		}
		return fmt.Errorf("read backlog %s: %w", b.name, err)
	}
	var unreadable []error
	for _, page := range directory.Pages {
		err := b.sweepPage(ctx, page, visit)
		switch {
		case err == nil:
		case retryable.Is(err) || !errors.Is(err, ErrUnreadable):
			return errors.Join(append(unreadable, err)...)
		case len(unreadable) < maxUnreadable:
			unreadable = append(unreadable, err)
		}
	}
	return errors.Join(unreadable...)
}

// maxUnreadable is how many errors about documents that cannot be decoded a Sweep returns at most.
const maxUnreadable = 10

func (b *Backlog) sweepPage(ctx context.Context, page string, visit func(ctx context.Context, ids []string) (done []string, err error)) error {
	var content backlogContent
	// A missing page is one that was listed and not written: its writer died, or is about to.
	if _, err := b.store.Get(ctx, page, &content); err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("read backlog %s: %w", b.name, err)
	}
	left := content
	var visitErr error
	if len(content.Entries) > 0 {
		ids := make([]string, len(content.Entries))
		for i, entry := range content.Entries {
			ids[i] = entry.ID
		}
		var done []string
		done, visitErr = visit(ctx, ids)
		var err error
		if left, err = b.forget(ctx, page, content, done); err != nil {
			return errors.Join(visitErr, fmt.Errorf("tidy backlog %s: %w", b.name, err))
		}
	}
	// A page that is not full is retired only when a sweep finds it empty: its writer probably goes on with it.
	if len(left.Entries) == 0 && (left.full() || len(content.Entries) == 0) {
		if err := b.retire(ctx, page); err != nil {
			return errors.Join(visitErr, fmt.Errorf("tidy backlog %s: %w", b.name, err))
		}
	}
	return visitErr
}

// forget takes off the page what was seen there of the ids that are done, and returns what is left.
func (b *Backlog) forget(ctx context.Context, page string, seen backlogContent, done []string) (backlogContent, error) {
	if len(done) == 0 {
		return seen, nil
	}
	forgotten := map[int]bool{}
	for _, entry := range seen.Entries {
		if slices.Contains(done, entry.ID) {
			forgotten[entry.N] = true
		}
	}
	return Update(ctx, b.store, page, func(p *backlogContent, _ bool) error {
		before := len(p.Entries)
		p.Entries = slices.DeleteFunc(p.Entries, func(e backlogEntry) bool { return forgotten[e.N] })
		if len(p.Entries) == before {
			return ErrUnchanged
		}
		return nil
	})
}

// retire closes an empty page and takes it off the directory. Its writer may live: it then finds the page closed. Between
// the two halves this process may die; the page is then met again, retired or gone.
func (b *Backlog) retire(ctx context.Context, page string) error {
	content, err := Update(ctx, b.store, page, func(p *backlogContent, _ bool) error {
		if p.Retired || len(p.Entries) > 0 {
			return ErrUnchanged
		}
		p.Retired = true
		return nil
	}, TTL(backlogRetired))
	if err != nil || !content.Retired {
		return err
	}
	_, err = Update(ctx, b.store, b.directoryKey(), func(d *backlogDirectory, _ bool) error {
		before := len(d.Pages)
		if d.Pages = slices.DeleteFunc(d.Pages, func(p string) bool { return p == page }); len(d.Pages) == before {
			return ErrUnchanged
		}
		return nil
	})
	return err
}
