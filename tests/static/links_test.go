package static

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// pages are the Markdown files of the repository, by their path from its root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() && path != root && (name == ".git" || name == ".waybill" || name == "node_modules") {
			return filepath.SkipDir
		}
		if entry.IsDir() || filepath.Ext(name) != ".md" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, path)
		found[filepath.ToSlash(relative)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var (
	code     = regexp.MustCompile("`[^`\n]*`")
	fence    = regexp.MustCompile("(?ms)^ *```.*?^ *```")
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *$`)
	linkText = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// anchors are the fragments that GitHub gives the headings of a page.
func anchors(page string) map[string]bool {
	found := map[string]bool{}
	seen := map[string]int{}
	for _, match := range heading.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		anchor := strings.Map(func(r rune) rune {
			switch {
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			case r == ' ':
				return '-'
			}
			return -1
		}, linkText.ReplaceAllString(match[1], "$1"))
		if n := seen[anchor]; n > 0 {
			found[fmt.Sprintf("%s-%d", anchor, n)] = true
		} else {
			found[anchor] = true
		}
		seen[anchor]++
	}
	return found
}

// TestEveryLinkOfThePagesResolves checks the links within the repository: the file exists, and the heading, too.
func TestEveryLinkOfThePagesResolves(t *testing.T) {
	t.Parallel()
	all := pages(t)
	links := 0
	for name, text := range all {
		for _, match := range link.FindAllStringSubmatch(code.ReplaceAllString(fence.ReplaceAllString(text, ""), ""), -1) {
			target, err := url.Parse(match[1])
			if err != nil {
				t.Errorf("%s: link %q: %v", name, match[1], err)
				continue
			}
			if target.Scheme != "" {
				continue // another site
			}
			links++
			path := name
			if target.Path != "" {
				path = filepath.ToSlash(filepath.Join(filepath.Dir(name), target.Path))
			}
			if _, err := os.Stat(filepath.Join(root, path)); err != nil || strings.HasPrefix(path, "..") {
				t.Errorf("%s links to %s, which does not exist", name, match[1])
				continue
			}
			if page, ok := all[path]; ok && target.Fragment != "" && !anchors(page)[target.Fragment] {
				t.Errorf("%s links to %s, but %s has no such heading", name, match[1], path)
			}
		}
	}
	if links < 100 {
		t.Errorf("%d links were checked, at least 100 were expected", links)
	}
}

// TestEveryDecisionIsListed keeps docs/adr/README.md complete, and each mention of a decision by its number right.
func TestEveryDecisionIsListed(t *testing.T) {
	t.Parallel()
	all := pages(t)
	index := all["docs/adr/README.md"]
	numbers := map[string]bool{}
	for name, text := range all {
		file, ok := strings.CutPrefix(name, "docs/adr/")
		if !ok || file == "README.md" {
			continue
		}
		number, _, _ := strings.Cut(file, "-")
		if numbers[number] {
			t.Errorf("%s: another decision has the same number", name)
		}
		numbers[number] = true
		if title := "# " + strings.TrimLeft(number, "0") + ". "; !strings.HasPrefix(text, title) {
			t.Errorf("%s must begin with %q", name, title)
		}
		if !strings.Contains(index, "]("+file+")") {
			t.Errorf("docs/adr/README.md does not list %s", file)
		}
	}
	mention := regexp.MustCompile(`docs/adr/(\d{4})|\bADR (\d+)\b`)
	for _, folder := range []string{"contracts", "platform", "services", "devrun", "tests", "components", "infra", "docs", "hack"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || strings.Contains(path, "testdata") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, match := range mention.FindAllStringSubmatch(string(text), -1) {
				number := match[1]
				if number == "" {
					number = fmt.Sprintf("%04s", match[2])
				}
				if !numbers[number] {
					t.Errorf("%s mentions %s, which does not exist", path, match[0])
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
