package bicep

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// templates writes files into a folder and gives the path of main.bicep.
func templates(t *testing.T, files map[string]string) string {
	t.Helper()
	folder := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(folder, "main.bicep")
}

const inner = `
@description('What it is called.')
@maxLength(8)
param name string
param sizes int[] = [1, 2]

resource made 'A/b@1' = [for (size, i) in sizes: {
  name: '${name}-${i}'
  properties: {
    size: size * 10
    big: size > 1 ? 'yes' : 'no'
    'odd-key': [
      for s in ['x', 'y']: '${s}\'s'
    ]
  }
}]

resource child 'A/b/c@1' = if (length(sizes) > 1) {
  parent: made[1]
  name: 'child'
  properties: {}
}

output first string = made[0].properties.secret
output id string = made[0].id
`

func TestDeploy(t *testing.T) {
	t.Parallel()
	path := templates(t, map[string]string{"inner.bicep": inner, "main.bicep": `
// Comments and decorators may stand anywhere.
var file = loadYamlContent('file.yaml')
var names = map(file.list, x => x.name)

module one 'inner.bicep' = {
  name: 'one'
  params: {
    name: names[0] // from the file
  }
}

resource last 'A/b@1' = {
  name: 'last'
  properties: union({
    of: one.outputs.first
    here: resourceId('A/b', 'last')
  }, contains(file, 'more') ? {
    more: file.more
  } : {})
  dependsOn: [
    one
  ]
}

output first string = one.outputs.first
`, "file.yaml": "list:\n  - name: waybill\nmore: true\n"})
	d, err := Deploy(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]string, 0, 4)
	for _, r := range slices.Concat(d.Of("A/b"), d.Of("A/b/c")) {
		got = append(got, r.ID()+" "+r.Body.At("properties").String())
	}
	want := []string{
		"/A/b/waybill-0 {size: 10, big: no, odd-key: [x's y's]}",
		"/A/b/waybill-1 {size: 20, big: yes, odd-key: [x's y's]}",
		"/A/b/last {of: <b waybill-0 secret>, here: /A/b/last, more: true}",
		"/A/b/c/waybill-1/child {}",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("resources (-want +got):\n%s", diff)
	}
	if first := d.Outputs["first"]; !first.Later {
		t.Errorf("the output %s is known before the deployment", first)
	}
	if pos := d.Of("A/b")[2].Body.At("properties.more").Pos; filepath.Base(pos.File) != "file.yaml" || pos.Line != 3 {
		t.Errorf("more was written at %s", pos)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	const module = "module m 'inner.bicep' = {\n  name: 'm'\n  params: {\n    name: 'a'\n  }\n}\n"
	for name, c := range map[string]struct{ main, want string }{
		"no such declaration":       {"reference x 'A/b@1' = {}", "main.bicep:1: a declaration begins with \"reference\""},
		"a text without end":        {"var a = 'x\n", "main.bicep:1: a text does not end on its line"},
		"an array without end":      {"var a = [1, 2", "main.bicep:1: \"]\", a comma or a new line is missing"},
		"two on a line":             {"var a = 1 var b = 2", "main.bicep:1: the line should end"},
		"declared twice":            {"param a string = 'x'\nparam a string = 'y'", "main.bicep:2: a is declared on line 1 already"},
		"unused":                    {"\nvar a = 1", "main.bicep:2: nothing uses var a"},
		"unknown name":              {"output a int = b", "main.bicep:1: there is no b"},
		"unknown function":          {"output a int = hash('x')", "the function hash is not known here"},
		"wrong argument":            {"output a int = length('x')", "argument 1 of length is of type string and should be array"},
		"wrong type":                {"output a int = 'x'", "is of type int, and the value is of type string"},
		"a circle":                  {"var a = b\nvar b = a\noutput c int = a", "depends on itself"},
		"no such output":            {module + "output a string = m.outputs.second", "main.bicep:7: there is no second"},
		"no such parameter":         {strings.Replace(module, "name: 'a'", "nome: 'a'", 1), "main.bicep:4: "},
		"parameter missing":         {strings.Replace(module, "    name: 'a'\n", "", 1), "main.bicep:1: the parameter name of"},
		"parameter too long":        {strings.Replace(module, "name: 'a'", "name: 'abcdefghi'", 1), "main.bicep:4: name, \"abcdefghi\", is longer than the 8"},
		"name known too late":       {module + "resource r 'A/b@1' = {\n  name: m.outputs.first\n}", "main.bicep:8: a name is known only while the deployment runs"},
		"made twice":                {"resource r 'A/b@1' = [for i in [1, 2]: {\n  name: 'r'\n}]", "/A/b/r is made twice"},
		"parent missing":            {"resource r 'A/b/c@1' = {\n  name: 'r'\n}", "a parent is missing"},
		"the wrong parent":          {"resource p 'A/x@1' = {\n  name: 'p'\n}\nresource r 'A/b/c@1' = {\n  parent: p\n  name: 'r'\n}", "the parent of a A/b/c is a A/x"},
		"no such element":           {"var a = [1]\noutput b int = a[1]", "there is no element 1 of 1"},
		"a key twice":               {"output a object = {\n  b: 1\n  b: 2\n}", "main.bicep:3: b stands here twice"},
		"texts over several lines":  {"output a string = '''x'''", "are not known here"},
		"no such file":              {"output a string = loadTextContent('none.txt')", "none.txt"},
		"what is no key of a value": {"var a = {\n  b: 1\n}\noutput c int = a.d", "main.bicep:4: there is no d in what"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Deploy(templates(t, map[string]string{"inner.bicep": inner, "main.bicep": c.main}), nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
