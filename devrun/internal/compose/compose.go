// Package compose runs the system in containers, as docker-compose.yml describes it, with the installed Compose, and waits until
// it is ready.
package compose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"waybill/devrun/internal/contacts"
	"waybill/devrun/internal/images"
	"waybill/devrun/internal/stock"
)

// usualProject is the name under which Compose keeps containers, networks and volumes, unless COMPOSE_PROJECT_NAME is set.
const usualProject = "waybill"

// profiles are all of docker-compose.yml; containers of each are removed.
const profiles = "telemetry,emulators"

// ErrNoCompose means that Compose is not installed, and says how to get it.
var ErrNoCompose = errors.New(`no Compose beside Docker: install it and try again
  Debian, Ubuntu: apt-get install docker-compose
  others:         https://docs.docker.com/compose/install/`)

// System is the system in containers.
type System struct {
	// Root is the repository.
	Root string
	// Out gets the output of Compose.
	Out     io.Writer
	command []string
}

// Open finds Compose: version 2, a part of Docker's client, or version 1, a separate command.
func Open(ctx context.Context, root string, out io.Writer) (*System, error) {
	if err := images.CheckDocker(ctx); err != nil {
		return nil, err
	}
	for _, command := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
		if exec.CommandContext(ctx, command[0], append(slices.Clone(command[1:]), "version")...).Run() == nil { //nolint:gosec // fixed
			return &System{Root: root, Out: out, command: command}, nil
		}
	}
	return nil, ErrNoCompose
}

// Up starts what is not running yet. It builds nothing and pulls nothing that `make images` makes.
func (s *System) Up(ctx context.Context) error {
	tag := os.Getenv("WAYBILL_TAG")
	if tag == "" {
		tag = "dev"
	}
	for _, name := range images.Names() {
		image := images.Name(name) + ":" + tag
		if exec.CommandContext(ctx, "docker", "image", "inspect", image).Run() != nil { //nolint:gosec // one of our own images
			return fmt.Errorf("there is no image %s: `make images` makes it", image)
		}
	}
	return s.run(ctx, nil, "up", "--detach", "--no-build")
}

// Down removes the containers, networks and volumes of every profile.
func (s *System) Down(ctx context.Context) error {
	return s.run(ctx, []string{"COMPOSE_PROFILES=" + profiles}, "down", "--volumes", "--remove-orphans", "--timeout", "20")
}

// State is the state of the containers as Compose shows it, for a person to read.
func (s *System) State(ctx context.Context) string {
	var said bytes.Buffer
	copied := *s
	copied.Out = &said
	if err := copied.run(ctx, nil, "ps"); err != nil {
		return err.Error()
	}
	return said.String()
}

func (s *System) run(ctx context.Context, env []string, args ...string) error {
	project := os.Getenv("COMPOSE_PROJECT_NAME")
	if project == "" {
		project = usualProject
	}
	args = slices.Concat(s.command[1:], []string{"--project-name", project}, args)
	cmd := exec.CommandContext(ctx, s.command[0], args...) //nolint:gosec // Compose, with arguments of this package
	cmd.Dir = s.Root
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = s.Out, s.Out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("%s %s: %w", s.command[0], strings.Join(args, " "), err)
	}
	return nil
}

// URL is where a service's API is published on this machine: its usual port, or the one that a variable such as ORDERS_PORT
// names for Compose.
func URL(service string) string {
	port := os.Getenv(strings.ToUpper(service) + "_PORT")
	if port == "" {
		port = usualPorts[service]
	}
	return "http://127.0.0.1:" + port
}

var usualPorts = map[string]string{"orders": "8001", "fulfillment": "8002", "analytics": "8003", "notifications": "8004"}

// Services lists the services that have an API.
func Services() []string { return []string{"orders", "fulfillment", "analytics", "notifications"} }

// WaitReady returns nil when every service is ready and the sample stock is loaded, or an error with the reason when ctx ends.
func WaitReady(ctx context.Context, client *http.Client) error {
	items, err := stock.Sample()
	if err != nil {
		return err
	}
	var urls []string
	for _, service := range Services() {
		urls = append(urls, URL(service)+"/readyz")
	}
	urls = append(urls, URL("fulfillment")+"/v1/inventory/"+items[len(items)-1].ProductID, URL("notifications")+"/v1/customers/"+contacts.Customer+"/contact")
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for _, url := range urls {
		for {
			err := answers(ctx, client, url)
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return errors.Join(context.Cause(ctx), err)
			case <-tick.C:
			}
		}
	}
	return nil
}

func answers(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}
