package service

import (
	"context"
	"errors"
	"slices"

	"rouse/internal/definition"
)

// Hooks runs all hooks for when, one after the other. Before a snapshot those of Options.HookDir come first, then those
// of Options, then the services' in reverse start order, so that who uses a service is told before it; afterwards it is
// the other way round. The first hook of before-snapshot that fails ends it, since the quiesce must be given up; on the
// other occasions all are run, since the guest goes on either way. The results are of those that ran.
//
// There are five kinds of hook:
//
//   - A command runs as its service's user or another, in the service's folder and environment with
//     ROUSE_HOOK (when) and ROUSE_SERVICE added, but in a cgroup of its own: it runs although the services are frozen.
//     Exit status 0 is well, 75 "not now" with the last line of its output as the reason.
//   - A URL gets an empty POST. 2xx is well; 409 and 503 are "not now" with the last line of the body as reason.
//   - "socket:/PATH", a unix stream socket, gets one line, `WHEN SERVICE`, and answers one line: `ok`, `not-now REASON`, or anything else as
//     the reason of a failure.
//   - "notify:/PATH", a unix datagram socket that the service has bound, gets one message in the form of sd_notify(3),
//     `ROUSE_HOOK=WHEN` and `ROUSE_SERVICE=SERVICE`, each on a line. The service answers at its NOTIFY_SOCKET with READY=1,
//     as after a reload, or with X_ROUSE=ok; X_ROUSE=not-now asks for the quiesce to be given up, any other value is a
//     failure; STATUS= in the same message is the reason.
//   - A file of Options.HookDir is called as root with "freeze", "thaw" (also when the same machine goes on), or
//     "freeze-fail" (after a quiesce that came to nothing).
//
// "Not now" is wrapped as ErrNotNow. Each hook has its own Timeout; at its end a command is killed with all its children.
func (m *Manager) Hooks(ctx context.Context, when string) ([]HookResult, error) {
	calls, err := m.hookCalls(when)
	if err != nil && (when == BeforeSnapshot || calls == nil) {
		return nil, err
	}
	var results []HookResult
	errs := []error{err}
	for i := range calls {
		c := &calls[i]
		res, err := c.u.hook(ctx, when, c.h)
		res.Service = c.service
		results = append(results, res)
		if err == nil {
			continue
		}
		errs = append(errs, about(when+" hook of", c.owner, err))
		if when == BeforeSnapshot {
			break
		}
	}
	return results, errors.Join(errs...)
}

// hookCall is a hook to be called.
type hookCall struct {
	u              *unit
	service, owner string // for the report, and for an error
	h              *Hook
}

// hookCalls are the hooks for when, in their order. With an error they are those of services and machine alone.
func (m *Manager) hookCalls(when string) ([]hookCall, error) {
	before := when == BeforeSnapshot
	folder, ferr := m.dropins(when)
	units := append(slices.Clone(m.units), m.dropin)
	var calls []hookCall
	if before {
		slices.Reverse(units)
		calls = folder
	}
	for _, u := range units {
		hooks, err := u.spec.hooksOf(when)
		if err != nil {
			return nil, err
		}
		service := u.spec.Name
		if u == m.dropin {
			service = ""
		}
		for i := range hooks {
			calls = append(calls, hookCall{u, service, u.owner(), &hooks[i]})
		}
	}
	if !before {
		calls = append(calls, folder...)
	}
	return calls, ferr
}

// owner names whose hooks u's are.
func (u *unit) owner() string {
	if u == u.m.dropin {
		return "the machine"
	}
	return "service " + u.spec.Name
}

// hook calls one hook within its timeout.
func (u *unit) hook(ctx context.Context, when string, h *Hook) (HookResult, error) {
	res := HookResult{Service: u.spec.Name, When: when, Command: h.command(), ExitCode: -1}
	began := u.m.now()
	limit := h.Timeout
	setDuration(&limit, DefaultHookTimeout)
	ctx, cancel := context.WithTimeout(ctx, limit)
	var out []byte
	var err error
	switch kind, path := h.kind(); kind {
	case "":
		out, res.ExitCode, err = u.runHook(ctx, when, *h)
	case definition.SocketHook:
		out, res.ExitCode, err = u.askSocket(ctx, path, when)
	case definition.NotifyHook:
		out, res.ExitCode, err = u.askNotify(ctx, path, when)
	default:
		out, res.ExitCode, err = postHook(ctx, h.URL)
	}
	cancel()
	res.Duration = u.m.now().Sub(began)
	res.Output = string(out)
	if err != nil {
		res.Error = err.Error()
	}
	return res, err
}

// checkHooks finds at the start what would only be found in a clone, or in the middle of a quiesce.
func (u *unit) checkHooks() error {
	for _, h := range u.spec.hooks() {
		err := h.check()
		if err == nil && h.User != "" {
			_, err = lookupAccount(u.m.o.Etc, h.User, "")
		}
		if err != nil {
			return about("hooks of", u.owner(), err)
		}
	}
	return nil
}
