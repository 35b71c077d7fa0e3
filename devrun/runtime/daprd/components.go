package main

import (
	"github.com/dapr/components-contrib/bindings/http"
	"github.com/dapr/components-contrib/bindings/smtp"
	"github.com/dapr/components-contrib/nameresolution/mdns"
	"github.com/dapr/components-contrib/pubsub/kafka"
	"github.com/dapr/components-contrib/state/sqlite"
	"github.com/dapr/dapr/pkg/components/bindings"
	"github.com/dapr/dapr/pkg/components/nameresolution"
	"github.com/dapr/dapr/pkg/components/pubsub"
	"github.com/dapr/dapr/pkg/components/state"
)

// components registers every component that the files in components/local name, by its type, and the name resolution that
// Dapr uses by default. The runner reads the keys from this file before it builds, and refuses a component file that names
// another type.
var components = map[string]func(){
	"bindings.http":       func() { bindings.DefaultRegistry.RegisterOutputBinding(http.NewHTTP, "http") },
	"bindings.smtp":       func() { bindings.DefaultRegistry.RegisterOutputBinding(smtp.NewSMTP, "smtp") },
	"nameresolution.mdns": func() { nameresolution.DefaultRegistry.RegisterComponent(mdns.NewResolver, "mdns") },
	"pubsub.kafka":        func() { pubsub.DefaultRegistry.RegisterComponent(kafka.NewKafka, "kafka") },
	"state.sqlite":        func() { state.DefaultRegistry.RegisterComponent(sqlite.NewSQLiteStateStore, "sqlite") },
}
