package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"waybill/devrun/internal/compose"
	"waybill/devrun/internal/console"
	"waybill/devrun/internal/local"
	"waybill/devrun/internal/runfile"
)

// runCompose starts or removes the system in containers.
func runCompose(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("devrun compose", flag.ContinueOnError)
	within := flags.Duration("ready-within", 3*time.Minute, "up: give up when the system is not ready after this `time`")
	plain := flags.Bool("no-color", false, "no colours")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	if flags.NArg() != 1 || flags.Arg(0) != "up" && flags.Arg(0) != "down" {
		return errors.Join(errors.New("devrun compose up, or devrun compose down"), flag.ErrHelp)
	}
	root, err := runfile.Root(".")
	if err != nil {
		return err
	}
	system, err := compose.Open(ctx, root, out)
	if err != nil {
		return err
	}
	if flags.Arg(0) == "down" {
		return system.Down(ctx)
	}
	began := time.Now()
	if err := system.Up(ctx); err != nil {
		return err
	}
	terminal := console.New(out, coloured(out, *plain), 0)
	terminal.Sayf("waiting until every service is ready, for %s at most", *within)
	waiting, cancel := context.WithTimeoutCause(ctx, *within, fmt.Errorf("not ready within %s", *within))
	defer cancel()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	if err := compose.WaitReady(waiting, client); err != nil {
		return fmt.Errorf("%w\n%s\nThe logs: docker logs <name>", err, system.State(ctx))
	}
	terminal.Sayf("everything is ready, %s after the first container was started", time.Since(began).Round(100*time.Millisecond))
	terminal.Block(composeSummary())
	return nil
}

// composeSummary is what a person needs to know once the system runs.
func composeSummary() string {
	var b strings.Builder
	b.WriteString("\n")
	for _, service := range compose.Services() {
		base := compose.URL(service)
		fmt.Fprintf(&b, "  %-13s %s   docs %s/docs   OpenAPI %s/openapi.json\n", service, base, base, base)
	}
	fmt.Fprintf(&b, "  %-13s make compose-inbox shows the mail and the SMS that customers got\n", "inbox")
	b.WriteString(local.Invitation(compose.URL("orders")))
	b.WriteString("make compose-down stops everything and removes what it stored.\n\n")
	return b.String()
}
