package static

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// schedulerRetention limits the history that the scheduler's etcd keeps (docs/adr/0027).
var schedulerRetention = []string{
	"--etcd-compaction-mode=periodic", "--etcd-compaction-retention=1m", "--etcd-snapshot-count=5000",
	"--etcd-max-wals=3", "--etcd-max-snapshots=3",
}

// With its default settings the scheduler's etcd grows by 85 MB a minute at nine orders a second. Every place that starts a
// scheduler must limit it in the same way.
func TestEverySchedulerBoundsItsHistory(t *testing.T) {
	t.Parallel()
	flag := regexp.MustCompile(`--etcd-(?:compaction-mode|compaction-retention|snapshot-count|max-wals|max-snapshots)["']?(?:=|,?\s+)["']?[a-z0-9]+`)
	for _, place := range []string{
		"devrun/internal/scheduler/retention.go", "docker-compose.yml", "Dockerfile", "infra/bicep/modules/fulfillment.bicep",
		"docs/running.md", "tests/bench/bare.go",
	} {
		text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(place)))
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, match := range flag.FindAllString(string(text), -1) {
			name, value, _ := strings.Cut(strings.Map(func(r rune) rune {
				if strings.ContainsRune("\"',= \n", r) {
					return ' '
				}
				return r
			}, match), " ")
			found = append(found, name+"="+strings.TrimSpace(value))
		}
		slices.Sort(found)
		want := slices.Sorted(slices.Values(schedulerRetention))
		if !slices.Equal(found, want) {
			t.Errorf("%s starts a scheduler with %q, want %q", place, found, want)
		}
	}
}
