package record_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/record"
)

// Once a cancellation is recorded before the parcel is booked, the order is cancelled. This holds for every sequence in which the
// customer, the approver, the clock, the carrier and the saga change the record.
func TestACancellationThatIsRecordedBeforeTheBookingWins(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		var s record.Saga
		now := start
		won, booked, approvedAfter := false, false, false
		tick := func() time.Time { now = now.Add(time.Minute); return now }
		r.Repeat(map[string]func(*rapid.T){
			"begin": func(*rapid.T) { s.Begin(contracts.Order{OrderID: "ORD-1001"}, tick()) },
			"cancel": func(*rapid.T) {
				if s.Cancel("Ordered twice.", tick()) && !booked && !s.Ended() {
					won = true
				}
			},
			"request approval": func(*rapid.T) {
				if s.Started() && !s.Ended() {
					s.RequestApproval(tick(), now.Add(5*time.Minute))
				}
			},
			"decide": func(r *rapid.T) {
				approve := rapid.Bool().Draw(r, "approve")
				changed, err := s.Decide(approve, "approver@example.com", "Checked.", tick())
				approvedAfter = approvedAfter || changed && won
				if won && err == nil && changed {
					r.Fatal("a cancelled order was decided")
				}
			},
			"settle": func(r *rapid.T) {
				if s.Ended() {
					return
				}
				s.Settle(rapid.Bool().Draw(r, "expired"), tick())
			},
			// The saga books only if it saw no cancellation. The carrier answers at any time after that.
			"book": func(*rapid.T) {
				if s.Started() && !s.Ended() && s.Book(tick()) {
					booked = true
				}
			},
			"restart": func(*rapid.T) { s.Restart(tick()) },
			"end": func(r *rapid.T) {
				if !s.Started() || s.Ended() {
					return
				}
				outcome := record.Failed
				if s.Booked() && rapid.Bool().Draw(r, "shipped") {
					outcome = record.Completed
				}
				s.End(s.Conclude(outcome), record.Announcement{}, tick())
			},
			"": func(r *rapid.T) {
				if won != s.Cancelled() {
					r.Fatalf("the cancellation won: %v; it is recorded as %+v", won, s.Cancellation)
				}
				if won && s.Booked() {
					r.Fatal("a parcel was recorded as booked after the cancellation")
				}
				if won && s.AwaitsApproval() {
					r.Fatal("a cancelled order waits for an approval")
				}
				if won && s.Ended() && s.Outcome != record.Cancelled {
					r.Fatalf("the order is cancelled, and its saga ended %s", s.Outcome)
				}
				if !won && s.Outcome == record.Cancelled {
					r.Fatal("an order that its customer did not cancel in time ended cancelled")
				}
			},
		})
	})
}
