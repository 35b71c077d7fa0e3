package config_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"waybill/platform/config"
)

type own struct {
	config.Service
	Wait  config.Duration `env:"WAIT" envDefault:"5m"`
	Tries config.Count    `env:"TRIES" envDefault:"3"`
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

func TestEveryFaultIsNamed(t *testing.T) {
	t.Parallel()
	_, err := config.Parse[own]([]string{"LOG_FORMAT=xml", "LOG_LEVEL=loud", "WAIT=-1s", "TRIES=0", "DAPR_GRPC_PORT=x"})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"APP_PORT", "json or text", "LogLevel", "positive", "at least 1", "GRPCPort"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
}
