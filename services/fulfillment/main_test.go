package main

import (
	"maps"
	"net/http"
	"os"
	"testing"

	"waybill/contracts"
	"waybill/platform/service/servicetest"
)

func TestMain(m *testing.M) {
	servicetest.Main(main)
	os.Exit(m.Run())
}

// The service starts without a sidecar, is alive and not ready, and stops cleanly while its workflow worker still waits.
func TestRunWithoutASidecar(t *testing.T) {
	t.Parallel()
	service := servicetest.Start(t, run)
	service.Answers(t,
		servicetest.Answer{Method: http.MethodGet, Path: "/v1/inventory/PROD-001", Status: http.StatusServiceUnavailable},
		servicetest.Answer{Method: http.MethodPut, Path: "/v1/inventory/PROD-001", Body: `{"on_hand": 1}`, Status: http.StatusServiceUnavailable},
	)
	service.Stop(t)
}

func TestThresholds(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]map[string]contracts.Amount{
		"5000.00":                              {"USD": 5000_0000}, // as in former releases
		"0":                                    {"USD": 0},
		"5000.00 USD,4600.00 EUR, 750000 JPY ": {"USD": 5000_0000, "EUR": 4600_0000, "JPY": 750_000_0000},
		"4600.00 EUR":                          {"EUR": 4600_0000},
	} {
		c, err := parse([]string{"APP_PORT=0", "APPROVAL_THRESHOLD=" + text})
		if err != nil || !maps.Equal(c.limits().ApprovalAboveIn, want) || c.limits().ApprovalAbove != want["USD"] {
			t.Errorf("%q: %+v, %v", text, c.limits(), err)
		}
	}
	if c, err := parse([]string{"APP_PORT=0"}); err != nil || !maps.Equal(c.limits().ApprovalAboveIn, map[string]contracts.Amount{"USD": 5000_0000}) {
		t.Errorf("by default: %+v, %v", c.limits(), err)
	}
}

func TestEveryMistakeInTheConfigurationIsNamed(t *testing.T) {
	t.Parallel()
	const (
		duration = "a duration is positive and has a unit, such as 5m or 24h"
		count    = "a count is a whole number of at least 1"
	)
	servicetest.Exits(t)
	servicetest.Mistakes[Config](t, run, append(servicetest.Shared(), servicetest.Mistake{
		Environ: []string{
			"APP_PORT=0", "APPROVAL_THRESHOLD=-1", "APPROVAL_TIMEOUT=0s", "RESERVATION_TIMEOUT=soon", "STEP_FIRST_RETRY=-1s", "STEP_LAST_RETRY=1",
			"STEP_ATTEMPTS=0", "UNDO_ATTEMPTS=1.5", "RECONCILE_INTERVAL=0", "RECONCILE_GRACE=x", "STUCK_AFTER=-15m", "LOST_AFTER=2", "SAGA_RETENTION=1", "WORKFLOW_PURGE_AFTER=a day", "PARTNER_CALLS=0",
		},
		Says: []string{
			`APPROVAL_THRESHOLD is "-1": thresholds such as 5000.00 USD,4600.00 EUR are expected: "-1" must begin with a decimal number of at least 0`,
			`APPROVAL_TIMEOUT is "0s": ` + duration, `RESERVATION_TIMEOUT is "soon": ` + duration, `STEP_FIRST_RETRY is "-1s": ` + duration,
			`STEP_LAST_RETRY is "1": ` + duration, `STEP_ATTEMPTS is "0": ` + count, `UNDO_ATTEMPTS is "1.5": ` + count,
			`RECONCILE_INTERVAL is "0": ` + duration, `RECONCILE_GRACE is "x": ` + duration, `STUCK_AFTER is "-15m": ` + duration,
			`LOST_AFTER is "2": ` + duration, `SAGA_RETENTION is "1": a retention is 0 (for ever) or a duration of at least 1s with a unit, such as 2160h`,
			`PARTNER_CALLS is "0": ` + count, `WORKFLOW_PURGE_AFTER is "a day": ` + duration,
		},
	}, servicetest.Mistake{
		Environ: []string{"APP_PORT=0", "APPROVAL_THRESHOLD=5000.00 USD, 705.50 JPY,1 ZZZ,1 usd,,4 EUR 5,4000,x GBP,-1 CHF"},
		Says: []string{
			`APPROVAL_THRESHOLD is "5000.00 USD, 705.50 JPY,1 ZZZ,1 usd,,4 EUR 5,4000,x GBP,-1 CHF": thresholds such as 5000.00 USD,4600.00 EUR are expected: ` +
				`"705.50 JPY" must have no decimal places in JPY, such as 4999; ` +
				`"1 ZZZ" must end with a current ISO 4217 currency with minor units, in upper case; ` +
				`"1 usd" must end with a current ISO 4217 currency with minor units, in upper case; ` +
				`"" must be an amount and a currency; "4 EUR 5" must be an amount and a currency; ` +
				`"4000" must be the only threshold in USD; "x GBP" must begin with a decimal number of at least 0; ` +
				`"-1 CHF" must begin with a decimal number of at least 0`,
		},
	}, servicetest.Mistake{
		Environ: []string{"APP_PORT=0", "STEP_FIRST_RETRY=1m"},
		Says:    []string{"STEP_FIRST_RETRY is 1m0s: not more than STEP_LAST_RETRY is expected"},
	})...)
}

// TestTheWholeSurface: what holds for every route holds for each that the service describes.
func TestTheWholeSurface(t *testing.T) {
	service := servicetest.Start(t, run, servicetest.CORS)
	service.Surface(t)
	service.Stop(t)
}
