package config

import (
	"context"
	"fmt"
	"log/slog"
)

// rename is a variable that was set by its former name.
type rename struct{ former, name string }

// applyFormer gives variables that are set by their former name only their present name, in the map. It returns those that
// have a former name set, and a fault for each with two different values.
func (all fields) applyFormer(variables map[string]string) (renamed []rename, faults []error) {
	for _, f := range all {
		former, present := variables[f.former], variables[f.variable]
		if f.former == "" || former == "" {
			continue
		}
		renamed = append(renamed, rename{f.former, f.variable})
		switch {
		case present == "":
			variables[f.variable] = former
		case present != former:
			faults = append(faults, fmt.Errorf("%s is %q and %s is %q: these are two names of one setting; set %s only", f.former, former, f.variable, present, f.variable))
		}
	}
	return renamed, faults
}

// usedName is the name by which the variable was set.
func usedName(renamed []rename, name string) string {
	for _, r := range renamed {
		if r.name == name {
			return r.former
		}
	}
	return name
}

func (s *Service) setRenamed(all []rename) { s.renamed = all }

// LogRenamed logs a warning for each variable that is set by its former name.
func (s *Service) LogRenamed(ctx context.Context, logger *slog.Logger) {
	for _, r := range s.renamed {
		logger.WarnContext(ctx, "setting renamed; use the new name", slog.String("old_name", r.former), slog.String("new_name", r.name))
	}
}
