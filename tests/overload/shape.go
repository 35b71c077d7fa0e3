package main

import (
	"fmt"
	"time"

	"waybill/tests/internal/client"
)

// shape is what the orders of a burst have in common.
type shape struct {
	name string
	// products and customers are the numbers that the orders are spread over.
	products, customers int
	zip                 string
	// takes is how long an order takes at least.
	takes time.Duration
	// inFlight is how many orders are kept in flight to measure the capacity.
	inFlight int
	// other means that another customer places an order every second meanwhile.
	other bool
	// bus means that another system publishes the orders, so they cannot be refused.
	bus bool
}

const (
	usualInFlight = 32
	// plenty is the stock of each product, enough for all orders.
	plenty = 1_000_000
)

func allShapes() []shape {
	return []shape{
		{name: "many products", products: 20, customers: 200, inFlight: usualInFlight},
		{name: "one product", products: 1, customers: 200, inFlight: usualInFlight},
		{name: "one customer", products: 20, customers: 1, inFlight: usualInFlight, other: true},
		// The carrier's time costs no work, so enough orders must be in flight to keep the machine busy.
		{name: "slow carrier", products: 20, customers: 200, zip: "X-SLOW-10", takes: 10 * time.Second, inFlight: 160},
		{name: "bus", products: 20, customers: 200, inFlight: usualInFlight, bus: true},
	}
}

func quickShapes() []shape {
	all := allShapes()
	return []shape{all[1], all[4]}
}

func product(n int) string { return fmt.Sprintf("PROD-%03d", n+1) }

// order is the body of order number n.
func (s shape) order(id string, n int) map[string]any {
	customer := fmt.Sprintf("CUST-%d", 1+n%s.customers)
	if s.customers == 1 {
		customer = "CUST-123"
	}
	body := client.Body(customer, 99.98, client.Line(product(n%s.products), quantity, 49.99))
	body["order_id"] = id
	if s.zip != "" {
		body["shipping_address"].(map[string]any)["zip"] = s.zip
	}
	return body
}

// otherCustomer is the customer who orders every second while another one orders all the time.
const otherCustomer = "CUST-124"

// quantity is the number of pieces of an order.
const quantity = 2
