package service

import (
	"errors"
	"strings"
	"time"

	"rouse/internal/definition"
	"rouse/internal/fmt"
)

// When a hook runs. The names are what a hook is told.
const (
	BeforeSnapshot = "before-snapshot"
	AfterRestore   = "after-restore"
	// In these two the same machine goes on, after a release or after a quiesce that came to nothing. The hooks
	// of both are Spec.AfterRelease.
	SnapshotReleased = "snapshot-released"
	SnapshotAborted  = "snapshot-aborted"
)

// NotNow is the exit status (EX_TEMPFAIL of sysexits.h) by which a before-snapshot hook asks for
// the quiesce to be given up; the last line that it prints is the reason.
const NotNow = 75

// ErrNotNow is wrapped by the error for a hook that asked for the quiesce to be given up.
var ErrNotNow = errors.New("not now")

// HookResult is how one hook went.
type HookResult struct {
	Service  string        `json:"service"` // "" for a hook of the machine, ".hooks.d" for one of Options.HookDir
	When     string        `json:"when"`
	Command  []string      `json:"command"`
	Duration time.Duration `json:"duration-ns"`
	// ExitCode is 128 + signal if killed, and -1 if it did not run or did not answer. For an HTTP hook it is the status;
	// the answers of socket and notify hooks are given as a command's would be: 0, 75 or 1.
	ExitCode int    `json:"exit-code"`
	Output   string `json:"output,omitempty"`
	Error    string `json:"error,omitempty"`
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
	case SnapshotReleased, SnapshotAborted:
		return s.AfterRelease, nil
	}
	return nil, fmt.Errorf("hooks %q: not one of %s, %s, %s, %s", when, BeforeSnapshot, AfterRestore, SnapshotReleased, SnapshotAborted)
}

// hooks are those of s for every occasion.
func (s *Spec) hooks() []*Hook {
	var all []*Hook
	for _, list := range [][]Hook{s.BeforeSnapshot, s.AfterRestore, s.AfterRelease} {
		for i := range list {
			all = append(all, &list[i])
		}
	}
	return all
}

// kind splits a hook's URL at its scheme; the kind of a command is "".
func (h *Hook) kind() (kind, rest string) {
	kind, rest, _ = strings.Cut(h.URL, ":")
	return kind, rest
}

func (h *Hook) check() error {
	if h.URL == "" {
		return checkCommand("hook", h.Exec)
	}
	if len(h.Exec)+len(h.User) > 0 {
		return errors.New("hook: both a command or its user, and a URL")
	}
	return wrong("hook", h.URL, definition.CheckHook(h.URL))
}

// command is what stands in the report for h.
func (h *Hook) command() []string {
	if h.URL != "" {
		return []string{"POST", h.URL}
	}
	return h.Exec
}

// parseAnswer reads the line by which a socket hook answers: a word, and for people what is behind it. Any word but "ok"
// and "not-now" is a failure, and the whole line its reason.
func parseAnswer(line string) (text string, code int, err error) {
	word, text, _ := strings.Cut(clean(strings.TrimRight(line, "\r\n")), " ")
	switch word {
	case "ok":
		return text, 0, nil
	case "not-now":
		return text, NotNow, fmt.Errorf("%w: %s", ErrNotNow, text)
	}
	return text, 1, errors.New(word + " " + text)
}
