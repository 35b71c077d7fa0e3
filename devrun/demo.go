package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"syscall"
	"time"

	"waybill/contracts"
	"waybill/devrun/internal/datadir"
	"waybill/devrun/internal/demo"
	"waybill/devrun/internal/local"
	"waybill/devrun/internal/runfile"
	"waybill/devrun/internal/status"
)

var errNotRunning = errors.New("nothing is ready to take orders: start the system with `make up` in another terminal, and wait until it says that everything is ready")

// runDemo runs the demo on a running system.
func runDemo(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("devrun demo", flag.ContinueOnError)
	data := flags.String("data", "", "`folder` the system runs on (default .waybill beside dapr.yaml)")
	within := flags.Duration("within", 2*time.Minute, "give up after this `time`")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	root, err := runfile.Root(".")
	if err != nil {
		return err
	}
	folder, err := filepath.Abs(dataFolder(root, *data))
	if err != nil {
		return err
	}
	dir := datadir.Dir(folder)
	system, err := status.Read(dir.SystemFile())
	if errors.Is(err, fs.ErrNotExist) || err == nil && !system.Ready {
		return errNotRunning
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, *within, fmt.Errorf("gave up after %s", *within))
	defer cancel()
	err = demo.Run(ctx, &http.Client{Timeout: 30 * time.Second}, demo.System{
		Orders:      system.Apps[contracts.AppOrders].URL,
		Fulfillment: system.Apps[contracts.AppFulfillment].URL,
	}, out)
	if errors.Is(err, syscall.ECONNREFUSED) { // the runner that wrote the system file was killed
		return errors.Join(err, errNotRunning)
	}
	if err != nil {
		return err
	}
	return say(out, "%s shows the mail, SMS and push messages that these orders sent.\n", local.ShowInbox(root, dir))
}
