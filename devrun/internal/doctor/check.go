package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"waybill/contracts"
)

// examiner turns facts into findings.
type examiner struct {
	known known
	// now is the time for ages.
	now  time.Time
	kept Kept
}

// Sentences that several findings share.
const (
	whyForgotten = "No service follows the order, so it is never fulfilled, or its customer never learns that it was."
	whyMoney     = "The customer's money does not match what they got."
	whyStock     = "Stock that is counted wrongly is oversold, or never sold."
	whyTwoTruths = "Two services tell people different things about one order."

	mendAsked = "orders announces the order's confirmation again within 5 minutes (RECONCILE_AFTER) while it runs; "
	mendHand  = "Nothing mends it by itself. "
)

func (e *examiner) examine(f *facts) []Finding {
	var found []Finding
	report := func(code, why, mend string, where []string, passing bool, format string, args ...any) {
		found = append(found, Finding{
			Code: code, Order: f.id, What: fmt.Sprintf(format, args...), Where: where, Why: why, Mend: mend, Since: f.changed, passing: passing,
		})
	}
	for _, u := range f.unreadable {
		found = append(found, unreadableFinding(f.id, u, f.changed))
	}
	x := &examination{e, f, report}
	x.sides()
	x.money()
	x.stock()
	x.messages()
	return found
}

func unreadableFinding(order string, u unreadable, since time.Time) Finding {
	return Finding{
		Code: CodeUnreadable, Order: order, Where: []string{u.app + " " + u.key}, Since: since,
		What: fmt.Sprintf("The document %s of %s cannot be decoded: %v.", u.key, u.app, u.err),
		Why:  "The service cannot read it either: what needs it fails, and its events are dead-lettered. Other documents are not affected.",
		Mend: mendHand + "Put the document back from a backup of the store while the system is stopped, or correct it by hand; then redrive the dead letters.",
	}
}

type examination struct {
	*examiner
	*facts

	report func(code, why, mend string, where []string, passing bool, format string, args ...any)
}

func (x *examination) unread(kind string) bool {
	return slices.ContainsFunc(x.unreadable, func(u unreadable) bool { return strings.HasPrefix(u.key, kind+":") })
}

// gone reports whether a missing document may have expired after its retention, which is kept.
func (x *examination) gone(ended time.Time, kept time.Duration) bool {
	switch {
	case ended.IsZero():
		return false
	case kept > 0:
		// Documents that ended at about that time are skipped: services write what they learn a moment later, with clocks of
		// their own.
		return x.now.Sub(ended) > kept-min(kept/10, 24*time.Hour)
	default:
		return x.expires && x.now.Sub(ended) > 24*time.Hour // the retention was not given, and other documents of this order expire
	}
}

func (x *examination) at(parts ...string) []string {
	where := make([]string, len(parts))
	for i, kind := range parts {
		app := map[string]string{"order": contracts.AppOrders, "customer": contracts.AppOrders, "backlog:orders": contracts.AppOrders, "order-messages": contracts.AppNotifications}[kind]
		if app == "" {
			app = contracts.AppFulfillment
		}
		if where[i] = app + " " + kind; !strings.HasPrefix(kind, "backlog:") {
			where[i] += ":" + x.id
		}
	}
	return where
}

// sides compares the order with its saga.
func (x *examination) sides() {
	o, s := x.order, x.saga
	switch {
	case x.unread("order") || x.unread("saga"):
	case o != nil && s == nil && x.known.fulfillment && o.needsSaga() && (!o.ended() || !x.gone(o.UpdatedAt, x.kept.Sagas)):
		x.withoutSaga(o)
	case o == nil && s != nil && s.started() && x.known.orders && !x.gone(s.EndedAt, x.kept.Orders):
		x.report(CodeSagaWithoutOrder, "The customer and every other service get the answer that there is no such order.",
			"`make doctor ARGS=--recreate` on the running system places it again, with the content that fulfilment's journal holds and under the same id; fulfilment then announces its state again. Events that were dead-lettered meanwhile can be redriven after that.",
			x.at("saga", "order"), true, "Fulfilment has a saga, which %s, and orders has no order of that id.", verb(s))
	case o != nil && s != nil && s.started():
		x.both(o, s)
	}
	if o == nil {
		return
	}
	if !o.ended() && o.Status != statusReceived && x.orderPending == No {
		x.report(CodeOrderNotPending, whyForgotten, "`make doctor ARGS=--recreate` on the running system places the order again, which changes nothing about it and puts it back.",
			x.at("order", "backlog:orders"), true, "The order is %s, and the backlog of orders that have not ended does not hold it: no reconciler looks at it.", o.Status)
	}
	if o.Status != statusReceived && x.listed == No {
		x.report(CodeNotInCustomersList, "The customer does not see the order in their list.",
			mendHand+"The order can be read by its id. Put the customer's list back from a backup if there is one.",
			[]string{contracts.AppOrders + " order:" + x.id, contracts.AppOrders + " customer:" + o.Content.CustomerID}, true,
			"The order is %s, and the list of its customer %s does not hold it.", o.Status, o.Content.CustomerID)
	}
}

func verb(s *sagaDoc) string {
	if s.ended() {
		return s.state()
	}
	return map[string]string{"running": "is running", "needs attention": "needs attention", "awaits an approval": "awaits an approval"}[s.state()]
}

func (x *examination) withoutSaga(o *orderDoc) {
	mend := mendAsked + "fulfillment starts a saga for it."
	if o.Status == statusAwaitingApproval {
		mend = mendAsked + "fulfillment then asks for the approval again."
	}
	if x.orderPending == No {
		mend = mendHand + "The order is not in the backlog of orders either: `make doctor ARGS=--recreate` on the running system puts it there, and the rest follows."
	}
	if o.ended() {
		mend = mendHand + "The order has ended and needs no saga; payment and parcel can only be looked up at the partners. Restore the store of fulfillment from a backup if there is one."
	}
	x.report(CodeOrderWithoutSaga, whyForgotten, mend, x.at("order", "saga"), !o.ended(), "The order is %s, and fulfilment has no saga of it.", o.Status)
}

func (x *examination) both(o *orderDoc, s *sagaDoc) {
	where := x.at("order", "saga")
	if o.Content.TotalAmount != s.Order.TotalAmount || o.Content.CustomerID != s.Order.CustomerID {
		x.report(CodeContentDiffers, "What is charged and shipped is not what was ordered.", mendHand+"Find out which of the two the customer ordered.", where, false,
			"The order is of customer %s over %s, its saga of customer %s over %s.", o.Content.CustomerID, money(o.Content.TotalAmount), s.Order.CustomerID, money(s.Order.TotalAmount))
	}
	switch {
	case s.ended() && o.ended() && o.Status != s.status():
		x.report(CodeOutcomeDiffers, whyTwoTruths, mendHand+"What has ended does not change. Compare with payment and parcel which of the two is right, tell the customer, and correct the document of the other service while the system is stopped.",
			where, true, "The order is %s, and its saga ended as %s.", o.Status, s.Outcome)
	case s.ended() && !o.ended():
		x.report(CodeOutcomeNotTold, whyTwoTruths, mendAsked+"fulfillment announces the outcome again.", where, true,
			"The order is %s, and its saga ended as %s at %s.", o.Status, s.Outcome, s.EndedAt.Format(time.RFC3339))
	case !s.ended() && o.ended() && s.awaitsApproval():
		x.report(CodeApprovalOfEnded, "Somebody is asked to decide about an order that has ended, and their decision would have it shipped.",
			mendHand+"Refuse the approval: POST /v1/approvals/"+x.id+" with approved false.", where, true, "The order is %s, and its saga awaits an approval.", o.Status)
	case !s.ended() && o.ended():
		x.report(CodeOutcomeDiffers, whyTwoTruths, "The saga ends by itself, and its outcome may differ from the order's status, which does not change. GET /v1/fulfillments/"+x.id+" shows what it waits for.",
			where, true, "The order is %s, and its saga %s.", o.Status, verb(s))
	case !s.ended():
		x.open(o, s)
	}
}

// open compares an order and a saga that are both open.
func (x *examination) open(o *orderDoc, s *sagaDoc) {
	where := x.at("order", "saga")
	switch {
	case o.Status == statusAwaitingApproval && s.Approval == nil:
		x.report(CodeApprovalMissing, "No approver sees the request, so the order waits until the approval times out.", "The reconciler of fulfillment wakes the saga once it should have ended (STUCK_AFTER, 15 minutes), and the saga asks for the approval again.", where, true,
			"The order is awaiting_approval, and the journal of its saga holds no approval.")
	case o.Status == statusAwaitingApproval && s.Approval.Decision != nil && !s.cancelled(),
		s.awaitsApproval() && o.Status != statusAwaitingApproval,
		s.halted() && o.Status != statusNeedsAttention,
		o.Status == statusNeedsAttention && s.Halt == nil:
		x.report(CodeStateDiffers, whyTwoTruths, mendAsked+"fulfillment announces again what its saga waits for.", where, true, "The order is %s, and its saga %s.", o.Status, verb(s))
	}
	if s.awaitsApproval() && x.approvalListed == No {
		x.report(CodeApprovalNotListed, "GET /v1/approvals does not show it, so no approver sees it.", "Decide by its id: POST /v1/approvals/"+x.id+".",
			append(where, x.at("backlog:approvals")...), true, "The saga awaits an approval until %s, and the list of approvals does not hold it.", s.Approval.ExpiresAt.Format(time.RFC3339))
	}
	if x.sagaPending == No {
		x.report(CodeSagaNotPending, "The reconciler does not check the saga: if the engine loses it, it is not started again.", mendAsked+"fulfillment then puts it back.",
			x.at("saga", "backlog:sagas"), true, "The saga %s, and the backlog of sagas that have not ended does not hold it.", verb(s))
	}
	if x.inEngine == No {
		x.report(CodeLostInEngine, whyForgotten, "The reconciler of fulfillment starts the saga again in its next pass (RECONCILE_INTERVAL, 30 s) while it runs.",
			append(x.at("saga"), contracts.AppFulfillment+" "+contracts.WorkflowStore), true, "The saga %s, and the workflow engine does not have it.", verb(s))
	}
}

// money compares what was charged with what was shipped.
func (x *examination) money() {
	p, o, s := x.payment, x.order, x.saga
	parcel := x.shipment.underWay()
	if x.orphan() {
		if p != nil && len(p.Charges) > 0 {
			x.report(CodePaymentWithoutOrder, whyMoney, mendHand+"Look the charge up at the payment provider, and refund it if the order is unknown everywhere.", x.at("payment"), true,
				"The payment provider charged %s (%s), and neither orders nor fulfilment know the order.", money(sum(p.Charges)), p.Charges[0].ID)
		}
		if parcel {
			x.report(CodeShippedWithoutOrder, "Goods leave the warehouse without an order.", mendHand+"Call the parcel "+x.shipment.Booked[0].Shipment.TrackingNumber+" back at the carrier, or find out whose it is.", x.at("shipment"), true,
				"The carrier has a parcel, and neither orders nor fulfilment know the order.")
		}
		return
	}
	var charged, refunded contracts.Amount
	if p != nil {
		charged, refunded = sum(p.Charges), sum(p.Refunds)
		if len(p.Charges) > 1 {
			x.report(CodeChargedTwice, whyMoney, mendHand+"Refund all charges but one at the payment provider.", x.at("payment"), false,
				"The payment provider charged the order %d times, %s in all.", len(p.Charges), money(charged))
		} else if total, ok := x.total(); ok && len(p.Charges) == 1 && charged != total {
			x.report(CodeChargeDiffers, whyMoney, mendHand+"Refund or charge the difference at the payment provider.", x.at("payment"), false,
				"The order's total is %s, and %s was charged.", money(total), money(charged))
		}
		if refunded > charged {
			x.report(CodeRefundedTooMuch, whyMoney, mendHand+"Ask the payment provider for the difference.", x.at("payment"), false, "%s was charged, and %s refunded.", money(charged), money(refunded))
		}
	}
	if x.unread("payment") || x.unread("shipment") || x.unread("saga") || x.unread("order") {
		return
	}
	if refunded > 0 && parcel {
		x.report(CodeRefundedAndShipped, whyMoney, mendHand+"Call the parcel "+x.shipment.Booked[0].Shipment.TrackingNumber+" back, or charge the order again.", x.at("payment", "shipment"), true,
			"%s was refunded, and the carrier has the parcel.", money(refunded))
	}
	total, priced := x.total()
	if parcel && priced && total > 0 && charged == 0 {
		x.report(CodeShippedUnpaid, whyMoney, mendHand+"Charge the order at the payment provider, or call the parcel back.", x.at("shipment", "payment"), false,
			"The carrier has the parcel, and nothing was charged of %s.", money(total))
	}
	if s == nil || !s.ended() {
		return
	}
	ended := "Its saga ended as " + s.Outcome
	if o != nil && o.ended() && o.Status != s.status() {
		ended += ", the order is " + o.Status
	}
	switch {
	case s.Outcome == outcomeCompleted && !parcel && !x.gone(s.EndedAt, 0):
		x.report(CodeNotShipped, "The customer was told that the order is under way.", mendHand+"Book a parcel at the carrier, or refund the order.", x.at("saga", "shipment"), false, "%s, and the carrier has no parcel.", ended)
		if charged > refunded {
			x.report(CodeChargedNotRefunded, whyMoney, mendHand+"Book a parcel, or refund "+money(charged-refunded)+" at the payment provider.", x.at("payment", "shipment"), false,
				"%s was charged and is not refunded, and nothing was shipped.", money(charged-refunded))
		}
	case s.Outcome != outcomeCompleted && parcel:
		x.report(CodeShippedThoughFailed, "The customer was told that nothing comes, and a parcel does.", mendHand+"Call the parcel "+x.shipment.Booked[0].Shipment.TrackingNumber+" back at the carrier.", x.at("saga", "shipment"), false,
			"%s, and the carrier has the parcel.", ended)
	case s.Outcome != outcomeCompleted && charged > refunded:
		x.report(CodeChargedNotRefunded, whyMoney, mendHand+"Refund "+money(charged-refunded)+" at the payment provider ("+p.Charges[0].ID+").", x.at("saga", "payment"), false,
			"%s, and %s that was charged is not refunded.", ended, money(charged-refunded))
	}
}

// orphan reports whether neither orders nor fulfillment knows an order with that id.
func (x *examination) orphan() bool {
	return x.order == nil && x.saga == nil && x.known.orders && x.known.fulfillment && !x.unread("order") && !x.unread("saga") && !x.expires
}

func (x *examination) total() (contracts.Amount, bool) {
	switch {
	case x.saga != nil && x.saga.started():
		return x.saga.Order.TotalAmount, true
	case x.order != nil:
		return x.order.Content.TotalAmount, true
	default:
		return 0, false
	}
}

// money formats an amount for people.
func money(a contracts.Amount) string {
	return fmt.Sprintf("%d.%02d", a/contracts.Unit, a%contracts.Unit/(contracts.Unit/100))
}

// stock compares the order with its reservation.
func (x *examination) stock() {
	r, s := x.reservation, x.saga
	if x.unread("reservation") || x.unread("saga") || x.unread("order") {
		return
	}
	if x.orphan() {
		if r != nil && (r.State == reserved || r.State == releasing || r.State == unshipping) {
			x.report(CodeReservationOrphan, whyStock, mendHand+"Count the products and set their stock (docs/operations.md, Count the stock).", x.at("reservation"), true,
				"A reservation is %s, and neither orders nor fulfilment know the order.", r.State)
		}
		return
	}
	if s == nil || !s.ended() {
		return
	}
	switch {
	case r == nil && s.Outcome == outcomeCompleted && !x.gone(s.EndedAt, 0):
		x.report(CodeReservationDiffers, whyStock, mendHand+"Count the products of the order and set their stock.", x.at("saga", "reservation"), false, "Its saga ended as completed, and there is no reservation.")
	case r == nil:
	case s.Outcome == outcomeCompleted && (r.State == released || r.State == refused):
		x.report(CodeReservationDiffers, whyStock, mendHand+"Count the products of the order and set their stock.", x.at("saga", "reservation"), false, "Its saga ended as completed, and its reservation is %s.", r.State)
	case s.Outcome == outcomeCompleted && r.State != shipped, s.Outcome != outcomeCompleted && r.State != released && r.State != refused:
		x.report(CodeReservationOfEnded, whyStock, mendHand+"No step of an ended saga comes again. Count the products of the order and set their stock.", x.at("saga", "reservation"), true,
			"Its saga ended as %s, and its reservation is %s.", s.Outcome, r.State)
	}
}

// messages compares the outcome of the saga with the customer's messages.
func (x *examination) messages() {
	if x.unread("order-messages") {
		return
	}
	m, s := x.facts.messages, x.saga
	if x.orphan() && m != nil && !x.known.vanish {
		for i := range m.Messages {
			if m.Messages[i].ofOrder(x.id) {
				x.report(CodeMessageOfUnknown, "A customer gets a message about an unknown order.", mendHand+"Find out whether orders and fulfillment lost their stores.", x.at("order-messages"), true,
					"Notifications has the message %s, and neither orders nor fulfilment know the order.", m.Messages[i].ID)
				break
			}
		}
	}
	for _, id := range x.unqueued {
		x.report(CodeMessageNotPending, "The message is not sent after a restart of notifications.", mendHand+"Publish its Notification.Requested again to the topic notifications: notifications then takes it up.", x.at("order-messages"), true,
			"The message %s has no outcome, and the backlog of notifications does not hold it.", id)
	}
	if s == nil || !s.ended() || !x.known.notifications || s.template() == "" || x.kept.Messages > 0 && x.gone(s.EndedAt, x.kept.Messages) {
		return
	}
	var missing []string
	for _, channel := range contracts.Channels() {
		id := x.id + ":" + s.template() + ":" + channel
		if m == nil || !slices.ContainsFunc(m.Messages, func(m messageDoc) bool { return m.ID == id }) {
			missing = append(missing, channel)
		}
	}
	if len(missing) > 0 {
		x.report(CodeMessageMissing, "The customer is not told how the order ended.",
			mendHand+"Tell the customer, or publish Notification.Requested with the notification_id "+x.id+":"+s.template()+":<channel> to the topic notifications.",
			x.at("saga", "order-messages"), true, "Its saga ended as %s, and notifications has no message %s over %s.", s.Outcome, s.template(), strings.Join(missing, ", "))
	}
}
