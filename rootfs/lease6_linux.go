package rootfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"rouse/rootfs/rtnl"
)

// keeper6 is IPv6 as routers tell: the kernel itself makes addresses and routes of their advertisements (accept_ra); what it leaves
// to others are name servers and DHCPv6, with an address of its own (the flag "managed") or without.
type keeper6 struct {
	base
	static bool  // addresses are configured as well
	off    bool  // taken out of service until the copy may speak
	router Lease // what advertisements said
	lease  Lease // what DHCPv6 said
	server []byte
	since  time.Time
	due    bool // DHCPv6 is to be asked now, whatever the lease says
}

func (k *keeper6) key() int       { return -k.index }
func (k *keeper6) String() string { return "interface " + k.name + ": no IPv6 router" }

// disable is the kernel's own switch: it takes all addresses and routes off, and afterwards makes a link-local address from
// the MAC that there is now, checks that nobody has it, and asks for routers.
func (k *keeper6) disable(off string) {
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+k.name+"/disable_ipv6", []byte(off), 0)
}

func (k *keeper6) moved() {
	c, err := rtnl.Dial(0)
	if err != nil {
		return
	}
	defer c.Close()
	l, err := k.link(c)
	if err == nil && bytes.Equal(l.MAC, k.mac) {
		return
	}
	k.name, k.lease, k.router = l.Name, Lease{}, Lease{}
	k.keep(k.key(), Lease{})
	// With configured addresses IPv6 stays: ReplaceNetwork has removed what was the twin's.
	if k.off = !k.static; k.off {
		k.disable("1")
	}
}

// once listens for as long as it may. What a router says it says again, so nothing has to be remembered over a hold.
func (k *keeper6) once(ctx context.Context) error {
	events, err := rtnl.Listen(ctx, rtnl.RouterEvents)
	if err != nil {
		return err
	}
	defer events.Close()
	if k.off {
		k.disable("0")
		k.off = false
	}
	asked := false
	k.due = true
	for {
		l, own, global, err := k.look()
		if err != nil {
			return err
		}
		if !asked && own.IsValid() {
			solicit(k.index)
			asked = true
		}
		next := time.Time{}
		if own.IsValid() && l.Router&(rtnl.RouterManaged|rtnl.RouterOther) != 0 {
			if next, err = k.dhcp(ctx, hardware(l.MAC), own, l.Router&rtnl.RouterManaged != 0); err != nil {
				return fmt.Errorf("interface %s: %w", k.name, err)
			}
		}
		if global {
			k.settle()
		}
		options, err := events.Next(k.index, next)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		k.heard(options)
	}
}

// look returns the link, its own link-local address once nobody else has it, and whether it has one that others can reach.
func (k *keeper6) look() (l rtnl.Link, own netip.Addr, global bool, err error) {
	c, err := rtnl.Dial(0)
	if err != nil {
		return l, own, false, err
	}
	defer c.Close()
	if l, err = k.link(c); err != nil {
		return l, own, false, err
	}
	if len(l.MAC) != 6 {
		return l, own, false, fmt.Errorf("interface %s: it is no Ethernet", k.name)
	}
	k.mac = l.MAC
	list, err := c.Addresses(k.index)
	for _, a := range list {
		ip := a.Prefix.Addr()
		if !ip.Is6() || a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			continue
		}
		if ip.IsLinkLocalUnicast() {
			own = ip
		} else {
			global = true
		}
	}
	return l, own, global, err
}

// heard takes name servers from a router's options. They add up until a hold: routers that take one back are rare, and resolvers
// go on to the next one by themselves.
func (k *keeper6) heard(options [][]byte) {
	before := len(k.router.DNS) + len(k.router.Search)
	for _, o := range options {
		k.router.parseRouterOption(o)
	}
	if len(k.router.DNS)+len(k.router.Search) != before {
		k.tell()
	}
}

func (k *keeper6) tell() {
	l := k.lease
	l.DNS, l.Search = nil, nil
	for _, from := range []Lease{k.router, k.lease} {
		l.merge(from)
	}
	k.keep(k.key(), l)
}

// solicit asks routers to speak up (RFC 4861, section 4.1). The kernel does so too, after a pause by chance, and takes the answer. It is best
// effort: without CAP_NET_RAW there is only the kernel.
func solicit(index int) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	// Nothing is to be received: the default filter of ICMPv6 lets all through (RFC 3542, section 3.2).
	_ = unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &unix.ICMPv6Filter{Data: [8]uint32{^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0)}})
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255)
	_ = unix.Sendto(fd, []byte{133, 0, 0, 0, 0, 0, 0, 0}, 0, &unix.SockaddrInet6{Addr: [16]byte{0: 0xff, 1: 0x02, 15: 2}, ZoneId: uint32(index)})
}

// dhcp gets or prolongs what the flags of the router promise, if it is time to, and returns when it is again.
func (k *keeper6) dhcp(ctx context.Context, mac hardware, own netip.Addr, address bool) (next time.Time, err error) {
	if next = k.since.Add(k.lease.T1); !k.due && time.Now().Before(next) {
		return next, nil
	}
	w, err := openWire6(ctx, k.index, own)
	if err != nil {
		return next, err
	}
	defer w.close()
	c := dhcp6Client{wire: w, mac: mac, address: address}
	since := time.Now()
	before := k.lease.address()
	if before.IsValid() {
		err = c.prolong(ctx, k.lease, k.server, k.since)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, errNak) {
			k.leases.log("interface %s: %s is not ours any more: %v", k.name, before, err)
			k.remove(k.lease.Addresses)
			k.lease, before = Lease{}, netip.Prefix{}
			k.tell()
			err = errNak
		}
	} else {
		err = errNak
	}
	if errors.Is(err, errNak) {
		err = c.acquire(ctx)
	}
	if err != nil {
		return next, err
	}
	return since.Add(c.lease.T1), k.apply(c, before, since)
}

func (k *keeper6) apply(c dhcp6Client, before netip.Prefix, since time.Time) error {
	conn, err := rtnl.Dial(0)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, p := range c.lease.Addresses {
		// Not as those that the configuration gives: the kernel is to check that nobody else has it.
		if err := conn.AddAddress(k.index, p, unix.IFA_F_PERMANENT|unix.IFA_F_NOPREFIXROUTE); err != nil {
			return fmt.Errorf("add address %s: %w", p, err)
		}
	}
	if now := c.lease.address(); now != before {
		if before.IsValid() {
			k.remove([]netip.Prefix{before})
		}
		k.leases.log("interface %s: %s by DHCPv6", k.name, now)
	}
	k.lease, k.server, k.since, k.due = c.lease, c.server, since, false
	k.tell()
	return nil
}

// openWire6 is a wire to all DHCPv6 servers of a link (RFC 8415, sections 7.1 and 7.2).
func openWire6(ctx context.Context, index int, own netip.Addr) (*socket, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("DHCPv6: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	err = unix.Bind(fd, &unix.SockaddrInet6{Port: 546, ZoneId: uint32(index), Addr: own.As16()})
	s, err := newSocket(ctx, fd, err)
	if err != nil {
		return nil, fmt.Errorf("DHCPv6: bind to %s: %w", own, err)
	}
	s.to = &unix.SockaddrInet6{Port: 547, ZoneId: uint32(index), Addr: [16]byte{0: 0xff, 1: 0x02, 13: 1, 15: 2}}
	return s, nil
}
