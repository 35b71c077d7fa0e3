package infra

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"waybill/contracts"
	"waybill/tests/internal/bicep"
)

// ownSidecar holds fulfillment's container app together: one replica, four containers on the loopback interface, each with a
// port of its own and a probe, and the components that name fulfillment with everything that they ask for.
func ownSidecar(r repository) (faults []string) {
	for _, d := range r.systems() {
		for _, res := range d.Of("Microsoft.App/containerApps") {
			if !strings.HasPrefix(res.Name, contracts.AppFulfillment+"-") {
				continue
			}
			faults = append(faults, expect(res, map[string]string{
				"properties.configuration.dapr.enabled":        "false",
				"properties.configuration.activeRevisionsMode": "Single",
				"properties.template.scale.minReplicas":        "1",
				"properties.template.scale.maxReplicas":        "1",
			})...)
			faults = append(faults, loopback(res)...)
			faults = append(faults, sizes(res)...)
			faults = append(faults, r.ownComponents(res)...)
		}
	}
	return faults
}

// loopback holds the ports of the four processes against each other.
func loopback(res *bicep.Resource) (faults []string) {
	service, daprd := container(res, contracts.AppFulfillment), container(res, "daprd")
	placement, scheduler := container(res, "placement"), container(res, "scheduler")
	taken := map[string]string{}
	take := func(what string, v *bicep.Value) {
		if v == nil {
			faults = append(faults, at(res.Pos, "there is no %s", what))
			return
		}
		if other := taken[v.String()]; other != "" {
			faults = append(faults, at(v.Pos, "port %s is taken by %s and by %s", v, other, what))
		}
		taken[v.String()] = what
	}
	equal := func(v *bicep.Value, what, want string) {
		if v == nil || v.String() != want {
			pos := res.Pos
			if v != nil {
				pos = v.Pos
			}
			faults = append(faults, at(pos, "%s is %v, want %s", what, v, want))
		}
	}
	env := func(c *bicep.Value, name string) *bicep.Value {
		for _, e := range c.At("env").Items {
			if e.At("name").Text == name {
				return e.At("value")
			}
		}
		return nil
	}
	d, p, s := arguments(daprd), arguments(placement), arguments(scheduler)
	take("the service", env(service, "APP_PORT"))
	take("daprd's HTTP API", d["--dapr-http-port"])
	take("daprd's gRPC API", d["--dapr-grpc-port"])
	take("daprd's health", d["--dapr-public-port"])
	take("placement", p["--port"])
	take("placement's health", p["--healthz-port"])
	take("scheduler", s["--port"])
	take("scheduler's health", s["--healthz-port"])
	if len(faults) > 0 {
		return faults
	}
	equal(env(daprd, "DAPR_HOST_IP"), "DAPR_HOST_IP", "127.0.0.1")
	equal(d["--app-port"], "--app-port", env(service, "APP_PORT").Text)
	equal(env(service, "DAPR_HTTP_PORT"), "DAPR_HTTP_PORT", d["--dapr-http-port"].Text)
	equal(env(service, "DAPR_GRPC_PORT"), "DAPR_GRPC_PORT", d["--dapr-grpc-port"].Text)
	equal(d["--dapr-listen-addresses"], "--dapr-listen-addresses", "127.0.0.1")
	equal(p["--listen-address"], "placement's --listen-address", "127.0.0.1")
	equal(s["--listen-address"], "scheduler's --listen-address", "127.0.0.1")
	equal(d["--placement-host-address"], "--placement-host-address", "127.0.0.1:"+p["--port"].Text)
	equal(d["--scheduler-host-address"], "--scheduler-host-address", "127.0.0.1:"+s["--port"].Text)
	equal(s["--etcd-compaction-mode"], "scheduler's --etcd-compaction-mode", "periodic")
	equal(s["--etcd-compaction-retention"], "scheduler's --etcd-compaction-retention", "1m")
	equal(s["--etcd-snapshot-count"], "scheduler's --etcd-snapshot-count", "5000")
	equal(s["--override-broadcast-host-port"], "--override-broadcast-host-port", "127.0.0.1:"+s["--port"].Text)
	for c, port := range map[*bicep.Value]*bicep.Value{daprd: d["--dapr-public-port"], placement: p["--healthz-port"], scheduler: s["--healthz-port"]} {
		alive := slices.ContainsFunc(c.At("probes").Items, func(probe *bicep.Value) bool {
			return probe.At("type").Text == "Liveness" && probe.At("httpGet.port").String() == port.Text
		})
		if !alive {
			faults = append(faults, at(c.Pos, "%s has no liveness probe on its health port", c.At("name")))
		}
	}
	return faults
}

// sizes are what the Consumption profile allows: twice as much memory as processors, up to four and eight over all containers.
func sizes(res *bicep.Resource) (faults []string) {
	var cpus float64
	for _, c := range res.Body.At("properties.template.containers").Items {
		cpu, err := strconv.ParseFloat(c.At("resources.cpu").String(), 64)
		memory, other := strconv.ParseFloat(strings.TrimSuffix(c.At("resources.memory").Text, "Gi"), 64)
		if err != nil || other != nil || memory != 2*cpu {
			faults = append(faults, at(c.At("resources.cpu").Pos, "%s has %s processors and %s of memory, which should be twice as many Gi", c.At("name"), c.At("resources.cpu"), c.At("resources.memory")))
		}
		cpus += cpu
	}
	if cpus > 4 || cpus*4 != float64(int(cpus*4)) {
		faults = append(faults, at(res.Pos, "%s has %g processors, which Container Apps do not offer", res.Name, cpus))
	}
	return faults
}

// ownComponents are the files that name fulfillment, each mounted, with an environment for daprd that has what they ask for.
func (r repository) ownComponents(res *bicep.Resource) (faults []string) {
	values := map[string]*bicep.Value{}
	for _, s := range res.Body.At("properties.configuration.secrets").Items {
		values[s.At("name").Text] = s.At("value")
	}
	mounted := map[string]*bicep.Value{} // by the file's path in the repository
	for _, volume := range res.Body.At("properties.template.volumes").Items {
		for _, s := range volume.At("secrets").Items {
			value := values[s.At("secretRef").Text]
			if value == nil {
				faults = append(faults, at(s.Pos, "there is no secret %s", s.At("secretRef")))
				continue
			}
			if filepath.Base(value.Pos.File) != s.At("path").Text {
				faults = append(faults, at(s.Pos, "%s is mounted as %s", value.Pos.File, s.At("path")))
			}
			if volume.At("name").Text == "components" {
				mounted[value.Pos.File] = s
			}
		}
	}
	daprd := container(res, "daprd")
	have := map[string]*bicep.Value{}
	for _, e := range daprd.At("env").Items {
		have[e.At("name").Text] = e
	}
	wanted := map[string]bool{"DAPR_HOST_IP": true, "APP_API_TOKEN": true}
	for path, file := range r.componentFiles() {
		own := slices.Contains(file.At("scopes").Texts(), contracts.AppFulfillment)
		if own != (mounted[path] != nil) {
			faults = append(faults, fmt.Sprintf("%s:1: %s names fulfillment: %t; its sidecar gets it: %t; see %s", path, file.At("metadata.name"), own, !own, r.line("infra/bicep/modules/fulfillment.bicep", "var files")))
		}
		if !own {
			continue
		}
		for _, entry := range file.At("spec.metadata").Items {
			if name := entry.At("envRef"); name.Kind == "string" {
				wanted[name.Text] = true
				if have[name.Text] == nil {
					faults = append(faults, at(name.Pos, "daprd's environment has no %s; see %s", name, r.line("infra/bicep/main.bicep", "module fulfillment ")))
				}
			}
			if entry.At("secretKeyRef").Kind != "null" {
				faults = append(faults, at(entry.Pos, "fulfillment's sidecar has no secret store"))
			}
		}
	}
	for name, e := range have {
		if !wanted[name] {
			faults = append(faults, at(e.Pos, "no component of fulfillment asks for %s", name))
		}
	}
	if e := have["IDENTITY_CLIENT_ID"]; e != nil && identity(e.At("value")) != contracts.AppFulfillment {
		faults = append(faults, at(e.Pos, "fulfillment's sidecar uses the identity %s", e.At("value")))
	}
	return faults
}

// readBy are the variables that a service reads, and whether each must be there, by the tags of the structs in its main
// package, in platform/config and in platform/sidecar.
func (r repository) readBy(service string) map[string]bool {
	variables := map[string]bool{}
	for _, folder := range []string{"services/" + service, "platform/config", "platform/sidecar"} {
		paths, err := filepath.Glob(filepath.Join(r.root, folder, "*.go"))
		if err != nil || len(paths) == 0 {
			panic(fmt.Sprint(folder, err))
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				panic(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if field, ok := n.(*ast.Field); ok && field.Tag != nil {
					tag, _ := strconv.Unquote(field.Tag.Value)
					if name, options, _ := strings.Cut(reflect.StructTag(tag).Get("env"), ","); name != "" {
						variables[name] = strings.Contains(options, "required")
					}
				}
				return true
			})
		}
	}
	return variables
}

// variables that a template sets are read by the service, and those that a service must have are set.
func variables(r repository) (faults []string) {
	for _, d := range r.systems() {
		for _, res := range d.Of("Microsoft.App/containerApps") {
			app, _, _ := strings.Cut(res.Name, "-")
			known := r.readBy(app)
			service := container(res, app)
			set := map[string]string{}
			for _, e := range service.At("env").Items {
				name := e.At("name")
				if set[name.Text] != "" {
					faults = append(faults, at(name.Pos, "%s is set twice", name))
				}
				set[name.Text] = e.At("value").String() + e.At("secretRef").String()
				if _, ok := known[name.Text]; !ok {
					faults = append(faults, at(name.Pos, "%s does not read %s", app, name))
				}
				if ref := e.At("secretRef"); ref.Kind == "string" && !slices.ContainsFunc(res.Body.At("properties.configuration.secrets").Items, func(s *bicep.Value) bool { return s.At("name").Text == ref.Text }) {
					faults = append(faults, at(ref.Pos, "there is no secret %s", ref))
				}
			}
			want := []string{"APP_HOST", "APP_PORT", "EVENT_RETRIES", "CORS_ORIGINS"}
			if app == contracts.AppAnalytics {
				want = append(want, "ANALYTICS_STORE", "KUSTO_ENDPOINT", "KUSTO_DATABASE", "AZURE_CLIENT_ID", "FOLLOW_INTERVAL")
			}
			for name, required := range known {
				if required && !slices.Contains(want, name) {
					want = append(want, name)
				}
			}
			for _, name := range want {
				if set[name] == "" {
					faults = append(faults, at(service.Pos, "%s needs %s", app, name))
				}
			}
			for name, value := range map[string]string{"APP_HOST": "0.0.0.0null", "EVENT_RETRIES": "brokernull"} {
				if set[name] != value {
					faults = append(faults, at(service.Pos, "%s of %s is %s", name, app, set[name]))
				}
			}
		}
	}
	return faults
}

// scaleRules watch what their app reads.
func scaleRules(r repository) (faults []string) {
	for _, d := range r.systems() {
		for _, res := range d.Of("Microsoft.App/containerApps") {
			app, _, _ := strings.Cut(res.Name, "-")
			for _, rule := range res.Body.At("properties.template.scale.rules").Items {
				custom := rule.At("custom")
				var topic, reader *bicep.Value
				switch custom.At("type").Text {
				case "azure-servicebus":
					topic, reader = custom.At("metadata.topicName"), custom.At("metadata.subscriptionName")
					if identity(custom.At("identity")) != "platform" {
						faults = append(faults, at(custom.Pos, "the identity of the rule %s is %s", rule.At("name"), custom.At("identity")))
					}
				case "kafka":
					topic, reader = custom.At("metadata.topic"), custom.At("metadata.consumerGroup")
				default:
					if rule.At("http").Kind != "object" {
						faults = append(faults, at(rule.Pos, "%s is a rule of no known kind", rule.At("name")))
					}
					continue
				}
				if reader.Text != app {
					faults = append(faults, at(reader.Pos, "a rule of %s counts what %s reads", app, reader))
				}
				if !slices.Contains(contracts.Subscriptions(), contracts.Subscription{App: app, Topic: topic.Text}) {
					faults = append(faults, at(topic.Pos, "%s does not read %s", app, topic))
				}
				for _, key := range custom.At("metadata").Keys {
					if v := custom.At("metadata." + key); v.Kind != "string" {
						faults = append(faults, at(v.Pos, "%s is no text", key))
					}
				}
			}
		}
	}
	return faults
}

// alerts have a row each in docs/operations.md, and look for texts that the services say.
func alerts(r repository) (faults []string) {
	page, err := os.ReadFile(filepath.Join(r.root, "docs/operations.md"))
	if err != nil {
		return []string{"docs/operations.md:1: " + err.Error()}
	}
	rows := map[string]bool{}
	_, section, _ := strings.Cut(string(page), "## Alerts")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z0-9-]+)` \\|").FindAllStringSubmatch(section, -1) {
		rows[row[1]] = true
	}
	made := map[string]bool{}
	for _, d := range r.systems() {
		for _, resourceType := range []string{"Microsoft.Insights/metricAlerts", "Microsoft.Insights/scheduledQueryRules"} {
			for _, a := range d.Of(resourceType) {
				name := a.Body.At("tags.alert")
				made[name.Text] = true
				if !rows[name.Text] {
					faults = append(faults, at(name.Pos, "docs/operations.md has no row for the alert %s", name))
				}
			}
		}
		for _, a := range d.Of("Microsoft.Insights/metricAlerts") {
			if a.Body.At("tags.alert").Text != "dead-letters-unread" {
				continue
			}
			for _, criterion := range a.Body.At("properties.criteria.allOf").Items {
				topics := criterion.At("dimensions").Items[0].At("values")
				for _, s := range contracts.Subscriptions() {
					if contracts.Bus(s.Topic) == contracts.OrderBus && !slices.Contains(topics.Texts(), s.DeadLetter()) {
						faults = append(faults, at(topics.Pos, "no alert watches %s", s.DeadLetter()))
					}
				}
				for _, topic := range topics.Items {
					if !slices.Contains(contracts.Topics(), topic.Text) {
						faults = append(faults, at(topic.Pos, "the topic %s is in no contract", topic))
					}
				}
			}
		}
	}
	for name := range rows {
		if !made[name] {
			faults = append(faults, fmt.Sprintf("%s: there is no alert %s", r.line("docs/operations.md", "| `"+name+"`"), name))
		}
	}
	return append(faults, r.sayings()...)
}

// sayings are the log lines that queries look for: services or platform must say them, word for word.
func (r repository) sayings() (faults []string) {
	said := map[string]bool{}
	for _, folder := range []string{"services", "platform"} {
		err := filepath.WalkDir(filepath.Join(r.root, folder), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
					if s, err := strconv.Unquote(literal.Value); err == nil {
						said[s] = true
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			panic(err)
		}
	}
	paths, err := filepath.Glob(filepath.Join(r.root, "infra/bicep/queries/*.kql"))
	if err != nil || len(paths) == 0 {
		panic(fmt.Sprint(paths, err))
	}
	for _, path := range append(paths, filepath.Join(r.root, "infra/bicep/workbook.json")) {
		content, err := os.ReadFile(path)
		if err != nil {
			panic(err)
		}
		for i, line := range strings.Split(string(content), "\n") {
			for _, m := range regexp.MustCompile(`entry\.msg\) == \\?"([^"\\]+)`).FindAllStringSubmatch(line, -1) {
				if !said[m[1]] {
					faults = append(faults, fmt.Sprintf("%s:%d: no service says %q", path, i+1, m[1]))
				}
			}
		}
	}
	return faults
}

// images are those that infra/deploy.sh builds, each a target of the Dockerfile.
func images(r repository) (faults []string) {
	script, err := os.ReadFile(filepath.Join(r.root, "infra/deploy.sh"))
	if err != nil {
		return []string{"infra/deploy.sh:1: " + err.Error()}
	}
	m := regexp.MustCompile(`(?m)^images='([a-z ]+)'$`).FindStringSubmatch(string(script))
	if m == nil {
		return []string{"infra/deploy.sh:1: there is no line images='...'"}
	}
	built := strings.Fields(m[1])
	dockerfile, err := os.ReadFile(filepath.Join(r.root, "Dockerfile"))
	if err != nil {
		return []string{"Dockerfile:1: " + err.Error()}
	}
	for _, name := range built {
		if !regexp.MustCompile(`(?m)^FROM \S+ AS ` + name + `$`).Match(dockerfile) {
			faults = append(faults, fmt.Sprintf("%s: the Dockerfile has no target %s", r.line("infra/deploy.sh", "images='"), name))
		}
	}
	used := map[string]bool{}
	for _, d := range r.systems() {
		for _, res := range d.Of("Microsoft.App/containerApps") {
			for _, c := range res.Body.At("properties.template.containers").Items {
				image := c.At("image")
				name, _, _ := strings.Cut(image.Text[strings.LastIndex(image.Text, "/")+1:], ":")
				used[name] = true
				if !slices.Contains(built, name) {
					faults = append(faults, at(image.Pos, "infra/deploy.sh does not build the image %s", name))
				}
			}
		}
	}
	for _, name := range built {
		if !used[name] {
			faults = append(faults, fmt.Sprintf("%s: no app runs the image %s", r.line("infra/deploy.sh", "images='"), name))
		}
	}
	return faults
}
