package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"waybill/platform/service/servicetest"
	"waybill/services/notifications/internal/message"
	"waybill/services/notifications/internal/vapid"
)

func TestMain(m *testing.M) {
	servicetest.Main(main)
	os.Exit(m.Run())
}

// Without a sidecar the service starts, is live and not ready, and stops cleanly while its courier waits.
func TestRunWithoutASidecar(t *testing.T) {
	t.Parallel()
	service := servicetest.Start(t, run)
	service.Answers(t,
		servicetest.Answer{Method: http.MethodGet, Path: "/v1/notifications", Status: http.StatusUnprocessableEntity},
		servicetest.Answer{Method: http.MethodGet, Path: "/v1/notifications?order_id=ORD-1001", Status: http.StatusServiceUnavailable},
	)
	service.Stop(t)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	c, err := parse([]string{"APP_PORT=8004"})
	if err != nil || c.OperatorsEmail != "operators@example.com" || c.AllowLoopbackPush || c.policy() != (message.Policy{Attempts: 30, First: time.Second, Last: 5 * time.Minute}) {
		t.Errorf("the defaults are %+v, %v", c, err)
	}
	// The tokens that push services read are ASCII.
	c, err = parse([]string{"APP_PORT=8004", "OPERATORS_EMAIL=ops@b\u00fccher.example", "VAPID_SUBJECT=mailto:ops@b\u00fccher.example"})
	if err != nil || c.VAPIDSubject != "mailto:ops@xn--bcher-kva.example" {
		t.Errorf("%+v, %v", c, err)
	}
	keys, err := vapid.Generate()
	if err != nil {
		t.Fatal(err)
	}
	c, err = parse([]string{"APP_PORT=8004", "VAPID_PUBLIC_KEY=" + keys.Public, "VAPID_PRIVATE_KEY=" + keys.Private})
	if err != nil || strings.Contains(fmt.Sprintf("%+v", c), keys.Private) {
		t.Errorf("configured keys: %v, or the private one is shown", err)
	}
}

func TestEveryMistakeInTheConfigurationIsReported(t *testing.T) {
	t.Parallel()
	const (
		duration = "a duration is positive and has a unit, such as 5m or 24h"
		pair     = "VAPID_PUBLIC_KEY and VAPID_PRIVATE_KEY: both or neither are expected, a pair of P-256 keys in base64url"
	)
	keys, err := vapid.Generate()
	if err != nil {
		t.Fatal(err)
	}
	servicetest.Exits(t)
	servicetest.Mistakes[Config](t, run, append(servicetest.Shared(), servicetest.Mistake{
		Environ: []string{
			"OPERATORS_EMAIL=operators", "VAPID_PRIVATE_KEY=x", "VAPID_SUBJECT=operators", "ALLOW_LOOPBACK_PUSH=perhaps",
			"SEND_ATTEMPTS=0", "SEND_FIRST_RETRY=0s", "SEND_LAST_RETRY=never", "SEND_TIMEOUT=10", "ADDRESS_WAIT=0s", "MESSAGE_RETENTION=-1h",
		},
		Says: []string{
			"APP_PORT is missing", `OPERATORS_EMAIL is "operators": an email address is expected, such as operators@example.com: it must be an email address`, pair,
			`VAPID_SUBJECT is "operators": an address that begins with mailto: or https:// is expected`,
			`ALLOW_LOOPBACK_PUSH is "perhaps": it is true or false`, `SEND_ATTEMPTS is "0": a count is a whole number of at least 1`,
			`SEND_FIRST_RETRY is "0s": ` + duration, `SEND_LAST_RETRY is "never": ` + duration, `SEND_TIMEOUT is "10": ` + duration, `ADDRESS_WAIT is "0s": ` + duration, `MESSAGE_RETENTION is "-1h": a retention is 0 (for ever) or a duration of at least 1s with a unit, such as 2160h`,
		},
	},
		servicetest.Mistake{Environ: []string{"APP_PORT=0", "VAPID_PUBLIC_KEY=" + keys.Public}, Says: []string{pair}},
		servicetest.Mistake{Environ: []string{"APP_PORT=0", "OPERATORS_EMAIL=j\u00fcrgen@example.com", "VAPID_SUBJECT=mailto:j\u00fcrgen@example.com"}, Says: []string{
			"it must have only ASCII characters before the @", "VAPID_SUBJECT is ",
		}},
		servicetest.Mistake{Environ: []string{"APP_PORT=0", "SEND_FIRST_RETRY=1h"}, Says: []string{"SEND_FIRST_RETRY is 1h0m0s: not more than SEND_LAST_RETRY is expected"}},
	)...)
}

// Every route that the service describes keeps the rules for all routes.
func TestTheWholeSurface(t *testing.T) {
	service := servicetest.Start(t, run, servicetest.CORS)
	service.Surface(t)
	service.Stop(t)
}
