package local

import (
	"crypto/rand"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"waybill/contracts"
	"waybill/devrun/internal/broker"
	"waybill/devrun/internal/build"
	"waybill/devrun/internal/datadir"
	"waybill/devrun/internal/inbox"
	"waybill/devrun/internal/ports"
	"waybill/devrun/internal/runfile"
	"waybill/devrun/internal/scheduler"
	"waybill/devrun/internal/supervise"
)

// Kinds of processes, as other programs see them in system.json.
const (
	kindBroker    = "broker"
	kindInbox     = "inbox"
	kindPlacement = "placement"
	kindScheduler = "scheduler"
	kindApp       = "app"
	kindSidecar   = "sidecar"
)

// Usual ports of what dapr.yaml does not name.
const (
	brokerPort    = 9092
	placementPort = 50005
	schedulerPort = 50006

	// InboxMailPort is the inbox's SMTP port.
	InboxMailPort = 1025
	// InboxHTTPPort is the inbox's port for SMS and push.
	InboxHTTPPort = 1026
)

// plan is everything that is decided before the first process starts.
type plan struct {
	data    datadir.Dir
	file    *runfile.File
	runtime build.Runtime
	self    string            // the runner's own program, which is the broker and the inbox too
	apps    map[string]string // app id → program, "" to run the command of dapr.yaml
	topics  []string
	token   string

	broker    int
	inbox     struct{ mail, http int }
	placement struct{ port, health, metrics, raft int }
	scheduler struct{ port, health, metrics, client, peer int }
	sidecar   map[string]*sidecarPorts
	app       map[string]*int

	guard *ports.Block // keeps other runs away from the chosen free ports; nil with the usual ones
}

type sidecarPorts struct{ http, grpc, internal, metrics int }

// newToken makes the secret by which an app knows its sidecar.
func newToken() string { return rand.Text() }

// choosePorts decides every port. Known ones are those of dapr.yaml and the broker; with free, none is.
func (p *plan) choosePorts(free bool) error {
	var needs []ports.Need
	var targets []*int
	want := func(target *int, usual int, known bool, purpose string, args ...any) {
		needs = append(needs, ports.Need{For: fmt.Sprintf(purpose, args...), Usual: usual, Known: known})
		targets = append(targets, target)
	}
	want(&p.broker, brokerPort, true, "the embedded broker")
	want(&p.inbox.mail, InboxMailPort, false, "mail to the inbox")
	want(&p.inbox.http, InboxHTTPPort, false, "SMS and push to the inbox")
	want(&p.placement.port, either(p.file.PlacementPort, placementPort), false, "Dapr's placement service")
	want(&p.placement.health, 0, false, "placement's health")
	want(&p.placement.metrics, 0, false, "placement's metrics")
	want(&p.placement.raft, 0, false, "placement's raft")
	want(&p.scheduler.port, either(p.file.SchedulerPort, schedulerPort), false, "Dapr's scheduler")
	want(&p.scheduler.health, 0, false, "the scheduler's health")
	want(&p.scheduler.metrics, 0, false, "the scheduler's metrics")
	want(&p.scheduler.client, 0, false, "the scheduler's etcd")
	want(&p.scheduler.peer, 0, false, "the scheduler's etcd peers")
	p.sidecar, p.app = map[string]*sidecarPorts{}, map[string]*int{}
	for _, a := range p.file.Apps {
		s := &sidecarPorts{}
		p.sidecar[a.ID], p.app[a.ID] = s, new(int)
		want(p.app[a.ID], a.Port, true, "the API of %s", a.ID)
		want(&s.http, a.HTTPPort, true, "the HTTP API of %s's sidecar", a.ID)
		want(&s.grpc, a.GRPCPort, true, "the gRPC API of %s's sidecar", a.ID)
		want(&s.internal, 0, false, "the calls between sidecars to %s", a.ID)
		want(&s.metrics, a.MetricsPort, false, "the metrics of %s's sidecar", a.ID)
	}

	var chosen []int
	if free {
		block, err := ports.Reserve(len(needs))
		if err != nil {
			return err
		}
		p.guard, chosen = block, block.Ports()
	} else {
		var err error
		if chosen, err = ports.Choose(needs); err != nil {
			return err
		}
	}
	for i, target := range targets {
		*target = chosen[i]
	}
	return nil
}

func either(a, b int) int {
	if a != 0 {
		return a
	}
	return b
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func (p *plan) appURL(id string) string { return "http://" + loopback(*p.app[id]) }

func (p *plan) inboxURL() string { return "http://" + inbox.Address(p.inbox.http) }

// foundation are the processes that the sidecars need: broker, inbox, placement and scheduler.
func (p *plan) foundation() []supervise.Spec {
	return []supervise.Spec{
		{
			Name: "broker", Kind: kindBroker,
			Path: p.self,
			Args: []string{"broker", "--data", string(p.data), "--port", strconv.Itoa(p.broker), "--inbox=false", "--quiet"},
			Dir:  p.file.Root, Env: goEnv(nil),
			Ready: kafkaServes(broker.Address(p.broker), p.topics),
			// A killed broker has everything the system had; only buffered writes of the machine itself could be lost.
			StopWithin: 10 * time.Second,
		},
		{
			Name: "inbox", Kind: kindInbox,
			Path: p.self,
			Args: []string{
				"receive", "--data", string(p.data),
				"--smtp-port", strconv.Itoa(p.inbox.mail), "--http-port", strconv.Itoa(p.inbox.http),
			},
			Dir: p.file.Root, Env: os.Environ(),
			Ready:      receives(inbox.Address(p.inbox.mail), p.inboxURL()),
			StopWithin: 5 * time.Second,
		},
		{
			Name: "placement", Kind: kindPlacement,
			Path: p.runtime.Placement,
			Args: []string{
				"--port", strconv.Itoa(p.placement.port), "--listen-address", "127.0.0.1",
				"--healthz-port", strconv.Itoa(p.placement.health), "--healthz-listen-address", "127.0.0.1",
				"--metrics-port", strconv.Itoa(p.placement.metrics), "--metrics-listen-address", "127.0.0.1",
				"--initial-cluster", "dapr-placement-0=" + loopback(p.placement.raft),
			},
			Dir: string(p.data), Env: daprEnv(nil),
			Ready:      answers("http://"+loopback(p.placement.health)+"/healthz", 200),
			StopWithin: 5 * time.Second,
		},
		{
			Name: "scheduler", Kind: kindScheduler,
			Path: p.runtime.Scheduler,
			Args: append([]string{
				"--port", strconv.Itoa(p.scheduler.port), "--listen-address", "127.0.0.1",
				"--override-broadcast-host-port", loopback(p.scheduler.port),
				"--healthz-port", strconv.Itoa(p.scheduler.health), "--healthz-listen-address", "127.0.0.1",
				"--metrics-port", strconv.Itoa(p.scheduler.metrics), "--metrics-listen-address", "127.0.0.1",
				"--etcd-data-dir", p.data.Scheduler(),
				"--etcd-client-port", strconv.Itoa(p.scheduler.client), "--etcd-client-listen-address", "127.0.0.1",
				"--etcd-initial-cluster", "dapr-scheduler-server-0=http://" + loopback(p.scheduler.peer),
			}, scheduler.Retention()...),
			Dir: string(p.data), Env: daprEnv(nil),
			Ready: schedulerLeads("http://"+loopback(p.scheduler.health)+"/healthz", &scheduler.Leadership{
				Etcd:   "http://" + loopback(p.scheduler.client),
				File:   p.data.Leadership(),
				Client: client,
			}),
			Gently:     true,
			StopWithin: 10 * time.Second,
		},
	}
}

// pair is one app and its sidecar.
func (p *plan) pair(a runfile.App) (app, sidecar supervise.Spec) {
	own, side := *p.app[a.ID], p.sidecar[a.ID]
	env := map[string]string{
		"APP_ID":         a.ID,
		"APP_HOST":       "127.0.0.1",
		"APP_PORT":       strconv.Itoa(own),
		"APP_PROTOCOL":   a.Protocol,
		"APP_API_TOKEN":  p.token,
		"DAPR_HTTP_PORT": strconv.Itoa(side.http),
		"DAPR_GRPC_PORT": strconv.Itoa(side.grpc),
	}
	for name, value := range a.Env {
		env[name] = p.inData(value)
	}
	app = supervise.Spec{
		Name: a.ID, Kind: kindApp,
		Path: p.apps[a.ID],
		Dir:  a.Dir, Env: environ(env),
		Ready:      answers(p.appURL(a.ID)+"/readyz", 200),
		StopWithin: 20 * time.Second,
	}
	if app.Path == "" {
		app.Path, app.Args = a.Command[0], a.Command[1:]
	}

	args := []string{
		"--app-id", a.ID,
		"--app-port", strconv.Itoa(own), "--app-protocol", a.Protocol, "--app-channel-address", "127.0.0.1",
		"--dapr-listen-addresses", "127.0.0.1",
		"--dapr-http-port", strconv.Itoa(side.http),
		"--dapr-grpc-port", strconv.Itoa(side.grpc),
		"--dapr-internal-grpc-port", strconv.Itoa(side.internal), "--dapr-internal-grpc-listen-address", "127.0.0.1",
		"--metrics-port", strconv.Itoa(side.metrics), "--metrics-listen-address", "127.0.0.1",
		"--placement-host-address", loopback(p.placement.port),
		"--scheduler-host-address", loopback(p.scheduler.port),
		"--resources-path", filepath.Join(p.data.Components(), a.ID),
		"--log-level", a.LogLevel,
		// Its app has stopped by then; what it still tries to deliver stays on the bus.
		"--dapr-graceful-shutdown-seconds", "2",
	}
	if a.ConfigFile != "" {
		args = append(args, "--config", p.configFile(a))
	}
	if a.MaxBodySize != "" {
		args = append(args, "--max-body-size", a.MaxBodySize)
	}
	if a.HealthCheck {
		args = append(args, "--enable-app-health-check")
		if a.HealthCheckPath != "" {
			args = append(args, "--app-health-check-path", a.HealthCheckPath)
		}
	}
	sidecar = supervise.Spec{
		Name: sidecarName(a.ID), Kind: kindSidecar,
		Path: p.runtime.Daprd, Args: args,
		Dir: a.Dir, Env: daprEnv(map[string]string{"APP_API_TOKEN": p.token}),
		Ready: all(
			answers("http://"+loopback(side.http)+"/v1.0/healthz", 204),
			reads(broker.Address(p.broker), a.ID, subscribed(p.appURL(a.ID), p.token, contracts.OrderBus)),
			reads(broker.Address(p.broker), telemetryGroup(a.ID), subscribed(p.appURL(a.ID), p.token, contracts.TelemetryBus)),
		),
		StopWithin: 10 * time.Second,
	}
	return app, sidecar
}

// inData is the value of a variable with the run's data folder in place of the usual one.
func (p *plan) inData(value string) string {
	const usual = "../../.waybill/" // seen from the working directory of an app, services/<app>
	if rest, ok := strings.CutPrefix(value, usual); ok {
		return filepath.Join(string(p.data), rest)
	}
	return value
}

// configFile is this run's copy of the sidecar's configuration when it lies among the component files, which are copied.
func (p *plan) configFile(a runfile.App) string {
	if slices.Contains(a.ResourcePaths, filepath.Dir(a.ConfigFile)) {
		return filepath.Join(p.data.Components(), a.ID, filepath.Base(a.ConfigFile))
	}
	return a.ConfigFile
}

func sidecarName(appID string) string { return appID + "-sidecar" }

// daprEnv is the environment of a Dapr process. Without DAPR_HOST_IP it would announce this machine's network address.
func daprEnv(more map[string]string) []string {
	env := map[string]string{"DAPR_HOST_IP": "127.0.0.1"}
	maps.Copy(env, more)
	return goEnv(env)
}

// goEnv is the environment of a process that works for every order. With Go's own GOGC of 100 a sixth of its processor time is
// garbage collection (docs/benchmarks.md).
func goEnv(more map[string]string) []string {
	env := map[string]string{}
	if os.Getenv("GOGC") == "" {
		env["GOGC"] = "400"
	}
	maps.Copy(env, more)
	return environ(env)
}

// environ is the runner's environment with more on top.
func environ(more map[string]string) []string {
	env := os.Environ()
	for _, key := range slices.Sorted(maps.Keys(more)) {
		env = append(env, key+"="+more[key])
	}
	return env
}
