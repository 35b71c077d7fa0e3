// Package saga fulfils an order: it charges, reserves, has a person approve what is large, ships, tells the customer and
// reports; or undoes what it did, newest first. It owns the workflow, its activities, the interfaces of what they need, and
// the decisions that people take on a running saga; it knows no store and no HTTP.
//
// workflow.go is the place to start: FulfillOrder is the whole way of an order on one screen.
package saga

import (
	"strconv"

	"waybill/contracts"
)

// Durable names. Live orders keep them in their history: renaming one strands those orders.
const (
	workflowFulfillOrder    = "FulfillOrder"
	workflowCompensateOrder = "CompensateOrder"

	activityValidatePayment   = contracts.StepValidatePayment
	activityReserveInventory  = contracts.StepReserveInventory
	activityRequestApproval   = "RequestApproval"
	activitySettleApproval    = "SettleApproval"
	activityProcessShipment   = contracts.StepProcessShipment
	activitySendEmail         = "SendEmailNotification"
	activitySendSMS           = "SendSMSNotification"
	activitySendPush          = "SendPushNotification"
	activityUpdateOrderStatus = "UpdateOrderStatus"

	activityRefundPayment    = contracts.StepRefundPayment
	activityReleaseInventory = contracts.StepReleaseInventory
	activityCancelShipment   = contracts.StepCancelShipment

	activityReadDecisions = "ReadDecisions"
	activityAskForRepair  = "AskForRepair"
	activityTakeRepair    = "TakeRepair"

	// signal is the one event that a saga looks for. It says nothing but that the journal has news; what counts is what
	// stands there (docs/adr/0012).
	signal = "Signal"
)

// compensationID is the instance id of an order's compensation; after a repair, and after a restart, there is a further one.
// Order ids hold no colon.
func compensationID(orderID string, round, restart int) string {
	id := orderID + ":compensation"
	if round > 1 {
		id += ":" + strconv.Itoa(round)
	}
	if restart > 0 {
		id += ":restart:" + strconv.Itoa(restart)
	}
	return id
}
