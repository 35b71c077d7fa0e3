package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"waybill/devrun/internal/datadir"
	"waybill/devrun/internal/inbox"
	"waybill/devrun/internal/local"
	"waybill/devrun/internal/ports"
)

// receive runs the inbox until ctx ends.
func receive(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("devrun receive", flag.ContinueOnError)
	data := flags.String("data", "", "`folder` for messages (default .waybill beside dapr.yaml)")
	host := flags.String("host", inbox.Loopback, "`address` to listen on")
	smtpPort := flags.Int("smtp-port", local.InboxMailPort, "`port` for mail")
	httpPort := flags.Int("http-port", local.InboxHTTPPort, "`port` for SMS and push")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	dir, err := openData(*data)
	if err != nil {
		return err
	}
	if _, err := ports.Choose(inboxNeeds(*smtpPort, *httpPort)); err != nil {
		return err
	}
	in, release, err := openInbox(dir, *host, *smtpPort, *httpPort)
	if err != nil {
		return err
	}
	defer release()
	defer func() { err = errors.Join(err, in.Close()) }()
	return in.Wait(ctx)
}

func inboxNeeds(smtpPort, httpPort int) []ports.Need {
	return []ports.Need{
		{For: "mail to the inbox", Usual: smtpPort, Known: true},
		{For: "SMS and push to the inbox", Usual: httpPort, Known: true},
	}
}

// openInbox starts the inbox of dir. No other process may receive into it until release is called.
func openInbox(dir datadir.Dir, host string, smtpPort, httpPort int) (_ *inbox.Inbox, release func(), err error) {
	release, err = dir.Lock("inbox.lock", "the inbox")
	if err != nil {
		return nil, nil, err
	}
	in, err := inbox.Start(dir.Inbox(), host, smtpPort, httpPort, os.Stderr)
	if err != nil {
		release()
		return nil, nil, err
	}
	return in, release, nil
}

// showInbox prints the stored messages, newest last.
func showInbox(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("devrun inbox", flag.ContinueOnError)
	data := flags.String("data", "", "`folder` the system runs on (default .waybill beside dapr.yaml)")
	follow := flags.Bool("follow", false, "go on with what comes, until Ctrl-C")
	asJSON := flags.Bool("json", false, "one JSON object a line, as they are kept")
	order := flags.String("order", "", "only messages about the order of this `id`")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("devrun inbox takes flags only, not %q", flags.Arg(0))
	}
	folder, err := dataPath(*data)
	if err != nil {
		return err
	}
	dir := datadir.Dir(folder)
	reader := inbox.NewReader(dir.Inbox())
	shown, ignored, err := show(reader, out, *order, *asJSON)
	if err != nil {
		return err
	}
	if shown == 0 && !*asJSON {
		if err := say(out, "%s", nothingYet(dir, *order, ignored)); err != nil {
			return err
		}
	}
	if !*follow {
		return nil
	}
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if _, _, err := show(reader, out, *order, *asJSON); err != nil {
				return err
			}
		}
	}
}

// show prints the messages since the last call; ignored counts those that are not about the order.
func show(reader *inbox.Reader, out io.Writer, order string, asJSON bool) (shown, ignored int, err error) {
	messages, damaged, err := reader.Next()
	if err != nil {
		return 0, 0, err
	}
	for _, m := range messages {
		if order != "" && !m.About(order) {
			ignored++
			continue
		}
		shown++
		if asJSON {
			err = json.NewEncoder(out).Encode(m)
		} else {
			err = inbox.Print(out, m, time.Local) //nolint:gosmopolitan // read by the person at this terminal
		}
		if err != nil {
			return shown, ignored, err
		}
	}
	if damaged > 0 {
		_, err = fmt.Fprintf(os.Stderr, "devrun: %d damaged lines in the inbox were passed over\n", damaged)
	}
	return shown, ignored, err
}

// nothingYet explains that there are no messages, and what to do.
func nothingYet(dir datadir.Dir, order string, ignored int) string {
	if ignored > 0 {
		return fmt.Sprintf("No message names order %s; %d others are there. A customer without a contact gets none, and an order in progress none yet.\n",
			order, ignored)
	}
	return fmt.Sprintf(`No messages in %s yet.

Start the system with "make up" and place the order that it prints: CUST-123 gets a mail, an SMS and a push message when
it is shipped. Another customer needs an address first (PUT /v1/customers/<id>/contact on notifications).
`, inbox.File(dir.Inbox()))
}
