package rootfs

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// LinkTimeout is how long ConfigureNetwork waits for a NIC that is not there yet. Drivers for virtio probe within
// finit_module; only hot-plugged and deferred ones come later.
const LinkTimeout = 5 * time.Second

// ConfigureNetwork brings loopback up, then sets up each interface: waits for the NIC, renames it, sets MAC and MTU,
// brings it up, adds addresses and routes. What is set already stays, and nothing is removed: see
// ReplaceNetwork. All interfaces are tried; the errors are joined and name the interface.
func ConfigureNetwork(interfaces []Interface) error {
	return configureNetwork(interfaces, false)
}

// ReplaceNetwork is ConfigureNetwork for a clone that is given a new identity: on the interfaces named, addresses and
// routes through gateways that are not listed are removed. IPv6 link-local addresses are kept, unless the MAC
// changes: then they make way for the one that the new MAC gives (EUI-64), as the kernel would keep the
// twin's. All that belongs to other interfaces stays, and the links are up throughout.
func ReplaceNetwork(interfaces []Interface) error {
	return configureNetwork(interfaces, true)
}

func configureNetwork(interfaces []Interface, replace bool) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("network: netlink: %w", err)
	}
	defer h.Close()
	errs := []error{loopbackUp(h)}
	for _, i := range interfaces {
		errs = append(errs, configure(h, i, replace))
	}
	return errors.Join(errs...)
}

// loopbackUp also gives lo its addresses 127.0.0.1 and ::1: the kernel adds them as the link comes up.
func loopbackUp(h *netlink.Handle) error {
	lo, err := h.LinkByName("lo")
	if err == nil {
		err = h.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("network: lo: %w", err)
	}
	return nil
}

func configure(h *netlink.Handle, i Interface, replace bool) error {
	if err := i.Validate(); err != nil {
		return err
	}
	l, err := waitLink(h, i, LinkTimeout)
	if err != nil {
		return fmt.Errorf("interface %s: %w", i, err)
	}
	if err := setLink(h, l, i); err != nil {
		return fmt.Errorf("interface %s: %w", i, err)
	}
	addresses := i.Addresses
	if replace {
		own, err := removeOthers(h, l, i)
		if err != nil {
			return fmt.Errorf("interface %s: %w", i, err)
		}
		addresses = append(own, addresses...)
	}
	errs := addAddresses(h, l, addresses)
	for _, r := range i.routes() {
		errs = append(errs, addRoute(h, l, r, i.covers(r.Gateway)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("interface %s: %w", i, err)
	}
	return nil
}

// waitLink subscribes before it looks, so that a NIC which appears between the two is not missed.
func waitLink(h *netlink.Handle, i Interface, timeout time.Duration) (netlink.Link, error) {
	updates, done := make(chan netlink.LinkUpdate, 16), make(chan struct{})
	defer close(done)
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		return nil, fmt.Errorf("link events: %w", err)
	}
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for {
		l, all, err := findLink(h, i)
		if l != nil || err != nil {
			return l, err
		}
		select {
		case _, ok := <-updates:
			if !ok {
				return nil, fmt.Errorf("link events ended")
			}
		case <-deadline.C:
			return nil, fmt.Errorf("no such NIC within %v (there are: %s); is its driver's module loaded?", timeout, strings.Join(all, ", "))
		}
	}
}

func findLink(h *netlink.Handle, i Interface) (found netlink.Link, all []string, err error) {
	list, err := h.LinkList()
	if err != nil {
		return nil, nil, fmt.Errorf("list links: %w", err)
	}
	slices.SortFunc(list, func(a, b netlink.Link) int { return cmp.Compare(a.Attrs().Index, b.Attrs().Index) })
	links := make([]link, len(list))
	for n, l := range list {
		a := l.Attrs()
		links[n] = link{name: a.Name, index: a.Index, mac: a.HardwareAddr, loopback: a.Flags&net.FlagLoopback != 0,
			physical: l.Type() == "device", ethernet: a.EncapType == "ether"}
		all = append(all, fmt.Sprintf("%s %s", a.Name, a.HardwareAddr))
	}
	if n := i.pick(links); n >= 0 {
		return list[n], all, nil
	}
	return nil, all, nil
}

// setLink leaves the link up. It is taken down only to be renamed, and only if the kernel insists (before Linux 6.2).
func setLink(h *netlink.Handle, l netlink.Link, i Interface) error {
	if i.MAC != "" && i.Name != "" && i.Name != "first" && l.Attrs().Name != i.Name {
		if err := rename(h, l, i.Name); err != nil {
			return err
		}
	}
	mac, _ := parseMAC(i.SetMAC)
	if mac != nil && !bytes.Equal(mac, l.Attrs().HardwareAddr) {
		if err := h.LinkSetHardwareAddr(l, mac); err != nil {
			return fmt.Errorf("set mac %s: %w", mac, err)
		}
	}
	if i.MTU != 0 && i.MTU != l.Attrs().MTU {
		if err := h.LinkSetMTU(l, i.MTU); err != nil {
			return fmt.Errorf("set mtu %d: %w", i.MTU, err)
		}
	}
	if err := h.LinkSetUp(l); err != nil {
		return fmt.Errorf("bring up: %w", err)
	}
	return nil
}

func rename(h *netlink.Handle, l netlink.Link, name string) error {
	err := h.LinkSetName(l, name)
	if errors.Is(err, unix.EBUSY) {
		if err = h.LinkSetDown(l); err == nil {
			err = h.LinkSetName(l, name)
		}
	}
	if err != nil {
		return fmt.Errorf("rename to %s: %w", name, err)
	}
	return nil
}

func addAddresses(h *netlink.Handle, l netlink.Link, addresses []netip.Prefix) []error {
	var errs []error
	for _, p := range addresses {
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrReplace(l, a); err != nil {
			errs = append(errs, fmt.Errorf("add address %s: %w", p, err))
		}
	}
	return errs
}

func addRoute(h *netlink.Handle, l netlink.Link, r Route, onlink bool) error {
	k := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(r.Destination.Masked()), Priority: r.Metric}
	if r.Gateway.IsValid() {
		k.Gw = r.Gateway.AsSlice()
		if !onlink {
			k.Flags = int(netlink.FLAG_ONLINK)
		}
	} else {
		k.Scope = netlink.SCOPE_LINK
	}
	if err := h.RouteReplace(k); err != nil {
		return fmt.Errorf("add route %s via %s: %w", r.Destination, r.Gateway, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// removeOthers removes addresses that i does not list, and with them the kernel removes their prefix routes; then routes
// through a gateway that i does not list. What it returns is to be added in place of what it removed.
func removeOthers(h *netlink.Handle, l netlink.Link, i Interface) (own []netip.Prefix, err error) {
	list, err := h.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	mac, _ := parseMAC(i.SetMAC)
	moved := mac != nil && !bytes.Equal(mac, l.Attrs().HardwareAddr) // l is from before it was set
	for _, a := range list {
		p := prefixOf(a.IPNet)
		linkLocal := p.Addr().IsLinkLocalUnicast() && p.Addr().Is6()
		if linkLocal && !moved || slices.Contains(i.Addresses, p) {
			continue
		}
		if linkLocal {
			own = []netip.Prefix{linkLocalOf(hardware(mac))}
		}
		if err := h.AddrDel(l, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return nil, fmt.Errorf("remove address %s: %w", p, err)
		}
	}
	return own, removeRoutes(h, l, i.routes())
}

func removeRoutes(h *netlink.Handle, l netlink.Link, keep []Route) error {
	list, err := h.RouteList(l, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range list {
		gw, ok := netip.AddrFromSlice(r.Gw)
		if !ok || slices.ContainsFunc(keep, func(k Route) bool { return k.Gateway == gw.Unmap() }) {
			continue
		}
		if err := h.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route via %s: %w", gw, err)
		}
	}
	return nil
}

// prefixOf is the inverse of ipNet; the net package stores IPv4 addresses in 16 bytes at times.
func prefixOf(n *net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

// FlushNeighbours forgets which MAC every neighbour has, but for entries that somebody made permanent: a clone may be on
// another bridge than its twin.
func FlushNeighbours() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("flush neighbours: netlink: %w", err)
	}
	defer h.Close()
	list, err := h.NeighList(0, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("flush neighbours: list: %w", err)
	}
	var errs []error
	for _, n := range list {
		if n.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0 || n.IP == nil {
			continue
		}
		if err := h.NeighDel(&n); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("flush neighbour %s: %w", n.IP, err))
		}
	}
	return errors.Join(errs...)
}
