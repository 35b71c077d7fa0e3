// Package store keeps stock, reservations and saga records in the state store. Every write can be repeated: a step that runs again
// finds what it did before.
package store

// Keys of the documents. Order and product ids hold no colon, so keys cannot collide.
func stockKey(product string) string     { return "stock:" + product }
func reservationKey(order string) string { return "reservation:" + order }
func sagaKey(order string) string        { return "saga:" + order }
