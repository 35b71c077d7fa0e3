package config

import (
	"encoding"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
)

// fields are the fields of a configuration that have a variable, including those of its parts.
type fields []field

type field struct {
	name, variable string
	former         string // the variable's former name, if it had one
	kind           reflect.Type
}

func fieldsOf(t reflect.Type) fields {
	var all fields
	for _, f := range reflect.VisibleFields(t) {
		variable, _, _ := strings.Cut(f.Tag.Get("env"), ",")
		switch {
		case variable != "":
			all = append(all, field{f.Name, variable, f.Tag.Get("formerly"), f.Type})
		case f.Type.Kind() == reflect.Struct && !f.Anonymous:
			all = append(all, fieldsOf(f.Type)...)
		}
	}
	return all
}

// Checked returns the variables of T that are checked when they are read, because not every text is a value of their type.
func Checked[T any]() []string {
	var names []string
	for _, f := range fieldsOf(reflect.TypeFor[T]()) {
		kind := f.kind
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		if _, checksItself := reflect.TypeAssert[encoding.TextUnmarshaler](reflect.New(kind)); checksItself || kind.Kind() != reflect.String {
			names = append(names, f.variable)
		}
	}
	return names
}

// faults are the parser's errors in our words. It removes variables with a wrong value from the map.
func (all fields) faults(err error, variables map[string]string, renamed []rename) []error {
	var parsing env.AggregateError
	if !errors.As(err, &parsing) {
		return []error{err}
	}
	faults := make([]error, 0, len(parsing.Errors))
	for _, err := range parsing.Errors {
		var wrong env.ParseError
		var missing env.VarIsNotSetError
		var empty env.EmptyVarError
		switch {
		case errors.As(err, &wrong):
			name := all.variable(wrong.Name, wrong.Type)
			faults = append(faults, fmt.Errorf("%s is %q: %s", usedName(renamed, name), variables[name], expected(wrong.Type, wrong.Err)))
			delete(variables, name)
		case errors.As(err, &missing):
			faults = append(faults, fmt.Errorf("%s is missing: %s", missing.Key, all.expectation(missing.Key)))
		case errors.As(err, &empty):
			faults = append(faults, fmt.Errorf("%s is empty: %s", empty.Key, all.expectation(empty.Key)))
		default:
			faults = append(faults, err)
		}
	}
	return faults
}

// variable is the variable of the field with that name and type.
func (all fields) variable(name string, kind reflect.Type) string {
	for _, f := range all {
		if f.name == name && f.kind == kind {
			return f.variable
		}
	}
	return name
}

// expectation is what the variable's type expects, from its error about an empty text.
func (all fields) expectation(variable string) string {
	for _, f := range all {
		if text, ok := reflect.TypeAssert[encoding.TextUnmarshaler](reflect.New(f.kind)); ok && f.variable == variable {
			if err := text.UnmarshalText(nil); err != nil {
				return err.Error()
			}
		}
	}
	return "it must be set"
}

// expected is what a value of that type looks like.
func expected(kind reflect.Type, err error) string {
	if kind.Kind() == reflect.Pointer {
		kind = kind.Elem()
	}
	switch kind {
	case reflect.TypeFor[time.Duration]():
		return "a duration has a unit, such as 5m or 24h"
	case reflect.TypeFor[slog.Level]():
		return "the log level is debug, info, warn or error"
	}
	switch kind.Kind() {
	case reflect.Bool:
		return "it is true or false"
	case reflect.Uint:
		if _, checksItself := reflect.TypeAssert[encoding.TextUnmarshaler](reflect.New(kind)); !checksItself {
			return "it is a whole number that is not negative"
		}
	default:
	}
	return err.Error()
}
