//go:build root

package sockdiag

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Should a drain listen to the kernel's destroy groups (SKNLGRP_INET_TCP_DESTROY and its siblings,
// include/uapi/linux/sock_diag.h) rather than look again after a pause? This says no; wait.go has the words.

// destroyListener hears of every TCP and UDP socket that ends in its namespace.
func destroyListener(tb testing.TB) int {
	tb.Helper()
	c, err := dial(unix.NETLINK_SOCK_DIAG)
	if err == nil {
		err = unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 0xf})
	}
	if err == nil {
		err = unix.SetNonblock(c.fd, true)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.close() })
	return c.fd
}

// heard takes what there is; events that did not fit count as one.
func heard(fd int) (n int) {
	var b [8192]byte
	for {
		_, err := unix.Read(fd, b[:])
		switch {
		case errors.Is(err, unix.EAGAIN):
			return n
		case err == nil, errors.Is(err, unix.ENOBUFS):
			n++
		}
	}
}

// A queue that empties is no event: what a drain waits for is not told. Only a socket that ends is.
func TestDestroyGroupsTellNothingOfQueues(t *testing.T) {
	enterNetns(t)
	ins := inspect(t, Options{})
	fd := destroyListener(t)
	_, client, server := tcpPair(t, "127.0.0.1")
	client.write("in the way")
	untilOne(t, ins, "tcp", "ESTABLISHED", whyUnread)
	heard(fd)
	server.readAll(len("in the way"))
	untilIdle(t, ins)
	if n := heard(fd); n != 0 {
		t.Errorf("%d events for a queue that emptied: the drain could wait for them after all", n)
	}
	client.must(unix.SetsockoptLinger(client.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
	client.close()
	server.close()
	for end := time.Now().Add(patience); heard(fd) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no event for sockets that ended: the listener hears nothing")
		}
	}
}
