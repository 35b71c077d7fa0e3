package static

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

// component is a whole component file in Dapr's open-source schema; an unknown member is an error.
type component struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   struct {
		Name string `yaml:"name"`
	} `yaml:"metadata"`
	Spec struct {
		Type        string  `yaml:"type"`
		Version     string  `yaml:"version"`
		InitTimeout string  `yaml:"initTimeout"`
		Metadata    []entry `yaml:"metadata"`
	} `yaml:"spec"`
	Scopes []string `yaml:"scopes"`
	Auth   struct {
		SecretStore string `yaml:"secretStore"`
	} `yaml:"auth"`
}

type entry struct {
	Name   string     `yaml:"name"`
	Value  *string    `yaml:"value"`
	EnvRef string     `yaml:"envRef"`
	Secret *secretKey `yaml:"secretKeyRef"`
}

type secretKey struct {
	Name string `yaml:"name"`
	Key  string `yaml:"key"`
}

// value is the entry's literal value, empty when it has none.
func (c component) value(name string) string {
	for _, e := range c.Spec.Metadata {
		if e.Name == name && e.Value != nil {
			return *e.Value
		}
	}
	return ""
}

// folder is a folder of files for Dapr.
type folder struct {
	name       string
	components map[string]component // by file name
	others     map[string]map[string]any
}

// readFolder reads components/<name>.
func readFolder(t *testing.T, name string) folder {
	t.Helper()
	f := folder{name: name, components: map[string]component{}, others: map[string]map[string]any{}}
	paths, err := filepath.Glob(filepath.Join(root, "components", name, "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("components/%s holds %v, %v", name, paths, err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		file := "components/" + name + "/" + filepath.Base(path)
		var kind struct {
			Kind string `yaml:"kind"`
		}
		if err := yaml.Unmarshal(text, &kind); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if kind.Kind != "Component" {
			var other map[string]any
			if err := yaml.Unmarshal(text, &other); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			f.others[filepath.Base(path)] = other
			continue
		}
		c, err := parseComponent(text)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		f.components[filepath.Base(path)] = c
	}
	return f
}

func parseComponent(text []byte) (component, error) {
	var c component
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&c); err != nil {
		return c, err
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return c, errors.New("more than one document")
	}
	return c, nil
}

// Fields that no metadata.yaml lists because the runtime reads them and not the component, by the component's kind.
var runtimeFields = map[string][]field{
	"pubsub": {
		{Name: "allowedTopics"}, {Name: "protectedTopics"}, {Name: "publishingScopes"}, {Name: "subscriptionScopes"}, {Name: "consumerID"},
	},
	"state": {{Name: "actorStateStore", Type: "bool"}, {Name: "keyPrefix"}},
}

// Fields that components-contrib calls required and that a component can do without.
var notRequired = map[string]string{
	"bindings.smtp emailTo":        "each message names its recipient",
	"bindings.smtp subject":        "each message has its own",
	"bindings.twilio.sms toNumber": "each message names its recipient",
}

// Components that need no authentication where they run, although components-contrib knows only ways to authenticate.
var withoutAuthentication = map[string]string{
	"components/local/email.yaml":     "the local inbox asks for no password",
	"components/emulators/email.yaml": "as locally",
}

// check returns every fault of a component file according to the component's own description.
func (d definitions) check(file string, c component) []string {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, file+": "+fmt.Sprintf(format, args...)) }
	if c.APIVersion != "dapr.io/v1alpha1" {
		fault("apiVersion is %q, want dapr.io/v1alpha1", c.APIVersion)
	}
	if want := strings.TrimSuffix(filepath.Base(file), ".yaml"); c.Metadata.Name != want {
		fault("metadata.name is %q, want the file's name, %q", c.Metadata.Name, want)
	}
	if _, err := time.ParseDuration(c.Spec.InitTimeout); c.Spec.InitTimeout != "" && err != nil {
		fault("spec.initTimeout is %q, want a duration such as 60s", c.Spec.InitTimeout)
	}
	versions, ok := d.byType[c.Spec.Type]
	if !ok {
		fault("spec.type: there is no component %q, the nearest is %q", c.Spec.Type, nearest(c.Spec.Type, slices.Collect(maps.Keys(d.byType))))
		return faults
	}
	def, ok := versions[c.Spec.Version]
	if !ok {
		fault("spec.version is %q, want one of %v", c.Spec.Version, slices.Sorted(maps.Keys(versions)))
		return faults
	}

	known := d.fields(def)
	set := map[string]*string{}
	for i, e := range c.Spec.Metadata {
		name := e.Name
		if name == "" {
			fault("spec.metadata[%d] has no name", i)
			continue
		}
		if _, twice := set[name]; twice {
			fault("spec.metadata %s is there twice", name)
		}
		set[name] = e.Value
		f, ok := known[name]
		if !ok {
			fault("spec.metadata %s: %s has no such field, the nearest is %q", name, c.Spec.Type, nearest(name, slices.Collect(maps.Keys(known))))
			continue
		}
		ways := 0
		for _, there := range []bool{e.Value != nil, e.EnvRef != "", e.Secret != nil} {
			if there {
				ways++
			}
		}
		if ways != 1 {
			fault("spec.metadata %s has %d of value, envRef and secretKeyRef, want exactly one", name, ways)
			continue
		}
		if e.Value != nil {
			if want := f.fault(*e.Value); want != "" {
				fault("spec.metadata %s is %q, want %s", name, *e.Value, want)
			}
		}
		if strings.HasPrefix(e.EnvRef, "DAPR_") || strings.HasPrefix(e.EnvRef, "APP_") {
			fault("spec.metadata %s: Dapr resolves no envRef that begins with DAPR_ or APP_, such as %s", name, e.EnvRef)
		}
		if e.Secret != nil && (e.Secret.Name == "" || e.Secret.Key == "") {
			fault("spec.metadata %s: secretKeyRef wants name and key", name)
		}
		if e.Secret != nil && c.Auth.SecretStore == "" {
			fault("spec.metadata %s is a secret, and auth.secretStore names no secret store", name)
		}
	}
	for _, f := range def.Metadata {
		if _, there := set[f.Name]; f.Required && !there && notRequired[c.Spec.Type+" "+f.Name] == "" {
			fault("spec.metadata lacks %s, which %s requires", f.Name, c.Spec.Type)
		}
	}
	if len(faults) > 0 {
		return faults // a mistyped field makes every way to authenticate incomplete
	}
	if wrong := d.authentication(def, set); wrong != "" && withoutAuthentication[file] == "" {
		fault("%s", wrong)
	}
	return faults
}

// fields are all fields that a component file of that kind may have.
func (d definitions) fields(def definition) map[string]field {
	known := map[string]field{}
	add := func(fields []field) {
		for _, f := range fields {
			if had, ok := known[f.Name]; ok && (len(had.Allowed) == 0) != (len(f.Allowed) == 0) {
				f.Allowed = nil // what one profile fixes, another may leave open
			} else {
				f.Allowed = slices.Concat(f.Allowed, had.Allowed)
			}
			known[f.Name] = f
		}
	}
	add(def.Metadata)
	add(runtimeFields[def.Type])
	for _, p := range def.Profiles {
		add(p.Metadata)
	}
	for _, p := range def.BuiltinProfiles {
		add(p.Metadata)
		if p.Name == "azuread" {
			add(d.azure)
		}
	}
	return known
}

// authentication explains why the fields are not exactly one way to authenticate: one profile must have all its required fields,
// and no field of another profile may be set. It explains the profile that fits best.
func (d definitions) authentication(def definition, set map[string]*string) string {
	type profile struct {
		title  string
		fields []field
	}
	profiles := make([]profile, 0, len(def.Profiles)+len(def.BuiltinProfiles))
	for _, p := range def.Profiles {
		profiles = append(profiles, profile{p.Title, p.Metadata})
	}
	for _, p := range def.BuiltinProfiles {
		fields := p.Metadata
		if p.Name == "azuread" {
			// This repository uses identities and nothing else, so the method and the identity are required.
			for _, f := range d.azure {
				f.Required = f.Name == "azureAuthMethods" || f.Name == "azureClientId"
				if f.Name == "azureAuthMethods" {
					f.Allowed = []string{"managedidentity"}
				}
				fields = append(slices.Clone(fields), f)
			}
		}
		profiles = append(profiles, profile{p.Name, fields})
	}
	if len(profiles) == 0 {
		return ""
	}
	own := map[string]bool{}
	for _, p := range profiles {
		for _, f := range p.fields {
			own[f.Name] = true
		}
	}
	for _, f := range def.Metadata {
		delete(own, f.Name)
	}
	var nearest string
	var least []string
	for _, p := range profiles {
		var wrong []string
		mine := map[string]bool{}
		for _, f := range p.fields {
			mine[f.Name] = true
			value, there := set[f.Name]
			if f.Required && !there {
				wrong = append(wrong, "lacks "+f.Name)
			}
			if there && value != nil && f.fault(*value) != "" {
				wrong = append(wrong, f.Name+" must be "+f.fault(*value))
			}
		}
		for _, name := range slices.Sorted(maps.Keys(set)) {
			if own[name] && !mine[name] {
				wrong = append(wrong, "has nothing to do with "+name)
			}
		}
		if len(wrong) == 0 {
			return ""
		}
		if nearest == "" || len(wrong) < len(least) {
			nearest, least = p.title, wrong
		}
	}
	return "spec.metadata: the nearest way to authenticate, " + nearest + ", " + strings.Join(least, ", ")
}

// fault says what the value of the field must be, or nothing if it is correct.
func (f field) fault(value string) string {
	if len(f.Allowed) > 0 && !slices.Contains(f.Allowed, value) {
		return "one of " + strings.Join(f.Allowed, ", ")
	}
	if f.Required && value == "" {
		return "a value, for it is required"
	}
	switch f.Type {
	case "bool":
		if value != "true" && value != "false" {
			return "true or false"
		}
	case "number":
		if _, err := strconv.ParseFloat(value, 64); err != nil {
			return "a number"
		}
	case "duration":
		if _, err := time.ParseDuration(value); err != nil {
			return "a duration such as 5m"
		}
	}
	return ""
}

// TestEveryComponentIsOneThatDaprKnows checks the component files against what components-contrib says of each component.
func TestEveryComponentIsOneThatDaprKnows(t *testing.T) {
	t.Parallel()
	known := knownComponents(t)
	for _, name := range []string{"local", "azure", "emulators"} {
		for file, c := range readFolder(t, name).components {
			for _, fault := range known.check("components/"+name+"/"+file, c) {
				t.Error(fault)
			}
		}
	}
}

// TestEveryMistakeIsFound makes one mistake after the other in a copy of a component file.
func TestEveryMistakeIsFound(t *testing.T) {
	t.Parallel()
	known := knownComponents(t)
	for _, c := range []struct{ file, from, to, want string }{
		{"azure/orderbus.yaml", "- name: namespaceName", "- name: namespacename", `namespacename: pubsub.azure.servicebus.topics has no such field, the nearest is "namespaceName"`},
		{"azure/orderbus.yaml", "- name: disableEntityManagement", "- name: disableEntitiesManagement", `the nearest is "disableEntityManagement"`},
		{"azure/orderbus.yaml", "- name: allowedTopics", "- name: alowedTopics", `the nearest is "allowedTopics"`},
		{"azure/orderbus.yaml", "servicebus.topics", "servicebus.topic", `there is no component "pubsub.azure.servicebus.topic", the nearest is "pubsub.azure.servicebus.topics"`},
		{"azure/orderbus.yaml", `value: "180"`, `value: "3m"`, `handlerTimeoutInSec is "3m", want a number`},
		{"azure/orderbus.yaml", "- name: azureClientId\n      envRef: IDENTITY_CLIENT_ID\n", "", "the nearest way to authenticate, azuread, lacks azureClientId"},
		{"azure/orderbus.yaml", `value: "managedidentity"`, `value: "workloadidentity"`, "azuread, azureAuthMethods must be one of managedidentity"},
		{"azure/orderbus.yaml", "- name: namespaceName\n      envRef: SERVICEBUS_NAMESPACE", "- name: connectionString\n      envRef: SERVICEBUS_NAMESPACE", "the nearest way to authenticate, Connection string, has nothing to do with azureAuthMethods"},
		{"azure/orderbus.yaml", "envRef: SERVICEBUS_NAMESPACE", "envRef: DAPR_NAMESPACE", "Dapr resolves no envRef"},
		{"azure/orderbus.yaml", "envRef: SERVICEBUS_NAMESPACE", "envRef: SERVICEBUS_NAMESPACE\n      value: x", "has 2 of value, envRef and secretKeyRef"},
		{"azure/orderbus.yaml", "initTimeout: 60s", "initTimeout: 60", `spec.initTimeout is "60", want a duration`},
		{"azure/orderbus.yaml", "initTimeout: 60s", "initTimeOut: 60s", "field initTimeOut not found"},
		{"azure/orderbus.yaml", "name: orderbus", "name: orderBus", `metadata.name is "orderBus", want the file's name, "orderbus"`},
		{"azure/orderbus.yaml", "version: v1\n", "version: v2\n", `spec.version is "v2", want one of [v1]`},
		{"azure/telemetrybus.yaml", `value: "password"`, `value: "passwort"`, `authType is "passwort", want one of`},
		{"azure/telemetrybus.yaml", `value: "password"`, `value: "oidc"`, "SASL Authentication, authType must be one of password"},
		{"azure/telemetrybus.yaml", "- name: saslMechanism\n      value: \"PLAINTEXT\"\n", "", "SASL Authentication, lacks saslMechanism"},
		{"azure/telemetrybus.yaml", `value: "PLAINTEXT"`, `value: "PLAIN"`, `saslMechanism is "PLAIN", want one of SHA-512, SHA-256, PLAINTEXT`},
		{"azure/telemetrybus.yaml", "secretStore: secretstore", "", "is a secret, and auth.secretStore names no secret store"},
		{"azure/telemetrybus.yaml", "- name: brokers\n      envRef: EVENTHUBS_BROKER\n", "", "lacks brokers, which pubsub.kafka requires"},
		{"azure/statestore.yaml", "- name: collection", "- name: colection", `the nearest is "collection"`},
		{"azure/workflowstore.yaml", "version: v2", "version: v3", `spec.version is "v3", want one of [v1 v2]`},
		{"azure/workflowstore.yaml", "- name: useAzureAD\n      value: \"true\"", "- name: useAzureAD\n      value: \"yes\"", `useAzureAD is "yes", want true or false`},
		{"azure/workflowstore.yaml", `value: "5m"`, `value: "5"`, `cleanupInterval is "5", want a duration`},
		{"azure/email.yaml", "- name: password", "- name: pasword", `the nearest is "password"`},
		{"azure/email.yaml", "- name: host\n      envRef: EMAIL_HOST\n", "", "lacks host, which bindings.smtp requires"},
		{"azure/email.yaml", "key: smtp-user", "", "secretKeyRef wants name and key"},
		{"azure/sms.yaml", "- name: fromNumber\n      envRef: SMS_FROM\n", "", "lacks fromNumber"},
		{"azure/secretstore.yaml", "- name: vaultName\n      envRef: KEYVAULT_NAME\n", "", "lacks vaultName"},
		{"local/orderbus.yaml", `value: "oldest"`, `value: "first"`, `initialOffset is "first", want one of newest, oldest`},
		{"local/workflowstore.yaml", "- name: actorStateStore", "- name: actorStatestore", `the nearest is "actorStateStore"`},
	} {
		file := "components/" + c.file
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		mistaken := strings.Replace(string(text), c.from, c.to, 1)
		if mistaken == string(text) {
			t.Fatalf("%s has no %q", file, c.from)
		}
		if c.to == "" {
			// What is left of a removed entry's indentation.
			mistaken = strings.Replace(mistaken, "\n        - name", "\n    - name", 1)
		}
		var faults []string
		if parsed, err := parseComponent([]byte(mistaken)); err != nil {
			faults = []string{err.Error()}
		} else {
			faults = known.check(file, parsed)
		}
		if !strings.Contains(strings.Join(faults, "\n"), c.want) {
			t.Errorf("%s with %q for %q: found %q, want %q", file, c.to, c.from, faults, c.want)
		}
	}
}
