// Package containers drives the whole system in containers, as docker-compose.yml describes it and on the images of `make
// images`, and breaks what only containers can break: their networks.
package containers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
)

// waybill is the system that the tests share, one after the other.
var waybill *containerSystem

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	// Ryuk, the library's own cleaner, comes from a registry; stop cleans up instead.
	if err := os.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Ports are published on this address; the library would use another one when it runs in a container itself.
	if err := os.Setenv("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	log.SetDefault(log.NewNoopLogger()) // it tells of every step of every container
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	compose, err := readCompose()
	if err == nil {
		err = ready(ctx, compose)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	began := time.Now()
	if waybill, err = start(ctx, compose, strings.ToLower(rand.Text()[:6])); err != nil {
		fmt.Fprintln(os.Stderr, "start the system:", err)
		return 1
	}
	fmt.Fprintln(os.Stderr, "every container is healthy after", time.Since(began).Round(100*time.Millisecond))
	code := m.Run()
	if code != 0 {
		if err := waybill.saveLogs(); err != nil {
			fmt.Fprintln(os.Stderr, "save the logs:", err)
		}
	}
	if err := waybill.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the system:", err)
		code = 1
	}
	return code
}

var errNoDocker = errors.New(`these tests need a Docker engine, and none answers: install one and start it, then "make test-containers"
  Debian, Ubuntu: apt-get install docker.io && systemctl start docker
  others:         https://docs.docker.com/engine/install/`)

// ready reports which requirements of the tests are missing.
func ready(ctx context.Context, compose description) error {
	docker, err := testcontainers.NewDockerClientWithOpts(ctx)
	if err != nil {
		return fmt.Errorf("%w\n(%w)", errNoDocker, err)
	}
	defer docker.Close()
	if _, err := docker.Client.Ping(ctx, client.PingOptions{}); err != nil {
		return fmt.Errorf("%w\n(%w)", errNoDocker, err)
	}
	for _, s := range compose.Services {
		if _, err := docker.ImageInspect(ctx, s.Image); err != nil {
			return fmt.Errorf(`there is no image %s: "make images" makes it, and "make test-containers" does so first (%w)`, s.Image, err)
		}
	}
	return nil
}
