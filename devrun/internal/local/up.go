// Package local runs the whole system on this machine: it decides what runs where, starts it in order, says when it is
// ready, and stops it in order. The parts it puts together (builds, ports, processes, terminal) live in packages of their
// own and do not know each other.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"waybill/contracts"
	"waybill/devrun/internal/child"
	"waybill/devrun/internal/components"
	"waybill/devrun/internal/console"
	"waybill/devrun/internal/contacts"
	"waybill/devrun/internal/datadir"
	"waybill/devrun/internal/inbox"
	"waybill/devrun/internal/runfile"
	"waybill/devrun/internal/status"
	"waybill/devrun/internal/stock"
	"waybill/devrun/internal/supervise"
)

// Options of Up.
type Options struct {
	Root        string // the folder of dapr.yaml
	Data        string // the data folder
	FreePorts   bool   // any free ports instead of the usual ones
	ReadyWithin time.Duration
	Topics      []string
	Out         io.Writer
	Colour      bool
	// WorkflowRetention and StateCleanup replace those of the component files, unless they are zero.
	WorkflowRetention, StateCleanup time.Duration
}

// ErrKilled says that the system was not stopped but killed.
var ErrKilled = errors.New("everything was killed; what was in flight is done again at the next start")

// logLimit is how large a process's log file gets before it is put aside.
const logLimit = 10 << 20

// Up starts the system and keeps it running until ctx ends, then stops it in order and returns nil. Closing hurry ends
// everything at once instead, also while it is being stopped, and makes for an ErrKilled. Any other error means that the
// system could not be started. Nothing is left running in any case.
func Up(ctx context.Context, hurry <-chan struct{}, opt Options) (err error) {
	file, err := runfile.Load(opt.Root)
	if err != nil {
		return err
	}
	data, err := datadir.Open(opt.Data)
	if err != nil {
		return err
	}
	// Before anything is started, and before anything is written: what fails later says less.
	if err := data.Check(); err != nil {
		return err
	}
	release, err := data.Lock("lock", "the runner")
	if err != nil {
		return err
	}
	defer release()
	if err := os.Remove(data.SystemFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old system file: %w", err)
	}

	p := &plan{data: data, file: file, topics: opt.Topics, token: newToken()}
	if p.self, err = os.Executable(); err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	// Before anything is built: nobody wants to wait minutes to hear of a busy port.
	if err := p.choosePorts(opt.FreePorts); err != nil {
		return err
	}
	if p.guard != nil {
		defer func() { err = errors.Join(err, p.guard.Close()) }()
	}

	s := &system{plan: p, terminal: console.New(opt.Out, opt.Colour, longestName(file))}
	starter := child.NewStarter()
	defer starter.Close()
	s.terminal.Sayf("building what is missing or out of date; after that the broker, Dapr and the services start")
	if p.runtime, p.apps, err = makePrograms(ctx, starter, file, data, s.terminal); err != nil {
		if ctx.Err() != nil {
			s.terminal.Sayf("stopped while building")
			return nil
		}
		return err
	}
	for _, a := range file.Apps {
		from := filepath.Join(data.Components(), a.ID)
		run := components.Run{
			Broker: loopback(p.broker), InboxMail: p.inbox.mail, InboxHTTP: inbox.Address(p.inbox.http), Data: string(data),
			WorkflowRetention: opt.WorkflowRetention, StateCleanup: opt.StateCleanup,
		}
		if err := components.Copy(from, a.ResourcePaths, run); err != nil {
			return err
		}
	}
	s.terminal.Sayf("all programs are built; starting the broker, the inbox, Dapr and the services")

	s.super = supervise.New(starter, s, supervise.Timing{})
	defer s.closeLogs()
	over := make(chan struct{})
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer close(over)
	tasks.Go(func() {
		select {
		case <-hurry:
			s.terminal.Warnf("killing everything")
			s.mu.Lock()
			s.killed = true
			s.mu.Unlock()
			s.super.Kill()
		case <-over:
		}
	})
	defer func() {
		if killed := s.stop(); killed && err == nil {
			err = ErrKilled
		}
	}()

	running, end := context.WithCancelCause(ctx)
	defer end(nil)
	place, err := os.Stat(string(data))
	if err != nil {
		return fmt.Errorf("look at the data folder: %w", err)
	}
	tasks.Go(func() { s.guard(running, place, end) })
	s.limit = opt.ReadyWithin
	starting, cancel := context.WithTimeoutCause(running, opt.ReadyWithin,
		fmt.Errorf("not ready within %s", opt.ReadyWithin))
	defer cancel()
	if err := s.start(starting); err != nil && running.Err() == nil {
		if gone := data.Vanished(place); gone != nil { // the guard has not looked yet
			return gone
		}
		return fmt.Errorf("start the system: %w\nThe logs are in %s", err, data.Logs())
	}
	<-running.Done()
	if ctx.Err() == nil { // the guard ended it
		return context.Cause(running)
	}
	return nil
}

// guardInterval is how often the data folder is looked for.
const guardInterval = time.Second

// guard ends the run, by end, when the data folder is gone: its processes would write to files that no later start finds, or
// die and be restarted for ever.
func (s *system) guard(ctx context.Context, place os.FileInfo, end context.CancelCauseFunc) {
	tick := time.NewTicker(guardInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.plan.data.Vanished(place); err != nil {
			s.mu.Lock()
			s.vanished = true
			s.mu.Unlock()
			s.terminal.Warnf("%v; killing everything, for there is nothing left to save", err)
			end(fmt.Errorf("%w: everything was killed, and what the folder held is lost; start again for an empty system", err))
			s.super.Kill()
			return
		}
	}
}

func longestName(file *runfile.File) int {
	longest := len("placement")
	for _, a := range file.Apps {
		longest = max(longest, len(sidecarName(a.ID)))
	}
	return longest
}

// system is one run.
type system struct {
	plan     *plan
	terminal *console.Console
	super    *supervise.Supervisor

	limit time.Duration // within which the system is to be ready

	mu       sync.Mutex
	ready    bool
	started  bool // everything was ready once
	stopping bool
	killed   bool
	vanished bool // the data folder
	logs     []*console.File
}

// start brings everything up and returns when the system is ready.
func (s *system) start(ctx context.Context) error {
	s.writeStatus()
	if s.leadershipIsForgotten() {
		s.terminal.Sayf("%s is missing: if the scheduler was killed, this start waits up to 25s until the lease of that life ends", s.plan.data.Leadership())
	}
	for _, spec := range s.plan.foundation() {
		if err := s.launch(spec); err != nil {
			return err
		}
	}
	// A sidecar that finds no broker gives up at once.
	if err := s.super.WaitReady(ctx, "broker", "inbox", "placement", "scheduler"); err != nil {
		return err
	}
	for _, a := range s.plan.file.Apps {
		app, sidecar := s.plan.pair(a)
		for _, spec := range []supervise.Spec{app, sidecar} {
			if err := s.launch(spec); err != nil {
				return err
			}
		}
	}
	if err := s.super.WaitReady(ctx); err != nil {
		return err
	}
	if err := s.loadStock(ctx); err != nil {
		return err
	}
	if err := s.loadContacts(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	s.ready, s.started = true, true
	s.mu.Unlock()
	s.writeStatus()
	s.terminal.Sayf("everything is ready")
	s.terminal.Block(s.summary())
	return nil
}

// leadershipIsForgotten reports that the scheduler ran on this data before, and that the file with its last leadership is missing.
func (s *system) leadershipIsForgotten() bool {
	_, err := os.Stat(s.plan.data.Leadership())
	lives, _ := os.ReadDir(s.plan.data.Scheduler())
	return errors.Is(err, os.ErrNotExist) && len(lives) > 0
}

// stop ends everything in order: an app first, so that what it has in hand can still leave through its sidecar.
// It reports whether it came to killing.
func (s *system) stop() (killed bool) {
	s.mu.Lock()
	s.ready, s.stopping = false, true
	vanished := s.vanished
	s.mu.Unlock()
	if !vanished {
		s.terminal.Sayf("stopping, for at most a minute; press Ctrl-C again to kill everything at once")
	}
	apps := make([]string, 0, len(s.plan.file.Apps))
	sidecars := make([]string, 0, len(s.plan.file.Apps))
	for _, a := range s.plan.file.Apps {
		apps = append(apps, a.ID)
		sidecars = append(sidecars, sidecarName(a.ID))
	}
	for _, group := range [][]string{apps, sidecars, {"scheduler"}, {"placement"}, {"inbox"}, {"broker"}} {
		s.super.Stop(group...)
	}
	s.super.Wait()
	s.writeStatus()
	s.terminal.Sayf("everything has stopped")
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.killed
}

// launch starts a process with its output on the terminal and in its log file.
func (s *system) launch(spec supervise.Spec) error {
	file, err := console.OpenFile(filepath.Join(s.plan.data.Logs(), spec.Name+".log"), logLimit)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.logs = append(s.logs, file)
	s.mu.Unlock()
	view := s.whileRunning(console.Dapr)
	switch spec.Kind {
	case kindApp:
		view = console.App
	case kindBroker, kindInbox:
		view = console.All
	}
	stream := s.terminal.Stream(spec.Name, file, view)
	spec.Stdout, spec.Stderr = stream.Writer(), stream.Writer()
	spec.LastLine = func() string {
		defer stream.Forget()
		return stream.Last()
	}
	s.super.Start(spec)
	return nil
}

// whileRunning hides what Dapr's processes say about each other's disappearance while everything is being stopped.
func (s *system) whileRunning(view console.View) console.View {
	return func(line string) (string, bool) {
		s.mu.Lock()
		stopping := s.stopping
		s.mu.Unlock()
		if stopping {
			return "", false
		}
		return view(line)
	}
}

func (s *system) closeLogs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, file := range s.logs {
		if err := file.Close(); err != nil {
			s.terminal.Warnf("close log file: %v", err)
		}
	}
}

func (s *system) loadStock(ctx context.Context) error {
	const warehouse = "fulfillment"
	if s.plan.app[warehouse] == nil {
		return nil
	}
	items, err := stock.Sample()
	if err != nil {
		return err
	}
	added, err := stock.Load(ctx, client, s.plan.appURL(warehouse), items)
	if err != nil {
		return err
	}
	if added > 0 {
		s.terminal.Sayf("put %d sample products into the warehouse", added)
	}
	return nil
}

// loadContacts gives the sample customer addresses, all of them at the inbox.
func (s *system) loadContacts(ctx context.Context) error {
	if s.plan.app[contracts.AppNotifications] == nil {
		return nil
	}
	changed, err := contacts.Load(ctx, client, s.plan.appURL(contracts.AppNotifications), s.plan.inboxURL())
	if err != nil {
		return err
	}
	if changed {
		s.terminal.Sayf("notifications knows how to reach the sample customer %s", contacts.Customer)
	}
	return nil
}

// Ready, Died, NotReady, Lost, Regained, Stopping, Stopped and Changed make the system the supervisor's reporter.

// Ready implements supervise.Reporter.
func (s *system) Ready(name string, took time.Duration) {
	s.terminal.Sayf("%s is ready after %s", name, took.Round(10*time.Millisecond))
}

// Died implements supervise.Reporter.
func (s *system) Died(name string, pid int, why, lastLine string, pause time.Duration) {
	said := ""
	if lastLine != "" {
		said = "; it said: " + lastLine
	}
	s.terminal.Warnf("%s (process %d) is down: %s%s; starting it again in %s", name, pid, why, said, pause)
}

// NotReady implements supervise.Reporter.
func (s *system) NotReady(name string, waited time.Duration, why error) {
	s.mu.Lock()
	starting, stopping := !s.started, s.stopping
	s.mu.Unlock()
	switch {
	case stopping:
	case starting:
		s.terminal.Sayf("waiting for %s for %s, and for the whole start %s at most: %v", name, waited.Round(time.Second), s.limit, why)
	default:
		s.terminal.Warnf("%s is not ready for %s, and is asked until it is: %v", name, waited.Round(time.Second), why)
	}
}

// Lost implements supervise.Reporter.
func (s *system) Lost(name string, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopping {
		s.terminal.Warnf("%s is no longer ready: %v", name, why)
	}
}

// Regained implements supervise.Reporter.
func (s *system) Regained(name string, after time.Duration) {
	s.terminal.Sayf("%s is ready again after %s", name, after.Round(10*time.Millisecond))
}

// Stopping implements supervise.Reporter.
func (s *system) Stopping(name string, waited, within time.Duration) {
	s.terminal.Sayf("waiting for %s to stop for %s; after %s it is killed", name, waited.Round(time.Second), within)
}

// Stopped implements supervise.Reporter.
func (s *system) Stopped(name string, took time.Duration, killed bool) {
	if killed {
		s.terminal.Warnf("%s did not stop and was killed after %s", name, took.Round(10*time.Millisecond))
		return
	}
	s.terminal.Sayf("%s stopped after %s", name, took.Round(10*time.Millisecond))
}

// Changed implements supervise.Reporter.
func (s *system) Changed() { s.writeStatus() }

func (s *system) writeStatus() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := status.System{
		Ready:  s.ready,
		Runner: os.Getpid(),
		Broker: loopback(s.plan.broker),
		Inbox: status.Inbox{
			SMTP: inbox.Address(s.plan.inbox.mail), HTTP: s.plan.inboxURL(), File: inbox.File(s.plan.data.Inbox()),
		},
		Apps:        map[string]status.App{},
		Processes:   []status.Process{},
		AppAPIToken: s.plan.token,
		Logs:        s.plan.data.Logs(),
	}
	for _, a := range s.plan.file.Apps {
		now.Apps[a.ID] = status.App{
			URL:      s.plan.appURL(a.ID),
			DaprHTTP: "http://" + loopback(s.plan.sidecar[a.ID].http),
			DaprGRPC: loopback(s.plan.sidecar[a.ID].grpc),
		}
	}
	for _, p := range s.super.Statuses() {
		now.Processes = append(now.Processes, status.Process(p))
		now.Ready = now.Ready && p.Ready
	}
	if err := status.Write(s.plan.data.SystemFile(), now); err != nil && !s.vanished {
		s.terminal.Warnf("%v", err)
	}
}

// summary is what a person wants to know once it runs.
func (s *system) summary() string {
	var b strings.Builder
	b.WriteString("\n")
	for _, a := range s.plan.file.Apps {
		base := s.plan.appURL(a.ID)
		fmt.Fprintf(&b, "  %-13s %s   docs %s/docs   OpenAPI %s/openapi.json   sidecar http://%s\n",
			a.ID, base, base, base, loopback(s.plan.sidecar[a.ID].http))
	}
	fmt.Fprintf(&b, "  %-13s %s (Kafka protocol)\n", "broker", loopback(s.plan.broker))
	fmt.Fprintf(&b, "  %-13s %s shows the mail, SMS and push messages that customers got (SMTP %s, SMS and push %s)\n",
		"inbox", ShowInbox(s.plan.file.Root, s.plan.data), inbox.Address(s.plan.inbox.mail), s.plan.inboxURL())
	fmt.Fprintf(&b, "  %-13s %s\n", "logs", s.plan.data.Logs())
	if s.plan.app["orders"] != nil {
		b.WriteString(Invitation(s.plan.appURL("orders")))
	}
	b.WriteString("Ctrl-C stops everything.\n\n")
	return b.String()
}

// Invitation says how to place an order with the service behind orders (http://host:port).
func Invitation(orders string) string {
	return fmt.Sprintf(`
Place an order:

  curl -i -X POST %s/v1/orders -H 'Content-Type: application/json' -d '{"customer_id":"CUST-123","items":[{"product_id":"PROD-001","name":"Test Product","quantity":2,"price":49.99}],"total_amount":99.98,"shipping_address":{"street":"123 Test St","city":"Test City","state":"TS","zip":"12345"}}'

and follow it, with the path from the answer's Location header:

  curl %s/v1/orders/<id>

`, orders, orders)
}

// ShowInbox is the command that shows what the inbox of data received, for a person in the folder root.
func ShowInbox(root string, data datadir.Dir) string {
	if string(data) == filepath.Join(root, ".waybill") {
		return "make inbox"
	}
	return fmt.Sprintf("make inbox ARGS=\"--data %s\"", data)
}
