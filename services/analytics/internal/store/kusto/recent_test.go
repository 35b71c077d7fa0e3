package kusto

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
)

func TestRecentForgetsTheOldest(t *testing.T) {
	t.Parallel()
	r := newRecent()
	const size = 1_000
	batch := func(n int) []string {
		ids := make([]string, size)
		for i := range ids {
			ids[i] = fmt.Sprint(n*size + i)
		}
		return ids
	}
	freshOf := func(ids []string, stored bool) int {
		t.Helper()
		c, err := r.claim(t.Context(), ids)
		if err != nil {
			t.Fatal(err)
		}
		c.done(stored)
		n := 0
		for _, f := range c.fresh {
			if f {
				n++
			}
		}
		return n
	}
	const batches = 3 * remembered / size
	for n := range batches {
		if got := freshOf(batch(n), true); got != size {
			t.Fatalf("batch %d: %d of %d are new", n, got, size)
		}
	}
	if got := freshOf(batch(batches-1), false); got != 0 {
		t.Errorf("%d of the last batch are forgotten", got)
	}
	if got := freshOf(batch(batches-remembered/size), false); got != 0 {
		t.Errorf("%d of the last %d are forgotten", got, remembered)
	}
	if got := freshOf(batch(0), false); got != size {
		t.Errorf("%d of the first batch are forgotten, want all: memory is bounded", got)
	}
	if n := len(r.newer) + len(r.older); n > 2*remembered {
		t.Errorf("%d ids are remembered", n)
	}
}

func TestRecentWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRecent()
		first, err := r.claim(t.Context(), []string{"a", "b", "a"})
		if err != nil || !slices.Equal(first.fresh, []bool{true, true, false}) {
			t.Fatal(first, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		gaveUp := make(chan error, 1)
		go func() { _, err := r.claim(ctx, []string{"b"}); gaveUp <- err }()
		waited := make(chan []bool, 1)
		go func() {
			c, err := r.claim(t.Context(), []string{"b", "c"})
			if err != nil {
				t.Error(err)
			}
			c.done(true)
			waited <- c.fresh
		}()
		synctest.Wait()
		cancel()
		if err := <-gaveUp; !errors.Is(err, context.Canceled) {
			t.Errorf("the one that gave up: %v", err)
		}
		first.done(true)
		if got := <-waited; !slices.Equal(got, []bool{false, true}) {
			t.Errorf("the one that waited: new %v", got)
		}
	})
}
