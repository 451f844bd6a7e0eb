package service

import (
	"errors"
	"fmt"
	"strings"
)

// ErrCycle is wrapped by the error for services that wait for each other.
var ErrCycle = errors.New("services wait for each other")

// order returns the indices of specs so that each comes after all that its After names. Services
// without an order between them keep that of the configuration, so the result is always the same.
func order(specs []Spec) ([]int, error) {
	index := make(map[string]int, len(specs))
	for i, s := range specs {
		if _, dup := index[s.Name]; dup {
			return nil, fmt.Errorf("service %s: defined twice", s.Name)
		}
		index[s.Name] = i
	}
	for _, s := range specs {
		for _, dep := range s.After {
			if _, ok := index[dep]; !ok {
				return nil, fmt.Errorf("service %s: after %q: no such service", s.Name, dep)
			}
		}
	}
	w := walk{specs: specs, index: index, state: make([]byte, len(specs))}
	for i := range specs {
		if err := w.visit(i); err != nil {
			return nil, err
		}
	}
	return w.done, nil
}

// walk is a depth-first search; path holds the services that it is inside of, to name a cycle.
type walk struct {
	specs []Spec
	index map[string]int
	state []byte // 0 not seen, 1 on the path, 2 done
	path  []string
	done  []int
}

func (w *walk) visit(i int) error {
	name := w.specs[i].Name
	switch w.state[i] {
	case 1:
		return w.cycle(name)
	case 2:
		return nil
	}
	w.state[i] = 1
	w.path = append(w.path, name)
	for _, dep := range w.specs[i].After {
		if err := w.visit(w.index[dep]); err != nil {
			return err
		}
	}
	w.path = w.path[:len(w.path)-1]
	w.state[i] = 2
	w.done = append(w.done, i)
	return nil
}

func (w *walk) cycle(name string) error {
	from := 0
	for w.path[from] != name {
		from++
	}
	names := append(append([]string(nil), w.path[from:]...), name)
	return fmt.Errorf("%w: %s", ErrCycle, strings.Join(names, " after "))
}
