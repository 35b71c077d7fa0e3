package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"

	"waybill/contracts"
	"waybill/devrun/internal/broker"
	"waybill/devrun/internal/inbox"
	"waybill/devrun/internal/local"
	"waybill/devrun/internal/ports"
	"waybill/devrun/internal/runfile"
)

// runBroker runs what the sidecars of `dapr run -f .` need and the Dapr CLI does not provide: the broker and the inbox.
func runBroker(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("devrun broker", flag.ContinueOnError)
	data := flags.String("data", "", "`folder` for topics, offsets and messages (default .waybill beside dapr.yaml)")
	host := flags.String("host", inbox.Loopback, "`address` to listen on")
	port := flags.Int("port", 9092, "`port` to listen on")
	advertise := flags.String("advertise", "", "`host:port` to tell clients, when they reach the broker under another one than it listens on")
	withInbox := flags.Bool("inbox", true, "run the inbox too, on its usual ports")
	quiet := flags.Bool("quiet", false, "say nothing but warnings")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	dir, err := openData(*data)
	if err != nil {
		return err
	}
	if !*quiet { // of a child its runner has looked at the folder
		if err := dir.Check(); err != nil {
			return err
		}
	}
	release, err := dir.Lock("broker.lock", "the embedded broker")
	if err != nil {
		return err
	}
	defer release()
	needs := []ports.Need{{For: "the embedded broker", Usual: *port, Known: true}}
	if *withInbox {
		needs = append(needs, inboxNeeds(local.InboxMailPort, local.InboxHTTPPort)...)
	}
	if _, err := ports.Choose(needs); err != nil {
		return err
	}
	retention, err := broker.ReadRetention(os.Getenv("BROKER_RETENTION"))
	if err != nil {
		return err
	}
	listen := broker.Listen{Host: *host, Port: *port, Advertised: *advertise}
	b, err := broker.Start(dir.Broker(), listen, contracts.Topics(), retention, os.Stderr)
	if err != nil {
		return err
	}
	defer b.Close()
	var in *inbox.Inbox
	if *withInbox {
		var release func()
		if in, release, err = openInbox(dir, *host, local.InboxMailPort, local.InboxHTTPPort); err != nil {
			return err
		}
		defer release()
		defer func() { err = errors.Join(err, in.Close()) }()
	}
	if !*quiet {
		root, err := runfile.Root(".")
		if err != nil {
			return err
		}
		err = say(out, `The embedded broker listens on %s and keeps its data in %s.
`, b.Addr(), dir.Broker())
		if err == nil && in != nil {
			err = say(out, `The inbox takes mail on %s, SMS and push on %s; "make inbox" shows what came.
`, in.SMTP(), in.HTTP())
		}
		if err == nil {
			err = say(out, `
With the Dapr CLI (after "dapr init"), in another terminal, in %s:

  APP_API_TOKEN=local dapr run -f .

Its warehouse is empty at first, and no customer can be reached. When the apps listen, give it a product to sell, and a
customer:

  curl -X PUT http://127.0.0.1:8002/v1/inventory/PROD-001 -H 'Content-Type: application/json' -d '{"on_hand":1000}'
  curl -X PUT http://127.0.0.1:8004/v1/customers/CUST-123/contact -H 'Content-Type: application/json' -d '{"name":"Test Customer","email":"cust-123@example.com","phone":"+12065550123"}'

Ctrl-C stops this.
`, root)
		}
		if err != nil {
			return err
		}
	}
	if in != nil {
		return in.Wait(ctx)
	}
	<-ctx.Done()
	return nil
}
