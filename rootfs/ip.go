package rootfs

import (
	"net/netip"
	"strings"

	"rouse/internal/fmt"
)

// IPConfig is what a kernel parameter ip= asks for.
type IPConfig struct {
	Interface Interface    // Name is "" if the parameter names no device: the first NIC
	Static    bool         // addresses are given; else Method says how to get them
	Method    string       // as written: "", off, none, static, on, any, dhcp, bootp, rarp, both, dhcp6, auto6
	Hostname  string       // or ""
	DNS       []netip.Addr // 0 to 2
	Server    netip.Addr   // boot server, or the zero Addr
	NTP       netip.Addr   // or the zero Addr
}

// ParseIP reads the value of a kernel parameter ip=, as linux/Documentation/admin-guide/nfs/nfsroot.rst (v6.12) has it:
//
//	client:server:gateway:netmask:hostname:device:autoconf:dns0:dns1:ntp0
//
// or one word (dhcp, off, ...). Fields at the end may be left out. As in dracut, IPv6 addresses stand in
// brackets and the netmask may be a prefix length. A missing IPv4 netmask is guessed from the
// address's class, as the kernel does (net/ipv4/ipconfig.c ic_defaults). rouse reads ip= itself
// because the kernel does so only for drivers that are built in.
func ParseIP(value string) (IPConfig, error) {
	fields, err := splitIP(value)
	if err != nil {
		return IPConfig{}, fmt.Errorf("ip=%s: %w", value, err)
	}
	var c IPConfig
	if len(fields) == 1 && !strings.ContainsAny(fields[0], ".:") {
		c.Method = fields[0]
		return c, c.checkMethod(value)
	}
	fields = append(fields, make([]string, 10)...)
	if err := c.fill(fields); err != nil {
		return IPConfig{}, fmt.Errorf("ip=%s: %w", value, err)
	}
	return c, c.checkMethod(value)
}

// splitIP splits at colons that are not inside brackets, and drops the brackets.
func splitIP(value string) ([]string, error) {
	var fields []string
	for {
		if rest, ok := strings.CutPrefix(value, "["); ok {
			inside, after, closed := strings.Cut(rest, "]")
			if !closed {
				return nil, fmt.Errorf("bracket without end")
			}
			fields, value = append(fields, inside), after
			if value == "" {
				return fields, nil
			}
			if value[0] != ':' {
				return nil, fmt.Errorf("%q after a bracket, want a colon", value)
			}
			value = value[1:]
			continue
		}
		field, after, more := strings.Cut(value, ":")
		fields, value = append(fields, field), after
		if !more {
			return fields, nil
		}
	}
}

func (c *IPConfig) fill(f []string) error {
	var gateway netip.Addr
	for _, a := range []struct {
		name, text string
		to         *netip.Addr
	}{{"server", f[1], &c.Server}, {"gateway", f[2], &gateway}, {"ntp", f[9], &c.NTP}} {
		if err := parseAddr(a.name, a.text, a.to); err != nil {
			return err
		}
	}
	c.Hostname, c.Interface.Name, c.Method = f[4], f[5], f[6]
	if err := c.fillDNS(f[7:9]); err != nil {
		return err
	}
	if gateway.Is4() {
		c.Interface.Gateway4 = gateway
	} else {
		c.Interface.Gateway6 = gateway
	}
	if f[0] == "" {
		return nil
	}
	prefix, err := parsePrefix(f[0], f[3])
	if err != nil {
		return err
	}
	c.Static, c.Interface.Addresses = true, []netip.Prefix{prefix}
	return nil
}

func (c *IPConfig) fillDNS(texts []string) error {
	for _, text := range texts {
		var a netip.Addr
		if err := parseAddr("dns", text, &a); err != nil {
			return err
		}
		if a.IsValid() {
			c.DNS = append(c.DNS, a)
		}
	}
	return nil
}

// parseAddr leaves *to alone if text is empty, and for 0.0.0.0, which for the kernel means the same.
func parseAddr(what, text string, to *netip.Addr) error {
	if text == "" {
		return nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return fmt.Errorf("%s %q is no address", what, text)
	}
	if !a.IsUnspecified() {
		*to = a
	}
	return nil
}

func parsePrefix(address, mask string) (netip.Prefix, error) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("client %q is no address", address)
	}
	bits, err := maskBits(a, mask)
	if err != nil {
		return netip.Prefix{}, err
	}
	p := netip.PrefixFrom(a, bits)
	if !p.IsValid() {
		return netip.Prefix{}, fmt.Errorf("netmask %q does not fit %s", mask, address)
	}
	return p, nil
}

func maskBits(a netip.Addr, mask string) (int, error) {
	if mask == "" {
		return classBits(a), nil
	}
	if m, err := netip.ParseAddr(mask); err == nil && m.Is4() && a.Is4() {
		return dottedBits(m)
	}
	bits := 0
	for _, r := range mask {
		if r < '0' || r > '9' || bits > 128 {
			return 0, fmt.Errorf("netmask %q is neither dotted nor a prefix length", mask)
		}
		bits = bits*10 + int(r-'0')
	}
	return bits, nil
}

func dottedBits(m netip.Addr) (int, error) {
	b := m.As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	bits := 0
	for v&(1<<31) != 0 {
		bits++
		v <<= 1
	}
	if v != 0 {
		return 0, fmt.Errorf("netmask %s has a hole", m)
	}
	return bits, nil
}

// classBits is the netmask of the old address classes; for IPv6 there are none, and a /64 is what a link has.
func classBits(a netip.Addr) int {
	if !a.Is4() {
		return 64
	}
	switch first := a.As4()[0]; {
	case first < 128:
		return 8
	case first < 192:
		return 16
	}
	return 24
}

func (c *IPConfig) checkMethod(value string) error {
	switch c.Method {
	case "", "off", "none", "static", "on", "any", "dhcp", "bootp", "rarp", "both", "dhcp6", "auto6":
		return nil
	}
	return fmt.Errorf("ip=%s: unknown method %q; use off, or give client:server:gateway:netmask:hostname:device:off", value, c.Method)
}
