package service

import (
	"errors"
	"fmt"
	"time"
)

// When a hook runs.
const (
	BeforeSnapshot  = "before-snapshot"
	AfterRestore    = "after-restore"
	SnapshotAborted = "snapshot-aborted" // only those of Options.HookDir
)

// NotNow is the exit status (EX_TEMPFAIL of sysexits.h) by which a before-snapshot hook asks for
// the quiesce to be given up; the last line that it prints is the reason.
const NotNow = 75

// ErrNotNow is wrapped by the error for a hook that ended with NotNow.
var ErrNotNow = errors.New("not now")

// HookResult is how one hook went.
type HookResult struct {
	Service  string        `json:"service"`
	When     string        `json:"when"`
	Command  []string      `json:"command"`
	Duration time.Duration `json:"duration_ns"`
	ExitCode int           `json:"exit_code"` // 128 + signal if killed; the HTTP status of a POST; -1 if it did not run
	Output   string        `json:"output,omitempty"`
	Error    string        `json:"error,omitempty"`
}

// hookOutput is how much of the end of a hook's output is kept.
const hookOutput = 16 << 10

// hooksOf returns the hooks of s for when.
func (s Spec) hooksOf(when string) ([]Hook, error) {
	switch when {
	case BeforeSnapshot:
		return s.BeforeSnapshot, nil
	case AfterRestore:
		return s.AfterRestore, nil
	case SnapshotAborted:
		return nil, nil
	}
	return nil, fmt.Errorf("hooks %q: not one of %s, %s, %s", when, BeforeSnapshot, AfterRestore, SnapshotAborted)
}
