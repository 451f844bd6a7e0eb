package rtnl

import (
	"bytes"
	"net/netip"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// parseLink returns nil for what is none; so do parseAddress and parseRoute.
func parseLink(b []byte) *Link {
	if len(b) < lenLink {
		return nil
	}
	flags := native.Uint32(b[8:])
	l := &Link{Index: int(int32(native.Uint32(b[4:]))), Ethernet: native.Uint16(b[2:]) == unix.ARPHRD_ETHER,
		Loopback: flags&unix.IFF_LOOPBACK != 0, Up: flags&unix.IFF_UP != 0, Running: flags&unix.IFF_RUNNING != 0}
	attributes(b[lenLink:], func(kind uint16, value []byte) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.Name = text(value)
		case unix.IFLA_ADDRESS:
			if !bytes.Equal(value, make([]byte, len(value))) { // loopback's
				l.MAC = value
			}
		case unix.IFLA_MTU:
			l.MTU = int(number(value))
		case unix.IFLA_CARRIER:
			l.Carrier = len(value) > 0 && value[0] != 0
		case unix.IFLA_AF_SPEC:
			l.Router = routerFlags(value)
		case unix.IFLA_LINKINFO:
			attributes(value, func(kind uint16, value []byte) {
				if kind == unix.IFLA_INFO_KIND {
					l.Kind = text(value)
				}
			})
		}
	})
	return l
}

// routerFlags finds IFLA_INET6_FLAGS (1) in the part of AF_INET6.
func routerFlags(spec []byte) (flags uint32) {
	attributes(spec, func(family uint16, value []byte) {
		if family != unix.AF_INET6 {
			return
		}
		attributes(value, func(kind uint16, value []byte) {
			if kind == 1 {
				flags = number(value)
			}
		})
	})
	return flags
}

// Links lists all links, by index.
func (c *Conn) Links() ([]Link, error) {
	list, err := c.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, make([]byte, lenLink))
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var out []Link
	for _, b := range list {
		if l := parseLink(b); l != nil {
			out = append(out, *l)
		}
	}
	return out, nil
}

// LinkChange says what to change of a link; what is zero stays.
type LinkChange struct {
	Up, Down bool
	Name     string
	MAC      []byte
	MTU      int
}

// SetLink changes a link, all at once.
func (c *Conn) SetLink(index int, l LinkChange) error {
	b := make([]byte, lenLink)
	native.PutUint32(b[4:], uint32(index))
	if l.Up || l.Down {
		native.PutUint32(b[12:], unix.IFF_UP)
	}
	if l.Up {
		native.PutUint32(b[8:], unix.IFF_UP)
	}
	if l.Name != "" {
		b = attribute(b, unix.IFLA_IFNAME, append([]byte(l.Name), 0))
	}
	if l.MAC != nil {
		b = attribute(b, unix.IFLA_ADDRESS, l.MAC)
	}
	if l.MTU != 0 {
		b = attribute32(b, unix.IFLA_MTU, uint32(l.MTU))
	}
	return c.change(unix.RTM_NEWLINK, 0, b)
}

// Address is one address of a link.
type Address struct {
	Index  int
	Prefix netip.Prefix
	Flags  uint32 // IFA_F_
}

func parseAddress(b []byte) *Address {
	if len(b) < lenAddr {
		return nil
	}
	a := &Address{Index: int(native.Uint32(b[4:])), Flags: uint32(b[2])}
	var local, peer netip.Addr
	attributes(b[lenAddr:], func(kind uint16, value []byte) {
		switch kind {
		case unix.IFA_LOCAL:
			local = address(value)
		case unix.IFA_ADDRESS:
			peer = address(value)
		case unix.IFA_FLAGS:
			a.Flags = number(value)
		}
	})
	if !local.IsValid() {
		local = peer // IPv6 has IFA_LOCAL only on point-to-point links
	}
	a.Prefix = netip.PrefixFrom(local, int(b[1]))
	if !a.Prefix.IsValid() {
		return nil
	}
	return a
}

// Addresses lists the addresses, IPv4 and IPv6, of one link; index 0: of all.
func (c *Conn) Addresses(index int) ([]Address, error) {
	list, err := c.dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, make([]byte, lenAddr))
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []Address
	for _, b := range list {
		if a := parseAddress(b); a != nil && (index == 0 || a.Index == index) {
			out = append(out, *a)
		}
	}
	return out, nil
}

// AddAddress adds an address with flags (IFA_F_), or changes the flags of one that is there.
func (c *Conn) AddAddress(index int, p netip.Prefix, flags uint32) error {
	b := addressBody(index, p)
	b = attribute32(b, unix.IFA_FLAGS, flags)
	if p.Addr().Is4() && p.Bits() < 31 {
		b = attribute(b, unix.IFA_BROADCAST, broadcast(p))
	}
	return c.change(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, b)
}

// RemoveAddress removes an address; EADDRNOTAVAIL if it is not there.
func (c *Conn) RemoveAddress(index int, p netip.Prefix) error {
	return c.change(unix.RTM_DELADDR, 0, addressBody(index, p))
}

func addressBody(index int, p netip.Prefix) []byte {
	b := make([]byte, lenAddr)
	b[0], b[1] = family(p.Addr()), byte(p.Bits())
	if p.Addr().IsLoopback() {
		b[3] = unix.RT_SCOPE_HOST
	}
	native.PutUint32(b[4:], uint32(index))
	b = attribute(b, unix.IFA_LOCAL, p.Addr().AsSlice())
	return attribute(b, unix.IFA_ADDRESS, p.Addr().AsSlice())
}

// broadcast is the last address of an IPv4 prefix.
func broadcast(p netip.Prefix) []byte {
	a := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		a[bit/8] |= 0x80 >> (bit % 8)
	}
	return a[:]
}

// Route is a route of the main table.
type Route struct {
	Index       int
	Destination netip.Prefix // 0.0.0.0/0 or ::/0 is the default route
	Gateway     netip.Addr   // the zero Addr: the destination is on the link
	Metric      int          // 0: the kernel's choice for the family
	OnLink      bool         // the gateway is on the link although no address's prefix has it
}

func parseRoute(b []byte) *Route {
	if len(b) < lenRoute || b[4] != unix.RT_TABLE_MAIN || b[7] != unix.RTN_UNICAST {
		return nil
	}
	r := &Route{OnLink: native.Uint32(b[8:])&unix.RTNH_F_ONLINK != 0}
	to := netip.IPv4Unspecified()
	if b[0] == unix.AF_INET6 {
		to = netip.IPv6Unspecified()
	}
	attributes(b[lenRoute:], func(kind uint16, value []byte) {
		switch kind {
		case unix.RTA_DST:
			to = address(value)
		case unix.RTA_GATEWAY:
			r.Gateway = address(value)
		case unix.RTA_OIF:
			r.Index = int(number(value))
		case unix.RTA_PRIORITY:
			r.Metric = int(number(value))
		}
	})
	r.Destination = netip.PrefixFrom(to, int(b[1]))
	if !r.Destination.IsValid() {
		return nil
	}
	return r
}

// Routes lists the unicast routes of the main table, IPv4 and IPv6, over one link.
func (c *Conn) Routes(index int) ([]Route, error) {
	list, err := c.dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, make([]byte, lenRoute))
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var out []Route
	for _, b := range list {
		if r := parseRoute(b); r != nil && r.Index == index {
			out = append(out, *r)
		}
	}
	return out, nil
}

// ReplaceRoute adds a route, in place of one to the same destination with the same metric.
func (c *Conn) ReplaceRoute(r Route) error {
	b := routeBody(r)
	b[5], b[7] = unix.RTPROT_STATIC, unix.RTN_UNICAST
	b[6] = unix.RT_SCOPE_UNIVERSE
	if !r.Gateway.IsValid() {
		b[6] = unix.RT_SCOPE_LINK
	}
	return c.change(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, b)
}

// RemoveRoute removes a route, whoever added it; ESRCH if it is not there.
func (c *Conn) RemoveRoute(r Route) error {
	b := routeBody(r)
	b[6] = unix.RT_SCOPE_NOWHERE // any
	return c.change(unix.RTM_DELROUTE, 0, b)
}

func routeBody(r Route) []byte {
	b := make([]byte, lenRoute)
	b[0], b[1], b[4] = family(r.Destination.Addr()), byte(r.Destination.Bits()), unix.RT_TABLE_MAIN
	if r.OnLink {
		native.PutUint32(b[8:], unix.RTNH_F_ONLINK)
	}
	b = attribute32(b, unix.RTA_OIF, uint32(r.Index))
	if r.Destination.Bits() > 0 {
		b = attribute(b, unix.RTA_DST, r.Destination.Masked().Addr().AsSlice())
	}
	if r.Gateway.IsValid() {
		b = attribute(b, unix.RTA_GATEWAY, r.Gateway.AsSlice())
	}
	if r.Metric != 0 {
		b = attribute32(b, unix.RTA_PRIORITY, uint32(r.Metric))
	}
	return b
}
