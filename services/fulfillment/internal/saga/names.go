// Package saga defines how an order is fulfilled: capture the payment, reserve the stock, wait for the approval of a large order, ship,
// announce the outcome. If a step fails, the saga compensates the completed steps, newest first. The package owns the workflow, its
// activities, and the interfaces of what they call. It knows no store and no HTTP. Package operations starts sagas and records what
// people decide about them.
//
// Start with fulfillOrder in workflow.go: it shows the whole way of an order.
package saga

import (
	"strconv"

	"waybill/contracts"
)

// Stored names. The histories of live orders contain them, so a renamed one would strand those orders.
const (
	// WorkflowName is the workflow that fulfils an order. Its instance id is the order's id.
	WorkflowName            = "FulfillOrder"
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

	// Signal is the only event that a saga waits for. It says that the saga record may have changed, and carries no data: only the
	// record counts (docs/adr/0012).
	Signal = "Signal"
)

// compensationID is the instance id of an order's compensation. Each repair and each restart has a further one. Order ids hold no colon.
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
