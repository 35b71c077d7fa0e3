// Package saga fulfils an order: it charges, reserves, ships and reports, or undoes what it did, newest first. It owns
// the workflow, its activities and the interfaces of what they need; it knows no store and no HTTP.
//
// workflow.go is the place to start: FulfillOrder is the whole way of an order on one screen.
package saga

import "waybill/contracts"

// Durable names. Live orders keep them in their history: renaming one strands those orders.
const (
	workflowFulfillOrder    = "FulfillOrder"
	workflowCompensateOrder = "CompensateOrder"

	activityValidatePayment   = contracts.StepValidatePayment
	activityReserveInventory  = contracts.StepReserveInventory
	activityProcessShipment   = contracts.StepProcessShipment
	activityUpdateOrderStatus = "UpdateOrderStatus"

	activityRefundPayment    = contracts.StepRefundPayment
	activityReleaseInventory = contracts.StepReleaseInventory
	activityCancelShipment   = contracts.StepCancelShipment
)

// compensationID is the instance id of an order's compensation. Order ids hold no colon.
func compensationID(orderID string) string { return orderID + ":compensation" }
