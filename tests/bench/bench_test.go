package main

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

// prompt is a subject that finishes or fails its pieces at once.
type prompt struct {
	flight *pieces
	err    error
}

func (p prompt) name() string                  { return "prompt" }
func (p prompt) pieces() *pieces               { return p.flight }
func (p prompt) processes() ([]process, error) { return []process{{"itself", os.Getpid()}}, nil }
func (p prompt) begin(_ context.Context, id string) error {
	p.flight.finish(id, p.err)
	p.flight.finish(id, nil) // a second end is none
	return nil
}

func TestAClosedLoopCountsItsPieces(t *testing.T) {
	t.Parallel()
	r, err := closed(t.Context(), prompt{flight: newPieces()}, 3, load{warmCount: 2, count: 10})
	if err != nil {
		t.Fatal(err)
	}
	if r.done > 10 || len(r.took) != r.done {
		t.Errorf("%d pieces done with %d times, want as many times and no more than 10", r.done, len(r.took))
	}
}

func TestAnOpenLoopHandsInAllItOwes(t *testing.T) {
	t.Parallel()
	r, err := open(t.Context(), prompt{flight: newPieces()}, 100, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.took) != 20 || r.done+r.behind != 20 {
		t.Errorf("%d times, %d done, %d behind; want 20 in all", len(r.took), r.done, r.behind)
	}
}

func TestAPieceThatEndsBadlyEndsTheRun(t *testing.T) {
	t.Parallel()
	broken := prompt{newPieces(), errors.New("broken")}
	if _, err := closed(t.Context(), broken, 3, load{warm: time.Hour, window: time.Hour}); !errors.Is(err, broken.err) {
		t.Errorf("a closed loop: %v", err)
	}
	if _, err := open(t.Context(), broken, 100, time.Hour); !errors.Is(err, broken.err) {
		t.Errorf("an open loop: %v", err)
	}
}

func TestARestartedProcessIsNotMeasured(t *testing.T) {
	t.Parallel()
	one := usage{of: []processUsage{{process: process{"app", 1}, cpu: time.Second}}, busy: 3 * time.Second}
	later := usage{of: []processUsage{{process: process{"app", 1}, cpu: 2 * time.Second}}, busy: 7 * time.Second}
	d, err := later.since(one)
	if err != nil || d.of[0].cpu != time.Second || d.of[1].name != everythingElse || d.of[1].cpu != 3*time.Second {
		t.Errorf("%+v %v, want a second of the app's and three of the others'", d, err)
	}
	later.of[0].pid = 2
	if _, err := later.since(one); err == nil {
		t.Error("a new process was measured against an old one")
	}
}
