package local

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path/filepath"

	"waybill/devrun/internal/build"
	"waybill/devrun/internal/child"
	"waybill/devrun/internal/components"
	"waybill/devrun/internal/console"
	"waybill/devrun/internal/datadir"
	"waybill/devrun/internal/runfile"
)

// Build builds every program that Up would run on the folder data and says where each one is.
func Build(ctx context.Context, root, data string, out io.Writer, colour bool) error {
	file, err := runfile.Load(root)
	if err != nil {
		return err
	}
	dir, err := datadir.Open(data)
	if err != nil {
		return err
	}
	starter := child.NewStarter()
	defer starter.Close()
	terminal := console.New(out, colour, longestName(file))
	runtime, apps, err := makePrograms(ctx, starter, file, dir, terminal)
	if err != nil {
		return err
	}
	show := func(name, path string) { terminal.Block(fmt.Sprintf("  %-13s %s\n", name, path)) }
	terminal.Block("\n")
	show("daprd", runtime.Daprd)
	show("placement", runtime.Placement)
	show("scheduler", runtime.Scheduler)
	for _, a := range file.Apps {
		if program, built := apps[a.ID]; built {
			show(a.ID, program)
		}
	}
	terminal.Block("\n")
	return nil
}

// makePrograms builds the programs that are missing or out of date. Among the apps it returns those that are Go packages: app
// id → program.
func makePrograms(ctx context.Context, starter *child.Starter, file *runfile.File, data datadir.Dir, terminal *console.Console) (
	build.Runtime, map[string]string, error,
) {
	types := map[string]string{}
	var services []build.Service
	for _, a := range file.Apps {
		found, err := components.Types(a.ResourcePaths)
		if err != nil {
			return build.Runtime{}, nil, err
		}
		maps.Copy(types, found)
		if a.GoPackage() {
			services = append(services, build.Service{Name: a.ID, Dir: a.Dir})
		}
	}
	builder := &build.Builder{Root: file.Root, Services: data.Bin(), Starter: starter, Progress: terminal.Sayf}
	runtime, apps, err := builder.System(ctx, types, services)
	if err != nil {
		return build.Runtime{}, nil, err
	}
	if runtime.Installed {
		terminal.Sayf("using the installed Dapr %s in %s", build.RuntimeVersion, filepath.Dir(runtime.Daprd))
	}
	return runtime, apps, nil
}
