package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"waybill/tests/internal/system"
)

// infra/validate.sh checks a deployment; here it checks the local system.
func TestTheValidationOfADeployment(t *testing.T) {
	t.Parallel()
	root, err := system.Root()
	if err != nil {
		t.Fatal(err)
	}
	validate := func(orders, testTimeout string) (string, error) {
		out, err := exec.CommandContext(t.Context(), filepath.Join(root, "infra", "validate.sh"),
			"--orders", orders, "--fulfillment", waybill.App("fulfillment").URL, "--analytics", waybill.App("analytics").URL,
			"--notifications", waybill.App("notifications").URL, "--timeout", testTimeout).CombinedOutput()
		return string(out), err
	}
	if out, err := validate(waybill.App("orders").URL, "60"); err != nil {
		t.Errorf("%v:\n%s", err, out)
	} else if !strings.Contains(out, "is fulfilled") || !strings.HasSuffix(out, "ok: analytics counts it\n") {
		t.Errorf("it said:\n%s", out)
	}
	// fulfillment does not accept orders. The script retries a failure that could be temporary until its time is up.
	if out, err := validate(waybill.App("fulfillment").URL, "3"); err == nil || !strings.Contains(out, "failed after 3 seconds: an order is accepted") {
		t.Errorf("%v with orders at the wrong address:\n%s", err, out)
	}
}
