// Package azure tests the Azure components as far as that works without Azure: the telemetry bus, on a broker that speaks the
// Kafka protocol and asks for the user name and password of Event Hubs.
package azure

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dapr/go-sdk/client"
	"github.com/go-chi/chi/v5"
	"github.com/twmb/franz-go/pkg/kfake"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/platform/sidecar"
)

const (
	root = "../.."
	// connection is the password that Event Hubs' Kafka endpoint accepts for the user $ConnectionString.
	connection  = "Endpoint=sb://localhost;SharedAccessKeyName=send-and-listen;SharedAccessKey=of-a-test"
	token       = "the app api token of this test"
	testTimeout = time.Minute
)

// app is analytics as the bus sees it: the platform's receiver with a handler that can be made to fail.
type app struct {
	away     atomic.Bool
	attempts atomic.Int64
	mu       sync.Mutex
	taken    map[string]int
	dead     []string
}

func (a *app) take(_ context.Context, events []eventing.Event) []error {
	errs := make([]error, len(events))
	a.attempts.Add(1)
	for i, e := range events {
		if a.away.Load() {
			errs[i] = eventing.ErrUnavailable
			continue
		}
		a.mu.Lock()
		a.taken[e.ID]++
		a.mu.Unlock()
	}
	return errs
}

func (a *app) takenOf() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.taken)
}

func (a *app) deadLetters() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.dead)
}

// TestNothingIsLostWithoutAPolicy runs with EVENT_RETRIES=broker and without a resiliency policy, as on managed Dapr. Events that
// their service cannot process stay on the bus, even if the sidecar stops between two attempts, and no event is dead-lettered.
// Dapr's Event Hubs component would move its checkpoint past them at that stop (docs/adr/0015). The service dead-letters what is
// not a CloudEvent, with a reason, and it does not block other events.
func TestNothingIsLostWithoutAPolicy(t *testing.T) {
	t.Parallel()
	broker := startBroker(t)
	a := &app{taken: map[string]int{}}
	a.away.Store(true)
	ports := freePorts(t, 4)
	connection := dial(t, ports)
	publisher, err := eventing.NewPublisher(connection.Client, contracts.TelemetryBus)
	if err != nil {
		t.Fatal(err)
	}
	port := a.serve(t, publisher)
	dapr := startSidecar(t, broker, ports, port)

	const events, noEvent = 60, "no event, says the test"
	raw := client.PublishEventWithMetadata(map[string]string{"rawPayload": "true"})
	if err := connection.Client.PublishEvent(t.Context(), contracts.TelemetryBus, contracts.TopicAnalyticsEvents, []byte(noEvent), raw); err != nil {
		t.Fatal(err)
	}
	publish(t, publisher, events)
	// A delivery is four attempts, and there is one partition: the fifth attempt is the second delivery.
	eventually(t, "a second delivery", func() bool { return a.attempts.Load() > 4 })
	dapr.stop(t)
	a.away.Store(false)
	if a.takenOf() > 0 {
		t.Fatal("events were taken while nobody could")
	}

	dapr = startSidecar(t, broker, ports, port)
	eventually(t, "every event after the restart", func() bool { return a.takenOf() == events })
	eventually(t, "what is no event", func() bool { return len(a.deadLetters()) > 0 })
	// The dead-letter topic has one partition, so a dead letter of an event would come before this one.
	const last = -1
	if err := publisher.Publish(t.Context(), contracts.AnalyticsReadsEvents.DeadLetter(), event(last)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the dead letter of this test", func() bool { return strings.Contains(strings.Join(a.deadLetters(), " "), event(last).ID) })
	dead := a.deadLetters()
	for _, letter := range dead[:len(dead)-1] {
		if !strings.Contains(letter, noEvent) || !strings.Contains(letter, "not a CloudEvent") {
			t.Errorf("there is a dead letter %s", letter)
		}
	}
	dapr.stop(t)
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	timeout, tick := time.After(testTimeout), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-timeout:
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

func startBroker(t *testing.T) string {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("PLAIN", "$ConnectionString", connection),
		kfake.SeedTopics(1, contracts.TopicsOf(contracts.TelemetryBus)...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster.ListenAddrs()[0]
}

// serve answers the sidecar on its own port.
func (a *app) serve(t *testing.T, publisher *eventing.Publisher) int {
	t.Helper()
	s := contracts.AnalyticsReadsEvents
	receiver, err := eventing.NewReceiver(eventing.ReceiverOptions{
		App: s.App, Token: token, Publisher: publisher, Logger: slog.New(slog.DiscardHandler), BrokerRetries: true,
	}, eventing.Subscription{
		Component: contracts.TelemetryBus, Topic: s.Topic, DeadLetter: s.DeadLetter(),
		Bulk: &eventing.Bulk{MaxMessages: 10, MaxAwait: 50 * time.Millisecond, Handle: a.take},
	}, eventing.Subscription{
		Component: contracts.TelemetryBus, Topic: s.DeadLetter(),
		Raw: func(_ context.Context, m eventing.Message) error {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.dead = append(a.dead, string(m.Data))
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	router := chi.NewRouter()
	receiver.Mount(router)
	server := httptest.NewServer(router)
	t.Cleanup(server.Close)
	return server.Listener.Addr().(*net.TCPAddr).Port
}

// daprd is a running sidecar.
type daprd struct {
	cmd  *exec.Cmd
	log  *bytes.Buffer
	once sync.Once
}

// startSidecar starts daprd with the component file for the emulators, which is the one for Azure with another address, and
// without a resiliency policy.
func startSidecar(t *testing.T, broker string, ports []int, appPort int) *daprd {
	t.Helper()
	components := t.TempDir()
	const file = "telemetrybus.yaml"
	text, err := os.ReadFile(filepath.Join(root, "components", "emulators", file))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(components, file), text, 0o600); err != nil {
		t.Fatal(err)
	}
	binary, err := filepath.Abs(filepath.Join(root, ".waybill", "bin", "daprd"))
	if err != nil {
		t.Fatal(err)
	}
	d := &daprd{log: &bytes.Buffer{}}
	d.cmd = exec.Command(binary, "--app-id", contracts.AppAnalytics, "--app-port", strconv.Itoa(appPort), "--app-protocol", "http",
		"--app-channel-address", "127.0.0.1", "--dapr-listen-addresses", "127.0.0.1",
		"--dapr-http-port", strconv.Itoa(ports[0]), "--dapr-grpc-port", strconv.Itoa(ports[1]),
		"--dapr-internal-grpc-port", strconv.Itoa(ports[2]), "--dapr-internal-grpc-listen-address", "127.0.0.1",
		"--metrics-port", strconv.Itoa(ports[3]), "--metrics-listen-address", "127.0.0.1",
		"--resources-path", components, "--config", filepath.Join(root, "components", "azure", "config.yaml"),
		"--dapr-graceful-shutdown-seconds", "5")
	d.cmd.Env = append(os.Environ(), "DAPR_HOST_IP=127.0.0.1", "APP_API_TOKEN="+token, "EVENTHUBS_BROKER="+broker, "EVENTHUBS_CONNECTION_STRING="+connection)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatalf("%v; make runtime builds daprd", err)
	}
	t.Cleanup(func() {
		d.stop(t)
		if t.Failed() {
			t.Logf("daprd said:\n%s", d.log)
		}
	})
	eventually(t, "the sidecar", func() bool {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/v1.0/healthz", ports[0]))
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil && resp.StatusCode == http.StatusNoContent
	})
	return d
}

// stop stops the sidecar as a deployment does.
func (d *daprd) stop(t *testing.T) {
	t.Helper()
	d.once.Do(func() {
		if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := d.cmd.Wait(); err != nil {
			t.Errorf("daprd ended with %v", err)
		}
	})
}

// dial connects to the sidecar that will listen on the ports.
func dial(t *testing.T, ports []int) *sidecar.Sidecar {
	t.Helper()
	s, err := sidecar.Dial(sidecar.Config{Host: "127.0.0.1", HTTPPort: sidecar.Port(ports[0]), GRPCPort: sidecar.Port(ports[1])})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func publish(t *testing.T, publisher *eventing.Publisher, events int) {
	t.Helper()
	all := make([]eventing.Event, events)
	for i := range all {
		all[i] = event(i)
	}
	if err := publisher.PublishAll(t.Context(), contracts.TopicAnalyticsEvents, all); err != nil {
		t.Fatal(err)
	}
}

func event(i int) eventing.Event {
	return eventing.Event{
		ID: fmt.Sprintf("event-%d", i), Type: contracts.TypeProductViewed, Source: "/waybill/test", Subject: "sessions/1",
		DataVersion: contracts.Version, Key: fmt.Sprintf("session-%d", i%7), Time: time.Now(), Data: []byte(`{}`),
	}
}

func freePorts(t *testing.T, n int) []int {
	t.Helper()
	ports := make([]int, 0, n)
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports
}
