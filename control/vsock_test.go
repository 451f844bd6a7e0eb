package control

import (
	"context"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// loopback connects to this machine itself. Where there is no vsock loopback, vmm's VM tests bring this
// package's test binary into a guest that has it.
func loopback(port uint32) (*os.File, error) {
	return dialVsock(context.Background(), unix.VMADDR_CID_LOCAL, port)
}

// serveLoopback serves peers of a CID until the test ends, or skips.
func serveLoopback(t *testing.T, port, peer uint32) {
	t.Helper()
	needLoopback(t)
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

func needLoopback(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/sys/module/vsock_loopback"); err != nil {
		t.Skip("needs module vsock_loopback:", err)
	}
}

func TestVsock(t *testing.T) {
	serveLoopback(t, 1024, unix.VMADDR_CID_LOCAL)
	for range 20 {
		var conn *os.File
		if !settles(func() (ok bool) {
			var err error
			conn, err = loopback(1024)
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
		conn, err = loopback(1025)
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

// TestDialVsockRefused: nobody listens there.
func TestDialVsockRefused(t *testing.T) {
	needLoopback(t)
	if c, err := DialVsock(t.Context(), unix.VMADDR_CID_LOCAL, 4242); err == nil {
		c.Close()
		t.Error("connected to nobody")
	} else {
		t.Log(err)
	}
}

// TestNotifyVsock: every kind of socket that the loopback has.
func TestNotifyVsock(t *testing.T) {
	needLoopback(t)
	for kind, address := range map[int]string{unix.SOCK_STREAM: "vsock-stream:1:2000", unix.SOCK_SEQPACKET: "vsock:1:2000"} {
		fd, err := unix.Socket(unix.AF_VSOCK, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: 2000}); err != nil {
			t.Fatal(err)
		}
		if err := unix.Listen(fd, 1); err != nil {
			t.Fatal(err)
		}
		if err := Notify(address, Ready); err != nil {
			t.Errorf("%s: %v", address, err)
		} else if got := receive(t, fd); got != readyState {
			t.Errorf("%s: %q", address, got)
		}
		unix.Close(fd)
	}
}

const readyState = "READY=1\nSTATUS=all services are ready\n"

// receive takes what one connection sends first.
func receive(t *testing.T, listener int) string {
	c, _, err := unix.Accept(listener)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c)
	buf := make([]byte, 256)
	n, err := unix.Read(c, buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}
