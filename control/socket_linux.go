package control

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// ServeUnix listens on path (mode 0600) and hears root and the own user only, by SO_PEERCRED: between bind
// and chmod, and through a descriptor passed on, the mode alone would not say who speaks. A stale
// socket of an earlier run is replaced. It returns when ctx ends, with nil, or when listening fails.
func (s *Server) ServeUnix(ctx context.Context, path string) error {
	serve, err := s.ListenUnix(path)
	if err != nil {
		return err
	}
	return serve(ctx)
}

// ListenUnix is the first half of ServeUnix: when it returns, clients can connect, and wait for serve. A service may ask
// PID 1 as soon as it is started.
func (s *Server) ListenUnix(path string) (serve func(context.Context) error, err error) {
	l, err := listenUnix(path)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		defer os.Remove(path)
		return s.serveListener(ctx, l, func(c *os.File, _ unix.Sockaddr) error { return ownPeer(c) })
	}, nil
}

func listenUnix(path string) (*listener, error) {
	if fi, err := os.Lstat(path); err == nil && fi.Mode().Type() == os.ModeSocket {
		os.Remove(path)
	}
	var l *listener
	err := shortPath(path, func(short string) (err error) {
		l, err = listen(unix.AF_UNIX, &unix.SockaddrUnix{Name: short})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// sunPathMax is what fits sockaddr_un.sun_path with its NUL: char sun_path[108], include/uapi/linux/un.h.
const sunPathMax = 107

// shortPath calls f with a name of the socket at path that fits a sockaddr_un, valid while f runs.
func shortPath(path string, f func(short string) error) error {
	if len(path) <= sunPathMax {
		return f(path)
	}
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	defer unix.Close(dir)
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path)))
}

// DialSocket connects to the unix socket at path, which may be longer than the 107 bytes of a
// socket address. It waits while the listener's backlog is full: QEMU's holds one connection. What it
// returns is served by the runtime's poller and knows deadlines.
func DialSocket(ctx context.Context, path string) (*os.File, error) {
	for {
		var c *os.File
		err := shortPath(path, func(short string) (err error) {
			c, err = dialUnix(short)
			return err
		})
		if err == nil {
			return c, nil
		}
		// Nothing tells when there is room: connect(2) on a non-blocking unix socket only says EAGAIN.
		if !errors.Is(err, unix.EAGAIN) || !pause(ctx, 5*time.Millisecond) {
			return nil, fmt.Errorf("connect %s: %w", path, err)
		}
	}
}

func dialUnix(path string) (*os.File, error) {
	fd, err := socket(unix.AF_UNIX)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// socket makes a stream socket for the runtime's poller. Package net would do as well for unix sockets,
// not for vsock, and costs /init a third of a megabyte.
func socket(family int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	return fd, os.NewSyscallError("socket", err)
}

// ownPeer refuses peers that are neither root nor the own user (who could ptrace us anyway).
func ownPeer(c *os.File) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return fmt.Errorf("peer credentials: %w", err)
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("uid %d, pid %d: only root is heard", cred.Uid, cred.Pid)
	}
	return nil
}

// listener accepts by the runtime's poller.
type listener struct{ f *os.File }

func listen(family int, address unix.Sockaddr) (*listener, error) {
	fd, err := socket(family)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, address); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(fd, maxConns); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("listen", err)
	}
	return &listener{os.NewFile(uintptr(fd), "listener")}, nil
}

// Close ends a waiting accept.
func (l *listener) Close() error { return l.f.Close() }

func (l *listener) accept() (*os.File, unix.Sockaddr, error) {
	raw, err := l.f.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var fd int
	var from unix.Sockaddr
	var acceptErr error
	err = raw.Read(func(s uintptr) bool {
		fd, from, acceptErr = unix.Accept4(int(s), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		return acceptErr != unix.EAGAIN
	})
	if err != nil {
		return nil, nil, err
	}
	if acceptErr != nil {
		return nil, nil, os.NewSyscallError("accept", acceptErr)
	}
	return os.NewFile(uintptr(fd), "connection"), from, nil
}

// serveListener serves connections that check lets in, at most maxConns at a time, until ctx ends.
func (s *Server) serveListener(ctx context.Context, l *listener, check func(*os.File, unix.Sockaddr) error) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	var all sync.WaitGroup
	defer all.Wait()
	slots := make(chan struct{}, maxConns)
	for {
		c, from, err := l.accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if retryAccept(ctx, err) {
				continue
			}
			return fmt.Errorf("accept: %w", err)
		}
		if err := check(c, from); err != nil {
			s.o.Log("control: connection refused: %v", err)
			c.Close()
			continue
		}
		select {
		case slots <- struct{}{}:
			all.Go(func() { s.serveConn(ctx, c); <-slots })
		default:
			s.o.Log("control: connection refused: %d are open already", maxConns)
			c.Close()
		}
	}
}

// retryAccept waits a little if err is a lack that passes: descriptors or memory.
func retryAccept(ctx context.Context, err error) bool {
	for _, passing := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED, unix.EINTR} {
		if errors.Is(err, passing) {
			return pause(ctx, 50*time.Millisecond)
		}
	}
	return false
}

// pause waits for d, or returns false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *Server) serveConn(ctx context.Context, c *os.File) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	defer c.Close()
	// Its end is the client's affair: an EOF or a reset is how connections end, and a restore resets
	// every vsock connection.
	_ = s.serve(ctx, c, false)
}
