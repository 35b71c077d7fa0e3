// Command devrun runs Waybill on this machine, with Go alone: no containers, no cloud.
//
//	devrun up        builds what is missing and runs the whole system of dapr.yaml until Ctrl-C
//	devrun build     builds the same and stops
//	devrun broker    runs the embedded broker alone, for `dapr run -f .` with the Dapr CLI
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"waybill/contracts"
	"waybill/devrun/internal/broker"
	"waybill/devrun/internal/console"
	"waybill/devrun/internal/datadir"
	"waybill/devrun/internal/local"
	"waybill/devrun/internal/ports"
	"waybill/devrun/internal/runfile"
)

func main() {
	ctx, hurry, done := signals()
	err := run(ctx, hurry, os.Args[1:], os.Stdout)
	done()
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "devrun:", err)
		os.Exit(1)
	}
}

// signals turns the first Ctrl-C or SIGTERM into the end of ctx and the second into the closing of hurry.
func signals() (ctx context.Context, hurry <-chan struct{}, done func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	got := make(chan os.Signal, 2)
	signal.Notify(got, os.Interrupt, syscall.SIGTERM)
	quick := make(chan struct{})
	over := make(chan struct{})
	var owner sync.WaitGroup
	owner.Go(func() {
		for n := 0; ; n++ {
			select {
			case sig := <-got:
				switch n {
				case 0:
					cancel(fmt.Errorf("received %s", sig))
				case 1:
					close(quick)
				}
			case <-over:
				return
			}
		}
	})
	return ctx, quick, func() {
		signal.Stop(got)
		close(over)
		owner.Wait()
		cancel(nil)
	}
}

const usage = `devrun runs Waybill on this machine.

  devrun up [flags]       run the whole system of dapr.yaml until Ctrl-C
  devrun build [flags]    build what "up" runs (the pinned Dapr runtime, the services), say where it is, and stop
  devrun broker [flags]   run the embedded broker alone, for the Dapr CLI

Flags: devrun up -h, devrun build -h, devrun broker -h
`

func run(ctx context.Context, hurry <-chan struct{}, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.Join(say(out, usage), flag.ErrHelp)
	}
	switch args[0] {
	case "up":
		return up(ctx, hurry, args[1:], out)
	case "build":
		return runBuild(ctx, args[1:], out)
	case "broker":
		return runBroker(ctx, args[1:], out)
	default:
		return errors.Join(say(out, usage), fmt.Errorf("no command %q", args[0]))
	}
}

func say(out io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintf(out, format, args...)
	return err
}

func up(ctx context.Context, hurry <-chan struct{}, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("devrun up", flag.ContinueOnError)
	data := flags.String("data", "", "`folder` for state, logs and component files (default .waybill beside dapr.yaml)")
	free := flags.Bool("free-ports", false, "use any free ports, to run next to another `devrun up`")
	plain := flags.Bool("no-color", false, "no colours")
	within := flags.Duration("ready-within", 3*time.Minute, "give up when the system is not ready after this `time`; builds do not count")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	root, err := runfile.Root(".")
	if err != nil {
		return err
	}
	return local.Up(ctx, hurry, local.Options{
		Root:        root,
		Data:        dataFolder(root, *data),
		FreePorts:   *free,
		ReadyWithin: *within,
		Topics:      contracts.Topics(),
		Out:         out,
		Reads:       subscribed(),
		Colour:      coloured(out, *plain),
	})
}

// subscribed lists the topics that each app reads.
func subscribed() map[string][]string {
	topics := map[string][]string{}
	for _, s := range contracts.Subscriptions() {
		topics[s.App] = append(topics[s.App], s.Topic)
	}
	return topics
}

func coloured(out io.Writer, plain bool) bool {
	return !plain && out == io.Writer(os.Stdout) && console.Terminal(os.Stdout)
}

func runBuild(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("devrun build", flag.ContinueOnError)
	data := flags.String("data", "", "`folder` whose bin/ the services go to (default .waybill beside dapr.yaml); Dapr always goes to .waybill/bin")
	plain := flags.Bool("no-color", false, "no colours")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	root, err := runfile.Root(".")
	if err != nil {
		return err
	}
	return local.Build(ctx, root, dataFolder(root, *data), out, coloured(out, *plain))
}

func runBroker(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("devrun broker", flag.ContinueOnError)
	data := flags.String("data", "", "`folder` for topics and offsets (default .waybill beside dapr.yaml)")
	port := flags.Int("port", 9092, "`port` to listen on, on 127.0.0.1")
	quiet := flags.Bool("quiet", false, "say nothing but warnings")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	root, err := runfile.Root(".")
	if err != nil {
		return err
	}
	dir, err := datadir.Open(dataFolder(root, *data))
	if err != nil {
		return err
	}
	release, err := dir.Lock("broker.lock", "the embedded broker")
	if err != nil {
		return err
	}
	defer release()
	if _, err := ports.Choose([]ports.Need{{For: "the embedded broker", Usual: *port, Known: true}}); err != nil {
		return err
	}
	b, err := broker.Start(dir.Broker(), *port, contracts.Topics(), os.Stderr)
	if err != nil {
		return err
	}
	defer b.Close()
	if !*quiet {
		err := say(out, `The embedded broker listens on %s and keeps its data in %s.

With the Dapr CLI (after "dapr init"), in another terminal, in %s:

  APP_API_TOKEN=local dapr run -f .

Its warehouse is empty at first. When both apps listen, give it a product to sell:

  curl -X PUT http://127.0.0.1:8002/v1/inventory/PROD-001 -H 'Content-Type: application/json' -d '{"on_hand":1000}'

Ctrl-C stops the broker.
`, b.Addr(), dir.Broker(), root)
		if err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// dataFolder is the folder a --data flag means: relative to the working directory if given, else the usual one.
func dataFolder(root, flagged string) string {
	if flagged == "" {
		return filepath.Join(root, ".waybill")
	}
	return flagged
}
