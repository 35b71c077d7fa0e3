package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Backlog remembers the ids of what is not known to be done, in a Store, so that a process which starts anew can find what
// an earlier one left. It may be used by many goroutines, and by many processes at once when each has a writer name of its
// own: every writer fills pages that nobody else adds to, so writers do not meet.
//
// A Backlog may hold an id more than once, and one that is done; it never loses one that is not.
type Backlog struct {
	store        Store
	name, writer string

	mu      sync.Mutex
	waiting *addition // the ids that the next write takes
	writing sync.Mutex
	page    int // the page that this writer fills, guarded by writing
	listed  bool
}

// addition is one write's ids, and how it went.
type addition struct {
	ids  []string
	done chan struct{}
	err  error
}

// backlogPage is how many ids a page takes.
const backlogPage = 200

type backlogDirectory struct {
	Pages []string `json:"pages"`
}

type backlogContent struct {
	IDs []string `json:"ids"`
	// Full pages take no more ids; Retired ones are not in the directory any more.
	Full    bool `json:"full,omitempty"`
	Retired bool `json:"retired,omitempty"`
}

// NewBacklog returns the backlog of that name in s. The writer's name must be one that no other process ever had, such as a
// new ULID; neither name may hold a colon.
func NewBacklog(s Store, name, writer string) *Backlog {
	return &Backlog{store: s, name: name, writer: writer}
}

func (b *Backlog) directoryKey() string { return "backlog:" + b.name }

func (b *Backlog) pageKey() string {
	return "backlog:" + b.name + ":" + b.writer + ":" + strconv.Itoa(b.page)
}

// Add returns when the id is stored. Additions that arrive while another is being written share the next write.
func (b *Backlog) Add(ctx context.Context, id string) error {
	b.mu.Lock()
	mine := b.waiting
	first := mine == nil
	if first {
		mine = &addition{done: make(chan struct{})}
		b.waiting = mine
	}
	mine.ids = append(mine.ids, id)
	b.mu.Unlock()
	if first {
		b.writing.Lock()
		b.mu.Lock()
		b.waiting = nil
		b.mu.Unlock()
		// The others' contexts may outlive this one's.
		mine.err = b.write(context.WithoutCancel(ctx), mine.ids)
		b.writing.Unlock()
		close(mine.done)
	}
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return fmt.Errorf("add to backlog %s: %w", b.name, ctx.Err())
	}
}

// backlogPatience bounds one write, whoever waits for it.
const backlogPatience = 10 * time.Second

var errPageClosed = errors.New("the page takes no more ids")

func (b *Backlog) write(ctx context.Context, ids []string) error {
	ctx, cancel := context.WithTimeout(ctx, backlogPatience)
	defer cancel()
	for {
		if !b.listed {
			// Before the page is written: a page that nobody can find would lose its ids.
			if err := b.list(ctx, b.pageKey()); err != nil {
				return err
			}
			b.listed = true
		}
		_, err := Update(ctx, b.store, b.pageKey(), func(p *backlogContent, _ bool) error {
			if p.Full || p.Retired {
				return errPageClosed
			}
			p.IDs = append(p.IDs, ids...)
			p.Full = len(p.IDs) >= backlogPage
			return nil
		})
		if !errors.Is(err, errPageClosed) {
			if err != nil {
				err = fmt.Errorf("add to backlog %s: %w", b.name, err)
			}
			return err
		}
		b.page, b.listed = b.page+1, false
	}
}

func (b *Backlog) list(ctx context.Context, page string) error {
	_, err := Update(ctx, b.store, b.directoryKey(), func(d *backlogDirectory, _ bool) error {
		if slices.Contains(d.Pages, page) {
			return Keep
		}
		d.Pages = append(d.Pages, page)
		return nil
	})
	if err != nil {
		return fmt.Errorf("list a page of backlog %s: %w", b.name, err)
	}
	return nil
}

// Sweep shows visit the ids of every page, oldest page first, and forgets those that visit returns as done. It ends with
// the first error. Ids that are added meanwhile may or may not be seen.
func (b *Backlog) Sweep(ctx context.Context, visit func(ctx context.Context, ids []string) (done []string, err error)) error {
	var directory backlogDirectory
	if _, err := b.store.Get(ctx, b.directoryKey(), &directory); err != nil {
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		return fmt.Errorf("read backlog %s: %w", b.name, err)
	}
	for _, page := range directory.Pages {
		var content backlogContent
		if _, err := b.store.Get(ctx, page, &content); err != nil {
			if errors.Is(err, ErrNotFound) {
				continue // listed, and nothing written yet
			}
			return fmt.Errorf("read backlog %s: %w", b.name, err)
		}
		var done []string
		if len(content.IDs) > 0 {
			var err error
			if done, err = visit(ctx, slices.Clone(content.IDs)); err != nil {
				return err
			}
		}
		if len(done) == 0 && !(content.Full && len(content.IDs) == 0) && !content.Retired {
			continue
		}
		if err := b.forget(ctx, page, done); err != nil {
			return fmt.Errorf("tidy backlog %s: %w", b.name, err)
		}
	}
	return nil
}

// forget takes ids off a page, and the page off the directory when it is full and nothing is left on it.
func (b *Backlog) forget(ctx context.Context, page string, done []string) error {
	content, err := Update(ctx, b.store, page, func(p *backlogContent, _ bool) error {
		before, retired := len(p.IDs), p.Retired
		p.IDs = slices.DeleteFunc(p.IDs, func(id string) bool { return slices.Contains(done, id) })
		p.Retired = p.Full && len(p.IDs) == 0
		if len(p.IDs) == before && p.Retired == retired {
			return Keep
		}
		return nil
	})
	if err != nil || !content.Retired {
		return err
	}
	_, err = Update(ctx, b.store, b.directoryKey(), func(d *backlogDirectory, _ bool) error {
		d.Pages = slices.DeleteFunc(d.Pages, func(p string) bool { return p == page })
		return nil
	})
	return err
}
