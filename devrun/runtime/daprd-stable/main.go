// Command daprd-stable is Dapr's own sidecar, v1.18.2, with Dapr's stable components and two more that components/azure names:
// the SMTP and the Twilio SMS output bindings. The container images hold it. It must be built with -tags stablecomponents.
package main

import (
	"github.com/dapr/components-contrib/bindings/smtp"
	"github.com/dapr/components-contrib/bindings/twilio/sms"
	"github.com/dapr/dapr/cmd/daprd/app"
	"github.com/dapr/dapr/pkg/components/bindings"
)

func main() {
	bindings.DefaultRegistry.RegisterOutputBinding(smtp.NewSMTP, "smtp")
	bindings.DefaultRegistry.RegisterOutputBinding(sms.NewSMS, "twilio.sms")
	app.Run()
}
