package control

import (
	"context"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// dialVsock connects to this machine itself. Where there is no vsock loopback, vmm's VM tests bring this
// package's test binary into a guest that has it.
func dialVsock(port uint32) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_LOCAL, Port: port}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "vsock"), nil
}

// serveLoopback serves peers of a CID until the test ends, or skips.
func serveLoopback(t *testing.T, port, peer uint32) {
	t.Helper()
	if _, err := os.Stat("/sys/module/vsock_loopback"); err != nil {
		t.Skip("needs module vsock_loopback:", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- NewServer(&fakeGuest{}, ServerOptions{}).serveVsock(ctx, port, peer) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestVsock(t *testing.T) {
	serveLoopback(t, 1024, unix.VMADDR_CID_LOCAL)
	for range 20 {
		var conn *os.File
		if !settles(func() (ok bool) {
			var err error
			conn, err = dialVsock(1024)
			return err == nil
		}) {
			t.Fatal("no connection")
		}
		c := NewClient(conn)
		if err := c.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.Do(t.Context(), "guest-ping", nil, nil); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

// TestVsockHearsTheHostOnly: a process in the guest is not the host.
func TestVsockHearsTheHostOnly(t *testing.T) {
	serveLoopback(t, 1025, unix.VMADDR_CID_HOST)
	var conn *os.File
	if !settles(func() (ok bool) {
		var err error
		conn, err = dialVsock(1025)
		return err == nil
	}) {
		t.Fatal("no connection")
	}
	c := NewClient(conn)
	defer c.Close()
	if err := c.Sync(t.Context()); err == nil {
		t.Error("a local process was heard")
	}
}
