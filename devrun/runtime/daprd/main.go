// Command daprd is Dapr's own sidecar, v1.18.2, with the components that Waybill uses on a developer's machine and no others.
// With -tags stablecomponents it also has Dapr's stable components, which the container images need on Azure.
// docs/adr/0036 gives the reasons and the figures.
//
// The file app.go is Dapr's cmd/daprd/app/app.go without its import of all components. A test in devrun/internal/build
// compares the two.
package main

func main() {
	for _, register := range components {
		register()
	}
	Run()
}
