package control

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ServeVsock listens on a vsock port and hears the host only (CID 2). A restore resets the
// connections; the listener survives it. An error that matches unix.EAFNOSUPPORT means a kernel without
// vsock (CONFIG_VSOCKETS, module vsock).
func (s *Server) ServeVsock(ctx context.Context, port uint32) error {
	return s.serveVsock(ctx, port, unix.VMADDR_CID_HOST)
}

func (s *Server) serveVsock(ctx context.Context, port, peer uint32) error {
	l, err := listenVsock(port)
	if err != nil {
		return fmt.Errorf("listen vsock port %d: %w", port, err)
	}
	return s.serveListener(ctx, l, func(c net.Conn) error {
		if cid := c.(*vsockConn).cid; cid != peer {
			return fmt.Errorf("vsock peer CID %d: only CID %d is heard", cid, peer)
		}
		return nil
	})
}

// vsockListener accepts by the runtime's poller; package net knows no AF_VSOCK.
type vsockListener struct{ f *os.File }

func listenVsock(port uint32) (*vsockListener, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(fd, maxConns); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("listen", err)
	}
	return &vsockListener{os.NewFile(uintptr(fd), "vsock")}, nil
}

func (l *vsockListener) Close() error { return l.f.Close() }

func (l *vsockListener) Accept() (net.Conn, error) {
	raw, err := l.f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var from unix.Sockaddr
	var acceptErr error
	err = raw.Read(func(s uintptr) bool {
		fd, from, acceptErr = unix.Accept4(int(s), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		return acceptErr != unix.EAGAIN
	})
	if err != nil {
		return nil, err
	}
	if acceptErr != nil {
		return nil, os.NewSyscallError("accept", acceptErr)
	}
	c := &vsockConn{File: os.NewFile(uintptr(fd), "vsock")}
	if vm, ok := from.(*unix.SockaddrVM); ok {
		c.cid = vm.CID
	}
	return c, nil
}

// vsockConn is a net.Conn as far as serving needs one.
type vsockConn struct {
	*os.File
	cid uint32
}

func (c *vsockConn) LocalAddr() net.Addr           { return nil }
func (c *vsockConn) RemoteAddr() net.Addr          { return nil }
func (c *vsockConn) SetDeadline(t time.Time) error { return c.File.SetDeadline(t) }
func (c *vsockConn) Read(p []byte) (int, error)    { return c.File.Read(p) }

var _ io.Reader = (*vsockConn)(nil)
