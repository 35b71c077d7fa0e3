package images

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../../.."

// built is a program of this module.
func built(t *testing.T, pkg string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return program
}

func TestSBOMListsTheModules(t *testing.T) {
	t.Parallel()
	self := built(t, "waybill/devrun")
	first, err := sbom("self", self)
	if err != nil {
		t.Fatal(err)
	}
	second, err := sbom("self", self)
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("the same program makes for another text (%v)", err)
	}
	var bom struct {
		BOMFormat  string
		Components []struct{ Name, Version, PURL string }
	}
	if err := json.Unmarshal(first, &bom); err != nil {
		t.Fatal(err)
	}
	if bom.BOMFormat != "CycloneDX" {
		t.Errorf("bomFormat %q", bom.BOMFormat)
	}
	purls := map[string]string{}
	for _, c := range bom.Components {
		purls[c.Name] = c.PURL
	}
	for name, want := range map[string]string{
		"std":                               `^pkg:golang/std@1\.\d+`,
		"github.com/CycloneDX/cyclonedx-go": `^pkg:golang/github\.com/CycloneDX/cyclonedx-go@v\d`,
		"waybill/contracts":                 `^pkg:golang/waybill/contracts$`, // of this repository, which gives it no version
	} {
		if !regexp.MustCompile(want).MatchString(purls[name]) {
			t.Errorf("%s is %q, want %s", name, purls[name], want)
		}
	}
	if _, err := sbom("script", filepath.Join(root, "Makefile")); err == nil {
		t.Error("no error for a file that is no Go program")
	}
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for rest := certificates(); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		names[cert.Subject.CommonName] = true
	}
	for _, want := range []string{"DigiCert Global Root G2", "ISRG Root X1", "Microsoft RSA Root Certificate Authority 2017"} {
		if !names[want] {
			t.Errorf("%s is missing among %d roots", want, len(names))
		}
	}
}

func TestOnlyStaticProgramsForLinuxArePacked(t *testing.T) {
	t.Parallel()
	if err := checkStatic(filepath.Join(root, "Makefile")); err == nil {
		t.Error("a text is taken for a program")
	}
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell on this machine to try")
	}
	if err := checkStatic(shell); err == nil {
		t.Errorf("%s, which needs a dynamic loader, is taken for a static program", shell)
	}
}

// What is packed can be read by the image's user, and its components differ from the local ones by their addresses only.
func TestPack(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	program := built(t, "waybill/devrun/probe")
	p := &Packer{Root: root, Out: out, SBOM: filepath.Join(out, "sbom"), Progress: t.Logf}
	i := all[slices.IndexFunc(all, func(i image) bool { return i.name == "daprd" })]
	if err := p.pack(t.Context(), i, program, program); err != nil {
		t.Fatal(err)
	}
	image := os.DirFS(filepath.Join(out, "daprd"))
	for path, want := range map[string]fs.FileMode{
		"root/daprd": 0o755, "root/probe": 0o755, "root/tmp": fs.ModeDir | fs.ModeSticky | 0o777, "data/state": fs.ModeDir | 0o750,
		"root/etc/passwd": 0o644, "root/etc/ssl/certs/ca-certificates.crt": 0o644, "root/usr/share/zoneinfo.zip": 0o644,
		"root/usr/share/sbom/daprd.cdx.json": 0o644, "root/components/local": fs.ModeDir | 0o755, "root/components/local/orderbus.yaml": 0o644,
	} {
		if info, err := fs.Stat(image, path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v %v, want %v", path, info, err, want)
		}
	}
	back := strings.NewReplacer(
		"broker:9092", "127.0.0.1:9092", `value: "inbox"`, `value: "127.0.0.1"`, "inbox:1026", "127.0.0.1:1026", "file:/data/", "file:../../.waybill/")
	source := os.DirFS(filepath.Join(root, "components", "local"))
	files, err := fs.Glob(source, "*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		want, err := fs.ReadFile(source, name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := fs.ReadFile(image, "root/components/local/"+name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(got)) {
			if strings.Contains(line, "127.0.0.1") && !strings.HasPrefix(strings.TrimSpace(line), "#") {
				t.Errorf("%s: %s would lead the sidecar to itself", name, strings.TrimSpace(line))
			}
		}
		if back.Replace(string(got)) != string(want) {
			t.Errorf("%s differs by more than addresses:\n%s", name, got)
		}
	}
	if _, err := os.Stat(filepath.Join(out, "sbom", "daprd.cdx.json")); err != nil {
		t.Error(err)
	}
}

func TestTheDockerfileMakesEveryImageInBothWays(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		for _, want := range []string{
			"\nFROM base AS base-" + i.name + "\n", "\nFROM base-" + i.name + " AS " + i.name + "\n",
			`org.opencontainers.image.title="` + Name(i.name) + `"`, `ENTRYPOINT ["/` + i.program + `"]`, "/packed/" + i.name + "/root/ /\n",
		} {
			if !strings.Contains(string(text), want) {
				t.Errorf("image %s: the Dockerfile has no %q", i.name, strings.TrimSpace(want))
			}
		}
	}
}
