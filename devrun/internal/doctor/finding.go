// Package doctor compares what the services of Waybill store about the same orders and products, and names every difference with
// its remedy. It reads the stores of a data folder, running or stopped, or asks the APIs of the services; it changes nothing.
//
// It decodes the stored documents by their stored shape, which is public (docs/adr/0032), because the types of the services are
// internal to them. A test compares the shapes with what a real system wrote.
package doctor

import (
	"cmp"
	"slices"
	"time"
)

// Finding is one difference.
type Finding struct {
	// Code is the kind of the difference. It is stable.
	Code    string `json:"code"`
	Order   string `json:"order_id,omitempty"`
	Product string `json:"product_id,omitempty"`
	// What describes what each side has.
	What string `json:"what"`
	// Where are the documents, or the addresses, that were compared.
	Where []string `json:"where"`
	// Why is why it matters, Mend the remedy.
	Why  string `json:"why"`
	Mend string `json:"mend"`
	// Since is when the newest of the compared documents was last written, if that is known.
	Since time.Time `json:"since,omitzero"`

	// passing: work in flight can look like this for a moment.
	passing bool
}

// Codes of the differences.
const (
	CodeStoreMissing        = "store_missing"
	CodeStoreLost           = "store_lost"
	CodeUnreadable          = "document_unreadable"
	CodeOrderWithoutSaga    = "order_without_saga"
	CodeSagaWithoutOrder    = "saga_without_order"
	CodeOutcomeDiffers      = "outcome_differs"
	CodeOutcomeNotTold      = "outcome_not_told"
	CodeStateDiffers        = "state_differs"
	CodeContentDiffers      = "content_differs"
	CodeApprovalMissing     = "approval_missing"
	CodeApprovalOfEnded     = "approval_of_ended_order"
	CodeApprovalNotListed   = "approval_not_listed"
	CodeLostInEngine        = "lost_in_engine"
	CodeOrderNotPending     = "order_not_in_backlog"
	CodeSagaNotPending      = "saga_not_in_backlog"
	CodeMessageNotPending   = "message_not_in_backlog"
	CodeNotInCustomersList  = "not_in_customers_list"
	CodeChargedTwice        = "charged_twice"
	CodeChargeDiffers       = "charge_differs"
	CodeChargedNotRefunded  = "charged_not_refunded"
	CodeRefundedTooMuch     = "refunded_too_much"
	CodeRefundedAndShipped  = "refunded_and_shipped"
	CodePaymentWithoutOrder = "payment_without_order"
	CodeShippedWithoutOrder = "shipment_without_order"
	CodeShippedUnpaid       = "shipment_without_charge"
	CodeShippedThoughFailed = "shipment_of_failed_order"
	CodeNotShipped          = "fulfilled_without_shipment"
	CodeReservationOfEnded  = "reservation_of_ended_order"
	CodeReservationOrphan   = "reservation_without_order"
	CodeReservationDiffers  = "reservation_differs"
	CodeOnHandNegative      = "on_hand_negative"
	CodeOversold            = "oversold"
	CodeReservedDiffers     = "reserved_differs"
	CodeShippedDiffers      = "shipped_differs"
	CodeMessageMissing      = "message_missing"
	CodeMessageOfUnknown    = "message_of_unknown_order"
)

// Report is the result of an examination.
type Report struct {
	// Source is what was read: the folder, or the addresses.
	Source string `json:"source"`
	// Running: the system ran during the examination.
	Running bool `json:"running"`
	// Counts are the numbers of compared orders, sagas, products and so on.
	Counts map[string]int `json:"counts"`
	// Differences are the kept differences; NotKept is the number of further ones of a code.
	Differences []Finding      `json:"differences"`
	NotKept     map[string]int `json:"not_kept,omitempty"`
	// InFlight are orders that kept changing and were not judged.
	InFlight int `json:"in_flight"`
	// Notes are not differences, but worth knowing.
	Notes []string `json:"notes,omitempty"`
	// Unseen is what could not be compared, with the reason.
	Unseen []string `json:"unseen,omitempty"`
}

// Healthy reports whether there is no difference.
func (r *Report) Healthy() bool { return len(r.Differences) == 0 }

// maxKept is how many differences of one code are kept.
const maxKept = 1000

func (r *Report) add(findings ...Finding) {
	for _, f := range findings {
		n := 0
		for i := range r.Differences {
			if r.Differences[i].Code == f.Code {
				n++
			}
		}
		if n >= maxKept {
			r.NotKept[f.Code]++
			continue
		}
		r.Differences = append(r.Differences, f)
	}
}

// sort puts findings about whole stores first and keeps those about one order together.
func (r *Report) sort() {
	rank := func(f Finding) int {
		stores := []string{CodeStoreMissing, CodeStoreLost, CodeUnreadable}
		switch first := slices.Index(stores, f.Code); {
		case first >= 0:
			return first
		case f.Product == "":
			return len(stores)
		default:
			return len(stores) + 1
		}
	}
	slices.SortStableFunc(r.Differences, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Order, b.Order), cmp.Compare(a.Product, b.Product), cmp.Compare(a.Code, b.Code),
			cmp.Compare(a.Where[0], b.Where[0]))
	})
}
