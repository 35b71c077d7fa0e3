package containers

import (
	"context"
	"crypto/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	docker "github.com/moby/moby/client"

	"waybill/tests/internal/client"
	"waybill/tests/internal/system"
)

// published is a system of which only the services can be reached, as with `make compose-up`.
type published map[string]string

// App implements client.System.
func (p published) App(name string) system.App { return system.App{URL: p[name]} }

// What a person does: make compose-up, an order, everything killed, make compose-up again, make compose-down. Stored data
// survives the kill, and nothing is left at the end.
func TestComposeUpAndDown(t *testing.T) {
	if exec.CommandContext(t.Context(), "docker", "compose", "version").Run() != nil && exec.CommandContext(t.Context(), "docker-compose", "version").Run() != nil {
		t.Fatal("Compose is not installed: on Debian and Ubuntu, apt-get install docker-compose")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*testTimeout)
	defer cancel()
	root, err := system.Root()
	if err != nil {
		t.Fatal(err)
	}
	project := "waybill-up-" + strings.ToLower(rand.Text()[:6])
	env := append(os.Environ(), "COMPOSE_PROJECT_NAME="+project)
	apis := published{}
	for _, name := range []string{"orders", "fulfillment", "analytics", "notifications"} {
		port := freePort(t)
		apis[name] = "http://127.0.0.1:" + port
		env = append(env, strings.ToUpper(name)+"_PORT="+port)
	}
	compose := func(ctx context.Context, verb string) {
		t.Helper()
		cmd := exec.CommandContext(ctx, filepath.Join(root, ".waybill", "bin", "devrun"), "compose", verb)
		cmd.Dir, cmd.Env = root, env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("devrun compose %s: %v\n%s", verb, err, out)
		} else if verb == "up" && !strings.Contains(string(out), "curl -i -X POST "+apis["orders"]+"/v1/orders") {
			t.Errorf("devrun compose up does not say how to place an order:\n%s", out)
		}
	}
	down := func() { compose(context.WithoutCancel(ctx), "down") }
	up := true
	t.Cleanup(func() {
		if up {
			down()
		}
	})

	compose(ctx, "up")
	order := func(key string) string {
		t.Helper()
		id, err := client.Place(ctx, apis, key, client.Body("CUST-123", 99.98, client.Line("PROD-001", 2, 49.99)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Await(ctx, apis, id, "fulfilled"); err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := order("first")
	before, err := client.StockOf(ctx, apis, "PROD-001")
	if err != nil {
		t.Fatal(err)
	}
	if before.Shipped != 2 {
		t.Errorf("stock %+v, want 2 pieces of the sample stock to be shipped", before)
	}

	// All but the scheduler, which needs 20 seconds until its earlier lease expires, and containers that exited by themselves.
	for _, id := range of(ctx, t, project, "running") {
		if c, err := waybill.docker.ContainerInspect(ctx, id, docker.ContainerInspectOptions{}); err != nil || c.Container.Config.Labels["com.docker.compose.service"] == "scheduler" {
			continue
		}
		if _, err := waybill.docker.ContainerKill(ctx, id, docker.ContainerKillOptions{Signal: "KILL"}); err != nil {
			// A process can end by itself because one that it needs was killed just before.
			if c, inspectErr := waybill.docker.ContainerInspect(ctx, id, docker.ContainerInspectOptions{}); inspectErr != nil || c.Container.State.Running {
				t.Fatal(err)
			}
		}
	}
	compose(ctx, "up")
	if o, code, err := client.Read(ctx, apis, first); err != nil || code != 200 || o.Status != "fulfilled" {
		t.Errorf("the first order: %+v %d %v, want it as it was", o, code, err)
	}
	order("second")
	if after, err := client.StockOf(ctx, apis, "PROD-001"); err != nil || after.Shipped != before.Shipped+2 || after.OnHand != before.OnHand-2 {
		t.Errorf("stock %+v %v, was %+v and two pieces were sold", after, err, before)
	}

	up = false
	down()
	filters := docker.Filters{}.Add("label", "com.docker.compose.project="+project)
	if left := of(ctx, t, project, ""); len(left) > 0 {
		t.Errorf("containers are left: %v", left)
	}
	if left, err := waybill.docker.VolumeList(ctx, docker.VolumeListOptions{Filters: filters}); err != nil || len(left.Items) > 0 {
		t.Errorf("volumes are left: %v %v", left.Items, err)
	}
	if left, err := waybill.docker.NetworkList(ctx, docker.NetworkListOptions{Filters: filters}); err != nil || len(left.Items) > 0 {
		t.Errorf("networks are left: %v %v", left.Items, err)
	}
}

// of lists the containers of a Compose project, all or those with a status.
func of(ctx context.Context, t *testing.T, project, status string) []string {
	t.Helper()
	filters := docker.Filters{}.Add("label", "com.docker.compose.project="+project)
	if status != "" {
		filters = filters.Add("status", status)
	}
	list, err := waybill.docker.ContainerList(ctx, docker.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]string, 0, len(list.Items))
	for _, c := range list.Items {
		ids = append(ids, c.ID)
	}
	return ids
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
