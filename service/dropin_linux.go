package service

import (
	"os"
	"path/filepath"
	"slices"

	"rouse/internal/fmt"
)

// dropinName is where hooks of Options.HookDir run and what their results are called. It is no valid name for a
// service.
const dropinName = ".hooks.d"

// dropinWords are what QEMU's and VMware's guest agents call such scripts with.
var dropinWords = map[string]string{BeforeSnapshot: "freeze", AfterRestore: "thaw", SnapshotReleased: "thaw", SnapshotAborted: "freeze-fail"}

// dropins are the executables of Options.HookDir, to be called with the word for when: for a snapshot in the order of their names,
// afterwards in reverse. They run as root, each within DefaultHookTimeout. A folder that is not there
// has no hooks.
func (m *Manager) dropins(when string) ([]hookCall, error) {
	paths, err := executables(m.o.HookDir)
	if err != nil {
		return nil, err
	}
	if when != BeforeSnapshot {
		slices.Reverse(paths)
	}
	var calls []hookCall
	for _, path := range paths {
		calls = append(calls, hookCall{m.dropin, dropinName, path, &Hook{Exec: []string{path, dropinWords[when]}}})
	}
	return calls, nil
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
