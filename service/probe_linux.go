package service

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/definition"
	"rouse/internal/guard"
)

// Pauses between two probes: short at first, since most services are ready within milliseconds.
const (
	probeFirst = time.Millisecond
	probeLast  = 100 * time.Millisecond
	// probeTimeout bounds a single probe.
	probeTimeout = 5 * time.Second
)

// do sends one request and returns the answer's status and the beginning of its body.
func (t target) do(ctx context.Context, method string) (int, []byte, error) {
	conn, err := t.dial(ctx)
	if err != nil {
		return 0, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	var answer []byte
	if _, err = io.WriteString(conn, t.request(method)); err == nil {
		// Headers without an end and endless bodies are cut here.
		answer, err = io.ReadAll(io.LimitReader(conn, hookOutput))
	}
	stop()
	conn.Close()
	if err != nil && bytes.IndexByte(answer, '\n') < 0 {
		return 0, nil, errors.Join(err, ctx.Err())
	}
	return parseResponse(answer)
}

// dial connects to the first address that answers. Of errors the first address's tells most.
func (t target) dial(ctx context.Context) (*os.File, error) {
	if t.Network == "unix" {
		return t.connect(ctx, unix.AF_UNIX, &unix.SockaddrUnix{Name: t.Address})
	}
	port, err := strconv.Atoi(t.Address[strings.LastIndexByte(t.Address, ':')+1:])
	if err != nil {
		return nil, err
	}
	var first error
	for _, a := range definition.Target(t).Addresses() {
		family, sockaddr := socketAddress(a, port)
		conn, err := t.connect(ctx, family, sockaddr)
		if err == nil {
			return conn, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

func socketAddress(a netip.Addr, port int) (family int, sockaddr unix.Sockaddr) {
	a = a.Unmap()
	if a.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: a.As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: port, Addr: a.As16()}
}

// connect waits by the runtime's poller until the connection stands, fails or ctx ends.
func (t target) connect(ctx context.Context, family int, a unix.Sockaddr) (*os.File, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	err = unix.Connect(fd, a)
	conn := os.NewFile(uintptr(fd), t.Address)
	if err == unix.EINPROGRESS || err == unix.EINTR {
		err = awaitConnected(ctx, conn)
	}
	if err != nil {
		conn.Close()
		return nil, about("connect", t.Address, err)
	}
	return conn, nil
}

func awaitConnected(ctx context.Context, conn *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	// The runtime's poller waits; the function only says whether it is over yet.
	err = raw.Write(func(fd uintptr) bool {
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(fds[:], 0); n == 0 || err == unix.EINTR {
			return false
		}
		errno, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if failed = err; err == nil && errno != 0 {
			failed = unix.Errno(errno)
		}
		return true
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, failed)
}

// expect2xx makes an error of an answer that is not a success.
func expect2xx(code int, err error) error {
	if err == nil && (code < 200 || code > 299) {
		return errors.New("HTTP status " + strconv.Itoa(code))
	}
	return err
}

// probe looks until the service is ready or the attempt is over. Nothing is probed while frozen or held: no
// answer could come, and a command probe would fork.
func (u *unit) probe(a *attempt, look func(context.Context) bool) {
	ctx, cancel := a.context()
	defer cancel()
	found := a.found
	for pause := probeFirst; ctx.Err() == nil; pause = min(2*pause, probeLast) {
		if !u.m.quiet() && look(ctx) {
			close(found)
			return
		}
		_ = sleep(ctx, pause)
	}
}

// looker returns how to find out by looking whether r holds; nil if that is told, or is so at once.
func (u *unit) looker(r Ready) func(context.Context) bool {
	switch r.Kind {
	case "port":
		return func(context.Context) bool { return u.listens(r.Port) }
	case "http":
		t, _ := parseTarget(r.URL) // checked by New
		return func(ctx context.Context) bool {
			ctx, cancel := context.WithTimeout(ctx, probeTimeout)
			defer cancel()
			code, _, err := t.do(ctx, "GET")
			return expect2xx(code, err) == nil
		}
	case "exec":
		return func(ctx context.Context) bool {
			_, code, err := u.runHook(ctx, "check", Hook{Exec: r.Exec, Timeout: probeTimeout})
			return err == nil && code == 0
		}
	}
	return nil
}

// awaitLine is for Ready "fd", as s6 has it: the service writes a newline to descriptor 3 when it
// is ready; what comes before is its own affair.
func (u *unit) awaitLine(a *attempt) {
	defer a.readyPipe.Close()
	go guard.Do(func() {
		<-a.gone
		_ = a.readyPipe.SetReadDeadline(time.Unix(1, 0))
	})
	buf := make([]byte, 64)
	for {
		n, err := a.readyPipe.Read(buf)
		for _, c := range buf[:n] {
			if c == '\n' {
				close(a.found)
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// adopt makes pid, which the service named by MAINPID, the main process: a daemon that forks and lets its
// first process end. Its exit status is ours to know only once it is an orphan.
func (u *unit) adopt(a *attempt, pid int) error {
	if pid == a.main.PID() {
		return nil
	}
	if serviceOfPath(u.m.base, processCgroup(pid)) != u.spec.Name {
		return errors.New("MAINPID=" + strconv.Itoa(pid) + ": not a process of the service")
	}
	p, err := u.m.o.Reaper.adopt(pid)
	if err != nil {
		return err
	}
	u.mu.Lock()
	a.main = p // Signal reads it
	u.st.PID = pid
	u.mu.Unlock()
	return nil
}

// adopt watches a process that was not started here. A pidfd tells of its end; if it has become our child by
// then, the reaping gives its status, else that went to its parent and is unknown.
func (r *Reaper) adopt(pid int) (*Process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.children[pid]; p != nil {
		return p, nil
	}
	fd, err := unix.PidfdOpen(pid, unix.O_NONBLOCK) // PIDFD_NONBLOCK, Linux 5.10
	if err != nil {
		return nil, about("adopt pid", strconv.Itoa(pid), err)
	}
	p := &Process{reaper: r, pid: pid, done: make(chan struct{})}
	r.children[pid] = p
	p.pidfd = os.NewFile(uintptr(fd), "pidfd")
	go guard.Do(func() { r.watchAdopted(p) })
	return p, nil
}

func (r *Reaper) watchAdopted(p *Process) {
	if raw, err := p.pidfd.SyscallConn(); err == nil {
		// The runtime's poller waits; the function only says whether it is true yet.
		_ = raw.Read(func(fd uintptr) bool {
			fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(fds[:], 0)
			return n == 1 || err != nil && err != unix.EINTR
		})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	defer p.pidfd.Close()
	if p.gone {
		return
	}
	var status unix.WaitStatus
	var usage unix.Rusage
	if pid, err := unix.Wait4(p.pid, &status, unix.WNOHANG, &usage); err != nil || pid != p.pid {
		p.unknown = true // its parent is somebody else
	}
	r.finish(p, status, &usage)
}
