//go:build root

package rootfs

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// guestEnv makes the test binary a guest: Leases in the network namespace that it is started in, driven by lines on its input.
const guestEnv = "ROUSE_TEST_LEASES"

func init() {
	if os.Getenv(guestEnv) != "" {
		guestMain()
		os.Exit(0)
	}
}

type guestWord struct {
	Log       string
	Leases    []*Lease
	Addresses []string
	Routes    []string
	Resolver  string
	Done      string
}

func guestMain() {
	out := json.NewEncoder(os.Stdout)
	words := make(chan guestWord, 100)
	go func() {
		for w := range words {
			_ = out.Encode(w)
		}
	}()
	i := Interface{Name: "eth0", DHCP4: strings.Contains(os.Getenv(guestEnv), "4"), Auto6: strings.Contains(os.Getenv(guestEnv), "6")}
	s := NewLeases(func(format string, args ...any) { words <- guestWord{Log: fmt.Sprintf(format, args...)} }, Resolver{})
	err := unix.Mount("etc", "/etc", "tmpfs", 0, "")
	if err == nil {
		err = ConfigureNetwork([]Interface{i})
	}
	if err == nil {
		err = s.Start(context.Background(), []Interface{i})
	}
	if err != nil {
		words <- guestWord{Log: err.Error()}
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		word, argument, _ := strings.Cut(in.Text(), " ")
		switch word {
		case "await":
			ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
			err = s.Await(ctx)
			cancel()
		case "hold":
			s.Hold()
		case "release":
			s.Release()
		case "moved":
			err = ReplaceNetwork([]Interface{{Name: "eth0", SetMAC: argument}})
			s.Moved()
		case "look":
		}
		addresses, routes := look4()
		text, _ := os.ReadFile("/etc/resolv.conf")
		words <- guestWord{Done: fmt.Sprint(in.Text(), " ", err), Addresses: addresses, Routes: routes, Leases: s.All(), Resolver: string(text)}
	}
}

func look4() (addresses, routes []string) {
	l, err := netlink.LinkByName("eth0")
	if err != nil {
		return nil, nil
	}
	a, _ := netlink.AddrList(l, netlink.FAMILY_ALL)
	for _, x := range a {
		addresses = append(addresses, x.IPNet.String())
	}
	r, _ := netlink.RouteList(l, netlink.FAMILY_ALL)
	for _, x := range r {
		if x.Gw != nil {
			routes = append(routes, fmt.Sprint(x.Dst, " via ", x.Gw))
		}
	}
	return addresses, routes
}

// leaseGuest is a guest process behind a veth pair; the test's own namespace is the server's side, dn0.
type leaseGuest struct {
	t   *testing.T
	in  io.Writer
	out *json.Decoder
	log []string
}

func newLeaseGuest(t *testing.T, families string) *leaseGuest {
	t.Helper()
	la := netlink.NewLinkAttrs()
	la.Name = "dn0"
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: "eth0", PeerHardwareAddr: []byte{2, 0, 0, 0, 0, 9}}))
	dn, _, _ := state(t, "dn0")
	must(t, netlink.LinkSetUp(dn))
	must(t, ConfigureNetwork([]Interface{{Name: "dn0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}}}))
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), guestEnv+"="+families)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS} // it has a resolv.conf of its own
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	// A child is made by the thread that asks for it, in that thread's namespace: a new one for the guest, and back.
	here, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	there, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Setns(here, unix.CLONE_NEWNET))
	peer, _, _ := state(t, "eth0")
	must(t, netlink.LinkSetNsFd(peer, there))
	must(t, unix.Setns(there, unix.CLONE_NEWNET))
	must(t, cmd.Start())
	must(t, unix.Setns(here, unix.CLONE_NEWNET))
	must(t, errors.Join(unix.Close(here), unix.Close(there)))
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	return &leaseGuest{t: t, in: in, out: json.NewDecoder(out)}
}

// until reads the guest's words up to one that is wanted.
func (g *leaseGuest) until(want func(guestWord) bool) guestWord {
	g.t.Helper()
	for {
		var w guestWord
		if err := g.out.Decode(&w); err != nil {
			g.t.Fatalf("guest: %v; it said %q", err, g.log)
		}
		if w.Log != "" {
			g.log = append(g.log, w.Log)
		}
		if want(w) {
			return w
		}
	}
}

func (g *leaseGuest) do(line string) guestWord {
	g.t.Helper()
	_, err := fmt.Fprintln(g.in, line)
	must(g.t, err)
	w := g.until(func(w guestWord) bool { return w.Done != "" })
	if w.Done != line+" <nil>" {
		g.t.Fatalf("%s; it said %q", w.Done, g.log)
	}
	return w
}

type server struct {
	*os.File // what it says
	end      func()
}

// release lets the guest speak again, and waits until its server has said something to it.
func (g *leaseGuest) release(log *server) {
	g.t.Helper()
	said := func() int {
		text := serverLog(g.t, log)
		return strings.Count(text, "DHCPACK") + strings.Count(text, "DHCPREPLY") + strings.Count(text, "DHCPNAK")
	}
	before := said()
	w := g.do("release")
	for said() == before || len(w.Leases) == 0 {
		w = g.do("look")
	}
}

// dnsmasq is the server, in the namespace of the calling thread, and what it writes.
func dnsmasq(t *testing.T, options ...string) *server {
	t.Helper()
	path, err := exec.LookPath("/usr/sbin/dnsmasq")
	if err != nil {
		t.Skip("dnsmasq is missing: install Debian's dnsmasq-base")
	}
	dir := t.TempDir()
	file, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	log := &server{File: file}
	cmd := exec.Command(path, append([]string{"--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--interface=dn0", "--bind-interfaces",
		"--no-resolv", "--no-hosts", "--no-ping", "--log-dhcp", "--log-facility=-", "--pid-file=", "--dhcp-authoritative", "--dhcp-leasefile=" + filepath.Join(dir, "leases")}, options...)...)
	cmd.Stdout, cmd.Stderr = file, file
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL} // also of a test that is ended by its time-out
	must(t, cmd.Start())
	log.end = func() { _, _ = cmd.Process.Kill(), cmd.Wait() }
	t.Cleanup(func() {
		log.end()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("dnsmasq:\n%s", text)
		}
		log.Close()
	})
	return log
}

func serverLog(t *testing.T, log *server) string {
	t.Helper()
	text, err := os.ReadFile(log.Name())
	must(t, err)
	return string(text)
}

var serve4 = []string{"--dhcp-range=192.0.2.50,192.0.2.60,255.255.255.0,2m", "--dhcp-option=option:router,192.0.2.1", "--dhcp-option=option:dns-server,192.0.2.53",
	"--domain=example.test", "--dhcp-option=option:mtu,1400"}

func TestLeaseFromDnsmasq(t *testing.T) {
	unshare(t, unix.CLONE_NEWNET)
	g := newLeaseGuest(t, "4")
	log := dnsmasq(t, serve4...)
	w := g.do("await")
	if len(w.Leases) != 1 || len(w.Addresses) == 0 || !strings.HasPrefix(w.Addresses[0], "192.0.2.5") || !slices.Contains(w.Routes, "0.0.0.0/0 via 192.0.2.1") {
		t.Fatalf("guest has %+v", w)
	}
	l := w.Leases[0]
	if l.Valid != 2*time.Minute || l.T1 != time.Minute || l.MTU != 1400 || fmt.Sprint(l.DNS, l.Search, l.Gateway4, l.Server) != "[192.0.2.53] [example.test] 192.0.2.1 192.0.2.1" {
		t.Errorf("lease %+v", l)
	}
	if w.Resolver != "nameserver 192.0.2.53\nsearch example.test\n" {
		t.Errorf("resolv.conf %q", w.Resolver)
	}
	first := w.Addresses[0]

	// Held, nothing is said; then the same lease is prolonged at once, by its server.
	g.do("hold")
	requests, discoveries := strings.Count(serverLog(t, log), "DHCPREQUEST"), strings.Count(serverLog(t, log), "DHCPDISCOVER")
	if w = g.do("look"); w.Addresses[0] != first {
		t.Errorf("held, it has %v", w.Addresses)
	}
	g.release(log)
	// More than one of each is a server that took its time, and was asked again.
	if now := strings.Count(serverLog(t, log), "DHCPREQUEST"); now <= requests || strings.Count(serverLog(t, log), "DHCPDISCOVER") != discoveries {
		t.Errorf("%d requests after %d, or %d discoveries and more:\n%s", now, requests, discoveries, serverLog(t, log))
	}

	// A copy with a MAC of its own has nothing, and asks as one that never had.
	g.do("hold")
	if w = g.do("moved 02:00:00:00:00:0a"); slices.Contains(w.Addresses, first) || len(w.Leases) != 0 {
		t.Errorf("the copy still has %v", w.Addresses)
	}
	g.release(log)
	if w = g.do("look"); slices.Contains(w.Addresses, first) || !strings.Contains(serverLog(t, log), "DHCPACK(dn0) "+strings.TrimSuffix(w.Leases[0].Address.String(), "/24")+" 02:00:00:00:00:0a") {
		t.Errorf("the copy has %v; server:\n%s", w.Addresses, serverLog(t, log))
	}
}

// Option 121 takes the place of option 3.
func TestClasslessRoutesFromDnsmasq(t *testing.T) {
	unshare(t, unix.CLONE_NEWNET)
	g := newLeaseGuest(t, "4")
	dnsmasq(t, append(serve4, "--dhcp-option=121,198.51.100.0/24,192.0.2.2,203.0.113.7/32,192.0.2.3,0.0.0.0/0,192.0.2.4")...)
	w := g.do("await")
	slices.Sort(w.Routes)
	if got := strings.Join(w.Routes, "; "); got != "0.0.0.0/0 via 192.0.2.4; 198.51.100.0/24 via 192.0.2.2; 203.0.113.7/32 via 192.0.2.3" {
		t.Errorf("routes %s", got)
	}
}

// A server that has forgotten refuses; then there is a new lease, and the old address is gone.
func TestRefusedLease(t *testing.T) {
	unshare(t, unix.CLONE_NEWNET)
	g := newLeaseGuest(t, "4")
	first := dnsmasq(t, serve4...)
	g.do("await")
	g.do("hold")
	first.end()
	other := append([]string{"--dhcp-range=192.0.2.90,192.0.2.95,255.255.255.0,2m"}, serve4[1:]...)
	dnsmasq(t, other...)
	w := g.do("release")
	for !slices.ContainsFunc(w.Addresses, func(a string) bool { return strings.HasPrefix(a, "192.0.2.9") }) {
		w = g.do("look")
	}
	if slices.ContainsFunc(w.Addresses, func(a string) bool { return strings.HasPrefix(a, "192.0.2.5") }) {
		t.Errorf("guest has %v; it said %q", w.Addresses, g.log)
	}
}

// Routers, with and without DHCPv6: the kernel makes the address of the one, and we fetch what the others lend.
func TestRoutersFromDnsmasq(t *testing.T) {
	for _, tt := range []struct{ name, options, address, dns string }{
		{"slaac", "--dhcp-range=2001:db8::,ra-only,64,4m --dhcp-option=option6:dns-server,[2001:db8::53] --dhcp-option=option6:domain-search,six.test", "2001:db8::ff:fe00:9/64", "[2001:db8::53] [six.test]"},
		{"stateless", "--dhcp-range=2001:db8::,ra-stateless,64,4m --dhcp-option=option6:dns-server,[2001:db8::53]", "2001:db8::ff:fe00:9/64", "[2001:db8::53] []"},
		{"managed", "--dhcp-range=2001:db8::100,2001:db8::1ff,64,4m --dhcp-option=option6:dns-server,[2001:db8::53]", "2001:db8::1", "[2001:db8::53] []"},
		{"rapid", "--dhcp-rapid-commit --dhcp-range=2001:db8::100,2001:db8::1ff,64,4m --dhcp-option=option6:dns-server,[2001:db8::53]", "2001:db8::1", "[2001:db8::53] []"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			unshare(t, unix.CLONE_NEWNET)
			g := newLeaseGuest(t, "6")
			log := dnsmasq(t, append(strings.Fields(tt.options), "--enable-ra", "--quiet-ra")...)
			w := g.do("await")
			if !slices.ContainsFunc(w.Addresses, func(a string) bool { return strings.HasPrefix(a, tt.address) }) {
				t.Errorf("guest has %v, want %s; it said %q", w.Addresses, tt.address, g.log)
			}
			for len(w.Leases) == 0 {
				w = g.do("look")
			}
			if got := fmt.Sprint(w.Leases[0].DNS, w.Leases[0].Search); got != tt.dns {
				t.Errorf("names %s, want %s", got, tt.dns)
			}
			if tt.name == "managed" || tt.name == "rapid" {
				g.do("hold")
				before := strings.Count(serverLog(t, log), "DHCPSOLICIT") // more than one where the server took its time
				g.release(log)                                            // renewed at once
				if strings.Count(serverLog(t, log), "DHCPSOLICIT") <= before {
					t.Errorf("no renewal:\n%s", serverLog(t, log))
				}
			}
			g.do("hold")
			if w = g.do("moved 02:00:00:00:00:0a"); len(w.Addresses) != 0 {
				t.Errorf("a copy that may not speak has %v", w.Addresses)
			}
			g.do("release")
			for !slices.ContainsFunc(w.Addresses, func(a string) bool { return strings.HasPrefix(a, "2001:db8::") }) {
				w = g.do("look")
			}
			if slices.Contains(w.Addresses, "2001:db8::ff:fe00:9/64") {
				t.Errorf("the copy has its twin's address among %v", w.Addresses)
			}
		})
	}
}
