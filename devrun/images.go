package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"

	"waybill/devrun/internal/build"
	"waybill/devrun/internal/child"
	"waybill/devrun/internal/console"
	"waybill/devrun/internal/images"
	"waybill/devrun/internal/runfile"
)

// makeImages packs the container images and has Docker make them, unless a flag says not to.
func makeImages(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("devrun images", flag.ContinueOnError)
	packOnly := flags.String("pack-only", "", "only write what lies in the images to this `folder`; Docker is not needed then")
	plain := flags.Bool("no-color", false, "no colours")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	names := flags.Args()
	if len(names) == 0 {
		names = images.Names()
	}
	root, err := runfile.Root(".")
	if err != nil {
		return err
	}
	if *packOnly == "" {
		// Before anything is built, so that a missing Docker is reported at once and not after minutes.
		if err := images.CheckDocker(ctx); err != nil {
			return err
		}
	}
	packed := *packOnly
	if packed == "" {
		packed = filepath.Join(root, ".waybill", "images")
	}
	terminal := console.New(out, coloured(out, *plain), 0)
	starter := child.NewStarter()
	defer starter.Close()
	packer := &images.Packer{
		Root: root, Out: packed, SBOM: filepath.Join(root, ".waybill", "sbom"),
		Builder:  &build.Builder{Root: root, Starter: starter, Progress: terminal.Sayf},
		Progress: terminal.Sayf,
	}
	if err := packer.Pack(ctx, names); err != nil || *packOnly != "" {
		return err
	}
	docker := &images.Docker{Root: root, Packed: packed, Tags: []string{"dev"}, Version: "dev"}
	if describe, err := git(ctx, root, "describe", "--always", "--tags", "--dirty"); err == nil {
		docker.Version = describe
		docker.Tags = append(docker.Tags, describe)
		docker.Revision, _ = git(ctx, root, "rev-parse", "HEAD")
		docker.Created, _ = git(ctx, root, "log", "-1", "--format=%cI")
	}
	for _, name := range names {
		size, err := docker.Build(ctx, name)
		if err != nil {
			return err
		}
		terminal.Sayf("%-22s %4d MB, tagged %s", images.Name(name), (size+500_000)/1_000_000, strings.Join(docker.Tags, " and "))
	}
	return nil
}

// git runs git on the repository; a repository that was downloaded as an archive has no answer.
func git(ctx context.Context, root string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...).Output() //nolint:gosec // its arguments are fixed
	if err != nil {
		return "", fmt.Errorf("ask git: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
