package e2e

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"waybill/tests/internal/bicep"
	"waybill/tests/internal/program"
	"waybill/tests/internal/system"
)

// On Container Apps fulfillment runs its own daprd, placement and scheduler. Here the real three start at the same time with the
// arguments of infra/bicep/modules/fulfillment.bicep, except for ports, folders and components that need no Azure. They find each
// other and answer the probes of the template.
func TestTheOwnSidecarOfFulfillmentStarts(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	root, err := system.Root()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	store, err := os.ReadFile(filepath.Join(root, "components/local/workflowstore.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "workflowstore.yaml"), []byte(strings.ReplaceAll(string(store), "../../.waybill/state", folder)), 0o600); err != nil {
		t.Fatal(err)
	}
	service := httptest.NewServer(http.NotFoundHandler())
	defer service.Close()
	here := map[string]string{
		"8002":                       service.URL[strings.LastIndex(service.URL, ":")+1:],
		"/components":                folder,
		"/configuration/config.yaml": filepath.Join(root, "components/azure/config.yaml"),
		"/reminders/etcd":            filepath.Join(folder, "etcd"),
	}
	containers := fulfillmentsContainers(t, root)
	number := regexp.MustCompile(`^(127\.0\.0\.1:)?(\d{4,5})$`)
	local := func(argument string) string {
		if to := here[argument]; to != "" {
			return to
		}
		if m := number.FindStringSubmatch(argument); m != nil {
			if here[m[2]] == "" {
				here[m[2]] = freePort(t)
			}
			return m[1] + here[m[2]]
		}
		return argument
	}
	// Ports that another scheduler or placement on this machine would use by default.
	own := map[string][]string{
		"placement": {"--initial-cluster", "dapr-placement-0=127.0.0.1:" + freePort(t)},
		"scheduler": {"--etcd-client-port", freePort(t), "--etcd-initial-cluster", "dapr-scheduler-server-0=http://127.0.0.1:" + freePort(t)},
		"daprd":     nil,
	}
	for name, more := range own {
		var args []string
		for _, a := range containers[name].At("args").Texts() {
			args = append(args, local(a))
		}
		said := &program.Tail{}
		// The test's context ends before the cleanup stops the process.
		cmd := exec.CommandContext(context.WithoutCancel(ctx), filepath.Join(root, ".waybill/bin", name), append(args, more...)...)
		cmd.Env = append(os.Environ(), "DAPR_HOST_IP=127.0.0.1")
		cmd.Stdout, cmd.Stderr = said, said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }() // owned: the cleanup waits for it
		t.Cleanup(func() {
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Errorf("%s had ended by itself: %v", name, err)
			}
			select {
			case <-ended:
			case <-time.After(30 * time.Second):
				t.Errorf("%s does not stop", name)
				cmd.Process.Kill()
				<-ended
			}
			if t.Failed() {
				t.Logf("%s said:\n%s", name, said)
			}
		})
	}
	until := func(what, url string, right func(status int, body string) bool) {
		t.Helper()
		var last string
		for {
			if resp, err := http.Get(url); err != nil {
				last = err.Error()
			} else {
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if right(resp.StatusCode, string(body)) {
					return
				}
				last = fmt.Sprint(resp.Status, " ", string(body))
			}
			if !wait(ctx, 50*time.Millisecond) {
				t.Errorf("%s: %s", what, last)
				return
			}
		}
	}
	for name := range maps.Keys(own) {
		for _, probe := range containers[name].At("probes").Items {
			url := "http://127.0.0.1:" + local(probe.At("httpGet.port").String()) + probe.At("httpGet.path").Text
			until(name+" does not answer its probe", url, func(status int, _ string) bool { return status/100 == 2 })
		}
	}
	until("daprd did not find placement and scheduler", "http://127.0.0.1:"+local("3510")+"/v1.0/metadata", func(_ int, body string) bool {
		return strings.Contains(body, `"placement":"placement: connected"`) && strings.Contains(body, "127.0.0.1:"+local("50006"))
	})
}

// fulfillmentsContainers are the containers of the app, by name, in the development environment.
func fulfillmentsContainers(t *testing.T, root string) map[string]*bicep.Value {
	t.Helper()
	parameters := map[string]*bicep.Value{
		"registryName": bicep.Text("registry"), "imageTag": bicep.Text("v1"), "release": bicep.Text("r1"), "clientAddresses": bicep.Texts("203.0.113.0/24"),
	}
	file, err := bicep.Load(filepath.Join(root, "infra/bicep/dev.parameters.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range file.At("parameters").Fields {
		parameters[name] = v.At("value")
	}
	plan, err := bicep.Deploy(filepath.Join(root, "infra/bicep/main.bicep"), parameters)
	if err != nil {
		t.Fatal(err)
	}
	containers := map[string]*bicep.Value{}
	for _, app := range plan.Of("Microsoft.App/containerApps") {
		if strings.HasPrefix(app.Name, "fulfillment-") {
			for _, c := range app.Body.At("properties.template.containers").Items {
				containers[c.At("name").Text] = c
			}
		}
	}
	return containers
}

// freePort is a port on which no process listens now.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
