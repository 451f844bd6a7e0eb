package control

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// DialVsock connects to the vsock port of a guest from its host, by vhost-vsock; the guest's configuration names the
// port (control.vsock). An error that matches unix.EAFNOSUPPORT or fs.ErrNotExist is a host without vsock. A guest that
// is restored from a snapshot resets the connection: dial again.
func DialVsock(ctx context.Context, cid, port uint32) (*Client, error) {
	conn, err := dialVsock(ctx, cid, port)
	if err != nil {
		return nil, fmt.Errorf("connect vsock %d:%d: %w", cid, port, err)
	}
	return NewClient(conn), nil
}

func dialVsock(ctx context.Context, cid, port uint32) (*os.File, error) {
	fd, err := socket(unix.AF_VSOCK)
	if err != nil {
		return nil, err
	}
	err = unix.Connect(fd, &unix.SockaddrVM{CID: cid, Port: port})
	f := os.NewFile(uintptr(fd), "vsock")
	if errors.Is(err, unix.EINPROGRESS) {
		err = connected(ctx, f)
	}
	if err != nil {
		f.Close()
		return nil, os.NewSyscallError("connect", err)
	}
	return f, nil
}

// connected waits for the end of a connect that is under way.
func connected(ctx context.Context, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	var connectErr error
	err = raw.Write(func(fd uintptr) bool {
		// The poller's own note of the end may have come, and been lost, before this waits for it.
		if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 0); n == 0 {
			return false
		}
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if connectErr = err; err == nil && code != 0 {
			connectErr = unix.Errno(code)
		}
		return true
	})
	if ctx.Err() != nil {
		return ended(ctx, "connect")
	}
	return errors.Join(err, connectErr)
}

// DialHybrid connects to the vsock port of a guest whose VMM keeps vsock in user space, with a unix socket for the host, as
// Firecracker and Cloud Hypervisor do: CONNECT PORT is answered by OK and a number (Firecracker, docs/vsock.md).
func DialHybrid(ctx context.Context, path string, port uint32) (*Client, error) {
	conn, err := DialSocket(ctx, path)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err = askHybrid(conn, port)
	if ctx.Err() != nil {
		err = ended(ctx, "connect")
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect %s port %d: %w", path, port, err)
	}
	return NewClient(conn), nil
}

// askHybrid reads the answer byte by byte: what follows belongs to the guest.
func askHybrid(conn *os.File, port uint32) error {
	if _, err := fmt.Fprintf(conn, "CONNECT %d\n", port); err != nil {
		return err
	}
	line, one := "", make([]byte, 1)
	for len(line) < 64 {
		if _, err := conn.Read(one); err != nil {
			return fmt.Errorf("nobody listens there: %w", err) // the VMM hangs up
		}
		if one[0] == '\n' {
			break
		}
		line += string(one)
	}
	if len(line) < 3 || line[:3] != "OK " {
		return fmt.Errorf("the VMM answers %q, not OK", line)
	}
	return nil
}
