package service_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"

	"waybill/platform/config"
	"waybill/platform/rest"
	"waybill/platform/service"
	"waybill/platform/service/servicetest"
)

// steps are what happened, in its order.
type steps struct {
	mu  sync.Mutex
	all []string
}

func (s *steps) add(step string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, step)
}

type build = func(ctx context.Context, s *service.Service) (service.Parts, error)

// runOf is the run function of a service with these parts.
func runOf(build build) servicetest.Run {
	return func(ctx context.Context, environ []string, stdout io.Writer) error {
		c, err := config.Parse[config.Service](environ)
		if err != nil {
			return err
		}
		return service.Run(ctx, service.Options{Name: "test", Config: c, PubSub: "bus", StateStore: "store", Log: stdout}, build)
	}
}

func TestTheOrderOfAStop(t *testing.T) {
	t.Parallel()
	var happened steps
	arrived, release := make(chan struct{}), make(chan struct{})
	svc := servicetest.Start(t, runOf(func(_ context.Context, s *service.Service) (service.Parts, error) {
		s.OnStop(func() error { happened.add("first resource released"); return nil })
		s.OnStop(func() error { happened.add("second resource released"); return nil })
		ended := func(step string, then func()) service.Task {
			return func(ctx context.Context) {
				<-ctx.Done()
				happened.add(step)
				then()
			}
		}
		return service.Parts{
			API: rest.Info{Title: "Test", Version: "1"},
			Mount: func(router chi.Router, _ huma.API) {
				router.Get("/slow", func(w http.ResponseWriter, _ *http.Request) {
					close(arrived)
					<-release
					happened.add("request answered")
					w.WriteHeader(http.StatusNoContent)
				})
			},
			Background:  []service.Task{ended("background task ended", func() { close(release) })},
			UntilServed: []service.Task{ended("task that requests need ended", func() {})},
		}, nil
	}))
	var asking sync.WaitGroup
	asking.Go(func() {
		resp := svc.Do(t, http.MethodGet, "/slow", "")
		if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusNoContent {
			t.Errorf("the request in flight got %s, %v", resp.Status, err)
		}
	})
	<-arrived
	svc.Stop(t)
	asking.Wait()
	want := []string{"background task ended", "request answered", "task that requests need ended", "second resource released", "first resource released"}
	if !slices.Equal(happened.all, want) {
		t.Errorf("got %q, want %q", happened.all, want)
	}
}

// What was opened before the failure is closed, and the address is free again.
func TestABuildThatFails(t *testing.T) {
	t.Parallel()
	unreadable := errors.New("the database cannot be opened")
	released := false
	run := runOf(func(_ context.Context, s *service.Service) (service.Parts, error) {
		s.OnStop(func() error { released = true; return nil })
		return service.Parts{}, unreadable
	})
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(taken.Addr().(*net.TCPAddr).Port)
	if err := run(t.Context(), []string{"APP_PORT=" + port}, io.Discard); err == nil || !strings.Contains(err.Error(), "APP_PORT") || released {
		t.Errorf("on a port in use: %v", err)
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		released = false
		if err := run(t.Context(), []string{"APP_PORT=" + port}, io.Discard); !errors.Is(err, unreadable) || !released {
			t.Errorf("got %v, resource released: %v", err, released)
		}
	}
}
