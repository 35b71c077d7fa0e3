// Package api compares what the services do with their OpenAPI descriptions, by schemathesis.
package api

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"waybill/tests/internal/system"
)

var (
	program  = flag.String("schemathesis", "", "the program, as make test-api installs it; without it the test is skipped")
	seed     = flag.Int("seed", 0, "what the requests follow from; 0 makes one up")
	examples = flag.Int("examples", 30, "how many requests are made up for each operation and phase; orders are really placed")
	only     = flag.String("service", "", "the only service to test")
)

// TestTheServicesDoWhatTheirDescriptionsSay lets schemathesis generate valid and invalid requests and sequences of them. It fails
// on an answer that the description does not contain, a valid request that is refused and an invalid one that is accepted.
func TestTheServicesDoWhatTheirDescriptionsSay(t *testing.T) {
	if *program == "" {
		t.Skip("make test-api runs this test: it needs schemathesis")
	}
	st, err := filepath.Abs(*program)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), st, "--version").CombinedOutput(); err != nil {
		t.Fatalf("%s cannot be run: %v\n%s", st, err, out)
	}
	if *seed == 0 {
		*seed = int(time.Now().UnixNano()%1_000_000_000) + 1
	}
	runner, err := system.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	waybill, err := system.Start(t.Context(), runner, t.TempDir(), &out, "LIVE_INTERVAL=100ms")
	if err != nil {
		t.Fatalf("%v\nthe runner said:\n%s", err, &out)
	}
	defer func() {
		if err := waybill.Stop(); err != nil {
			t.Errorf("stop the system: %v\nthe runner said:\n%s", err, &out)
		}
	}()
	for _, service := range []string{"fulfillment", "notifications", "analytics", "orders"} {
		if *only != "" && *only != service {
			continue
		}
		t.Run(service, func(t *testing.T) {
			t.Logf("to repeat it: make test-api ARGS='-service %s -seed %d -examples %d'", service, *seed, *examples)
			run := exec.CommandContext(t.Context(), st, "--config-file", "schemathesis.toml", "run", waybill.App(service).URL+"/openapi.json",
				"--seed", strconv.Itoa(*seed), "--max-examples", strconv.Itoa(*examples), "--no-color")
			run.Stdout, run.Stderr = os.Stdout, os.Stderr
			if err := run.Run(); err != nil {
				t.Errorf("schemathesis found differences, see above: %v", err)
			}
		})
	}
}
