// Command doctor compares what the services store and names every difference with its remedy. It is not part of devrun because it
// needs SQLite, and building SQLite would delay the runner.
//
// It exits with 0 if there is no difference, 1 if there is one, and 2 if it could not compare.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"waybill/contracts"
	"waybill/devrun/internal/datadir"
	"waybill/devrun/internal/doctor"
	"waybill/devrun/internal/runfile"
	"waybill/devrun/internal/status"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	healthy, err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "doctor:", err)
		os.Exit(2)
	case !healthy:
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, progress io.Writer) (healthy bool, err error) {
	flags := flag.NewFlagSet("doctor", flag.ContinueOnError)
	data := flags.String("data", "", "data `folder` of the system (default .waybill beside dapr.yaml)")
	asJSON := flags.Bool("json", false, "print JSON")
	grace := flags.Duration("grace", 30*time.Second, "`time` for which a difference of a running system must last; on a stopped one, what was written in the last such time is not judged")
	var kept doctor.Kept
	retention := func(into *time.Duration, name, variable string, usual time.Duration) {
		if set, err := time.ParseDuration(os.Getenv(variable)); err == nil {
			usual = set
		}
		flags.DurationVar(into, name, usual, "`time` for which they are kept after their end, as "+variable+" says; 0 is for ever")
	}
	retention(&kept.Orders, "orders-kept", "ORDER_RETENTION", 0)
	retention(&kept.Sagas, "sagas-kept", "SAGA_RETENTION", 0)
	retention(&kept.Messages, "messages-kept", "MESSAGE_RETENTION", 2160*time.Hour)
	var a doctor.Addresses
	flags.StringVar(&a.Orders, "orders", "", "`address` of orders, such as http://127.0.0.1:8001: ask the services and not a data folder")
	flags.StringVar(&a.Fulfillment, "fulfillment", "", "`address` of fulfillment")
	flags.StringVar(&a.Notifications, "notifications", "", "`address` of notifications")
	flags.Func("order", "`id` of an order to look at although it has ended, with addresses; can be given many times, - reads ids from the standard input", func(id string) error {
		if id != "-" {
			a.IDs = append(a.IDs, id)
			return nil
		}
		ids, err := io.ReadAll(os.Stdin)
		a.IDs = append(a.IDs, strings.Fields(string(ids))...)
		return err
	})
	flags.Func("product", "`id` of a product to look at, with addresses; can be given many times", func(id string) error { a.Products = append(a.Products, id); return nil })
	recreate := flags.Bool("recreate", false, "have orders take back the orders that it lost, with what fulfilment's journal holds of them; the system must run")
	if err := flags.Parse(args); err != nil {
		return false, err
	}
	if flags.NArg() > 0 {
		return false, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	o := doctor.Options{Grace: *grace, Kept: kept, Progress: func(text string) { _, _ = fmt.Fprintln(progress, text) }}
	remote := a.Orders+a.Fulfillment+a.Notifications != ""
	if remote && (*recreate || *data != "") {
		return false, errors.New("--recreate and --data need a data folder: the journal's content is read from its files, and no address is given beside them")
	}
	var folder datadir.Dir
	var report *doctor.Report
	if remote {
		report, err = doctor.Remote(ctx, a, o)
	} else {
		if folder, err = dataFolder(*data); err != nil {
			return false, err
		}
		o.Running = running(folder)
		report, err = doctor.Folder(ctx, folder.State(), o)
	}
	if err != nil {
		return false, err
	}
	if *asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(report)
	} else {
		err = report.Print(out)
	}
	if err != nil || !*recreate {
		return report.Healthy(), err
	}
	return report.Healthy(), recreateOrders(ctx, folder, report, progress)
}

func recreateOrders(ctx context.Context, folder datadir.Dir, report *doctor.Report, out io.Writer) error {
	system, err := status.Read(folder.SystemFile())
	if err != nil || !system.Ready || !report.Running {
		return errors.Join(err, errors.New("orders are placed again on a running system: start it with `make up`"))
	}
	n := 0
	err = doctor.Recreate(ctx, folder.State(), &http.Client{Timeout: 30 * time.Second}, system.Apps[contracts.AppOrders].URL, report, func(id string, err error) {
		n++
		if err != nil {
			_, _ = fmt.Fprintf(out, "order %s was not placed again: %v\n", id, err)
			return
		}
		_, _ = fmt.Fprintf(out, "order %s was placed again\n", id)
	})
	if n == 0 && err == nil {
		_, _ = fmt.Fprintln(out, "no order need be placed again")
	}
	return err
}

func dataFolder(flagged string) (datadir.Dir, error) {
	if flagged == "" {
		root, err := runfile.Root(".")
		if err != nil {
			return "", err
		}
		flagged = filepath.Join(root, ".waybill")
	}
	path, err := filepath.Abs(flagged)
	return datadir.Dir(path), err
}

// running reports whether the runner, or a part of what it started, works on the folder.
func running(folder datadir.Dir) bool {
	system, err := status.Read(folder.SystemFile())
	if err != nil {
		return false
	}
	alive := func(pid int) bool {
		process, err := os.FindProcess(pid)
		return pid > 0 && err == nil && (process.Signal(syscall.Signal(0)) == nil || errors.Is(process.Signal(syscall.Signal(0)), syscall.EPERM))
	}
	if alive(system.Runner) {
		return true
	}
	for _, p := range system.Processes {
		if alive(p.PID) {
			return true
		}
	}
	return false
}
