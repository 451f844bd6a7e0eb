package vmm

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"sync"
)

// inParallel runs all steps side by side and waits for them. The files of a snapshot are few and one of them,
// the memory, is nearly all.
func inParallel(n int, step func(int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = step(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
