package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"time"

	"waybill/contracts"
	"waybill/devrun/internal/broker"
	"waybill/devrun/internal/inbox"
	"waybill/devrun/internal/local"
)

// check asks another process of the same container whether it works. It is the health check of the image, which has no other
// program for that.
func check(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.Join(errors.New("devrun check broker, or devrun check inbox"), flag.ErrHelp)
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	switch args[0] {
	case "broker":
		return broker.Check(ctx, broker.Address(9092), contracts.Topics())
	case "inbox":
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		return inbox.Check(ctx, client, inbox.Address(local.InboxMailPort), "http://"+inbox.Address(local.InboxHTTPPort))
	default:
		return fmt.Errorf("there is no check of %q", args[0])
	}
}
