package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Requests over every way to a server that there is.
func TestTargetDo(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "web")
	for _, c := range []struct{ name, network, listen, url string }{
		{"IPv4", "tcp", "127.0.0.1:0", "http://127.0.0.1:%s/x?y=1"},
		{"IPv4 in IPv6", "tcp", "127.0.0.1:0", "http://[::ffff:127.0.0.1]:%s/x?y=1"},
		{"IPv6", "tcp", "[::1]:0", "http://[::1]:%s/x?y=1"},
		{"localhost, IPv4", "tcp", "127.0.0.1:0", "http://localhost:%s/x?y=1"},
		{"localhost, IPv6", "tcp", "[::1]:0", "http://localhost:%s/x?y=1"},
		{"unix", "unix", sock, "unix:%s:/x?y=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := net.Listen(c.network, c.listen)
			if err != nil {
				t.Skipf("no %s here: %v", c.listen, err)
			}
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(418)
				fmt.Fprint(w, r.Method, " ", r.RequestURI)
			})}
			defer srv.Close()
			go func() { _ = srv.Serve(l) }()
			where := l.Addr().String()
			if c.network == "tcp" {
				_, where, _ = net.SplitHostPort(where)
			}
			target, err := parseTarget(fmt.Sprintf(c.url, where))
			if err != nil {
				t.Fatal(err)
			}
			code, body, err := target.do(t.Context(), "POST")
			if code != 418 || string(body) != "POST /x?y=1" || err != nil {
				t.Errorf("%d %q, %v", code, body, err)
			}
		})
	}
}

func TestTargetErrors(t *testing.T) {
	bound := tcpSocket(t) // and does not listen: nobody else gets its port
	if err := unix.Bind(bound, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	a, err := unix.Getsockname(bound)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", a.(*unix.SockaddrInet4).Port)
	_, _, err = target{Network: "tcp", Address: address}.do(t.Context(), "GET")
	if !errors.Is(err, unix.ECONNREFUSED) || !strings.HasPrefix(err.Error(), "connect "+address+": ") {
		t.Errorf("nobody listens: %v", err)
	}
	_, _, err = target{Network: "unix", Address: filepath.Join(t.TempDir(), "none")}.do(t.Context(), "GET")
	if !errors.Is(err, unix.ENOENT) {
		t.Errorf("no socket: %v", err)
	}
}

// A full listener drops what begins a connection: only the context ends the waiting.
func TestTargetConnectEnds(t *testing.T) {
	listener := tcpSocket(t)
	if err := unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(listener, 0); err != nil {
		t.Fatal(err)
	}
	a, err := unix.Getsockname(listener)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if err := unix.Connect(tcpSocket(t), a); err != nil && err != unix.EINPROGRESS {
			t.Fatal(err)
		}
	}
	// Its queue is full when one connection waits in it, which the kernel may bring about later.
	for n := 0; n == 0; {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}, -1)
		if err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
		n = max(n, 0)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	address := fmt.Sprintf("127.0.0.1:%d", a.(*unix.SockaddrInet4).Port)
	_, _, err = target{Network: "tcp", Address: address}.do(ctx, "GET")
	if !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "connect ") {
		t.Error(err)
	}
}

func tcpSocket(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}
