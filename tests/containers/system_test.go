package containers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	tcnetwork "github.com/testcontainers/testcontainers-go/network"
	"golang.org/x/sync/errgroup"

	waybillclient "waybill/tests/internal/client"
	"waybill/tests/internal/system"
)

// sidecarPort is the HTTP API of every sidecar. docker-compose.yml does not publish it; the tests do, to read the ledgers and to
// publish events as another system would.
const sidecarPort = 3500

// containerSystem is the system of docker-compose.yml with its own containers, networks, volumes and host ports, beside a running
// `make compose-up`.
type containerSystem struct {
	docker     *client.Client
	compose    description
	networks   map[string]*testcontainers.DockerNetwork
	volumes    map[string]string
	containers map[string]testcontainers.Container
	ports      map[string]map[int]int // service → container port → host port
	mu         sync.Mutex
}

// start starts everything, each service when those it depends on are healthy, and returns when all are.
func start(ctx context.Context, compose description, run string) (_ *containerSystem, err error) {
	docker, err := testcontainers.NewDockerClientWithOpts(ctx)
	if err != nil {
		return nil, err
	}
	s := &containerSystem{
		docker: docker.Client, compose: compose, networks: map[string]*testcontainers.DockerNetwork{}, volumes: map[string]string{},
		containers: map[string]testcontainers.Container{}, ports: map[string]map[int]int{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.saveLogs(), s.stop())
		}
	}()
	for name := range compose.Networks {
		if s.networks[name], err = tcnetwork.New(ctx); err != nil {
			return nil, err
		}
	}
	for name := range compose.Volumes {
		s.volumes[name] = "waybill-test-" + run + "-" + name
	}
	if err := s.choosePorts(); err != nil {
		return nil, err
	}
	// All start at once; each waits for those it depends on.
	started := map[string]chan struct{}{}
	for name := range compose.Services {
		started[name] = make(chan struct{})
	}
	group, starting := errgroup.WithContext(ctx)
	for name, described := range compose.Services {
		group.Go(func() error {
			for other := range described.DependsOn {
				select {
				case <-started[other]:
				case <-starting.Done():
					return fmt.Errorf("start %s: %w", name, context.Cause(starting))
				}
				if err := s.waitHealthy(starting, other); err != nil {
					return fmt.Errorf("start %s: %w", name, err)
				}
			}
			defer close(started[name])
			return s.launch(starting, name)
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return s, s.waitHealthy(ctx, slices.Sorted(maps.Keys(compose.Services))...)
}

// choosePorts picks the host ports once: a restarted container must have the same address.
func (s *containerSystem) choosePorts() error {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	for name, described := range s.compose.Services {
		s.ports[name] = map[int]int{}
		wanted := []int{}
		for _, port := range described.Ports {
			inside, err := strconv.Atoi(port[strings.LastIndex(port, ":")+1:])
			if err != nil {
				return fmt.Errorf("port %q of %s: %w", port, name, err)
			}
			wanted = append(wanted, inside)
		}
		if strings.HasSuffix(name, "-sidecar") {
			wanted = append(wanted, sidecarPort)
		}
		for _, port := range wanted {
			l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			held = append(held, l)
			s.ports[name][port] = l.Addr().(*net.TCPAddr).Port
		}
	}
	return nil
}

// launch creates and starts the container of one service.
func (s *containerSystem) launch(ctx context.Context, name string) error {
	described := s.compose.Services[name]
	request := testcontainers.ContainerRequest{
		Image: described.Image, Entrypoint: described.Entrypoint, Cmd: described.Command, Env: described.Environment,
		Labels: map[string]string{"waybill.service": name},
		Tmpfs:  map[string]string{}, NetworkAliases: map[string][]string{},
	}
	for _, path := range described.Tmpfs {
		request.Tmpfs[path] = ""
	}
	for _, n := range described.Networks {
		full := s.networks[n].Name
		request.Networks = append(request.Networks, full)
		request.NetworkAliases[full] = []string{name}
	}
	for _, v := range described.Volumes {
		volume, path, _ := strings.Cut(v, ":")
		request.Mounts = append(request.Mounts, testcontainers.VolumeMount(s.volumes[volume], testcontainers.ContainerMountTarget(path)))
	}
	for inside := range s.ports[name] {
		request.ExposedPorts = append(request.ExposedPorts, strconv.Itoa(inside)+"/tcp")
	}
	health, err := described.Healthcheck.config()
	if err != nil {
		return fmt.Errorf("healthcheck of %s: %w", name, err)
	}
	grace, err := duration(described.StopGrace, 10*time.Second)
	if err != nil {
		return fmt.Errorf("stop_grace_period of %s: %w", name, err)
	}
	seconds := int(grace.Seconds())
	request.ConfigModifier = func(c *container.Config) {
		c.StopTimeout = &seconds
		if health != nil {
			c.Healthcheck = health
		}
	}
	request.HostConfigModifier = func(c *container.HostConfig) {
		c.ReadonlyRootfs = described.ReadOnly
		c.CapDrop = described.CapDrop
		c.SecurityOpt = described.SecurityOpt
		c.RestartPolicy = container.RestartPolicy{Name: container.RestartPolicyMode(described.Restart)}
		c.PortBindings = network.PortMap{}
		for inside, outside := range s.ports[name] {
			c.PortBindings[network.MustParsePort(strconv.Itoa(inside)+"/tcp")] = []network.PortBinding{
				{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: strconv.Itoa(outside)},
			}
		}
	}
	c, err := testcontainers.GenericContainer(ctx, testcontainers.GenericContainerRequest{ContainerRequest: request, Started: true})
	if c != nil {
		s.mu.Lock()
		s.containers[name] = c
		s.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	return nil
}

func (h *healthcheck) config() (*container.HealthConfig, error) {
	switch {
	case h == nil:
		return nil, nil
	case h.Disable:
		return &container.HealthConfig{Test: []string{"NONE"}}, nil
	}
	interval, err := duration(h.Interval, 0)
	if err != nil {
		return nil, err
	}
	timeout, err := duration(h.Timeout, 0)
	if err != nil {
		return nil, err
	}
	return &container.HealthConfig{Test: h.Test, Interval: interval, Timeout: timeout, Retries: h.Retries}, nil
}

const poll = 50 * time.Millisecond

// App says where a service and its sidecar listen on this machine.
func (s *containerSystem) App(name string) system.App {
	at := func(service string, port int) string {
		return "http://127.0.0.1:" + strconv.Itoa(s.ports[service][port])
	}
	for inside := range s.ports[name] {
		return system.App{URL: at(name, inside), DaprHTTP: at(name+"-sidecar", sidecarPort)}
	}
	panic(fmt.Sprintf("%s has no API", name))
}

func (s *containerSystem) container(name string) testcontainers.Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.containers[name]
}

func (s *containerSystem) id(name string) string { return s.container(name).GetContainerID() }

// waitHealthy returns when each of the containers is healthy, or has exited successfully if that is its purpose.
func (s *containerSystem) waitHealthy(ctx context.Context, names ...string) error {
	for _, name := range names {
		for {
			state, err := s.container(name).State(ctx)
			if err == nil && s.fine(name, state) {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s is not healthy: %w", name, errors.Join(err, context.Cause(ctx)))
			case <-time.After(poll):
			}
		}
	}
	return nil
}

// waitReady returns when a service reports that it is ready, which is earlier than the health check of its container.
func (s *containerSystem) waitReady(ctx context.Context, name string) error {
	for {
		code, _, _, err := waybillclient.Call(ctx, http.MethodGet, s.App(name).URL+"/readyz", nil)
		if err == nil && code == http.StatusOK {
			return nil
		}
		if !waybillclient.Wait(ctx, poll) {
			return fmt.Errorf("%s is not ready: %d %w", name, code, errors.Join(err, ctx.Err()))
		}
	}
}

func (s *containerSystem) fine(name string, state *container.State) bool {
	if s.compose.Services[name].Restart == "on-failure" {
		return !state.Running && state.ExitCode == 0 && state.FinishedAt > state.StartedAt
	}
	return state.Running && state.Health != nil && state.Health.Status == container.Healthy
}

// cut disconnects a container from a network; mend connects it again under its name.
func (s *containerSystem) cut(ctx context.Context, name, from string) error {
	_, err := s.docker.NetworkDisconnect(ctx, s.networks[from].ID, client.NetworkDisconnectOptions{Container: s.id(name), Force: true})
	return err
}

func (s *containerSystem) mend(ctx context.Context, name, to string) error {
	_, err := s.docker.NetworkConnect(ctx, s.networks[to].ID, client.NetworkConnectOptions{
		Container: s.id(name), EndpointConfig: &network.EndpointSettings{Aliases: []string{name}},
	})
	return err
}

func (s *containerSystem) pause(ctx context.Context, name string) error {
	_, err := s.docker.ContainerPause(ctx, s.id(name), client.ContainerPauseOptions{})
	return err
}

func (s *containerSystem) unpause(ctx context.Context, name string) error {
	_, err := s.docker.ContainerUnpause(ctx, s.id(name), client.ContainerUnpauseOptions{})
	return err
}

// kill kills a container and starts it again. Docker's restart policy does not apply to a container that was killed by hand.
func (s *containerSystem) kill(ctx context.Context, name string) error {
	if _, err := s.docker.ContainerKill(ctx, s.id(name), client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		return err
	}
	_, err := s.docker.ContainerStart(ctx, s.id(name), client.ContainerStartOptions{})
	return err
}

// restart stops a container as an update does, and starts it again.
func (s *containerSystem) restart(ctx context.Context, name string) error {
	_, err := s.docker.ContainerRestart(ctx, s.id(name), client.ContainerRestartOptions{})
	return err
}

// saveLogs writes the log of every container to a folder and names it.
func (s *containerSystem) saveLogs() error {
	dir, err := os.MkdirTemp("", "waybill-containers-")
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "the containers' logs are in", dir)
	var errs []error
	for name, c := range s.containers {
		errs = append(errs, saveLog(c, filepath.Join(dir, name+".log")))
	}
	return errors.Join(errs...)
}

func saveLog(c testcontainers.Container, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	log, err := c.Logs(ctx)
	if err != nil {
		return err
	}
	defer log.Close()
	var text bytes.Buffer
	if _, err := io.Copy(&text, log); err != nil {
		return err
	}
	return os.WriteFile(path, text.Bytes(), 0o600)
}

// stop removes everything that start created.
func (s *containerSystem) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var removing errgroup.Group
	for _, c := range s.containers {
		removing.Go(func() error {
			_, err := s.docker.ContainerRemove(ctx, c.GetContainerID(), client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
			return err
		})
	}
	errs := []error{removing.Wait()}
	for _, n := range s.networks {
		if n != nil {
			errs = append(errs, n.Remove(ctx))
		}
	}
	for _, v := range s.volumes {
		_, err := s.docker.VolumeRemove(ctx, v, client.VolumeRemoveOptions{Force: true})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
