package static

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The words that docs/glossary.md replaces. A word is found in any form of upper and lower case, and also inside an identifier.
var replaced = map[string]string{
	`anew`:               "again",
	`whoever`:            "everyone who, the caller that",
	`sweep(s|er|ing)?`:   "reconcile, pass",
	`watchdog`:           "reconciler",
	`park(s|ed|ing)?`:    "dead-letter",
	`patience`:           "timeout, retry time",
	`hitherto`:           "until now",
	`thereof`:            "of it",
	`as it were`:         "",
	`(is|are) told`:      "receives, is notified",
	`of which (the|one)`: "whose; or two sentences",
}

// notInLogs are words that say too little to an engineer who is on call.
var notInLogs = map[string]string{
	`nobody|somebody|everybody|anybody`: "name the process, the role or the service",
	`gone`:                              "missing, deleted, disconnected",
	`stands?`:                           "is, remains",
	`will look again`:                   "will retry",
	`broke off`:                         "failed",
}

// keptNames are names that are stored, public, or belong to others, and therefore keep a word of the list.
var keptNames = regexp.MustCompile(`parked_?(by|reason|at|cut|count)|parkings|parked-%x|events-parked|--patience|(SWEEP|WATCHDOG)_[A-Z]+`)

// keptFiles tell of the old words themselves.
var keptFiles = []string{"tests/static/language_test.go", "docs/glossary.md", "CHANGELOG.md"}

// TestTheWordsOfTheGlossary keeps the words out of the repository that docs/glossary.md replaced.
func TestTheWordsOfTheGlossary(t *testing.T) {
	t.Parallel()
	words := regexp.MustCompile(`(?i)(?:\b|[a-z])(` + strings.Join(slices.Sorted(maps.Keys(replaced)), "|") + `)\b`)
	for path, text := range ownText(t) {
		if slices.Contains(keptFiles, path) {
			continue
		}
		for n, line := range strings.Split(text, "\n") {
			for _, found := range words.FindAllStringSubmatch(keptNames.ReplaceAllString(line, ""), -1) {
				if strings.EqualFold(found[0], found[1]) || isWordInName(found[0], found[1]) {
					t.Errorf("%s:%d: %q; use: %s", path, n+1, found[1], instead(replaced, found[1]))
				}
			}
		}
	}
}

// isWordInName reports whether the word begins with an upper-case letter behind a lower-case one, as in newWatchdog.
func isWordInName(found, word string) bool {
	return len(found) == len(word)+1 && found[1] >= 'A' && found[1] <= 'Z'
}

// TestLogMessages checks the constant text of each log call: what happened and what happens next, in plain words.
func TestLogMessages(t *testing.T) {
	t.Parallel()
	words := regexp.MustCompile(`(?i)\b(` + strings.Join(slices.Sorted(maps.Keys(notInLogs)), "|") + `)\b`)
	for path, text := range ownText(t) {
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			continue
		}
		for _, m := range logMessages(t, path, text) {
			if found := words.FindString(m.text); found != "" {
				t.Errorf("%s:%d: the log message %q has %q; use: %s", path, m.line, m.text, found, instead(notInLogs, found))
			}
		}
	}
}

// TestLogMessagesAreFound keeps TestLogMessages from passing because it finds no log call.
func TestLogMessagesAreFound(t *testing.T) {
	t.Parallel()
	source := `package p
func f() {
	logger.Info("one")
	s.Logger.WarnContext(ctx, "two", slog.Any("error", err))
	slog.Default().Log(ctx, level, "three")
	fmt.Println("no log call")
}`
	want := []logMessage{{3, "one"}, {4, "two"}, {5, "three"}}
	if got := logMessages(t, "p.go", source); !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
}

type logMessage struct {
	line int
	text string
}

// logMessages are the constant texts of calls such as logger.WarnContext(ctx, "text", ...).
func logMessages(t *testing.T, path, source string) []logMessage {
	t.Helper()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	// By name of the method: which argument is the message.
	position := map[string]int{
		"Debug": 0, "Info": 0, "Warn": 0, "Error": 0, "DebugContext": 1, "InfoContext": 1, "WarnContext": 1, "ErrorContext": 1, "Log": 2, "LogAttrs": 2,
	}
	var messages []logMessage
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		at, known := position[method.Sel.Name]
		if !known || at >= len(call.Args) {
			return true
		}
		if literal, ok := call.Args[at].(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if text, err := strconv.Unquote(literal.Value); err == nil {
				messages = append(messages, logMessage{files.Position(literal.Pos()).Line, text})
			}
		}
		return true
	})
	return messages
}

// ownText is the text of every file that people write here, by its path from the root.
func ownText(t *testing.T) map[string]string {
	t.Helper()
	own := map[string]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if name == ".git" || name == ".waybill" || name == "testdata" || name == "node_modules" {
				return filepath.SkipDir
			}
			return nil
		}
		switch filepath.Ext(name) {
		case ".go", ".md", ".yaml", ".yml", ".bicep", ".bicepparam", ".kql", ".sh", ".py", ".toml":
		case "":
			if name == "LICENSE" {
				return nil
			}
		default:
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, path)
		own[filepath.ToSlash(relative)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(own) < 300 {
		t.Fatalf("found %d files only", len(own))
	}
	return own
}

// instead is what the list says about the word that was found.
func instead(list map[string]string, found string) string {
	for word, use := range list {
		if regexp.MustCompile(`(?i)^(` + word + `)$`).MatchString(found) {
			return use
		}
	}
	return "docs/glossary.md"
}
