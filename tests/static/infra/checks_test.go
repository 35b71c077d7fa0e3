package infra

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"waybill/contracts"
	"waybill/tests/internal/bicep"
)

// types are the resource types that may be used, with their versions; for a preview, why.
var types = map[string]struct{ version, preview string }{
	"Microsoft.App/containerApps":                                   {version: "2025-07-01"},
	"Microsoft.App/managedEnvironments":                             {version: "2025-07-01"},
	"Microsoft.App/managedEnvironments/daprComponents":              {version: "2025-07-01"},
	"Microsoft.Authorization/roleAssignments":                       {version: "2022-04-01"},
	"Microsoft.ContainerRegistry/registries":                        {version: "2025-04-01"},
	"Microsoft.DBforPostgreSQL/flexibleServers":                     {version: "2024-08-01"},
	"Microsoft.DBforPostgreSQL/flexibleServers/administrators":      {version: "2024-08-01"},
	"Microsoft.DBforPostgreSQL/flexibleServers/databases":           {version: "2024-08-01"},
	"Microsoft.DBforPostgreSQL/flexibleServers/firewallRules":       {version: "2024-08-01"},
	"Microsoft.DocumentDB/databaseAccounts":                         {version: "2025-04-15"},
	"Microsoft.DocumentDB/databaseAccounts/sqlDatabases":            {version: "2025-04-15"},
	"Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers": {version: "2025-04-15"},
	"Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments":      {version: "2024-11-15"},
	"Microsoft.EventHub/namespaces":                                 {version: "2024-01-01"},
	"Microsoft.EventHub/namespaces/authorizationRules":              {version: "2024-01-01"},
	"Microsoft.EventHub/namespaces/eventhubs":                       {version: "2024-01-01"},
	"Microsoft.Insights/actionGroups":                               {version: "2023-01-01"},
	"Microsoft.Insights/components":                                 {version: "2020-02-02"},
	"Microsoft.Insights/diagnosticSettings":                         {version: "2021-05-01-preview", preview: "this type has no newer version that is none"},
	"Microsoft.Insights/metricAlerts":                               {version: "2018-03-01"},
	"Microsoft.Insights/scheduledQueryRules":                        {version: "2023-12-01"},
	"Microsoft.Insights/workbooks":                                  {version: "2023-06-01"},
	"Microsoft.KeyVault/vaults":                                     {version: "2024-11-01"},
	"Microsoft.KeyVault/vaults/secrets":                             {version: "2024-11-01"},
	"Microsoft.Kusto/clusters":                                      {version: "2024-04-13"},
	"Microsoft.Kusto/clusters/databases":                            {version: "2024-04-13"},
	"Microsoft.Kusto/clusters/databases/principalAssignments":       {version: "2024-04-13"},
	"Microsoft.Kusto/clusters/databases/scripts":                    {version: "2024-04-13"},
	"Microsoft.ManagedIdentity/userAssignedIdentities":              {version: "2024-11-30"},
	"Microsoft.OperationalInsights/workspaces":                      {version: "2025-07-01"},
	"Microsoft.ServiceBus/namespaces":                               {version: "2024-01-01"},
	"Microsoft.ServiceBus/namespaces/topics":                        {version: "2024-01-01"},
	"Microsoft.ServiceBus/namespaces/topics/subscriptions":          {version: "2024-01-01"},
}

func resourceTypes(r repository) (faults []string) {
	used := map[string]bool{}
	for _, plan := range r.plans {
		for _, res := range plan.Resources {
			used[res.Type] = true
			allowed, known := types[res.Type]
			switch {
			case !known:
				faults = append(faults, at(res.Pos, "the type %s is not on the list", res.Type))
			case allowed.version != res.Version:
				faults = append(faults, at(res.Pos, "%s has the version %s, and the list %s", res.Type, res.Version, allowed.version))
			case strings.HasSuffix(res.Version, "-preview") != (allowed.preview != ""):
				faults = append(faults, at(res.Pos, "%s@%s: a preview needs a reason, and nothing else does", res.Type, res.Version))
			}
		}
	}
	for name := range types {
		if !used[name] {
			faults = append(faults, "tests/static/infra/checks_test.go:1: no template uses "+name)
		}
	}
	return faults
}

// limits are Azure's rules for the last part of a name, for the types whose names this repository generates.
var limits = map[string]struct {
	most  int
	shape string
}{
	"Microsoft.App/containerApps":                          {32, `^[a-z][a-z0-9-]*[a-z0-9]$`},
	"Microsoft.App/managedEnvironments":                    {60, `^[a-z][a-z0-9-]*[a-z0-9]$`},
	"Microsoft.ContainerRegistry/registries":               {50, `^[a-z0-9]{5,}$`},
	"Microsoft.DBforPostgreSQL/flexibleServers":            {63, `^[a-z0-9][a-z0-9-]*[a-z0-9]$`},
	"Microsoft.DocumentDB/databaseAccounts":                {44, `^[a-z0-9][a-z0-9-]*[a-z0-9]$`},
	"Microsoft.EventHub/namespaces":                        {50, `^[a-z][a-z0-9-]*[a-z0-9]$`},
	"Microsoft.KeyVault/vaults":                            {24, `^[a-z][a-z0-9-]*[a-z0-9]$`},
	"Microsoft.Kusto/clusters":                             {22, `^[a-z][a-z0-9]*$`},
	"Microsoft.ManagedIdentity/userAssignedIdentities":     {128, `^[a-z0-9][a-z0-9-]*$`},
	"Microsoft.OperationalInsights/workspaces":             {63, `^[a-z0-9][a-z0-9-]*[a-z0-9]$`},
	"Microsoft.ServiceBus/namespaces":                      {50, `^[a-z][a-z0-9-]*[a-z0-9]$`},
	"Microsoft.ServiceBus/namespaces/topics":               {260, `^[a-z][a-z0-9.-]*[a-z0-9]$`},
	"Microsoft.ServiceBus/namespaces/topics/subscriptions": {50, `^[a-z][a-z0-9-]*[a-z0-9]$`},
	"Microsoft.EventHub/namespaces/eventhubs":              {256, `^[a-z][a-z0-9.-]*[a-z0-9]$`},
}

// names checks that every name is within Azure's limits, also with the longest environment and region. The interpreter checks
// that no two are the same and that each is known before the deployment begins.
func names(r repository) (faults []string) {
	for plan, d := range r.plans {
		for _, res := range d.Resources {
			limit, known := limits[res.Type]
			name := last(res)
			switch {
			case !known:
			case len(name) > limit.most:
				faults = append(faults, at(res.Body.At("name").Pos, "%s (%s) is longer than the %d that a %s may have", name, plan, limit.most, res.Type))
			case !regexp.MustCompile(limit.shape).MatchString(name):
				faults = append(faults, at(res.Body.At("name").Pos, "%s (%s) is no name for a %s", name, plan, res.Type))
			}
		}
	}
	return faults
}

// templates are the parsed Bicep files.
func (r repository) templates() []*bicep.File {
	var files []*bicep.File
	for _, pattern := range []string{"infra/bicep/*.bicep", "infra/bicep/modules/*.bicep"} {
		paths, err := filepath.Glob(filepath.Join(r.root, pattern))
		if err != nil || len(paths) == 0 {
			panic(fmt.Sprint(pattern, err))
		}
		for _, path := range paths {
			file, err := bicep.Parse(path)
			if err != nil {
				panic(err)
			}
			files = append(files, file)
		}
	}
	return files
}

// parameters checks that parameters are described and bounded, that every template is used, and that every parameter file sets
// only existing parameters. The interpreter checks the same of the parameters and outputs of modules.
func parameters(r repository) (faults []string) {
	modules := map[string]bool{}
	for _, file := range r.templates() {
		for _, d := range file.Decls {
			if d.Kind == "module" {
				modules[filepath.Join(filepath.Dir(file.Path), d.Type)] = true
			}
			if d.Kind != "param" {
				continue
			}
			if e := d.Decorator("description"); e == nil || len(e.Args) != 1 || len(e.Args[0].Text) != 1 || len(e.Args[0].Text[0]) < 8 {
				faults = append(faults, at(d.Pos, "%s has no description", d.Name))
			}
			bounded := d.Decorator("allowed") != nil || d.Decorator("minValue") != nil && d.Decorator("maxValue") != nil
			if d.Type == "int" && !bounded {
				faults = append(faults, at(d.Pos, "%s has no bounds", d.Name))
			}
			top := strings.HasSuffix(file.Path, "infra/bicep/main.bicep")
			if top && d.Type == "string" && d.Value == nil && d.Decorator("allowed") == nil && d.Decorator("minLength") == nil {
				faults = append(faults, at(d.Pos, "%s may be empty", d.Name))
			}
		}
	}
	for _, file := range r.templates() {
		if strings.Contains(file.Path, "/modules/") && !modules[file.Path] {
			faults = append(faults, file.Path+":1: no template uses this module")
		}
	}
	return faults
}

var (
	secretName = regexp.MustCompile(`(?i)(password|secret|token|apikey|connectionstring|accountkey)$`)
	secretText = regexp.MustCompile(`(?i)(AccountKey=|SharedAccessKey=|password=|-----BEGIN)`)
)

// secrets checks that secrets come from Key Vault, a secure parameter or a resource, and are written in no file.
func secrets(r repository) (faults []string) {
	for _, file := range r.templates() {
		for _, d := range file.Decls {
			if d.Kind == "param" && secretName.MatchString(d.Name) && d.Type == "string" && d.Decorator("secure") == nil {
				faults = append(faults, at(d.Pos, "%s is not @secure()", d.Name))
			}
		}
		content, err := os.ReadFile(file.Path)
		if err != nil {
			panic(err)
		}
		for i, line := range strings.Split(string(content), "\n") {
			if secretText.MatchString(line) {
				faults = append(faults, fmt.Sprintf("%s:%d: a literal secret", file.Path, i+1))
			}
			// The Kafka endpoint of Event Hubs knows no identities, so one connection string goes into Key Vault.
			allowed := strings.HasSuffix(file.Path, "modules/event-hubs.bicep") && strings.TrimSpace(line) == "value: rule.listKeys().primaryConnectionString"
			if regexp.MustCompile(`\blist\w*\(`).MatchString(line) && !allowed {
				faults = append(faults, fmt.Sprintf("%s:%d: listKeys and its like are not used", file.Path, i+1))
			}
		}
	}
	for _, d := range r.systems() {
		for _, app := range d.Of("Microsoft.App/containerApps") {
			for _, s := range app.Body.At("properties.configuration.secrets").Items {
				value := s.At("value")
				public := value.Text == "$ConnectionString" || strings.Contains(value.Pos.File, "components/")
				given := strings.HasSuffix(value.Pos.File, "main.bicep") && strings.Contains(value.Text, "new1") // newGuid(), or what was passed for it
				if s.At("keyVaultUrl").Kind == "null" && !public && !given {
					faults = append(faults, at(value.Pos, "%s: a literal secret", s.At("name")))
				}
			}
		}
		for _, s := range d.Of("Microsoft.KeyVault/vaults/secrets") {
			if v := s.Body.At("properties.value"); !v.Later {
				faults = append(faults, at(v.Pos, "%s: a literal secret", last(s)))
			}
		}
		for _, c := range d.Of("Microsoft.App/managedEnvironments/daprComponents") {
			if list := c.Body.At("properties.secrets"); len(list.Items) > 0 {
				faults = append(faults, at(list.Pos, "the component's secrets stand in Key Vault"))
			}
		}
		faults = append(faults, keyless(d)...)
	}
	return faults
}

// keyless lists the resources that can be used without an identity: Event Hubs through its Kafka endpoint, and Application
// Insights, because of Dapr.
func keyless(d *bicep.Deployment) (faults []string) {
	for resourceType, want := range map[string][2]string{
		"Microsoft.ServiceBus/namespaces":           {"properties.disableLocalAuth", "true"},
		"Microsoft.DocumentDB/databaseAccounts":     {"properties.disableLocalAuth", "true"},
		"Microsoft.OperationalInsights/workspaces":  {"properties.features.disableLocalAuth", "true"},
		"Microsoft.DBforPostgreSQL/flexibleServers": {"properties.authConfig.passwordAuth", "Disabled"},
		"Microsoft.KeyVault/vaults":                 {"properties.enableRbacAuthorization", "true"},
	} {
		made := d.Of(resourceType)
		for _, res := range made {
			if v := res.Body.At(want[0]); v.String() != want[1] {
				faults = append(faults, at(v.Pos, "%s is %s: keys or passwords would open it", want[0], v))
			}
		}
		if len(made) == 0 {
			faults = append(faults, "infra/bicep/main.bicep:1: there is no "+resourceType)
		}
	}
	return faults
}

var guid = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// roles checks that roles are those of roles.json, that each of them is used, and that no id of one is written elsewhere.
func roles(r repository) (faults []string) {
	list, err := bicep.Load(filepath.Join(r.root, "infra/bicep/roles.json"))
	if err != nil {
		return []string{err.Error()}
	}
	used := map[string]bool{}
	for _, d := range r.systems() {
		for _, a := range d.Of("Microsoft.Authorization/roleAssignments") {
			id := a.Body.At("properties.roleDefinitionId")
			used[id.Text[strings.LastIndex(id.Text, "/")+1:]] = true
			if a.Body.At("properties.principalType").Text != "ServicePrincipal" {
				faults = append(faults, at(a.Pos, "without principalType a new identity is not found at once"))
			}
		}
	}
	for _, key := range list.Keys {
		if !used[list.At(key+".id").Text] {
			faults = append(faults, at(list.At(key).Pos, "no template uses the role %s", key))
		}
	}
	for _, file := range r.templates() {
		content, err := os.ReadFile(file.Path)
		if err != nil {
			panic(err)
		}
		for i, line := range strings.Split(string(content), "\n") {
			// Cosmos DB's own roles are not Azure roles; this one is the same in every account.
			own := strings.Contains(line, "/sqlRoleDefinitions/00000000-0000-0000-0000-000000000002")
			if guid.MatchString(line) && !own {
				faults = append(faults, fmt.Sprintf("%s:%d: an id stands here that should be in roles.json", file.Path, i+1))
			}
		}
	}
	return faults
}

// identity is the short name of the identity of an id, such as fulfillment.
func identity(v *bicep.Value) string {
	if m := regexp.MustCompile(`id-([a-z]+)-`).FindStringSubmatch(v.Text); m != nil {
		return m[1]
	}
	return v.Text
}

// identityOf is the identity with which an app's sidecar uses the bus.
func identityOf(app string) string {
	if app == contracts.AppFulfillment {
		return "fulfillment"
	}
	return "components"
}

// rights checks that each identity may send and read what its apps' component scopes allow, and nothing else.
func rights(r repository) (faults []string) {
	bus, err := bicep.Load(filepath.Join(r.root, "components/azure/orderbus.yaml"))
	if err != nil {
		return []string{err.Error()}
	}
	scopes := map[string]string{}
	for _, m := range bus.At("spec.metadata").Items {
		scopes[m.At("name").Text] = m.At("value").Text
	}
	want := map[string]bool{
		"platform AcrPull":                       true,
		"platform Azure Service Bus Data Owner":  true,
		"platform Key Vault Secrets User":        true,
		"secrets Key Vault Secrets User":         true,
		"components Cosmos DB":                   true,
		"fulfillment Cosmos DB":                  true,
		"fulfillment PostgreSQL":                 true,
		"analytics Azure Data Explorer Ingestor": true,
		"analytics Azure Data Explorer Viewer":   true,
	}
	for role, list := range map[string]string{"may send to": scopes["publishingScopes"], "may read": scopes["subscriptionScopes"]} {
		for part := range strings.SplitSeq(list, ";") {
			app, topics, _ := strings.Cut(part, "=")
			for topic := range strings.SplitSeq(topics, ",") {
				subject := topic
				if role == "may read" {
					subject += "/" + app
				}
				want[identityOf(app)+" "+role+" "+subject] = true
			}
		}
	}
	list, err := bicep.Load(filepath.Join(r.root, "infra/bicep/roles.json"))
	if err != nil {
		return []string{err.Error()}
	}
	called := map[string]string{}
	for _, role := range list.Fields {
		called[role.At("id").Text] = role.At("name").Text
	}
	for plan, d := range r.systems() {
		have := map[string]bicep.Pos{}
		for _, a := range d.Of("Microsoft.Authorization/roleAssignments") {
			id := a.Body.At("properties.roleDefinitionId").Text
			who, role := identity(a.Body.At("properties.principalId")), called[id[strings.LastIndex(id, "/")+1:]]
			parts := strings.Split(a.Scope, "/") // "", provider, types..., names...
			switch {
			case role == "Azure Service Bus Data Sender" && len(parts) == 6:
				have[who+" may send to "+parts[5]] = a.Pos
			case role == "Azure Service Bus Data Receiver" && len(parts) == 8:
				have[who+" may read "+parts[6]+"/"+parts[7]] = a.Pos
			default:
				have[who+" "+role] = a.Pos
			}
		}
		for _, a := range d.Of("Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments") {
			have[identity(a.Body.At("properties.principalId"))+" Cosmos DB"] = a.Pos
		}
		for _, a := range d.Of("Microsoft.DBforPostgreSQL/flexibleServers/administrators") {
			have[identity(a.Body.At("properties.principalName"))+" PostgreSQL"] = a.Pos
		}
		for _, a := range d.Of("Microsoft.Kusto/clusters/databases/principalAssignments") {
			have[identity(a.Body.At("properties.principalId"))+" Azure Data Explorer "+a.Body.At("properties.role").Text] = a.Pos
		}
		for right, pos := range have {
			if !want[right] {
				faults = append(faults, at(pos, "%s (%s), and should not", right, plan))
			}
		}
		for right := range want {
			if _, ok := have[right]; !ok {
				faults = append(faults, fmt.Sprintf("%s: missing: %s (%s)", r.line("infra/bicep/modules/service-bus.bicep", "var subscriptions"), right, plan))
			}
		}
	}
	return faults
}

// expect compares fields of a body with their expected values.
func expect(res *bicep.Resource, want map[string]string) (faults []string) {
	for path, value := range want {
		if v := res.Body.At(path); v.String() != value {
			pos := v.Pos
			if v.Kind == "null" {
				pos = res.Pos
			}
			faults = append(faults, at(pos, "%s: %s is %s, want %s", res.Name, path, v, value))
		}
	}
	return faults
}

// compare compares the resources of one kind with the expected names.
func compare(what string, made map[string]*bicep.Resource, want []string, file, near string, r repository) (faults []string) {
	for name, res := range made {
		if !slices.Contains(want, name) {
			faults = append(faults, at(res.Body.At("name").Pos, "the %s %s is in no contract", what, name))
		}
	}
	for _, name := range want {
		if made[name] == nil {
			faults = append(faults, fmt.Sprintf("%s: the %s %s is missing", r.line(file, near), what, name))
		}
	}
	return faults
}

func serviceBus(r repository) (faults []string) {
	file := "infra/bicep/modules/service-bus.bicep"
	for _, d := range r.systems() {
		topics := map[string]*bicep.Resource{}
		for _, t := range d.Of("Microsoft.ServiceBus/namespaces/topics") {
			topics[last(t)] = t
			dead := strings.HasSuffix(last(t), ".dead")
			faults = append(faults, expect(t, map[string]string{
				"properties.requiresDuplicateDetection":          strconv.FormatBool(!dead),
				"properties.duplicateDetectionHistoryTimeWindow": map[bool]string{true: "null", false: "PT1M"}[dead],
			})...)
		}
		faults = append(faults, compare("topic", topics, contracts.TopicsOf(contracts.OrderBus), file, "var topics", r)...)
		subscriptions := map[string]*bicep.Resource{}
		for _, s := range d.Of("Microsoft.ServiceBus/namespaces/topics/subscriptions") {
			parts := strings.Split(s.Name, "/")
			topic, app := parts[1], parts[2]
			subscriptions[topic+"/"+app] = s
			want := map[string]string{
				"properties.lockDuration":     "PT1M",
				"properties.maxDeliveryCount": "100000",
			}
			if strings.HasSuffix(topic, ".dead") {
				want["properties.requiresSession"] = "false"
			} else {
				want["properties.requiresSession"] = "true"
				want["properties.defaultMessageTimeToLive"] = "P7D"
				want["properties.deadLetteringOnMessageExpiration"] = "true"
				want["properties.forwardDeadLetteredMessagesTo"] = topic + "." + app + ".dead"
			}
			faults = append(faults, expect(s, want)...)
		}
		var want []string
		for _, s := range contracts.Subscriptions() {
			if contracts.Bus(s.Topic) == contracts.OrderBus {
				want = append(want, s.Topic+"/"+s.App, s.DeadLetter()+"/"+s.App)
			}
		}
		faults = append(faults, compare("subscription", subscriptions, want, file, "var subscriptions", r)...)
	}
	return faults
}

func eventHubs(r repository) (faults []string) {
	for _, d := range r.systems() {
		hubs := map[string]*bicep.Resource{}
		for _, h := range d.Of("Microsoft.EventHub/namespaces/eventhubs") {
			hubs[last(h)] = h
			faults = append(faults, expect(h, map[string]string{
				"properties.partitionCount":                            "4",
				"properties.retentionDescription.retentionTimeInHours": "168",
			})...)
		}
		faults = append(faults, compare("event hub", hubs, contracts.TopicsOf(contracts.TelemetryBus), "infra/bicep/modules/event-hubs.bicep", "var hubs", r)...)
	}
	return faults
}

func cosmos(r repository) (faults []string) {
	for _, d := range r.systems() {
		for _, account := range d.Of("Microsoft.DocumentDB/databaseAccounts") {
			locations := account.Body.At("properties.locations")
			one := len(locations.Items) == 1
			faults = append(faults, expect(account, map[string]string{
				// A read must not be older than a write before it (docs/adr/0028).
				"properties.consistencyPolicy.defaultConsistencyLevel": map[bool]string{true: "Strong", false: "BoundedStaleness"}[one],
				"properties.enableAutomaticFailover":                   strconv.FormatBool(!one),
				"properties.enableMultipleWriteLocations":              "false",
				"properties.capabilities":                              map[bool]string{true: "[{name: EnableServerless}]", false: "[]"}[one],
			})...)
			for i, l := range locations.Items {
				if l.At("failoverPriority").Int != int64(i) {
					faults = append(faults, at(l.Pos, "%s has the failover priority %s, want %d", l.At("locationName"), l.At("failoverPriority"), i))
				}
			}
			for _, c := range d.Of("Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers") {
				if autoscale := c.Body.At("properties.options.autoscaleSettings").Kind == "object"; autoscale == one {
					faults = append(faults, at(c.Pos, "one region is serverless, several have autoscale"))
				}
			}
		}
		databases := map[string]*bicep.Resource{}
		for _, database := range d.Of("Microsoft.DocumentDB/databaseAccounts/sqlDatabases") {
			databases[last(database)] = database
		}
		faults = append(faults, compare("database", databases, []string{"OrdersDB"}, "infra/bicep/modules/cosmos.bicep", "resource database", r)...)
		for _, c := range d.Of("Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers") {
			faults = append(faults, expect(c, map[string]string{
				"properties.resource.partitionKey.paths": "[/partitionKey]",
				"properties.resource.defaultTtl":         "-1",
			})...)
		}
	}
	return faults
}

// kusto runs every script of infra/kusto, in the order of their names.
func kusto(r repository) (faults []string) {
	paths, err := filepath.Glob(filepath.Join(r.root, "infra/kusto/*.kql"))
	if err != nil || len(paths) == 0 {
		return []string{fmt.Sprint("infra/kusto:1: ", paths, err)}
	}
	for _, d := range r.systems() {
		var run []string
		for _, s := range d.Of("Microsoft.Kusto/clusters/databases/scripts") {
			content := s.Body.At("properties.scriptContent")
			run = append(run, content.Pos.File)
			if want := strings.TrimSuffix(filepath.Base(content.Pos.File), ".kql"); want != last(s) {
				faults = append(faults, at(s.Pos, "the script %s is the file %s", last(s), filepath.Base(content.Pos.File)))
			}
		}
		for i, path := range paths {
			if i >= len(run) || run[i] != path {
				faults = append(faults, fmt.Sprintf("%s: script %d is not %s", r.line("infra/bicep/modules/kusto.bicep", "var scripts"), i+1, filepath.Base(path)))
			}
		}
	}
	return faults
}

// componentFiles are the components of components/azure, by name of the file.
func (r repository) componentFiles() map[string]*bicep.Value {
	paths, err := filepath.Glob(filepath.Join(r.root, "components/azure/*.yaml"))
	if err != nil || len(paths) == 0 {
		panic(fmt.Sprint(paths, err))
	}
	files := map[string]*bicep.Value{}
	for _, path := range paths {
		file, err := bicep.Load(path)
		if err != nil {
			panic(err)
		}
		if file.At("kind").Text == "Component" {
			files[path] = file
		}
	}
	return files
}

var managed = []string{contracts.AppOrders, contracts.AppAnalytics, contracts.AppNotifications}

// componentNames are the names that code uses, and the secret store that components use.
var componentNames = []string{
	contracts.OrderBus, contracts.TelemetryBus, contracts.StateStore, contracts.WorkflowStore, contracts.Email, contracts.SMS, "secretstore",
}

// managedComponents are those of components/azure in every environment, but for what only fulfillment has.
func managedComponents(r repository) (faults []string) {
	used := map[string]bool{}
	for plan, d := range r.systems() {
		environments := d.Of("Microsoft.App/managedEnvironments")
		for _, environment := range environments {
			made := map[string]*bicep.Resource{}
			for _, c := range d.Of("Microsoft.App/managedEnvironments/daprComponents") {
				if strings.HasPrefix(c.Name, environment.Name+"/") {
					made[last(c)] = c
				}
			}
			for path, file := range r.componentFiles() {
				name, scopes := file.At("metadata.name"), slices.DeleteFunc(file.At("scopes").Texts(), func(app string) bool { return !slices.Contains(managed, app) })
				if !slices.Contains(componentNames, name.Text) {
					faults = append(faults, at(name.Pos, "the component %s is in no contract", name))
				}
				if len(scopes) == 0 {
					continue
				}
				c := made[name.Text]
				delete(made, name.Text)
				if c == nil {
					faults = append(faults, fmt.Sprintf("%s:1: %s has no component of this file; see %s", path, last(environment), r.line("infra/bicep/modules/environment.bicep", "var files")))
					continue
				}
				faults = append(faults, sameComponent(c, file, scopes)...)
				faults = append(faults, attached(d, c, scopes)...)
				for _, entry := range file.At("spec.metadata").Items {
					used[entry.At("envRef").Text] = true
				}
			}
			for name, c := range made {
				faults = append(faults, at(c.Pos, "%s is no component of components/azure", name))
			}
		}
		if len(environments) == 0 {
			faults = append(faults, "infra/bicep/main.bicep:1: there is no environment ("+plan+")")
		}
	}
	// A value that is passed and used by no file has a name that was changed in one place only.
	for _, file := range r.templates() {
		if !strings.HasSuffix(file.Path, "/main.bicep") {
			continue
		}
		for _, d := range file.Decls {
			if d.Kind == "module" && d.Name == "environment" {
				walk(d.Value, func(e *bicep.Expr) {
					for i, key := range e.Keys {
						if e.Kind == "object" && key.Text[0] == "settings" {
							for _, setting := range e.Args[i].Keys {
								if !used[setting.Text[0]] {
									faults = append(faults, at(setting.Pos, "no component asks for %s", setting.Text[0]))
								}
							}
						}
					}
				})
			}
		}
	}
	return faults
}

func walk(e *bicep.Expr, visit func(*bicep.Expr)) {
	visit(e)
	for _, part := range e.Args {
		walk(part, visit)
	}
}

// sameComponent compares the result of Bicep with the component file.
func sameComponent(c *bicep.Resource, file *bicep.Value, scopes []string) (faults []string) {
	store := "null"
	if file.At("auth.secretStore").Kind == "string" {
		store = file.At("auth.secretStore").Text
	}
	faults = expect(c, map[string]string{
		"properties.componentType":        file.At("spec.type").Text,
		"properties.version":              file.At("spec.version").Text,
		"properties.initTimeout":          file.At("spec.initTimeout").Text,
		"properties.secretStoreComponent": store,
		"properties.scopes":               fmt.Sprint(scopes),
	})
	made := map[string]*bicep.Value{}
	for _, m := range c.Body.At("properties.metadata").Items {
		made[m.At("name").Text] = m
	}
	for _, entry := range file.At("spec.metadata").Items {
		name := entry.At("name").Text
		m := made[name]
		delete(made, name)
		switch {
		case m == nil:
			faults = append(faults, at(entry.Pos, "%s of %s did not reach Bicep", name, last(c)))
		case entry.At("value").Kind != "null" && m.At("value").String() != entry.At("value").String():
			faults = append(faults, at(entry.Pos, "%s is %s there and %s in Bicep", name, entry.At("value"), m.At("value")))
		case entry.At("envRef").Kind != "null" && (m.At("value").Kind != "string" || m.At("value").Text == ""):
			faults = append(faults, at(entry.Pos, "%s has no value in Bicep", name))
		case entry.At("secretKeyRef").Kind != "null" && m.At("secretRef").Text != entry.At("secretKeyRef.name").Text:
			faults = append(faults, at(entry.Pos, "%s refers to the secret %s in Bicep", name, m.At("secretRef")))
		}
		if name == "azureClientId" && m != nil {
			want := "components"
			if last(c) == "secretstore" {
				want = "secrets"
			}
			if identity(m.At("value")) != want {
				faults = append(faults, at(entry.Pos, "%s uses the identity %s, want that of %s", last(c), m.At("value"), want))
			}
		}
	}
	for name, m := range made {
		faults = append(faults, at(m.Pos, "%s has %s, which its file has not", last(c), name))
	}
	return faults
}

// attached compares the identity that a component uses with those of the apps that have the component.
func attached(d *bicep.Deployment, c *bicep.Resource, scopes []string) (faults []string) {
	for _, m := range c.Body.At("properties.metadata").Items {
		if m.At("name").Text != "azureClientId" {
			continue
		}
		for _, res := range d.Of("Microsoft.App/containerApps") {
			app, _, _ := strings.Cut(res.Name, "-")
			has := slices.ContainsFunc(res.Body.At("identity.userAssignedIdentities").Keys, func(id string) bool {
				return strings.Contains(id, "/id-"+identity(m.At("value"))+"-")
			})
			if slices.Contains(scopes, app) && !has {
				faults = append(faults, at(res.Body.At("identity.userAssignedIdentities").Pos, "%s has no identity %s, which its %s uses", res.Name, identity(m.At("value")), last(c)))
			}
		}
	}
	return faults
}

// ports are the services' ports, from the file that the local runner starts the same services by.
func (r repository) ports() map[string]int64 {
	file, err := bicep.Load(filepath.Join(r.root, "dapr.yaml"))
	if err != nil {
		panic(err)
	}
	ports := map[string]int64{}
	for _, app := range file.At("apps").Items {
		ports[app.At("appID").Text] = app.At("appPort").Int
	}
	return ports
}

// container finds a container by its name.
func container(app *bicep.Resource, name string) *bicep.Value {
	for _, c := range app.Body.At("properties.template.containers").Items {
		if c.At("name").Text == name {
			return c
		}
	}
	return app.Body.At("none")
}

// arguments are the flags of a command line with their values.
func arguments(c *bicep.Value) map[string]*bicep.Value {
	given := map[string]*bicep.Value{}
	args := c.At("args").Items
	for i, a := range args {
		flag, _, joined := strings.Cut(a.Text, "=")
		if strings.HasPrefix(flag, "--") {
			given[flag] = a
			if !joined && i+1 < len(args) && !strings.HasPrefix(args[i+1].Text, "--") {
				given[flag] = args[i+1]
			}
		}
	}
	return given
}

// apps are the apps of contracts with the ports of dapr.yaml; orders, analytics and notifications once in each region.
func apps(r repository) (faults []string) {
	ports := r.ports()
	for plan, d := range r.systems() {
		regions := len(d.Of("Microsoft.App/managedEnvironments"))
		count := map[string]int{}
		for _, res := range d.Of("Microsoft.App/containerApps") {
			id := res.Body.At("properties.configuration.dapr.appId")
			if res.Body.At("properties.configuration.dapr.enabled").String() == "false" {
				id = arguments(container(res, "daprd"))["--app-id"]
			} else if p := res.Body.At("properties.configuration.dapr.appPort"); p.Int != ports[id.Text] {
				faults = append(faults, at(p.Pos, "the sidecar of %s calls port %s, and dapr.yaml says %d", id, p, ports[id.Text]))
			}
			if _, known := ports[id.Text]; !known || !slices.Contains(append([]string{contracts.AppFulfillment}, managed...), id.Text) {
				faults = append(faults, at(id.Pos, "the app id %s is in no contract", id))
				continue
			}
			count[id.Text]++
			service := container(res, id.Text)
			if service.Kind == "null" {
				faults = append(faults, at(res.Pos, "%s has no container %s", res.Name, id))
				continue
			}
			faults = append(faults, onPort(res, service, strconv.FormatInt(ports[id.Text], 10))...)
			if ranges := res.Body.At("properties.configuration.ingress.ipSecurityRestrictions"); len(ranges.Items) == 0 {
				faults = append(faults, at(res.Pos, "%s answers everybody", res.Name))
			}
		}
		for app := range ports {
			want := regions
			if app == contracts.AppFulfillment {
				want = 1
			}
			if count[app] != want {
				faults = append(faults, fmt.Sprintf("%s: %s runs %d times, want %d (%s)", r.line("infra/bicep/main.bicep", "module "+app), app, count[app], want, plan))
			}
		}
	}
	return faults
}

// onPort holds everything that names a service's port against it.
func onPort(res *bicep.Resource, service *bicep.Value, port string) (faults []string) {
	places := map[string]*bicep.Value{"ingress": res.Body.At("properties.configuration.ingress.targetPort")}
	for _, e := range service.At("env").Items {
		if e.At("name").Text == "APP_PORT" {
			places["APP_PORT"] = e.At("value")
		}
	}
	probes := map[string]string{}
	for _, p := range service.At("probes").Items {
		places["probe "+p.At("type").Text] = p.At("httpGet.port")
		probes[p.At("type").Text] = p.At("httpGet.path").Text
	}
	for what, v := range places {
		if v.String() != port {
			faults = append(faults, at(v.Pos, "%s of %s is on port %s, and dapr.yaml says %s", what, res.Name, v, port))
		}
	}
	want := map[string]string{"Startup": "/healthz", "Liveness": "/healthz", "Readiness": "/readyz"}
	if !maps.Equal(probes, want) {
		faults = append(faults, at(service.Pos, "%s has the probes %v, want %v", res.Name, probes, want))
	}
	return faults
}
