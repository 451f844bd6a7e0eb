//go:build root

package sockdiag

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// isolated runs the calling test again in a process that sees no other: new pid, mount and network namespaces. What looks
// at the whole machine is tested like that, so that it meets nothing but its own. True inside.
func isolated(t *testing.T) bool {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("not root: cannot make namespaces")
	}
	if os.Getenv("SOCKDIAG_ISOLATED") != "" {
		if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			t.Fatalf("mount /proc: %v", err)
		}
		linkUp(t, "lo")
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "SOCKDIAG_ISOLATED=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET, Unshareflags: unix.CLONE_NEWNS,
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	} else if strings.Contains(string(out), "--- SKIP") {
		t.Skipf("%s", out)
	}
	return false
}

// TestAllNamespaces: a process in a namespace of its own, and one that is only mounted; both seen, and let go.
func TestAllNamespaces(t *testing.T) {
	if !isolated(t) {
		return
	}
	for way, o := range ways {
		t.Run(way, func(t *testing.T) {
			o.AllNamespaces = true
			ins := inspect(t, o)
			untilIdle(t, ins)
			other := helperIn(t, unix.CLONE_NEWNET, "unread")
			s := untilOne(t, ins, "tcp", "ESTABLISHED", whyUnread)
			if s.PID != other.Process.Pid || s.Netns == 0 || s.Unread != 5 {
				t.Errorf("%+v", s)
			}
			if one := inspect(t, Options{}); len(busy(t, one)) != 0 {
				t.Error("seen without AllNamespaces")
			}
			path := mountNamespace(t, other.Process.Pid)
			if err := other.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = other.Wait()
			untilIdle(t, ins)
			if len(ins.spaces) != 2 || ins.spaces[1].inode != s.Netns {
				t.Errorf("a mounted namespace is not looked at: %d", len(ins.spaces))
			}
			if err := ins.Flush(); err != nil {
				t.Errorf("Flush: %v", err)
			}
			if err := unix.Unmount(path, 0); err != nil {
				t.Fatal(err)
			}
			untilIdle(t, ins)
			if len(ins.spaces) != 1 {
				t.Error("a namespace without users is held open")
			}
		})
	}
}

func mountNamespace(t *testing.T, pid int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "with blank")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("/proc/"+itoa(pid)+"/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestDestroyInOtherNamespace destroys what a container has open to the outside, and nothing of the own namespace.
func TestDestroyInOtherNamespace(t *testing.T) {
	if !isolated(t) {
		return
	}
	ins := inspect(t, Options{AllNamespaces: true})
	helperIn(t, unix.CLONE_NEWNET, "udp")
	found := inherited(t, ins)
	if len(found) != 1 || found[0].Netns == 0 {
		t.Fatalf("inherited:\n%s", list(found))
	}
	left, err := ins.Destroy(context.Background(), found)
	if err != nil || len(left) != 0 || len(inherited(t, ins)) != 0 {
		t.Errorf("Destroy: %v, left:\n%s", err, list(left))
	}
}

// TestPipes: between two processes, named by the one that reads; within one they do not count.
func TestPipes(t *testing.T) {
	if !isolated(t) {
		return
	}
	ins := inspect(t, Options{Pipes: true})
	var alone [2]int
	if err := unix.Pipe2(alone[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	own(t, alone[1]).write("an event loop's own")
	own(t, alone[0])
	untilIdle(t, ins)

	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	reader := helper(t, "fifo", fifo)
	fd, err := unix.Open(fifo, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	w := own(t, fd)
	untilIdle(t, ins)
	w.write("12345")
	s := untilOne(t, ins, "pipe", "", whyUnread)
	if s.Unread != 5 || s.Local != fifo || s.PID != reader.Process.Pid {
		t.Errorf("%+v", s)
	}
	excluding := inspect(t, Options{Pipes: true, ExcludePIDs: []int{reader.Process.Pid}})
	untilIdle(t, excluding)
	fd, err = unix.Open(fifo, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	own(t, fd).readAll(5)
	untilIdle(t, ins)
}

// TestVsock: without a transport nothing can be queued; that the sockets are found and told from others is all that can be
// seen here. The bytes are looked at in the VM tests.
func TestVsock(t *testing.T) {
	if !isolated(t) {
		return
	}
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skipf("kernel without CONFIG_VSOCKETS: %v", err)
	}
	v := own(t, fd)
	unixPair(t, unix.SOCK_STREAM)
	v.must(unix.Bind(v.fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: 5005}))
	v.must(unix.Listen(v.fd, 1))
	ins := inspect(t, Options{Unlisted: true})
	untilIdle(t, ins)
	n := 0
	for _, is := range ins.handles.kinds {
		if is == kindVsock {
			n++
		}
	}
	if n != 1 || len(ins.handles.kinds) < 3 {
		t.Errorf("%d of %d sockets taken for vsock", n, len(ins.handles.kinds))
	}
	l := look{ins: ins, ctx: context.Background()}
	l.vsock(handle{inode: 1}, v.fd)
	if len(l.found) != 0 {
		t.Errorf("idle: %s", list(l.found))
	}
}

// TestVsockRow: any stream socket answers what vsock is asked, so a pair of unix sockets stands in for one.
func TestVsockRow(t *testing.T) {
	enterNetns(t)
	ins := inspect(t, Options{})
	a, b := unixPair(t, unix.SOCK_STREAM)
	a.write("123")
	l := look{ins: ins, ctx: context.Background()}
	l.vsock(handle{inode: 7}, b.fd)
	if len(l.found) != 1 || l.found[0].Unread != 3 || l.found[0].Protocol != "vsock" || l.found[0].State != "ESTABLISHED" {
		t.Errorf("%s", list(l.found))
	}
	listener := newSock(t, unix.AF_UNIX, unix.SOCK_STREAM, 0)
	listener.must(unix.Bind(listener.fd, &unix.SockaddrUnix{Name: "@vsock"}))
	listener.must(unix.Listen(listener.fd, 1))
	c := newSock(t, unix.AF_UNIX, unix.SOCK_STREAM, 0)
	c.must(unix.Connect(c.fd, &unix.SockaddrUnix{Name: "@vsock"}))
	l.found = nil
	l.vsock(handle{inode: 8}, listener.fd)
	if len(l.found) != 1 || l.found[0].State != "LISTEN" || l.found[0].Queued != 1 {
		t.Errorf("%s", list(l.found))
	}
}

// TestExcludedPeerWithoutDiag: a client of rouse is known by the process at its other end.
func TestExcludedPeerWithoutDiag(t *testing.T) {
	if !isolated(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "control")
	server := helper(t, "serve", path)
	c := newSock(t, unix.AF_UNIX, unix.SOCK_STREAM, 0)
	c.must(unix.Connect(c.fd, &unix.SockaddrUnix{Name: path}))
	for way, o := range ways {
		until(t, inspect(t, o), "greeted", func(f []Socket) bool {
			return len(f) > 0 && f[0].PID != 0
		})
		o.ExcludePIDs = []int{server.Process.Pid}
		if left := busy(t, inspect(t, o)); len(left) != 0 {
			t.Errorf("%s:\n%s", way, list(left))
		}
	}
}

func TestDestroyWithoutDiag(t *testing.T) {
	p := newPeer(t)
	for _, proto := range []int{unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE} {
		u := newSock(t, unix.AF_INET, unix.SOCK_DGRAM, proto)
		u.must(unix.Connect(u.fd, &unix.SockaddrInet4{Addr: [4]byte{10, 9, 0, 2}, Port: 9}))
	}
	var listener *sock
	p.there(func() { listener = tcpListener(t, "10.9.0.2") })
	c := tcpSock(t, "10.9.0.1")
	c.must(unix.Connect(c.fd, toSockaddr(listener.name())))
	ins := inspect(t, Options{Withhold: []string{"all"}})
	found := inherited(t, ins)
	if len(found) != 3 || found[0].Cookie != 0 {
		t.Fatalf("inherited:\n%s", list(found))
	}
	left, err := ins.Destroy(context.Background(), found)
	if err != nil || len(left) != 0 || len(inherited(t, ins)) != 0 {
		t.Errorf("Destroy: %v, left:\n%s", err, list(left))
	}
	if _, err := unix.Write(c.fd, []byte("x")); err == nil {
		t.Error("a destroyed connection can still send")
	}
}

// TestDestroySparesListener: what waits to be accepted is left to the service.
func TestDestroySparesListener(t *testing.T) {
	enterNetns(t)
	ins := inspect(t, Options{})
	l := tcpListener(t, "127.0.0.1")
	c := tcpSock(t, "127.0.0.1")
	c.must(unix.Connect(c.fd, toSockaddr(l.name())))
	left, err := ins.Destroy(context.Background(), []Socket{untilOne(t, ins, "tcp", "LISTEN", whyAccept)})
	if err != nil || len(left) != 1 {
		t.Errorf("%v, left:\n%s", err, list(left))
	}
	c.write("x")
	l.accept().readAll(1)
}

// TestNothingIsLeftOpen: descriptors are the same after many looks of every kind as before.
func TestNothingIsLeftOpen(t *testing.T) {
	if !isolated(t) {
		return
	}
	a, _ := unixPair(t, unix.SOCK_STREAM)
	a.write("x")
	count := func() (n int) {
		if err := eachDescriptor(os.Getpid(), func(int, int, []byte) bool { n++; return true }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	for range 20 {
		for _, o := range ways {
			o.AllNamespaces, o.Pipes, o.Unlisted, o.ExcludePIDs = true, true, true, []int{}
			ins, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			busy(t, ins)
			inherited(t, ins)
			if err := errors.Join(ins.Barrier(), ins.Close()); err != nil {
				t.Fatal(err)
			}
			if _, err := ins.Busy(context.Background()); !errors.Is(err, os.ErrClosed) {
				t.Fatalf("a closed Inspector answers: %v", err)
			}
		}
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// unread is a helper with five unread bytes.
func unread() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	at := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 7000}
	l, err := resetting()
	if err != nil {
		return err
	}
	c, err := resetting()
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Bind(l, at), unix.Listen(l, 1), unix.Connect(c, at)); err != nil {
		return err
	}
	if _, _, err := unix.Accept(l); err != nil {
		return err
	}
	_, err = unix.Write(c, []byte("hello"))
	return err
}

// connectUDP is a helper with a connected UDP socket to outside.
func connectUDP() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	outside := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: netlink.NewIPNet([]byte{198, 51, 100, 1})}
	if err := errors.Join(netlink.LinkSetUp(lo), netlink.RouteAdd(outside)); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	return unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{198, 51, 100, 1}, Port: 9})
}

// openFIFO is a helper that has one end open and reads nothing.
func openFIFO(path string) error {
	_, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	return err
}

// serveUnix is a helper that greets whoever connects.
func serveUnix(path string) error {
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Bind(l, &unix.SockaddrUnix{Name: path}), unix.Listen(l, 1)); err != nil {
		return err
	}
	go func() {
		if fd, _, err := unix.Accept(l); err == nil {
			_, _ = unix.Write(fd, []byte("hello"))
		}
	}()
	return nil
}

// TestClosedTCP: half-closed by us, answered and closed by the peer, and not read: in no table, and still readable.
func TestClosedTCP(t *testing.T) {
	if !isolated(t) {
		return
	}
	for name, addr := range loopbacks {
		t.Run(name, func(t *testing.T) {
			ins := inspect(t, Options{Unlisted: true})
			untilIdle(t, ins)
			_, client, server := tcpPair(t, addr)
			client.must(unix.Shutdown(client.fd, unix.SHUT_WR))
			server.readEnd()
			server.write("answer")
			server.close()
			s := untilOne(t, ins, "tcp", "CLOSE", whyUnread)
			if s.Unread != 6 || s.PID != os.Getpid() {
				t.Errorf("%+v", s)
			}
			if listed := inspect(t, Options{}); len(busy(t, listed)) != 0 {
				t.Error("the tables do show it: no pass over descriptors is needed")
			}
			client.readAll(6)
			untilIdle(t, ins)
		})
	}
}

// TestMPTCPWithoutDiag: found by its descriptor.
func TestMPTCPWithoutDiag(t *testing.T) {
	if !isolated(t) {
		return
	}
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protoMPTCP)
	if err != nil {
		t.Skipf("kernel without CONFIG_MPTCP: %v", err)
	}
	exchangeMPTCP(t, inspect(t, Options{Unlisted: true, Withhold: []string{"mptcp"}}), own(t, l))
}

// TestVsockLoopback: real bytes, where the kernel has the vsock_loopback transport.
func TestVsockLoopback(t *testing.T) {
	if !isolated(t) {
		return
	}
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skipf("kernel without CONFIG_VSOCKETS: %v", err)
	}
	l, c := own(t, fd), newSock(t, unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	l.must(unix.Bind(l.fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: 5005}))
	l.must(unix.Listen(l.fd, 1))
	ins := inspect(t, Options{Unlisted: true})
	untilIdle(t, ins)
	if err := unix.Connect(c.fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_LOCAL, Port: 5005}); err != nil {
		t.Skipf("kernel without the vsock_loopback module: %v", err)
	}
	if s := untilOne(t, ins, "vsock", "LISTEN", whyAccept); s.PID != os.Getpid() || s.Queued != 1 {
		t.Errorf("%+v", s)
	}
	server := l.accept()
	untilIdle(t, ins)
	c.write("12345")
	s := untilOne(t, ins, "vsock", "ESTABLISHED", whyUnread)
	if s.Unread != 5 || s.Local != "1:5005" || s.PID != os.Getpid() || !strings.HasPrefix(s.Remote, "1:") {
		t.Errorf("%+v", s)
	}
	server.readAll(5)
	untilIdle(t, ins)
	c.close()
	untilIdle(t, ins) // an unread end is no byte
}
