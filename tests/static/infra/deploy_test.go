package infra

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waybill/tests/internal/bicep"
)

// These tests run infra/deploy.sh with an az that writes down how it was called and gives prepared answers. They show what the
// script does, in which order and when it stops. They show nothing of Azure.

// fakeAz answers a call by the first file of answers/ whose name, a pattern of the shell, the call begins with; a file that ends with
// .fails has it fail.
const fakeAz = `#!/bin/sh
printf '%s\n' "$*" >> "$FAKE/calls"
for answer in "$FAKE"/answers/*; do
	IFS= read -r pattern < "$answer"
	case "$*" in
	$pattern*)
		tail -n +2 "$answer"
		case $answer in *.fails) exit 1 ;; esac
		exit 0
		;;
	esac
done
`

// deploying is a copy of the script in a folder of its own, with a world around it.
type deploying struct {
	t      *testing.T
	folder string
	answer int
}

func newDeploying(t *testing.T) *deploying {
	t.Helper()
	d := &deploying{t: t, folder: t.TempDir()}
	script, err := os.ReadFile(filepath.Join(top, "infra/deploy.sh"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"infra/deploy.sh":                 string(script),
		"infra/validate.sh":               "#!/bin/sh\nprintf 'validate.sh %s\\n' \"$*\" >> \"$FAKE/calls\"\n",
		"infra/bicep/dev.parameters.json": "{}",
		"bin/az":                          fakeAz,
		"bin/sleep":                       "#!/bin/sh\nexit 0\n",
	} {
		d.write(name, content)
	}
	d.answers("account show", "")
	d.answers("group exists", "true")
	d.answers("deployment group show --resource-group rg --name waybill-registry", "waybillacr")
	d.answers("deployment group show*ordersUrls.value[[]0]", "https://orders")
	d.answers("deployment group show*notificationsUrls.value[[]0]", "https://notifications")
	d.answers("deployment group show*analyticsUrls.value[[]0]", "https://analytics")
	d.answers("deployment group show*fulfillmentUrl.value", "https://fulfillment")
	d.answers("deployment group show*fulfillmentName.value", "fulfillment-westeurope")
	d.answers("deployment group show*vaultName.value", "kv")
	d.answers("keyvault secret list", "smtp-user\nsmtp-password\ntwilio-account-sid\ntwilio-auth-token\neventhubs-connection-string")
	return d
}

func (d *deploying) write(name, content string) {
	d.t.Helper()
	path := filepath.Join(d.folder, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
		d.t.Fatal(err)
	}
}

// answers prepares what az prints for calls that begin with a pattern. The last answer for a pattern counts.
func (d *deploying) answers(call, text string) { d.told(call, text, "") }

// fails tells az to fail for them.
func (d *deploying) fails(call, text string) { d.told(call, text, ".fails") }

func (d *deploying) told(call, text, suffix string) {
	d.t.Helper()
	d.answer++
	d.write(fmt.Sprintf("answers/%04d%s", 1000-d.answer, suffix), call+"\n"+text+"\n")
}

// run runs the script and gives the calls, and what it said.
func (d *deploying) run(path string, args ...string) (calls []string, said string, err error) {
	d.t.Helper()
	if err := os.RemoveAll(filepath.Join(d.folder, "calls")); err != nil {
		d.t.Fatal(err)
	}
	cmd := exec.CommandContext(d.t.Context(), "/bin/sh", append([]string{filepath.Join(d.folder, "infra/deploy.sh")}, args...)...)
	cmd.Env = []string{"PATH=" + path, "FAKE=" + d.folder}
	out, err := cmd.CombinedOutput()
	content, readErr := os.ReadFile(filepath.Join(d.folder, "calls"))
	if readErr != nil && !os.IsNotExist(readErr) {
		d.t.Fatal(readErr)
	}
	return strings.Split(strings.TrimSpace(string(content)), "\n"), string(out), err
}

func (d *deploying) path() string { return filepath.Join(d.folder, "bin") + ":" + os.Getenv("PATH") }

var whole = []string{"--group", "rg", "--environment", "dev", "--allow", "203.0.113.0/24,198.51.100.7/32", "--tag", "v1"}

// steps are the calls by what they are about, repeated ones once.
func steps(calls []string) []string {
	var steps []string
	for _, call := range calls {
		fields := strings.Fields(call)
		step := strings.Join(fields[:min(3, len(fields))], " ")
		switch {
		case strings.HasPrefix(call, "deployment group create"):
			if strings.Contains(call, "registry.bicep") {
				step += " registry"
			} else {
				step += " main"
			}
		case strings.HasPrefix(call, "resource invoke-action"):
			step = strings.Join(fields[:4], " ")
		case strings.HasPrefix(call, "validate.sh"):
			step = "validate.sh"
		case strings.HasPrefix(call, "deployment group show"), strings.HasPrefix(call, "account"):
			continue
		}
		if len(steps) == 0 || steps[len(steps)-1] != step {
			steps = append(steps, step)
		}
	}
	return steps
}

func TestDeployArguments(t *testing.T) {
	t.Parallel()
	without := func(flag string) []string {
		var args []string
		for i := 0; i < len(whole); i += 2 {
			if whole[i] != flag {
				args = append(args, whole[i], whole[i+1])
			}
		}
		return args
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"nothing":               {nil, "missing: --group --environment --allow"},
		"no group":              {without("--group"), "missing: --group\n"},
		"no addresses":          {without("--allow"), "missing: --allow\n"},
		"unknown":               {append(without(""), "--destroy"), "unknown argument: --destroy"},
		"a flag without value":  {append(without("--tag"), "--tag"), "--tag needs a value"},
		"no such environment":   {append(without("--environment"), "--environment", "test"), "test.parameters.json; --environment is dev or prod"},
		"addresses in words":    {append(without("--allow"), "--allow", "everybody"), "--allow is a list of address ranges"},
		"a tag that is no tag":  {append(without("--tag"), "--tag", "v1 v2"), "--tag has letters"},
		"a tag and no checkout": {without("--tag"), "give --tag"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls, said, err := newDeploying(t).run(newDeploying(t).path(), c.args...)
			if err == nil || !strings.Contains(said, c.want) || calls[0] != "" {
				t.Errorf("%v, %q, and az was called: %q; want %q and no call", err, said, calls, c.want)
			}
		})
	}
}

func TestDeployNamesMissingTools(t *testing.T) {
	t.Parallel()
	d := newDeploying(t)
	d.write("empty/sh", "")
	for _, tool := range []string{"dirname", "sed"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(d.folder, "empty", tool)); err != nil {
			t.Fatal(err)
		}
	}
	if _, said, err := d.run(filepath.Join(d.folder, "empty"), whole...); err == nil || !strings.Contains(said, "missing: az curl") {
		t.Errorf("%v: %s", err, said)
	}
	d.fails("account show", "")
	if calls, said, err := d.run(d.path(), whole...); err == nil || !strings.Contains(said, "az login") || len(calls) != 1 {
		t.Errorf("%v: %s: %q", err, said, calls)
	}
}

func TestDeployInOrder(t *testing.T) {
	t.Parallel()
	d := newDeploying(t)
	d.answers("group exists", "false")
	d.fails("acr repository show", "")
	calls, said, err := d.run(d.path(), append(whole, "--location", "westeurope")...)
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	want := slices.Concat(
		[]string{"group exists --name", "group create --name", "deployment group create registry"},
		slices.Repeat([]string{"acr repository show", "acr build --registry"}, 7), // images
		[]string{"resource list --resource-group", "deployment group create main", "keyvault secret list", "validate.sh"},
	)
	if diff := cmp.Diff(want, steps(calls)); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	if got := calls[len(calls)-5:]; !strings.Contains(strings.Join(got, "\n"), "validate.sh --orders https://orders --fulfillment https://fulfillment --analytics https://analytics --notifications https://notifications") {
		t.Errorf("the validation was asked for with %q", got)
	}
	if !strings.Contains(said, "version v1") {
		t.Errorf("it said %s", said)
	}
}

// The parameters that the script gives are those that the templates ask for beside the files, which TestInfrastructure uses.
func TestDeployGivesWhatTheTemplatesAskFor(t *testing.T) {
	t.Parallel()
	d := newDeploying(t)
	calls, said, err := d.run(d.path(), append(whole, "--fulfillment-location", "northeurope")...)
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	given := map[string]bool{}
	for _, call := range calls {
		if strings.HasPrefix(call, "deployment group create") && strings.Contains(call, "main.bicep") {
			for word := range strings.FieldsSeq(call) {
				if name, value, ok := strings.Cut(word, "="); ok && value != "" {
					given[name] = true
				}
			}
			if !strings.Contains(call, `clientAddresses=["203.0.113.0/24","198.51.100.7/32"]`) || !strings.Contains(call, "imageTag=v1") {
				t.Errorf("it was called so: %s", call)
			}
		}
	}
	main, err := bicep.Parse(filepath.Join(top, "infra/bicep/main.bicep"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"dev", "prod"} {
		parameters, err := bicep.Load(filepath.Join(top, "infra/bicep", file+".parameters.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range main.Decls {
			if inFile := parameters.At("parameters."+p.Name).Kind == "object"; p.Kind == "param" && p.Value == nil && inFile == given[p.Name] {
				t.Errorf("%s: given by the script: %t, by %s.parameters.json: %t", p.Name, given[p.Name], file, inFile)
			}
		}
	}
	for name := range given {
		if !slices.Contains([]string{"registryName", "imageTag", "release", "clientAddresses", "fulfillmentLocation"}, name) {
			t.Errorf("the script gives %s, and TestInfrastructure does not", name)
		}
	}
}

func TestDeployAgain(t *testing.T) {
	t.Parallel()
	d := newDeploying(t)
	d.answers("resource list", "/apps/fulfillment-westeurope")
	d.answers("resource show", "Stopped")
	calls, said, err := d.run(d.path(), whole...)
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	want := []string{
		"group exists --name", "deployment group create registry", "acr repository show", "resource list --resource-group",
		"resource invoke-action --action stop", "resource show --ids", "deployment group create main",
		"resource invoke-action --action start", "keyvault secret list", "validate.sh",
	}
	if diff := cmp.Diff(want, steps(calls)); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

func TestDeployStopsAtAFault(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		call string
		last string // the last step
		want string
	}{
		"the registry":  {"deployment group create*registry.bicep", "deployment group create registry", "failed: registry"},
		"an image":      {"acr build*--target analytics", "acr build --registry", "failed: image analytics:v1"},
		"fulfillment":   {"resource invoke-action --action stop", "resource invoke-action --action start", "failed: stop fulfillment"},
		"the templates": {"deployment group create*main.bicep", "resource invoke-action --action start", "starting fulfillment again as it was\nfailed: everything else"},
		"the vault":     {"keyvault secret list", "keyvault secret list", "Key Vault Secrets Officer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDeploying(t)
			d.fails("acr repository show", "")
			d.answers("resource list", "/apps/fulfillment-westeurope")
			d.answers("resource show", "Stopped")
			d.fails(c.call, "no")
			calls, said, err := d.run(d.path(), whole...)
			got := steps(calls)
			if err == nil || got[len(got)-1] != c.last || !strings.Contains(said, c.want) {
				t.Errorf("%v, the last step was %q, it said %q; want %q and %q", err, got[len(got)-1], said, c.last, c.want)
			}
		})
	}
}

func TestDeployThatDoesNotEnd(t *testing.T) {
	t.Parallel()
	d := newDeploying(t)
	d.answers("resource list", "/apps/fulfillment-westeurope")
	d.answers("resource show", "Running")
	calls, said, err := d.run(d.path(), whole...)
	if got := steps(calls); err == nil || !strings.Contains(said, "did not stop within two minutes") || got[len(got)-1] != "resource invoke-action --action start" {
		t.Errorf("%v: %s: %q", err, said, got)
	}
	d.answers("resource list", "/apps/fulfillment-westeurope\n/apps/fulfillment-northeurope")
	if calls, said, err := d.run(d.path(), whole...); err == nil || !strings.Contains(said, "there are two of fulfillment") {
		t.Errorf("%v: %s: %q", err, said, steps(calls))
	}
}

func TestDeployWantsTheSecrets(t *testing.T) {
	t.Parallel()
	d := newDeploying(t)
	d.answers("keyvault secret list", "smtp-user\nsmtp-password-old\ntwilio-auth-token\neventhubs-connection-string")
	_, said, err := d.run(d.path(), whole...)
	if err == nil || !strings.Contains(said, "missing in kv: smtp-password twilio-account-sid\n") {
		t.Errorf("%v: %s", err, said)
	}
}

func TestDeployElsewhere(t *testing.T) {
	t.Parallel()
	d := newDeploying(t)
	d.answers("resource list", "/apps/fulfillment-westeurope")
	d.answers("resource show", "Stopped")
	d.answers("deployment group show*fulfillmentName.value", "fulfillment-northeurope")
	calls, said, err := d.run(d.path(), append(whole, "--fulfillment-location", "northeurope")...)
	if err != nil || !strings.Contains(said, "it runs elsewhere now") {
		t.Errorf("%v: %s", err, said)
	}
	for _, call := range calls {
		if strings.Contains(call, "--action start") {
			t.Errorf("the old one was started: %s", call)
		}
	}
}

func TestDeployWhatIf(t *testing.T) {
	t.Parallel()
	d := newDeploying(t)
	d.answers("acr list", "waybillacr")
	calls, said, err := d.run(d.path(), append(whole, "--what-if")...)
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	for _, call := range calls {
		for _, changing := range []string{" create", " build", "invoke-action", " set"} {
			if strings.Contains(call, changing) {
				t.Errorf("--what-if changes something: %s", call)
			}
		}
	}
	if diff := cmp.Diff([]string{"group exists --name", "deployment group what-if", "acr list --resource-group", "deployment group what-if"}, steps(calls)); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}
