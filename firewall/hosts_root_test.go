//go:build root

package firewall

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// patience bounds every wait of these tests; nothing is asserted about time.
const patience = time.Minute

// A host is a network namespace of the test's own.
type host struct {
	name   string
	fd     int
	cgroup string // that its threads join; "" is the test's own
}

// newHosts makes hosts named a, b, ... with loopback up. Nothing of the
// machine's own network is touched.
func newHosts(t testing.TB, n int) []*host {
	t.Helper()
	var hosts []*host
	for i := range n {
		h := &host{name: string(rune('a' + i)), fd: -1}
		err := inThrowaway(func() error {
			fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			h.fd = fd
			if err != nil {
				return err
			}
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			return netlink.LinkSetUp(lo)
		})
		if err != nil {
			t.Fatalf("host %s: %v", h.name, err)
		}
		t.Cleanup(func() { unix.Close(h.fd) })
		hosts = append(hosts, h)
	}
	return hosts
}

// run runs f on a thread inside the host; the thread ends with it.
func (h *host) run(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(h.fd, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		if h.cgroup != "" {
			tid := strconv.Itoa(unix.Gettid())
			if err := os.WriteFile(h.cgroup+"/cgroup.threads", []byte(tid), 0); err != nil {
				done <- err
				return
			}
		}
		done <- f()
	}()
	return <-done
}

func (h *host) must(t testing.TB, f func() error) {
	t.Helper()
	if err := h.run(f); err != nil {
		t.Fatalf("host %s: %v", h.name, err)
	}
}

// sh runs a command inside the host and gives what it printed.
func (h *host) sh(t testing.TB, line string) string {
	t.Helper()
	var out []byte
	h.must(t, func() (err error) {
		out, err = exec.Command("sh", "-c", line).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%s: %w: %s", line, err, out)
		}
		return err
	})
	return string(out)
}

// wire links two hosts by a veth pair named after the peer, "to-b" in a and
// "to-a" in b, with addresses 10.NET.0.1 and .2 and fd00:NET::1 and ::2.
func wire(t testing.TB, a, b *host, network int) {
	t.Helper()
	a.must(t, func() error {
		attrs := netlink.NewLinkAttrs() // a queue length of 0 would be set right by the first qdisc
		attrs.Name = "to-" + b.name
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "to-" + a.name, PeerNamespace: netlink.NsFd(b.fd)})
	})
	for i, h := range []*host{a, b} {
		peer := []*host{b, a}[i]
		h.must(t, func() error { return address2(peer.name, network, i+1) })
	}
	awaitWire(t, a, b, fmt.Sprintf("fd00:%d::1", network))
	awaitWire(t, b, a, fmt.Sprintf("fd00:%d::2", network))
}

// awaitWire waits until the link to a peer carries packets and its IPv6 address is the host's own. A link that was set up
// before its other end is told of the carrier by a worker of the kernel's (linkwatch_do_dev, net/core/link_watch.c,
// v6.12), and drops in silence what is sent until then; another worker makes the address usable and its route after
// that (addrconf_dad_work, net/ipv6/addrconf.c).
func awaitWire(t testing.TB, h, peer *host, ip string) {
	t.Helper()
	await(t, "the link to "+peer.name+" to carry packets", func() (up bool) {
		h.must(t, func() error {
			link, err := netlink.LinkByName("to-" + peer.name)
			if err != nil {
				return err
			}
			routes, err := netlink.RouteGet(net.ParseIP(ip))
			up = link.Attrs().OperState == netlink.OperUp && err == nil && routes[0].Type == unix.RTN_LOCAL
			return nil
		})
		return up
	})
}

func address2(peer string, network, last int) error {
	link, err := netlink.LinkByName("to-" + peer)
	if err != nil {
		return err
	}
	for _, s := range []string{fmt.Sprintf("10.%d.0.%d/24", network, last), fmt.Sprintf("fd00:%d::%d/64", network, last)} {
		addr, err := netlink.ParseAddr(s)
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(link, addr); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(link)
}

// mechanisms are what each test of behaviour is run with.
var mechanisms = []string{"nftables", "nftables+tc", "tc", "cgroup", "cgroup+tc"}

func eachMechanism(t *testing.T, f func(t *testing.T, name string)) {
	for _, name := range mechanisms {
		t.Run(name, func(t *testing.T) { f(t, name) })
	}
}

// pair gives two hosts with a wire, and a gate in the first.
func pair(t testing.TB, o Options) (a, b *host, g *Gate) {
	t.Helper()
	hosts := newHosts(t, 2)
	a, b = hosts[0], hosts[1]
	wire(t, a, b, 1)
	if strings.Contains(o.Mechanism, "cgroup") {
		a.joinCgroup(t)
		o.cgroup = a.cgroup
	}
	return a, b, a.gate(t, o)
}

// joinCgroup gives the host a cgroup of its own. A host is threads of this
// process, and those can be in different cgroups only if the cgroups are
// threaded ones below one that the process is in.
func (h *host) joinCgroup(t testing.TB) {
	t.Helper()
	root, err := cgroupRoot()
	if err != nil {
		t.Skip(err)
	}
	all, err := os.MkdirTemp(root, "rouse-test-")
	if err != nil {
		t.Fatal(err)
	}
	h.cgroup = filepath.Join(all, h.name)
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	back := root
	for _, line := range strings.Split(string(own), "\n") {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			back = filepath.Join(root, path)
		}
	}
	pid := []byte(strconv.Itoa(os.Getpid()))
	steps := []error{
		os.WriteFile(all+"/cgroup.procs", pid, 0),
		os.Mkdir(h.cgroup, 0o755),
		os.WriteFile(h.cgroup+"/cgroup.type", []byte("threaded"), 0),
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		await(t, "the host's threads to end", func() bool { return os.Remove(h.cgroup) == nil })
		if err := os.WriteFile(back+"/cgroup.procs", pid, 0); err != nil {
			t.Error(err)
		}
		// A thread that is about to end is not moved, and may not be gone yet.
		await(t, "the process's ending threads", func() bool { return os.Remove(all) == nil })
	})
}

func (h *host) gate(t testing.TB, o Options) *Gate {
	t.Helper()
	var g *Gate
	h.must(t, func() (err error) {
		g, err = New(o)
		return err
	})
	t.Cleanup(func() { g.Close() })
	return g
}

func set(t testing.TB, g *Gate, s State) {
	t.Helper()
	if err := g.Set(s); err != nil {
		t.Fatal(err)
	}
	wantState(t, g, s)
}

func wantState(t testing.TB, g *Gate, want State) {
	t.Helper()
	if got, err := g.State(); got != want || err != nil {
		t.Fatalf("state %v, %v; want %v", got, err, want)
	}
}

// listen listens inside the host.
func (h *host) listen(t testing.TB, address string) *net.TCPListener {
	t.Helper()
	var l net.Listener
	h.must(t, func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// dial connects from inside the host and waits as long as it takes.
func (h *host) dial(address string) (*net.TCPConn, error) {
	var c net.Conn
	err := h.run(func() (err error) {
		c, err = net.DialTimeout("tcp", address, patience)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), c.SetDeadline(time.Now().Add(patience))
}

// connected gives both ends of a connection from h to a listener's address.
func connected(t testing.TB, h *host, l *net.TCPListener) (client, server *net.TCPConn) {
	t.Helper()
	client, err := h.dial(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	l.SetDeadline(time.Now().Add(patience))
	server, err = l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	server.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// tcpInfo gives the kernel's view of a connection.
func tcpInfo(t testing.TB, c *net.TCPConn) *unix.TCPInfo {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	var infoErr error
	if err := raw.Control(func(fd uintptr) {
		info, infoErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); err != nil || infoErr != nil {
		t.Fatal(err, infoErr)
	}
	return info
}

// await polls what the kernel gives no event for.
func await(t testing.TB, what string, ready func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ready(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// A tap sees all frames that reach a host's link, below its IP stack.
type tap struct{ fd int }

func (h *host) tap(t testing.TB, link string) *tap {
	t.Helper()
	p := &tap{fd: -1}
	h.must(t, func() error {
		ifi, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		all := htons(unix.ETH_P_ALL)
		p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all))
		if err != nil {
			return err
		}
		if err := unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
			return err
		}
		return unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifi.Index})
	})
	t.Cleanup(func() { unix.Close(p.fd) })
	return p
}

// drain gives the frames that came in so far, all of those that left the peer
// before the call among them: it waits until the receive path has run empty.
// What the host itself sent does not count.
func (p *tap) drain(t testing.TB) [][]byte {
	t.Helper()
	settleReceivePath(t)
	var frames [][]byte
	buf := make([]byte, 1<<16)
	for {
		n, from, err := unix.Recvfrom(p.fd, buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return frames
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			t.Fatalf("tap: %v", err)
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); !ok || ll.Pkttype != unix.PACKET_OUTGOING {
			frames = append(frames, append([]byte{}, buf[:n]...))
		}
	}
}

// settleReceivePath awaits an RCU grace period of the network stack: closing a
// packet socket that had a protocol does (packet_release calls
// synchronize_net, net/packet/af_packet.c). Every frame that was on a CPU's
// backlog has then been handed to the sockets.
func settleReceivePath(t testing.TB) {
	t.Helper()
	for range 2 {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_LOOPBACK)))
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
}

// send sends one UDP datagram from inside the host; the kernel's refusal is
// the gate's doing and no error of the test.
func (h *host) send(to, payload string) error {
	return h.run(func() error {
		c, err := net.Dial("udp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte(payload))
		return err
	})
}

// need skips a test for want of a program, and fails it in CI, which installs
// what the tests need.
func need(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v", err)
		}
		t.Skipf("no program %s", program)
	}
}

// isReset says whether an Ethernet frame holds a TCP reset or an ICMP error:
// what a gate must never send.
func isReset(f []byte) bool {
	switch {
	case len(f) >= 54 && f[12] == 0x08 && f[13] == 0x00 && f[23] == unix.IPPROTO_TCP:
		return f[14+int(f[14]&15)*4+13]&0x04 != 0
	case len(f) >= 35 && f[12] == 0x08 && f[13] == 0x00 && f[23] == unix.IPPROTO_ICMP:
		return f[34] == 3
	case len(f) >= 74 && f[12] == 0x86 && f[13] == 0xdd && f[20] == unix.IPPROTO_TCP:
		return f[54+13]&0x04 != 0
	}
	return false
}
