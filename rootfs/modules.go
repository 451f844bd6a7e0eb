package rootfs

import (
	"sort"
)

// ModuleError says which module could not be loaded and what would help.
type ModuleError struct {
	Name string
	Cure string // what to change; may be ""
	Err  error
}

func (e *ModuleError) Error() string {
	s := "load module " + e.Name + ": " + e.Err.Error()
	if e.Cure != "" {
		s += " (" + e.Cure + ")"
	}
	return s
}

func (e *ModuleError) Unwrap() error { return e.Err }

func sortedKeys(m map[string][]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
