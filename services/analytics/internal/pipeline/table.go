package pipeline

import "strings"

// kept is what a table keeps of one name. Clear empties it for another name and keeps its memory.
type kept[T any] interface {
	*T
	clear()
}

// table keeps something of the names heard of last, up to a number of them. The memory of the one that has to go is used
// for the one that comes.
type table[T any, P kept[T]] struct {
	max     int
	rows    map[string]*row[T]
	ends    row[T] // next is the row used longest ago, prev the one used last
	evicted uint64
}

type row[T any] struct {
	name       string
	prev, next *row[T]
	value      T
}

func newTable[T any, P kept[T]](limit int) *table[T, P] {
	t := &table[T, P]{max: limit, rows: map[string]*row[T]{}}
	t.ends.prev, t.ends.next = &t.ends, &t.ends
	return t
}

// use is what is kept of a name, new when nothing is, and makes it the one used last.
func (t *table[T, P]) use(name string) *row[T] {
	r := t.rows[name]
	switch {
	case r != nil:
		if t.ends.prev == r {
			return r
		}
		r.prev.next, r.next.prev = r.next, r.prev
	case len(t.rows) >= t.max:
		r = t.ends.next
		r.prev.next, r.next.prev = r.next, r.prev
		delete(t.rows, r.name)
		t.evicted++
		P(&r.value).clear()
		t.name(r, name)
	default:
		r = &row[T]{}
		t.name(r, name)
	}
	r.prev, r.next = t.ends.prev, &t.ends
	r.prev.next, t.ends.prev = r, r
	return r
}

// name keeps a copy of the name: what it was cut from, an event's whole text, may go.
func (t *table[T, P]) name(r *row[T], name string) {
	r.name = strings.Clone(name)
	t.rows[r.name] = r
}

// get is what is kept of a name, nil when nothing is.
func (t *table[T, P]) get(name string) *T {
	if r := t.rows[name]; r != nil {
		return &r.value
	}
	return nil
}

// all yields every row, the one used longest ago first.
func (t *table[T, P]) all(yield func(name string, value *T) bool) {
	for r := t.ends.next; r != &t.ends; r = r.next {
		if !yield(r.name, &r.value) {
			return
		}
	}
}
