package service

import (
	"errors"

	"rouse/internal/definition"
)

// order returns the indices of specs so that each comes after all that its After names. Services
// without an order between them keep that of the configuration, so the result is always the same.
func order(specs []Spec) ([]int, error) {
	known := make(map[string]bool, len(specs))
	for i := range specs {
		name := specs[i].Name
		if known[name] {
			return nil, errors.New("service " + name + ": defined twice")
		}
		known[name] = true
	}
	for i := range specs {
		for _, dep := range specs[i].After {
			if !known[dep] {
				return nil, about("service", specs[i].Name, wrong("after", dep, "no such service"))
			}
		}
	}
	plan, _, cycle := definition.Order(len(specs), func(i int) (string, []string) { return specs[i].Name, specs[i].After })
	if cycle != "" {
		return nil, errors.New("services wait for each other: " + cycle)
	}
	return plan, nil
}
