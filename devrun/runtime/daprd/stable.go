//go:build stablecomponents

package main

import (
	"github.com/dapr/components-contrib/bindings/twilio/sms"
	_ "github.com/dapr/dapr/cmd/daprd/components" // registers Dapr's stable components
	"github.com/dapr/dapr/pkg/components/bindings"
)

// Twilio is not among Dapr's stable components; components/azure uses it.
func init() {
	components["bindings.twilio.sms"] = func() { bindings.DefaultRegistry.RegisterOutputBinding(sms.NewSMS, "twilio.sms") }
}
