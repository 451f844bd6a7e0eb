package control

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDialWaitsForRoom: a listener with a backlog as short as QEMU's is full, until it accepts.
func TestDialWaitsForRoom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	var open []*os.File
	for range 2 { // the backlog and one
		c, err := DialSocket(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := DialSocket(over, path); err == nil {
		c.Close()
		t.Errorf("connected beyond a backlog of %d", len(open))
	}
	connected := make(chan error, 1)
	go func() {
		c, err := DialSocket(t.Context(), path)
		if err == nil {
			c.Close()
		}
		connected <- err
	}()
	peer, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(peer)
	if err := <-connected; err != nil {
		t.Error(err)
	}
}
