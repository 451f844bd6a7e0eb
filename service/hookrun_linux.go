package service

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/definition"
	"rouse/internal/fmt"
	"rouse/internal/guard"
)

// How each kind of hook is called. All return the output, a status as HookResult.ExitCode has it, and why it failed.

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
	as := u
	if h.User != "" {
		who, err := lookupAccount(u.m.o.Etc, h.User, "")
		if err != nil {
			return nil, -1, err
		}
		as = &unit{m: u.m, spec: u.spec, who: who}
	}
	cmd, err := as.command(h.Exec, u.hookCg, []string{"ROUSE_HOOK=" + when, "ROUSE_SERVICE=" + u.spec.Name})
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
	go guard.Do(func() { output <- readTail(r, hookOutput) })
	err = u.awaitHook(ctx, p)
	return u.hookEnd(p, r, output, err)
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

// readTail reads r to its end, or to what is there at its deadline, and returns the last limit bytes.
func readTail(r *os.File, limit int) []byte {
	buf := make([]byte, 0, 2*limit)
	late := false
	for {
		n, err := ReadOr(r, buf[len(buf):cap(buf)], late)
		buf = buf[:len(buf)+n]
		if errors.Is(err, os.ErrDeadlineExceeded) && !late {
			// On a busy machine we may be late ourselves: what is in the pipe counts.
			late, err = true, nil
		}
		if len(buf) == cap(buf) {
			buf = buf[:copy(buf, buf[limit:])]
		}
		if err != nil {
			return buf[max(0, len(buf)-limit):]
		}
	}
}

// ReadOr reads like r.Read, or, if late, only what is there, with io.EOF for nothing.
func ReadOr(r *os.File, p []byte, late bool) (n int, err error) {
	if !late {
		return r.Read(p)
	}
	_ = r.SetReadDeadline(time.Time{})
	raw, err := r.SyscallConn()
	if err == nil {
		err = raw.Read(func(fd uintptr) bool {
			n, _ = unix.Read(int(fd), p)
			n = max(n, 0)
			return true
		})
	}
	if err == nil && n == 0 {
		err = io.EOF
	}
	return n, err
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return clean(lines[len(lines)-1])
}

// postHook sends the hook as a request.
func postHook(ctx context.Context, url string) ([]byte, int, error) {
	t, err := parseTarget(url)
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

// maxAnswer bounds the line by which a socket hook answers.
const maxAnswer = 1 << 10

// askSocket says its line at a stream socket and reads one.
func (u *unit) askSocket(ctx context.Context, path, when string) ([]byte, int, error) {
	conn, err := target{Network: "unix", Address: path}.dial(ctx)
	if err != nil {
		return nil, -1, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	line := make([]byte, 0, maxAnswer)
	_, err = io.WriteString(conn, when+" "+u.spec.Name+"\n")
	for err == nil && len(line) < maxAnswer && bytes.IndexByte(line, '\n') < 0 {
		var n int
		n, err = conn.Read(line[len(line):maxAnswer])
		line = line[:len(line)+n]
	}
	stop()
	conn.Close()
	i := bytes.IndexByte(line, '\n')
	if i < 0 {
		if err = ctx.Err(); err == nil {
			err = io.ErrUnexpectedEOF
		}
		return nil, -1, about("no answer in one line by", path, err)
	}
	text, code, err := parseAnswer(string(line[:i]))
	return []byte(text), code, err
}

// askNotify sends a message to the service and waits for one at its notify socket. Nothing tells an answer to this hook from
// one that comes too late for an earlier one; but then the service has failed that one.
func (u *unit) askNotify(ctx context.Context, path, when string) ([]byte, int, error) {
	select {
	case <-u.answers: // to nothing that was asked
	default:
	}
	if err := sendTo(path, "ROUSE_HOOK="+when+"\nROUSE_SERVICE="+u.spec.Name+"\n"); err != nil {
		return nil, -1, about("send to", path, err)
	}
	select {
	case <-ctx.Done():
		return nil, -1, about("no answer by READY=1 or X_ROUSE of", path, ctx.Err())
	case m := <-u.answers:
		word := m.rouse
		if word == "" {
			word = "ok"
		}
		text, code, err := parseAnswer(word + " " + m.status)
		return []byte(text), code, err
	}
}

// answer takes a message of the service that may be the answer to a notify hook.
func (u *unit) answer(m message) {
	if m.rouse != "" || m.ready {
		select {
		case u.answers <- m: // nil if the service has no such hook
		default:
		}
	}
}

// awaitsAnswers makes ready for the answers to notify hooks, if the service has one.
func (u *unit) awaitsAnswers() bool {
	for _, h := range u.spec.hooks() {
		if kind, _ := h.kind(); kind == definition.NotifyHook {
			u.answers = make(chan message, 1)
			return true
		}
	}
	return false
}
