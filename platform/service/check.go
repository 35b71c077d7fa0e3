package service

import (
	"waybill/platform/serve"
	"waybill/platform/sidecar"
	"waybill/platform/state"
)

// SidecarCheck is the check of every service that its sidecar's APIs can be used.
func SidecarCheck(s *sidecar.Sidecar) serve.Check {
	return serve.Check{Name: "sidecar", Ask: s.Healthy}
}

// StateCheck is the check of every service that its documents can be written.
func StateCheck(s *state.Dapr) serve.Check {
	return serve.Check{Name: "state_store", Ask: s.Writable}
}
