package local

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"waybill/devrun/internal/build"
	"waybill/devrun/internal/child"
	"waybill/devrun/internal/console"
	"waybill/devrun/internal/datadir"
	"waybill/devrun/internal/runfile"
)

// Build makes every program that Up would run on the folder data, says where each one is, and returns.
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

// makePrograms builds what is not there yet. Of the apps it returns those that are Go packages: app id → program.
func makePrograms(ctx context.Context, starter *child.Starter, file *runfile.File, data datadir.Dir, terminal *console.Console) (
	build.Runtime, map[string]string, error,
) {
	builder := &build.Builder{Root: file.Root, Services: data.Bin(), Starter: starter, Progress: terminal.Sayf}
	runtime, err := builder.Runtime(ctx)
	if err != nil {
		return build.Runtime{}, nil, err
	}
	if runtime.Installed {
		terminal.Sayf("using the installed Dapr %s in %s", build.RuntimeVersion, filepath.Dir(runtime.Daprd))
	}
	apps := map[string]string{}
	for _, a := range file.Apps {
		if !a.GoPackage() {
			continue
		}
		began := time.Now()
		if apps[a.ID], err = builder.Service(ctx, a.ID, a.Dir); err != nil {
			return build.Runtime{}, nil, err
		}
		terminal.Sayf("%s is built, in %s", a.ID, time.Since(began).Round(100*time.Millisecond))
	}
	return runtime, apps, nil
}
