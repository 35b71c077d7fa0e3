package record_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"waybill/contracts"
	"waybill/services/fulfillment/internal/record"
)

// The rule: once a cancellation is recorded and the parcel was not booked before it, the order is cancelled. It holds for every
// order in which the customer, the approver, the clock, the carrier and the saga can come to the journal.
func TestACancellationThatIsRecordedBeforeTheBookingWins(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		var e record.Saga
		now := start
		won, booked, approvedAfter := false, false, false
		tick := func() time.Time { now = now.Add(time.Minute); return now }
		r.Repeat(map[string]func(*rapid.T){
			"begin": func(*rapid.T) { e.Begin(contracts.Order{OrderID: "ORD-1001"}, tick()) },
			"cancel": func(*rapid.T) {
				if e.Cancel("Ordered twice.", tick()) && !booked && !e.Ended() {
					won = true
				}
			},
			"ask": func(*rapid.T) {
				if e.Started() && !e.Ended() {
					e.RequestApproval(tick(), now.Add(5*time.Minute))
				}
			},
			"decide": func(r *rapid.T) {
				approve := rapid.Bool().Draw(r, "approve")
				changed, err := e.Decide(approve, "approver@example.com", "Looked into it.", tick())
				approvedAfter = approvedAfter || changed && won
				if won && err == nil && changed {
					r.Fatal("a decision was taken on a cancelled order")
				}
			},
			"settle": func(r *rapid.T) {
				if e.Ended() {
					return
				}
				e.Settle(rapid.Bool().Draw(r, "expired"), tick())
			},
			// The saga books only when it saw no cancellation; the carrier answers at any time after that.
			"book": func(*rapid.T) {
				if e.Started() && !e.Ended() && e.Book(tick()) {
					booked = true
				}
			},
			"restart": func(*rapid.T) { e.Restart(tick()) },
			"end": func(r *rapid.T) {
				if !e.Started() || e.Ended() {
					return
				}
				outcome := record.Failed
				if e.Booked() && rapid.Bool().Draw(r, "shipped") {
					outcome = record.Completed
				}
				e.End(e.Conclude(outcome), record.Announcement{}, tick())
			},
			"": func(r *rapid.T) {
				if won != e.Cancelled() {
					r.Fatalf("the cancellation won: %v; it is recorded as %+v", won, e.Cancellation)
				}
				if won && e.Booked() {
					r.Fatal("a parcel was recorded as booked after the cancellation")
				}
				if won && e.AwaitsApproval() {
					r.Fatal("a cancelled order waits for an approval")
				}
				if won && e.Ended() && e.Outcome != record.Cancelled {
					r.Fatalf("the order is cancelled, and its saga ended %s", e.Outcome)
				}
				if !won && e.Outcome == record.Cancelled {
					r.Fatal("an order that its customer did not cancel in time ended cancelled")
				}
			},
		})
	})
}
