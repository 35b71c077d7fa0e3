package main

import (
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waybill/platform/service/servicetest"
)

func TestMain(m *testing.M) {
	servicetest.Main(main)
	goleak.VerifyTestMain(m)
}

// TestRunWithoutASidecar: the service starts, is alive and not ready, refuses work that it cannot do, and stops cleanly.
func TestRunWithoutASidecar(t *testing.T) {
	service := servicetest.Start(t, run, "RECONCILE_INTERVAL=10ms")
	order := `{"customer_id":"c","items":[{"product_id":"p","quantity":1,"price":1}],"total_amount":1,"shipping_address":{"street":"a","city":"b","zip":"c"}}`
	service.Answers(t,
		servicetest.Answer{Method: http.MethodPost, Path: "/v1/orders", Body: "{", Status: http.StatusBadRequest},
		servicetest.Answer{Method: http.MethodPost, Path: "/v1/orders", Body: order, Status: http.StatusServiceUnavailable},
		servicetest.Answer{Method: http.MethodPost, Path: "/v1/orders/ord-1/cancel", Status: http.StatusServiceUnavailable},
	)
	service.Logs(t, "pending records could not be counted")
	service.Stop(t)
}

func TestRunNamesAPortInUse(t *testing.T) {
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
	}()
	port := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	err = run(t.Context(), []string{"APP_PORT=" + port}, io.Discard)
	if want := "APP_HOST and APP_PORT, 127.0.0.1 and " + port + ": a free address of this machine is expected"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestConfig(t *testing.T) {
	c, err := parse([]string{"APP_PORT=8001"})
	got := []time.Duration{time.Duration(c.IdempotencyTTL), time.Duration(c.ReceivedTTL), time.Duration(c.ReconcileInterval), time.Duration(c.ReconcileAfter)}
	if want := []time.Duration{24 * time.Hour, 24 * time.Hour, 10 * time.Second, 15 * time.Second}; err != nil || !slices.Equal(got, want) || c.OrderRetention != 0 || time.Duration(c.DeadLetterRetention) != 90*24*time.Hour {
		t.Errorf("the defaults are %v, %v", got, err)
	}
}

func TestEveryMistakeInTheConfigurationIsNamed(t *testing.T) {
	const duration = "a duration is positive and has a unit, such as 5m or 24h"
	servicetest.Exits(t)
	servicetest.Mistakes[Config](t, run, append(servicetest.Shared(), servicetest.Mistake{
		Environ: []string{"IDEMPOTENCY_TTL=-1h", "RECEIVED_TTL=soon", "RECONCILE_INTERVAL=0", "RECONCILE_AFTER=15", "ORDER_RETENTION=forever"},
		Says: []string{
			"APP_PORT is missing", `IDEMPOTENCY_TTL is "-1h": ` + duration, `RECEIVED_TTL is "soon": ` + duration,
			`RECONCILE_INTERVAL is "0": ` + duration, `RECONCILE_AFTER is "15": ` + duration,
			`ORDER_RETENTION is "forever": a retention is 0 (for ever) or a duration of at least 1s with a unit, such as 2160h`,
		},
	}, servicetest.Mistake{
		Environ: []string{"APP_PORT=0", "ADMISSION_OPEN=-1", "ADMISSION_WAITING=many", "ADMISSION_AGE=0s"},
		Says: []string{
			`ADMISSION_OPEN is "-1": it is a whole number that is not negative`, `ADMISSION_WAITING is "many": it is a whole number that is not negative`,
			`ADMISSION_AGE is "0s": ` + duration,
		},
	}, servicetest.Mistake{
		Environ: []string{"APP_PORT=0", "IDEMPOTENCY_TTL=900ms", "RECEIVED_TTL=1ms"},
		Says:    []string{"IDEMPOTENCY_TTL is 900ms: at least 1s is expected", "RECEIVED_TTL is 1ms: at least 1s is expected"},
	})...)
}

// TestTheWholeSurface: what holds for every route holds for each that the service describes.
func TestTheWholeSurface(t *testing.T) {
	service := servicetest.Start(t, run, "RECONCILE_INTERVAL=10ms", servicetest.CORS)
	service.Surface(t)
	service.Stop(t)
}
