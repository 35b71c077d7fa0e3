package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"net/http"
	"time"

	"waybill/devrun/internal/contacts"
	"waybill/devrun/internal/stock"
)

// loadSamples gives a running system in containers what `devrun up` gives the one it starts: sample stock, and a customer
// who can be reached. What is there already stays as it is.
func loadSamples(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("devrun samples", flag.ContinueOnError)
	fulfillment := flags.String("fulfillment", "http://127.0.0.1:8002", "`address` of the service that keeps the stock")
	notifications := flags.String("notifications", "http://127.0.0.1:8004", "`address` of the service that knows the customers")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	items, err := stock.Sample()
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: 5 * time.Second}
	added, stockErr := stock.Load(ctx, client, *fulfillment, items)
	// The inbox of a container is no push service that notifications would call: it is not on its own machine.
	changed, contactErr := contacts.Load(ctx, client, *notifications, "")
	if err := errors.Join(stockErr, contactErr); err != nil {
		return err
	}
	known := "was known already"
	if changed {
		known = "can be reached"
	}
	return say(out, "put %d of %d sample products into the warehouse; %s %s\n", added, len(items), contacts.Customer, known)
}
