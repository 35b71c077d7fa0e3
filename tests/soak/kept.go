package main

import (
	"time"

	"waybill/tests/internal/stored"
)

// retentions make time run faster: what a system keeps for hours or months is kept for a part of a window.
type retentions struct {
	// ended is how long orders, messages, idempotency keys, finished workflows and events are kept.
	ended time.Duration
	// cleanup is how often the state stores remove expired records.
	cleanup time.Duration
	// address is how long a message waits for an address, which most customers of a run do not have.
	address time.Duration
}

func retentionsFor(window time.Duration) retentions {
	ended := min(max(window/3, 8*time.Second), time.Minute).Truncate(time.Second)
	return retentions{ended: ended, cleanup: max(ended/6, 2*time.Second).Truncate(time.Second), address: max(ended/3, 3*time.Second).Truncate(time.Second)}
}

// gone is how long after the end of an order all its records with a retention are removed, with a margin for a busy machine.
func (r retentions) gone() time.Duration { return r.ended + r.address + 2*r.cleanup + time.Minute }

func (r retentions) environment() []string {
	var environment []string
	for _, name := range []string{"ORDER_RETENTION", "MESSAGE_RETENTION", "IDEMPOTENCY_TTL", "WORKFLOW_RETENTION", "BROKER_RETENTION"} {
		environment = append(environment, name+"="+r.ended.String())
	}
	return append(environment, "STATE_CLEANUP_INTERVAL="+r.cleanup.String(), "ADDRESS_WAIT="+r.address.String())
}

// keeping is how long records of a kind stay.
type keeping int

const (
	// forAWhile: each is removed some time after its order has ended.
	forAWhile keeping = iota + 1
	// forEver: each order leaves some.
	forEver
	// few: their number does not depend on the number of orders.
	few
)

// expected is how many records of a kind a run may leave.
type expected struct {
	keeping keeping
	// perOrder is the most that an order leaves, for kinds that stay.
	perOrder float64
}

// kinds are all kinds of stored records. docs/adr/0033 says how long each is kept outside of a run, and who reads it last.
var kinds = map[string]expected{
	stored.Jobs:                               {keeping: forAWhile},
	"fulfillment.workflowstore/history":       {keeping: forAWhile},
	"fulfillment.workflowstore/inbox":         {keeping: forAWhile},
	"fulfillment.workflowstore/state":         {keeping: forAWhile}, // metadata and status
	"orders.statestore/order":                 {keeping: forAWhile},
	"orders.statestore/idempotency":           {keeping: forAWhile},
	"notifications.statestore/order-messages": {keeping: forAWhile},
	"notifications.statestore/message":        {keeping: forAWhile},

	"fulfillment.statestore/saga":        {keeping: forEver, perOrder: 1},
	"fulfillment.statestore/payment":     {keeping: forEver, perOrder: 1},
	"fulfillment.statestore/reservation": {keeping: forEver, perOrder: 1},
	"fulfillment.statestore/shipment":    {keeping: forEver, perOrder: 1},
	// Pages of 200 entries, which stay for an hour after they are empty.
	"orders.statestore/backlog":        {keeping: forEver, perOrder: 0.03},
	"fulfillment.statestore/backlog":   {keeping: forEver, perOrder: 0.03},
	"notifications.statestore/backlog": {keeping: forEver, perOrder: 0.2},
	// For 30 days.
	"analytics/AnalyticsEvents": {keeping: forEver, perOrder: 1},

	"orders.statestore/readiness":         {keeping: few},
	"fulfillment.statestore/readiness":    {keeping: few},
	"notifications.statestore/readiness":  {keeping: few},
	"analytics.statestore/readiness":      {keeping: few},
	"orders.statestore/customer":          {keeping: few},
	"fulfillment.statestore/stock":        {keeping: few},
	"notifications.statestore/contact":    {keeping: few},
	"notifications.statestore/vapid-keys": {keeping: few},
	"analytics/RealtimeMetrics":           {keeping: few},
	"analytics/Anomalies":                 {keeping: few},
}

// someRows is how many records may be added to a kind that does not grow with the orders: customers and products of a run, and
// points of a series.
const someRows = 600
