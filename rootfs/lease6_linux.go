package rootfs

import (
	"context"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
	"rouse/rootfs/rtnl"
)

// IPv6 is as routers tell: the kernel itself makes addresses and routes of their advertisements (accept_ra); what it leaves to others
// are name servers and DHCPv6, with an address of its own (the flag "managed") or without.

// disable is the kernel's own switch: it takes all addresses and routes off, and afterwards makes a link-local address from
// the MAC that there is now, checks that nobody has it, and asks for routers.
func (k *keeper) disable(off string) {
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+k.link.Name+"/disable_ipv6", []byte(off), 0)
}

// listen goes on for as long as it may. What a router says it says again, so nothing has to be remembered over a hold.
func (k *keeper) listen(ctx context.Context) error {
	events, err := rtnl.Listen(ctx, rtnl.RouterEvents)
	if err != nil {
		return err
	}
	defer events.Close()
	if k.off {
		k.disable("0")
		k.off = false
	}
	var next time.Time // when DHCPv6 is to be asked; zero: as soon as a router says so
	solicited := false
	for {
		if err := k.look(); err != nil {
			return err
		}
		own, global, err := k.addresses()
		if err != nil {
			return err
		}
		if !solicited && own.IsValid() {
			solicit(k.link.Index)
			solicited = true
		}
		if own.IsValid() && k.link.Router&(rtnl.RouterManaged|rtnl.RouterOther) != 0 && !time.Now().Before(next) {
			next, err = k.renew(ctx, func(ctx context.Context, until time.Time) (*Lease, error) { return k.dhcp6(ctx, own, until) })
			if err != nil {
				return err
			}
		}
		if global {
			k.settle()
		}
		options, err := events.Next(k.link.Index, next)
		if err != nil && (ctx.Err() != nil || !ended(err)) {
			return err
		}
		k.heard(options)
	}
}

// addresses returns the link-local address once nobody else has it, and whether there is one that others can reach.
func (k *keeper) addresses() (own netip.Addr, global bool, err error) {
	list, err := k.c.Addresses(k.link.Index)
	for n := range list {
		ip := list[n].Prefix.Addr()
		switch {
		case !ip.Is6() || list[n].Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0:
		case ip.IsLinkLocalUnicast():
			own = ip
		default:
			global = true
		}
	}
	return own, global, err
}

// heard takes name servers from a router's options. They add up until the machine is copied: routers that take one back are rare, and
// resolvers go on to the next one by themselves.
func (k *keeper) heard(options [][]byte) {
	before := len(k.names.DNS) + len(k.names.Search)
	for _, o := range options {
		k.names.parseRouterOption(o)
	}
	if len(k.names.DNS)+len(k.names.Search) == before {
		return
	}
	l := &Lease{}
	if k.lease != nil {
		*l = *k.lease
	}
	l.merge(&k.names)
	k.set(l)
}

// solicit asks routers to speak up (RFC 4861, section 4.1). The kernel does so too, after a pause by chance, and takes the answer. It is best
// effort: without CAP_NET_RAW there is only the kernel.
func solicit(index int) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255)
	_ = unix.Sendto(fd, []byte{133, 0, 0, 0, 0, 0, 0, 0}, 0, &unix.SockaddrInet6{Addr: [16]byte{0: 0xff, 1: 0x02, 15: 2}, ZoneId: uint32(index)})
}

// dhcp6 asks all servers of the link (RFC 8415, sections 7.1 and 7.2).
func (k *keeper) dhcp6(ctx context.Context, own netip.Addr, until time.Time) (*Lease, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet6{Port: 546, ZoneId: uint32(k.link.Index), Addr: own.As16()})
	}
	w, err := newSocket(ctx, fd, err)
	if err != nil {
		return nil, fmt.Errorf("DHCPv6: %s: %w", own, err)
	}
	defer w.close()
	w.to = &unix.SockaddrInet6{Port: 547, ZoneId: uint32(k.link.Index), Addr: [16]byte{0: 0xff, 1: 0x02, 13: 1, 15: 2}}
	c := &dhcp6Client{wire: w, mac: hardware(k.link.MAC), address: k.link.Router&rtnl.RouterManaged != 0}
	l, err := c.acquire(ctx, until, k.lease)
	if err == nil {
		l.merge(&k.names)
	}
	return l, err
}
