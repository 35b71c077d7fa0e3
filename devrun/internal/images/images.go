// Package images packs the container images: a folder with the content of each image, and the call of Docker that makes the image
// from it. The Dockerfile defines how a container runs, this package what it contains. Nothing comes from a registry:
// certificates, time zones and programs come from Go modules and the Go toolchain.
package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"waybill/devrun/internal/build"
	"waybill/devrun/internal/components"
)

// Names lists the images, services first.
func Names() []string {
	names := make([]string, 0, len(all))
	for _, i := range all {
		names = append(names, i.name)
	}
	return names
}

// image is one image and what is special about it.
type image struct {
	name string
	// program is its file name in the image's root.
	program string
	// dir is the folder of its Go package, relative to the repository's root; empty for Dapr's programs.
	dir string
	// dapr picks one of Dapr's programs.
	dapr func(build.Runtime) string
	// data are folders below /data.
	data []string
}

var all = []image{
	{name: "orders", program: "orders", dir: "services/orders"},
	{name: "fulfillment", program: "fulfillment", dir: "services/fulfillment"},
	{name: "notifications", program: "notifications", dir: "services/notifications"},
	{name: "analytics", program: "analytics", dir: "services/analytics"},
	{name: "broker", program: "devrun", dir: "devrun"},
	{name: "daprd", program: "daprd", dapr: func(r build.Runtime) string { return r.Daprd }, data: []string{"state"}},
	{name: "placement", program: "placement", dapr: func(r build.Runtime) string { return r.Placement }},
	{name: "scheduler", program: "scheduler", dapr: func(r build.Runtime) string { return r.Scheduler }},
}

// Addresses of the parts of the system in docker-compose.yml, by the names of its services.
const (
	brokerAddress = "broker:9092"
	inboxHost     = "inbox"
	inboxMail     = 1025
	inboxHTTP     = "inbox:1026"
	dataFolder    = "/data"
)

// Packer packs images.
type Packer struct {
	// Root is the repository.
	Root string
	// Out gets a folder <image> for each image: root/ is what lies in its root, data/ what belongs to its user.
	Out string
	// SBOM gets a file for each program that is packed.
	SBOM    string
	Builder *build.Builder
	// Progress is called with a short sentence about what is being done.
	Progress func(format string, args ...any)
}

// Pack packs the named images.
func (p *Packer) Pack(ctx context.Context, names []string) error {
	var chosen []image
	for _, name := range names {
		i := slices.IndexFunc(all, func(i image) bool { return i.name == name })
		if i < 0 {
			return fmt.Errorf("there is no image %q; there are %s", name, strings.Join(Names(), ", "))
		}
		chosen = append(chosen, all[i])
	}
	work, err := os.MkdirTemp("", "waybill-images-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()

	var runtime build.Runtime
	if slices.ContainsFunc(chosen, func(i image) bool { return i.dapr != nil }) {
		if runtime, err = p.Builder.ImageRuntime(ctx); err != nil {
			return err
		}
	}
	probe := filepath.Join(work, "probe")
	if err := p.Builder.Release(ctx, "probe", filepath.Join(p.Root, "devrun"), "./probe", probe); err != nil {
		return err
	}
	for _, i := range chosen {
		program := filepath.Join(work, i.program)
		if i.dapr != nil {
			program = i.dapr(runtime)
		} else if err := p.Builder.Release(ctx, i.name, filepath.Join(p.Root, i.dir), ".", program); err != nil {
			return err
		}
		if err := p.pack(ctx, i, program, probe); err != nil {
			return fmt.Errorf("pack image %s: %w", i.name, err)
		}
	}
	return nil
}

// pack lays out one image.
func (p *Packer) pack(ctx context.Context, i image, program, probe string) error {
	out := filepath.Join(p.Out, i.name)
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	t := tree{dir: out}
	for path, source := range map[string]string{"root/" + i.program: program, "root/probe": probe} {
		if err := checkStatic(source); err != nil {
			return err
		}
		t.copy(path, source, 0o755)
		if t.err != nil {
			return t.err
		}
		bom, err := sbom(filepath.Base(path), source)
		if err != nil {
			return err
		}
		name := filepath.Base(path) + ".cdx.json"
		t.write("root/usr/share/sbom/"+name, bom)
		if err := os.MkdirAll(p.SBOM, 0o750); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(p.SBOM, name), bom, 0o600); err != nil {
			return err
		}
	}
	zones, err := timeZones(ctx)
	if err != nil {
		return err
	}
	t.copy("root/usr/share/zoneinfo.zip", zones, 0o644)
	t.write("root/etc/ssl/certs/ca-certificates.crt", certificates())
	t.write("root/etc/passwd", []byte("root:x:0:0:root:/:/sbin/nologin\nwaybill:x:65532:65532:waybill:/data:/sbin/nologin\n"))
	t.write("root/etc/group", []byte("root:x:0:\nwaybill:x:65532:\n"))
	t.folder("root/tmp", 0o777|os.ModeSticky)
	t.folder("data", 0o750)
	for _, folder := range i.data {
		t.folder("data/"+folder, 0o750)
	}
	if i.name == "daprd" {
		t.err = errors.Join(t.err, p.packComponents(filepath.Join(out, "root", "components")))
	}
	return t.err
}

// packComponents writes every folder of component files to the folder to: the local ones with the addresses of containers,
// the others, which take theirs from the environment, as they are.
func (p *Packer) packComponents(to string) error {
	from := filepath.Join(p.Root, "components")
	folders, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, folder := range folders {
		if !folder.IsDir() {
			continue
		}
		run := components.Run{
			Broker: brokerAddress, InboxHost: inboxHost, InboxMail: inboxMail, InboxHTTP: inboxHTTP, Data: dataFolder,
		}
		if err := components.Copy(filepath.Join(to, folder.Name()), []string{filepath.Join(from, folder.Name())}, run); err != nil {
			return err
		}
	}
	return readable(to)
}
