package bicep

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Value is the result of an expression: null, a bool, an int, a string, an array or an object; or, only within the interpreter, a
// resource, a module, a lambda or a namespace of functions.
type Value struct {
	Kind string // null, bool, int, string, array, object; resource, module, lambda
	Bool bool
	Int  int64
	// Text is a string. A part that is known only while the deployment runs is in angle brackets, and Later is then set.
	Text  string
	Later bool
	Items []*Value
	// Keys are an object's, in the order in which they were written.
	Keys   []string
	Fields map[string]*Value
	// Pos is where the value was written.
	Pos Pos

	resource *Resource
	module   *instance
	lambda   *Expr
	scope    *scope
}

func null(pos Pos) *Value             { return &Value{Kind: "null", Pos: pos} }
func boolean(pos Pos, b bool) *Value  { return &Value{Kind: "bool", Bool: b, Pos: pos} }
func integer(pos Pos, n int64) *Value { return &Value{Kind: "int", Int: n, Pos: pos} }
func array(pos Pos) *Value            { return &Value{Kind: "array", Pos: pos} }
func object(pos Pos) *Value           { return &Value{Kind: "object", Fields: map[string]*Value{}, Pos: pos} }
func text(pos Pos, s string) *Value   { return &Value{Kind: "string", Text: s, Pos: pos} }
func runtime(pos Pos, name string) *Value {
	return &Value{Kind: "string", Text: "<" + name + ">", Later: true, Pos: pos}
}

func (v *Value) set(key string, field *Value) {
	if _, ok := v.Fields[key]; !ok {
		v.Keys = append(v.Keys, key)
	}
	v.Fields[key] = field
}

// At returns the field at a path such as properties.template.scale, or the null value.
func (v *Value) At(path string) *Value {
	for key := range strings.SplitSeq(path, ".") {
		if v.Kind != "object" || v.Fields[key] == nil {
			return null(v.Pos)
		}
		v = v.Fields[key]
	}
	return v
}

// String is the value as text: a string as it is, other values in a readable form.
func (v *Value) String() string {
	switch v.Kind {
	case "string":
		return v.Text
	case "int":
		return strconv.FormatInt(v.Int, 10)
	case "bool":
		return strconv.FormatBool(v.Bool)
	case "array":
		parts := make([]string, len(v.Items))
		for i, item := range v.Items {
			parts[i] = item.String()
		}
		return "[" + strings.Join(parts, " ") + "]"
	case "object":
		parts := make([]string, len(v.Keys))
		for i, key := range v.Keys {
			parts[i] = key + ": " + v.Fields[key].String()
		}
		return "{" + strings.Join(parts, ", ") + "}"
	default:
		return v.Kind
	}
}

// Texts are the items of an array as texts.
func (v *Value) Texts() []string {
	texts := make([]string, len(v.Items))
	for i, item := range v.Items {
		texts[i] = item.String()
	}
	return texts
}

// later reports whether a part of the value is known only while the deployment runs.
func (v *Value) later() bool {
	if v.Later {
		return true
	}
	for _, item := range v.Items {
		if item.later() {
			return true
		}
	}
	for _, field := range v.Fields {
		if field.later() {
			return true
		}
	}
	return false
}

// mark is a copy of which every text is, or is not, known only while the deployment runs.
func (v *Value) mark(later bool) *Value {
	c := *v
	if v.Kind == "string" {
		c.Later = later
	}
	c.Items = make([]*Value, len(v.Items))
	for i, item := range v.Items {
		c.Items[i] = item.mark(later)
	}
	if v.Fields != nil {
		c.Fields = map[string]*Value{}
		for key, field := range v.Fields {
			c.Fields[key] = field.mark(later)
		}
	}
	return &c
}

// Walk calls visit for the value and everything in it, with the path to it.
func (v *Value) Walk(path string, visit func(path string, v *Value)) {
	visit(path, v)
	for i, item := range v.Items {
		item.Walk(fmt.Sprintf("%s[%d]", path, i), visit)
	}
	for _, key := range v.Keys {
		v.Fields[key].Walk(path+"."+key, visit)
	}
}

// Load reads a YAML or JSON file.
func Load(path string) (*Value, error) {
	content, err := os.ReadFile(path) //nolint:gosec // a test, or the template that it reads, names the file
	if err != nil {
		return nil, fmt.Errorf("load a file: %w", err)
	}
	var node yaml.Node
	if err := yaml.Unmarshal(content, &node); err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	if len(node.Content) != 1 {
		return nil, fmt.Errorf("load %s: it holds not one document", path)
	}
	return fromYAML(path, node.Content[0])
}

func fromYAML(path string, node *yaml.Node) (*Value, error) {
	pos := Pos{path, node.Line}
	switch node.Kind {
	case yaml.MappingNode:
		v := object(pos)
		for i := 0; i < len(node.Content); i += 2 {
			field, err := fromYAML(path, node.Content[i+1])
			if err != nil {
				return nil, err
			}
			v.set(node.Content[i].Value, field)
		}
		return v, nil
	case yaml.SequenceNode:
		v := array(pos)
		for _, item := range node.Content {
			element, err := fromYAML(path, item)
			if err != nil {
				return nil, err
			}
			v.Items = append(v.Items, element)
		}
		return v, nil
	case yaml.ScalarNode:
		switch node.Tag {
		case "!!null":
			return null(pos), nil
		case "!!bool":
			return boolean(pos, node.Value == "true"), nil
		case "!!int":
			n, err := strconv.ParseInt(node.Value, 10, 64)
			if err != nil {
				return nil, &Error{pos, err.Error()}
			}
			return integer(pos, n), nil
		default:
			return text(pos, node.Value), nil
		}
	default:
		return nil, &Error{pos, "aliases are not known here"}
	}
}

// Text is a string that is given from outside.
func Text(s string) *Value { return text(Pos{"given", 1}, s) }

// Texts is an array of them.
func Texts(list ...string) *Value {
	v := array(Pos{"given", 1})
	for _, s := range list {
		v.Items = append(v.Items, Text(s))
	}
	return v
}
