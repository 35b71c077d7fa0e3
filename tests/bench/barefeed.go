package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"waybill/contracts"
	"waybill/platform/eventing"
	"waybill/platform/sidecar"
	"waybill/tests/internal/system"
)

// bareFeed is a Dapr bulk subscription that only acknowledges, on its own sidecar and topic: the same program with the same
// settings as the sidecar of analytics, on the same broker. Publisher and subscriber run in this process. An event has arrived
// when its acknowledgement is written.
type bareFeed struct {
	broker    int // process id
	log       *os.File
	child     *child
	sidecar   *sidecar.Sidecar
	publisher *eventing.Publisher
	server    *http.Server
	serving   sync.WaitGroup
	taken     atomic.Int64
}

const (
	feedApp   = "bench"
	feedTopic = "bench-events"
	feedPath  = "/take"
	// The partitions of the system's topics and the settings of analytics' subscription.
	feedPartitions = 8
	feedDelivery   = 500
	feedAwait      = 500 * time.Millisecond
)

// newBareFeed starts it beside a running system, on its own data in folder.
func newBareFeed(ctx context.Context, s *system.System, folder string) (*bareFeed, error) {
	b := &bareFeed{}
	if err := b.start(ctx, s, folder); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bareFeed) start(ctx context.Context, s *system.System, folder string) error {
	status, err := s.Status()
	if err != nil {
		return err
	}
	for _, p := range status.Processes {
		if p.Name == "broker" {
			b.broker = p.PID
		}
	}
	if err := createTopic(ctx, status.Broker); err != nil {
		return err
	}
	top, err := system.Root()
	if err != nil {
		return err
	}
	components, err := feedComponents(top, folder, status.Broker)
	if err != nil {
		return err
	}
	if b.log, err = os.Create(filepath.Join(folder, "bare.log")); err != nil { //nolint:gosec // in the folder of this run
		return err
	}
	app, err := b.serve(ctx)
	if err != nil {
		return err
	}
	free, err := freePorts(4)
	if err != nil {
		return err
	}
	port := func(n int) string { return strconv.Itoa(free[n]) }
	if b.child, err = startChild("daprd", filepath.Join(top, ".waybill", "bin", "daprd"), folder, b.log,
		"--app-id", feedApp, "--app-port", strconv.Itoa(app), "--app-protocol", "http", "--app-channel-address", "127.0.0.1",
		"--dapr-listen-addresses", "127.0.0.1", "--dapr-http-port", port(0), "--dapr-grpc-port", port(1),
		"--dapr-internal-grpc-port", port(2), "--dapr-internal-grpc-listen-address", "127.0.0.1",
		"--metrics-port", port(3), "--metrics-listen-address", "127.0.0.1",
		"--resources-path", components, "--config", filepath.Join(top, "components", "local", "config.yaml"),
		"--log-level", "info", "--dapr-graceful-shutdown-seconds", "2",
	); err != nil {
		return err
	}
	if err := b.child.waitReady(ctx, "http://"+net.JoinHostPort("127.0.0.1", port(0))+"/v1.0/healthz"); err != nil {
		return err
	}
	if b.sidecar, err = sidecar.Dial(sidecar.Config{Host: "127.0.0.1", GRPCPort: sidecar.Port(free[1]), HTTPPort: sidecar.Port(free[0])}); err != nil {
		return err
	}
	b.publisher, err = eventing.NewPublisher(b.sidecar.Client, contracts.TelemetryBus)
	return err
}

func createTopic(ctx context.Context, broker string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(broker))
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(ctx, feedPartitions, 1, nil, feedTopic); err != nil {
		return fmt.Errorf("create the topic %s: %w", feedTopic, err)
	}
	return nil
}

// feedComponents copies the bus components of analytics' sidecar to folder, with another broker, topic and scope.
func feedComponents(top, folder, broker string) (string, error) {
	components := filepath.Join(folder, "components")
	if err := os.MkdirAll(components, 0o700); err != nil {
		return "", err
	}
	const dead = contracts.TopicAnalyticsEvents + ".analytics.dead"
	for file, changes := range map[string][][2]string{
		"resiliency.yaml": nil,
		"telemetrybus.yaml": {
			{`"127.0.0.1:9092"`, `"` + broker + `"`},
			{`"alerts,analytics-events,` + dead + `"`, `"` + feedTopic + `"`},
			{`"analytics=analytics-events,alerts,` + dead + `"`, `"` + feedApp + "=" + feedTopic + `"`},
			{`"analytics=analytics-events,` + dead + `"`, `"` + feedApp + "=" + feedTopic + `"`},
			{"\n  - analytics\n", "\n  - " + feedApp + "\n"},
		},
	} {
		text, err := os.ReadFile(filepath.Join(top, "components", "local", file)) //nolint:gosec // a file of this repository
		if err != nil {
			return "", err
		}
		for _, change := range changes {
			changed := bytes.ReplaceAll(text, []byte(change[0]), []byte(change[1]))
			if bytes.Equal(changed, text) {
				return "", fmt.Errorf("%s holds no %q any more, so the bare subscriber cannot be given its own", file, change[0])
			}
			text = changed
		}
		if err := os.WriteFile(filepath.Join(components, file), text, 0o600); err != nil { //nolint:gosec // in the folder of this run
			return "", err
		}
	}
	return components, nil
}

// serve is the subscribing app. It returns its port.
func (b *bareFeed) serve(ctx context.Context) (int, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	b.server = &http.Server{Handler: b.app(), ReadHeaderTimeout: pieceTimeout}
	b.serving.Go(func() {
		if err := b.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			_, _ = fmt.Fprintln(b.log, "the subscriber ended:", err)
		}
	})
	return listener.Addr().(*net.TCPAddr).Port, nil
}

func (b *bareFeed) app() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /dapr/subscribe", func(w http.ResponseWriter, _ *http.Request) {
		b.answer(w, []any{map[string]any{
			"pubsubname": contracts.TelemetryBus, "topic": feedTopic, "route": feedPath,
			"bulkSubscribe": map[string]any{"enabled": true, "maxMessagesCount": feedDelivery, "maxAwaitDurationMs": feedAwait.Milliseconds()},
		}})
	})
	mux.HandleFunc("POST "+feedPath, b.take)
	return mux
}

// take acknowledges a delivery and reads only the ids that it needs for that.
func (b *bareFeed) take(w http.ResponseWriter, req *http.Request) {
	type entry struct {
		EntryID string `json:"entryId"`
		Status  string `json:"status"`
	}
	var batch struct {
		Entries []entry `json:"entries"`
	}
	if err := json.NewDecoder(req.Body).Decode(&batch); err != nil {
		http.Error(w, "unreadable", http.StatusInternalServerError)
		return
	}
	for i := range batch.Entries {
		batch.Entries[i].Status = "SUCCESS"
	}
	if b.answer(w, map[string][]entry{"statuses": batch.Entries}) {
		b.taken.Add(int64(len(batch.Entries)))
	}
}

func (b *bareFeed) answer(w http.ResponseWriter, body any) bool {
	w.Header().Set("Content-Type", "application/json")
	err := json.NewEncoder(w).Encode(body)
	if err != nil {
		_, _ = fmt.Fprintln(b.log, "answer the sidecar:", err)
	}
	return err == nil
}

func (b *bareFeed) name() string { return "bare subscriber" }

// hand publishes the events as analytics does: with the same CloudEvents, keys and call.
func (b *bareFeed) hand(ctx context.Context, events []contracts.Payload) error {
	all := make([]eventing.Event, len(events))
	for i, payload := range events {
		id, at := factOf(payload)
		e, err := eventing.New(id, contracts.AppAnalytics, contracts.Version, at, payload)
		if err != nil {
			return err
		}
		all[i] = e
	}
	return b.publisher.PublishAll(ctx, feedTopic, all)
}

func factOf(payload contracts.Payload) (id string, at time.Time) {
	switch e := payload.(type) {
	case contracts.ProductViewed:
		return e.EventID, e.Timestamp
	case contracts.ProductPurchased:
		return e.EventID, e.Timestamp
	case contracts.RecommendationGenerated:
		return e.EventID, e.Timestamp
	}
	return "", time.Time{}
}

func (b *bareFeed) arrived(context.Context) (int64, error) { return b.taken.Load(), nil }

func (b *bareFeed) processes() ([]process, error) {
	return []process{{"broker", b.broker}, {"daprd", b.child.cmd.Process.Pid}}, nil
}

// close stops the sidecar first, because the sidecar needs its app until then.
func (b *bareFeed) close() error {
	var errs []error
	if b.sidecar != nil {
		errs = append(errs, b.sidecar.Close())
	}
	if b.child != nil {
		errs = append(errs, b.child.stop())
	}
	if b.server != nil {
		errs = append(errs, b.server.Close())
	}
	b.serving.Wait()
	if b.log != nil {
		errs = append(errs, b.log.Close())
	}
	return errors.Join(errs...)
}
