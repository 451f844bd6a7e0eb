package service

import (
	"errors"

	"rouse/internal/fmt"
)

// ErrCycle is wrapped by the error for services that wait for each other.
var ErrCycle = errors.New("services wait for each other")

// order returns the indices of specs so that each comes after all that its After names. Services
// without an order between them keep that of the configuration, so the result is always the same.
func order(specs []Spec) ([]int, error) {
	index := make(map[string]int, len(specs))
	for i, s := range specs {
		if _, dup := index[s.Name]; dup {
			return nil, errors.New("service " + s.Name + ": defined twice")
		}
		index[s.Name] = i
	}
	for _, s := range specs {
		for _, dep := range s.After {
			if _, ok := index[dep]; !ok {
				return nil, about("service", s.Name, wrong("after", dep, "no such service"))
			}
		}
	}
	return plan(specs, index)
}

// plan takes, again and again, the first service whose own have all been taken.
func plan(specs []Spec, index map[string]int) ([]int, error) {
	done := make([]bool, len(specs))
	var taken []int
	for len(taken) < len(specs) {
		next, missing := -1, -1
		for i := range specs {
			if done[i] {
				continue
			}
			if missing = lacks(&specs[i], index, done); missing < 0 {
				next = i
				break
			}
		}
		if next < 0 {
			return nil, cycle(specs, index, done, missing)
		}
		done[next] = true
		taken = append(taken, next)
	}
	return taken, nil
}

// lacks returns the first service that s waits for and that is not done, or -1.
func lacks(s *Spec, index map[string]int, done []bool) int {
	for _, dep := range s.After {
		if i := index[dep]; !done[i] {
			return i
		}
	}
	return -1
}

// cycle follows what each waits for, from a service that is not done: after as many steps as there are services it is
// inside of a cycle, and goes round it once more.
func cycle(specs []Spec, index map[string]int, done []bool, at int) error {
	for range specs {
		at = lacks(&specs[at], index, done)
	}
	first, names := at, specs[at].Name
	for {
		at = lacks(&specs[at], index, done)
		names += " after " + specs[at].Name
		if at == first {
			return fmt.Errorf("%w: %s", ErrCycle, names)
		}
	}
}
