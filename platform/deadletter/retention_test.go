package deadletter

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"waybill/platform/state"
)

func TestAClosedDeadLetterExpiresAndAnOpenOneStays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		s.queue.KeepFor(time.Hour)
		s.kept(t, deadLetteredEvent("e1", "reason", deadLetteredAt), deadLetteredEvent("e2", "reason", deadLetteredAt), deadLetteredEvent("e3", "reason", deadLetteredAt))
		time.Sleep(100 * time.Hour)
		if got := outcome(t, s.dismiss(t, `"event_ids":["e1"]`)); got != outcomeDismissed {
			t.Fatal(got)
		}
		if got := outcome(t, s.redrive(t, `"event_ids":["e2"]`)); got != outcomeRedriven {
			t.Fatal(got)
		}
		time.Sleep(30 * time.Minute)
		if got := s.list(t, "topic=orders").Items; len(got) != 3 {
			t.Errorf("half an hour later %d dead letters are listed", len(got))
		}
		// One that is dead-lettered again is open, and stays.
		s.kept(t, deadLetteredEvent("e2", "again", deadLetteredAt.Add(time.Hour)))
		time.Sleep(time.Hour)
		got := s.list(t, "topic=orders").Items
		if len(got) != 2 || got[0].EventID != "e3" && got[1].EventID != "e3" {
			t.Errorf("after an hour there are %+v", got)
		}
		// An expired one that is dead-lettered again is new.
		s.kept(t, deadLetteredEvent("e1", "once more", deadLetteredAt.Add(2*time.Hour)))
		if got := s.list(t, "topic=orders&state=open").Items; len(got) != 3 {
			t.Errorf("%d dead letters are open, want 3", len(got))
		}
	})
}

func TestAListExpiresAfterItsDeadLetters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		s.queue.KeepFor(time.Hour)
		for n := range pageSize {
			s.kept(t, deadLetteredEvent(fmt.Sprint("e", n), "reason", deadLetteredAt))
		}
		there := func() bool {
			t.Helper()
			var p page
			_, err := s.store.Get(t.Context(), pageKey("orders", 0), &p)
			if err != nil && !errors.Is(err, state.ErrNotFound) {
				t.Fatal(err)
			}
			return err == nil
		}
		for n := range pageSize {
			if got := outcome(t, s.dismiss(t, fmt.Sprintf(`"event_ids":["e%d"]`, n))); got != outcomeDismissed {
				t.Fatal(got)
			}
		}
		time.Sleep(50 * time.Minute)
		// This entry is written again, and so outlives its page.
		s.rejecting("still wrong")
		for range 60 {
			if got := outcome(t, s.redrive(t, `"event_ids":["e7"]`)); got != failed {
				t.Fatal(got)
			}
			time.Sleep(30 * time.Minute)
		}
		if there() {
			t.Fatal("the page of closed dead letters still exists")
		}
		s.kept(t, deadLetteredEvent("e7", "again", deadLetteredAt.Add(time.Hour)))
		open := s.list(t, "topic=orders&state=open")
		if len(open.Items) != 1 || open.Items[0].EventID != "e7" || open.Items[0].DeadLetterCount != 2 {
			t.Errorf("open %+v", open)
		}
		s.rejecting("")
		if got := outcome(t, s.redrive(t, `"all":true`)); got != outcomeRedriven {
			t.Error(got)
		}
	})
}
