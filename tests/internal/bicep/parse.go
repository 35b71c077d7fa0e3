// Package bicep reads the part of the Bicep language that infra/bicep uses and evaluates what a deployment would ask Azure for.
// It is not a compiler: it knows no properties of resource types. Language that it does not know is an error, so nothing is
// ignored. It must not know what the templates are about.
package bicep

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Pos is a place in a file.
type Pos struct {
	File string
	Line int
}

func (p Pos) String() string { return fmt.Sprintf("%s:%d", p.File, p.Line) }

// An Error is a fault at a place.
type Error struct {
	Pos  Pos
	Text string
}

func (e *Error) Error() string { return e.Pos.String() + ": " + e.Text }

// File is a parsed template.
type File struct {
	Path  string
	Decls []*Decl
	decls map[string]*Decl
}

// Decl is one declaration. Which fields are set depends on Kind: param, var, output, resource, module or targetScope.
type Decl struct {
	Kind       string
	Name       string
	Pos        Pos
	Decorators []*Expr
	// Type is a parameter's or output's type, a resource's type with its version, a module's path.
	Type     string
	Existing bool
	Value    *Expr // default, value or body; nil for a required parameter
}

// Decorator finds a decorator's call by its name.
func (d *Decl) Decorator(name string) *Expr {
	for _, e := range d.Decorators {
		if e.Name == name {
			return e
		}
	}
	return nil
}

// Expr is an expression. Which fields are set depends on Kind.
type Expr struct {
	Kind string // text, number, word, name, member, index, call, not, minus, binary, choice, object, array, for, lambda, if
	Pos  Pos
	Name string   // name, member, call, binary's operator, for's item
	Also string   // for's index
	Int  int64    // number
	Args []*Expr  // operands, elements, arguments, a text's parts
	Keys []*Expr  // object: keys, as many as Args
	Text []string // text: what stands between the parts, one more than Args
}

type parser struct {
	file string
	src  []rune
	at   int
	line int
}

// Parse reads a template. Path is how errors name it.
func Parse(path string) (*File, error) {
	src, err := os.ReadFile(path) //nolint:gosec // a test names the file
	if err != nil {
		return nil, fmt.Errorf("read a template: %w", err)
	}
	return parse(path, string(src))
}

func parse(path, src string) (f *File, err error) {
	p := &parser{file: path, src: []rune(src), line: 1}
	defer func() {
		if fault := recover(); fault != nil {
			e, ours := fault.(*Error)
			if !ours {
				panic(fault)
			}
			err = e
		}
	}()
	f = &File{Path: path, decls: map[string]*Decl{}}
	for {
		p.skip(true)
		if p.at == len(p.src) {
			f.unused()
			return f, nil
		}
		d := p.decl()
		if d.Kind != "output" && d.Kind != "targetScope" {
			if other := f.decls[d.Name]; other != nil {
				panic(&Error{d.Pos, fmt.Sprintf("%s is declared on line %d already", d.Name, other.Pos.Line)})
			}
			f.decls[d.Name] = d
		}
		f.Decls = append(f.Decls, d)
	}
}

// unused fails for a parameter or variable that nothing uses.
func (f *File) unused() {
	used := map[string]bool{}
	var see func(e *Expr)
	see = func(e *Expr) {
		if e == nil {
			return
		}
		if e.Kind == "name" {
			used[e.Name] = true
		}
		for _, part := range slices.Concat(e.Args, e.Keys) {
			see(part)
		}
	}
	for _, d := range f.Decls {
		see(d.Value)
	}
	for _, d := range f.Decls {
		if (d.Kind == "param" || d.Kind == "var") && !used[d.Name] {
			panic(&Error{d.Pos, fmt.Sprintf("nothing uses %s %s", d.Kind, d.Name)})
		}
	}
}

func (p *parser) failf(format string, args ...any) {
	panic(&Error{Pos{p.file, p.line}, fmt.Sprintf(format, args...)})
}

func (p *parser) pos() Pos { return Pos{p.file, p.line} }

// skip skips spaces and comments, and line ends if those do not matter to the caller.
func (p *parser) skip(lines bool) {
	for p.at < len(p.src) {
		switch {
		case p.src[p.at] == '\n' && !lines:
			return
		case unicode.IsSpace(p.src[p.at]):
			p.next()
		case p.has("//"):
			for p.at < len(p.src) && p.src[p.at] != '\n' {
				p.at++
			}
		default:
			return
		}
	}
}

func (p *parser) next() {
	if p.src[p.at] == '\n' {
		p.line++
	}
	p.at++
}

func (p *parser) has(text string) bool {
	return strings.HasPrefix(string(p.src[p.at:min(len(p.src), p.at+len(text))]), text)
}

// take skips text if it comes next.
func (p *parser) take(text string) bool {
	p.skip(false)
	if !p.has(text) {
		return false
	}
	p.at += len(text)
	return true
}

func (p *parser) want(text string) {
	if !p.take(text) {
		p.failf("%q is missing", text)
	}
}

func (p *parser) endOfLine() {
	p.skip(false)
	if p.at < len(p.src) && p.src[p.at] != '\n' {
		p.failf("the line should end before %q", string(p.src[p.at:min(len(p.src), p.at+10)]))
	}
}

func wordRune(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

// word reads a name; it is empty if none comes next.
func (p *parser) word() string {
	p.skip(false)
	from := p.at
	for p.at < len(p.src) && wordRune(p.src[p.at]) {
		p.at++
	}
	return string(p.src[from:p.at])
}

// peek reads a name without consuming it.
func (p *parser) peek() string {
	at := p.at
	word := p.word()
	p.at = at
	return word
}

func (p *parser) name() string {
	word := p.word()
	if word == "" || unicode.IsDigit(rune(word[0])) {
		p.failf("a name is missing")
	}
	return word
}

func (p *parser) decl() *Decl {
	d := &Decl{}
	for p.take("@") {
		d.Decorators = append(d.Decorators, p.expr())
		p.skip(true)
	}
	d.Pos = p.pos()
	switch d.Kind = p.word(); d.Kind {
	case "targetScope":
		p.want("=")
		d.Value = p.expr()
	case "param", "output":
		d.Name, d.Type = p.name(), p.name()
		for p.take("[]") {
			d.Type += "[]"
		}
		if d.Kind == "output" {
			p.want("=")
			d.Value = p.expr()
		} else if p.take("=") {
			d.Value = p.expr()
		}
	case "var":
		d.Name = p.name()
		p.want("=")
		d.Value = p.expr()
	case "resource", "module":
		d.Name = p.name()
		d.Type = p.literal()
		if p.peek() == "existing" {
			p.word()
			d.Existing = true
		}
		p.want("=")
		d.Value = p.body()
	default:
		p.failf("a declaration begins with %q", d.Kind)
	}
	p.endOfLine()
	return d
}

// literal reads a text without parts.
func (p *parser) literal() string {
	e := p.expr()
	if e.Kind != "text" || len(e.Args) > 0 {
		p.failf("a plain text is missing")
	}
	return e.Text[0]
}

// body reads the value of a resource or module, or of each iteration of a for: an object, or one that depends on a condition.
func (p *parser) body() *Expr {
	if p.peek() != "if" {
		return p.expr()
	}
	e := &Expr{Kind: "if", Pos: p.pos()}
	p.word()
	p.want("(")
	e.Args = append(e.Args, p.expr())
	p.want(")")
	e.Args = append(e.Args, p.expr())
	return e
}

// operators by how strongly they bind, weakest first.
var operators = [][]string{{"??"}, {"||"}, {"&&"}, {"==", "!=", "=~", "!~"}, {"<=", ">=", "<", ">"}, {"+", "-"}, {"*", "/", "%"}}

func (p *parser) expr() *Expr {
	pos := p.pos()
	e := p.binary(0)
	if !p.takeOnNextLine("?") {
		return e
	}
	p.skip(true)
	yes := p.expr()
	p.skip(true)
	p.want(":")
	p.skip(true)
	return &Expr{Kind: "choice", Pos: pos, Args: []*Expr{e, yes, p.expr()}}
}

// takeOnNextLine skips an operator that may be at the beginning of the next line.
func (p *parser) takeOnNextLine(op string) bool {
	at, line := p.at, p.line
	p.skip(true)
	if p.has(op) && (op != "?" || !p.has("??") && !p.has("?.")) {
		p.at += len(op)
		return true
	}
	p.at, p.line = at, line
	return false
}

func (p *parser) binary(level int) *Expr {
	if level == len(operators) {
		return p.unary()
	}
	e := p.binary(level + 1)
	for {
		op := ""
		for _, o := range operators[level] {
			p.skip(false)
			if p.has(o) && !p.has("=>") && !p.has("//") {
				op = o
				break
			}
		}
		if op == "" {
			return e
		}
		pos := p.pos()
		p.at += len(op)
		p.skip(true)
		e = &Expr{Kind: "binary", Name: op, Pos: pos, Args: []*Expr{e, p.binary(level + 1)}}
	}
}

func (p *parser) unary() *Expr {
	pos := p.pos()
	switch {
	case p.take("!"):
		return &Expr{Kind: "not", Pos: pos, Args: []*Expr{p.unary()}}
	case p.take("-"):
		return &Expr{Kind: "minus", Pos: pos, Args: []*Expr{p.unary()}}
	}
	e := p.primary()
	for p.at < len(p.src) {
		pos := p.pos()
		switch {
		case p.has("."):
			p.at++
			e = &Expr{Kind: "member", Name: p.name(), Pos: pos, Args: []*Expr{e}}
		case p.has("["):
			p.at++
			e = &Expr{Kind: "index", Pos: pos, Args: []*Expr{e, p.expr()}}
			p.want("]")
		case p.has("(") && (e.Kind == "name" || e.Kind == "member"):
			p.at++
			e = &Expr{Kind: "call", Name: e.Name, Pos: e.Pos, Keys: e.Args, Args: p.list(")")}
		default:
			return e
		}
	}
	return e
}

// list reads expressions up to the closing mark, with commas or ends of lines between them.
func (p *parser) list(closing string) []*Expr {
	var list []*Expr
	for {
		p.skip(true)
		if p.take(closing) {
			return list
		}
		if p.at == len(p.src) {
			p.failf("%q is missing", closing)
		}
		list = append(list, p.expr())
		p.skip(false)
		if !p.take(",") && !p.has(closing) && (p.at == len(p.src) || p.src[p.at] != '\n') {
			p.failf("%q, a comma or a new line is missing", closing)
		}
	}
}

func (p *parser) primary() *Expr {
	p.skip(false)
	pos := p.pos()
	if p.at == len(p.src) {
		p.failf("an expression is missing")
	}
	switch r := p.src[p.at]; {
	case r == '\'':
		return p.text()
	case r == '{':
		return p.object()
	case r == '[':
		p.at++
		p.skip(true)
		if p.peek() == "for" {
			return p.loop(pos)
		}
		return &Expr{Kind: "array", Pos: pos, Args: p.list("]")}
	case r == '(':
		p.at++
		p.skip(true)
		e := p.expr()
		p.skip(true)
		p.want(")")
		return e
	case unicode.IsDigit(r):
		n, err := strconv.ParseInt(p.word(), 10, 64)
		if err != nil {
			p.failf("not a number: %v", err)
		}
		return &Expr{Kind: "number", Pos: pos, Int: n}
	}
	word := p.name()
	if word == "true" || word == "false" || word == "null" {
		return &Expr{Kind: "word", Name: word, Pos: pos}
	}
	if p.take("=>") {
		p.skip(true)
		return &Expr{Kind: "lambda", Name: word, Pos: pos, Args: []*Expr{p.expr()}}
	}
	return &Expr{Kind: "name", Name: word, Pos: pos}
}

func (p *parser) loop(pos Pos) *Expr {
	p.word()
	e := &Expr{Kind: "for", Pos: pos}
	if p.take("(") {
		e.Name = p.name()
		p.want(",")
		e.Also = p.name()
		p.want(")")
	} else {
		e.Name = p.name()
	}
	if p.word() != "in" {
		p.failf("%q is missing", "in")
	}
	e.Args = append(e.Args, p.expr())
	p.want(":")
	e.Args = append(e.Args, p.body())
	p.skip(true)
	p.want("]")
	return e
}

func (p *parser) object() *Expr {
	e := &Expr{Kind: "object", Pos: p.pos()}
	p.at++
	for {
		p.skip(true)
		if p.take("}") {
			return e
		}
		pos := p.pos()
		var key *Expr
		if p.at < len(p.src) && p.src[p.at] == '\'' {
			key = p.text()
		} else {
			key = &Expr{Kind: "text", Pos: pos, Text: []string{p.name()}}
		}
		p.want(":")
		p.skip(false)
		e.Keys = append(e.Keys, key)
		e.Args = append(e.Args, p.expr())
		if p.skip(false); !p.take(",") && !p.has("}") {
			p.endOfLine()
		}
	}
}

func (p *parser) text() *Expr {
	e := &Expr{Kind: "text", Pos: p.pos()}
	if p.has("'''") {
		p.failf("texts over several lines are not known here")
	}
	p.at++
	var part strings.Builder
	for {
		switch {
		case p.at == len(p.src) || p.src[p.at] == '\n':
			p.failf("a text does not end on its line")
		case p.src[p.at] == '\'':
			p.at++
			e.Text = append(e.Text, part.String())
			return e
		case p.has("${"):
			p.at += 2
			e.Text = append(e.Text, part.String())
			part.Reset()
			e.Args = append(e.Args, p.expr())
			p.want("}")
		case p.src[p.at] == '\\':
			p.at++
			switch r := p.src[p.at]; r {
			case 'n':
				part.WriteRune('\n')
			case '\'', '\\', '$':
				part.WriteRune(r)
			default:
				p.failf("\\%c is not known here", r)
			}
			p.at++
		default:
			part.WriteRune(p.src[p.at])
			p.at++
		}
	}
}
