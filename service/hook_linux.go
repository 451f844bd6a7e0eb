package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Hooks runs the hooks of all services one after the other: before-snapshot in reverse start order,
// so that who uses a service is told before it; after-restore in start order. The first hook of
// before-snapshot that fails ends it, since the quiesce must be given up; of after-restore all are
// run, since the guest goes on either way. The results are of those that ran. Those of
// Options.HookDir come first before a snapshot, and last after it; they are called with "freeze", "thaw", or,
// for snapshot-aborted, "freeze-fail".
//
// A hook runs as its service's user, in its folder and environment with ROUSE_HOOK and
// ROUSE_SERVICE added, but in a cgroup of its own: it runs although the services are frozen.
func (m *Manager) Hooks(ctx context.Context, when string) ([]HookResult, error) {
	parts := []func(context.Context, string) ([]HookResult, error){m.serviceHooks, m.dropins}
	if when == BeforeSnapshot {
		slices.Reverse(parts)
	}
	var results []HookResult
	var errs []error
	for _, part := range parts {
		res, err := part(ctx, when)
		results = append(results, res...)
		errs = append(errs, err)
		if err != nil && when == BeforeSnapshot {
			break
		}
	}
	return results, errors.Join(errs...)
}

func (m *Manager) serviceHooks(ctx context.Context, when string) ([]HookResult, error) {
	units := slices.Clone(m.units)
	if when == BeforeSnapshot {
		slices.Reverse(units)
	}
	var results []HookResult
	var errs []error
	for _, u := range units {
		hooks, err := u.spec.hooksOf(when)
		if err != nil {
			return nil, err
		}
		for _, h := range hooks {
			res, err := u.hook(ctx, when, h)
			results = append(results, res)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s hook of service %s: %w", when, u.spec.Name, err))
			}
			if err != nil && when == BeforeSnapshot {
				return results, errs[0]
			}
		}
	}
	return results, errors.Join(errs...)
}

func (u *unit) hook(ctx context.Context, when string, h Hook) (HookResult, error) {
	res := HookResult{Service: u.spec.Name, When: when, Command: h.Exec, ExitCode: -1}
	if h.URL != "" {
		res.Command = []string{"POST", h.URL}
	}
	began := u.m.now()
	run := u.runHook
	if h.URL != "" {
		run = u.postHook
	}
	out, code, err := run(ctx, when, h)
	res.Duration = u.m.now().Sub(began)
	res.Output, res.ExitCode = string(out), code
	if err != nil {
		res.Error = err.Error()
	}
	return res, err
}

func (u *unit) runHook(ctx context.Context, when string, h Hook) ([]byte, int, error) {
	if !u.m.prepared.Load() {
		return nil, -1, errNotStarted
	}
	limit := h.Timeout
	setDuration(&limit, DefaultHookTimeout)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !u.hookMu.TryLock() { // a readiness or health command is still running
		if err := sleep(ctx, time.Millisecond); err != nil {
			return nil, -1, fmt.Errorf("waiting for another command: %w", err)
		}
	}
	defer u.hookMu.Unlock()
	cmd, err := u.command(h.Exec, u.hookCg, []string{"ROUSE_HOOK=" + when, "ROUSE_SERVICE=" + u.spec.Name})
	if err != nil {
		return nil, -1, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, -1, fmt.Errorf("pipe: %w", err)
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, w
	p, err := u.m.o.Reaper.Start(cmd)
	w.Close()
	if err != nil {
		return nil, -1, err
	}
	output := make(chan []byte, 1)
	go func() { output <- readTail(r, hookOutput) }()
	err = u.awaitHook(ctx, p)
	return u.hookEnd(p, r, output, err)
}

// postHook sends the hook as a request. Statuses 409 and 503 are its way to say "not now", with the reason as body.
func (u *unit) postHook(ctx context.Context, _ string, h Hook) ([]byte, int, error) {
	limit := h.Timeout
	setDuration(&limit, DefaultHookTimeout)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t, err := parseTarget(h.URL)
	if err != nil {
		return nil, -1, err
	}
	code, body, err := t.do(ctx, "POST")
	if err == nil && (code == 409 || code == 503) {
		return body, code, fmt.Errorf("%w: %s", ErrNotNow, lastLine(body))
	}
	if err != nil {
		code = -1
	}
	return body, code, expect2xx(code, err)
}

func (u *unit) awaitHook(ctx context.Context, p *Process) error {
	status, err := p.Wait(ctx)
	switch {
	case err != nil && errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("still running at its deadline, killed: %w", context.DeadlineExceeded)
	case err != nil:
		return fmt.Errorf("killed: %w", ctx.Err())
	case status.Exited() && status.ExitStatus() == NotNow:
		return ErrNotNow
	case status != 0:
		return errors.New(describe(status))
	}
	return nil
}

// hookEnd ends what the hook left behind, which holds its pipe open, and collects the output.
func (u *unit) hookEnd(p *Process, r *os.File, output <-chan []byte, err error) ([]byte, int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), buryTimeout)
	defer cancel()
	if rerr := u.hookCg.reap(ctx); rerr != nil {
		err = errors.Join(err, rerr)
	}
	code := -1
	if status, werr := p.Wait(ctx); werr == nil {
		code = exitCode(status)
	}
	// A process that left the cgroup may hold the pipe still.
	_ = r.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	out := <-output
	if errors.Is(err, ErrNotNow) {
		err = fmt.Errorf("%w: %s", ErrNotNow, lastLine(out))
	}
	return out, code, err
}

// readTail reads r to its end and returns the last limit bytes.
func readTail(r *os.File, limit int) []byte {
	buf := make([]byte, 0, 2*limit)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if len(buf) == cap(buf) {
			buf = buf[:copy(buf, buf[limit:])]
		}
		if err != nil {
			return buf[max(0, len(buf)-limit):]
		}
	}
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return clean(lines[len(lines)-1])
}
