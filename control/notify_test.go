package control

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestNotifyUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	for _, address := range []string{path, "@rouse-test" + path} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		if err := Notify(address, Ready); err != nil {
			t.Error(err)
		}
		buf := make([]byte, 256)
		if n, err := l.Read(buf); err != nil || string(buf[:n]) != "READY=1\nSTATUS=all services are ready\n" {
			t.Errorf("%q, %v", buf[:n], err)
		}
		l.Close()
	}
}

func TestNotifyRefuses(t *testing.T) {
	for _, address := range []string{"", "vsock", "vsock:2", "vsock:x:1", "vsock-stream:2:x", "vsock-stream:4294967296:1", "tcp:1:2", "serial:no-such-port", "/no/such/socket", "@" + t.Name()} {
		if err := Notify(address, "READY=1"); err == nil || !strings.HasPrefix(err.Error(), "notify "+address) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// proxy is the host's end of a VMM that keeps vsock in user space.
func proxy(t *testing.T, serve func(port string, c net.Conn)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vsock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(c).ReadString('\n')
			serve(strings.TrimSpace(line), c)
			c.Close()
		}
	}()
	return path
}

func TestDialHybrid(t *testing.T) {
	s := NewServer(&fakeGuest{}, ServerOptions{Version: "9"})
	path := proxy(t, func(line string, c net.Conn) {
		switch line {
		case "CONNECT 1024":
			io.WriteString(c, "OK 1073741824\n")
			_ = s.serve(context.Background(), c, false)
		case "CONNECT 7":
			io.WriteString(c, "no\n")
		}
	})
	c, err := DialHybrid(t.Context(), path, 1024)
	if err != nil {
		t.Fatal(err)
	}
	var info struct{ Version string }
	if err := c.Do(t.Context(), "guest-info", nil, &info); err != nil || info.Version != "9" {
		t.Errorf("%+v %v", info, err)
	}
	c.Close()
	for port, want := range map[uint32]string{7: `the VMM answers "no", not OK`, 8: "nobody listens there"} {
		if _, err := DialHybrid(t.Context(), path, port); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("port %d: %v", port, err)
		}
	}
}

// TestDialHybridGivesUp: a VMM that does not answer costs no more than the context allows.
func TestDialHybridGivesUp(t *testing.T) {
	gone := make(chan bool)
	path := proxy(t, func(string, net.Conn) { <-gone })
	defer close(gone)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := DialHybrid(ctx, path, 1024); !errors.Is(err, ErrTimeout) {
		t.Errorf("%v, want a time-out", err)
	}
}

// TestErrorKinds: every error that a guest answers with is one of three.
func TestErrorKinds(t *testing.T) {
	for class, want := range map[string]error{ClassTimeout: ErrTimeout, ClassRefused: ErrRefused, ClassGeneric: ErrFailed, ClassNotFound: ErrFailed, "KVMMissingCap": ErrFailed} {
		for _, kind := range []error{ErrTimeout, ErrRefused, ErrFailed} {
			if got := errors.Is(&CommandError{Class: class}, kind); got != (kind == want) {
				t.Errorf("%s: is %v: %v", class, kind, got)
			}
		}
	}
}
