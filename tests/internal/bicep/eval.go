package bicep

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func (in *instance) eval(s *scope, e *Expr) *Value {
	switch e.Kind {
	case "text":
		return in.text(s, e)
	case "number":
		return integer(e.Pos, e.Int)
	case "word":
		if e.Name == "null" {
			return null(e.Pos)
		}
		return boolean(e.Pos, e.Name == "true")
	case "name":
		if v := s.names[e.Name]; v != nil {
			return v
		}
		return in.lookup(e.Pos, e.Name)
	case "member":
		return in.member(e, in.eval(s, e.Args[0]))
	case "index":
		return in.index(e, in.eval(s, e.Args[0]), in.eval(s, e.Args[1]))
	case "call":
		return in.call(s, e)
	case "not":
		return boolean(e.Pos, !in.truth(s, e.Args[0]))
	case "minus":
		return integer(e.Pos, -in.number(s, e.Args[0]))
	case "binary":
		return in.binary(s, e)
	case "choice":
		if in.truth(s, e.Args[0]) {
			return in.eval(s, e.Args[1])
		}
		return in.eval(s, e.Args[2])
	case "object":
		v := object(e.Pos)
		for i, key := range e.Keys {
			name := in.text(s, key)
			if v.Fields[name.Text] != nil {
				failf(key.Pos, "%s stands here twice", name.Text)
			}
			v.set(name.Text, in.eval(s, e.Args[i]))
		}
		return v
	case "array":
		v := array(e.Pos)
		for _, item := range e.Args {
			v.Items = append(v.Items, in.eval(s, item))
		}
		return v
	case "for":
		v := array(e.Pos)
		for i, item := range in.list(s, e) {
			v.Items = append(v.Items, in.eval(in.turn(s, e, i, item), e.Args[1]))
		}
		return v
	case "lambda":
		return &Value{Kind: "lambda", lambda: e, scope: s, Pos: e.Pos}
	}
	failf(e.Pos, "%s cannot stand here", e.Kind)
	return nil
}

func (in *instance) text(s *scope, e *Expr) *Value {
	if len(e.Args) == 0 {
		return text(e.Pos, e.Text[0])
	}
	v := text(e.Pos, e.Text[0])
	for i, part := range e.Args {
		p := in.eval(s, part)
		if p.Kind != "string" && p.Kind != "int" && p.Kind != "bool" {
			failf(part.Pos, "a part of a text is %s", p)
		}
		v.Text += p.String() + e.Text[i+1]
		v.Later = v.Later || p.Later
	}
	return v
}

func (in *instance) truth(s *scope, e *Expr) bool {
	v := in.eval(s, e)
	if v.Kind != "bool" {
		failf(e.Pos, "%s is neither true nor false", v)
	}
	return v.Bool
}

func (in *instance) number(s *scope, e *Expr) int64 {
	v := in.eval(s, e)
	if v.Kind != "int" {
		failf(e.Pos, "%s is no number", v)
	}
	return v.Int
}

func (in *instance) member(e *Expr, of *Value) *Value {
	switch of.Kind {
	case "object":
		if v := of.Fields[e.Name]; v != nil {
			return v
		}
		failf(e.Pos, "there is no %s in what %s holds", e.Name, of.Pos)
	case "module":
		if e.Name == "outputs" {
			v := object(e.Pos)
			for name, output := range of.module.outputs {
				v.set(name, output.mark(true))
			}
			v.module = of.module
			return v
		}
		failf(e.Pos, "a module has no %s here", e.Name)
	case "resource":
		r := of.resource
		switch e.Name {
		case "id":
			return text(e.Pos, r.ID())
		case "name":
			return text(e.Pos, r.Name[strings.LastIndex(r.Name, "/")+1:])
		case "location":
			if location := r.Body.Fields["location"]; location != nil {
				return location
			}
		case "properties":
			return &Value{Kind: "later", Text: r.Type[strings.LastIndex(r.Type, "/")+1:] + " " + strings.ReplaceAll(r.Name, "/", " "), Pos: e.Pos}
		}
		failf(e.Pos, "a resource has no %s here", e.Name)
	case "later":
		// A group of properties is passed through; the caller uses it as text.
		if inner := strings.HasSuffix(of.Text, " "+e.Name); inner {
			failf(e.Pos, "%s twice", e.Name)
		}
		if e.Name == "configuration" || e.Name == "ingress" {
			return &Value{Kind: "later", Text: of.Text + " " + e.Name, Pos: e.Pos}
		}
		return runtime(e.Pos, of.Text+" "+e.Name)
	}
	failf(e.Pos, "%s has no %s", of, e.Name)
	return nil
}

func (in *instance) index(e *Expr, of, at *Value) *Value {
	switch {
	case of.Kind == "array" && at.Kind == "int":
		if at.Int < 0 || at.Int >= int64(len(of.Items)) {
			failf(e.Pos, "there is no element %d of %d", at.Int, len(of.Items))
		}
		return of.Items[at.Int]
	case of.Kind == "object" && at.Kind == "string":
		v := of.Fields[at.Text]
		if v == nil {
			failf(e.Pos, "there is no %s (from %s) in what %s holds", at.Text, at.Pos, of.Pos)
		}
		return v
	}
	failf(e.Pos, "%s cannot be an index into %s", at, of.Kind)
	return nil
}

func (in *instance) binary(s *scope, e *Expr) *Value {
	switch e.Name {
	case "&&":
		return boolean(e.Pos, in.truth(s, e.Args[0]) && in.truth(s, e.Args[1]))
	case "||":
		return boolean(e.Pos, in.truth(s, e.Args[0]) || in.truth(s, e.Args[1]))
	case "==", "!=":
		a, b := in.eval(s, e.Args[0]), in.eval(s, e.Args[1])
		return boolean(e.Pos, (a.Kind == b.Kind && a.String() == b.String()) == (e.Name == "=="))
	}
	a, b := in.number(s, e.Args[0]), in.number(s, e.Args[1])
	switch e.Name {
	case "+":
		return integer(e.Pos, a+b)
	case "-":
		return integer(e.Pos, a-b)
	case "*":
		return integer(e.Pos, a*b)
	case "/":
		if b != 0 {
			return integer(e.Pos, a/b)
		}
	case ">":
		return boolean(e.Pos, a > b)
	case "<":
		return boolean(e.Pos, a < b)
	case ">=":
		return boolean(e.Pos, a >= b)
	case "<=":
		return boolean(e.Pos, a <= b)
	}
	failf(e.Pos, "%d %s %d is not known here", a, e.Name, b)
	return nil
}

// call evaluates a function, or listKeys of a resource.
func (in *instance) call(s *scope, e *Expr) *Value {
	if len(e.Keys) == 1 {
		of := in.eval(s, e.Keys[0])
		if e.Name != "listKeys" || of.Kind != "resource" {
			failf(e.Pos, "%s is not known here", e.Name)
		}
		return &Value{Kind: "later", Text: "listKeys of " + of.resource.Name, Pos: e.Pos}
	}
	f, known := functions[e.Name]
	if !known {
		failf(e.Pos, "the function %s is not known here", e.Name)
	}
	args := make([]*Value, len(e.Args))
	for i, a := range e.Args {
		args[i] = in.eval(s, a)
	}
	if len(args) < f.least || (f.most >= 0 && len(args) > f.most) {
		failf(e.Pos, "%s has %d arguments", e.Name, len(args))
	}
	for i, kind := range f.kinds {
		if i < len(args) && kind != "" && args[i].Kind != kind {
			failf(e.Args[i].Pos, "argument %d of %s is of type %s and should be %s", i+1, e.Name, args[i].Kind, kind)
		}
	}
	return f.run(in, e.Pos, args)
}

type function struct {
	least, most int
	kinds       []string
	run         func(in *instance, pos Pos, args []*Value) *Value
}

// apply evaluates a lambda for one value.
func (in *instance) apply(lambda, v *Value) *Value {
	return in.eval(lambda.scope.with(lambda.lambda.Name, v), lambda.lambda.Args[0])
}

// path of a file that a template loads.
func (in *instance) path(v *Value) string { return filepath.Join(filepath.Dir(in.file.Path), v.Text) }

// digest stands for a function whose result is a text that follows from its arguments.
func digest(pos Pos, args []*Value) (sum [32]byte, later bool) {
	var all strings.Builder
	for _, a := range args {
		if a.Kind != "string" {
			failf(pos, "an argument is %s and should be a text", a)
		}
		all.WriteString(a.Text + "\x00")
		later = later || a.Later
	}
	return sha256.Sum256([]byte(all.String())), later
}

var functions map[string]function

func init() { //nolint:gochecknoinits // the functions call the interpreter, which names them: Go takes that for a circle
	functions = table()
}

func table() map[string]function {
	fields := func(pos Pos, pairs ...string) *Value {
		v := object(pos)
		for i := 0; i < len(pairs); i += 2 {
			v.set(pairs[i], text(pos, pairs[i+1]))
		}
		return v
	}
	load := func(in *instance, pos Pos, args []*Value) *Value {
		v, err := Load(in.path(args[0]))
		if err != nil {
			failf(pos, "%v", err)
		}
		return v
	}
	return map[string]function{
		"resourceGroup": {0, 0, nil, func(_ *instance, pos Pos, _ []*Value) *Value {
			return fields(pos, "id", "/group", "name", "group", "location", "westeurope")
		}},
		"subscription": {0, 0, nil, func(_ *instance, pos Pos, _ []*Value) *Value {
			return fields(pos, "id", "/subscription", "tenantId", "tenant")
		}},
		"subscriptionResourceId": {2, 2, []string{"string", "string"}, func(_ *instance, pos Pos, args []*Value) *Value {
			return &Value{Kind: "string", Text: "/subscription/" + args[0].Text + "/" + args[1].Text, Later: args[1].Later, Pos: args[1].Pos}
		}},
		"resourceId": {2, 2, []string{"string", "string"}, func(_ *instance, pos Pos, args []*Value) *Value {
			return &Value{Kind: "string", Text: "/" + args[0].Text + "/" + args[1].Text, Later: args[1].Later, Pos: pos}
		}},
		"uniqueString": {1, -1, nil, func(_ *instance, pos Pos, args []*Value) *Value {
			sum, later := digest(pos, args)
			v := text(pos, strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:13])
			v.Later = later
			return v
		}},
		"guid": {1, -1, nil, func(_ *instance, pos Pos, args []*Value) *Value {
			sum, later := digest(pos, args)
			h := hex.EncodeToString(sum[:16])
			v := text(pos, strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-"))
			v.Later = later
			return v
		}},
		"newGuid": {0, 0, nil, func(_ *instance, pos Pos, _ []*Value) *Value {
			return text(pos, "00000000-0000-0000-0000-00000000new1")
		}},
		"loadTextContent": {1, 1, []string{"string"}, loadText},
		"loadJsonContent": {1, 1, []string{"string"}, load},
		"loadYamlContent": {1, 1, []string{"string"}, load},
		"string":          {1, 1, nil, func(_ *instance, pos Pos, args []*Value) *Value { return text(pos, args[0].String()) }},
		"any":             {1, 1, nil, func(_ *instance, _ Pos, args []*Value) *Value { return args[0] }},
		// Only for numbers with a fraction, which Bicep cannot write otherwise.
		"json": {1, 1, []string{"string"}, func(_ *instance, pos Pos, args []*Value) *Value { return text(pos, args[0].Text) }},
		"take": {2, 2, []string{"string", "int"}, func(_ *instance, pos Pos, args []*Value) *Value {
			return text(pos, args[0].Text[:min(int64(len(args[0].Text)), args[1].Int)])
		}},
		"toLower": {1, 1, []string{"string"}, func(_ *instance, pos Pos, args []*Value) *Value { return text(pos, strings.ToLower(args[0].Text)) }},
		"replace": {3, 3, []string{"string", "string", "string"}, func(_ *instance, pos Pos, args []*Value) *Value {
			if !strings.Contains(args[0].Text, args[1].Text) {
				failf(pos, "there is no %q to replace", args[1].Text)
			}
			return text(pos, strings.ReplaceAll(args[0].Text, args[1].Text, args[2].Text))
		}},
		"startsWith": {2, 2, []string{"string", "string"}, func(_ *instance, pos Pos, args []*Value) *Value {
			return boolean(pos, strings.HasPrefix(args[0].Text, args[1].Text))
		}},
		"endsWith": {2, 2, []string{"string", "string"}, func(_ *instance, pos Pos, args []*Value) *Value {
			return boolean(pos, strings.HasSuffix(args[0].Text, args[1].Text))
		}},
		"length": {1, 1, []string{"array"}, func(_ *instance, pos Pos, args []*Value) *Value { return integer(pos, int64(len(args[0].Items))) }},
		"empty": {1, 1, nil, func(_ *instance, pos Pos, args []*Value) *Value {
			return boolean(pos, len(args[0].Items) == 0 && len(args[0].Keys) == 0 && args[0].Text == "")
		}},
		"min": {2, 2, []string{"int", "int"}, func(_ *instance, pos Pos, args []*Value) *Value { return integer(pos, min(args[0].Int, args[1].Int)) }},
		"max": {2, 2, []string{"int", "int"}, func(_ *instance, pos Pos, args []*Value) *Value { return integer(pos, max(args[0].Int, args[1].Int)) }},
		"indexOf": {2, 2, []string{"array"}, func(_ *instance, pos Pos, args []*Value) *Value {
			return integer(pos, int64(slices.Index(args[0].Texts(), args[1].String())))
		}},
		"concat": {1, -1, nil, func(_ *instance, pos Pos, args []*Value) *Value {
			v := array(pos)
			for i, a := range args {
				if a.Kind != "array" {
					failf(pos, "argument %d of concat is no array", i+1)
				}
				v.Items = append(v.Items, a.Items...)
			}
			return v
		}},
		"flatten": {1, 1, []string{"array"}, func(_ *instance, pos Pos, args []*Value) *Value {
			v := array(pos)
			for _, a := range args[0].Items {
				v.Items = append(v.Items, a.Items...)
			}
			return v
		}},
		"intersection": {2, 2, []string{"array", "array"}, func(_ *instance, pos Pos, args []*Value) *Value {
			v := array(pos)
			for _, a := range args[0].Items {
				if slices.Contains(args[1].Texts(), a.String()) {
					v.Items = append(v.Items, a)
				}
			}
			return v
		}},
		"union": {2, -1, nil, func(_ *instance, pos Pos, args []*Value) *Value {
			v := object(pos)
			for i, a := range args {
				if a.Kind != "object" {
					failf(pos, "argument %d of union is no object", i+1)
				}
				for _, key := range a.Keys {
					v.set(key, a.Fields[key])
				}
			}
			return v
		}},
		"contains": {2, 2, []string{"object", "string"}, func(_ *instance, pos Pos, args []*Value) *Value {
			return boolean(pos, args[0].Fields[args[1].Text] != nil)
		}},
		"items": {1, 1, []string{"object"}, func(_ *instance, pos Pos, args []*Value) *Value {
			v := array(pos)
			for _, key := range slices.Sorted(slices.Values(args[0].Keys)) {
				item := object(args[0].Fields[key].Pos)
				item.set("key", text(args[0].Fields[key].Pos, key))
				item.set("value", args[0].Fields[key])
				v.Items = append(v.Items, item)
			}
			return v
		}},
		"toObject": {3, 3, []string{"array", "lambda", "lambda"}, func(in *instance, pos Pos, args []*Value) *Value {
			v := object(pos)
			for _, item := range args[0].Items {
				v.set(in.apply(args[1], item).Text, in.apply(args[2], item))
			}
			return v
		}},
		"map": {2, 2, []string{"array", "lambda"}, func(in *instance, pos Pos, args []*Value) *Value {
			v := array(pos)
			for _, item := range args[0].Items {
				v.Items = append(v.Items, in.apply(args[1], item))
			}
			return v
		}},
	}
}

func loadText(in *instance, pos Pos, args []*Value) *Value {
	content, err := os.ReadFile(in.path(args[0]))
	if err != nil {
		failf(pos, "%v", err)
	}
	return text(Pos{in.path(args[0]), 1}, string(content))
}
