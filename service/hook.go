package service

import (
	"errors"
	"strings"
	"time"

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

// Kinds of hook by the scheme of their URL that are not HTTP.
const (
	socketHook = "socket"
	notifyHook = "notify"
)

// kind splits a hook's URL at its scheme; the kind of a command is "".
func (h *Hook) kind() (kind, rest string) {
	kind, rest, _ = strings.Cut(h.URL, ":")
	return kind, rest
}

// check wants what a hook reaches to be on this machine: while hooks run after a restore nothing leaves it.
func (h *Hook) check() error {
	kind, path := h.kind()
	switch {
	case kind == "":
		return checkCommand("hook", h.Exec)
	case len(h.Exec)+len(h.User) > 0:
		return errors.New("hook: both a command or its user, and a URL")
	case kind == socketHook || kind == notifyHook:
		if !strings.HasPrefix(path, "/") {
			return errors.New("hook " + h.URL + ": no absolute path")
		}
		return nil
	}
	t, err := parseTarget(h.URL)
	if err != nil || t.network == "unix" {
		return err
	}
	// Of several addresses, those of localhost, all are.
	if a, err := addressesOf(t.address[:strings.LastIndexByte(t.address, ':')]); err != nil || !a[0].Unmap().IsLoopback() {
		return errors.New("hook " + h.URL + ": not on this machine; use localhost or a unix socket")
	}
	return nil
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
