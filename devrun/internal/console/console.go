// Package console owns the terminal and the log files: it shows the lines of many processes in one stream, each with its
// process's name, and writes each process's unchanged output to a file of bounded size.
package console

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Console writes whole lines to the terminal. Its methods are safe for concurrent use.
type Console struct {
	mu     sync.Mutex
	out    io.Writer
	colour bool
	width  int
	began  time.Time
	next   int
}

// New returns a console on out. Process names are padded to width.
func New(out io.Writer, colour bool, width int) *Console {
	return &Console{out: out, colour: colour, width: width, began: time.Now()}
}

// Terminal reports whether file is a terminal that a person reads with colours.
func Terminal(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

const (
	reset = "\x1b[0m"
	bold  = "\x1b[1m"
	red   = "\x1b[31m"
)

// palette holds the colors of the processes. Red is reserved for warnings.
var palette = []string{"\x1b[36m", "\x1b[33m", "\x1b[35m", "\x1b[32m", "\x1b[34m", "\x1b[96m", "\x1b[93m", "\x1b[95m", "\x1b[92m", "\x1b[94m"}

// Sayf writes a line of the runner itself, with the time since its start.
func (c *Console) Sayf(format string, args ...any) { c.sayf(bold, format, args...) }

// Warnf is Sayf for a warning.
func (c *Console) Warnf(format string, args ...any) { c.sayf(red, format, args...) }

func (c *Console) sayf(colour, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	stamp := fmt.Sprintf("%7.1fs", time.Since(c.began).Seconds())
	if c.colour {
		text = colour + text + reset
	}
	c.Block(stamp + " " + text + "\n")
}

// Block writes text unchanged.
func (c *Console) Block(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// A closed terminal must not stop the processes.
	_, _ = io.WriteString(c.out, text)
}

func (c *Console) line(name, colour, text string) {
	prefix := fmt.Sprintf("%-*s |", c.width, name)
	if c.colour {
		prefix = colour + prefix + reset
	}
	c.Block(prefix + " " + text + "\n")
}

// View decides whether the terminal shows a line, and how.
type View func(line string) (text string, show bool)

// Stream is one process's output.
type Stream struct {
	console *Console
	name    string
	colour  string
	file    io.Writer
	view    View

	mu      sync.Mutex
	last    string
	shown   string
	shownAt time.Time
}

// Stream returns the output of the process name. Every line goes to file unchanged, and to the terminal as view decides.
func (c *Console) Stream(name string, file io.Writer, view View) *Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &Stream{console: c, name: name, colour: palette[c.next%len(palette)], file: file, view: view}
	c.next++
	return s
}

// Writer returns a writer that splits its input into lines of the stream. A process needs one for its standard output and one
// for its standard error.
func (s *Stream) Writer() io.Writer { return &lines{to: s.write} }

// Last returns the newest line that reports a failure or, without one, the newest line.
func (s *Stream) Last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if level, message, structured := parse(s.last); structured {
		return strings.ToUpper(level) + " " + message
	}
	return s.last
}

// Forget makes Last forget earlier lines, for a process that starts again.
func (s *Stream) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = ""
}

func (s *Stream) write(line []byte) {
	// An error, such as a full disk, must not stop the processes.
	_, _ = s.file.Write(append(line, '\n'))
	text := string(line)
	s.mu.Lock()
	if failure(text) || !failure(s.last) {
		s.last = text
	}
	s.mu.Unlock()
	if shown, show := s.view(text); show && s.isNew(shown) {
		s.console.line(s.name, s.colour, shown)
	}
}

// isNew reports whether the line differs from the one shown just before. A sidecar logs some lines once per connection.
func (s *Stream) isNew(line string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if line == s.shown && now.Sub(s.shownAt) < time.Second {
		return false
	}
	s.shown, s.shownAt = line, now
	return true
}

// maxLine is the length at which a line is split.
const maxLine = 64 << 10

type lines struct {
	mu      sync.Mutex
	partial []byte
	to      func(line []byte)
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			break
		}
		l.emit(append(l.partial, p[:i]...))
		p = p[i+1:]
	}
	l.partial = append(l.partial, p...)
	if len(l.partial) > maxLine {
		l.emit(l.partial)
	}
	return n, nil
}

func (l *lines) emit(line []byte) {
	l.to(bytes.TrimSuffix(line, []byte("\r")))
	l.partial = l.partial[:0]
}
