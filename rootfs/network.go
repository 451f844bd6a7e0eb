package rootfs

import (
	"bytes"
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"rouse/internal/fmt"
	"rouse/rootfs/rtnl"
)

// Interface is how one NIC is to be set up, and in JSON what a host says of a copy's. The zero value means: bring the first NIC up.
type Interface struct {
	// Name finds the NIC if MAC is empty; "" or "first" is the first real one (else the first Ethernet-like one) by
	// index. If MAC is given as well, the NIC found by it is renamed to Name.
	Name string `json:"name"`
	// MAC finds the NIC by its present hardware address, with colons or dashes.
	MAC string `json:"-"`
	// SetMAC, if not empty, becomes its hardware address: a clone must not keep its twin's.
	SetMAC string `json:"mac"`
	// Addresses are added without duplicate address detection: the host hands them out and knows
	// what is taken, and a tentative IPv6 address would keep services from binding to it for a second.
	Addresses []netip.Prefix `json:"addresses"`
	// Gateway4 and Gateway6 become default routes. One that no address's prefix covers is taken to be on the link.
	Gateway4 netip.Addr `json:"gateway4"`
	Gateway6 netip.Addr `json:"gateway6"`
	// Routes are further routes over this NIC.
	Routes []Route `json:"routes"`
	// MTU in bytes; 0 leaves it as it is.
	MTU int `json:"mtu"`
	// DHCP4 and Auto6 are for Leases: an address is asked for, or a router and what it points to are awaited.
	DHCP4 bool `json:"-"`
	Auto6 bool `json:"-"`
}

// Route is one static route.
type Route struct {
	Destination netip.Prefix `json:"to"`
	Gateway     netip.Addr   `json:"via"`    // the zero Addr: the destination is on the link
	Metric      int          `json:"metric"` // lower is preferred; 0 is the kernel's default for the family
}

// Validate checks what the kernel would take in another sense than it was meant in; all else that is wrong it refuses. Errors name
// the field.
func (i *Interface) Validate() error {
	what := ""
	for _, text := range []string{i.MAC, i.SetMAC} {
		if _, err := parseMAC(text); err != nil {
			what = err.Error() + ": want six bytes such as 02:00:00:00:00:01"
		}
	}
	if len(i.Name) > 15 { // include/uapi/linux/if.h: IFNAMSIZ is 16 with the ending zero byte; a longer one finds nothing
		what = "a name has at most 15 bytes"
	}
	for _, a := range i.Addresses {
		if !lendable(a.Addr()) {
			what = "address " + a.String() + ": want a unicast address with prefix length, such as 10.0.0.2/24"
		}
	}
	if i.Gateway4.Is6() || i.Gateway6.Is4() {
		what = "gateway4 and gateway6 are of the other family"
	}
	for n := range i.Routes {
		if r := &i.Routes[n]; !r.Destination.IsValid() || r.Gateway.IsValid() && r.Gateway.Is4() != r.Destination.Addr().Is4() {
			what = "route " + strconv.Itoa(n) + ": gateway and destination are not of one family"
		}
	}
	if what != "" {
		return errors.New(what)
	}
	return nil
}

// String is how errors call the interface.
func (i *Interface) String() string {
	switch {
	case i.MAC != "":
		return i.MAC
	case i.Name == "":
		return "first"
	}
	return i.Name
}

// routes are all routes that the interface asks for, default routes included.
func (i *Interface) routes() []Route {
	out := i.Routes[:len(i.Routes):len(i.Routes)]
	for _, g := range []netip.Addr{i.Gateway4, i.Gateway6} {
		if g.IsValid() {
			out = append(out, Route{Destination: netip.PrefixFrom(unspecified(g), 0), Gateway: g})
		}
	}
	return out
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// covers tells whether gateway lies in the prefix of one of the addresses. Link-local ones are always on the link.
func (i *Interface) covers(gateway netip.Addr) bool {
	if gateway.IsLinkLocalUnicast() && gateway.Is6() {
		return true
	}
	for _, a := range i.Addresses {
		if a.Contains(gateway) {
			return true
		}
	}
	return false
}

// parseMAC returns nil for "". Only Ethernet's six bytes are accepted, with colons or dashes.
func parseMAC(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	b, err := parseHex(strings.ReplaceAll(strings.ReplaceAll(text, ":", ""), "-", ""))
	if err != nil || len(b) != 6 || len(text) != 17 || strings.Count(text, ":") != 5 && strings.Count(text, "-") != 5 {
		return nil, fmt.Errorf("%q is no MAC", text)
	}
	return b, nil
}

func macText(mac []byte) string {
	parts := make([]string, len(mac))
	for n := range mac {
		parts[n] = fmt.Sprintf("%02x", mac[n])
	}
	return strings.Join(parts, ":")
}

// linkLocalOf is the address that the kernel gives a link by default (RFC 4291, appendix A, modified EUI-64).
func linkLocalOf(mac [6]byte) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]}), 64)
}

// pick returns the place in links of the NIC that i asks for, or -1. links are in order of their index.
func (i *Interface) pick(links []rtnl.Link) int {
	mac, _ := parseMAC(i.MAC) // validated
	first := -1
	for n := range links {
		l := &links[n]
		switch {
		case mac != nil:
			if bytes.Equal(mac, l.MAC) && !l.Loopback {
				return n
			}
		case i.Name != "" && i.Name != "first":
			if l.Name == i.Name {
				return n
			}
		case l.Loopback || !l.Ethernet:
		case l.Kind == "": // made by a driver for hardware, not by somebody's netlink request
			return n
		case first < 0:
			first = n
		}
	}
	return first
}
