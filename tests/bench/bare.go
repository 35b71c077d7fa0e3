package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/dapr/durabletask-go/workflow"

	"waybill/platform/sidecar"
	"waybill/tests/internal/system"
)

// bare is a Dapr workflow that does nothing, on its own sidecar, placement and scheduler: the same programs with the same
// settings as the system's. A piece is one run of the workflow, done when lastActivity is. Its worker runs in this process.
type bare struct {
	flight   *pieces
	running  []*child
	sidecar  *sidecar.Sidecar
	engine   *workflow.Client
	stopWork context.CancelFunc
	log      *os.File
}

const (
	bareApp      = "bare"
	bareWorkflow = "FulfillOrder"
)

// stages are the activities of the order's saga, those of one stage in parallel.
var stages = [][]string{
	{"ValidatePayment"}, {"ReserveInventory"}, {"ProcessShipment"}, {lastActivity, "NotifyEmail", "NotifySMS", "NotifyPush"},
}

// lastActivity is the one that finishes a piece, as it does an order.
const lastActivity = "UpdateOrderStatus"

// newBare starts the processes of the workflow on their own data in folder.
func newBare(ctx context.Context, folder string) (*bare, error) {
	b := &bare{flight: newPieces()}
	if err := b.start(ctx, folder); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bare) start(ctx context.Context, folder string) error {
	top, err := system.Root()
	if err != nil {
		return err
	}
	components, err := bareComponents(top, folder)
	if err != nil {
		return err
	}
	if b.log, err = os.Create(filepath.Join(folder, "bare.log")); err != nil { //nolint:gosec // in the folder of this run
		return err
	}
	free, err := freePorts(13)
	if err != nil {
		return err
	}
	port := func(n int) string { return strconv.Itoa(free[n]) }
	at := func(n int) string { return net.JoinHostPort("127.0.0.1", port(n)) }
	for _, p := range []struct {
		name, ready string
		args        []string
	}{
		{"placement", "http://" + at(1) + "/healthz", []string{
			"--port", port(0), "--listen-address", "127.0.0.1",
			"--healthz-port", port(1), "--healthz-listen-address", "127.0.0.1",
			"--metrics-port", port(2), "--metrics-listen-address", "127.0.0.1",
			"--initial-cluster", "dapr-placement-0=" + at(3),
		}},
		{"scheduler", "http://" + at(5) + "/healthz", []string{
			"--port", port(4), "--listen-address", "127.0.0.1", "--override-broadcast-host-port", at(4),
			"--healthz-port", port(5), "--healthz-listen-address", "127.0.0.1",
			"--metrics-port", port(6), "--metrics-listen-address", "127.0.0.1",
			"--etcd-data-dir", filepath.Join(folder, "scheduler"),
			"--etcd-compaction-mode", "periodic", "--etcd-compaction-retention", "1m", "--etcd-snapshot-count", "5000",
			"--etcd-max-wals", "3", "--etcd-max-snapshots", "3",
			"--etcd-client-port", port(7), "--etcd-client-listen-address", "127.0.0.1",
			"--etcd-initial-cluster", "dapr-scheduler-server-0=http://" + at(8),
		}},
		{"daprd", "http://" + at(9) + "/v1.0/healthz", []string{
			"--app-id", bareApp, "--dapr-listen-addresses", "127.0.0.1",
			"--dapr-http-port", port(9), "--dapr-grpc-port", port(10),
			"--dapr-internal-grpc-port", port(11), "--dapr-internal-grpc-listen-address", "127.0.0.1",
			"--metrics-port", port(12), "--metrics-listen-address", "127.0.0.1",
			"--placement-host-address", at(0), "--scheduler-host-address", at(4),
			"--resources-path", components, "--config", filepath.Join(top, "components", "local", "config.yaml"),
			"--log-level", "info", "--dapr-graceful-shutdown-seconds", "2",
		}},
	} {
		one, err := startChild(p.name, filepath.Join(top, ".waybill", "bin", p.name), folder, b.log, p.args...)
		if err != nil {
			return err
		}
		b.running = append(b.running, one)
		if err := one.waitReady(ctx, p.ready); err != nil {
			return err
		}
	}
	if b.sidecar, err = sidecar.Dial(sidecar.Config{Host: "127.0.0.1", GRPCPort: sidecar.Port(free[10]), HTTPPort: sidecar.Port(free[9])}); err != nil {
		return err
	}
	return b.work(ctx)
}

// bareComponents copies the workflow components of the saga's sidecar to folder, with other paths and another scope.
func bareComponents(top, folder string) (string, error) {
	components := filepath.Join(folder, "components")
	for _, dir := range []string{components, filepath.Join(folder, "state")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", err
		}
	}
	const file = "workflowstore.yaml"
	text, err := os.ReadFile(filepath.Join(top, "components", "local", file)) //nolint:gosec // a file of this repository
	if err != nil {
		return "", err
	}
	for _, change := range [][2]string{{"file:../../.waybill/", "file:" + folder + "/"}, {"\n  - fulfillment\n", "\n  - " + bareApp + "\n"}} {
		changed := bytes.Replace(text, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(changed, text) {
			return "", fmt.Errorf("%s holds no %q any more, so the bare workflow cannot be given its own", file, change[0])
		}
		text = changed
	}
	return components, os.WriteFile(filepath.Join(components, file), text, 0o600) //nolint:gosec // in the folder of this run
}

// work connects the worker.
func (b *bare) work(ctx context.Context) error {
	registry := workflow.NewRegistry()
	if err := registry.AddWorkflowN(bareWorkflow, runStages); err != nil {
		return err
	}
	for _, stage := range stages {
		for _, name := range stage {
			activity := nothing
			if name == lastActivity {
				activity = b.last
			}
			if err := registry.AddActivityN(name, activity); err != nil {
				return err
			}
		}
	}
	b.engine = workflow.NewClientWithLogger(b.sidecar.Conn, engineLog{log.New(b.log, "", log.LstdFlags)})
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	b.stopWork = stop
	if err := b.engine.StartWorker(working, registry); err != nil {
		return fmt.Errorf("start the bare workflow's worker: %w", err)
	}
	for ctx.Err() == nil {
		if workers, err := b.sidecar.ConnectedWorkers(ctx); err == nil && workers > 0 {
			return nil
		}
		wait(ctx, nil, 20*time.Millisecond)
	}
	return ctx.Err()
}

func runStages(ctx *workflow.WorkflowContext) (any, error) {
	var id string
	if err := ctx.GetInput(&id); err != nil {
		return nil, err
	}
	for _, stage := range stages {
		var tasks []workflow.Task
		for _, name := range stage {
			tasks = append(tasks, ctx.CallActivity(name, workflow.WithActivityInput(id)))
		}
		for _, task := range tasks {
			if err := task.Await(nil); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

func nothing(workflow.ActivityContext) (any, error) { return nil, nil }

func (b *bare) last(ctx workflow.ActivityContext) (any, error) {
	var id string
	err := ctx.GetInput(&id)
	b.flight.finish(id, err)
	return nil, err
}

func (b *bare) name() string    { return "bare workflow" }
func (b *bare) pieces() *pieces { return b.flight }

func (b *bare) begin(ctx context.Context, id string) error {
	_, err := b.engine.ScheduleWorkflow(ctx, bareWorkflow, workflow.WithInstanceID(id), workflow.WithInput(id), workflow.WithStartTime(time.Now()))
	return err
}

func (b *bare) processes() ([]process, error) {
	found := make([]process, 0, len(b.running))
	for _, one := range b.running {
		found = append(found, process{name: one.name, pid: one.cmd.Process.Pid})
	}
	return found, nil
}

// close ends the processes, newest first.
func (b *bare) close() error {
	if b.stopWork != nil {
		b.stopWork()
	}
	var errs []error
	if b.sidecar != nil {
		errs = append(errs, b.sidecar.Close())
	}
	for _, one := range slices.Backward(b.running) {
		errs = append(errs, one.stop())
	}
	if b.log != nil {
		errs = append(errs, b.log.Close())
	}
	return errors.Join(errs...)
}

// freePorts finds free ports. If another process takes one before it is used, the start fails with an error that says so.
func freePorts(n int) ([]int, error) {
	var found []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // ends at once
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // together, so that no port is found twice
		found = append(found, l.Addr().(*net.TCPAddr).Port)
	}
	return found, nil
}

// child is a process of the system that ours is compared with.
type child struct {
	name  string
	cmd   *exec.Cmd
	ended chan struct{}
	exit  error
}

const (
	startWithin = 30 * time.Second
	stopWithin  = 10 * time.Second
)

// startChild starts a process in its own process group, so that a Ctrl-C in the terminal leaves it to close.
func startChild(name, path, folder string, log *os.File, args ...string) (*child, error) {
	c := &child{name: name, ended: make(chan struct{})}
	c.cmd = exec.Command(path, args...) //nolint:gosec,noctx // the runtime that the runner built; stopped by close
	c.cmd.Dir, c.cmd.Env = folder, append(daprEnviron(), "DAPR_HOST_IP=127.0.0.1")
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { // owned: stop waits for it
		c.exit = c.cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

// waitReady returns when url answers with a success.
func (c *child) waitReady(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startWithin, fmt.Errorf("not ready within %s", startWithin))
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			err = resp.Body.Close()
			if err == nil && resp.StatusCode/100 == 2 {
				return nil
			}
		}
		select {
		case <-c.ended:
			return fmt.Errorf("the bare %s ended: %w", c.name, errors.Join(c.exit, errors.New("bare.log says why")))
		case <-ctx.Done():
			return fmt.Errorf("the bare %s: %w", c.name, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *child) stop() error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-c.ended:
		return nil
	case <-time.After(stopWithin):
		err := c.cmd.Process.Kill()
		<-c.ended
		return errors.Join(fmt.Errorf("the bare %s did not stop and was killed", c.name), err)
	}
}

// engineLog writes the log of the workflow client to the log file.
type engineLog struct{ *log.Logger }

func (l engineLog) Debug(v ...any)            { l.Print(v...) }
func (l engineLog) Debugf(f string, v ...any) { l.Printf(f, v...) }
func (l engineLog) Info(v ...any)             { l.Print(v...) }
func (l engineLog) Infof(f string, v ...any)  { l.Printf(f, v...) }
func (l engineLog) Warn(v ...any)             { l.Print(v...) }
func (l engineLog) Warnf(f string, v ...any)  { l.Printf(f, v...) }
func (l engineLog) Error(v ...any)            { l.Print(v...) }
func (l engineLog) Errorf(f string, v ...any) { l.Printf(f, v...) }

// daprEnviron sets the garbage collection that the runner sets.
func daprEnviron() []string {
	env := os.Environ()
	if os.Getenv("GOGC") == "" {
		env = append(env, "GOGC=400")
	}
	return env
}
