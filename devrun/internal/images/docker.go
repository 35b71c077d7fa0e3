package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Docker makes images of what a Packer packed.
type Docker struct {
	// Root is the repository, Packed the packer's Out.
	Root, Packed string
	// Tags are given to each image.
	Tags []string
	// Labels say what the image was made of.
	Version, Revision, Created string
}

// ErrNoDocker means that no Docker engine answers, and says what to do.
var ErrNoDocker = errors.New(`no Docker engine answers: install one and start it, then try again
  Debian, Ubuntu: apt-get install docker.io && systemctl start docker
  others:         https://docs.docker.com/engine/install/`)

// CheckDocker returns an ErrNoDocker if there is no engine.
func CheckDocker(ctx context.Context) error {
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, "docker", "version", "--format", "{{.Server.Version}}")
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w\n(%w: %s)", ErrNoDocker, err, strings.TrimSpace(said.String()))
	}
	return nil
}

// Name is an image's name without a tag.
func Name(image string) string { return "waybill/" + image }

// Build makes the image of that name and returns its size in bytes.
func (d *Docker) Build(ctx context.Context, image string) (size int64, err error) {
	args := make([]string, 0, 24)
	args = append(args,
		"build", "--target", "packed", "--build-arg", "IMAGE="+image, "--build-arg", "ROOT=root", "--build-arg", "DATA=data",
		"--build-arg", "VERSION="+d.Version, "--build-arg", "REVISION="+d.Revision, "--build-arg", "CREATED="+d.Created,
		"--file", filepath.Join(d.Root, "Dockerfile"),
	)
	for _, tag := range d.Tags {
		args = append(args, "--tag", Name(image)+":"+tag)
	}
	args = append(args, filepath.Join(d.Packed, image))
	if out, err := docker(ctx, args...); err != nil {
		return 0, fmt.Errorf("build image %s: %w\n%s", image, err, out)
	}
	out, err := docker(ctx, "image", "inspect", "--format", "{{.Size}}", Name(image)+":"+d.Tags[0])
	if err != nil {
		return 0, fmt.Errorf("look at image %s: %w\n%s", image, err, out)
	}
	_, err = fmt.Sscan(out, &size)
	return size, err
}

func docker(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", args...) //nolint:gosec // its arguments are this package's own
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return strings.TrimSpace(string(out)), err
}
