package reminder_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"waybill/services/orders/internal/reminder"
)

// after counts the reminders of one expectation within a stretch of the test's own time.
func after(t *testing.T, stretch time.Duration, answeredAfter time.Duration, answer func(n int) (bool, error)) int {
	t.Helper()
	reminders := 0
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		r := reminder.New(slog.New(slog.DiscardHandler))
		var running sync.WaitGroup
		running.Go(func() { r.Run(ctx) })
		r.Expect("ORDER-1", func(context.Context) (bool, error) { reminders++; return answer(reminders) })
		r.Expect("ORDER-1", func(context.Context) (bool, error) { t.Error("the second expectation took over"); return true, nil })
		time.Sleep(answeredAfter)
		if answeredAfter > 0 {
			r.Answered("ORDER-1")
		}
		time.Sleep(stretch - answeredAfter)
		stop()
		running.Wait()
	})
	return reminders
}

func TestRemindersGrowRarer(t *testing.T) {
	t.Parallel()
	never := func(int) (bool, error) { return false, nil }
	if n := after(t, 75*time.Second, 0, never); n != 3 { // after 10, 30 and 70 seconds
		t.Errorf("%d reminders in 75 seconds, want 3", n)
	}
}

func TestAnAnswerEndsTheWait(t *testing.T) {
	t.Parallel()
	never := func(int) (bool, error) { return false, nil }
	if n := after(t, time.Hour, 5*time.Second, never); n != 0 {
		t.Errorf("%d reminders after the answer, want none", n)
	}
}

func TestASettledReminderIsTheLast(t *testing.T) {
	t.Parallel()
	second := func(n int) (bool, error) {
		if n == 1 {
			return false, errors.New("the bus is away")
		}
		return true, nil
	}
	if n := after(t, time.Hour, 0, second); n != 2 {
		t.Errorf("%d reminders, want the one that failed and the one that settled", n)
	}
}
