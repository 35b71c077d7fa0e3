package static

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// emulatorDiffers are the fields in which a component for the emulators may differ from its model in components/azure:
// credentials, addresses and TLS.
var emulatorDiffers = map[string][]string{
	"orderbus.yaml":      {"namespaceName", "connectionString", "azureAuthMethods", "azureClientId"},
	"telemetrybus.yaml":  {"saslPassword", "disableTls"},
	"statestore.yaml":    {"masterKey", "azureAuthMethods", "azureClientId"},
	"workflowstore.yaml": {"useAzureAD", "azureAuthMethods", "azureClientId"},
	"email.yaml":         {"user", "password", "skipTLSVerify"},
}

// withoutModel are the files without a model in the other folder, with the reason.
var withoutModel = map[string]string{
	"secretstore.yaml": "the emulators' keys are in the environment",
	"sms.yaml":         "Twilio has no emulator: it is components/local/sms.yaml with another address",
}

// TestTheEmulatorsGetWhatAzureGets compares components/emulators with components/azure.
func TestTheEmulatorsGetWhatAzureGets(t *testing.T) {
	t.Parallel()
	azure, emulators := readFolder(t, "azure").components, readFolder(t, "emulators").components
	for file, reason := range withoutModel {
		delete(azure, file)
		if c, ok := emulators[file]; ok {
			local := readFolder(t, "local").components[file]
			if diff := cmp.Diff(without(local, "url"), without(c, "url")); diff != "" {
				t.Errorf("components/emulators/%s (%s) differs (-local +emulators):\n%s", file, reason, diff)
			}
			delete(emulators, file)
		}
	}
	for file, model := range azure {
		got, ok := emulators[file]
		delete(emulators, file)
		if !ok {
			t.Errorf("components/emulators has no %s", file)
			continue
		}
		differs := emulatorDiffers[file]
		if diff := cmp.Diff(without(model, differs...), without(got, differs...)); diff != "" {
			t.Errorf("components/emulators/%s differs in more than %v (-azure +emulators):\n%s", file, differs, diff)
		}
	}
	for file := range emulators {
		t.Errorf("components/azure has no %s", file)
	}
}

// without is the component without the named fields and without its secrets and start settings.
func without(c component, fields ...string) component {
	c.Spec.Metadata = slices.DeleteFunc(slices.Clone(c.Spec.Metadata), func(e entry) bool { return slices.Contains(fields, e.Name) })
	c.Auth.SecretStore, c.Spec.InitTimeout = "", ""
	return c
}

// TestTheSidecarsAreConfiguredAlike compares the settings of the sidecar that fulfillment runs on Azure with the local ones,
// which all tests use.
func TestTheSidecarsAreConfiguredAlike(t *testing.T) {
	t.Parallel()
	local, azure := readFolder(t, "local").others, readFolder(t, "azure").others
	if diff := cmp.Diff(local["config.yaml"], azure["config.yaml"]); diff != "" {
		t.Errorf("components/azure/config.yaml differs (-local +azure):\n%s", diff)
	}
	if kind := azure["config.yaml"]["kind"]; kind != "Configuration" || len(azure) != 1 {
		t.Errorf("components/azure holds a %v among %v", kind, slices.Collect(maps.Keys(azure)))
	}
}
