// Package console is the terminal and the log files: the lines of many processes, each under its name, in one readable
// stream, and each process's untouched output in a file of bounded size.
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

// New returns a console on out. Width is that of the longest process name to come.
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

// palette is used round robin; red is kept for trouble.
var palette = []string{"\x1b[36m", "\x1b[33m", "\x1b[35m", "\x1b[32m", "\x1b[34m", "\x1b[96m", "\x1b[93m", "\x1b[95m", "\x1b[92m", "\x1b[94m"}

// Sayf writes a line of the runner itself, with the time since it began.
func (c *Console) Sayf(format string, args ...any) { c.sayf(bold, format, args...) }

// Warnf is Sayf for trouble.
func (c *Console) Warnf(format string, args ...any) { c.sayf(red, format, args...) }

func (c *Console) sayf(colour, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	stamp := fmt.Sprintf("%7.1fs", time.Since(c.began).Seconds())
	if c.colour {
		text = colour + text + reset
	}
	c.Block(stamp + " " + text + "\n")
}

// Block writes text as it is.
func (c *Console) Block(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// A terminal that is gone must not stop the processes.
	_, _ = io.WriteString(c.out, text)
}

func (c *Console) line(name, colour, text string) {
	prefix := fmt.Sprintf("%-*s |", c.width, name)
	if c.colour {
		prefix = colour + prefix + reset
	}
	c.Block(prefix + " " + text + "\n")
}

// View decides how a line appears on the terminal, and whether it does.
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

// Stream returns the output of the process name: every line goes to file as it is and, as view has it, to the terminal.
func (c *Console) Stream(name string, file io.Writer, view View) *Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &Stream{console: c, name: name, colour: palette[c.next%len(palette)], file: file, view: view}
	c.next++
	return s
}

// Writer returns a writer that splits what it is given into lines of the stream. A process needs one each for its standard
// output and standard error.
func (s *Stream) Writer() io.Writer { return &lines{to: s.take} }

// Last is the newest line that looks like the reason of a failure or, if there is none, the newest line.
func (s *Stream) Last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if level, message, structured := parse(s.last); structured {
		return strings.ToUpper(level) + " " + message
	}
	return s.last
}

// Forget drops what Last remembers; a restarted process starts afresh.
func (s *Stream) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = ""
}

func (s *Stream) take(line []byte) {
	// A full disk must not stop the processes.
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

// isNew reports whether the line differs from the one shown just before: a sidecar says some things once per connection.
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

// longest is where a line is cut that never ends.
const longest = 64 << 10

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
	if len(l.partial) > longest {
		l.emit(l.partial)
	}
	return n, nil
}

func (l *lines) emit(line []byte) {
	l.to(bytes.TrimSuffix(line, []byte("\r")))
	l.partial = l.partial[:0]
}
