package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain looks for descriptors and goroutines that the tests left behind.
func TestMain(m *testing.M) {
	before := descriptors()
	code := m.Run()
	if code == 0 && !settles(func() bool { return descriptors() <= before+2 && runtime.NumGoroutine() <= 3 }) {
		// The poller's own two descriptors stay.
		stacks := make([]byte, 1<<20)
		fmt.Printf("left behind: %d descriptors (%d before), goroutines:\n%s\n", descriptors(), before, stacks[:runtime.Stack(stacks, true)])
		code = 1
	}
	os.Exit(code)
}

func descriptors() int {
	fds, _ := os.ReadDir("/proc/self/fd")
	return len(fds)
}

// settles waits for a condition that nothing announces.
func settles(ok func() bool) bool {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return false
}

// serveUnix serves until the test ends and waits for the socket to be there.
func serveUnix(t *testing.T, s *Server, path string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.ServeUnix(ctx, path) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is left behind: %v", err)
		}
	})
	listens := func() bool {
		fi, err := os.Lstat(path)
		if err != nil || fi.Mode().Perm() != 0o600 {
			return false
		}
		conn, err := DialSocket(t.Context(), path)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}
	if !settles(listens) {
		t.Fatal("no socket, or not of mode 0600")
	}
}

func TestUnix(t *testing.T) {
	for _, name := range []string{"s", strings.Repeat("long", 40)} {
		path := filepath.Join(t.TempDir(), name, "sock")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		stale, err := listenUnix(path)
		if err != nil {
			t.Fatal(err)
		}
		stale.Close() // the file stays, as after a crash
		serveUnix(t, NewServer(&fakeGuest{}, ServerOptions{}), path)
		c, err := DialUnix(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Do(t.Context(), "guest-ping", nil, nil); err != nil {
			t.Error(err)
		}
		c.Close()
	}
}

// TestUnixKeepsOtherFiles: only a socket is replaced.
func TestUnixKeepsOtherFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := NewServer(&fakeGuest{}, ServerOptions{}).ServeUnix(t.Context(), path)
	if !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("got %v, want address in use", err)
	}
	if data, _ := os.ReadFile(path); string(data) != "mine" {
		t.Errorf("the file is %q now", data)
	}
}

// TestReconnects: 1000 clients one after the other, some leaving in the middle of a line or of a command; TestMain
// sees what they leave behind.
func TestReconnects(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	serveUnix(t, NewServer(&fakeGuest{}, ServerOptions{}), path)
	for i := range 1000 {
		conn, err := DialSocket(t.Context(), path)
		if err != nil {
			t.Fatal(i, err)
		}
		switch i % 4 {
		case 0:
			conn.Write([]byte(`{"execute":"guest-`))
		case 1:
			conn.Write([]byte(`{"execute":"rouse-services"}` + "\n"))
		case 2:
			conn.Write([]byte("\xff\n\n\xff{}{}}\n"))
		default:
			c := NewClient(conn)
			if err := c.Sync(t.Context()); err != nil {
				t.Fatal(i, err)
			}
			if err := c.Do(t.Context(), "guest-ping", nil, nil); err != nil {
				t.Fatal(i, err)
			}
			c.Close()
		}
		conn.Close()
	}
}

// TestConnectionsAreBounded: beyond maxConns a client is closed at once, and served again when one leaves.
func TestConnectionsAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	serveUnix(t, NewServer(&fakeGuest{}, ServerOptions{}), path)
	var open []*Client
	for len(open) < maxConns {
		// The connection by which serveUnix saw that somebody listens counts until the server has seen its end.
		served := func() bool {
			c, err := DialUnix(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			if c.Do(t.Context(), "guest-ping", nil, nil) != nil {
				c.Close()
				return false
			}
			t.Cleanup(func() { c.Close() })
			open = append(open, c)
			return true
		}
		if !settles(served) {
			t.Fatalf("connection %d was not served", len(open)+1)
		}
	}
	ping := func() error {
		c, err := DialUnix(t.Context(), path)
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Do(t.Context(), "guest-ping", nil, nil)
	}
	if err := ping(); err == nil {
		t.Errorf("connection %d was served", maxConns+1)
	}
	open[0].Close()
	if !settles(func() bool { return ping() == nil }) {
		t.Error("no connection after one was closed")
	}
}

// ptyPair gives a pseudo terminal: the host's end and the name of the guest's, which behaves as an emulated
// UART does.
func ptyPair(t *testing.T) (*os.File, string) {
	t.Helper()
	host, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("needs pseudo terminals:", err)
	}
	t.Cleanup(func() { host.Close() })
	raw, err := host.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err != nil {
		t.Skip("needs pseudo terminals:", err)
	}
	return host, fmt.Sprint("/dev/pts/", n)
}

func serveSerial(t *testing.T, path string) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- NewServer(&fakeGuest{}, ServerOptions{}).ServeSerial(ctx, path) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestSerialTerminal(t *testing.T) {
	host, path := ptyPair(t)
	serveSerial(t, path)
	c := NewClient(host)
	defer c.Close()
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Do(t.Context(), "guest-ping", nil, nil); err != nil {
		t.Error(err)
	}
}

// TestSerialReopens: the port goes away (the host's end closes) and comes back as another one under its name.
func TestSerialReopens(t *testing.T) {
	link := filepath.Join(t.TempDir(), "port")
	serveSerial(t, link) // not there yet
	for range 3 {
		host, path := ptyPair(t)
		if err := os.Symlink(path, link+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+".new", link); err != nil {
			t.Fatal(err)
		}
		c := NewClient(host)
		if err := c.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

// hostless is a port that reads what it is told; nothing stands for the host that goes, as the kernel's reads say it.
type hostless struct {
	net.Conn
	reads chan string
}

func (h *hostless) Read(p []byte) (int, error) {
	switch text, open := <-h.reads; {
	case !open:
		return 0, io.EOF
	case text == "":
		return 0, errHostGone
	default:
		return copy(p, text), nil
	}
}

// TestHostGoes: half a line of a host that went is not the beginning of the next one's.
func TestHostGoes(t *testing.T) {
	host, guest := net.Pipe()
	defer host.Close()
	defer guest.Close()
	port := &hostless{guest, make(chan string)}
	done := make(chan error, 1)
	go func() { done <- NewServer(&fakeGuest{}, ServerOptions{}).serve(t.Context(), port, true) }()
	for _, text := range []string{"", `{"execute":"guest-fly","id":`, "", "\n" + `{"execute":"guest-ping"}` + "\n"} {
		port.reads <- text
	}
	if got, err := bufio.NewReader(host).ReadString('\n'); got != `{"return":{}}`+"\n" {
		t.Errorf("got %q, %v", got, err)
	}
	close(port.reads)
	<-done
}

func TestFindSerial(t *testing.T) {
	dir := t.TempDir()
	for port, name := range map[string]string{"vport1p1": "other\n", "vport2p3": PortName + "\n"} {
		if err := os.MkdirAll(filepath.Join(dir, port), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, port, "name"), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	os.Mkdir(filepath.Join(dir, "vport3p1"), 0o700) // without a name
	if got, err := findSerial(dir, "/dev", PortName); got != "/dev/vport2p3" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	for _, d := range []string{dir, filepath.Join(dir, "none")} {
		if _, err := findSerial(d, "/dev", "nobody"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v, want not found", d, err)
		}
	}
}
