// Command devrun runs Waybill on this machine, with Go alone: no containers, no cloud.
//
//	devrun up        builds what is missing and runs the whole system of dapr.yaml until Ctrl-C
//	devrun build     builds the same and stops
//	devrun inbox     shows the mail, SMS and push messages that customers got
//	devrun demo      places orders on a running system and shows how each of them ends
//	devrun images    packs the container images and has Docker make them
//	devrun compose   starts or removes the system in containers
//	devrun broker    runs the embedded broker and the inbox alone, for `dapr run -f .` with the Dapr CLI
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
  devrun inbox [flags]    show the mail, SMS and push messages that customers got
  devrun demo [flags]     place orders on a running system and show how each of them ends
  devrun images [flags]   pack the container images and have Docker make them
  devrun compose up|down  start the system in containers and wait for it, or remove it with its data
  devrun broker [flags]   run the embedded broker and the inbox alone, for the Dapr CLI

Flags: devrun up -h, devrun build -h, devrun inbox -h, devrun demo -h, devrun broker -h
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
	case "inbox":
		return showInbox(ctx, args[1:], out)
	case "demo":
		return runDemo(ctx, args[1:], out)
	case "images":
		return makeImages(ctx, args[1:], out)
	case "compose":
		return runCompose(ctx, args[1:], out)
	case "broker":
		return runBroker(ctx, args[1:], out)
	case "samples": // not for people: containers run it once the services are ready
		return loadSamples(ctx, args[1:], out)
	case "check": // not for people: the health check of a container
		return check(ctx, args[1:])
	case "receive": // not for people: "up" runs the inbox with it, as a process of its own
		return receive(ctx, args[1:])
	case "help", "-h", "--help":
		return say(out, usage)
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
	workflows, badWorkflows := duration("WORKFLOW_RETENTION")
	cleanup, badCleanup := duration("STATE_CLEANUP_INTERVAL")
	_, badBroker := broker.ReadRetention(os.Getenv("BROKER_RETENTION"))
	if err := errors.Join(badWorkflows, badCleanup, badBroker); err != nil {
		return err
	}
	return local.Up(ctx, hurry, local.Options{
		Root:        root,
		Data:        dataFolder(root, *data),
		FreePorts:   *free,
		ReadyWithin: *within,
		Topics:      contracts.Topics(),
		Out:         out,
		Colour:      coloured(out, *plain),

		WorkflowRetention: workflows, StateCleanup: cleanup,
	})
}

// duration reads an environment variable; unset it is zero.
func duration(name string) (time.Duration, error) {
	text := os.Getenv(name)
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Second {
		return 0, fmt.Errorf("%s is %q: a duration of at least 1s is expected, such as 1h", name, text)
	}
	return d, nil
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

// openData opens the folder a --data flag means. Only without the flag must this be a clone of the repository.
func openData(flagged string) (datadir.Dir, error) {
	path, err := dataPath(flagged)
	if err != nil {
		return "", err
	}
	return datadir.Open(path)
}

func dataPath(flagged string) (string, error) {
	if flagged != "" {
		return filepath.Abs(flagged)
	}
	root, err := runfile.Root(".")
	if err != nil {
		return "", err
	}
	return dataFolder(root, ""), nil
}

// dataFolder is the folder a --data flag means: relative to the working directory if given, else the usual one.
func dataFolder(root, flagged string) string {
	if flagged == "" {
		return filepath.Join(root, ".waybill")
	}
	return flagged
}
