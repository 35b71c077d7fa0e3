// Package servicetest runs a whole service in a test: as its main does, but on a free port and without a sidecar.
package servicetest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"waybill/platform/config"
)

// Run is the run function of a service's main: it runs the service until ctx ends.
type Run func(ctx context.Context, environ []string, stdout io.Writer) error

// timeout bounds each wait for the service.
const timeout = 25 * time.Second

// Service is a running service.
type Service struct {
	url   string
	stop  context.CancelFunc
	ended chan error
	mu    sync.Mutex
	log   bytes.Buffer
	grown chan struct{}
}

// Start runs the service on a free port, with the given environment, and returns when it listens. The service stops at the end of
// the test, unless Stop stopped it.
func Start(t *testing.T, run Run, environ ...string) *Service {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	logs, stdout := io.Pipe()
	s := &Service{stop: stop, ended: make(chan error, 1), grown: make(chan struct{}, 1)}
	// No sidecar listens on port 1.
	environ = append([]string{"APP_PORT=0", "DAPR_HTTP_PORT=1", "DAPR_GRPC_PORT=1"}, environ...)
	var running sync.WaitGroup
	running.Go(func() {
		err := run(ctx, environ, stdout)
		s.ended <- errors.Join(err, stdout.Close())
	})
	lines := bufio.NewScanner(logs)
	var listening struct {
		Msg     string `json:"msg"`
		Address string `json:"address"`
	}
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &listening) != nil || listening.Msg != "listening" {
		stop()
		t.Fatalf("the first line of the log is %q: %v", lines.Text(), <-s.ended)
	}
	s.url = "http://" + listening.Address
	running.Go(func() {
		for lines.Scan() {
			s.mu.Lock()
			s.log.Write(append(lines.Bytes(), '\n'))
			s.mu.Unlock()
			select {
			case s.grown <- struct{}{}:
			default:
			}
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return s
}

// client keeps no connections: they would outlive the test.
var client = http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// Do sends a request. The caller closes the body of the answer.
func (s *Service) Do(t *testing.T, method, path, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// Answer is a request and the status that it must be answered with.
type Answer struct {
	Method, Path, Body string
	Status             int
}

// Answers checks that the service is alive and not ready, serves its OpenAPI, and answers the given requests as they say.
func (s *Service) Answers(t *testing.T, answers ...Answer) {
	t.Helper()
	for _, a := range append([]Answer{
		{http.MethodGet, "/healthz", "", http.StatusOK},
		{http.MethodGet, "/readyz", "", http.StatusServiceUnavailable},
		{http.MethodGet, "/openapi.json", "", http.StatusOK},
		{http.MethodGet, "/docs", "", http.StatusOK},
		{http.MethodGet, "/dapr/subscribe", "", http.StatusOK},
		{http.MethodGet, "/nowhere", "", http.StatusNotFound},
	}, answers...) {
		resp := s.Do(t, a.Method, a.Path, a.Body)
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if resp.StatusCode != a.Status {
			t.Errorf("%s %s: %d, want %d", a.Method, a.Path, resp.StatusCode, a.Status)
		}
	}
}

// Logs waits until the log holds text.
func (s *Service) Logs(t *testing.T, text string) {
	t.Helper()
	over := time.After(timeout)
	for {
		s.mu.Lock()
		found := strings.Contains(s.log.String(), text)
		s.mu.Unlock()
		if found {
			return
		}
		select {
		case <-s.grown:
		case <-over:
			t.Errorf("the log does not contain %q", text)
			return
		}
	}
}

// Stop ends the service and checks that it ends without an error.
func (s *Service) Stop(t *testing.T) {
	t.Helper()
	s.stop()
	select {
	case err := <-s.ended:
		if err != nil {
			t.Errorf("the service stopped with %v", err)
		}
	case <-time.After(timeout):
		t.Fatal("the service does not stop")
	}
}

// Mistake is an environment that a service refuses, and what the error must say: each wrong variable and what is expected of it.
type Mistake struct {
	Environ []string
	Says    []string
}

// Mistakes checks that run refuses each environment at once, and that the error names all its faults. The mistakes must cover every
// variable of Config that can have a wrong value.
func Mistakes[Config any](t *testing.T, run Run, mistakes ...Mistake) {
	t.Helper()
	var says strings.Builder
	for _, m := range mistakes {
		says.WriteString(strings.Join(m.Says, "\n") + "\n")
	}
	for _, name := range config.Checked[Config]() {
		if !strings.Contains(says.String(), name+" is ") {
			t.Errorf("no mistake covers %s", name)
		}
	}
	for _, m := range mistakes {
		err := run(t.Context(), m.Environ, io.Discard)
		if err == nil {
			t.Fatalf("%q: it ran", m.Environ)
		}
		for _, want := range m.Says {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q: the error does not say %q:\n%v", m.Environ, want, err)
			}
		}
		if lines := strings.Count(err.Error(), "\n") + 1; lines != len(m.Says) {
			t.Errorf("%q: the error has %d lines, want one for each of %d faults:\n%v", m.Environ, lines, len(m.Says), err)
		}
	}
}

// Shared are mistakes with the variables that every service has.
func Shared() []Mistake {
	return []Mistake{
		{nil, []string{"APP_PORT is missing: a port is a number from 0 (any free one) to 65535"}},
		{[]string{"APP_PORT="}, []string{"APP_PORT is empty: a port is a number"}},
		{[]string{"APP_PORT=65536"}, []string{`APP_PORT is "65536": a port is a number from 0 (any free one) to 65535`}},
		{
			[]string{
				"APP_PORT=http", "DAPR_HTTP_PORT=0", "DAPR_GRPC_PORT=70000", "EVENT_RETRIES=client", "STATE_CALLS=-1", "DEAD_LETTER_RETENTION=90d", "CORS_ORIGINS=*", "LOG_FORMAT=xml",
				"LOG_LEVEL=loud", "OTEL_EXPORTER_OTLP_ENDPOINT=collector:4318", "DEBUG_PORT=x",
			},
			[]string{
				`APP_PORT is "http": a port is a number`, `DAPR_HTTP_PORT is "0": the sidecar's port is a number from 1 to 65535`,
				`DAPR_GRPC_PORT is "70000": the sidecar's port`, `EVENT_RETRIES is "client": events are retried by the sidecar or by the broker`,
				`STATE_CALLS is "-1": it is a whole number that is not negative`,
				`DEAD_LETTER_RETENTION is "90d": a retention is 0 (for ever) or a duration of at least 1s with a unit, such as 2160h`,
				`CORS_ORIGINS is "*": origins are exact and separated by commas, such as https://shop.example.com,http://localhost:3000, and "*" must not contain a wildcard`,
				`LOG_FORMAT is "xml": the log format is json or text`,
				`LOG_LEVEL is "loud": the log level is debug, info, warn or error`, `OTEL_EXPORTER_OTLP_ENDPOINT is "collector:4318": an address begins with http:// or https://`,
				`DEBUG_PORT is "x": a port is a number`,
			},
		},
	}
}

// asMain is the variable that makes a test binary run the service's main function instead of its tests.
const asMain = "WAYBILL_TEST_AS_MAIN"

// Main runs main if Exits started the process, and otherwise returns. A TestMain calls it first.
func Main(main func()) {
	if os.Getenv(asMain) != "" {
		main()
		os.Exit(0)
	}
}

// Exits checks that the process of the service, started without any setting, writes to standard error that its port is missing, and
// exits with status 1. The package's TestMain must call Main.
func Exits(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, self) //nolint:gosec // this test itself
	cmd.Env, cmd.Stderr = []string{asMain + "=1"}, &said
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("the process ended with %v, want status 1", err)
	}
	if want := "APP_PORT is missing: a port is a number"; !strings.Contains(said.String(), want) {
		t.Errorf("standard error is %q, want %q", said.String(), want)
	}
}
