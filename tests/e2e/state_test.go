package e2e

import (
	"strconv"
	"strings"
	"testing"

	"waybill/contracts"
	"waybill/platform/reconcile/reconciletest"
	"waybill/platform/sidecar"
	"waybill/platform/state"
	"waybill/platform/state/statetest"
)

// The conformance suite that the in-memory store passes in platform's tests passes on the real store behind a real sidecar too.
func TestStateStore(t *testing.T) {
	t.Parallel()
	host, port, _ := strings.Cut(waybill.App("orders").DaprGRPC, ":")
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	dapr, err := sidecar.Dial(sidecar.Config{Host: host, GRPCPort: sidecar.Port(number)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dapr.Close(); err != nil {
			t.Error(err)
		}
	})
	store := state.NewDapr(dapr.Client, contracts.StateStore)
	statetest.Run(t, func(*testing.T) state.Store { return store })
	reconciletest.RunPending(t, func(*testing.T) state.Store { return store })
}
