// Command daprd is Dapr's own sidecar, v1.18.2, with the components that Waybill uses on a developer's machine and no others.
// docs/adr/0036 gives the reasons and the figures; ../daprd-stable is the sidecar of the container images.
//
// The file app.go is Dapr's cmd/daprd/app/app.go without its import of Dapr's components, which panics in a build without
// tags. A test in devrun/internal/build compares the two files.
package main

func main() {
	for _, register := range components {
		register()
	}
	Run()
}
