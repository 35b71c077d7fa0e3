// Package system runs the whole of Waybill for a test: real processes on free ports, started by the local runner with their own
// data, so that it can run beside a `make up`.
package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// System is a running Waybill.
type System struct {
	// Data is the folder that holds its state and logs.
	Data   string
	runner *exec.Cmd
	ended  chan struct{}
	exit   error
}

// Status is what the runner writes about the processes it started.
type Status struct {
	Ready     bool           `json:"ready"`
	Broker    string         `json:"broker"`
	Inbox     Inbox          `json:"inbox"`
	AppToken  string         `json:"app_api_token"`
	Processes []Process      `json:"processes"`
	Apps      map[string]App `json:"apps"`
}

// Inbox is where mail, SMS and push messages are received, and the file that keeps them, a JSON object a line.
type Inbox struct {
	SMTP string `json:"smtp"`
	HTTP string `json:"http"`
	File string `json:"file"`
}

// Process is one process that the runner keeps running.
type Process struct {
	Name     string `json:"name"`
	Kind     string `json:"kind"`
	PID      int    `json:"pid"`
	Ready    bool   `json:"ready"`
	Restarts int    `json:"restarts"`
}

// App is the addresses of a service and its sidecar.
type App struct {
	URL      string `json:"url"`
	DaprHTTP string `json:"dapr_http"`
	DaprGRPC string `json:"dapr_grpc"`
}

const (
	// startTimeout is long enough to build Dapr's runtime on a slow machine.
	startTimeout = 25 * time.Minute
	stopTimeout  = time.Minute
	poll         = 20 * time.Millisecond
)

// Root is the repository's folder: the nearest one above the working directory that holds dapr.yaml.
func Root() (string, error) {
	at, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(at, "dapr.yaml")); err == nil {
			return at, nil
		}
		above := filepath.Dir(at)
		if above == at {
			return "", errors.New("neither this folder nor one above it holds dapr.yaml")
		}
		at = above
	}
}

// Build builds the local runner and returns the path of its binary.
func Build(ctx context.Context, into string) (string, error) {
	top, err := Root()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(into, "devrun")
	build := command(ctx, "go", "build", "-o", binary, ".")
	build.Dir = filepath.Join(top, "devrun")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("build the runner: %w", err)
	}
	return binary, nil
}

func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, name, args...) //nolint:gosec // the go command and the runner it built
}

// Start starts the system on the folder data and returns when every process is ready. The runner's output goes to out.
func Start(ctx context.Context, runner, data string, out io.Writer, environment ...string) (*System, error) {
	top, err := Root()
	if err != nil {
		return nil, err
	}
	// Not ctx: Stop or KillRunner ends the runner.
	cmd := command(context.Background(), runner, "up", "--free-ports", "--data", data)
	cmd.Dir = top
	cmd.Env = append(os.Environ(), environment...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return start(ctx, cmd, data)
}

// start is Start with the runner's command.
func start(ctx context.Context, runner *exec.Cmd, data string) (*System, error) {
	s := &System{Data: data, ended: make(chan struct{}), runner: runner}
	if err := os.Remove(s.statusFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := s.runner.Start(); err != nil {
		return nil, fmt.Errorf("start the runner: %w", err)
	}
	go func() { // owned: Stop and Kill wait for it
		s.exit = s.runner.Wait()
		close(s.ended)
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.WaitReady(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func (s *System) statusFile() string { return filepath.Join(s.Data, "system.json") }

// PID is the runner's own process.
func (s *System) PID() int { return s.runner.Process.Pid }

// Status reads what the runner last wrote.
func (s *System) Status() (Status, error) {
	var status Status
	body, err := os.ReadFile(s.statusFile())
	if err != nil {
		return status, err
	}
	return status, json.Unmarshal(body, &status)
}

// WaitReady returns when every process is ready.
func (s *System) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if status, err := s.Status(); err == nil && status.Ready {
			return nil
		}
		select {
		case <-s.ended:
			return fmt.Errorf("the runner ended: %w", errors.Join(s.exit, errors.New("see its output above")))
		case <-ctx.Done():
			return fmt.Errorf("wait for the system: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// App says where a service listens.
func (s *System) App(name string) App {
	status, err := s.Status()
	if err != nil {
		panic(fmt.Sprintf("a running system has a status: %v", err))
	}
	return status.Apps[name]
}

// Kill kills one process with SIGKILL, as a crash would, and returns when it is back and ready.
func (s *System) Kill(ctx context.Context, name string) error {
	before, err := s.process(name)
	if err != nil {
		return err
	}
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %s: %w", name, err)
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if now, err := s.process(name); err == nil && now.PID != before.PID && now.Ready {
			return s.WaitReady(ctx)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to come back: %w", name, ctx.Err())
		case <-tick.C:
		}
	}
}

// Pause stops a process with SIGSTOP, continues it when during returns, and returns when everything is ready again. Ended is the
// time at which it continued.
func (s *System) Pause(ctx context.Context, name string, during func(ctx context.Context) error) (ended time.Time, err error) {
	p, err := s.process(name)
	if err != nil {
		return time.Time{}, err
	}
	if err := syscall.Kill(p.PID, syscall.SIGSTOP); err != nil {
		return time.Time{}, fmt.Errorf("stop %s: %w", name, err)
	}
	err = during(ctx)
	ended = time.Now()
	if goOn := syscall.Kill(p.PID, syscall.SIGCONT); goOn != nil {
		err = errors.Join(err, fmt.Errorf("let %s go on: %w", name, goOn))
	}
	if err != nil {
		return ended, err
	}
	return ended, s.WaitAnswering(ctx)
}

// WaitAnswering returns when every process is ready and every service says so itself; the runner notices a failure a moment
// later.
func (s *System) WaitAnswering(ctx context.Context) error {
	client := http.Client{Timeout: 3 * time.Second}
	defer client.CloseIdleConnections()
	for {
		status, err := s.Status()
		ready := err == nil && status.Ready
		for _, app := range status.Apps {
			ready = ready && ok(ctx, &client, app.URL+"/readyz")
		}
		if ready {
			return nil
		}
		select {
		case <-s.ended:
			return errors.New("the runner ended")
		case <-ctx.Done():
			return fmt.Errorf("wait for the services: %w", ctx.Err())
		case <-time.After(poll):
		}
	}
}

func ok(ctx context.Context, client *http.Client, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (s *System) process(name string) (Process, error) {
	status, err := s.Status()
	if err != nil {
		return Process{}, err
	}
	for _, p := range status.Processes {
		if p.Name == name {
			return p, nil
		}
	}
	return Process{}, fmt.Errorf("there is no process %q", name)
}

// Stop stops the system as Ctrl-C does and returns the runner's exit error, or what it left behind.
func (s *System) Stop() error {
	status, _ := s.Status() // a runner that never got so far has no status
	if err := s.runner.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the runner: %w", err)
	}
	select {
	case <-s.ended:
	case <-time.After(stopTimeout):
		return errors.Join(errors.New("the runner did not stop in time"), s.runner.Process.Kill())
	}
	if s.exit != nil {
		return fmt.Errorf("the runner ended badly: %w", s.exit)
	}
	return left(status)
}

// KillRunner kills the runner with SIGKILL and returns when it and all its processes have ended, or when ctx ends.
func (s *System) KillRunner(ctx context.Context) error {
	status, err := s.Status()
	if err != nil {
		return err
	}
	if err := s.runner.Process.Kill(); err != nil {
		return fmt.Errorf("kill the runner: %w", err)
	}
	<-s.ended
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		err := left(status)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// left reports processes of the system that still run.
func left(status Status) error {
	var errs []error
	for _, p := range status.Processes {
		if syscall.Kill(p.PID, 0) == nil {
			errs = append(errs, fmt.Errorf("%s (pid %d) was left behind", p.Name, p.PID))
		}
	}
	return errors.Join(errs...)
}

// State reads a document from an app's state store through its sidecar, as the app would; false means that there is none.
func (s *System) State(ctx context.Context, app, store, key string, doc any) (bool, error) {
	return ReadState(ctx, s.App(app).DaprHTTP, store, key, doc)
}

// ReadState is State through the sidecar that listens at dapr (http://host:port).
func ReadState(ctx context.Context, dapr, store, key string, doc any) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, dapr+"/v1.0/state/"+store+"/"+key, nil)
	if err != nil {
		return false, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer func() { _ = resp.Body.Close() }()
	switch resp.StatusCode {
	case http.StatusNoContent:
		return false, nil
	case http.StatusOK:
		return true, json.NewDecoder(resp.Body).Decode(doc)
	default:
		return false, fmt.Errorf("read %s from %s: %s", key, store, resp.Status)
	}
}
