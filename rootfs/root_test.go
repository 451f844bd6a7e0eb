//go:build root

package rootfs

import (
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"rouse/rootfs/rtnl"
)

// unshare gives the test's thread namespaces of its own. The thread is never unlocked, so it dies with the test's goroutine
// and nothing else ever runs in them.
func unshare(t *testing.T, flags int) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(flags); err != nil {
		t.Skipf("unshare: %v: run as root", err)
	}
	if flags&unix.CLONE_NEWNS != 0 {
		must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	}
}

// patience bounds waits for what the kernel and other processes do, on a machine that may be busy with other tests; nothing is
// asserted about time.
const patience = time.Minute

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pair makes a veth pair with known MACs in the thread's network namespace; both ends are down.
func pair(t *testing.T, a, b string) {
	t.Helper()
	la := netlink.NewLinkAttrs()
	la.Name, la.HardwareAddr = a, []byte{2, 0, 0, 0, 0, 1}
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: b, PeerHardwareAddr: []byte{2, 0, 0, 0, 0, 2}}))
}

func state(t *testing.T, name string) (l netlink.Link, addresses []netlink.Addr, routes []netlink.Route) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	must(t, err)
	addresses, err = netlink.AddrList(l, netlink.FAMILY_ALL)
	must(t, err)
	routes, err = netlink.RouteList(l, netlink.FAMILY_ALL)
	must(t, err)
	return l, addresses, routes
}

func hasAddress(list []netlink.Addr, p string) *netlink.Addr {
	for n, a := range list {
		if ones, _ := a.Mask.Size(); a.IP.Equal(netip.MustParsePrefix(p).Addr().AsSlice()) && ones == netip.MustParsePrefix(p).Bits() {
			return &list[n]
		}
	}
	return nil
}

func hasGateway(list []netlink.Route, gateway string) bool {
	return slices.ContainsFunc(list, func(r netlink.Route) bool { return r.Gw.String() == gateway })
}

func TestConfigureNetwork(t *testing.T) {
	unshare(t, unix.CLONE_NEWNET)
	pair(t, "up0", "peer0")
	peer, _, _ := state(t, "peer0")
	must(t, netlink.LinkSetUp(peer))
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	first := Interface{MAC: "02:00:00:00:00:01", Name: "lan0", MTU: 1400,
		Addresses: []netip.Prefix{p("192.0.2.10/24"), p("2001:db8::10/64")}, Gateway4: a("192.0.2.1"), Gateway6: a("fe80::1"),
		Routes: []Route{{Destination: p("198.51.100.0/24"), Gateway: a("203.0.113.1"), Metric: 50}, {Destination: p("203.0.113.0/30")}}}
	must(t, ConfigureNetwork([]Interface{first}))
	must(t, ConfigureNetwork([]Interface{first})) // what is set already is fine
	l, addresses, routes := state(t, "lan0")
	if l.Attrs().MTU != 1400 {
		t.Errorf("mtu %d", l.Attrs().MTU)
	}
	if hasAddress(addresses, "192.0.2.10/24") == nil {
		t.Errorf("addresses %v", addresses)
	}
	if six := hasAddress(addresses, "2001:db8::10/64"); six == nil || six.Flags&unix.IFA_F_TENTATIVE != 0 {
		t.Errorf("IPv6 address %+v is missing or tentative", six)
	}
	for _, gw := range []string{"192.0.2.1", "fe80::1", "203.0.113.1"} {
		if !hasGateway(routes, gw) {
			t.Errorf("no route via %s in %v", gw, routes)
		}
	}
	if lo, addresses, _ := state(t, "lo"); lo.Attrs().RawFlags&unix.IFF_UP == 0 || hasAddress(addresses, "127.0.0.1/8") == nil || hasAddress(addresses, "::1/128") == nil {
		t.Errorf("lo is not up with its addresses: %v", addresses)
	}

	if hasAddress(addresses, "fe80::ff:fe00:1/64") == nil {
		t.Fatalf("the kernel gave no link-local address: %v", addresses)
	}

	second := Interface{Name: "lan0", SetMAC: "02:00:00:00:00:99", Addresses: []netip.Prefix{p("192.0.2.20/24"), p("2001:db8::20/64")}, Gateway4: a("192.0.2.2")}
	must(t, ReplaceNetwork([]Interface{second}))
	l, addresses, routes = state(t, "lan0")
	if l.Attrs().HardwareAddr.String() != "02:00:00:00:00:99" {
		t.Errorf("MAC %s", l.Attrs().HardwareAddr)
	}
	if hasAddress(addresses, "192.0.2.10/24") != nil || hasAddress(addresses, "2001:db8::10/64") != nil || hasAddress(addresses, "192.0.2.20/24") == nil {
		t.Errorf("after replacing: addresses %v", addresses)
	}
	if hasAddress(addresses, "fe80::ff:fe00:1/64") != nil || hasAddress(addresses, "fe80::ff:fe00:99/64") == nil {
		t.Errorf("after replacing: link-local addresses in %v", addresses)
	}
	if hasGateway(routes, "192.0.2.1") || hasGateway(routes, "fe80::1") || hasGateway(routes, "203.0.113.1") || !hasGateway(routes, "192.0.2.2") {
		t.Errorf("after replacing: routes %v", routes)
	}
}

// A NIC that appears only after the wait began is taken.
func TestLateNIC(t *testing.T) {
	unshare(t, unix.CLONE_NEWNET)
	h, err := rtnl.Dial(0)
	must(t, err)
	defer h.Close()
	type result struct {
		l   rtnl.Link
		err error
	}
	ns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(ns)
	done := make(chan result)
	started := make(chan struct{})
	go func() {
		runtime.LockOSThread() // ends with the goroutine
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			close(started)
			done <- result{err: err}
			return
		}
		close(started)
		l, err := waitLink(h, &Interface{Name: "late0"}, time.Minute)
		done <- result{*l, err}
	}()
	<-started
	pair(t, "late0", "peer0")
	if r := <-done; r.err != nil || r.l.Name != "late0" {
		t.Errorf("%v, %v", r.l, r.err)
	}
}

func TestNoSuchNIC(t *testing.T) {
	unshare(t, unix.CLONE_NEWNET)
	pair(t, "up0", "peer0")
	h, err := rtnl.Dial(0)
	must(t, err)
	defer h.Close()
	_, err = waitLink(h, &Interface{Name: "eth7"}, time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "up0 02:00:00:00:00:01") {
		t.Errorf("error %v does not say which NICs there are", err)
	}
}

// A neighbour that holds the twin's MAC takes ours from the announcement: what it is for, judged by the kernel of the
// neighbour and not by our reading of the RFCs.
func TestAnnounceMovesNeighbours(t *testing.T) {
	unshare(t, unix.CLONE_NEWNET)
	guest, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(guest)
	pair(t, "eth0", "peer0")
	// The neighbour lives in a namespace of its own: one that has both addresses would answer itself.
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	neighbour, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(neighbour)
	must(t, unix.Setns(guest, unix.CLONE_NEWNET))
	peer, err := netlink.LinkByName("peer0")
	must(t, err)
	must(t, netlink.LinkSetNsFd(peer, neighbour))
	p := netip.MustParsePrefix
	must(t, ConfigureNetwork([]Interface{{Name: "eth0", Addresses: []netip.Prefix{p("192.0.2.10/24"), p("2001:db8::10/64")}}}))

	must(t, unix.Setns(neighbour, unix.CLONE_NEWNET))
	must(t, ConfigureNetwork([]Interface{{Name: "peer0", Addresses: []netip.Prefix{p("192.0.2.1/24"), p("2001:db8::1/64")}}}))
	peer, err = netlink.LinkByName("peer0")
	must(t, err)
	twin := []byte{2, 0, 0, 0, 0, 0x77}
	for _, ip := range []string{"192.0.2.10", "2001:db8::10"} {
		must(t, netlink.NeighSet(&netlink.Neigh{LinkIndex: peer.Attrs().Index, IP: netip.MustParseAddr(ip).AsSlice(), HardwareAddr: twin, State: netlink.NUD_STALE}))
	}
	updates, done := make(chan netlink.NeighUpdate, 64), make(chan struct{})
	defer close(done)
	must(t, netlink.NeighSubscribeWithOptions(updates, done, netlink.NeighSubscribeOptions{ListExisting: true}))
	must(t, unix.Setns(guest, unix.CLONE_NEWNET))
	// It gives up on a link whose carrier the kernel takes more than two seconds to notice, as on a machine that is busy.
	err = Announce()
	for end := time.Now().Add(patience); err != nil && time.Now().Before(end); {
		err = Announce()
	}
	must(t, err)

	want := map[string]bool{"192.0.2.10": true, "2001:db8::10": true}
	deadline := time.After(patience)
	for len(want) > 0 {
		select {
		case u := <-updates:
			if u.HardwareAddr.String() == "02:00:00:00:00:01" {
				delete(want, u.IP.String())
			}
		case <-deadline:
			t.Fatalf("neighbours still have the twin's MAC for %v", want)
		}
	}
}

func TestMountAll(t *testing.T) {
	unshare(t, unix.CLONE_NEWNS)
	dir := t.TempDir()
	row := Mount{Source: "x", Target: filepath.Join(dir, "a/b"), Type: "tmpfs", Flags: NoSetuid | NoDevices, Options: "mode=1777", Mode: 0o1777, Magic: magicTmpfs, Why: "the test"}
	must(t, MountAll([]Mount{row, row}))
	defer unix.Unmount(row.Target, unix.MNT_DETACH)
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	must(t, err)
	n := 0
	for _, m := range parseMountinfo(string(b)) {
		if m.Target == row.Target {
			n++
			if m.Type != "tmpfs" || !strings.Contains(m.Options, "nosuid") {
				t.Errorf("mounted as %+v", m)
			}
		}
	}
	if n != 1 {
		t.Errorf("mounted %d times", n)
	}
	bad := []Mount{{Source: "x", Target: filepath.Join(dir, "c"), Type: "nosuchfs", Why: "nothing"}, {Source: "x", Target: filepath.Join(dir, "d"), Type: "nosuchfs", MayLack: true}}
	if err := MountAll(bad); err == nil || !strings.Contains(err.Error(), "no file system nosuchfs") || strings.Contains(err.Error(), "/d ") {
		t.Errorf("error %v", err)
	}
}

// On a read-only file system a system file is replaced by a mount, and changed again through it.
func TestWriteSystemFileReadOnly(t *testing.T) {
	unshare(t, unix.CLONE_NEWNS)
	must(t, unix.Mount("run", "/run", "tmpfs", 0, ""))
	dir := t.TempDir()
	must(t, unix.Mount("x", dir, "tmpfs", 0, ""))
	defer unix.Unmount(dir, unix.MNT_DETACH)
	name := filepath.Join(dir, "machine-id")
	must(t, WriteSystemFile(name, []byte("writable\n"), 0o444))
	must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	for _, text := range []string{"one\n", "two longer\n", "3\n"} {
		must(t, WriteSystemFile(name, []byte(text), 0o444))
		if b, err := os.ReadFile(name); err != nil || string(b) != text {
			t.Errorf("reads %q, %v; want %q", b, err, text)
		}
	}
	must(t, unix.Unmount(name, 0)) // once mounted, not three times
	if b, _ := os.ReadFile(name); string(b) != "writable\n" {
		t.Errorf("below the mount %q", b)
	}
}

func TestMountExtra(t *testing.T) {
	unshare(t, unix.CLONE_NEWNS)
	dir := t.TempDir()
	must(t, unix.Mount("x", dir, "tmpfs", 0, ""))
	defer unix.Unmount(dir, unix.MNT_DETACH)
	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o600))
	row := func(source, target, kind, options string) Mount {
		m, err := ParseMount(source, filepath.Join(dir, target), kind, options)
		must(t, err)
		return m
	}
	skipped, err := MountExtra([]Mount{
		row("x", "t", "tmpfs", "size=1m,nosuid"),
		row(dir, "bound", "", "bind,ro"),
		row(filepath.Join(dir, "file"), "etc/bound-file", "", "bind"),
		row("/nonexistent", "n", "", "bind,nofail"),
		row("x", "u", "nosuchfs", ""),
	})
	if len(skipped) != 1 || !strings.Contains(skipped[0].Error(), "/nonexistent") {
		t.Errorf("skipped %v", skipped)
	}
	if err == nil || !strings.Contains(err.Error(), "nosuchfs") || strings.Contains(err.Error(), "/n:") {
		t.Errorf("error %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "etc/bound-file")); string(b) != "content" {
		t.Errorf("bound file reads %q, %v", b, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bound/x"), nil, 0o600); err == nil {
		t.Error("a read-only bind mount can be written")
	}
	must(t, os.WriteFile(filepath.Join(dir, "x"), nil, 0o600))
}

// What is deleted is the old root's own file system and nothing mounted in it or linked from it.
func TestEmpty(t *testing.T) {
	unshare(t, unix.CLONE_NEWNS)
	dir, outside := t.TempDir(), t.TempDir()
	must(t, unix.Mount("x", dir, "tmpfs", 0, ""))
	defer unix.Unmount(dir, unix.MNT_DETACH)
	for _, d := range []string{"a/b/c", "mounted"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	must(t, unix.Mount("y", filepath.Join(dir, "mounted"), "tmpfs", 0, ""))
	defer unix.Unmount(filepath.Join(dir, "mounted"), unix.MNT_DETACH)
	for _, f := range []string{filepath.Join(dir, "a/b/c/f"), filepath.Join(dir, "mounted/kept"), filepath.Join(outside, "kept")} {
		must(t, os.WriteFile(f, nil, 0o600))
	}
	must(t, os.Symlink(outside, filepath.Join(dir, "link")))
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	if !inMemory(fd) {
		t.Fatal("a tmpfs is not taken for one")
	}
	empty(fd)
	left, err := os.ReadDir(dir)
	must(t, err)
	if len(left) != 1 || left[0].Name() != "mounted" {
		t.Errorf("left: %v", left)
	}
	for _, f := range []string{filepath.Join(dir, "mounted/kept"), filepath.Join(outside, "kept")} {
		if _, err := os.Stat(f); err != nil {
			t.Error(err)
		}
	}
}
