package config_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"waybill/platform/config"
)

type own struct {
	config.Service
	Wait  config.Duration  `env:"WAIT" envDefault:"5m"`
	Tries config.Count     `env:"TRIES" envDefault:"3"`
	Keep  config.Retention `env:"KEEP" envDefault:"0"`
	Check config.Duration  `env:"CHECK_INTERVAL" envDefault:"30s" formerly:"LOOK_INTERVAL"`
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c, err := config.Parse[own]([]string{"APP_PORT=8001", "APP_API_TOKEN=hidden"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Host != "127.0.0.1" || c.Port != 8001 || time.Duration(c.Wait) != 5*time.Minute || c.Tries != 3 || c.LogFormat != "json" {
		t.Errorf("got %+v", c)
	}
	if strings.Contains(fmt.Sprintf("%+v %#v", c, c), "hidden") {
		t.Error("a secret is printed")
	}
}

func TestRetentions(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"0": 0, "0s": 0, "1s": time.Second, "2160h": 2160 * time.Hour} {
		if c, err := config.Parse[own]([]string{"APP_PORT=8001", "KEEP=" + text}); err != nil || time.Duration(c.Keep) != want {
			t.Errorf("%s: %v, %v", text, time.Duration(c.Keep), err)
		}
	}
	for _, text := range []string{"-1h", "999ms", "a year", "900000h"} {
		if _, err := config.Parse[own]([]string{"APP_PORT=8001", "KEEP=" + text}); err == nil {
			t.Errorf("%s is accepted", text)
		}
	}
}

func TestEveryFaultIsNamed(t *testing.T) {
	t.Parallel()
	c, err := config.Parse[own]([]string{"LOG_FORMAT=xml", "LOG_LEVEL=loud", "WAIT=-1s", "TRIES=0", "KEEP=10ms", "DAPR_GRPC_PORT=x", "STATE_CALLS=many"})
	if err == nil {
		t.Fatal("no error")
	}
	want := []string{
		`APP_PORT is missing: a port is a number from 0 (any free one) to 65535`,
		`DAPR_GRPC_PORT is "x": the sidecar's port is a number from 1 to 65535`,
		`KEEP is "10ms": a retention is 0 (for ever) or a duration of at least 1s with a unit, such as 2160h`,
		`LOG_FORMAT is "xml": the log format is json or text`,
		`LOG_LEVEL is "loud": the log level is debug, info, warn or error`,
		`STATE_CALLS is "many": it is a whole number that is not negative`,
		`TRIES is "0": a count is a whole number of at least 1`,
		`WAIT is "-1s": a duration is positive and has a unit, such as 5m or 24h`,
	}
	got := strings.Split(err.Error(), "\n")
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the faults differ (-want +got):\n%s", diff)
	}
	if time.Duration(c.Wait) != 5*time.Minute || c.Tries != 3 || c.Sidecar.GRPCPort != 50001 {
		t.Errorf("a wrong setting does not have its default: %+v", c)
	}
}

// Compose files and templates pass on variables that have no value.
func TestAnEmptyVariableIsUnset(t *testing.T) {
	t.Parallel()
	c, err := config.Parse[own]([]string{
		"APP_PORT=8001", "OTEL_EXPORTER_OTLP_ENDPOINT=", "DEBUG_PORT=", "EVENT_RETRIES=", "LOG_LEVEL=", "WAIT=", "TRIES=", "STATE_CALLS=", "DAPR_GRPC_PORT=",
	})
	if err != nil || c.Collector != "" || c.EventRetries != config.SidecarRetries || c.Tries != 3 || c.Sidecar.GRPCPort != 50001 {
		t.Errorf("got %+v, %v", c, err)
	}
	if c.DebugPort != nil {
		t.Errorf("the debug port is %d, want none", *c.DebugPort)
	}
}

func TestOriginsAreExact(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"":                         nil,
		"https://shop.example.com": {"https://shop.example.com"},
		"https://shop.example.com, http://localhost:3000,http://[::1]:3000": {"https://shop.example.com", "http://localhost:3000", "http://[::1]:3000"},
	} {
		c, err := config.Parse[own]([]string{"APP_PORT=8001", "CORS_ORIGINS=" + text})
		if diff := cmp.Diff(want, []string(c.CORSOrigins)); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got):\n%s", text, err, diff)
		}
	}
	for text, want := range map[string]string{
		"*":                                           "wildcard",
		"https://*.example.com":                       "wildcard",
		"null":                                        "http:// or https:// and a host",
		"shop.example.com":                            "http:// or https:// and a host",
		"ftp://shop.example.com":                      "http:// or https:// and a host",
		"https://":                                    "http:// or https:// and a host",
		"https://shop.example.com/":                   "no slash at the end",
		"https://shop.example.com/a":                  "no path",
		"https://a.example.com?x":                     "no query",
		"https://me@example.com":                      "nothing but a scheme, a host and a port",
		"https://Shop.example.com":                    "lower case",
		"https://straße.example.com":                  "punycode",
		"https://example.com:443":                     "own port",
		"http://example.com:80":                       "own port",
		"http://example.com:99999":                    "from 1 to 65535",
		"https://a.example.com,":                      `"" must be http:// or https:// and a host`,
		"https://a.example.com;https://b.example.com": "nothing but a scheme",
	} {
		c, err := config.Parse[own]([]string{"APP_PORT=8001", "CORS_ORIGINS=" + text})
		if err == nil || !strings.Contains(err.Error(), "CORS_ORIGINS is ") || !strings.Contains(err.Error(), want) || len(c.CORSOrigins) > 0 {
			t.Errorf("%q: %v, %v", text, c.CORSOrigins, err)
		}
	}
}

func TestAFormerName(t *testing.T) {
	t.Parallel()
	warning := func(former string) string {
		return `level=WARN msg="setting renamed; use the new name" old_name=` + former + " new_name=CHECK_INTERVAL\n"
	}
	for _, c := range []struct {
		name    string
		environ []string
		want    time.Duration
		log     string
	}{
		{"neither name", nil, 30 * time.Second, ""},
		{"the new name", []string{"CHECK_INTERVAL=5s"}, 5 * time.Second, ""},
		{"the former name", []string{"LOOK_INTERVAL=5s"}, 5 * time.Second, warning("LOOK_INTERVAL")},
		{"the former name, the new one empty", []string{"LOOK_INTERVAL=5s", "CHECK_INTERVAL="}, 5 * time.Second, warning("LOOK_INTERVAL")},
		{"the new name, the former one empty", []string{"LOOK_INTERVAL=", "CHECK_INTERVAL=5s"}, 5 * time.Second, ""},
		{"both with one value", []string{"LOOK_INTERVAL=5s", "CHECK_INTERVAL=5s"}, 5 * time.Second, warning("LOOK_INTERVAL")},
	} {
		got, err := config.Parse[own](append([]string{"APP_PORT=8001"}, c.environ...))
		if err != nil || time.Duration(got.Check) != c.want {
			t.Errorf("%s: %v, %v, want %v", c.name, time.Duration(got.Check), err, c.want)
		}
		var log strings.Builder
		got.LogRenamed(t.Context(), slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})))
		if log.String() != c.log {
			t.Errorf("%s: the log is %q, want %q", c.name, log.String(), c.log)
		}
	}
}

func TestFaultsOfAFormerName(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ environ, want string }{
		{"LOOK_INTERVAL=5s CHECK_INTERVAL=6s", `LOOK_INTERVAL is "5s" and CHECK_INTERVAL is "6s": these are two names of one setting; set CHECK_INTERVAL only`},
		{"LOOK_INTERVAL=5", `LOOK_INTERVAL is "5": a duration is positive and has a unit, such as 5m or 24h`},
		{"CHECK_INTERVAL=5", `CHECK_INTERVAL is "5": a duration is positive and has a unit, such as 5m or 24h`},
	} {
		if _, err := config.Parse[own](append(strings.Fields(c.environ), "APP_PORT=8001")); err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v, want %s", c.environ, err, c.want)
		}
	}
}
