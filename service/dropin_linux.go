package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// dropinName is where hooks of Options.HookDir run and what their results are called. It is no valid name for a
// service.
const dropinName = ".hooks.d"

// dropinWords are what QEMU's and VMware's guest agents call such scripts with.
var dropinWords = map[string]string{BeforeSnapshot: "freeze", AfterRestore: "thaw", SnapshotReleased: "thaw", SnapshotAborted: "freeze-fail"}

// dropins runs the executables of Options.HookDir with the word for when: for a snapshot in the order of their names,
// afterwards in reverse. They run as root, each within DefaultHookTimeout. A folder that is not there
// has no hooks.
func (m *Manager) dropins(ctx context.Context, when string) ([]HookResult, error) {
	paths, err := executables(m.o.HookDir)
	if err != nil || len(paths) == 0 {
		return nil, err
	}
	if !m.prepared.Load() {
		return nil, errNotStarted
	}
	if when != BeforeSnapshot {
		slices.Reverse(paths)
	}
	var results []HookResult
	var errs []error
	for _, path := range paths {
		res, err := m.dropin.hook(ctx, when, &Hook{Exec: []string{path, dropinWords[when]}})
		results = append(results, res)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s hook %s: %w", when, path, err))
		}
		if err != nil && when == BeforeSnapshot {
			break
		}
	}
	return results, errors.Join(errs...)
}

// executables returns the files of dir that may be executed, in the order of their names. One that others than its
// owner can write is refused: it would run as root what they like.
func executables(dir string) ([]string, error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("hooks: %w", err)
	}
	var paths []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		st, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("hooks: %w", err)
		}
		if !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
			continue
		}
		if st.Mode()&0o022 != 0 {
			return nil, fmt.Errorf("hook %s: others than its owner can write it (chmod go-w)", path)
		}
		paths = append(paths, path)
	}
	return paths, nil
}
