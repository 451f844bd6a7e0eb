package control

import (
	"context"
	"errors"
	"math"
	"time"

	"rouse/internal/fmt"
	"rouse/internal/guard"
	"rouse/internal/json"
)

// command is one row of the table.
type command struct {
	name   string
	takes  string // its arguments
	frozen bool   // answers while the guest is frozen: touches no service and no filesystem
	slow   bool   // bounded by QuiesceTimeout, not by CommandTimeout
	silent bool   // success has no answer (success-response: false)
	family family
	run    func(ctx context.Context, s *Server, a *arguments) (any, error)
}

// family is a group of commands that the guest's configuration turns on.
type family int

const (
	always family = iota
	execs         // guest-exec and its status
	files         // guest-file-*
)

// commands gives the table in the order of the specification. The syncs are handled by the stream, before
// any queue; their rows are here for guest-info.
func commands() []command {
	return []command{
		{name: "guest-sync", takes: "id", frozen: true, run: ping},
		{name: "guest-sync-delimited", takes: "id", frozen: true, run: ping},
		{name: "guest-ping", frozen: true, run: ping},
		{name: "guest-info", frozen: true, run: guestInfo},
		{name: "guest-fsfreeze-freeze", slow: true, run: fsFreeze},
		{name: "guest-fsfreeze-freeze-list", takes: "mountpoints", slow: true, run: fsFreeze},
		{name: "guest-fsfreeze-thaw", frozen: true, slow: true, run: fsThaw},
		{name: "guest-fsfreeze-status", frozen: true, run: fsStatus},
		{name: "guest-get-time", frozen: true, run: getTime},
		{name: "guest-set-time", takes: "time", run: setTime},
		{name: "guest-get-host-name", frozen: true, run: getHostName},
		{name: "guest-get-osinfo", run: getOSInfo},
		{name: "guest-network-get-interfaces", frozen: true, run: getInterfaces},
		{name: "guest-shutdown", takes: "mode", silent: true, run: shutdown},
		{name: "guest-get-vcpus", frozen: true, run: getVCPUs},
		{name: "guest-get-fsinfo", run: getFSInfo},
		{name: "guest-get-users", run: getUsers},
		{name: "guest-exec", takes: "path arg env input-data capture-output", family: execs, run: guestExec},
		{name: "guest-exec-status", takes: "pid", family: execs, run: guestExecStatus},
		{name: "guest-file-open", takes: "path mode", family: files, run: fileOpen},
		{name: "guest-file-close", takes: "handle", family: files, run: onFile(fileClose)},
		{name: "guest-file-read", takes: "handle count", family: files, run: onFile(fileRead)},
		{name: "guest-file-write", takes: "handle buf-b64 count", family: files, run: onFile(fileWrite)},
		{name: "guest-file-seek", takes: "handle offset whence", family: files, run: onFile(fileSeek)},
		{name: "guest-file-flush", takes: "handle", family: files, run: onFile(fileFlush)},
		{name: "rouse-quiesce", takes: "timeout-ms leftovers", slow: true, run: rouseQuiesce},
		{name: "rouse-release", frozen: true, slow: true, run: rouseRelease},
		{name: "rouse-resumed", takes: "seed time-ns identity generation", frozen: true, run: rouseResumed},
		{name: "rouse-wait", takes: "states timeout-ms", frozen: true, slow: true, run: rouseWait},
		{name: "rouse-status", frozen: true, run: rouseStatus},
		{name: "rouse-report", takes: "index", frozen: true, run: rouseReport},
		{name: "rouse-reports", frozen: true, run: rouseReports},
		{name: "rouse-services", frozen: true, run: rouseServices},
		{name: "rouse-service", takes: "name action signal timeout-ms", slow: true, run: rouseService},
		{name: "rouse-watchers", frozen: true, run: rouseWatchers},
		{name: "rouse-config", frozen: true, run: rouseConfig},
		{name: "rouse-doctor", run: rouseDoctor},
		{name: "rouse-identity", run: rouseIdentity},
		{name: "rouse-log", takes: "service lines after timeout-ms", frozen: true, slow: true, run: rouseLog},
	}
}

func (s *Server) enabled(f family) bool {
	switch f {
	case execs:
		return s.o.Exec != nil
	case files:
		return s.o.Files
	}
	return true
}

func (s *Server) find(name string) (command, bool) {
	for _, c := range commands() {
		if c.name == name {
			return c, true
		}
	}
	return command{}, false
}

// execute runs a request to its end or its deadline. A nil result without error means no answer.
func (s *Server) execute(ctx context.Context, req request) (json.RawMessage, error) {
	c, ok := s.find(req.Execute)
	if !ok {
		return nil, &CommandError{ClassNotFound, fmt.Sprintf("the command %s has not been found", req.Execute)}
	}
	if !s.enabled(c.family) {
		return nil, &CommandError{ClassNotFound, fmt.Sprintf("the command %s is off: the guest's configuration can turn it on", req.Execute)}
	}
	a, err := decodeArgs(req.Arguments, c.takes)
	if err != nil {
		return nil, err
	}
	ret, err := s.bounded(ctx, s.limit(c, a), func(ctx context.Context) (any, error) {
		if !c.frozen && s.guest.Frozen() {
			return nil, fmt.Errorf("%w: the guest is frozen; thaw or release it first", ErrRefused)
		}
		return c.run(ctx, s, a)
	})
	if err != nil || c.silent {
		return nil, err
	}
	return json.Marshal(ret)
}

// grace is what a command gets beyond the time-out that it was given: the guest's own error, which names the
// phase and the culprit, is worth more than ours.
const grace = 5 * time.Second

// limit is how long a command may take.
func (s *Server) limit(c command, a *arguments) time.Duration {
	switch {
	case !c.slow:
		return s.o.CommandTimeout
	case a.TimeoutMS > 0 && a.TimeoutMS <= math.MaxInt32:
		return time.Duration(a.TimeoutMS)*time.Millisecond + grace
	}
	return s.o.QuiesceTimeout
}

// bounded runs f and waits for it no longer than limit. f may go on after that: it holds its token
// until it ends, so that a guest that hangs is asked maxRunning times and no more.
func (s *Server) bounded(ctx context.Context, limit time.Duration, f func(context.Context) (any, error)) (any, error) {
	select {
	case s.running <- struct{}{}:
	default:
		return nil, fmt.Errorf("%w: %d commands are running already", ErrRefused, maxRunning)
	}
	type result struct {
		v   any
		err error
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	done := make(chan result, 1)
	go guard.Do(func() {
		defer func() { <-s.running }()
		defer cancel()
		var r result
		defer func() {
			if p := recover(); p != nil {
				s.o.Log("control: panic: %v", p)
				r = result{err: fmt.Errorf("panic: %v", p)}
			}
			done <- r
		}()
		r.v, r.err = f(ctx)
	})
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-done: // ended just now, or itself cancelled ctx after its end
		return r.v, r.err
	default:
		return nil, unfinished(ctx, limit)
	}
}

func unfinished(ctx context.Context, limit time.Duration) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%w: no result after %v", ErrTimeout, limit)
	}
	return errors.New("the guest is shutting its control channel")
}

type empty struct{}

func ping(context.Context, *Server, *arguments) (any, error) { return empty{}, nil }

type commandInfo struct {
	Enabled         bool   `json:"enabled"`
	Name            string `json:"name"`
	SuccessResponse bool   `json:"success-response"`
}

func guestInfo(_ context.Context, s *Server, _ *arguments) (any, error) {
	info := struct {
		Version  string        `json:"version"`
		Commands []commandInfo `json:"supported_commands"`
	}{Version: s.o.Version}
	for _, c := range commands() {
		info.Commands = append(info.Commands, commandInfo{s.enabled(c.family), c.name, !c.silent})
	}
	return info, nil
}

// fsFreeze quiesces the whole guest, also if it is told some of its mounts: half a guest cannot be cloned safely.
func fsFreeze(ctx context.Context, s *Server, _ *arguments) (any, error) {
	_, n, err := s.quiesce(ctx, QuiesceOptions{})
	return n, err
}

// quiesce lets one caller in. The second is refused rather than queued: its answer would say "quiesced"
// about a state that the first may have left again.
func (s *Server) quiesce(ctx context.Context, o QuiesceOptions) (json.RawMessage, int, error) {
	s.starting.Lock() // a program of guest-exec is started before this, and seen, or not at all
	first := s.quiescing.CompareAndSwap(false, true)
	s.starting.Unlock()
	if !first {
		return nil, 0, fmt.Errorf("%w: a quiesce is running already", ErrRefused)
	}
	defer s.quiescing.Store(false)
	report, n, err := s.guest.Quiesce(ctx, o)
	if err != nil {
		return nil, 0, err
	}
	s.filesystems.Store(int64(n))
	return report, n, nil
}

// fsThaw is idempotent: with nothing frozen it answers 0, as the guest agent does. It also ends a quiesce
// that is still under way: a host that lost patience thaws.
func fsThaw(ctx context.Context, s *Server, _ *arguments) (any, error) {
	if !s.guest.Frozen() && !s.quiescing.Load() {
		return 0, nil
	}
	if _, err := s.guest.Release(ctx); err != nil {
		return nil, err
	}
	return s.filesystems.Swap(0), nil
}

func fsStatus(_ context.Context, s *Server, _ *arguments) (any, error) {
	if s.guest.Frozen() {
		return "frozen", nil
	}
	return "thawed", nil
}

func rouseQuiesce(ctx context.Context, s *Server, a *arguments) (any, error) {
	if a.TimeoutMS < 0 || a.TimeoutMS > math.MaxInt32 {
		return nil, fmt.Errorf("timeout-ms is %d, must be from 0 (the guest's own) to %d", a.TimeoutMS, math.MaxInt32)
	}
	switch a.Leftovers {
	case "", "abort", "destroy", "keep":
	default:
		return nil, fmt.Errorf("leftovers is %q, must be abort, destroy or keep", a.Leftovers)
	}
	report, _, err := s.quiesce(ctx, QuiesceOptions{time.Duration(a.TimeoutMS) * time.Millisecond, a.Leftovers})
	return report, err
}

func rouseRelease(ctx context.Context, s *Server, _ *arguments) (any, error) {
	return s.guest.Release(ctx)
}

// rouseResumed takes the seed as base64. An unknown generation is refused by the guest, not here.
func rouseResumed(ctx context.Context, s *Server, a *arguments) (any, error) {
	return empty{}, s.guest.Resumed(ctx, Resume{a.Seed, a.TimeNS, a.Identity, a.Generation})
}

func rouseStatus(_ context.Context, s *Server, _ *arguments) (any, error) {
	return s.guest.Status(), nil
}

// rouseReport counts back from the last report, which is 0.
func rouseReport(_ context.Context, s *Server, a *arguments) (any, error) {
	if all := s.guest.Reports(); a.Index >= 0 && a.Index < int64(len(all)) {
		return all[len(all)-1-int(a.Index)], nil
	} else if a.Index != 0 {
		return nil, fmt.Errorf("index is %d; %d reports are kept", a.Index, len(all))
	}
	return nil, nil
}

// rouseReports lists them from the last one back, as rouse-report counts them.
func rouseReports(_ context.Context, s *Server, _ *arguments) (any, error) {
	all := s.guest.Reports()
	list := make([]json.RawMessage, len(all))
	for i, r := range all {
		list[len(all)-1-i] = r
	}
	return list, nil
}

func rouseServices(_ context.Context, s *Server, _ *arguments) (any, error) {
	return s.guest.Services(), nil
}

func rouseService(ctx context.Context, s *Server, a *arguments) (any, error) {
	switch a.Action {
	case "start", "stop", "restart", "signal":
		return s.guest.Service(ctx, a.Name, a.Action, a.Signal)
	}
	return nil, fmt.Errorf("action is %q, must be start, stop, restart or signal", a.Action)
}

func rouseWatchers(_ context.Context, s *Server, _ *arguments) (any, error) {
	return s.guest.Watchers(), nil
}

func rouseConfig(_ context.Context, s *Server, _ *arguments) (any, error) {
	return s.guest.Config(), nil
}

func rouseDoctor(_ context.Context, s *Server, _ *arguments) (any, error) {
	return s.guest.Doctor(), nil
}

// defaultLogLines is what rouse-log gives if it is not told how many.
const defaultLogLines = 100

func rouseLog(ctx context.Context, s *Server, a *arguments) (any, error) {
	n := int64(defaultLogLines)
	if a.Lines != nil {
		n = *a.Lines
	}
	if n < 1 || n > 10000 {
		return nil, fmt.Errorf("lines is %d, must be from 1 to 10000", n)
	}
	if a.After != nil {
		return s.logAfter(ctx, a, int(n))
	}
	lines := s.guest.Log(a.Service, int(n))
	if lines == nil {
		lines = []string{}
	}
	return lines, nil
}

// logAfter waits for lines for as long as it is told to, and then answers with none: the deadline of a follower is
// no failure.
func (s *Server) logAfter(ctx context.Context, a *arguments, n int) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(a.TimeoutMS)*time.Millisecond)
	defer cancel()
	lines, next, err := s.guest.LogSince(ctx, a.Service, *a.After, n)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	if lines == nil {
		lines = []LogLine{}
	}
	return struct {
		Lines []LogLine `json:"lines"`
		Next  uint64    `json:"next"`
	}{lines, next}, err
}
