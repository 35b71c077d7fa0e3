package bicep

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Resource is one resource that a deployment would create or refer to.
type Resource struct {
	// Type is without the version, such as Microsoft.App/containerApps.
	Type    string
	Version string
	// Name is the resource's own name, prefixed with the names of its parents.
	Name     string
	Scope    string // the id of the resource that an extension such as a role assignment belongs to
	Existing bool
	Body     *Value
	Pos      Pos
}

// ID is the resource's id, without subscription and group.
func (r *Resource) ID() string { return "/" + r.Type + "/" + r.Name }

// Deployment is the result of a template with given parameters.
type Deployment struct {
	Resources []*Resource
	Outputs   map[string]*Value
}

// Of returns the created resources of a type.
func (d *Deployment) Of(resourceType string) []*Resource {
	var found []*Resource
	for _, r := range d.Resources {
		if r.Type == resourceType && !r.Existing {
			found = append(found, r)
		}
	}
	return found
}

// Deploy evaluates a template. Parameters are given by name.
func Deploy(path string, parameters map[string]*Value) (*Deployment, error) {
	w := &world{files: map[string]*File{}, deployment: &Deployment{}}
	var in *instance
	err := catch(func() { in = w.run(path, parameters, Pos{path, 1}) })
	if err != nil {
		return nil, err
	}
	w.deployment.Outputs = in.outputs
	return w.deployment, nil
}

func catch(f func()) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			e, ours := fault.(*Error)
			if !ours {
				panic(fault)
			}
			err = e
		}
	}()
	f()
	return nil
}

func failf(pos Pos, format string, args ...any) {
	panic(&Error{pos, fmt.Sprintf(format, args...)})
}

type world struct {
	files      map[string]*File
	deployment *Deployment
}

// instance is the evaluation of one template with its parameters.
type instance struct {
	world   *world
	file    *File
	values  map[string]*Value
	under   map[string]bool // declarations being worked out, to notice circles
	outputs map[string]*Value
}

// scope is an instance with the names of the loops and lambdas around an expression.
type scope struct {
	*instance

	names map[string]*Value
}

func (s *scope) with(name string, v *Value) *scope {
	names := map[string]*Value{name: v}
	for k, old := range s.names {
		if k != name {
			names[k] = old
		}
	}
	return &scope{s.instance, names}
}

func (w *world) run(path string, parameters map[string]*Value, from Pos) *instance {
	file := w.files[path]
	if file == nil {
		var err error
		if file, err = Parse(path); err != nil {
			if e := (*Error)(nil); errors.As(err, &e) {
				panic(e)
			}
			failf(from, "%v", err)
		}
		w.files[path] = file
	}
	in := &instance{world: w, file: file, values: map[string]*Value{}, under: map[string]bool{}, outputs: map[string]*Value{}}
	for name, v := range parameters {
		if d := file.decls[name]; d == nil || d.Kind != "param" {
			failf(v.Pos, "%s has no parameter %s", file.Path, name)
		}
	}
	for _, d := range file.Decls {
		if d.Kind == "param" {
			if v := parameters[d.Name]; v != nil {
				checkParameter(d, v, in)
				in.values[d.Name] = v
			} else if d.Value == nil {
				failf(from, "the parameter %s of %s is missing", d.Name, file.Path)
			}
		}
	}
	for _, d := range file.Decls {
		if d.Kind == "output" {
			v := in.eval(&scope{in, nil}, d.Value)
			checkType(d.Pos, "output "+d.Name, d.Type, v)
			in.outputs[d.Name] = v
		} else if d.Kind != "targetScope" {
			in.lookup(d.Pos, d.Name)
		}
	}
	return in
}

// checkParameter checks a value against the type and decorators of a parameter.
func checkParameter(d *Decl, v *Value, in *instance) {
	checkType(v.Pos, "parameter "+d.Name, d.Type, v)
	argument := func(name string) *Value {
		if e := d.Decorator(name); e != nil && len(e.Args) == 1 {
			return in.eval(&scope{in, nil}, e.Args[0])
		}
		return nil
	}
	size := int64(len(v.Items))
	if v.Kind == "string" {
		size = int64(len(v.Text))
	}
	if limit := argument("minLength"); limit != nil && !v.Later && size < limit.Int {
		failf(v.Pos, "%s is shorter than the %d that %s allows", d.Name, limit.Int, d.Pos)
	}
	if limit := argument("maxLength"); limit != nil && !v.Later && size > limit.Int {
		failf(v.Pos, "%s, %q, is longer than the %d that %s allows", d.Name, v, limit.Int, d.Pos)
	}
	if limit := argument("minValue"); limit != nil && v.Int < limit.Int {
		failf(v.Pos, "%s is less than the %d that %s allows", d.Name, limit.Int, d.Pos)
	}
	if limit := argument("maxValue"); limit != nil && v.Int > limit.Int {
		failf(v.Pos, "%s is more than the %d that %s allows", d.Name, limit.Int, d.Pos)
	}
	if allowed := argument("allowed"); allowed != nil && !slices.Contains(allowed.Texts(), v.String()) {
		failf(v.Pos, "%s is %s, and %s allows %s", d.Name, v, d.Pos, allowed)
	}
}

func checkType(pos Pos, what, declared string, v *Value) {
	kind := declared
	if element, ok := strings.CutSuffix(declared, "[]"); ok {
		kind = "array"
		for _, item := range v.Items {
			checkType(pos, what, element, item)
		}
	}
	if v.Kind != kind {
		failf(pos, "%s is of type %s, and the value is of type %s", what, declared, v.Kind)
	}
}

// lookup evaluates a declared name.
func (in *instance) lookup(pos Pos, name string) *Value {
	if v := in.values[name]; v != nil {
		return v
	}
	d := in.file.decls[name]
	if d == nil {
		failf(pos, "there is no %s", name)
	}
	if in.under[name] {
		failf(pos, "%s depends on itself", name)
	}
	in.under[name] = true
	defer delete(in.under, name)
	var v *Value
	switch d.Kind {
	case "param", "var":
		v = in.eval(&scope{in, nil}, d.Value)
		if d.Kind == "param" {
			checkParameter(d, v, in)
		}
	default:
		v = in.each(&scope{in, nil}, d, d.Value)
	}
	in.values[name] = v
	return v
}

// each creates a resource or module, or one for each iteration of its loop.
func (in *instance) each(s *scope, d *Decl, body *Expr) *Value {
	switch body.Kind {
	case "for":
		list := in.list(s, body)
		v := array(d.Pos)
		for i, item := range list {
			v.Items = append(v.Items, in.each(in.turn(s, body, i, item), d, body.Args[1]))
		}
		return v
	case "if":
		condition := in.eval(s, body.Args[0])
		if condition.Kind != "bool" {
			failf(body.Pos, "a condition is %s", condition)
		}
		if !condition.Bool {
			return null(d.Pos)
		}
		return in.each(s, d, body.Args[1])
	}
	if d.Kind == "module" {
		return in.makeModule(s, d, body)
	}
	return in.makeResource(s, d, body)
}

func (in *instance) list(s *scope, loop *Expr) []*Value {
	list := in.eval(s, loop.Args[0])
	if list.Kind != "array" {
		failf(loop.Pos, "the loop is over %s", list)
	}
	if list.later() {
		failf(loop.Pos, "how often the loop turns is known only while the deployment runs: %s", list)
	}
	return list.Items
}

func (in *instance) turn(s *scope, loop *Expr, i int, item *Value) *scope {
	turn := s.with(loop.Name, item)
	if loop.Also != "" {
		turn = turn.with(loop.Also, integer(loop.Pos, int64(i)))
	}
	return turn
}

func (in *instance) makeModule(s *scope, d *Decl, body *Expr) *Value {
	arguments := map[string]*Value{}
	for i, key := range body.Keys {
		switch key.Text[0] {
		case "params":
			if body.Args[i].Kind != "object" {
				failf(body.Args[i].Pos, "params is no object")
			}
			for j, name := range body.Args[i].Keys {
				v := *in.eval(s, body.Args[i].Args[j])
				// A value that is known while this template runs is known when the module begins. The error names the place where
				// it was passed.
				marked := v.mark(false)
				marked.Pos = body.Args[i].Keys[j].Pos
				arguments[name.Text[0]] = marked
			}
		case "name":
			in.known(s, body.Args[i])
		case "dependsOn":
			in.dependsOn(s, body.Args[i])
		default:
			failf(key.Pos, "a module has no %s here", key.Text[0])
		}
	}
	path := filepath.Join(filepath.Dir(in.file.Path), d.Type)
	made := in.world.run(path, arguments, d.Pos)
	return &Value{Kind: "module", Pos: d.Pos, module: made}
}

// known is a text that must be known before the deployment begins.
func (in *instance) known(s *scope, e *Expr) *Value {
	v := in.eval(s, e)
	if v.later() {
		failf(e.Pos, "a name is known only while the deployment runs: %s", v)
	}
	if v.Kind != "string" || v.Text == "" {
		failf(e.Pos, "a name is %s", v)
	}
	return v
}

func (in *instance) dependsOn(s *scope, e *Expr) {
	for _, one := range e.Args {
		v := in.eval(s, one)
		if v.Kind != "resource" && v.Kind != "module" && v.Kind != "array" {
			failf(one.Pos, "dependsOn names %s, which is neither a resource nor a module", v)
		}
	}
}

func (in *instance) makeResource(s *scope, d *Decl, body *Expr) *Value {
	resourceType, version, ok := strings.Cut(d.Type, "@")
	if !ok {
		failf(d.Pos, "%s has no version", d.Type)
	}
	r := &Resource{Type: resourceType, Version: version, Existing: d.Existing, Body: object(d.Pos), Pos: d.Pos}
	if body.Kind != "object" {
		failf(body.Pos, "a resource is no object")
	}
	parent := ""
	for i, key := range body.Keys {
		e := body.Args[i]
		switch key.Text[0] {
		case "parent":
			v := in.eval(s, e)
			if v.Kind != "resource" {
				failf(e.Pos, "parent is %s", v)
			}
			if i := strings.LastIndex(resourceType, "/"); v.resource.Type != resourceType[:i] {
				failf(e.Pos, "the parent of a %s is a %s", resourceType, v.resource.Type)
			}
			parent = v.resource.Name + "/"
		case "scope":
			v := in.eval(s, e)
			if v.Kind != "resource" {
				failf(e.Pos, "scope is %s", v)
			}
			r.Scope = v.resource.ID()
		case "dependsOn":
			in.dependsOn(s, e)
		case "name":
			v := in.known(s, e)
			r.Name = v.Text
			r.Body.set("name", v)
		default:
			r.Body.set(key.Text[0], in.eval(s, e))
		}
	}
	if r.Name == "" {
		failf(d.Pos, "the resource has no name")
	}
	r.Name = parent + r.Name
	if n := strings.Count(resourceType, "/"); n != strings.Count(r.Name, "/")+1 {
		failf(d.Pos, "a %s is named %s: a parent is missing, or one too many", resourceType, r.Name)
	}
	for _, other := range in.world.deployment.Resources {
		if !r.Existing && !other.Existing && other.ID() == r.ID() && (other.Scope == r.Scope || resourceType == "Microsoft.Authorization/roleAssignments") {
			failf(d.Pos, "%s is made twice; the other one: %s", r.ID(), other.Pos)
		}
	}
	in.world.deployment.Resources = append(in.world.deployment.Resources, r)
	return &Value{Kind: "resource", Pos: d.Pos, resource: r}
}
